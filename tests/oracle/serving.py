"""TF Serving's way with a request, from its sources, over a SavedModel directory.

What each function checks, in which order and in what words, is that of the file of
`tensorflow/serving` that its docstring names. Loading and running are TensorFlow's: the
session loader with the tag `serve` restores the variables and runs the main op.

Two things differ from the C++: an `Example` is parsed before it is fed, and a fed array
is compared with the placeholder's static shape, which a server leaves to the kernels.
"""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

v1 = tf.compat.v1
constants = tf.saved_model

METHODS = {
    "classification": constants.CLASSIFY_METHOD_NAME,
    "regression": constants.REGRESS_METHOD_NAME,
}


class StatusError(Exception):
    """What a server answers instead of a response.

    Attributes:
        code: The canonical code, such as `"INVALID_ARGUMENT"`.
        message: Its text.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def _invalid(*parts: Any) -> StatusError:
    return StatusError("INVALID_ARGUMENT", "".join(map(str, parts)))


class Server:
    """Serves one SavedModel directory.

    Args:
        directory: The SavedModel.
        tags: The MetaGraph; a server takes `serve`.
        method_name_check: The flag `--enable_signature_method_name_check`: off unless
            given; older servers, which had no such flag, always checked.
    """

    def __init__(
        self,
        directory: Any,
        *,
        tags: Iterable[str] = ("serve",),
        method_name_check: bool = False,
    ) -> None:
        self._directory = directory
        self._method_name_check = method_name_check
        self._graph = tf.Graph()
        self._session = v1.Session(graph=self._graph)
        with self._graph.as_default():
            loaded = v1.saved_model.load(self._session, list(tags), str(directory))
        self._signatures = dict(loaded.signature_def)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: Any) -> None:
        self._session.close()

    def classify(self, request: Any) -> Any:
        """`RunClassify` of `classifier.cc`."""
        key, signature = self._find(request.model_spec, "classification")
        response = classification_pb2.ClassificationResponse()
        _fill_model_spec(response.model_spec, request.model_spec, key)
        feed = self._one_input(signature, "classification")
        fetches = _classification_outputs(signature)
        count, arrays = self._run_examples(request.input, feed, fetches.values())
        outputs = dict(zip(fetches, arrays, strict=True))
        _fill_classifications(response.result, outputs, count)
        return response

    def regress(self, request: Any) -> Any:
        """`RunRegress` of `regressor.cc`."""
        key, signature = self._find(request.model_spec, "regression")
        response = regression_pb2.RegressionResponse()
        _fill_model_spec(response.model_spec, request.model_spec, key)
        feed = self._one_input(signature, "regression")
        fetch = _regression_output(signature)
        count, (values,) = self._run_examples(request.input, feed, [fetch])
        _fill_regressions(response.result, values, count)
        return response

    def predict(self, request: Any) -> Any:
        """`RunPredict` of `predict_util.cc`."""
        key = _signature_name(request.model_spec)
        if key not in self._signatures:
            raise StatusError(
                "FAILED_PRECONDITION", f'Serving signature key "{key}" not found.'
            )
        signature = self._signatures[key]
        response = predict_pb2.PredictResponse()
        _fill_model_spec(response.model_spec, request.model_spec, key)
        self._check_predict_method(signature)
        feeds = _input_values(signature, request.inputs)
        aliases = _output_aliases(signature, request.output_filter)
        fetches = [signature.outputs[alias].name for alias in aliases]
        for alias, array in zip(aliases, self._run(feeds, fetches), strict=True):
            response.outputs[alias].CopyFrom(tf.make_tensor_proto(array))
        return response

    def warm_up(self) -> int:
        """`RunSavedModelWarmup` of `saved_model_warmup_util.cc`.

        Returns:
            The number of requests in `assets.extra/`, all of which ran.
        """
        path = f"{self._directory}/assets.extra/tf_serving_warmup_requests"
        calls = {
            "predict_log": self.predict,
            "classify_log": self.classify,
            "regress_log": self.regress,
        }
        count = 0
        for count, record in enumerate(tf.data.TFRecordDataset(path), 1):
            if count > 1000:
                raise _invalid(
                    "Number of warmup records exceeds the maximum (1000) at ", path
                )
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            kind = log.WhichOneof("log_type")
            calls[kind](getattr(log, kind).request)
        return count

    def _find(self, model_spec: Any, kind: str) -> tuple[str, Any]:
        """`GetClassificationSignatureDef` and `GetRegressionSignatureDef`."""
        key = _signature_name(model_spec)
        if key not in self._signatures:
            raise _invalid("No signature was found with the name: ", key)
        self._check_method(self._signatures[key], kind)
        return key, self._signatures[key]

    def _check_method(self, signature: Any, kind: str) -> None:
        """The check that the flag turns on, of `classifier.cc` and `regressor.cc`."""
        expected = METHODS[kind]
        if self._method_name_check and signature.method_name != expected:
            raise _invalid(
                f"Expected {kind} signature method_name to be {expected}. "
                f"Was: {signature.method_name}"
            )

    def _check_predict_method(self, signature: Any) -> None:
        """`VerifySignature` of `predict_util.cc`."""
        known = (constants.PREDICT_METHOD_NAME, *METHODS.values())
        if self._method_name_check and signature.method_name not in known:
            raise StatusError(
                "INTERNAL",
                "Expected prediction signature method_name to be one of "
                f"{{{', '.join(known)}}}. Was: {signature.method_name}",
            )

    def _one_input(self, signature: Any, kind: str) -> str:
        """The inputs' half of `PreProcessClassification` and `PreProcessRegression`."""
        self._check_method(signature, kind)
        if len(signature.inputs) != 1:
            raise _invalid("Expected one input Tensor.")
        limits = {"classification": (1, 2), "regression": (1,)}[kind]
        found = len(signature.outputs)
        if found not in limits:
            raise _invalid(
                f"Expected one or two output Tensors, found {found}"
                if kind == "classification"
                else "Expected one output Tensor."
            )
        if "inputs" not in signature.inputs:
            raise _invalid(f"No {kind} inputs found in SignatureDef: ", signature)
        return str(signature.inputs["inputs"].name)

    def _run_examples(
        self, given: Any, feed: str, fetches: Collection[str]
    ) -> tuple[int, list[np.ndarray]]:
        """`PerformOneShotTensorComputation` of `util.cc`."""
        examples = serialized_examples(given)
        return len(examples), self._run({feed: examples}, list(fetches))

    def _run(
        self, feeds: dict[str, np.ndarray], fetches: list[str]
    ) -> list[np.ndarray]:
        """`Session::Run`, which gives dtypes no second meaning as Python's does."""
        for place, (name, array) in enumerate(feeds.items()):
            wanted = self._tensor(name).dtype.base_dtype
            found = tf.as_dtype(array.dtype if array.dtype.kind != "O" else "string")
            if found != wanted:
                raise _invalid(
                    f"Expects arg[{place}] to be {wanted.name} but {found.name} is "
                    "provided"
                )
        try:
            return list(
                self._session.run(
                    [self._tensor(name) for name in fetches],
                    {self._tensor(name): array for name, array in feeds.items()},
                )
            )
        except tf.errors.OpError as error:
            code = type(error).__name__.removesuffix("Error")
            words = "".join(f"_{c}" if c.isupper() else c for c in code)
            raise StatusError(words[1:].upper(), error.message) from error
        except ValueError as error:  # the static shape
            raise _invalid(error) from error

    def _tensor(self, name: str) -> Any:
        try:
            return self._graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
        except (KeyError, ValueError) as error:
            raise _invalid(
                f"Tensor {name}, specified in either feed_devices or fetch_devices was "
                "not found in the Graph"
            ) from error


def serialized_examples(given: Any) -> np.ndarray:
    """`InputToSerializedExampleTensor` of `util.cc`: the vector that is fed."""
    kind = given.WhichOneof("kind")
    held = getattr(given, kind) if kind else input_pb2.ExampleList()
    if not held.examples:
        raise _invalid("Input is empty.")
    context = b""
    if kind == "example_list_with_context":
        context = held.context.SerializeToString()
    return np.array(
        [context + example.SerializeToString() for example in held.examples], object
    )


def _signature_name(model_spec: Any) -> str:
    return model_spec.signature_name or constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY


def _fill_model_spec(spec: model_pb2.ModelSpec, requested: Any, key: str) -> None:
    """`MakeModelSpec` of `util.cc`, of a model without a version."""
    spec.name = requested.name
    spec.signature_name = key


def _classification_outputs(signature: Any) -> dict[str, str]:
    """The outputs' half of `PreProcessClassification`: names of tensors by key."""
    found = {
        key: signature.outputs[key].name
        for key in ("classes", "scores")
        if key in signature.outputs
    }
    if not found:
        raise _invalid(
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Signature was: {signature}'
        )
    return found


def _fill_classifications(
    result: Any, outputs: dict[str, np.ndarray], count: int
) -> None:
    """`PostProcessClassificationResult` of `classifier.cc`."""
    dtypes = {"classes": "DT_STRING", "scores": "DT_FLOAT"}
    for key, array in outputs.items():
        if array.ndim != 2:
            raise _invalid(
                "Expected Tensor shape: [batch_size num_classes] but got ",
                _shape(array),
            )
        if _dtype(array) != dtypes[key]:
            raise _invalid(
                f"Expected {key} Tensor of {dtypes[key]}. Got: {_dtype(array)}"
            )
        if array.shape[0] != count:
            raise _invalid(
                f"Expected {key} output batch size of {count}. Got: {array.shape[0]}"
            )
    widths = [array.shape[1] for array in outputs.values()]
    if len(set(widths)) == 2:
        raise _invalid(
            "Tensors class and score should match in dim_size(1). Got "
            f"{widths[0]} vs. {widths[1]}"
        )
    for row in range(count):
        classifications = result.classifications.add()
        for column in range(widths[0]):
            made = classifications.classes.add()
            if "classes" in outputs:
                made.label = outputs["classes"][row, column]
            if "scores" in outputs:
                made.score = outputs["scores"][row, column]


def _regression_output(signature: Any) -> str:
    """The outputs' half of `PreProcessRegression`."""
    if "outputs" not in signature.outputs:
        raise _invalid("No regression outputs found in SignatureDef: ", signature)
    return str(signature.outputs["outputs"].name)


def _fill_regressions(result: Any, values: np.ndarray, count: int) -> None:
    """`PostProcessRegressionResult` of `regressor.cc`."""
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise _invalid(
            "Expected output Tensor shape to be either [batch_size] or "
            f"[batch_size, 1] but got {_shape(values)}"
        )
    if values.shape[0] != count:
        raise _invalid(
            f"Input batch size did not match output batch size: {count} vs. "
            f"{values.shape[0]}"
        )
    if _dtype(values) != "DT_FLOAT":
        raise _invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_dtype(values)}")
    for value in values.ravel():
        result.regressions.add().value = value


def _input_values(signature: Any, given: Any) -> dict[str, np.ndarray]:
    """`VerifyRequestInputsSize` of `predict_util.cc`, and `GetInputValues`.

    The latter is TensorFlow's, in `tensorflow/cc/saved_model/util.cc`.
    """
    wanted, sent = set(signature.inputs), set(given)
    defaults = set(getattr(signature, "defaults", ()))
    if len(sent) > len(wanted) or (len(sent) < len(wanted) and not defaults):
        raise _invalid(
            f"input size does not match signature: {len(sent)}!={len(wanted)} "
            f"len({_braces(sent)}) != len({_braces(wanted)}). "
            f"Sent extra: {_braces(sent - wanted)}. "
            f"Missing but required: {_braces(wanted - sent)}."
        )
    feeds = {}
    for alias, info in sorted(signature.inputs.items()):
        if alias not in sent | defaults:
            raise _invalid(
                f"Signature input alias: {alias}(feed name: {info.name}) not found in "
                "request and no default value provided. Inputs expected to be in the "
                f"request {_braces(sent)}, or default input alias set: "
                f"{','.join(sorted(defaults))}"
            )
        proto = given[alias] if alias in sent else signature.defaults[alias]
        try:
            feeds[info.name] = tf.make_ndarray(proto)
        except (TypeError, ValueError) as error:
            raise _invalid(f"tensor parsing error: {alias}") from error
    if sent - wanted:
        raise _invalid(
            "Inputs contains invalid name. Used request inputs: "
            f"{','.join(sorted(sent & wanted))}, request input: "
            f"{','.join(sorted(sent))}"
        )
    return feeds


def _output_aliases(signature: Any, output_filter: Iterable[str]) -> list[str]:
    """The outputs' half of `PreProcessPrediction` of `predict_util.cc`."""
    chosen: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise _invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected "
                f"to be in the set {_braces(signature.outputs)}."
            )
        if alias in chosen:
            raise _invalid(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return chosen or sorted(signature.outputs)


def _braces(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"


def _shape(array: np.ndarray) -> str:
    """`TensorShape::DebugString`."""
    return f"[{','.join(map(str, array.shape))}]"


def _dtype(array: np.ndarray) -> str:
    """`DataType_Name`."""
    dtype = tf.string if array.dtype.kind == "O" else tf.as_dtype(array.dtype)
    enum = v1.AttrValue.DESCRIPTOR.fields_by_name["type"].enum_type
    return str(enum.values_by_number[dtype.as_datatype_enum].name)
