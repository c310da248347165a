"""Looking inside a graph while it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import onnx
import onnxruntime as ort

from export.recipes.graph import Array
from serving.session import Encoding, Feed, padded


class Probe:
    """A graph whose inner tensors can be read; nothing in it is fused away."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str]) -> None:
        self._names = list(names)
        kept = list(model.graph.output)
        del model.graph.output[:]  # restored below: a copy would hold all weights twice
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        finally:
            del model.graph.output[:]
            model.graph.output.extend(kept)

    def inputs(self) -> Iterable[str]:
        """Names of the graph's inputs."""
        return (node.name for node in self._session.get_inputs())

    def run(self, feed: Feed, names: Sequence[str] | None = None) -> dict[str, Array]:
        """Tensor name -> value; of *names* among those asked for at first, all by default."""
        wanted = list(names or self._names)
        return dict(zip(wanted, self._session.run(wanted, feed), strict=True))


def feeds(
    texts: Iterable[Encoding], names: Collection[str], *, pad_token_id: int
) -> Iterator[Feed]:
    """One text at a time, so that padding is nowhere, with the inputs that the graph takes."""
    for text in texts:
        feed = padded([text], pad_token_id=pad_token_id)
        yield {name: feed[name] for name in names}
