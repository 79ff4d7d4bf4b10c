"""Configs of old Keras: renamed, refused, or told of, all at once."""

import keras
import numpy as np
import pytest

from keras_metagraph.errors import (
    CustomObjectError,
    FormatError,
    UntrustedContentError,
)
from keras_metagraph.loading.legacy_keras.arguments import renew
from keras_metagraph.loading.legacy_keras.config import Objects
from keras_metagraph.loading.legacy_keras.keras1 import layout_of, modernize
from keras_metagraph.loading.legacy_keras.layers import (
    SummedActivityRegularizer,
    hard_sigmoid,
)
from keras_metagraph.loading.legacy_keras.model import build_model
from keras_metagraph.loading.legacy_keras.wrappers import ChannelsFirst


def objects(custom=None, *, safe_mode=True, release=(2, 2, 4), is_tf_keras=False):
    return Objects(
        custom or {}, safe_mode=safe_mode, release=release, is_tf_keras=is_tf_keras
    )


def sequential(*layers):
    nodes = [{"class_name": kind, "config": config} for kind, config in layers]
    return {"class_name": "Sequential", "config": nodes}


def dense(name, units, **config):
    return "Dense", {"name": name, "units": units, **config}


START = {"batch_input_shape": [None, 4]}


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        (
            "Convolution2D",
            {"nb_filter": 4, "nb_row": 3, "nb_col": 2, "border_mode": "same"}
            | {"subsample": [1, 2], "dim_ordering": "th", "init": "he_normal"},
            (
                "Conv2D",
                {"kernel_size": [3, 2], "data_format": "channels_first"}
                | {"filters": 4, "padding": "same", "strides": [1, 2]}
                | {"kernel_initializer": "he_normal"},
            ),
        ),
        (
            "LSTM",
            {"output_dim": 3, "inner_activation": "tanh", "forget_bias_init": "one"}
            | {"consume_less": "gpu", "dropout_U": 0.1, "input_dim": 7},
            (
                "LSTM",
                {"units": 3, "recurrent_activation": "tanh"}
                | {"recurrent_dropout": 0.1, "unit_forget_bias": True},
            ),
        ),
        ("Merge", {"mode": "concat", "concat_axis": 2}, ("Concatenate", {"axis": 2})),
        (
            "ZeroPadding2D",
            {"padding": [1, 2, 3, 4], "dim_ordering": "tf"},
            (
                "ZeroPadding2D",
                {"padding": [[1, 2], [3, 4]], "data_format": "channels_last"},
            ),
        ),
        ("Dropout", {"p": 0.5}, ("Dropout", {"rate": 0.5})),
        ("Dropout", {"rate": 0.5}, ("Dropout", {"rate": 0.5})),
    ],
)
def test_names_of_keras_1(kind, config, expected):
    assert modernize(kind, config) == expected


def test_layout_that_some_layers_do_not_say():
    assert layout_of([{"config": {"dim_ordering": "th"}}, {}]) == "channels_first"
    assert layout_of([{"dim_ordering": "th"}, {"dim_ordering": "tf"}]) == (
        "channels_last"
    )


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("LeakyReLU", {"alpha": 0.3}, {"negative_slope": 0.3}),
        ("GRU", {"units": 2, "implementation": 1}, {"units": 2, "reset_after": False}),
        ("Embedding", {"input_dim": 9, "input_length": 3}, {"input_dim": 9}),
        ("Dense", {"units": 2, "dtype": "int32"}, {"units": 2}),
    ],
)
def test_arguments_of_keras_2(kind, config, expected):
    assert renew(kind, config, (2, 2, 4), True) == (kind, expected)


def test_activity_regularizer_is_not_divided_by_the_batch_in_standalone_keras():
    config = {"activity_regularizer": {"class_name": "L1L2", "config": {"l2": 0.1}}}

    own = renew("Dense", config, (2, 2, 4), False)[1]["activity_regularizer"]

    assert isinstance(own, SummedActivityRegularizer)
    assert renew("Dense", config, (2, 2, 4), True)[1] == config


def test_hard_sigmoid_is_the_old_one():
    part = build_model(
        sequential(dense("d", 1, activation="hard_sigmoid", **START)), objects()
    )

    assert part.layer.layers[0].activation is hard_sigmoid
    x = keras.ops.convert_to_tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
    np.testing.assert_allclose(hard_sigmoid(x), [0.0, 0.3, 0.5, 0.7, 1.0], rtol=1e-6)


def test_convolution_with_channels_first_runs_on_a_cpu():
    config = {"name": "c", "filters": 3, "kernel_size": [2, 2], "strides": [1, 1]}
    config |= {"data_format": "channels_first", "batch_input_shape": [None, 2, 5, 6]}
    model = build_model(sequential(("Conv2D", config)), objects()).layer
    x = np.random.default_rng(7).normal(size=(4, 2, 5, 6)).astype("float32")
    (layer,) = model.layers
    plain = keras.layers.Conv2D(3, 2)
    plain.build((4, 5, 6, 2))
    plain.set_weights(layer.get_weights())

    assert isinstance(layer, ChannelsFirst)
    expected = np.moveaxis(plain(np.moveaxis(x, 1, -1)), -1, 1)
    np.testing.assert_allclose(model(x), expected, 1e-5, 1e-5)
    assert model.output_shape == (None, 3, 4, 5)


def lambda_layer(name="scale"):
    code = ["4wEAAAA=\n", None, None]
    return "Lambda", {"name": name, "function": code, "function_type": "lambda"}


def test_bytecode_is_refused_by_the_names_of_the_layers():
    config = sequential(dense("d", 2, **START), lambda_layer("a"), lambda_layer("b"))

    with pytest.raises(UntrustedContentError) as caught:
        build_model(config, objects())

    assert len(caught.value.findings) == 2


def test_function_of_a_lambda_layer_by_the_name_of_the_layer():
    config = sequential(dense("d", 2, **START), lambda_layer("a"))

    model = build_model(config, objects({"a": lambda x: x * 0.0 + 2.0})).layer

    np.testing.assert_array_equal(model(np.ones((1, 4))), [[2.0, 2.0]])


def test_damaged_bytecode_with_consent_is_an_error_of_the_layer():
    config = sequential(dense("d", 2, **START), lambda_layer("a"))

    with pytest.raises(FormatError, match=r"a \(Lambda"):
        build_model(config, objects(safe_mode=False))


def test_all_missing_names_come_at_once():
    config = sequential(
        dense("d", 2, activation="mine", **START),
        dense("e", 2, kernel_initializer={"class_name": "Own", "config": {}}),
        ("Strange", {"name": "s"}),
    )

    with pytest.raises(CustomObjectError) as caught:
        build_model(config, objects())

    assert [finding.split("'")[1] for finding in caught.value.findings] == [
        "mine",
        "Own",
        "Strange",
    ]


@pytest.mark.parametrize("kind", ["TFSMLayer", "TorchModuleWrapper", "Layer"])
def test_layers_that_run_other_code_are_unknown(kind):
    with pytest.raises(CustomObjectError, match=kind):
        build_model(sequential((kind, {"name": "x", "filepath": "/x"})), objects())


def test_vocabulary_is_not_read_from_a_file():
    config = {"name": "s", "vocabulary": "/etc/passwd"}

    with pytest.raises(UntrustedContentError, match="StringLookup"):
        build_model(sequential(("StringLookup", config)), objects())


def test_what_keras_3_cannot_compute_is_told():
    config = sequential(
        ("LSTM", {"name": "a", "units": 2, "time_major": True}),
        ("BatchNormalization", {"name": "b", "renorm": True}),
    )

    with pytest.raises(FormatError) as caught:
        build_model(config, objects(is_tf_keras=True))

    assert [f.split(" ")[0] for f in caught.value.findings] == ["a", "b"]


def functional(layers, outputs):
    return {
        "class_name": "Model",
        "config": {
            "name": "m",
            "layers": layers,
            "input_layers": [["x", 0, 0]],
            "output_layers": outputs,
        },
    }


def node(kind, name, calls, **config):
    return {
        "class_name": kind,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": calls,
    }


INPUT = node("InputLayer", "x", [], batch_input_shape=[None, 4], dtype="float32")


def test_shared_layer_is_called_at_each_of_its_nodes():
    shared = node("Dense", "d", [[["x", 0, 0]], [["d", 0, 0]]], units=4)
    add = node("Add", "a", [[["d", 0, 0, {}], ["d", 1, 0, {}]]])
    model = build_model(functional([INPUT, add, shared], [["a", 0, 0]]), objects())
    kernel, _ = model.layer.get_layer("d").weights
    x = np.ones((2, 4), "float32")

    once = x @ kernel.numpy()
    np.testing.assert_allclose(model.layer(x), once + once @ kernel.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    "layers",
    [
        [INPUT, node("Dense", "d", [[["e", 0, 0]]], units=2)],
        [INPUT, node("Dense", "d", [[["d", 0, 0]]], units=2)],
        [INPUT, {"class_name": "Dense"}],
        [3],
        [],
    ],
)
def test_damaged_graph_is_a_format_error(layers):
    with pytest.raises(FormatError, match="config"):
        build_model(functional(layers, [["d", 0, 0]]), objects())


def test_model_in_itself_ends():
    config = sequential(dense("d", 2, **START))
    for _ in range(100):
        config = {"class_name": "Sequential", "config": [config]}

    with pytest.raises(FormatError, match="nested"):
        build_model(config, objects())


def test_class_of_the_caller_for_a_functional_model():
    class Mine(keras.Model):
        pass

    config = functional(
        [INPUT, node("Dense", "d", [[["x", 0, 0]]], units=2)], [["d", 0, 0]]
    )
    model = build_model({**config, "class_name": "Mine"}, objects({"Mine": Mine})).layer

    assert type(model) is Mine
    assert model(np.ones((1, 4))).shape == (1, 2)
