"""The layer: calls, training, weights, configuration."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.errors import (
    FormatError,
    PassError,
    ShapeMismatchError,
    SignatureError,
    UnsupportedOpError,
    UntrustedContentError,
)
from keras_metagraph.graph.ir import Node
from keras_metagraph.graph.to_proto import graph_to_proto
from keras_metagraph.layers.island import Island
from keras_metagraph.layers.subgraph import pack, unpack

v1 = tf.compat.v1
X = np.array([[0.5, -1.0, 0.3], [1.5, 0.2, -0.7]], np.float32)


def dense_net():
    """A net with a flag, an update, a regularization, slots, strings beside it."""
    x = v1.placeholder(tf.float32, [None, 3], "x")
    training = v1.placeholder_with_default(False, [], "training")
    start = np.linspace(-1, 1, 6).reshape(3, 2).astype(np.float32)
    with v1.variable_scope("dense"):
        kernel = v1.get_variable("kernel", initializer=start, use_resource=False)
    v1.get_variable(
        "dense/kernel/Adam", initializer=start * 0, trainable=False, use_resource=False
    )
    count = v1.get_variable(
        "count", initializer=np.int64(5), trainable=False, use_resource=False
    )
    v1.assign_add(count, 1, name="update")
    tf.reduce_sum(tf.square(kernel), name="penalty")
    h = v1.cond(training, lambda: x * 10.0, lambda: x)
    y = tf.matmul(h, kernel, name="y")
    return {"x": x}, {"y": y, "count": count.read_value()}


OPTIONS = {
    "training_values": {"training:0": (True, False)},
    "updates": ["update:0"],
    "losses": ["penalty:0"],
}


@pytest.fixture
def case(graph_case):
    return graph_case(dense_net)


@pytest.fixture
def island(case):
    return case.island(name="graph", **OPTIONS)


def functional(island, dtype="float32"):
    x = keras.Input(batch_shape=(None, 3), name="x", dtype=dtype)
    return keras.Model({"x": x}, island({"x": x}))


class TestCall:
    def test_without_training(self, case, island):
        found = island({"x": X})
        np.testing.assert_allclose(found["y"], X @ case.values["dense/kernel"], 1e-6)
        assert found["count"] == 5
        np.testing.assert_allclose(
            island.losses, [np.sum(case.values["dense/kernel"] ** 2)], 1e-6
        )

    def test_training_sets_flags_and_runs_updates(self, case, island):
        kernel = case.values["dense/kernel"]
        found = island({"x": X}, training=True)
        np.testing.assert_allclose(found["y"], 10 * X @ kernel, 1e-6)
        assert island.variable("count").numpy() == 6
        (loss,) = island.losses
        np.testing.assert_allclose(loss, np.sum(kernel**2), 1e-6)

    @pytest.mark.parametrize("training", [False, True])
    def test_mode_that_is_a_tensor(self, case, island, training):
        @tf.function
        def run(x, training):
            return island({"x": x}, training=training)["y"]

        expected = X @ case.values["dense/kernel"] * (10 if training else 1)
        np.testing.assert_allclose(run(X, tf.constant(training)), expected, 1e-6)
        assert island.variable("count").numpy() == 5 + training

    def test_one_input_needs_no_name(self, island):
        np.testing.assert_array_equal(island(X)["y"], island({"x": X})["y"])

    def test_inputs_are_cast_to_what_the_graph_takes(self, island):
        found = island({"x": X.astype(np.float64)})["y"]
        assert found.dtype == tf.float32
        np.testing.assert_array_equal(found, island({"x": X})["y"])

    def test_any_batch_size(self, island):
        for size in (1, 2, 7):
            assert island({"x": np.ones((size, 3), np.float32)})["y"].shape[0] == size

    def test_no_autocast(self, case):
        keras.config.set_dtype_policy("mixed_float16")
        island = case.island()
        found = island({"x": X})["y"]
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, X @ case.values["dense/kernel"], 1e-6)

    def test_wrong_inputs(self, island):
        with pytest.raises(SignatureError) as caught:
            island({"z": X})
        assert "missing input: x" in str(caught.value)
        assert "unknown input: z" in str(caught.value)

    def test_wrong_shape(self, island):
        with pytest.raises(SignatureError, match=r"x has shape \(2, 2\)"):
            island({"x": X[:, :2]})

    def test_unfed_placeholder(self, case):
        with pytest.raises(SignatureError, match="not given"):
            Island(case.graph, {}, case.outputs, case.records())({})

    def test_variables_that_were_not_given(self, case):
        with pytest.raises(SignatureError, match="dense/kernel"):
            Island(case.graph, case.inputs, case.outputs)({"x": X})

    def test_strings(self, graph_case):
        def build():
            words = v1.placeholder(tf.string, [None], "words")
            table = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(["a", "b"], [1, 2]), -1
            )
            return {"words": words}, {
                "number": table.lookup(words),
                "longer": tf.strings.join([words, "!"]),
            }

        case = graph_case(build)
        words = np.array([b"b", b"x"], object)
        for island in (case.island(), case.island()):
            found = island({"words": words})
            assert found["number"].numpy().tolist() == [2, -1]
            assert found["longer"].numpy().tolist() == [b"b!", b"x!"]


class TestWeights:
    def test_all_variables_are_weights_with_legal_names(self, island):
        assert [w.path for w in island.trainable_weights] == ["graph/dense>kernel"]
        assert len(island.weights) == 3
        assert list(island.variable_map) == [
            "dense/kernel",
            "dense/kernel/Adam",
            "count",
        ]
        assert island.variable("count").dtype == "int64"

    def test_unknown_variable(self, island):
        with pytest.raises(SignatureError, match="nearest: dense/kernel"):
            island.variable("dense/kernl")

    def test_assign_nothing_if_a_shape_is_wrong(self, case, island):
        wrong = {"count": np.int64(9), "dense/kernel": np.zeros((2, 2), np.float32)}
        with pytest.raises(ShapeMismatchError, match=r"dense/kernel: \(2, 2\)"):
            island.assign(wrong)
        assert island.variable("count").numpy() == 5

    def test_shapes_must_be_known(self, case):
        records = case.records()
        records[0]["shape"] = (None, 2)

        class Unknown:
            name, dtype, shape, trainable = "w", tf.float32, (None, 2), True

        with pytest.raises(ShapeMismatchError, match="not known"):
            Island(case.graph, case.inputs, case.outputs, [Unknown()])

    def test_shared(self, case, island):
        inner = Island(case.graph, case.inputs, {"y": "y:0"}, weights_from=island)
        island.assign({"dense/kernel": np.ones((3, 2), np.float32)})
        np.testing.assert_allclose(inner({"x": X})["y"][:, 0], X.sum(1), 1e-6)
        assert inner.trainable_weights == island.trainable_weights
        by_name = Island(
            case.graph, case.inputs, {"y": "y:0"}, weights_from=island.variable_map
        )
        assert by_name.trainable_weights == island.trainable_weights


class TestKeras:
    def test_symbolic_outputs(self, island):
        x = keras.Input(batch_shape=(None, 3), name="x")
        found = island({"x": x})
        assert found["y"].shape == (None, 2)
        assert found["y"].dtype == "float32"
        assert found["count"].shape == ()
        assert found["count"].dtype == "int64"

    @pytest.mark.parametrize("eagerly", [False, True])
    def test_fit(self, case, island, eagerly):
        model = functional(island)
        model.compile("sgd", loss={"y": "mse"}, run_eagerly=eagerly)
        y = np.zeros((2, 2), np.float32)
        history = model.fit({"x": X}, {"y": y}, epochs=1, batch_size=2, verbose=0)
        kernel = case.values["dense/kernel"]
        loss = np.mean((10 * X @ kernel) ** 2) + np.sum(kernel**2)
        np.testing.assert_allclose(history.history["loss"], [loss], 1e-5)
        assert island.variable("count").numpy() == 6
        assert not np.array_equal(island.variable("dense/kernel").numpy(), kernel)

    def test_saved_and_loaded(self, island, tmp_path):
        model = functional(island)
        island.assign({"count": np.int64(7)})
        model.save(tmp_path / "m.keras")
        loaded = keras.saving.load_model(tmp_path / "m.keras")
        again = loaded.get_layer("graph")
        assert again.get_config() == island.get_config()
        for key, value in model.predict({"x": X}, verbose=0).items():
            np.testing.assert_array_equal(
                loaded.predict({"x": X}, verbose=0)[key], value
            )
        again({"x": X}, training=True)
        assert again.variable("count").numpy() == 8
        assert len(again.losses) == 1

    def test_exported_as_a_saved_model(self, island, tmp_path):
        model = functional(island)
        model.export(tmp_path / "m", verbose=False)
        loaded = tf.saved_model.load(str(tmp_path / "m"))
        served = loaded.serve({"x": tf.constant(X)})
        np.testing.assert_allclose(served["y"], island({"x": X})["y"], 1e-6)


class TestConfig:
    def test_is_json_without_values(self, island):
        config = island.get_config()
        text = json.dumps(config)
        island.assign({"dense/kernel": np.full((3, 2), 123.25, np.float32)})
        assert json.dumps(island.get_config()) == text

    def test_holds_what_is_needed(self, island):
        graph = unpack(island.get_config()["graph"])
        assert {"y", "update", "penalty", "x"} <= set(graph.nodes)
        assert not [name for name in graph.nodes if "Initializer" in name]

    def test_fed_tensors_inside_the_graph(self, graph_case):
        def build():
            x = tf.identity(v1.placeholder(tf.float32, [None], "queue"), "dequeue")
            return {"x": x}, {"y": x * 2.0}

        island = graph_case(build).island()
        again = Island.from_config(island.get_config())
        for each in (island, again):
            assert each({"x": np.float32([3.0])})["y"].numpy().tolist() == [6.0]
        assert "queue" not in unpack(island.get_config()["graph"]).nodes

    def test_constants_are_in_the_graph(self, graph_case):
        def build():
            x = v1.placeholder(tf.float32, [None], "x")
            keep = v1.placeholder(tf.float32, [], "keep")
            return {"x": x}, {"y": x * keep}

        island = graph_case(build).island(constants={"keep:0": 0.5})
        again = Island.from_config(island.get_config())
        assert again({"x": np.float32([3.0])})["y"].numpy().tolist() == [1.5]

    def test_audited_before_use(self, case, island):
        config = island.get_config()
        graph = unpack(config["graph"])
        graph.add(Node("spy", "ReadFile"))
        graph.nodes["y"].control_inputs.append("spy")
        config["graph"] = pack(graph)
        with pytest.raises(UntrustedContentError, match="ReadFile"):
            Island.from_config(config)

    def test_of_bytes(self, case, island):
        data = graph_to_proto(unpack(island.get_config()["graph"])).SerializeToString()
        again = Island(data, case.inputs, {"y": "y:0"}, case.records(), **OPTIONS)
        assert again({"x": X})["y"].shape == (2, 2)
        with pytest.raises(FormatError, match="cannot be read"):
            Island(b"\x0anot a graph", case.inputs, {"y": "y:0"}, case.records())

    @pytest.mark.parametrize("text", ["", "AAAA", "not base64!"])
    def test_damaged(self, island, text):
        with pytest.raises(FormatError, match="cannot be read"):
            Island.from_config({**island.get_config(), "graph": text})


class TestWithoutGradient:
    def gradient_of_a_loop(self):
        x = v1.placeholder(tf.float32, [None], "x")
        _, y = v1.while_loop(
            lambda i, h: i < 3, lambda i, h: (i + 1, tf.sin(h)), [0, x]
        )
        return {"x": x}, {"y": tf.gradients(y, x)[0]}

    def test_runs(self, check):
        check(self.gradient_of_a_loop).outputs({"x": np.float32([0.3, 0.4])})

    def test_says_so_on_a_tape(self, graph_case):
        island = graph_case(self.gradient_of_a_loop).island()
        x = tf.constant([0.3])
        with tf.GradientTape() as tape:
            tape.watch(x)
            with pytest.raises(PassError, match="cannot be differentiated"):
                tape.gradient(island({"x": x})["y"], x)

    def test_ops_that_have_none_are_constants(self, graph_case):
        def build():
            x = v1.placeholder(tf.float32, [None], "x")
            w = v1.get_variable("w", initializer=2.0, use_resource=False)
            quantized = tf.quantization.quantize(x * w, -1.0, 1.0, tf.quint8)
            return {"x": x}, {
                "y": x * w,
                "rounded": tf.raw_ops.Dequantize(
                    input=quantized.output,
                    min_range=quantized.output_min,
                    max_range=quantized.output_max,
                ),
            }

        case = graph_case.__new__(graph_case)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(graph_case, "_build_gradients", lambda self, outputs: {})
            case.__init__(build)
        island = case.island()
        with tf.GradientTape() as tape, pytest.warns(UserWarning, match="Dequantize"):
            y = island({"x": np.float32([3.0])})["y"]
        assert tape.gradient(y, island.variable("w").value) == 3.0

    def test_overridden_gradients_are_reported(self, graph_case):
        def build():
            x = v1.placeholder(tf.float32, [None], "x")
            y = tf.identity(x, "flip")
            y.op._set_attr("_gradient_op_type", v1.AttrValue(s=b"FlipGradient"))
            return {"x": x}, {"y": y}

        island = graph_case(build).island()
        island({"x": np.float32([3.0])})
        with pytest.warns(UserWarning, match=r"flip \(FlipGradient\)"):
            island({"x": np.float32([3.0])}, training=True)


def test_ops_for_other_devices(graph_case):
    def build():
        x = v1.placeholder(tf.float32, [1, 1, 1], "x")
        return {"x": x}, {"y": tf.identity(x, "y")}

    case = graph_case(build)
    case.graph.nodes["y"].op = "CudnnRNN"
    with pytest.raises(UnsupportedOpError, match="GPU"):
        case.island()({"x": np.ones((1, 1, 1), np.float32)})
