"""The `MetaInfoDef` of an exported graph: tags, versions, fields of the user."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import any_pb2, json_format, struct_pb2
from google.protobuf.message import Message

from keras_metagraph.errors import ExportError

OLD_VERSION = "1.15.5"
_OWN_FIELDS = ("tags", "meta_graph_version", "any_info")


def write_meta_info(
    info: Any, fields: Mapping[str, Any], *, version: str, stripped: bool
) -> None:
    """Fills a `MetaInfoDef`.

    Args:
        info: The message.
        fields: `tags`, `meta_graph_version`, `any_info` (a message), and fields of the
            user, which become a `google.protobuf.Struct` in `any_info`.
        version: The TensorFlow whose ops the graph has.
        stripped: Whether attributes with default values are left out.

    Raises:
        ExportError: If a field has no form in the message.
    """
    info.tensorflow_version = version
    info.stripped_default_attrs = stripped
    tags = fields.get("tags", ())
    info.tags.extend([tags] if isinstance(tags, str) else tags)
    info.meta_graph_version = str(fields.get("meta_graph_version", ""))
    own = {name: value for name, value in fields.items() if name not in _OWN_FIELDS}
    message = fields.get("any_info")
    if own and message is not None:
        raise ExportError(
            "A MetaInfoDef has room for one message: any_info, or fields of your own. "
            f"Received both: any_info and {sorted(own)}",
            fix="put the fields into a collection.",
        )
    if own:
        message = _struct(own)
    if isinstance(message, any_pb2.Any):
        info.any_info.CopyFrom(message)
    elif isinstance(message, Message):
        info.any_info.Pack(message)


def read_meta_info(info: Any) -> dict[str, Any]:
    """The fields that a user gave to a `MetaInfoDef`.

    Args:
        info: The message.

    Returns:
        The fields; numbers come back as floats.
    """
    struct = struct_pb2.Struct()
    if not info.any_info.Unpack(struct):
        return {}
    return dict(json_format.MessageToDict(struct))


def _struct(fields: Mapping[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    try:
        struct.update(dict(fields))
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"A field of meta_info has no JSON form: {error}. Received: {fields!r}",
            fix="pass texts, numbers, lists and dicts.",
        ) from error
    return struct
