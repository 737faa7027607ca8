"""The application's side: declared probes → an ELF file → loaded into the process → fired.

`provider` is what applications use. A declaration is checked by `declaration`; `signature` reads one from a function,
whose annotations are `types`. To load the probes, `publishing` asks `loading` for a file: `image` makes its bytes,
`files` stores it where every tracer can read it. The compiled `usdtkit._probe` maps the file and fires; `compiled`
imports it, or `silent` if it cannot be built. `encoding` makes json arguments, and `drops` reports calls that cannot
be fired. `registry` has the providers of the process, and `namesakes` handles two of one name. On top are `spans`, and
`traced` for whole functions, classes and modules. Applications import the public names from `usdtkit`.
"""
