"""Functions of a SavedModel that has no signatures.

`tf.saved_model.save` writes signatures only if it is given some, or finds the one
function that can be one. What Python calls after `tf.saved_model.load` are functions of
the object graph (`saved_object_graph.proto`); here each becomes a signature.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.graph.object_graph import object_at
from keras_metagraph.graph.passes.inline_calls import CALLS
from keras_metagraph.graph.restore_wiring import restored_variables
from keras_metagraph.loading.infer.signatures import signature_defs

_CALL = "StatefulPartitionedCall"
_METHOD = "tensorflow/serving/predict"


def with_function_signatures(meta_graph_def: Any) -> Any:
    """Makes signatures of the functions that the saved object has.

    Args:
        meta_graph_def: A MetaGraphDef; not changed.

    Returns:
        The MetaGraphDef; or, if it has functions and no signature, a copy with a
        signature for each: `name`, and `name_1` and so on for its further traces.
        Functions that need what the graph does not have are left out.
    """
    objects = meta_graph_def.object_graph_def.nodes
    functions = {
        child.local_name: objects[child.node_id].function.concrete_functions
        for child in (objects[0].children if objects else ())
        if 0 <= child.node_id < len(objects)
        and objects[child.node_id].HasField("function")
    }
    if not functions or signature_defs(meta_graph_def):
        return meta_graph_def
    result = type(meta_graph_def)()
    result.CopyFrom(meta_graph_def)
    maker = _Maker(result)
    for name, traces in functions.items():
        for place, trace in enumerate(traces):
            maker.add(f"{name}_{place}" if place else name, trace)
    return result


class _Maker:
    """Adds calls of functions, and their signatures, to a MetaGraphDef."""

    def __init__(self, meta_graph_def: Any) -> None:
        self._meta_graph_def = meta_graph_def
        self._concrete = meta_graph_def.object_graph_def.concrete_functions
        library = meta_graph_def.graph_def.library.function
        self._functions = {f.signature.name: f.signature for f in library}
        self._nodes = {node.name for node in meta_graph_def.graph_def.node}
        self._captured = _captured(meta_graph_def)

    def add(self, name: str, function: str) -> None:
        """Adds a signature for a function, if all that it captures is there."""
        if function not in self._functions or function not in self._concrete:
            return
        called, concrete = self._functions[function], self._concrete[function]
        captured = [self._captured.get(number, "") for number in concrete.bound_inputs]
        count = len(called.input_arg) - len(captured)
        if count < 0 or not all(captured):
            return
        signature = self._meta_graph_def.signature_def[name]
        signature.method_name = _METHOD
        specs = [spec for _, spec in _leaves(concrete.canonicalized_input_signature)]
        fitting = specs if len(specs) == count else [None] * count
        fed = []
        for arg, spec in zip(called.input_arg[:count], fitting, strict=True):
            node = self._node("Placeholder", f"{name}_{arg.name}")
            node.attr["dtype"].type = arg.type
            node.attr["shape"].shape.unknown_rank = True
            if spec is not None:
                node.attr["shape"].shape.CopyFrom(spec.shape)
            fed.append(node.name)
            info = signature.inputs[arg.name]
            info.name, info.dtype = f"{node.name}:0", arg.type
            info.tensor_shape.CopyFrom(node.attr["shape"].shape)
        call = self._node(_CALL, f"{name}_call")
        call.input.extend([*fed, *captured])
        call.attr["f"].func.name = function
        call.attr["Tin"].list.type.extend(arg.type for arg in called.input_arg)
        call.attr["Tout"].list.type.extend(arg.type for arg in called.output_arg)
        leaves = dict(_leaves(concrete.output_signature))
        keys = list(leaves) if len(leaves) == len(called.output_arg) else []
        for place, arg in enumerate(called.output_arg):
            key = keys[place] if keys else f"output_{place}"
            info = signature.outputs[key]
            info.name, info.dtype = f"{call.name}:{place}", arg.type
            info.tensor_shape.unknown_rank = True
            if keys:
                info.tensor_shape.CopyFrom(leaves[key].shape)

    def _node(self, op: str, name: str) -> Any:
        """A new node, under a free name."""
        # A node's name begins with a letter, and that of `__call__` does not.
        base = free = name.lstrip("_")
        number = 0
        while free in self._nodes:
            number += 1
            free = f"{base}_{number}"
        self._nodes.add(free)
        return self._meta_graph_def.graph_def.node.add(op=op, name=free)


def _captured(meta_graph_def: Any) -> dict[int, str]:
    """Tensors of the graph by the number of the object that they stand for.

    Constants say it, variables are known by their keys in the checkpoint, tables by the
    calls that fill them.
    """
    object_graph = meta_graph_def.object_graph_def
    found = {
        number: each.constant.operation
        for number, each in enumerate(object_graph.nodes)
        if each.HasField("constant")
    }
    graph = graph_from_proto(meta_graph_def.graph_def)
    for name, restored in restored_variables(meta_graph_def, graph).items():
        number = object_at(object_graph.nodes, restored.key)
        if number is not None:
            found[number] = name
    for node in graph.nodes.values():
        function = node.attrs["f"].func.name if node.op in CALLS else ""
        if function in object_graph.concrete_functions:
            bound = object_graph.concrete_functions[function].bound_inputs
            given = node.inputs[len(node.inputs) - len(bound) :]
            found |= zip(bound, map(_text, given), strict=False)
    return found


def _text(tensor: TensorName) -> str:
    return tensor.node if tensor.index == 0 else str(tensor)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors of a structure in TensorFlow's order, with keys made of their place.

    TF `struct.proto`: dicts are ordered by key; numbers, None and the like are no
    tensors.
    """
    kind = value.WhichOneof("kind")
    if kind == "tensor_spec_value":
        yield key or "output_0", value.tensor_spec_value
    elif kind == "dict_value":
        fields: Mapping[str, Any] = value.dict_value.fields
        for name in sorted(fields):
            yield from _leaves(fields[name], f"{key}_{name}" if key else name)
    elif kind in ("list_value", "tuple_value"):
        for place, each in enumerate(getattr(value, kind).values):
            yield from _leaves(each, f"{key or 'output'}_{place}")
