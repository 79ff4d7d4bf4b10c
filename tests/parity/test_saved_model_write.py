"""Real TensorFlow 1.15 and TensorFlow 2 load each graph of a SavedModel: same numbers.

And TensorFlow 1.15 trains on from the graph tagged `train`; what it saves is a Keras
model again.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers

from keras_metagraph import load_from_meta_graph, save_saved_model

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
        if tag != "train":  # the order of reads and updates is left open there
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
