"""What users would pick instead of miniml, on the same checkpoint, the same cores, the same load.

Each peer is a small server as its libraries' own pages show it, in a process of its own; README.md
beside this file says what each is, which version, and how it is started. `contract` is what they
are told and asked, `codecs` how those are asked whose protocol is another, `classifier` the int8
model that most of them share.

`assets` makes the models they read, `environments` the libraries of those that bring their own,
`line_up` and `apart` list them and how each is started, `running` starts and stops one, `checking`
compares its answers with fp32, `measuring` loads it, `record` holds what was seen, and `run` drives.
A further peer is a further server and a line in `line_up` or `apart`.
"""
