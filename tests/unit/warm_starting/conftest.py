"""Models, and checkpoints that know other names for their variables."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

v1 = tf.compat.v1


def _randomize(variables, seed):
    """Gives variables values that no two of them share."""
    rng = np.random.default_rng(seed)
    for variable in variables:
        variable.assign(rng.uniform(1, 9, variable.shape).astype(variable.dtype))


def _make_model(name="net", head=2, seed=1):
    """A functional model with a nested one, batch normalization and an optimizer."""
    inputs = keras.Input((3,))
    hidden = layers.Dense(4, name="first")(inputs)
    encoder = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, name="dense"),
            layers.BatchNormalization(name="norm"),
        ],
        name="encoder",
    )
    outputs = layers.Dense(head, name="head")(encoder(hidden))
    model = keras.Model(inputs, outputs, name=name)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    _randomize([*model.weights, *model.optimizer.variables], seed)
    return model


@pytest.fixture(name="make_model")
def make_model():
    """`make_model(name, head, seed)`: a compiled model of random weights."""
    return _make_model


@pytest.fixture
def model():
    """The model that is warm-started."""
    return _make_model()


@pytest.fixture
def checkpoint(tmp_path):
    """`checkpoint(values)`: the prefix of a name-based checkpoint of these arrays."""

    def write(values, name="ckpt", write_version=2):
        with tf.Graph().as_default(), v1.Session() as session:
            kept = {
                key: v1.Variable(value, name=f"v{place}", use_resource=True)
                for place, (key, value) in enumerate(values.items())
            }
            session.run(v1.global_variables_initializer())
            saver = v1.train.Saver(kept, write_version=write_version)
            return saver.save(
                session, str(tmp_path / name), write_meta_graph=False, write_state=False
            )

    return write
