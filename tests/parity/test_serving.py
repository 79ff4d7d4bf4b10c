"""Requests as a TF Serving client sends them, to SavedModels written from Keras.

`oracle.serving` is a port of the server's own checks. The first tests hold the port to
the test models of TF Serving, whose answers are known.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    predict_pb2,
    regression_pb2,
)

from oracle.serving import Server, StatusError

HALF_PLUS_TWO = [
    "serving-hpt-cpu",
    "serving-hpt-gpu",
    "tf-half-plus-two-mainop",
    "tf-half-plus-two-pbtxt",
]
XS = [0.0, 1.0, -2.5, 100.0]


def example(**features):
    """A `tf.train.Example`: lists of numbers, bytes or texts by feature."""
    made = tf.train.Example()
    for name, values in features.items():
        feature = made.features.feature[name]
        for value in np.ravel(values).tolist():
            if isinstance(value, str | bytes):
                raw = value.encode() if isinstance(value, str) else value
                feature.bytes_list.value.append(raw)
            elif isinstance(value, int):
                feature.int64_list.value.append(value)
            else:
                feature.float_list.value.append(value)
    return made


def request_of(kind, key="", examples=(), context=None):
    """A classification or regression request."""
    made = kind()
    made.model_spec.name = "model"
    made.model_spec.signature_name = key
    if context is None:
        made.input.example_list.examples.extend(examples)
    else:
        made.input.example_list_with_context.context.CopyFrom(context)
        made.input.example_list_with_context.examples.extend(examples)
    return made


def classification(*args, **kwargs):
    return request_of(classification_pb2.ClassificationRequest, *args, **kwargs)


def regression(*args, **kwargs):
    return request_of(regression_pb2.RegressionRequest, *args, **kwargs)


def prediction(key="", inputs=None, outputs=()):
    made = predict_pb2.PredictRequest()
    made.model_spec.name = "model"
    made.model_spec.signature_name = key
    made.output_filter.extend(outputs)
    for name, value in (inputs or {}).items():
        made.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return made


def scores_of(response):
    """`(batch, k)` of a classification response."""
    rows = response.result.classifications
    return np.array([[c.score for c in row.classes] for row in rows], np.float32)


def labels_of(response):
    rows = response.result.classifications
    return [[c.label for c in row.classes] for row in rows]


def values_of(response):
    """`(batch,)` of a regression response."""
    return np.array([r.value for r in response.result.regressions], np.float32)


def error_of(call, request):
    with pytest.raises(StatusError) as caught:
        call(request)
    return caught.value


@pytest.mark.parametrize("name_check", [False, True])
@pytest.mark.parametrize("name", HALF_PLUS_TWO)
def test_port_gives_the_known_answers(corpus, name, name_check):
    examples = [example(x=[x]) for x in XS]
    expected = 2.0 + np.array(XS, np.float32) / 2
    with Server(corpus / name, method_name_check=name_check) as server:
        predicted = server.predict(prediction(inputs={"x": np.c_[XS].astype("f4")}))
        np.testing.assert_array_equal(
            tf.make_ndarray(predicted.outputs["y"]), expected[:, None]
        )
        assert predicted.model_spec.signature_name == "serving_default"
        found = server.regress(regression("regress_x_to_y", examples))
        np.testing.assert_array_equal(values_of(found), expected)
        found = server.regress(regression("regress_x_to_y2", examples))
        np.testing.assert_array_equal(values_of(found), expected + 1.0)
        found = server.classify(classification("classify_x_to_y", examples))
        np.testing.assert_array_equal(scores_of(found), expected[:, None])
        assert labels_of(found)[0] == [""]


@pytest.mark.parametrize(
    ("method", "request_", "code", "text"),
    [
        (
            "regress",
            regression("regress_x_to_y"),
            "INVALID_ARGUMENT",
            "Input is empty.",
        ),
        (
            "regress",
            regression("regress_x_to_y", [example(y=[1.0])]),
            "INVALID_ARGUMENT",
            "Feature: x (data type: float) is required but could not be found",
        ),
        (
            "regress",
            regression("regress_x2_to_y3", [example(x2=[1.0])]),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float32 but string is provided",
        ),
        (
            "regress",
            regression("nothing", [example(x=[1.0])]),
            "INVALID_ARGUMENT",
            "No signature was found with the name: nothing",
        ),
        (
            "regress",
            regression("", [example(x=[1.0])]),
            "INVALID_ARGUMENT",
            "No regression inputs found in SignatureDef",
        ),
        (
            "classify",
            classification("regress_x_to_y", [example(x=[1.0])]),
            "INVALID_ARGUMENT",
            'at least one of "classes" or "scores"',
        ),
        (
            "predict",
            prediction("nothing"),
            "FAILED_PRECONDITION",
            'Serving signature key "nothing" not found.',
        ),
        (
            "predict",
            prediction(inputs={"x": [[1.0]], "z": [[1.0]]}),
            "INVALID_ARGUMENT",
            "2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.",
        ),
        (
            "predict",
            prediction(inputs={"z": [[1.0]]}),
            "INVALID_ARGUMENT",
            "Signature input alias: x(feed name: x:0) not found in request",
        ),
        (
            "predict",
            prediction(inputs={"x": [[1.0]]}, outputs=["y", "y"]),
            "INVALID_ARGUMENT",
            "duplicate output tensor alias: y",
        ),
        (
            "predict",
            prediction(inputs={"x": [[1.0]]}, outputs=["z"]),
            "INVALID_ARGUMENT",
            "not found in signature: z Outputs expected to be in the set {y}.",
        ),
    ],
)
def test_port_refuses_as_the_server_does(corpus, method, request_, code, text):
    with Server(corpus / "tf-half-plus-two-mainop") as server:
        error = error_of(getattr(server, method), request_)
    assert error.code == code
    assert text in error.message


def test_port_checks_method_names_only_with_the_flag(corpus):
    request = classification("classify_x_to_y", [example(x=[1.0])])
    request.model_spec.signature_name = "regress_x_to_y"
    with Server(corpus / "serving-hpt-cpu", method_name_check=True) as server:
        error = error_of(server.classify, request)
    assert "method_name to be tensorflow/serving/classify" in error.message


def test_port_keeps_the_state_of_a_servable(corpus):
    with Server(corpus / "serving-counter", method_name_check=True) as server:

        def value(key, **inputs):
            response = server.predict(prediction(key, inputs))
            return float(tf.make_ndarray(response.outputs["output"]))

        value("reset_counter")
        assert value("incr_counter") == 1.0
        assert value("incr_counter_by", delta=np.float32(2.5)) == 3.5
        assert value("get_counter") == 3.5
