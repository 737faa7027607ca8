"""The application's side: declared probes → an ELF file → loaded into the process → fired.

`declaration` checks what is declared (`signature` reads it from a function, `types` names its types), `image` makes the
bytes of the file, `files` puts them where every tracer can read them, the compiled `usdtkit._probe` maps and fires
them, and `provider` holds these together. On top: `spans`, and `traced` for whole functions, classes and modules.
What applications use of it they import from `usdtkit`.
"""
