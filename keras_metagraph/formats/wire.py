"""Counts what is in a serialized proto, before memory is spent on parsing it.

Ten megabytes of empty nodes take half a gigabyte once parsed.
"""

from collections.abc import Iterator

_LENGTH_DELIMITED = 2

# Which fields are looked into, by message: meta_graph.proto, saved_model.proto,
# graph.proto, function.proto.
_INNER: dict[str, dict[int, str]] = {
    "SavedModel": {2: "MetaGraphDef"},
    "MetaGraphDef": {2: "GraphDef"},
    "GraphDef": {2: "FunctionDefLibrary"},
    "FunctionDefLibrary": {1: "FunctionDef"},
    "FunctionDef": {},
}


def count_parts(data: bytes, message: str, limit: int) -> int:
    """Counts nodes, functions, their nodes, collections and signatures.

    Args:
        data: A serialized message; what is damaged in it is not counted.
        message: Its type, `"MetaGraphDef"` or `"SavedModel"`.
        limit: Where counting ends.

    Returns:
        How many fields the messages have that hold these parts.
    """
    count, stack = 0, [(message, 0, len(data))]
    while stack:
        name, start, end = stack.pop()
        inner = _INNER[name]
        for number, wire_type, begin, stop in read_fields(data, start, end):
            count += 1
            if count > limit:
                return count
            if wire_type == _LENGTH_DELIMITED and number in inner:
                stack.append((inner[number], begin, min(stop, end)))
    return count


def read_fields(
    data: bytes, start: int, end: int
) -> Iterator[tuple[int, int, int, int]]:
    """Walks the fields of a serialized message, as far as they are well-formed.

    Args:
        data: The bytes.
        start: Where the message begins.
        end: Where it ends.

    Yields:
        Field number, wire type, and where its value begins and ends. The end of the
        last one lies behind `end` if the message is truncated.
    """
    while start < end:
        tag, start = _varint(data, start, end)
        wire_type = tag & 7
        if start < 0 or tag >> 3 == 0:
            return
        begin = start
        if wire_type == _LENGTH_DELIMITED:
            length, begin = _varint(data, start, end)
            start = begin + length if begin >= 0 else -1
        elif wire_type == 0:
            _, start = _varint(data, start, end)
        elif wire_type == 1:
            start += 8
        elif wire_type == 5:
            start += 4
        else:
            return
        if start < 0:
            return
        yield tag >> 3, wire_type, begin, start


def _varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    """A variable-length number and where it ends; -1 where it does not."""
    value = shift = 0
    while start < end and shift < 70:
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
    return 0, -1
