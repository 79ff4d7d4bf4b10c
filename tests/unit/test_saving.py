"""Models of every form are exported; what the files hold is what DESIGN promises."""

import json
import os
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from keras import layers

from keras_metagraph.checkpoint.state import read_state
from keras_metagraph.errors import CheckpointError, ExportError, SignatureError
from keras_metagraph.export.names import named_variables
from keras_metagraph.export.specs import watch_data
from keras_metagraph.saving import (
    export_meta_graph,
    save_meta_graph,
    variable_values,
)

X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)


def mlp(compiled=True, **arguments):
    model = keras.Sequential(
        [
            keras.Input((3,), name="x"),
            layers.Dense(4, activation="relu", kernel_regularizer="l2"),
            layers.Dropout(0.5),
            layers.Dense(2),
        ]
    )
    if compiled:
        model.compile("adam", "mse", metrics=["mae"], **arguments)
    return model


class Session:
    """An exported MetaGraph in a session of TensorFlow."""

    def __init__(self, meta, prefix=None):
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.session = tf.compat.v1.Session()
            self.saver = tf.compat.v1.train.import_meta_graph(meta)
            tables = self.graph.get_collection("table_initializer")
            self.session.run(tables)
            if prefix is None:
                self.session.run("init")
            else:
                self.saver.restore(self.session, prefix)

    def run(self, fetches, feeds=None):
        return self.session.run(fetches, feeds)

    def collection(self, name):
        return self.graph.get_collection(name)


def description(meta_graph_def):
    collection = meta_graph_def.collection_def["keras_metagraph"]
    return json.loads(collection.bytes_list.value[0])


def node_names(meta_graph_def):
    return [node.name for node in meta_graph_def.graph_def.node]


def test_the_layout_of_the_graph():
    meta_graph_def = export_meta_graph(mlp())
    names = node_names(meta_graph_def)
    for name in (
        "x",
        "labels",
        "dense/Relu",
        "dense_1/BiasAdd",
        "dense/kernel",
        "dense/kernel/Adam_1",
        "train/dense/Relu",
        "train/train_op",
        "train/loss",
        "eval/dense/Relu",
        "eval/update_op",
        "eval/metrics/mae",
        "save/restore_all",
        "init",
    ):
        assert name in names
    assert len(set(names)) == len(names)
    # Flat: nothing is hidden in a function.
    assert not meta_graph_def.graph_def.library.function
    assert meta_graph_def.graph_def.versions.producer == 134
    assert all(not node.device for node in meta_graph_def.graph_def.node)


def test_the_collections_and_signatures():
    meta_graph_def = export_meta_graph(mlp())
    assert set(meta_graph_def.collection_def) == {
        "global_step",
        "init_op",
        "keras_metagraph",
        "local_init_op",
        "local_variables",
        "losses",
        "metric_variables",
        "train_op",
        "trainable_variables",
        "variables",
    }
    train_op = meta_graph_def.collection_def["train_op"].node_list.value
    assert list(train_op) == ["train/train_op"]
    signatures = meta_graph_def.signature_def
    assert set(signatures) == {"serving_default", "train", "eval"}
    assert set(signatures["train"].inputs) == {"x", "labels"}
    assert set(signatures["train"].outputs) == {"loss", "mae"}
    assert signatures["train"].method_name == "tensorflow/supervised/training"
    assert signatures["eval"].method_name == "tensorflow/supervised/eval"
    output = signatures["serving_default"].outputs["output"]
    assert output.name == "dense_1/BiasAdd:0"
    assert meta_graph_def.meta_info_def.tensorflow_version == "1.15.5"
    ops = {op.name for op in meta_graph_def.meta_info_def.stripped_op_list.op}
    assert ops == {node.op for node in meta_graph_def.graph_def.node}


def test_the_description_of_the_model():
    model = mlp()
    fields = description(export_meta_graph(model))
    assert fields["protocol"] == 1
    assert fields["versions"]["keras"] == keras.__version__
    config = keras.saving.serialize_keras_object(model)
    assert fields["model"]["config"] == json.loads(json.dumps(config))["config"]
    assert fields["compile_config"]["loss"] == "mse"
    assert fields["input_structure"] == {
        "name": "x:0",
        "shape": [None, 3],
        "dtype": "float32",
    }
    train = fields["graphs"]["train"]
    assert train["train_op"] == "train/train_op"
    assert train["labels"] == {"labels": "labels:0"}
    assert train["loss"] == "train/loss:0"
    assert train["learning_rate"] == "train/learning_rate:0"
    assert fields["graphs"]["eval"]["metrics"] == {"mae": "eval/metrics/mae:0"}
    roles = {v["name"]: (v["role"], v["index"]) for v in fields["variables"]}
    assert roles["dense_1/kernel"] == ("weight", 2)
    assert roles["dense/kernel/Adam"] == ("optimizer", 2)


def test_a_model_that_is_not_compiled_gives_the_predict_graph():
    meta_graph_def = export_meta_graph(mlp(compiled=False))
    assert set(meta_graph_def.signature_def) == {"serving_default"}
    assert "global_step" not in node_names(meta_graph_def)


def test_a_predict_graph_has_no_optimizer(tmp_path):
    model = mlp()
    model.optimizer.build(model.trainable_variables)
    prefix = save_meta_graph(model, tmp_path / "m", graphs=["predict"])
    meta_graph_def = export_meta_graph(model, graphs=["predict"])
    handles = [
        node.name for node in meta_graph_def.graph_def.node if node.op == "VarHandleOp"
    ]
    seed = "seed_generator/seed_generator_state"
    assert [name for name in handles if name != seed] == [
        "dense/kernel",
        "dense/bias",
        "dense_1/kernel",
        "dense_1/bias",
    ]
    assert {name for name, _ in tf.train.list_variables(prefix)} == set(handles)
    # What the model is made of is said all the same, for `load_from_meta_graph`.
    described = {v["name"] for v in description(meta_graph_def)["variables"]}
    assert "dense/kernel/Adam" in described


def test_a_session_goes_on_where_keras_stood(tmp_path):
    model = mlp()
    model.fit(X, Y, verbose=0)
    prefix = save_meta_graph(model, tmp_path / "m", model.optimizer.iterations)
    assert prefix == str(tmp_path / "m-1")
    session = Session(prefix + ".meta", prefix)
    np.testing.assert_allclose(
        session.run("dense_1/BiasAdd:0", {"x:0": X}),
        model.predict(X, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )
    (train_op,) = session.collection("train_op")
    for _ in range(5):
        model.reset_metrics()
        logs = model.train_on_batch(X, Y, return_dict=True)
        feeds = {"x:0": X, "labels:0": Y}
        loss, _ = session.run(["train/loss:0", train_op], feeds)
        np.testing.assert_allclose(loss, logs["loss"], rtol=1e-6)
    assert session.run("global_step/Read/ReadVariableOp:0") == 6
    for name, value in variable_values(model).items():
        found = session.run(f"{name}/Read/ReadVariableOp:0")
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_evaluation_accumulates_its_metrics_and_starts_anew(tmp_path):
    model = mlp()
    prefix = save_meta_graph(model, tmp_path / "m")
    session = Session(prefix + ".meta", prefix)
    for part in (slice(0, 3), slice(3, 8)):
        feeds = {"x:0": X[part], "labels:0": Y[part]}
        session.run("eval/update_op", feeds)
    running = session.run("metrics/mean_absolute_error/total/Read/ReadVariableOp:0")
    np.testing.assert_allclose(
        running / 8, model.evaluate(X, Y, verbose=0, return_dict=True)["mae"], rtol=1e-5
    )
    session.run(session.collection("local_init_op"))
    assert session.run("metrics/mean_absolute_error/total/Read/ReadVariableOp:0") == 0.0


def test_exporting_changes_nothing_of_the_model():
    model = mlp()
    model.fit(X, Y, verbose=0)
    held = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [v.numpy() for v in held]
    function = model.train_function
    export_meta_graph(model)
    for old, variable in zip(before, held, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    assert model.train_function is function


def test_an_unchanged_model_is_not_traced_again(monkeypatch):
    calls = []
    original = keras.Sequential.call

    def counted(self, *args, **kwargs):
        calls.append(self.name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(keras.Sequential, "call", counted)
    model = mlp()
    first = export_meta_graph(model, collections={"step": [1]})
    traced = len(calls)
    model.layers[0].kernel.assign_add(np.ones((3, 4)))
    model.optimizer.learning_rate = 0.5
    # What belongs to the file and not to the graph may change.
    second = export_meta_graph(model, collections={"step": [2]})
    assert len(calls) == traced
    assert second.graph_def == first.graph_def
    assert list(second.collection_def["step"].int64_list.value) == [2]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.compile("adam", "mse"),
        lambda model: setattr(model.layers[1], "rate", 0.1),
        lambda model: setattr(model.layers[0], "trainable", False),
        lambda model: setattr(model.optimizer, "clipnorm", 1.0),
    ],
)
def test_a_changed_model_is_traced_again(change):
    model = mlp()
    first = export_meta_graph(model)
    change(model)
    assert export_meta_graph(model).graph_def != first.graph_def


def test_text_devices_and_default_attributes(tmp_path):
    class Placed(layers.Layer):
        def call(self, x):
            with tf.device("/GPU:0"):
                return x + 1.0

    model = keras.Sequential([keras.Input((3,), name="x"), Placed()])
    path = tmp_path / "sub" / "m.meta"
    meta_graph_def = export_meta_graph(model, path, as_text=True)
    parsed = text_format.Parse(path.read_text(), tf.compat.v1.MetaGraphDef())
    assert parsed == meta_graph_def
    assert any(node.device for node in meta_graph_def.graph_def.node)
    cleared = export_meta_graph(model, clear_devices=True, strip_default_attrs=True)
    assert not any(node.device for node in cleared.graph_def.node)
    assert cleared.meta_info_def.stripped_default_attrs
    assert cleared.graph_def.ByteSize() < meta_graph_def.graph_def.ByteSize()
    export_meta_graph(model, tmp_path / "m.pbtxt")
    assert (tmp_path / "m.pbtxt").read_text().startswith("meta_info_def")


def test_a_file_that_is_there_is_replaced_and_nothing_else_left(tmp_path):
    path = tmp_path / "m.meta"
    for _ in range(2):
        export_meta_graph(mlp(compiled=False), path)
    assert os.listdir(tmp_path) == ["m.meta"]
    path.unlink()
    path.mkdir()
    with pytest.raises(ExportError, match="Writing"):
        export_meta_graph(mlp(compiled=False), path)


def test_user_collections_and_which_are_written():
    model = mlp(compiled=False)
    collections = {
        "classes": ["cat", "dog"],
        "features": ["dense/Relu:0"],
        "frozen": [model.layers[0].kernel],
        "rate": 0.25,
    }
    meta_graph_def = export_meta_graph(model, collections=collections)
    found = meta_graph_def.collection_def
    assert list(found["features"].node_list.value) == ["dense/Relu:0"]
    assert list(found["frozen"].node_list.value) == ["dense/kernel:0"]
    reduced = export_meta_graph(
        model, collections=collections, collection_list=["rate", "variables"]
    )
    assert set(reduced.collection_def) == {"rate", "variables"}


def test_meta_info_and_its_tags():
    info = {"tags": ["serve"], "author": "me"}
    meta_graph_def = export_meta_graph(mlp(compiled=False), meta_info=info)
    assert list(meta_graph_def.meta_info_def.tags) == ["serve"]
    assert meta_graph_def.meta_info_def.HasField("any_info")


def test_signatures_of_the_user():
    model = mlp(compiled=False)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="rows")])
    def doubled(rows):
        return {"twice": 2.0 * model(rows)}

    signatures = {
        "doubled": doubled,
        "features": {"inputs": {"x": "x:0"}, "outputs": {"y": "dense/Relu:0"}},
    }
    meta_graph_def = export_meta_graph(model, signatures=signatures)
    signature = meta_graph_def.signature_def["doubled"]
    assert signature.inputs["rows"].name == "doubled/rows:0"
    session = Session(meta_graph_def)
    once, twice = session.run(
        ["dense_1/BiasAdd:0", signature.outputs["twice"].name],
        {"x:0": X, "doubled/rows:0": X},
    )
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)
    wrong = {"s": {"inputs": {}, "outputs": {"y": "dense/relu:0"}}}
    with pytest.raises(SignatureError, match="not in the graph"):
        export_meta_graph(model, signatures=wrong)


def test_one_scope_with_its_values(tmp_path):
    def encoder(name):
        inside = [keras.Input((3,)), layers.Dense(2, activation="relu", name="dense")]
        return keras.Sequential(inside, name=name)

    x = keras.Input((3,), name="x")
    both = layers.Add()([encoder("net")(x), encoder("net_ema")(x)])
    model = keras.Model(x, layers.Dense(1, name="head")(both))
    prefix = save_meta_graph(model, tmp_path / "m", export_scope="net")
    keys = [name for name, _ in tf.train.list_variables(prefix)]
    assert keys == ["dense/bias", "dense/kernel"]
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        placeholder = tf.compat.v1.placeholder(tf.float32, [None, 3])
        saver = tf.compat.v1.train.import_meta_graph(
            prefix + ".meta",
            import_scope="copy",
            input_map={"$unbound_inputs_x": placeholder},
        )
        assert [v.op.name for v in graph.get_collection("variables")] == [
            "copy/dense/kernel",
            "copy/dense/bias",
        ]
        saver.restore(session, prefix)
        found = session.run("copy/dense/Relu:0", {placeholder: X})
    np.testing.assert_allclose(found, model.get_layer("net")(X), rtol=1e-5, atol=1e-6)
    with pytest.raises(SignatureError, match="no scope 'ne'"):
        export_meta_graph(model, export_scope="ne")


def test_the_values_of_a_checkpoint_are_written_and_the_model_keeps_its_own(tmp_path):
    source, model = mlp(compiled=False), mlp(compiled=False)
    source.save_weights(tmp_path / "w.weights.h5")
    before = model.get_weights()
    export_meta_graph(
        model, tmp_path / "out.meta", checkpoint=tmp_path / "w.weights.h5"
    )
    reader = tf.train.load_checkpoint(str(tmp_path / "out"))
    kernel = reader.get_tensor(f"{model.layers[0].name}/kernel")
    np.testing.assert_array_equal(kernel, source.layers[0].kernel.numpy())
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    # The graph in text, the values beside it.
    path = tmp_path / "text.pbtxt"
    export_meta_graph(model, path, checkpoint=tmp_path / "w.weights.h5")
    assert path.exists()
    assert (tmp_path / "text.index").exists()
    # Without a file the checkpoint is compared with the model.
    with pytest.raises(CheckpointError):
        export_meta_graph(model, checkpoint=tmp_path / "none")


def test_saving_follows_the_saver(tmp_path):
    model = mlp(compiled=False)
    prefix = save_meta_graph(model, tmp_path / "m", 7)
    assert sorted(os.listdir(tmp_path)) == [
        "checkpoint",
        "m-7.data-00000-of-00001",
        "m-7.index",
        "m-7.manifest",
        "m-7.meta",
    ]
    assert tf.train.latest_checkpoint(str(tmp_path)) == prefix
    with pytest.raises(CheckpointError, match="exists"):
        save_meta_graph(model, tmp_path / "m", 7)
    save_meta_graph(model, tmp_path / "m", 8, write_state=False)
    assert read_state(str(tmp_path), "checkpoint").latest == "m-7"
    # The graph is the same file, under a second name.
    meta = [os.stat(tmp_path / f"m-{step}.meta") for step in (7, 8)]
    assert meta[0].st_ino == meta[1].st_ino
    assert save_meta_graph(model, tmp_path / "n") == str(tmp_path / "n")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"graphs": ["serve"]}, "graphs names"),
        ({"graphs": []}, "graphs names"),
        ({"target": "1.12"}, "target is one of"),
        ({"collections": {"variables": [1]}}, "collection of your own"),
    ],
)
def test_arguments_that_make_no_sense(arguments, match):
    with pytest.raises(ExportError, match=match):
        export_meta_graph(mlp(compiled=False), **arguments)


def test_only_models_that_tensorflow_runs():
    with pytest.raises(ExportError, match=r"Expected a keras.Model"):
        export_meta_graph(layers.Dense(1))
    with pytest.raises(ExportError, match="never seen data"):
        export_meta_graph(keras.Sequential([layers.Dense(1)]))


def test_ops_that_1_15_lacks_are_named_in_one_warning():
    class Own(layers.Layer):
        def call(self, x):
            return tf.math.erfinv(x) + tf.math.erfinv(-x)

    model = keras.Sequential([keras.Input((3,)), Own(name="inverse")])
    with pytest.warns(UserWarning, match="TensorFlow 1.15 cannot import") as caught:
        export_meta_graph(model)
    assert len(caught) == 1
    assert "Erfinv in inverse" in str(caught[0].message)
    assert "(2 nodes)" in str(caught[0].message)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        newer = export_meta_graph(model, target=None)
    assert newer.meta_info_def.tensorflow_version == tf.__version__
    assert newer.graph_def.versions.producer > 1000


def test_labels_and_weights_are_placeholders():
    model = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(4)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    signature = export_meta_graph(model).signature_def["train"]
    assert signature.inputs["labels"].dtype == tf.int64.as_datatype_enum
    given = export_meta_graph(
        model,
        labels=tf.TensorSpec([None, 1], tf.int32),
        sample_weight=True,
    ).signature_def["train"]
    assert given.inputs["labels"].dtype == tf.int32.as_datatype_enum
    assert given.inputs["sample_weight"].name == "sample_weight:0"


def test_a_model_without_loss_has_no_graph_that_fit_could_not_run():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4)])
    for optimizer, loss in (("sgd", None), (None, "mse")):
        model.compile(optimizer, loss)
        with pytest.warns(UserWarning, match="train graph is left out") as caught:
            meta_graph_def = export_meta_graph(model)
        assert len(caught) == 1
        assert "train" not in meta_graph_def.signature_def
        assert caught[0].filename == __file__


def test_large_models_put_no_weights_into_the_graph():
    wide = keras.Sequential([keras.Input((2000,)), layers.Dense(1000)])
    wide.compile("adam", "mse")
    assert export_meta_graph(wide).ByteSize() < 500_000


def test_state_that_predicting_changes_is_changed_by_fetching_the_output(tmp_path):
    class Counting(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", name="count")

        def call(self, x):
            self.count.assign_add(1.0)
            return x + self.count

    model = keras.Sequential([keras.Input((3,), name="x"), Counting(name="own")])
    meta_graph_def = export_meta_graph(model)
    assert model.layers[0].count.numpy() == 0.0
    output = meta_graph_def.signature_def["serving_default"].outputs["output"].name
    session = Session(meta_graph_def)
    for expected in (1.0, 2.0):
        assert session.run(output, {"x:0": np.zeros((1, 3))})[0, 0] == expected


def test_sparse_inputs_are_fed_by_parts():
    x = keras.Input((4,), sparse=True, name="x")
    model = keras.Model(x, layers.Dense(2, name="dense")(x))
    meta_graph_def = export_meta_graph(model)
    session = Session(meta_graph_def)
    feeds = {
        "x/indices:0": [[0, 1], [1, 3]],
        "x/values:0": [1.0, 2.0],
        "x/shape:0": [2, 4],
    }
    kernel = session.run("dense/kernel/Read/ReadVariableOp:0")
    output = meta_graph_def.signature_def["serving_default"].outputs["dense"].name
    np.testing.assert_allclose(
        session.run(output, feeds), [kernel[1], 2 * kernel[3]], rtol=1e-6
    )


class Gan(keras.Model):
    """Two optimizers, and data that only the train step takes."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
        self.critic = keras.Sequential(
            [keras.Input((3,)), layers.Dropout(0.3), layers.Dense(1)]
        )
        self.noise = keras.random.SeedGenerator(5)
        self.second = keras.optimizers.Adam(name="second")

    def call(self, z):
        return self.generator(z)

    def train_step(self, data):
        real = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape(persistent=True) as tape:
            z = keras.random.normal((8, 2), seed=self.noise)
            fake = self.generator(z, training=True)
            scores = self.critic(keras.ops.concatenate([fake, real]), training=True)
            critic_loss = keras.ops.mean(scores[:8]) - keras.ops.mean(scores[8:])
            loss = -keras.ops.mean(scores[:8])
        for optimizer, part, value in (
            (self.optimizer, self.generator, loss),
            (self.second, self.critic, critic_loss),
        ):
            weights = part.trainable_variables
            optimizer.apply(tape.gradient(value, weights), weights)
        return {"loss": loss, "critic_loss": critic_loss}


def test_a_model_with_two_optimizers_goes_on_with_both(tmp_path):
    model = Gan()
    model(np.ones((1, 2), "float32"))
    model.compile(keras.optimizers.RMSprop())
    watch_data(model)
    model.fit(X, batch_size=8, verbose=0)
    prefix = save_meta_graph(model, tmp_path / "m")
    session = Session(prefix + ".meta", prefix)
    (train_op,) = session.collection("train_op")
    losses = ["train/loss:0", "train/metrics/critic_loss:0"]
    for _ in range(3):
        logs = model.train_on_batch(X, return_dict=True)
        values = session.run([*losses, train_op], {"train_step_input:0": X})
        np.testing.assert_allclose(values[0], logs["loss"], rtol=1e-5)
        np.testing.assert_allclose(values[1], logs["critic_loss"], rtol=1e-5)
    for variable in model.second.variables:
        name = next(v.name for v in named_variables(model) if v.variable is variable)
        found = session.run(f"{name}/Read/ReadVariableOp:0")
        np.testing.assert_allclose(found, variable.numpy(), rtol=1e-4, atol=1e-6)


def test_class_weights_are_sample_weights():
    model = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(4)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    watch_data(model)
    model.fit(X, np.arange(8) % 4, class_weight={0: 1, 1: 2, 2: 3, 3: 4}, verbose=0)
    inputs = export_meta_graph(model).signature_def["train"].inputs
    assert set(inputs) == {"x", "labels", "sample_weight"}


def test_a_vocabulary_that_was_adapted_is_in_the_file():
    lookup = layers.StringLookup()
    lookup.adapt(["b", "a", "b"])
    model = keras.Sequential([keras.Input((2,), dtype="string", name="x"), lookup])
    meta_graph_def = export_meta_graph(model)
    assert "string_lookup/table" in node_names(meta_graph_def)
    session = Session(meta_graph_def)
    feeds = {"x:0": [[b"a", b"b"], [b"?", b"a"]]}
    output = meta_graph_def.signature_def["serving_default"].outputs["output"].name
    np.testing.assert_array_equal(session.run(output, feeds), [[2, 1], [0, 2]])


def test_a_loop_is_kept_with_its_body():
    model = keras.Sequential([keras.Input((5, 3), name="x"), layers.LSTM(2)])
    model.compile("sgd", "mse")
    library = export_meta_graph(model).graph_def.library
    names = [function.signature.name for function in library.function]
    assert {name.partition("_")[0] for name in names} == {"eval", "predict", "train"}
    assert all(">" not in node.name for f in library.function for node in f.node_def)
    # The names do not hang on what was traced before.
    again = keras.models.clone_model(model)
    again.compile("sgd", "mse")
    other = export_meta_graph(again).graph_def.library
    assert [function.signature.name for function in other.function] == names
