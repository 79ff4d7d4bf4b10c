"""Programs that have a checkpoint and want a MetaGraph."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_metagraph as kmg
from first_programs.sessions import (
    dense,
    new_session,
    read_meta,
    restored,
    run_signature,
    save,
    tf1,
)

RNG = np.random.default_rng(5)
X = RNG.normal(size=(8, 5)).astype("float32")
Y = RNG.normal(size=(8, 1)).astype("float32")
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def sequential():
    model = keras.Sequential(
        [
            keras.Input((5,), name="x"),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    return model


class Regressor(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="relu")
        self.score = keras.layers.Dense(1)

    def call(self, x):
        return self.score(self.hidden(x))


def trained(model):
    model.fit(X, Y, epochs=3, verbose=0)
    return model


def write_checkpoint(model, directory):
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    return checkpoint.save(str(directory / "ckpt"))


def write_weights(model, directory):
    path = str(directory / "m.weights.h5")
    model.save_weights(path)
    return path


def write_keras(model, directory):
    path = str(directory / "m.keras")
    model.save(path)
    return path


def write_meta_graph(model, directory):
    return kmg.save_meta_graph(model, directory / "saved")


def predict_in_session(prefix):
    with restored(str(prefix)) as session:
        meta = f"{prefix}.meta"
        (key,) = read_meta(meta).signature_def["serving_default"].inputs
        values = run_signature(session, meta, "serving_default", {key: X})
        return next(iter(values.values()))


@pytest.mark.parametrize(
    "write", [write_checkpoint, write_weights, write_keras, write_meta_graph]
)
def test_sequential(tmp_path, write):
    source = trained(sequential())
    path = write(source, tmp_path)
    keras.utils.clear_session()
    model = sequential()
    before = [np.array(weight) for weight in model.weights]
    kmg.export_meta_graph(model, tmp_path / "out.meta", checkpoint=path)

    predicted = predict_in_session(tmp_path / "out")
    np.testing.assert_allclose(predicted, source.predict(X, verbose=0), **CLOSE)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_sequential_with_its_optimizer(tmp_path):
    source = trained(sequential())
    path = write_checkpoint(source, tmp_path)
    keras.utils.clear_session()
    model = sequential()
    model.optimizer.build(model.trainable_variables)
    kmg.export_meta_graph(model, tmp_path / "out.meta", checkpoint=path)
    again = kmg.load_from_meta_graph(tmp_path / "out")

    assert int(again.optimizer.iterations) == 3
    for _ in range(3):
        assert again.train_on_batch(X, Y) == source.train_on_batch(X, Y)


@pytest.mark.parametrize("write", [write_checkpoint, write_weights])
def test_custom_class(tmp_path, write):
    source = Regressor()
    source.compile("adam", "mse")
    path = write(trained(source), tmp_path)
    keras.utils.clear_session()
    model = Regressor()
    model(X[:1])
    kmg.export_meta_graph(
        model, tmp_path / "out.meta", checkpoint=path, graphs=["predict"]
    )

    predicted = predict_in_session(tmp_path / "out")
    np.testing.assert_allclose(predicted, source.predict(X, verbose=0), **CLOSE)


def test_custom_class_that_was_never_called(tmp_path):
    source = Regressor()
    source.compile("adam", "mse")
    path = write_checkpoint(trained(source), tmp_path)
    keras.utils.clear_session()
    kmg.export_meta_graph(
        Regressor(),
        tmp_path / "out.meta",
        checkpoint=path,
        graphs=["predict"],
        inputs=tf.TensorSpec([None, 5], tf.float32),
    )

    predicted = predict_in_session(tmp_path / "out")
    np.testing.assert_allclose(predicted, source.predict(X, verbose=0), **CLOSE)


def test_checkpoint_of_another_model(tmp_path):
    path = write_checkpoint(trained(sequential()), tmp_path)
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(9), keras.layers.Dense(1)]
    )
    with pytest.raises(kmg.errors.CheckpointError) as caught:
        kmg.export_meta_graph(model, tmp_path / "out.meta", checkpoint=path)

    assert "To fix:" in str(caught.value)
    assert len(caught.value.findings) >= 2
    assert not (tmp_path / "out.meta").exists()


@pytest.fixture
def scoped(tmp_path):
    """A graph with the scopes `net` and `net_ema`; gives the prefix."""
    with new_session() as session:
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        for scope in ("net", "net_ema"):
            with tf1.variable_scope(scope):
                hidden = tf1.nn.relu(dense(x, 8, "hidden"))
                tf1.identity(dense(hidden, 1, "score"), name="output")
        session.run(tf1.global_variables_initializer())
        return save(session, tmp_path)


def test_scoped_graph(tmp_path, scoped):
    """Only `net` is exported; then it is imported under the names it had."""
    with restored(scoped) as session:
        expected = session.run("net/output:0", {"x:0": X})

    model = kmg.load_from_meta_graph(
        scoped, inputs={"x": "x:0"}, outputs={"y": "net/output:0"}
    )
    kmg.export_meta_graph(model, tmp_path / "net.meta", export_scope="net")

    exported = read_meta(str(tmp_path / "net.meta"))
    names = [node.name for node in exported.graph_def.node]
    assert "hidden/kernel" in names
    assert not any("ema" in name for name in names)
    with new_session() as session:
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        (unbound,) = exported.collection_def["unbound_inputs"].bytes_list.value
        tf1.train.import_meta_graph(
            str(tmp_path / "net.meta"),
            import_scope="net",
            input_map={unbound.decode(): x},
        )
        found = {v.op.name for v in tf1.global_variables()}
        tf1.train.Saver().restore(session, scoped)
        output = session.run("net/output:0", {x: X})

    assert found == {
        f"net/{layer}/{name}"
        for layer in ("hidden", "score")
        for name in ("kernel", "bias")
    }
    np.testing.assert_allclose(output, expected, **CLOSE)
    np.testing.assert_allclose(model.predict({"x": X})["y"], expected, **CLOSE)


def test_scoped_keras_model(tmp_path):
    encoder = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(8, "relu", name="hidden")], name="net"
    )
    inputs = keras.Input((5,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(1, name="score")(encoder(inputs)))
    prefix = kmg.save_meta_graph(model, tmp_path / "model", graphs=["predict"])
    with restored(prefix) as session:
        expected = session.run("net/hidden/Relu:0", {"x:0": X})
    kmg.export_meta_graph(
        model, tmp_path / "net.meta", export_scope="net", graphs=["predict"]
    )
    with new_session() as session:
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        tf1.train.import_meta_graph(
            str(tmp_path / "net.meta"),
            import_scope="net",
            input_map={"$unbound_inputs_x": x},
        )
        tf1.train.Saver().restore(session, prefix)
        hidden = session.run("net/hidden/Relu:0", {x: X})

    np.testing.assert_allclose(hidden, expected, **CLOSE)
    np.testing.assert_allclose(encoder.predict(X, verbose=0), expected, **CLOSE)
