"""TensorFlow Serving's rules for signatures, on the protos alone.

From `servables/tensorflow/classifier.cc`, `regressor.cc` and `predict_util.cc` of
TensorFlow Serving, and from `is_valid_signature` and the checks of `SavedModelBuilder`
of TensorFlow 1.15 (`saved_model/signature_def_utils_impl.py`, `builder_impl.py`).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tensorflow.core.framework import types_pb2

from keras_metagraph.errors import SignatureError
from keras_metagraph.export.signatures import CLASSIFY, PREDICT, REGRESS

RESERVED = "__saved_model_"
_CLASSES, _SCORES, _INPUTS, _OUTPUTS = "classes", "scores", "inputs", "outputs"


def signature_findings(key: str, signature_def: Any) -> list[str]:
    """What servers would refuse about a signature.

    Args:
        key: Its key.
        signature_def: The `SignatureDef`.

    Returns:
        A line for each finding, the key in front; none for a signature that is valid.

    Example:
        ```python
        signature_findings("serving_default", meta_graph_def.signature_def[key])
        ```
    """
    found = [*_key(key), *_tensors(signature_def)]
    method = signature_def.method_name
    if not method:
        found.append("the method name is empty")
    rules = _RULES.get(method)
    if rules is not None:
        found += rules(signature_def)
    return [f"{key}: {finding}" for finding in found]


def check_keys(signatures: Any) -> None:
    """Refuses what is no mapping of signatures by key.

    Args:
        signatures: What the caller passed; None is fine.

    Raises:
        SignatureError: If it is something else.
    """
    fits = isinstance(signatures, Mapping | None)
    if not fits or not all(isinstance(key, str) for key in signatures or ()):
        raise SignatureError(
            f"Signatures are passed by key. Received: signatures={signatures!r}",
            fix='pass {"serving_default": signature}.',
        )


def check_signatures(signature_defs: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Refuses signatures that servers would refuse.

    Args:
        signature_defs: `SignatureDef`s by key.
        keys: Which of them.

    Raises:
        SignatureError: If any is not valid; lists all findings of all of them.
    """
    findings = [
        finding
        for key in keys
        for finding in signature_findings(key, signature_defs[key])
    ]
    if findings:
        raise SignatureError(
            "TensorFlow Serving would not take these signatures:",
            findings=findings,
            fix="make them with classify_signature, regress_signature or "
            "predict_signature, or change what the findings name.",
        )


def _key(key: str) -> list[str]:
    if not key:
        return ["the key is empty"]
    if key.startswith(RESERVED):
        return ["keys that begin so are TensorFlow's own"]
    return []


def _tensors(signature_def: Any) -> list[str]:
    """Tensors without a name or type, which the builder of SavedModels refuses."""
    findings = []
    for side in ("inputs", "outputs"):
        for key, info in sorted(getattr(signature_def, side).items()):
            what = f"{side[:-1]} {key!r}"
            if not key:
                findings.append(f"an {side[:-1]} has an empty key")
            if not _is_named(info):
                findings.append(f"{what} names no tensor")
            # A composite tensor has the types in its parts.
            plain = info.WhichOneof("encoding") != "composite_tensor"
            if plain and info.dtype == types_pb2.DT_INVALID:
                findings.append(f"{what} has no type")
    return findings


def _is_named(info: Any) -> bool:
    """Whether all parts of a tensor have names."""
    encoding = info.WhichOneof("encoding")
    if encoding == "composite_tensor":
        return all(_is_named(part) for part in info.composite_tensor.components)
    if encoding == "coo_sparse":
        parts = info.coo_sparse
        return all(
            (
                parts.indices_tensor_name,
                parts.values_tensor_name,
                parts.dense_shape_tensor_name,
            )
        )
    return bool(info.name)


def _predict(signature_def: Any) -> list[str]:
    return [
        f"a predict signature has {side}, and this has none"
        for side in ("inputs", "outputs")
        if not getattr(signature_def, side)
    ]


def _classify(signature_def: Any) -> list[str]:
    findings = _examples(signature_def, "classify")
    outputs = signature_def.outputs
    shapes = {}
    for key, dtype in ((_CLASSES, types_pb2.DT_STRING), (_SCORES, types_pb2.DT_FLOAT)):
        if key in outputs:
            findings += _dtype("output", key, outputs[key], dtype)
            shapes[key] = _dims(outputs[key])
            if shapes[key] is not None and len(shapes[key] or ()) != 2:
                findings.append(
                    f"output {key!r} has the shape {shapes[key]}, expected "
                    "(batch, classes)"
                )
    if not shapes:
        findings.append(
            "a classify signature has the outputs 'classes' or 'scores', or both"
        )
    widths = {dims[1] for dims in shapes.values() if dims and len(dims) == 2} - {-1}
    if len(widths) > 1:
        findings.append(
            f"'classes' and 'scores' are of different widths: {sorted(widths)}"
        )
    findings += _others("output", outputs, (_CLASSES, _SCORES))
    return findings


def _regress(signature_def: Any) -> list[str]:
    findings = _examples(signature_def, "regress")
    outputs = signature_def.outputs
    if _OUTPUTS in outputs:
        findings += _dtype("output", _OUTPUTS, outputs[_OUTPUTS], types_pb2.DT_FLOAT)
        dims = _dims(outputs[_OUTPUTS])
        if dims is not None and not (
            len(dims) == 1 or (len(dims) == 2 and dims[1] in (1, -1))
        ):
            findings.append(
                f"output {_OUTPUTS!r} has the shape {dims}, expected (batch,) or "
                "(batch, 1)"
            )
    else:
        findings.append("a regress signature has the output 'outputs'")
    return findings + _others("output", outputs, (_OUTPUTS,))


def _examples(signature_def: Any, kind: str) -> list[str]:
    """The one input of serialized examples."""
    inputs = signature_def.inputs
    findings = _others("input", inputs, (_INPUTS,))
    if _INPUTS not in inputs:
        return [f"a {kind} signature has the input 'inputs'", *findings]
    info = inputs[_INPUTS]
    findings += _dtype("input", _INPUTS, info, types_pb2.DT_STRING)
    dims = _dims(info)
    if dims is not None and len(dims) != 1:
        findings.append(f"input {_INPUTS!r} has the shape {dims}, expected (batch,)")
    return findings


def _dtype(side: str, key: str, info: Any, expected: int) -> list[str]:
    if info.dtype in (expected, types_pb2.DT_INVALID):  # the latter is found elsewhere
        return []
    names = types_pb2.DataType
    return [
        f"{side} {key!r} is {names.Name(info.dtype)}, expected {names.Name(expected)}"
    ]


def _dims(info: Any) -> tuple[int, ...] | None:
    """The static shape, -1 for what is not known; None for an unknown rank.

    A shape that was never set reads as a scalar, which no batch is.
    """
    if info.tensor_shape.unknown_rank or not info.tensor_shape.dim:
        return None
    return tuple(dim.size for dim in info.tensor_shape.dim)


def _others(side: str, tensors: Mapping[str, Any], known: tuple[str, ...]) -> list[str]:
    return [
        f"there is another {side} {key!r}"
        for key in sorted(tensors)
        if key not in known
    ]


_RULES: dict[str, Callable[[Any], list[str]]] = {
    CLASSIFY: _classify,
    PREDICT: _predict,
    REGRESS: _regress,
}
