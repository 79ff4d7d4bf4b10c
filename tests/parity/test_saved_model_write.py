"""Real TensorFlow 1.15 and TensorFlow 2 load each graph of a SavedModel: same numbers.

And TensorFlow 1.15 trains on from the graph tagged `train`; what it saves is a Keras
model again.
"""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers

from keras_metagraph import (
    classify_signature,
    load_from_meta_graph,
    save_saved_model,
)
from oracle import references

STEPS, MORE, BATCH = 10, 5, 8
SIGNATURES = {"serve": "serving_default", "train": "train", "eval": "eval"}
WORDS = ["red", "green", "blue", "grey"]


def mlp():
    model = keras.Sequential(
        [
            keras.Input((3,), name="x"),
            layers.Dense(8, activation="tanh"),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, {"x": numbers(3)}, classes()


def conv_net():
    """With batch normalization and dropout."""
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2), name="x"),
            layers.Conv2D(4, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(
        optimizers.SGD(0.05, momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=["accuracy", keras.metrics.SparseCategoricalCrossentropy(name="ce")],
    )
    return model, {"x": numbers(6, 6, 2)}, classes()


def words():
    """With vocabularies and two inputs, one of texts."""
    word = keras.Input((), dtype="string", name="word")
    number = keras.Input((2,), name="number")
    ids = layers.StringLookup(vocabulary=WORDS)(word)
    x = layers.Embedding(6, 4)(ids)
    x = layers.Concatenate()([x, number])
    model = keras.Model([word, number], layers.Dense(2, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(3)
    texts = rng.choice([*WORDS, "pink"], (STEPS + MORE, BATCH)).astype("S")
    return model, {"word": texts, "number": numbers(2)}, classes()


def scheduled():
    model = keras.Sequential(
        [keras.Input((3,), name="x"), layers.Dense(4, "relu"), layers.Dense(1)]
    )
    schedule = optimizers.schedules.ExponentialDecay(0.05, 4, 0.7, staircase=True)
    model.compile(optimizers.Adam(schedule), "mse", metrics=["mae"])
    return model, {"x": numbers(3)}, numbers(1, seed=5)


MODELS = {"mlp": mlp, "conv_net": conv_net, "words": words, "scheduled": scheduled}


def numbers(*shape, seed=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(STEPS + MORE, BATCH, *shape)).astype("float32")


def classes():
    return np.random.default_rng(6).integers(0, 2, (STEPS + MORE, BATCH))


def batch(inputs, step):
    """One batch, as Keras takes it: it takes no arrays of texts."""
    values = [tf.constant(value[step]) for value in inputs.values()]
    return values[0] if len(values) == 1 else values


def losses(model, inputs, labels, steps):
    found = []
    for step in steps:
        model.reset_metrics()
        x, y = batch(inputs, step), tf.constant(labels[step])
        found.append(model.train_on_batch(x, y, return_dict=True)["loss"])
    return found


@dataclasses.dataclass
class Made:
    """A SavedModel, and what Keras computed with the model."""

    path: str
    inputs: dict
    labels: np.ndarray
    predicted: np.ndarray
    evaluated: dict
    losses: list


def made(path, make):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    model, inputs, labels = make()
    model.train_on_batch(batch(inputs, 0), tf.constant(labels[0]))
    path = save_saved_model(path, dict.fromkeys(SIGNATURES, model))
    x, y = batch(inputs, 0), tf.constant(labels[0])
    return Made(
        path,
        inputs,
        labels,
        np.asarray(model(x, training=False)),
        model.evaluate(x, y, verbose=0, return_dict=True),
        losses(model, inputs, labels, range(STEPS + MORE)),
    )


def fed(each, tag, rows):
    """What is fed to the signature of a graph, by input."""
    labels = {} if tag == "serve" else {"labels": each.labels}
    return {key: value[rows] for key, value in {**each.inputs, **labels}.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved_models")


@pytest.fixture(scope="module")
def written(folder):
    """A SavedModel of each model."""
    return {name: made(folder / name, make) for name, make in MODELS.items()}


@pytest.fixture(scope="module")
def found(tf115, written, folder):
    """What TensorFlow 1.15 computes with them, and writes after training."""
    cases, arrays = [], {}
    for name, each in written.items():
        for tag, key in SIGNATURES.items():
            for how in ("session", "function"):
                case = {"name": f"{name}/{tag}/{how}"}
                case |= {"saved_model": each.path, "tags": [tag]}
                case["functions"] = how == "function"
                trains = (tag, how) == ("train", "session")
                if trains:
                    case["save"] = str(folder / "trained" / name / "model")
                    case["build"] = str(folder / "built" / name)
                cases.append(case)
                rows = slice(0, STEPS) if trains else 0
                for input_key, value in fed(each, tag, rows).items():
                    arrays[f"{case['name']}/{key}/{input_key}"] = value
    return tf115("saved_model_graphs", arrays, {"cases": cases})


@pytest.mark.parametrize("how", ["session", "function"])
@pytest.mark.parametrize("name", MODELS)
class TestTensorFlow1:
    """The loaders of TensorFlow 1.15."""

    def test_predicts(self, name, how, written, found):
        prefix = f"{name}/serve/{how}/serving_default/"
        (output,) = [value for key, value in found.items() if key.startswith(prefix)]
        np.testing.assert_allclose(
            output, written[name].predicted, rtol=1e-5, atol=1e-6
        )

    def test_evaluates(self, name, how, written, found):
        prefix = f"{name}/eval/{how}/eval/"
        for key, value in written[name].evaluated.items():
            np.testing.assert_allclose(found[prefix + key], value, rtol=1e-5)
            update = found[f"{prefix}metrics/{key}/update_op"]
            np.testing.assert_allclose(update, value, rtol=1e-5)
            # Before the step, whatever the order in which the outputs are computed.
            assert found[f"{prefix}metrics/{key}/value"] == 0.0

    def test_trains(self, name, how, written, found):
        trained = found[f"{name}/train/{how}/train/loss"]
        expected = written[name].losses[: np.size(trained)]
        np.testing.assert_allclose(trained, np.squeeze(expected), rtol=1e-5)
        if how == "session":
            assert found[f"{name}/train/session/steps"] == STEPS + 1


@pytest.mark.parametrize("how", ["trained", "built"])
@pytest.mark.parametrize("name", MODELS)
def test_keras_goes_on_after_tensorflow_1(name, how, written, found, folder):
    """From what a Saver of 1.15 wrote, and a SavedModelBuilder."""
    path = folder / how / name
    model = load_from_meta_graph(path / "model" if how == "trained" else path)
    each = written[name]
    rows = range(STEPS, STEPS + MORE)
    after = losses(model, each.inputs, each.labels, rows)
    np.testing.assert_allclose(after, each.losses[STEPS:], rtol=1e-5)
    assert int(model.optimizer.iterations) == STEPS + MORE + 1


@pytest.mark.parametrize("tag", SIGNATURES)
@pytest.mark.parametrize("name", MODELS)
def test_tensorflow_2_loads_every_graph(name, tag, written):
    each = written[name]
    given = {key: tf.constant(v) for key, v in fed(each, tag, 0).items()}
    loaded = tf.saved_model.load(each.path, tags=[tag])
    outputs = loaded.signatures[SIGNATURES[tag]](**given)
    in_session = session_outputs(each.path, tag, SIGNATURES[tag], fed(each, tag, 0))
    assert outputs.keys() == in_session.keys()
    for key, value in outputs.items():
        np.testing.assert_allclose(value, in_session[key], rtol=1e-5, atol=1e-6)
    if tag == "serve":
        (output,) = outputs.values()
        np.testing.assert_allclose(output, each.predicted, rtol=1e-5, atol=1e-6)
    elif tag == "eval":
        np.testing.assert_allclose(outputs["loss"], each.evaluated["loss"], rtol=1e-5)
    else:
        np.testing.assert_allclose(outputs["loss"], each.losses[0], rtol=1e-5)


def session_outputs(path, tag, key, inputs):
    """What the loader of `tf.compat.v1` gives."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, [tag], path)
        signature = meta.signature_def[key]
        feeds = {signature.inputs[k].name: value for k, value in inputs.items()}
        outputs = {k: info.name for k, info in signature.outputs.items()}
        return session.run(outputs, feeds)


def several_inputs():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    outputs = {"sum": layers.Dense(2)(a) + layers.Dense(2)(b), "twice": 2.0 * a}
    return keras.Model({"a": a, "b": b}, outputs)


def half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = mlp()[0]
    keras.config.set_dtype_policy("float32")
    return model


def stateful():
    inputs = keras.Input(batch_shape=(BATCH, 4, 3), name="x")
    return keras.Model(inputs, layers.GRU(3, stateful=True)(inputs))


def no_variables():
    inputs = keras.Input((3,), name="x")
    return keras.Model(inputs, keras.ops.sin(inputs))


SERVED = {
    "several_inputs": (several_inputs, {"a": numbers(2)[0], "b": numbers(3)[0]}),
    "half_precision": (half_precision, {"x": numbers(3)[0]}),
    "stateful": (stateful, {"x": numbers(4, 3)[0]}),
    "no_variables": (no_variables, {"x": numbers(3)[0]}),
}
FORMS = {
    "several_inputs": {"strip_default_attrs": True, "layout": "estimator"},
    "half_precision": {"as_text": True},
    "no_variables": {"clear_devices": True},
}


def test_other_models_and_forms(tf115, tmp_path):
    cases, arrays, expected = [], {}, {}
    for name, (make, inputs) in SERVED.items():
        model = make()
        tags = () if name == "stateful" else ("serve", "gpu")
        path = save_saved_model(tmp_path / name, {tags: model}, **FORMS.get(name, {}))
        x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        outputs = keras.tree.map_structure(np.asarray, model(x, training=False))
        outputs = outputs if isinstance(outputs, dict) else {None: outputs}
        for how in ("session", "function"):
            case = f"{name}/{how}"
            expected[case] = outputs
            cases.append({"name": case, "saved_model": path, "tags": list(tags)})
            cases[-1]["functions"] = how == "function"
            for key, value in inputs.items():
                arrays[f"{case}/serving_default/{key}"] = value
    found = tf115("saved_model_graphs", arrays, {"cases": cases})
    for case, outputs in expected.items():
        tolerance = 2e-3 if case.startswith("half") else 1e-5
        prefix = f"{case}/serving_default/"
        given = {key: value for key, value in found.items() if key.startswith(prefix)}
        assert len(given) == len(outputs)
        for key, output in outputs.items():
            value = given[prefix + key] if key else next(iter(given.values()))
            np.testing.assert_allclose(value, output, tolerance, tolerance, case)


LEGACY = (
    "versions/0.12.1/mlp_adam_v1",
    "zoo/cnn_bn_momentum",
    "zoo/estimator_dnn",
    "zoo/lstm_rmsprop",
    "zoo/mlp_adam_resource",
    "zoo/savedmodel_builder_multi",
    "zoo/v1_checkpoint",
)


def test_graphs_of_tensorflow_1_stay_what_they_are(tf115, tmp_path):
    """Old savers, partitioned variables, assets and training flags included."""
    named = {export.name: export for export in references.exports()}
    cases, arrays = [], {}
    for name in LEGACY:
        export = named[name]
        model = load_from_meta_graph(export.source.path, tags=export.source.tags)
        path = save_saved_model(tmp_path / name.replace("/", "_"), model)
        given = {tensor: f"{name}/{key}" for key, tensor in export.feeds.items()}
        arrays |= {f"{name}/{key}": value for key, value in export.inputs.items()}
        fetched = {f"{name}/{key}": tensor for key, tensor in export.fetches.items()}
        cases.append({"saved_model": path, "feeds": given, "fetches": fetched})
    found = tf115(FETCH, arrays, {"cases": cases})
    for name in LEGACY:
        for key, value in named[name].outputs.items():
            output = found[f"{name}/{key}"]
            if value.dtype.kind in "OUS":
                assert output.tolist() == value.astype("S").tolist()
            else:
                np.testing.assert_allclose(output, value, 1e-5, 1e-5, f"{name}: {key}")


FETCH = """
import tensorflow.compat.v1 as tf

def main(arrays, args):
    results = {}
    for case in args["cases"]:
        with tf.Graph().as_default(), tf.Session() as session:
            meta = tf.saved_model.load(session, ["serve"], case["saved_model"])
            assert "serving_default" in meta.signature_def
            feeds = {name: arrays[key] for name, key in case["feeds"].items()}
            results.update(session.run(case["fetches"], feeds))
    return results
"""


def test_a_graph_of_tensorflow_1_trains_on(tf115, tmp_path):
    """In its own way, from the graph tagged `train`: the recorded losses."""
    export = {e.name: e for e in references.exports()}["zoo/cnn_bn_momentum"]
    training = export.training
    model = load_from_meta_graph(training.source.path)
    path = save_saved_model(tmp_path / "1", {"serve": model, "train": model})
    interface = model.meta_graph.interface
    keys = {
        tensor: key for key, tensor in {**interface.inputs, **interface.labels}.items()
    }
    arrays = {
        f"legacy/train/{keys[tensor]}": training.arrays[key]
        for key, tensor in training.feeds.items()
    }
    case = {"name": "legacy", "saved_model": path, "tags": ["train"]}
    found = tf115("saved_model_graphs", arrays, {"cases": [case]})
    np.testing.assert_allclose(found["legacy/train/loss"], training.losses, rtol=1e-5)


def test_saved_model_cli(tmp_path):
    """The command of TensorFlow shows and runs what is written."""
    model = words()[0]
    path = save_saved_model(
        tmp_path / "1",
        dict.fromkeys(SIGNATURES, model),
        signatures={"classify": classify_signature(model)},
    )
    shown = cli("show", "--all", "--dir", path)
    for tag, key in SIGNATURES.items():
        assert f"MetaGraphDef with tag-set: '{tag}'" in shown
        assert f"signature_def['{key}']" in shown

    numbers = np.array([[1.0, 1.0], [0.5, 2.0]], "float32")
    np.save(tmp_path / "numbers.npy", numbers)
    texts = [b"red", b"pink"]
    expected = model([tf.constant(texts), tf.constant(numbers)], training=False)
    inputs = ["--inputs", f"number={tmp_path / 'numbers.npy'}"]
    expressions = ["--input_exprs", f"word={texts}"]
    outputs = run(tmp_path, path, "serve", "serving_default", *inputs, *expressions)
    np.testing.assert_allclose(outputs["dense"], expected, rtol=1e-5)

    examples = [
        {"word": [text], "number": row.tolist()}
        for text, row in zip(texts, numbers, strict=True)
    ]
    arguments = ["--input_examples", f"inputs={examples}"]
    outputs = run(tmp_path, path, "serve", "classify", *arguments)
    np.testing.assert_allclose(outputs["scores"], expected, rtol=1e-5)

    expressions[1] += ";labels=[0, 1]"
    shown = cli(*run_of(path, "eval", "eval"), *inputs, *expressions)
    losses = -np.log(np.asarray(expected)[[0, 1], [0, 1]])
    (loss,) = re.findall(r"key loss:\n(.*)", shown)
    np.testing.assert_allclose(float(loss), losses.mean(), rtol=1e-5)


def run_of(path, tag, key):
    return ["run", "--dir", path, "--tag_set", tag, "--signature_def", key]


def run(folder, path, tag, key, *arguments):
    """What `saved_model_cli run` gives for a signature, by output."""
    folder = folder / f"outputs-{key}"
    cli(*run_of(path, tag, key), *arguments, "--outdir", folder)
    # Texts are pickled.
    return {f.stem: np.load(f, allow_pickle=True) for f in folder.glob("*.npy")}


def cli(*arguments):
    program = Path(sys.executable).parent / "saved_model_cli"
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
