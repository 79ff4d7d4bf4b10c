"""Which ops and attributes TensorFlow 1.15 knows.

The table `ops_1_15.json` says where it comes from; it is read once.
"""

import functools
import importlib.resources
import json

_TABLE = "ops_1_15.json"


@functools.cache
def known_ops() -> dict[str, frozenset[str]]:
    """The names of the attributes of each op of TensorFlow 1.15.5."""
    file = importlib.resources.files("keras_metagraph.export").joinpath(_TABLE)
    ops = json.loads(file.read_text(encoding="utf-8"))["ops"]
    return {op: frozenset(attributes.split()) for op, attributes in ops.items()}
