"""What `save_saved_model` writes, `load_from_meta_graph` reads, graph by graph."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_metagraph import load_from_meta_graph, save_saved_model
from keras_metagraph.errors import SignatureError
from oracle import references
from oracle.saved_models import files

TAGS = ("serve", "train", "eval")
X = {
    "word": np.array([b"red", b"blue", b"pink", b"red"]),
    "number": np.random.default_rng(1).normal(size=(4, 2)).astype("float32"),
}
Y = np.array([0, 1, 1, 0])


def words():
    word = keras.Input((), dtype="string", name="word")
    number = keras.Input((2,), name="number")
    ids = layers.StringLookup(vocabulary=["red", "blue"])(word)
    x = layers.Concatenate()([layers.Embedding(4, 3)(ids), number])
    x = layers.BatchNormalization()(layers.Dense(4)(x))
    model = keras.Model({"word": word, "number": number}, layers.Dense(2)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def inputs():
    """As Keras takes them: it takes no arrays of texts."""
    return {key: tf.constant(value) for key, value in X.items()}


def train(model, steps):
    found = []
    for _ in range(steps):
        model.reset_metrics()
        logs = model.train_on_batch(inputs(), Y, return_dict=True)
        found.append(logs["loss"])
    return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A SavedModel, what its model predicts, and the losses of its next steps."""
    keras.utils.set_random_seed(3)
    model = words()
    train(model, 3)
    path = save_saved_model(
        tmp_path_factory.mktemp("saved") / "1", dict.fromkeys(TAGS, model)
    )
    predicted = np.asarray(model(inputs(), training=False))
    return path, predicted, train(model, 3)


@pytest.mark.parametrize("tag", [None, *TAGS])
def test_every_graph_is_the_keras_model(tag, saved):
    path, predicted, _ = saved
    model = load_from_meta_graph(path, tags=tag)
    np.testing.assert_allclose(model(inputs(), training=False), predicted, rtol=1e-6)
    assert model.optimizer.learning_rate == np.float32(0.01)


def test_the_graph_of_training_goes_on(saved):
    path, _, losses = saved
    model = load_from_meta_graph(path, tags="train")
    np.testing.assert_allclose(train(model, 3), losses, rtol=1e-6)
    assert model.optimizer.iterations == 6


@pytest.mark.parametrize("tag", TAGS)
def test_the_graph_itself_runs_too(tag, saved):
    path, predicted, losses = saved
    graph = load_from_meta_graph(path, tags=tag).meta_graph
    if tag == "serve":
        outputs = graph.signatures["serving_default"](**X)
        np.testing.assert_allclose(next(iter(outputs.values())), predicted, rtol=1e-5)
    else:
        outputs = graph.signatures[tag](**X, labels=Y)
    if tag == "train":
        np.testing.assert_allclose(outputs["loss"], losses[0], rtol=1e-5)


def test_tags_that_are_not_there(saved):
    with pytest.raises(SignatureError, match="train"):
        load_from_meta_graph(saved[0], tags=["gpu"])


def test_what_was_loaded_is_written_as_before(saved, tmp_path):
    path, _, _ = saved
    model = load_from_meta_graph(path, tags="train")
    again = save_saved_model(tmp_path / "1", dict.fromkeys(TAGS, model))
    assert files(again) == files(path)


def test_a_saved_model_of_tensorflow_1_is_written_again(tmp_path):
    """A second write of what the first one wrote differs in nothing."""
    source = references.FIXTURES / "zoo" / "savedmodel_builder_multi" / "saved_model"
    (export,) = [e for e in references.exports() if e.folder == source.parent]
    training = export.training
    paths = [source, *(tmp_path / name for name in ("1", "2", "3"))]
    for path, written in itertools.pairwise(paths):
        model = load_from_meta_graph(path, tags=["train"])
        loss = model.meta_graph.run(training.loss, training.feed(0))
        np.testing.assert_allclose(loss, training.losses[0], rtol=1e-5)
        save_saved_model(written, {"train": model})
    assert files(paths[2]) == files(paths[3])


def test_a_model_without_variables(tmp_path):
    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, layers.Rescaling(2.0)(inputs))

    loaded = load_from_meta_graph(save_saved_model(tmp_path / "1", model))

    x = np.ones((2, 3), "float32")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), 2 * x)
    (output,) = loaded.meta_graph.signatures["serving_default"](x=x).values()
    np.testing.assert_array_equal(output, 2 * x)
