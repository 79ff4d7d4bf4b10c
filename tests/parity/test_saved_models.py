"""Signatures of SavedModels, against what TensorFlow gave or gives for them."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph import load_from_meta_graph
from keras_metagraph.formats.registry import open_export
from oracle.references import FIXTURES, exports
from parity import test_corpus

v1 = tf.compat.v1
RECORDED = sorted((FIXTURES / "saved_models").glob("*/*"))
TOLERANCE = 1e-5


def load(path, tags=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return load_from_meta_graph(path, tags=tags, rebuild="graph")


def assert_same(found, expected, name):
    """Equal strings, and numbers within the tolerance; dtypes too."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.dtype == object or expected.dtype.kind in "OS":
        assert found.astype("S").tolist() == expected.astype("S").tolist(), name
        return
    assert found.dtype == expected.dtype, name
    np.testing.assert_allclose(found, expected, TOLERANCE, TOLERANCE, err_msg=name)


def parts(key, value):
    """An output as the recorded arrays have it: a sparse one is three."""
    if not isinstance(value, v1.SparseTensorValue):
        return {key: value}
    return {f"{key}/{name}": part for name, part in value._asdict().items()}


def recorded_inputs(arrays, prefix):
    inputs = {}
    for name, array in arrays.items():
        if not name.startswith(prefix):
            continue
        key, _, part = name.removeprefix(prefix).partition("/")
        if part:
            inputs.setdefault(key, {})[part] = array
        else:
            inputs[key] = array
    names = ("indices", "values", "dense_shape")
    return {
        key: tuple(value[name] for name in names) if isinstance(value, dict) else value
        for key, value in inputs.items()
    }


@pytest.mark.parametrize("folder", RECORDED, ids=lambda f: f"{f.parent.name}-{f.name}")
def test_recorded_runs(folder):
    with np.load(folder / "reference.npz") as stored:
        arrays = dict(stored)
    models = {}
    for run in json.loads((folder / "reference.json").read_text())["runs"]:
        tags, label = tuple(run["tags"]), run["label"]
        if tags not in models:
            models[tags] = load(folder / "saved_model", tags)
        inputs = recorded_inputs(arrays, f"{label}/in/")
        outputs = models[tags].meta_graph.signatures[run["signature"]](inputs)
        found = {n: p for k, v in outputs.items() for n, p in parts(k, v).items()}
        prefix = f"{label}/out/"
        expected = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        assert sorted(found) == sorted(expected)
        for key, array in expected.items():
            assert_same(found[key], array, f"{label}: {key}")


RUNS = [run for export in exports() for run in export.signatures]


@pytest.mark.parametrize("run", RUNS, ids=lambda r: f"{r.source.path.name}-{r.label}")
def test_recorded_signatures_of_the_zoo(run):
    model = load(run.source.path, run.source.tags)
    outputs = model.meta_graph.signatures[run.signature](run.inputs)
    assert sorted(outputs) == sorted(run.outputs)
    for key, expected in run.outputs.items():
        assert_same(outputs[key], expected, key)


# --------------------------------------------------------------------------
# Everything of the corpus


def with_signatures():
    return [
        entry
        for entry in test_corpus.entries(graph_only=False)
        if entry.values[0]["kind"] == "savedmodel"
        or "serving_signatures" in entry.values[0].get("collections", {})
    ]


@pytest.mark.parametrize("entry", with_signatures())
def test_each_signature_of_the_corpus(corpus, tf115, entry):
    path = corpus / entry["id"]
    export = open_export(path)
    for meta_graph_def in export.meta_graphs:
        tags = list(meta_graph_def.meta_info_def.tags)
        for name in load(path, tags).meta_graph.signatures:
            meta = load(path, tags).meta_graph  # counters of other signatures at rest
            signature = meta.signatures[name]
            inputs = random_inputs(meta, signature, entry)
            outputs = signature(inputs)
            if entry["id"] in test_corpus.WITHOUT_ORACLE:
                continue
            feeds = {
                signature.signature_def.inputs[k].name: v for k, v in inputs.items()
            }
            fetches = {k: i.name for k, i in signature.signature_def.outputs.items()}
            expected = test_corpus.session_values(export, fetches, feeds, tf115)
            for key, value in outputs.items():
                assert_same(value, expected[key], f"{tags} {name}: {key}")


def random_inputs(meta, signature, entry):
    """Something for each input, by the rules of the corpus's other test."""
    infos = signature.signature_def.inputs
    interface = type(meta.interface)(inputs={k: i.name for k, i in infos.items()})
    view = type("View", (), {"interface": interface, "graph": meta.graph})
    return test_corpus.random_inputs(view, entry)


# --------------------------------------------------------------------------
# TensorFlow 2: what is made here and now


def normal(*shape):
    return np.random.RandomState(3).randn(*shape).astype(np.float32)


def keras_export(path):
    keras.utils.set_random_seed(1)
    inputs = keras.Input([None], dtype="int32")
    hidden = keras.layers.Embedding(20, 8, mask_zero=True)(inputs)
    hidden = keras.layers.Bidirectional(keras.layers.LSTM(5, return_sequences=True))(
        hidden
    )
    hidden = keras.layers.GRU(4)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.export(path, verbose=False)
    return [np.array([[1, 2, 3, 0], [4, 5, 0, 0]], np.int32)]


def export_archive(path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input([6]),
            keras.layers.Dense(4, activation="silu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        ]
    )
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = [tf.TensorSpec([None, 6])]
    archive.add_endpoint("serve", lambda x: model(x, training=False), spec)
    archive.add_endpoint("probabilities", lambda x: tf.nn.softmax(model(x)), spec)
    archive.write_out(path, verbose=False)
    return [normal(5, 6)]


def custom_gradients(path):
    @tf.custom_gradient
    def scaled(x):
        factor = tf.sin(x)
        return x * factor, lambda upstream: 3.0 * upstream * factor

    module = tf.Module()
    module.kernel = tf.Variable(normal(3, 2), name="kernel")
    module.square = tf.Variable(normal(2, 2))

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def call(x):
        hidden = scaled(x @ module.kernel)
        return {"y": scaled(tf.nn.silu(hidden @ module.square)) + 1.0}

    tf.saved_model.save(module, path, signatures=call)
    return [normal(4, 3)]


def nested_functions(path):
    module = tf.Module()
    module.kernel = tf.Variable(normal(4, 4))

    @tf.function
    def inner(x):
        return tf.tanh(x @ module.kernel)

    @tf.function(input_signature=[tf.TensorSpec([None, 4])])
    def call(x):
        for step in tf.range(3):
            x = inner(x) + 0.1 * tf.cast(step, tf.float32)
        rows = tf.map_fn(lambda row: tf.reduce_max(row) * row, x)
        return {"y": x * 2.0 if tf.reduce_sum(x) > 0 else x - 1.0, "rows": rows}

    tf.saved_model.save(module, path, signatures=call)
    return [normal(3, 4)]


MADE = [keras_export, export_archive, custom_gradients, nested_functions]


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_functions_of_tensorflow_2(tmp_path, make):
    """Outputs, gradients and training of what TensorFlow's own loader gives."""
    path = str(tmp_path / "export")
    given = make(path)
    theirs = tf.saved_model.load(path)
    model = load(path)
    signatures = model.meta_graph.signatures
    assert sorted(signatures) == sorted(theirs.signatures)
    for name, signature in signatures.items():
        keys = theirs.signatures[name].structured_input_signature[1]
        expected = theirs.signatures[name](
            **dict(zip(keys, map(tf.constant, given), strict=True))
        )
        for key, value in signature(*given).items():
            assert_same(value, expected[key], f"{name}: {key}")
    assert_same_gradients(model, theirs.signatures["serving_default"], given)
    assert_trains(model, given)


def assert_same_gradients(model, function, given):
    keys = function.structured_input_signature[1]
    arguments = dict(zip(keys, map(tf.constant, given), strict=True))
    with tf.GradientTape() as tape:
        loss = squares(function(**arguments))
    weights = [v for v in function.variables if v.trainable]
    expected = tape.gradient(loss, weights)
    with tf.GradientTape() as tape:
        loss = squares(model(given[0]))
    found = tape.gradient(loss, [w.value for w in model.trainable_weights])
    assert len(found) == len(weights)
    pairs = list(zip(model.trainable_weights, found, strict=True))
    for weight, gradient in zip(weights, expected, strict=True):
        # Paths differ, values tell most weights apart: biases are all zero.
        same = [g for w, g in pairs if np.array_equal(w.numpy(), weight.numpy())]
        assert any(
            np.allclose(*map(tf.convert_to_tensor, (g, gradient)), 1e-4, 1e-5)
            for g in same
        ), weight.name


def squares(outputs):
    return sum(tf.reduce_sum(value**2) for value in tf.nest.flatten(outputs))


def assert_trains(model, given):
    zeros = tf.nest.map_structure(tf.zeros_like, model(given[0]))
    before = [weight.numpy() for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(0.01), "mse")
    losses = model.fit(given[0], zeros, epochs=3, shuffle=False, verbose=0)
    losses = losses.history["loss"]
    assert losses[-1] < losses[0]
    for old, weight in zip(before, model.trainable_weights, strict=True):
        assert not np.array_equal(old, weight.numpy()), weight.path


def test_custom_gradients_of_an_old_file():
    """The fixture's gradient is reversed for one of three outputs."""
    path = FIXTURES / "saved_models" / "2.15.1" / "control" / "saved_model"
    theirs = tf.saved_model.load(path)
    function = theirs.signatures["serving_default"]
    assert_same_gradients(load(path), function, [normal(3, 4, 2)])
