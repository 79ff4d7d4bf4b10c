"""The forms that JSON inputs have: by input name, or as TensorFlow Serving takes them.

Those of its REST interface are `{"instances": [...]}` (rows), `{"inputs": ...}`
(columns) and `{"examples": [...], "context": {...}}` (tf.Examples), each perhaps with
a `signature_name`.
"""

from collections.abc import Mapping
from typing import Any

from tensorflow.core.framework import types_pb2

from keras_metagraph.cli.examples import serialized_examples
from keras_metagraph.cli.json_values import is_record, to_value
from keras_metagraph.errors import SignatureError

_FORMS = ("instances", "inputs", "examples")
_KEYS = {*_FORMS, "context", "signature_name"}
_TEXTS = (types_pb2.DT_STRING, types_pb2.DT_INVALID)  # a session_bundle does not say

Infos = Mapping[str, Any]


def signature_name(request: Any) -> str | None:
    """The signature that a request names."""
    name = request.get("signature_name") if is_record(request) else None
    return name if isinstance(name, str) and _form(request) else None


def columns(request: Any, infos: Infos) -> dict[str, Any]:
    """The values of a request by input.

    Args:
        request: What JSON has.
        infos: The `TensorInfo` of each input.

    Returns:
        Nested lists, and arrays of bytes, by input name.

    Raises:
        SignatureError: If the request has another form than the inputs; its text goes
            on after "it".
    """
    form = _form(request) if is_record(request) else None
    if not is_record(request):
        found = {_only(infos): request}
    elif form is None or _is_plain(request, infos):
        found = request
    elif form == "examples":
        examples = _with_context(request["examples"], request.get("context") or {})
        return {only_string(infos): serialized_examples(examples)}
    elif form == "instances":
        found = _rows(request["instances"], infos)
    else:
        value = request["inputs"]
        found = value if is_record(value) else {_only(infos): value}
    return {key: to_value(value) for key, value in found.items()}


def only_string(infos: Infos) -> str:
    """The one input that takes strings, and so tf.Examples.

    Raises:
        SignatureError: If there is none, or several.
    """
    found = [key for key, info in infos.items() if info.dtype in _TEXTS]
    if len(found) != 1:
        raise SignatureError(
            f"is for the one string input, and the signature has {len(found)}: {found}"
        )
    return found[0]


def _only(infos: Infos) -> str:
    if len(infos) != 1:
        raise SignatureError(f"does not say which of the inputs {list(infos)} it is")
    return next(iter(infos))


def _form(request: Mapping[str, Any]) -> str | None:
    """The form of a request; none if its keys are no request's, but inputs'."""
    forms = [form for form in _FORMS if form in request]
    return forms[0] if len(forms) == 1 and _KEYS.issuperset(request) else None


def _is_plain(request: Mapping[str, Any], infos: Infos) -> bool:
    """Whether the keys are those of the inputs, where these are called as a form is."""

    def has_records(value: Any) -> bool:
        return is_record(value[0] if isinstance(value, list) and value else value)

    return request.keys() == infos.keys() and not any(
        has_records(value) for value in request.values()
    )


def _with_context(examples: Any, context: Mapping[str, Any]) -> Any:
    """The features that all examples share, in each of them."""
    if not context or not isinstance(examples, list):
        return examples
    return [{**context, **e} if is_record(e) else e for e in examples]


def _rows(instances: Any, infos: Infos) -> dict[str, Any]:
    """Columns of rows, each of which is a record, or the value of the only input."""
    if not isinstance(instances, list):
        raise SignatureError("has instances that are no list")
    if not any(map(is_record, instances)):
        return {_only(infos): instances}
    keys = list(dict.fromkeys(k for row in instances if is_record(row) for k in row))
    uneven = [
        place
        for place, row in enumerate(instances)
        if not is_record(row) or row.keys() != set(keys)
    ]
    if uneven:
        raise SignatureError(f"has instances without some of {keys}: {uneven}")
    return {key: [row[key] for row in instances] for key in keys}
