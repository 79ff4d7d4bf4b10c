"""The least that must work with every supported pair of Keras and TensorFlow."""

import keras
import numpy as np

import keras_metagraph as kmg
from oracle import references


def _model() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((4,), name="x"),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.Dense(1, name="score"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def test_sequential_is_exported():
    meta_graph_def = kmg.export_meta_graph(_model())

    names = {node.name for node in meta_graph_def.graph_def.node}
    assert {"x", "hidden/kernel", "score/bias"} <= names
    assert "serving_default" in meta_graph_def.signature_def


def test_sequential_is_saved_and_loaded(tmp_path):
    model = _model()
    x = np.linspace(-1, 1, 32, dtype="float32").reshape(8, 4)
    model.fit(x, x.sum(1, keepdims=True), epochs=2, verbose=0)

    prefix = kmg.save_meta_graph(model, str(tmp_path / "model"), global_step=2)
    loaded = kmg.load_from_meta_graph(prefix)

    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    assert [type(layer) for layer in loaded.layers] == [keras.layers.Dense] * 2
    assert int(loaded.optimizer.iterations) == 2


def test_tf1_export_is_loaded_and_predicts():
    export = references.export("zoo/mlp_adam")

    model = kmg.load_from_meta_graph(str(export.source.path), outputs=export.fetches)

    found = model.predict(export.inputs["x"], verbose=0)
    for key, expected in export.outputs.items():
        np.testing.assert_allclose(found[key], expected, atol=1e-5)
