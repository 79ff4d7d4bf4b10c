"""Collections of a MetaGraphDef: lists of nodes, numbers, bytes or messages, by name.

Kinds are chosen as TensorFlow 1 chooses them. A text that names a tensor of the graph,
`"dense/Relu:0"`, or an operation, `"^init"`, and a variable of the model make a list of
nodes; objects of user classes go through the functions registered for their
collection.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.message import DecodeError, Message

from keras_metagraph.errors import ExportError, FormatError
from keras_metagraph.graph.ir import Graph, TensorName

CollectionDef = Any

OWN = "keras_metagraph"
"""The collection by which files of this package are known."""

_RESERVED = frozenset({OWN, "variables", "trainable_variables", "unbound_inputs"})


@dataclasses.dataclass(frozen=True, slots=True)
class ProtoFunctions:
    """How the objects of one collection become messages and come back.

    Attributes:
        proto_type: The message class.
        to_proto: From an object to a message; by default its own `to_proto`.
        from_proto: From a message to an object.
    """

    proto_type: type[Message] | None = None
    to_proto: Callable[[Any], Message] | None = None
    from_proto: Callable[[Message], Any] | None = None


_REGISTERED: dict[str, ProtoFunctions] = {}


def register_proto_function(
    collection_name: str,
    proto_type: type[Message] | None = None,
    to_proto: Callable[[Any], Message] | None = None,
    from_proto: Callable[[Message], Any] | None = None,
) -> None:
    """Registers how objects of a collection are written and read.

    Args:
        collection_name: The collection.
        proto_type: The message class that the file holds; needed to read it back.
        to_proto: Makes a message of an object.
        from_proto: Makes an object of a message; without it reading gives messages.

    Raises:
        ExportError: If the collection has such functions already, or belongs to the
            format.

    Example:
        >>> register_proto_function("hparams", HParamDef, HParams.to_proto, HParams)
    """
    if collection_name in _REGISTERED or collection_name in _RESERVED:
        raise ExportError(
            f"The collection {collection_name!r} has its functions already.",
            fix="take another collection name, or unregister_proto_function first.",
        )
    _REGISTERED[collection_name] = ProtoFunctions(proto_type, to_proto, from_proto)


def unregister_proto_function(collection_name: str) -> None:
    """Forgets the functions of a collection; nothing happens if there are none."""
    _REGISTERED.pop(collection_name, None)


def check_name(name: str) -> str:
    """Returns a name that a user may give to a collection, or raises an ExportError."""
    if not isinstance(name, str) or not name or name in _RESERVED:
        raise ExportError(
            f"Expected the name of a collection of your own. Received: {name!r}",
            fix=f"take a text that is none of {', '.join(sorted(_RESERVED))}.",
        )
    return name


def write_collections(
    meta_graph_def: Any,
    collections: Mapping[str, Any],
    graph: Graph,
    variable_names: Mapping[int, str],
) -> None:
    """Writes user collections into a MetaGraphDef.

    Args:
        meta_graph_def: The message to write to.
        collections: Values by collection; a single value counts as a list of one.
        graph: The graph in which names of nodes are looked up.
        variable_names: Names of the model's variables, by the variable's id.

    Raises:
        ExportError: If values have no form in a file, or a collection mixes kinds.
    """
    findings: list[str] = []
    for name, values in collections.items():
        check_name(name)
        listed = _as_list(values)
        encoded = [
            ("node_list", f"{variable_names[id(value)]}:0")
            if id(value) in variable_names
            else _encode(name, value, graph)
            for value in listed
        ]
        kinds = sorted({kind for kind, _ in encoded})
        if "" in kinds:
            findings += [
                f"{name}: {type(value).__name__} {value!r}"
                for (kind, _), value in zip(encoded, listed, strict=True)
                if not kind
            ]
        elif len(kinds) > 1:
            findings.append(f"{name}: mixes {', '.join(kinds)}")
        elif kinds:
            target = getattr(meta_graph_def.collection_def[name], kinds[0]).value
            target.extend(value for _, value in encoded)
    if findings:
        raise ExportError(
            "A collection holds tensor names, numbers, bytes, texts or messages, all "
            "of one kind. It cannot hold:",
            findings=findings,
            fix="give the class a to_proto method, register_proto_function for the "
            "collection, or write the value as text.",
        )


def read_collection(name: str, collection_def: CollectionDef) -> list[Any]:
    """The values of a collection: names, numbers, bytes, or what was registered.

    Args:
        name: Name of the collection.
        collection_def: The message that holds it.

    Returns:
        Texts for nodes, ints, floats, bytes, `Any` messages; objects where a
        `from_proto` is registered for the collection.

    Raises:
        FormatError: If a value is not the message that is registered.
    """
    kind = collection_def.WhichOneof("kind")
    if kind is None:
        return []
    values = list(getattr(collection_def, kind).value)
    functions = _REGISTERED.get(name, ProtoFunctions())
    if functions.proto_type is None or kind not in ("bytes_list", "any_list"):
        return values
    return [_decode(name, value, functions) for value in values]


def _decode(name: str, value: Any, functions: ProtoFunctions) -> Any:
    message = functions.proto_type() if functions.proto_type else None
    content = value.value if isinstance(value, AnyProto) else value
    try:
        message.ParseFromString(content)  # type: ignore[union-attr]
    except DecodeError as error:
        raise FormatError(
            f"The collection {name!r} holds no {functions.proto_type}: {error}",
            fix="register the message class that the file was written with.",
        ) from error
    return functions.from_proto(message) if functions.from_proto else message


def _as_list(values: Any) -> list[Any]:
    if isinstance(values, np.ndarray):
        return [value.item() for value in values.ravel()]
    if isinstance(values, Sequence | set | frozenset) and not isinstance(
        values, str | bytes
    ):
        return list(values)
    return [values]


def _encode(name: str, value: Any, graph: Graph) -> tuple[str, Any]:
    """The kind of list that a value belongs to, and its form there; "" for none."""
    to_proto = _REGISTERED.get(name, ProtoFunctions()).to_proto
    to_proto = to_proto or (
        type(value).to_proto if hasattr(type(value), "to_proto") else None
    )
    if to_proto is not None:
        return "bytes_list", to_proto(value).SerializeToString(deterministic=True)
    if isinstance(value, Message):
        packed = AnyProto()
        if isinstance(value, AnyProto):
            packed.CopyFrom(value)
        else:
            packed.Pack(value, deterministic=True)
        return "any_list", packed
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        node = _node_reference(value, graph)
        return ("node_list", node) if node else ("bytes_list", value.encode("utf-8"))
    kinds: dict[str, Any] = {
        "bytes_list": bytes,
        "int64_list": int,
        "float_list": float,
    }
    for kind, plain in kinds.items():
        if isinstance(value, plain):
            return kind, plain(value)
    return "", value


def _node_reference(text: str, graph: Graph) -> str | None:
    """The node or tensor that a text names, as `node_list` writes it."""
    if text.startswith("^"):
        return text[1:] if text[1:] in graph.nodes else None
    tensor = TensorName.parse(text)
    return text if str(tensor) == text and tensor.node in graph.nodes else None
