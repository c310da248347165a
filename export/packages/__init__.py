"""`miniml package`: look at a finished package, prove it, compare two, measure one.

`opening` turns a reference into a verified package; `inspecting`, `verifying`, `comparing` and
`timing` are one command each; `graph` reads the ONNX file, `showing` makes the tables. Nothing here
writes.
"""
