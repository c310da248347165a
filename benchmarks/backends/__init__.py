"""`miniml bench backends`: one checkpoint and one load, on everything here that can run it.

A file a backend (`torch_cpu`, `torch_cuda`, `onnx_cpu`, `onnx_cuda`, `openvino_cpu`), each with the
same two names: `missing` says why it cannot run here, `load` gives a function from encodings to
logits. A further backend is a further file and a line in `line_up`.

`variant` holds the nouns, `models` makes the graphs, `worker` is the fresh process that loads and
measures one variant and `processes` starts it, `peaks` is what the hardware can do at most,
`measures` derives what is shown, `http` does the same behind servers, `record` and `tables` are what
a run leaves behind, and `run` drives.
"""
