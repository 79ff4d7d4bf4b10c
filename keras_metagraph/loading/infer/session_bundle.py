"""Reads the signatures of a session_bundle (the export before SavedModel).

They stand in the collection `serving_signatures` as a `tensorflow.serving.Signatures`
(`session_bundle/manifest.proto`), a message that TensorFlow no longer has. Its fields:

    Signatures      default_signature = 1, named_signatures = 2 (map)
    Signature       regression_signature = 1, classification_signature = 2,
                    generic_signature = 3
    Regression      input = 1, output = 2
    Classification  input = 1, classes = 2, scores = 3
    Generic         map = 1 (map)
    TensorBinding   tensor_name = 1
"""

from collections.abc import Iterator

from keras_metagraph.errors import FormatError

_LENGTH_DELIMITED = 2
_FIELDS = {
    1: ("regression", {1: ("inputs", "inputs"), 2: ("outputs", "outputs")}),
    2: (
        "classification",
        {
            1: ("inputs", "inputs"),
            2: ("outputs", "classes"),
            3: ("outputs", "scores"),
        },
    ),
}
Sides = dict[str, dict[str, str]]


def read_signatures(data: bytes) -> dict[str, Sides]:
    """Reads a serialized `tensorflow.serving.Signatures`.

    Args:
        data: The message.

    Returns:
        For each signature its method and its sides: tensor names by key under
        `"inputs"` and `"outputs"`. The one without a name is `"serving_default"`; the
        two generic ones called `inputs` and `outputs` are one signature, `"generic"`.

    Raises:
        FormatError: If the bytes are no such message.
    """
    signatures: dict[str, Sides] = {}
    for field, value in _fields(data):
        if field == 1:
            signatures["serving_default"] = _signature(value)
        elif field == 2:
            entry = dict(_fields(value))
            name = _text(entry.get(1, b""))
            signatures[name] = _signature(entry.get(2, b""))
    generic = {
        side: signatures[side]["generic"]
        for side in ("inputs", "outputs")
        if "generic" in signatures.get(side, {})
    }
    if len(generic) == 2:
        signatures["generic"] = generic
    return {
        name: sides
        for name, sides in signatures.items()
        if "generic" not in sides and sides.get("inputs") and sides.get("outputs")
    }


def _signature(data: bytes) -> Sides:
    sides: Sides = {}
    for field, value in _fields(data):
        if field == 3:
            entries = (dict(_fields(entry)) for _, entry in _fields(value))
            sides["generic"] = {
                _text(entry.get(1, b"")): _tensor(entry.get(2, b""))
                for entry in entries
            }
        elif field in _FIELDS:
            for part, binding in _fields(value):
                if part in _FIELDS[field][1]:
                    side, key = _FIELDS[field][1][part]
                    sides.setdefault(side, {})[key] = _tensor(binding)
    return sides


def _tensor(data: bytes) -> str:
    return _text(dict(_fields(data)).get(1, b""))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message; it has no others."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        if key & 7 != _LENGTH_DELIMITED:
            raise _damaged()
        length, place = _varint(data, place)
        if place + length > len(data):
            raise _damaged()
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _damaged()


def _damaged() -> FormatError:
    return FormatError(
        "The collection 'serving_signatures' is not a tensorflow.serving.Signatures.",
        fix="name inputs and outputs: load_from_meta_graph(..., inputs=..., "
        "outputs=...).",
    )
