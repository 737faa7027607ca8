"""How to find the callers of a function: what a walk over a stack needs to know of files and processes.

`tables` makes of a file's call frame information a table that is searched by address, and `stored` keeps the large ones
on disk. `store` puts the tables of many files where a program in the kernel searches them, and `mapped` says of a
process which of its addresses are in which file. `cpython` says where a file's CPython keeps its frames, `evaluation`
where the code is that runs them, `pythons` which CPython a process runs, and `codeobjects` what a piece of its code is
called and which line an instruction is on. `rubies`, with `iseqs`, and `phps` do the same for Ruby and PHP. `runtimes`
finds the file that has any of these, and `memory` reads what a process has. Nothing here runs in the kernel.
"""
