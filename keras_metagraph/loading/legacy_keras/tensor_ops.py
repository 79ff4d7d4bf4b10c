"""Ops of TensorFlow that tf.keras 2.0 to 2.3 stored as layers (`TensorFlowOpLayer`).

What came between the layers of a functional model was one layer for each op, with its
`NodeDef` and its constant inputs in the config.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf
from google.protobuf import json_format

from keras_metagraph.graph.op_defs import arg_count, arg_type, op_def
from keras_metagraph.layers.island import Island

_register = keras.saving.register_keras_serializable("keras_metagraph")


@_register
class TensorOp(keras.layers.Layer):
    """One op of TensorFlow as a layer.

    The op is looked at as every op of a loaded graph is.

    Args:
        node_def: The `NodeDef` in the form that JSON has of it.
        constants: The inputs that are constants, by their place.
        **kwargs: As for any layer.

    Raises:
        ValueError: If the op is not known, or lacks attributes.
        UntrustedContentError: If the op is none that is run.

    Example:
        >>> relu = {"name": "r", "op": "Relu", "attr": {"T": {"type": "DT_FLOAT"}}}
        >>> TensorOp(relu)(x)
    """

    def __init__(
        self,
        node_def: Mapping[str, Any],
        constants: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "autocast": False})
        self.node_def = dict(node_def)
        self.constants = dict(constants or {})
        graph_def, self._fed, self._returned = _graph(self.node_def, self.constants)
        self._island = Island(graph_def, self._fed, self._returned)

    def call(self, inputs: Any) -> Any:
        """Runs the op on a tensor, or a list of them."""
        values = inputs if isinstance(inputs, list | tuple) else [inputs]
        outputs = self._island(dict(zip(self._fed, values, strict=True)))
        found = [outputs[key] for key in self._returned]
        return found if len(found) > 1 else found[0]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        own = {"node_def": self.node_def, "constants": self.constants}
        return {**super().get_config(), **own}


def read_op(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `TensorOp` from the config of a `TensorFlowOpLayer`.

    Args:
        config: The config in the file.

    Returns:
        `node_def`, `constants` and `name`.

    Raises:
        ValueError: If the op is written in a form that is not known.
    """
    node_def = config.get("node_def")
    if isinstance(node_def, str):
        node_def = json.loads(node_def)
    if not isinstance(node_def, Mapping):
        raise ValueError(  # noqa: TRY004, as for all configs that do not fit
            "its op is written in a form that is not known"
        )
    # The name in the config lacks what Keras 2 put before it.
    name = f"tf_op_layer_{config.get('name')}"
    return {
        "node_def": dict(node_def),
        "constants": dict(config.get("constants") or {}),
        "name": name.replace("/", "_"),
    }


def _graph(
    node_def: Mapping[str, Any], constants: Mapping[str, Any]
) -> tuple[bytes, dict[str, str], dict[str, str]]:
    """A graph of the op alone, and names of the tensors that go in and out."""
    graph_def = tf.compat.v1.GraphDef()
    node = graph_def.node.add()
    try:
        json_format.ParseDict(dict(node_def), node, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ValueError(f"its op cannot be read: {error}") from error
    definition = op_def(node.op)
    if definition is None:
        raise ValueError(f"the op {node.op}, which TensorFlow does not have")
    node.name = "op"
    del node.input[:]
    fed = {}
    for place, number in enumerate(_types(definition.input_arg, definition, node)):
        name = f"input_{place}"
        node.input.append(name)
        given = graph_def.node.add(name=name)
        given.attr["dtype"].type = number
        if str(place) in constants:
            given.op = "Const"
            value = tf.make_tensor_proto(constants[str(place)], number)
            given.attr["value"].tensor.CopyFrom(value)
        else:
            given.op = "Placeholder"
            given.attr["shape"].shape.unknown_rank = True
            fed[name] = f"{name}:0"
    outputs = list(_types(definition.output_arg, definition, node))
    returned = {f"output_{place}": f"op:{place}" for place in range(len(outputs))}
    return graph_def.SerializeToString(), fed, returned


def _types(arguments: Any, definition: Any, node: Any) -> Iterator[int]:
    """The types of the tensors of an op."""
    count = functools.partial(arg_count, definition=definition, attrs=node.attr)
    for argument in arguments:
        for index in range(count(argument) or 0):
            number = arg_type(argument, definition, node.attr, index)
            if not number:
                raise ValueError(f"the op {node.op} lacks the type of {argument.name}")
            yield number
