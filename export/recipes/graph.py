"""What every recipe needs of a graph: who makes a tensor, which are constant, what nobody reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators


class Graph:
    """An ONNX graph that is being rewritten. Nodes may be added in any order: `seal` sorts them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in model.graph.initializer}
        for node in [n for n in self.nodes if n.op_type == "Constant"]:
            self._adopt(node)
        outputs = {value.name for value in model.graph.output}
        for node in [n for n in self.nodes if n.op_type == "Identity"]:
            if node.input[0] in self.constants and node.output[0] not in outputs:
                # Exporters keep equal constants once, and others by reference.
                self.nodes.remove(node)
                self.redirect(node.output[0], node.input[0])
        self._makers = {out: node for node in self.nodes for out in node.output}

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that computes tensor *name*; None for inputs and constants."""
        return self._makers.get(name)

    def constant(self, name: str) -> Array | None:
        """The value of tensor *name*, when it is a constant."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def set_constant(self, name: str, value: Array) -> str:
        """Make tensor *name* a constant; whoever computed it no longer does."""
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        if (node := self._makers.pop(name, None)) is not None:
            self.nodes.remove(node)
        return name

    def add(
        self,
        op_type: str,
        inputs: Iterable[str],
        output: str,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Append a node; the name of its one output."""
        node = helper.make_node(
            op_type, list(inputs), [output], name=output, domain=domain, **attributes
        )
        self.nodes.append(node)
        self._makers[output] = node
        return output

    def replace(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        """Put *new* in the place of *node*; it makes the same outputs."""
        self.nodes[self.nodes.index(node)] = new
        self._makers.update(dict.fromkeys(new.output, new))

    def redirect(self, old: str, new: str) -> None:
        """Let everyone who reads tensor *old* read *new*, in the branches of an If, too."""
        for node in self.nodes:
            for inner in (node, *_inner_nodes(node)):
                for place, name in enumerate(inner.input):
                    if name == old:
                        inner.input[place] = new

    def readers(self) -> Mapping[str, list[onnx.NodeProto]]:
        """Tensor name -> the nodes that read it, as of now."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in reads(node):
                found.setdefault(name, []).append(node)
        return found

    def seal(self) -> onnx.ModelProto:
        """The model with what its outputs need and nothing else, makers before readers."""
        ordered: list[onnx.NodeProto] = []
        done: set[int] = set()
        stack = [(value.name, False) for value in reversed(self.model.graph.output)]
        while stack:  # depth first without recursion: a graph is deeper than Python's stack
            name, expanded = stack.pop()
            node = self._makers.get(name)
            if node is None or id(node) in done:
                continue
            if expanded:
                done.add(id(node))
                ordered.append(node)
            else:
                stack.append((name, True))
                stack.extend((needed, False) for needed in reversed(reads(node)))
        used = {name for node in ordered for name in reads(node)}
        used |= {value.name for value in self.model.graph.output}
        graph = self.model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(ordered)
        graph.initializer.extend(t for name, t in self.constants.items() if name in used)
        self._declare_domains(ordered)
        return self.model

    def _adopt(self, node: onnx.NodeProto) -> None:
        """A Constant node, kept as what it is: a constant."""
        value = helper.get_attribute_value(node.attribute[0])
        tensor = value if isinstance(value, onnx.TensorProto) else None
        if tensor is None:
            return
        kept = onnx.TensorProto()
        kept.CopyFrom(tensor)
        kept.name = node.output[0]
        self.constants[kept.name] = kept
        self.nodes.remove(node)

    def _declare_domains(self, nodes: Iterable[onnx.NodeProto]) -> None:
        known = {opset.domain for opset in self.model.opset_import}
        if any(node.domain == MICROSOFT for node in nodes) and MICROSOFT not in known:
            self.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


def reads(node: onnx.NodeProto) -> list[str]:
    """Tensors that *node* reads: its inputs, and what the branches of an If take from outside."""
    names = list(node.input)
    for inner in _inner_nodes(node):
        names.extend(inner.input)  # what a branch makes itself is no tensor of ours: harmless
    return names


def _inner_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """The nodes of all graphs inside *node*."""
    for found in node.attribute:
        for inner in found.g.node:
            yield inner
            yield from _inner_nodes(inner)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute of *node*, or *default*."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)
