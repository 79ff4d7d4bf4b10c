"""The layout of `Estimator.export_all_saved_models`."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_metagraph import save_saved_model
from oracle.references import FIXTURES
from oracle.saved_models import mlp, read

X = np.random.default_rng(1).normal(size=(8, 3)).astype("float32")
Y = np.random.default_rng(2).normal(size=(8, 2)).astype("float32")
TAGS = ("serve", "train", "eval")
ESTIMATOR = FIXTURES / "zoo" / "estimator_dnn" / "export_all"
HIDDEN = {"inputs": {"x": "x:0"}, "outputs": {"hidden": "dense/Relu:0"}}
# What a canned estimator has and a Keras model need not: heads with classes, summaries,
# contexts of conditions, a main op where there is nothing to be run.
ABSENT = {
    "classification",
    "cond_context",
    "regression",
    "saved_model_main_op",
    "summaries",
}


class TestEstimatorLayout:
    def test_keys_are_those_of_estimator(self, tmp_path):
        path = save_saved_model(
            tmp_path / "export",
            {tag: mlp() for tag in TAGS},
            layout="estimator",
            timestamped=True,
        )
        assert Path(path).parent == tmp_path / "export"
        assert Path(path).name.isdigit()
        found, theirs = read(path), read(ESTIMATOR)
        assert found.keys() == theirs.keys()
        for tags, graph in theirs.items():
            assert kinds(found[tags]) >= kinds(graph) - ABSENT
            methods = {
                key: each.method_name
                for key, each in graph.signature_def.items()
                if key in ("train", "eval", "predict")
            }
            assert methods == {
                key: found[tags].signature_def[key].method_name for key in methods
            }
        evaluation = found["eval",].signature_def["eval"]
        assert set(evaluation.outputs) == {
            "loss",
            "metrics/loss/update_op",
            "metrics/loss/value",
            "metrics/mae/update_op",
            "metrics/mae/value",
            "predictions/output",
        }

    def test_predictions_and_metrics(self, tmp_path):
        model = mlp()
        path = save_saved_model(
            tmp_path / "1", dict.fromkeys(TAGS, model), layout="estimator"
        )
        expected = model.predict(X, verbose=0)
        for tag in ("eval", "train"):
            loaded = tf.saved_model.load(path, tags=[tag])
            outputs = loaded.signatures[tag](x=tf.constant(X), labels=tf.constant(Y))
            np.testing.assert_allclose(
                outputs["predictions/output"], expected, rtol=1e-5, atol=1e-6
            )
            mae = np.abs(expected - Y).mean()
            np.testing.assert_allclose(outputs["metrics/mae/update_op"], mae, rtol=1e-5)
            assert outputs["metrics/mae/value"] == 0.0
            again = loaded.signatures[tag](x=tf.constant(X), labels=tf.constant(Y))
            np.testing.assert_allclose(again["metrics/mae/value"], mae, rtol=1e-5)

    def test_the_users_default_stands_beside_the_predict_signature(self, tmp_path):
        path = save_saved_model(
            tmp_path / "1",
            mlp(),
            signatures={"serving_default": HIDDEN},
            layout="estimator",
        )
        signatures = read(path)["serve",].signature_def
        assert set(signatures["serving_default"].outputs) == {"hidden"}
        assert set(signatures["predict"].outputs) == {"output"}


def kinds(meta_graph_def):
    """Keys of signatures, and of outputs up to the first slash; collections."""
    found = set(meta_graph_def.signature_def) | set(meta_graph_def.collection_def)
    for key in ("train", "eval"):
        if key in meta_graph_def.signature_def:
            outputs = meta_graph_def.signature_def[key].outputs
            found |= {f"{key}: {name.partition('/')[0]}" for name in outputs}
    return found
