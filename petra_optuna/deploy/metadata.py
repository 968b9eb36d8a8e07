"""What a file must not carry: stack traces, paths of the machine that made it, stale shape hints."""

from __future__ import annotations

from collections.abc import Iterable

import onnx


def strip_metadata(proto: onnx.ModelProto) -> None:
    """Remove documentation, metadata and intermediate shapes, in place.

    The exporter writes tens of kB of stack traces with absolute paths, and a conversion leaves the
    shapes and types of the graph before it.
    """
    proto.doc_string = ""
    del proto.metadata_props[:]
    for function in proto.functions:
        function.doc_string = ""
        del function.metadata_props[:], function.value_info[:]
        _strip_nodes(function.node)
    _strip_graph(proto.graph)


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:], graph.value_info[:]
    for values in (graph.input, graph.output):
        for value in values:
            value.doc_string = ""
            del value.metadata_props[:]
    for initializer in graph.initializer:
        initializer.doc_string = ""
        del initializer.metadata_props[:]
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            attribute.doc_string = ""
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _strip_graph(graph)
