"""Requests as a TF Serving client sends them, to SavedModels written from Keras.

`oracle.serving` is a port of the server's own checks. The first tests hold the port to
the test models of TF Serving, whose answers are known.
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

import keras_metagraph as kmg
from oracle import references
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


RECORDED = [
    pytest.param(run, id=f"{export.name}-{run.label}")
    for export in references.exports()
    for run in export.signatures
    if set(run.inputs) == {"inputs"}
]


@pytest.mark.parametrize("run", RECORDED)
def test_port_gives_what_tensorflow_1_recorded(run):
    """SavedModels of Estimator and Builder, of Example protos."""
    examples = [
        tf.train.Example.FromString(each) for each in run.inputs["inputs"].tolist()
    ]
    source = run.source
    with Server(source.path, tags=source.tags, method_name_check=True) as server:
        if "outputs" in run.outputs:
            found = values_of(server.regress(regression(run.signature, examples)))
            np.testing.assert_allclose(found, run.outputs["outputs"].ravel(), 1e-6)
            return
        found = server.classify(classification(run.signature, examples))
    np.testing.assert_allclose(scores_of(found), run.outputs["scores"], 1e-6)
    labels = [[label.decode() for label in row] for row in run.outputs["classes"]]
    assert labels_of(found) == labels


CITIES = ["Bern", "Oslo", "Riga"]
KINDS = ["bird", "cat", "dog"]
SIZES = [1, 2, 1000]


class Valued(keras.Model):
    """A functional model with an endpoint of its own."""

    @kmg.signature([tf.TensorSpec([None, 2], tf.float32, name="size")])
    def area(self, size):
        return {"area": size[:, 0] * size[:, 1]}


def make_model():
    """From two numbers and a text to one of three kinds, and a price."""
    size = keras.Input([2], name="size")
    city = keras.Input([1], dtype="string", name="city")
    index = keras.layers.StringLookup(vocabulary=CITIES, output_mode="one_hot")
    x = keras.layers.concatenate([size, index(city)])
    x = keras.layers.Dense(5, activation="tanh")(x)
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(x)
    price = keras.layers.Dense(1, name="price")(x)
    return Valued({"size": size, "city": city}, {"kind": kind, "price": price})


def rows(count):
    rng = np.random.default_rng(count)
    return {
        "size": rng.normal(size=(count, 2)).astype("float32"),
        "city": rng.choice([*CITIES, "elsewhere"], (count, 1)).astype(object),
    }


def predicted(model, inputs):
    """What Keras predicts; it takes texts only as tensors."""
    tensors = {name: tf.constant(values) for name, values in inputs.items()}
    return model.predict(tensors, verbose=0)


def examples_of(inputs):
    """One example a row."""
    return [
        example(**{name: values[row] for name, values in inputs.items()})
        for row in range(len(inputs["size"]))
    ]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A model, and the SavedModel of it with a signature of each kind."""
    keras.utils.set_random_seed(7)
    model = make_model()
    signatures = {
        "classify": kmg.classify_signature(model, output="kind", labels=KINDS),
        "best": kmg.classify_signature(model, output="kind", labels=KINDS, top_k=2),
        "ids": kmg.classify_signature(model, output="kind", outputs="classes"),
        "scores": kmg.classify_signature(model, output="kind", outputs="scores"),
        "regress": kmg.regress_signature(model, output="price"),
        "examples": kmg.predict_signature(model, examples=True),
    }
    path = tmp_path_factory.mktemp("served") / "1"
    kmg.save_saved_model(path, model, signatures=signatures)
    return model, path


@pytest.fixture(scope="module", params=[False, True], ids=["", "method names"])
def server(request, served):
    with Server(served[1], method_name_check=request.param) as opened:
        yield opened


@pytest.mark.parametrize("count", SIZES)
def test_classify(served, server, count):
    inputs = rows(count)
    expected = predicted(served[0], inputs)["kind"]
    found = server.classify(classification("classify", examples_of(inputs)))
    np.testing.assert_allclose(scores_of(found), expected, atol=1e-6)
    assert labels_of(found) == [KINDS] * count
    assert found.model_spec.signature_name == "classify"


def test_classify_gives_the_best(served, server):
    inputs = rows(20)
    expected = predicted(served[0], inputs)["kind"]
    found = server.classify(classification("best", examples_of(inputs)))
    best = np.argsort(-expected, axis=-1)[:, :2]
    np.testing.assert_allclose(
        scores_of(found), np.take_along_axis(expected, best, -1), atol=1e-6
    )
    assert labels_of(found) == [[KINDS[i] for i in row] for row in best]


def test_classify_gives_only_classes_or_only_scores(served, server):
    inputs = rows(3)
    expected = predicted(served[0], inputs)["kind"]
    found = server.classify(classification("ids", examples_of(inputs)))
    assert labels_of(found) == [["0", "1", "2"]] * 3
    assert not scores_of(found).any()
    found = server.classify(classification("scores", examples_of(inputs)))
    np.testing.assert_allclose(scores_of(found), expected, atol=1e-6)
    assert labels_of(found) == [[""] * 3] * 3


@pytest.mark.parametrize("count", SIZES)
def test_regress(served, server, count):
    inputs = rows(count)
    expected = predicted(served[0], inputs)["price"][:, 0]
    found = server.regress(regression("regress", examples_of(inputs)))
    np.testing.assert_allclose(values_of(found), expected, atol=1e-6)


@pytest.mark.parametrize("count", [0, *SIZES])
def test_predict(served, server, count):
    inputs = rows(count)
    response = server.predict(prediction(inputs=inputs))
    assert set(response.outputs) == {"kind", "price"}
    if not count:
        assert tf.make_ndarray(response.outputs["kind"]).shape == (0, 3)
        return
    for key, expected in predicted(served[0], inputs).items():
        found = tf.make_ndarray(response.outputs[key])
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_predict_on_examples(served, server):
    inputs = rows(5)
    given = {"examples": [each.SerializeToString() for each in examples_of(inputs)]}
    response = server.predict(prediction("examples", given, ["price"]))
    assert set(response.outputs) == {"price"}
    expected = predicted(served[0], inputs)["price"]
    found = tf.make_ndarray(response.outputs["price"])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_predict_of_an_own_endpoint(server):
    size = rows(4)["size"]
    response = server.predict(prediction("area", {"size": size}))
    found = tf.make_ndarray(response.outputs["area"])
    np.testing.assert_allclose(found, size[:, 0] * size[:, 1], rtol=1e-6)


def test_context_is_shared_by_all_examples(served, server):
    inputs = rows(6)
    inputs["city"][:] = "Oslo"
    sizes = [example(size=row) for row in inputs["size"]]
    expected = predicted(served[0], inputs)
    context = example(city=["Oslo"])
    found = server.classify(classification("classify", sizes, context))
    np.testing.assert_allclose(scores_of(found), expected["kind"], atol=1e-6)
    found = server.regress(regression("regress", sizes, context))
    np.testing.assert_allclose(values_of(found), expected["price"][:, 0], atol=1e-6)


def test_example_goes_before_its_context(served, server):
    inputs = rows(6)
    context = example(city=["Riga"], size=[9.0, 9.0])
    found = server.regress(regression("regress", examples_of(inputs), context))
    expected = predicted(served[0], inputs)["price"][:, 0]
    np.testing.assert_allclose(values_of(found), expected, atol=1e-6)


def test_more_features_than_asked_for(served, server):
    inputs = rows(2)
    more = examples_of(inputs)
    for each in more:
        each.features.feature["id"].int64_list.value.append(7)
    found = server.regress(regression("regress", more))
    expected = predicted(served[0], inputs)["price"][:, 0]
    np.testing.assert_allclose(values_of(found), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "key"), [("classify", "classify"), ("regress", "regress")]
)
def test_empty_batch(server, kind, key):
    make = {"classify": classification, "regress": regression}[kind]
    error = error_of(getattr(server, kind), make(key))
    assert (error.code, error.message) == ("INVALID_ARGUMENT", "Input is empty.")


@pytest.mark.parametrize(
    ("wrong", "feature", "text"),
    [
        (example(city=["Oslo"]), "size", "is required but could not be found"),
        (example(size=[1.0, 2.0]), "city", "is required but could not be found"),
        (example(size=[1, 2], city=["Oslo"]), "size", "Data types don't match"),
        (example(size=[1.0, 2.0], city=[3.0]), "city", "Data types don't match"),
        (example(size=[1.0], city=["Oslo"]), "size", "Number of float values !="),
    ],
    ids=["no number", "no text", "integers", "no bytes", "too short"],
)
@pytest.mark.parametrize("key", ["classify", "regress"])
def test_wrong_example_names_signature_and_feature(server, key, wrong, feature, text):
    make = {"classify": classification, "regress": regression}[key]
    given = [*examples_of(rows(2)), wrong]
    error = error_of(getattr(server, key), make(key, given))
    assert error.code == "INVALID_ARGUMENT"
    assert text in error.message
    assert re.search(f"(Feature|Key): {feature}[ ,]", error.message)
    assert f"{{{{node {key}/" in error.message


def test_wrong_tensors(server):
    inputs = rows(2)
    error = error_of(server.predict, prediction(inputs={"size": inputs["size"]}))
    assert "Missing but required: {city}" in error.message
    inputs["size"] = inputs["size"].astype("float64")
    error = error_of(server.predict, prediction(inputs=inputs))
    assert "to be float32 but float64 is provided" in error.message


@pytest.mark.parametrize("call", ["classify", "regress"])
def test_method_of_another_kind(server, call):
    make = {"classify": classification, "regress": regression}[call]
    other = {"classify": "regress", "regress": "scores"}[call]
    error = error_of(getattr(server, call), make(other, examples_of(rows(1))))
    assert error.code == "INVALID_ARGUMENT"


def test_predict_request_to_the_other_kinds(served, server):
    """A predict request may go to any signature; it feeds what that takes."""
    inputs = rows(3)
    given = {"inputs": [each.SerializeToString() for each in examples_of(inputs)]}
    response = server.predict(prediction("regress", given))
    expected = predicted(served[0], inputs)["price"]
    found = tf.make_ndarray(response.outputs["outputs"])
    np.testing.assert_allclose(found.ravel(), expected.ravel(), atol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", None])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_two_classes(tmp_path, activation, dtype):
    """One column of probabilities or logits becomes two of probabilities."""
    head = keras.layers.Dense(1, activation=activation, dtype=dtype)
    model = keras.Sequential([keras.Input([2], name="size"), head])
    loss = keras.losses.BinaryCrossentropy(from_logits=activation is None)
    model.compile("sgd", loss)
    signature = kmg.classify_signature(model, labels=["no", "yes"])
    kmg.save_saved_model(tmp_path / "1", model, signatures={"classify": signature})
    size = rows(5)["size"]
    expected = np.asarray(model.predict(size, verbose=0), np.float32)[:, 0]
    if activation is None:
        expected = 1 / (1 + np.exp(-expected))
    with Server(tmp_path / "1", method_name_check=True) as server:
        given = [example(size=row) for row in size]
        found = server.classify(classification("classify", given))
    assert labels_of(found) == [["no", "yes"]] * 5
    tolerance = 1e-6 if dtype == "float32" else 2e-3
    expected = np.stack([1 - expected, expected], -1)
    np.testing.assert_allclose(scores_of(found), expected, atol=tolerance)


def test_warm_up_requests(served, tmp_path):
    examples = examples_of(rows(3))
    logs = [prediction_log_pb2.PredictionLog() for _ in range(3)]
    logs[0].predict_log.request.CopyFrom(prediction(inputs=rows(3)))
    logs[1].classify_log.request.CopyFrom(classification("classify", examples))
    logs[2].regress_log.request.CopyFrom(regression("regress", examples))
    requests = str(tmp_path / "requests")

    def serve(version):
        with tf.io.TFRecordWriter(requests) as writer:
            for log in logs:
                writer.write(log.SerializeToString())
        model = served[0]
        kmg.save_saved_model(
            tmp_path / version,
            model,
            signatures={
                "classify": kmg.classify_signature(model, output="kind"),
                "regress": kmg.regress_signature(model, output="price"),
            },
            assets_extra={"tf_serving_warmup_requests": requests},
        )
        with Server(tmp_path / version) as server:
            return server.warm_up()

    assert serve("1") == 3
    logs[2].regress_log.request.model_spec.signature_name = "nothing"
    with pytest.raises(StatusError, match="No signature was found"):
        serve("2")
