"""tf.Examples from JSON."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

from keras_metagraph.cli.json_values import is_bytes, to_bytes
from keras_metagraph.errors import SignatureError


def serialized_examples(values: Any) -> Any:
    """Serializes tf.Examples.

    An example is a dict of features: a value or list of values by name, as the REST
    interface of TensorFlow Serving and `saved_model_cli --input_examples` have it
    (whole numbers become int64, others float). Or it is the JSON of the proto
    `tf.train.Example`: `{"features": {"feature": {"age": {"floatList": {"value":
    [22.0]}}}}}`, also without the outer `features`.

    Args:
        values: What JSON has: a list of such.

    Returns:
        The examples, serialized, as an array of objects.

    Raises:
        SignatureError: If they have another form; its text has all that are wrong, and
            goes on after the name of the input.

    Example:
        >>> serialized_examples([{"age": [22.0], "city": ["Lyon"]}])
    """
    if not isinstance(values, list):
        raise SignatureError(f"takes a list of examples, not {type(values).__name__}")
    problems: list[str] = []
    examples = [
        _example(value, f"example {place}", problems)
        for place, value in enumerate(values)
    ]
    if problems:
        raise SignatureError("cannot be made: " + "; ".join(problems))
    texts = [each.SerializeToString(deterministic=True) for each in examples]
    return np.array(texts, dtype=object)


def _example(value: Any, where: str, problems: list[str]) -> Any:
    example = tf.train.Example()
    if not isinstance(value, Mapping):
        problems.append(f"{where}: {value!r} is no dict of features")
    elif _is_proto(value, "features") or _is_proto(value, "feature"):
        whole = value if "features" in value else {"features": value}
        try:
            json_format.ParseDict(whole, example)
        except json_format.ParseError as error:
            problems.append(f"{where}: {error}")
    else:
        for name, values in value.items():
            _fill(example.features.feature[name], values, f"{where}, {name}", problems)
    return example


def _is_proto(value: Mapping[str, Any], field: str) -> bool:
    """Whether it is the JSON of a proto, and not a feature that is called so."""
    inner = value.get(field)
    return set(value) == {field} and isinstance(inner, dict) and not is_bytes(inner)


def _fill(feature: Any, values: Any, where: str, problems: list[str]) -> None:
    """Fills a feature; of an empty list none of its kinds, as if it were missing."""
    if not isinstance(values, list):
        values = [values]
    if not values:
        return
    try:
        if all(isinstance(each, bool | int) for each in values):
            feature.int64_list.value.extend(map(int, values))
        elif all(isinstance(each, int | float) for each in values):
            feature.float_list.value.extend(values)
        elif all(isinstance(each, str) or is_bytes(each) for each in values):
            feature.bytes_list.value.extend(map(to_bytes, values))
        else:
            problems.append(f"{where}: expected numbers or texts, received {values!r}")
    except ValueError as error:  # a number of more bits, or no base64
        problems.append(f"{where}: {error}")
