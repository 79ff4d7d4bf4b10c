"""Tags, names and forms of the graphs of a SavedModel."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from keras import layers
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_metagraph import (
    load_from_meta_graph,
    predict_signature,
    save_meta_graph,
    save_saved_model,
)
from keras_metagraph.errors import ExportError
from keras_metagraph.mixin import MetaGraphMixin
from oracle.saved_models import collection, files, keys, mlp, read, saved, words

X = np.random.default_rng(1).normal(size=(8, 3)).astype("float32")
TAGS = ("serve", "train", "eval")
HIDDEN = {"inputs": {"x": "x:0"}, "outputs": {"hidden": "dense/Relu:0"}}


class TestGraphs:
    def test_one_model_is_served(self, tmp_path):
        path = save_saved_model(tmp_path / "1", mlp())
        assert path == str(tmp_path / "1")
        assert read(path).keys() == {("serve",)}
        assert sorted(files(path)) == [
            "saved_model.pb",
            "variables/variables.data-00000-of-00001",
            "variables/variables.index",
        ]
        assert keys(path) == {
            "dense/kernel",
            "dense/bias",
            "dense_1/kernel",
            "dense_1/bias",
        }

    def test_all_graphs_read_one_checkpoint(self, tmp_path):
        model = mlp()
        graphs = read(save_saved_model(tmp_path / "1", dict.fromkeys(TAGS, model)))
        written = keys(tmp_path / "1")
        restored = {tags: saved(graph) for tags, graph in graphs.items()}
        assert restored["train",] == written
        assert restored["serve",] == restored["eval",] < written
        assert {"dense/kernel/Adam", "global_step", "beta1_power"} <= written
        assert [
            list(g.signature_def) for g in graphs.values() if not g.signature_def
        ] == []

    def test_what_tags_mean(self, tmp_path):
        model = mlp()
        tags = [(), ("train",), ("serve", "gpu"), ("train", "tpu"), ("eval",)]
        graphs = read(save_saved_model(tmp_path / "1", dict.fromkeys(tags, model)))
        own = {
            tags: {key for key in graph.signature_def if key[0] != "_"}
            for tags, graph in graphs.items()
        }
        assert own == {
            (): {"serving_default"},
            ("train",): {"train"},
            ("serve", "gpu"): {"serving_default"},
            ("train", "tpu"): {"train"},
            ("eval",): {"eval"},
        }

    def test_the_train_op_as_builder_and_the_later_loaders_have_it(self, tmp_path):
        graphs = read(save_saved_model(tmp_path / "1", {"train": mlp()}))
        graph = graphs["train",]
        assert collection(graph, "saved_model_train_op") == ["train/train_op"]
        reserved = graph.signature_def["__saved_model_train_op"]
        assert reserved.outputs["__saved_model_train_op"].name == "train/train_op"
        assert collection(graph, "saved_model_main_op") == ["main_op"]
        reserved = graph.signature_def["__saved_model_init_op"]
        assert reserved.outputs["__saved_model_init_op"].name == "main_op"

    def test_a_dict_says_more_of_a_graph(self, tmp_path):
        model = mlp()
        serve = {
            "model": model,
            "collections": {"rate": 0.5},
            "graphs": ("predict", "eval"),
        }
        path = save_saved_model(
            tmp_path / "1",
            {"serve": serve, "train": model},
            collections={"classes": ["cat"]},
            signatures={"hidden": HIDDEN},
        )
        graphs = read(path)
        assert {"hidden", "serving_default", "eval"} <= set(
            graphs["serve",].signature_def
        )
        assert "hidden" not in graphs["train",].signature_def
        assert set(graphs["serve",].collection_def) >= {"rate", "classes"}
        assert "rate" not in graphs["train",].collection_def
        assert "classes" in graphs["train",].collection_def

    def test_own_signatures_of_a_model_are_for_predicting(self, tmp_path):
        class Own(MetaGraphMixin, keras.Sequential):
            def meta_graph_signatures(self):
                return {"hidden": HIDDEN}

        model = Own(
            [keras.Input((3,), name="x"), layers.Dense(4, "relu", name="dense")]
        )
        model.compile("sgd", "mse")
        graphs = read(save_saved_model(tmp_path / "1", dict.fromkeys(TAGS, model)))
        having = [t for t, graph in graphs.items() if "hidden" in graph.signature_def]
        assert having == [("serve",)]

    def test_devices_defaults_and_text(self, tmp_path):
        class Placed(layers.Layer):
            def call(self, x):
                with tf.device("/GPU:0"):
                    return x + 1.0

        model = keras.Sequential(
            [keras.Input((3,), name="x"), Placed(), layers.Dense(1)]
        )
        graphs = {
            "serve": {"model": model, "clear_devices": True},
            ("serve", "gpu"): model,
        }
        path = save_saved_model(tmp_path / "1", graphs, strip_default_attrs=True)
        placed = {
            tags: {node.device for node in graph.graph_def.node}
            for tags, graph in read(path).items()
        }
        assert placed == {("serve",): {""}, ("serve", "gpu"): {"", "/device:GPU:0"}}
        assert all(g.meta_info_def.stripped_default_attrs for g in read(path).values())
        text = save_saved_model(tmp_path / "2", model, as_text=True)
        parsed = text_format.Parse(
            Path(text, "saved_model.pbtxt").read_text(), SavedModel()
        )
        assert parsed.saved_model_schema_version == 1
        assert not Path(text, "saved_model.pb").exists()

    def test_a_model_without_variables(self, tmp_path):
        inputs = keras.Input((3,), name="x")
        path = save_saved_model(tmp_path / "1", keras.Model(inputs, inputs * 2.0))
        assert os.listdir(tmp_path / "1" / "variables") == []
        serve = tf.saved_model.load(path).signatures["serving_default"]
        (output,) = serve(x=tf.constant(X)).values()
        np.testing.assert_array_equal(output, 2.0 * X)

    def test_a_checkpoint_gives_the_values(self, tmp_path):
        model = mlp()
        kernel = model.layers[0].kernel.numpy()
        prefix = save_meta_graph(model, tmp_path / "m")
        model.layers[0].kernel.assign_add(np.ones((3, 4)))
        path = save_saved_model(
            tmp_path / "1", {"serve": model, "train": model}, checkpoint=prefix
        )
        reader = tf.train.load_checkpoint(f"{path}/variables/variables")
        np.testing.assert_array_equal(reader.get_tensor("dense/kernel"), kernel)
        assert not np.array_equal(model.layers[0].kernel, kernel)

    def test_the_same_model_gives_the_same_bytes(self, tmp_path):
        for name in ("1", "2"):
            keras.utils.clear_session(free_memory=False)
            keras.utils.set_random_seed(7)
            model = words()
            model.compile("adam", "mse", metrics=["mae"])
            save_saved_model(tmp_path / name, dict.fromkeys(TAGS, model))
        assert files(tmp_path / "1") == files(tmp_path / "2")


class TestNames:
    def gan(self):
        generator = keras.Sequential(
            [keras.Input((3,), name="noise"), layers.Dense(4, name="dense")],
            name="generator",
        )
        judge = keras.Sequential(
            [keras.Input((4,)), layers.Dense(1, name="dense")], name="judge"
        )
        noise = keras.Input((3,), name="noise")
        gan = keras.Model(noise, judge(generator(noise)), name="gan")
        gan.compile("adam", "mse")
        return generator, gan

    @pytest.mark.parametrize("order", [("serve", "train"), ("train", "serve")])
    def test_models_that_share_layers_share_names(self, order, tmp_path):
        generator, gan = self.gan()
        models = {"serve": generator, "train": gan}
        path = save_saved_model(tmp_path / "1", {tag: models[tag] for tag in order})
        restored = {tags: saved(graph) for tags, graph in read(path).items()}
        assert list(restored) == [(tag,) for tag in order]
        kernels = {"generator/dense/kernel", "generator/dense/bias"}
        assert restored["serve",] == kernels
        assert keys(path) == restored["train",] > kernels
        loaded = tf.saved_model.load(path, tags=["serve"])
        (output,) = loaded.signatures["serving_default"](noise=tf.constant(X)).values()
        np.testing.assert_allclose(output, generator(X), rtol=1e-6)

    def test_a_gan_that_cannot_be_called_trains(self, tmp_path):
        generator, _ = self.gan()

        class Gan(keras.Model):
            def __init__(self):
                super().__init__()
                self.generator = generator

            def train_step(self, data):
                with tf.GradientTape() as tape:
                    loss = keras.ops.mean(self.generator(data[0]) ** 2)
                weights = self.generator.trainable_variables
                self.optimizer.apply(tape.gradient(loss, weights), weights)
                return {"g_loss": loss}

        gan = Gan()
        gan.compile("sgd")
        train = {"model": gan, "inputs": tf.TensorSpec([None, 3], name="noise")}
        path = save_saved_model(tmp_path / "1", {"serve": generator, "train": train})
        assert saved(read(path)["serve",]) < saved(read(path)["train",])
        loaded = load_from_meta_graph(path, tags="train", rebuild="graph")
        step = loaded.meta_graph.signatures["train"]
        first = step(noise=X)["g_loss"]
        np.testing.assert_allclose(first, np.mean(generator(X) ** 2), rtol=1e-6)
        assert step(noise=X)["g_loss"] < first
        # Which of the values that the step logs is a loss, the file does not say.
        assert list(loaded.fit(X, epochs=2, verbose=0).history) == ["step"]
        with pytest.raises(ExportError, match="no graph of it predicts"):
            save_saved_model(tmp_path / "2", {"serve": {**train}})
        with pytest.warns(UserWarning, match="predict graph is left out"):
            save_meta_graph(gan, tmp_path / "m", inputs=train["inputs"])
        served = {"serving_default": predict_signature(generator)}
        prefix = save_meta_graph(
            gan, tmp_path / "n", inputs=train["inputs"], signatures=served
        )
        noise = load_from_meta_graph(prefix, signature="serving_default")
        np.testing.assert_allclose(noise.predict(X), generator(X), rtol=1e-6)

    def test_variables_of_one_name_get_different_ones(self, tmp_path):
        first, second = mlp(name="first"), mlp(name="second")
        second.layers[0].name = "dense"
        graphs = {"serve": first, "other": second, "train": second}
        path = save_saved_model(tmp_path / "1", graphs)
        for tag, model in graphs.items():
            if tag != "train":
                loaded = tf.saved_model.load(path, tags=[tag])
                serve = loaded.signatures["serving_default"]
                (output,) = serve(x=tf.constant(X)).values()
                np.testing.assert_allclose(output, model(X), rtol=1e-6)
        restored = {tags: saved(graph) for tags, graph in read(path).items()}
        assert restored["other",] < restored["train",]
        assert not restored["serve",] & restored["train",]

    def test_each_of_two_trained_models_counts_its_steps(self, tmp_path):
        first, second = mlp(), mlp()
        graphs = {("train", "a"): first, ("train", "b"): second}
        found = read(save_saved_model(tmp_path / "1", graphs))
        steps = [
            graph.collection_def["global_step"].bytes_list.value
            for graph in found.values()
        ]
        assert [b"global_step:0" in step[0] for step in steps] == [True, False]
        assert [b"global_step_1:0" in step[0] for step in steps] == [False, True]
