"""What `save_saved_model` and `simple_save` write, and refuse."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from keras import layers
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_metagraph import errors, save_meta_graph, save_saved_model, simple_save
from keras_metagraph.mixin import MetaGraphMixin
from oracle.references import FIXTURES

X = np.random.default_rng(1).normal(size=(8, 3)).astype("float32")
Y = np.random.default_rng(2).normal(size=(8, 2)).astype("float32")
TAGS = ("serve", "train", "eval")


def mlp(compiled=True, **arguments):
    model = keras.Sequential(
        [
            keras.Input((3,), name="x"),
            layers.Dense(4, activation="relu"),
            layers.Dense(2),
        ],
        **arguments,
    )
    if compiled:
        model.compile("adam", "mse", metrics=["mae"])
        model.optimizer.build(model.trainable_variables)
    return model


def read(path):
    """The graphs of a SavedModel, by their tags."""
    saved_model = SavedModel()
    saved_model.ParseFromString(Path(path, "saved_model.pb").read_bytes())
    return {tuple(m.meta_info_def.tags): m for m in saved_model.meta_graphs}


def keys(path):
    """Names of the variables in the checkpoint."""
    return {name for name, _ in tf.train.list_variables(f"{path}/variables/variables")}


def saved(meta_graph_def):
    """Names of the variables that a graph's saver restores."""
    (node,) = [n for n in meta_graph_def.graph_def.node if n.name == NAMES]
    return {name.decode() for name in node.attr["value"].tensor.string_val}


NAMES = "save/RestoreV2/tensor_names"


def files(path):
    """Contents of all files, by their paths."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in Path(path).rglob("*")
        if file.is_file()
    }


def collection(meta_graph_def, name):
    return list(meta_graph_def.collection_def[name].node_list.value)


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


HIDDEN = {"inputs": {"x": "x:0"}, "outputs": {"hidden": "dense/Relu:0"}}


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


def words(vocabulary=("red", "blue"), **arguments):
    word = keras.Input((), dtype="string", name="word")
    ids = layers.StringLookup(vocabulary=list(vocabulary), **arguments)(word)
    return keras.Model(word, layers.Embedding(5, 2)(ids))


class TestAssets:
    def assets(self, meta_graph_def):
        """File names by the tensor that the path is fed to, in both forms."""
        packed = meta_graph_def.collection_def["saved_model_assets"].any_list.value
        found = []
        for message in packed:
            asset = AssetFileDef()
            assert message.Unpack(asset)
            found.append(asset)
        assert found == list(meta_graph_def.asset_file_def)
        return {asset.tensor_info.name: asset.filename for asset in found}

    def test_vocabularies_are_files(self, tmp_path):
        model = words()
        graphs = read(save_saved_model(tmp_path / "1", {"serve": model, "gpu": model}))
        assert files(tmp_path / "1" / "assets") == {
            "string_lookup.txt": b"red\t1\nblue\t2\n"
        }
        for graph in graphs.values():
            assert self.assets(graph) == {
                "string_lookup/table/asset_filepath:0": "string_lookup.txt"
            }
            (reader,) = collection(graph, "table_initializer")
            (node,) = [n for n in graph.graph_def.node if n.name == reader]
            assert node.op == "InitializeTableFromTextFileV2"
            tensors = collection(graph, "asset_filepaths")
            assert tensors == ["string_lookup/table/asset_filepath:0"]
        serve = tf.saved_model.load(str(tmp_path / "1"), tags=["serve"])
        given = tf.constant(["blue", "red", "pink"])
        (output,) = serve.signatures["serving_default"](word=given).values()
        np.testing.assert_array_equal(output, model(given))

    def test_equal_vocabularies_are_one_file_and_others_are_not(self, tmp_path):
        word = keras.Input((), dtype="string", name="word")
        tables = [["red", "blue"], ["red", "blue"], ["red", "green"]]
        ids = [layers.StringLookup(vocabulary=table)(word) for table in tables]
        model = keras.Model(word, ids)
        files_of_user = {"string_lookup.txt": self.file(tmp_path, b"mine")}
        path = save_saved_model(tmp_path / "1", model, assets=files_of_user)
        assert files(tmp_path / "1" / "assets") == {
            "string_lookup.txt": b"mine",
            "string_lookup_1.txt": b"red\t1\nblue\t2\n",
            "string_lookup_2.txt": b"red\t1\ngreen\t2\n",
        }
        loaded = tf.saved_model.load(path).signatures["serving_default"]
        outputs = loaded(word=tf.constant(["blue", "green"]))
        assert sorted(v.numpy().tolist() for v in outputs.values()) == [
            [0, 2],
            [2, 0],
            [2, 0],
        ]

    @pytest.mark.parametrize(
        "word", ["a\tb", "a\nb", "a\rb", "\N{GREEK SMALL LETTER MU}"]
    )
    def test_tokens_that_no_line_can_hold(self, word, tmp_path):
        model = words(vocabulary=["red", word])
        path = save_saved_model(tmp_path / "1", model)
        assert Path(path, "assets").exists() == (word == "\N{GREEK SMALL LETTER MU}")
        loaded = tf.saved_model.load(path).signatures["serving_default"]
        (output,) = loaded(word=tf.constant(["red", word])).values()
        np.testing.assert_array_equal(output, model(tf.constant(["red", word])))

    def test_numbers_and_inverse_tables(self, tmp_path):
        number = keras.Input((), dtype="int64", name="number")
        x = layers.IntegerLookup(vocabulary=[7, -3])(number)
        invert = layers.StringLookup(vocabulary=["red", "blue"], invert=True)
        model = keras.Model(number, invert(x))
        path = save_saved_model(tmp_path / "1", model)
        assert files(tmp_path / "1" / "assets") == {
            "integer_lookup.txt": b"7\t1\n-3\t2\n",
            "string_lookup.txt": b"1\tred\n2\tblue\n",
        }
        loaded = tf.saved_model.load(path).signatures["serving_default"]
        given = tf.constant([-3, 7, 8], tf.int64)
        (output,) = loaded(number=given).values()
        assert output.numpy().tolist() == model(given).numpy().tolist()

    def file(self, folder, content):
        path = folder / f"file-{len(os.listdir(folder))}"
        path.write_bytes(content)
        return path

    def test_files_of_the_user(self, tmp_path):
        first, second = self.file(tmp_path, b"1"), self.file(tmp_path, b"2")
        path = save_saved_model(
            tmp_path / "1",
            {"serve": {"model": mlp(), "assets": {"names.txt": second}}, "gpu": mlp()},
            assets=[first],
            assets_extra={"tf_serving_warmup_requests": second, "deep/er": first},
        )
        assert files(Path(path, "assets")) == {first.name: b"1", "names.txt": b"2"}
        assert files(Path(path, "assets.extra")) == {
            "tf_serving_warmup_requests": b"2",
            "deep/er": b"1",
        }
        graphs = read(path)
        assert set(self.assets(graphs["serve",]).values()) == {first.name, "names.txt"}
        assert set(self.assets(graphs["gpu",]).values()) == {first.name}
        loaded = tf.saved_model.load(path, tags=["gpu"])
        found = [Path(os.fsdecode(a.asset_path.numpy())) for a in loaded.asset_paths]
        assert [each.read_bytes() for each in found] == [b"1"]

    def test_all_files_that_are_missing_are_named(self, tmp_path):
        with pytest.raises(errors.ExportError) as info:
            save_saved_model(
                tmp_path / "1",
                mlp(),
                assets={"a.txt": tmp_path / "no", "../b.txt": self.file(tmp_path, b"")},
            )
        assert len(info.value.findings) == 2

    def test_names_of_two_files(self, tmp_path):
        graphs = {
            tag: {"model": mlp(), "assets": {"a": self.file(tmp_path, b"1")}}
            for tag in ("serve", "gpu")
        }
        with pytest.raises(errors.ExportError, match="two files"):
            save_saved_model(tmp_path / "1", graphs)


class Counted(layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(
            name="count", trainable=False, initializer=keras.initializers.Constant(2.0)
        )

    def call(self, x):
        return x + self.count


class TestMainOp:
    def test_tables_and_metrics_start(self, tmp_path):
        model = words()
        model.compile("sgd", "mse", metrics=["mae"])
        path = save_saved_model(tmp_path / "1", {"serve": model, "eval": model})
        for tags, graph in read(path).items():
            (main_op,) = [n for n in graph.graph_def.node if n.name == "main_op"]
            tables = ["string_lookup/table/InitializeTableFromTextFileV2"]
            metrics = [
                f"metrics/{name}/Assign"
                for name in ("loss/total", "loss/count", *MAE)
                if tags == ("eval",)
            ]
            assert sorted(main_op.input) == sorted(f"^{n}" for n in tables + metrics)

    def test_there_is_none_where_nothing_is_to_be_run(self, tmp_path):
        graphs = read(save_saved_model(tmp_path / "1", mlp()))
        assert "saved_model_main_op" not in graphs["serve",].collection_def
        assert set(graphs["serve",].signature_def) == {"serving_default"}

    @pytest.mark.parametrize("returned", [True, False])
    def test_a_function_of_the_user(self, returned, tmp_path):
        layer = Counted(name="counted")
        model = keras.Sequential([keras.Input((3,), name="x"), layer])

        @tf.function
        def main_op():
            value = layer.count.assign(5.0)
            return value if returned else None

        path = save_saved_model(tmp_path / "1", model, main_op=main_op)
        assert layer.count == 2.0
        serve = tf.saved_model.load(path).signatures["serving_default"]
        (output,) = serve(x=tf.zeros((1, 3))).values()
        assert output.numpy()[0, 0] == 5.0

    def test_an_operation_of_the_graph(self, tmp_path):
        model = keras.Sequential([keras.Input((3,), name="x"), Counted(name="counted")])
        name = "counted/count/Assign"
        graphs = read(save_saved_model(tmp_path / "1", model, main_op=name))
        (main_op,) = [n for n in graphs["serve",].graph_def.node if n.name == "main_op"]
        assert list(main_op.input) == [f"^{name}"]

    def test_an_operation_that_is_not_there(self, tmp_path):
        with pytest.raises(errors.ExportError, match="counted/Assign"):
            save_saved_model(tmp_path / "1", mlp(), main_op="counted/Assign")


MAE = ("mean_absolute_error/total", "mean_absolute_error/count")
ESTIMATOR = FIXTURES / "zoo" / "estimator_dnn" / "export_all"


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


# What a canned estimator has and a Keras model need not: heads with classes, summaries,
# contexts of conditions, a main op where there is nothing to be run.
ABSENT = {
    "classification",
    "cond_context",
    "regression",
    "saved_model_main_op",
    "summaries",
}


def kinds(meta_graph_def):
    """Keys of signatures, and of outputs up to the first slash; collections."""
    found = set(meta_graph_def.signature_def) | set(meta_graph_def.collection_def)
    for key in ("train", "eval"):
        if key in meta_graph_def.signature_def:
            outputs = meta_graph_def.signature_def[key].outputs
            found |= {f"{key}: {name.partition('/')[0]}" for name in outputs}
    return found


class TestRefusals:
    def test_all_that_is_wrong_with_the_graphs(self, tmp_path):
        with pytest.raises(errors.ExportError) as info:
            save_saved_model(
                tmp_path / "1",
                {
                    "serve": 5,
                    ("a", "b"): mlp(),
                    ("b", "a"): mlp(),
                    "train": mlp(compiled=False),
                    "more": {"model": mlp(), "scope": "x", "tag": "y"},
                    "empty": {},
                    3: mlp(),
                },
            )
        assert len(info.value.findings) == 6
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        "arguments",
        [
            {"layout": "other"},
            {"target": "1.12"},
            {"assets": ["no"]},
            {"signatures": {"a": {"inputs": {"x": "no:0"}, "outputs": {}}}},
            {"checkpoint": "no/such"},
        ],
    )
    def test_nothing_is_written(self, arguments, tmp_path):
        with pytest.raises(errors.MetaGraphError):
            save_saved_model(tmp_path / "deep" / "1", mlp(), **arguments)
        assert os.listdir(tmp_path) == []

    def test_a_model_that_cannot_be_trained(self, tmp_path):
        model = mlp(compiled=False)
        model.compile("adam")
        with (
            pytest.warns(UserWarning, match="train graph is left out"),
            pytest.raises(errors.ExportError, match="train"),
        ):
            save_saved_model(tmp_path / "1", {"train": model})

    def test_an_existing_directory_is_refused_before_anything_is_done(self, tmp_path):
        (tmp_path / "1").mkdir()
        with pytest.raises(errors.ExportError, match="is there already"):
            save_saved_model(tmp_path / "1", mlp())
        assert files(tmp_path) == {}


class TestSimpleSave:
    def test_the_models_own_inputs_and_outputs(self, tmp_path):
        model = mlp()
        path = simple_save(model, tmp_path / "1")
        serve = tf.saved_model.load(path).signatures["serving_default"]
        (output,) = serve(x=tf.constant(X)).values()
        np.testing.assert_allclose(output, model(X), rtol=1e-5, atol=1e-6)
        assert not any(n.device for n in read(path)["serve",].graph_def.node)

    @pytest.mark.parametrize("named", [False, True])
    def test_tensors(self, named, tmp_path):
        model = mlp()
        hidden = model.layers[0]
        inputs, outputs = {"rows": model.inputs[0]}, {"hidden": hidden.output}
        if named:
            inputs, outputs = {"rows": "x:0"}, {"hidden": "dense/Relu:0"}
        path = simple_save(model, tmp_path / "1", inputs, outputs)
        serve = tf.saved_model.load(path).signatures["serving_default"]
        output = serve(rows=tf.constant(X))["hidden"]
        np.testing.assert_allclose(output, hidden(X), rtol=1e-5, atol=1e-6)
        assert keys(path) == {
            "dense/kernel",
            "dense/bias",
            "dense_1/kernel",
            "dense_1/bias",
        }

    def test_what_is_no_signature(self, tmp_path):
        model = mlp()
        with pytest.raises(errors.ExportError, match="inputs and outputs"):
            simple_save(model, tmp_path / "1", inputs={"x": model.inputs[0]})
        other = keras.Input((3,))
        with pytest.raises(errors.ExportError, match="No model leads"):
            simple_save(model, tmp_path / "1", {"x": other}, {"y": model.outputs[0]})
        with pytest.raises(errors.SignatureError, match="dense/Relo"):
            simple_save(model, tmp_path / "1", {"x": "x:0"}, {"y": "dense/Relo:0"})
