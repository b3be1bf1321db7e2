"""The two sides of distillation: `students/` and `teachers/`, each a table by name and a module each.

`build` makes them, by those names or by `package.module:factory`; `weights` reads and writes their files, `download`
fetches published ones.
"""
