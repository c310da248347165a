"""What users would pick instead of miniml, on the same checkpoint, the same cores, the same load.

Each peer is a small server as its libraries' own pages show it, in a process of its own:
`prototype` (a transformers pipeline behind FastAPI), `plain_fastapi` (ONNX Runtime int8 behind
FastAPI, no batching), `ray_batch` (Ray Serve with `@serve.batch`). `contract` is what they are told
and asked, `classifier` the int8 model that two of them share.

`assets` makes the models they read, `line_up` lists them and how each is started, `running` starts
and stops one, `checking` compares its answers with fp32, `measuring` loads it, `record` holds what
was seen, and `run` drives. A further peer is a further server and a line in `line_up`.
"""
