"""Vocabularies and files of the user, and what a loader runs."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef

from keras_metagraph import errors, save_saved_model
from oracle.saved_models import collection, files, mlp, read, words

TAGS = ("serve", "train", "eval")
MAE = ("mean_absolute_error/total", "mean_absolute_error/count")


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
        assert files(Path(path, "assets")) == {
            first.name: b"1",
            "names.txt": b"2",
        }
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
                assets_extra=[tmp_path / "neither"],
            )
        assert len(info.value.findings) == 3
        graph = {"model": mlp(), "assets": [tmp_path / "no"]}
        with pytest.raises(errors.ExportError, match="is no file"):
            save_saved_model(tmp_path / "1", {"serve": graph})

    def test_files_of_one_graph_in_a_list(self, tmp_path):
        graph = {"model": mlp(), "assets": [self.file(tmp_path, b"1")]}
        path = save_saved_model(tmp_path / "1", {"serve": graph})
        assert list(files(Path(path, "assets")).values()) == [b"1"]

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

    def test_a_function_that_does_not_run(self, tmp_path):
        with pytest.raises(errors.ExportError, match="required positional argument"):
            save_saved_model(tmp_path / "1", mlp(), main_op=lambda x: x)
        assert not os.listdir(tmp_path)

    def test_an_operation_that_is_not_there(self, tmp_path):
        with pytest.raises(errors.ExportError, match="counted/Assign"):
            save_saved_model(tmp_path / "1", mlp(), main_op="counted/Assign")
