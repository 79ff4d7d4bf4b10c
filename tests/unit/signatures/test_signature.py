"""Signatures are called with arrays, lists and dicts, and say what does not fit."""

import dataclasses
import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_metagraph as kmg
from keras_metagraph.errors import ExportError, SignatureError
from keras_metagraph.signatures import Signature

X = np.arange(6, dtype="float32").reshape(2, 3)


def added(specs):
    """A signature that gives back what it takes."""
    return Signature("m", specs, lambda **tensors: tensors, name="echo")


@pytest.fixture
def both():
    return added(
        {"x": tf.TensorSpec([None, 3], tf.float32), "n": tf.TensorSpec([], tf.int64)}
    )


def test_forms_of_a_call(both):
    calls = [
        both(X, 2),
        both(X.tolist(), n=2),
        both(n=np.int32(2), x=X.astype("float64")),
        both({"n": 2, "x": tf.constant(X)}),
    ]
    for values in calls:
        np.testing.assert_array_equal(values["x"], X)
        assert values["x"].dtype == np.float32
        assert values["n"] == 2
        assert values["n"].dtype == np.int64


def test_all_that_does_not_fit_is_listed(both):
    with pytest.raises(SignatureError) as info:
        both(x=X[:, :2], m=3)

    assert str(info.value) == (
        "The signature 'echo' was called with what it does not take.\n"
        "  - there is no input 'm'\n"
        "  - input 'x' has the shape [2, 2], expected [None, 3]\n"
        "  - input 'n' is missing: int64 []\n"
        "To fix: it takes 'x': float32 [None, 3], 'n': int64 []"
    )


@pytest.mark.parametrize(
    ("spec", "value", "finding"),
    [
        (
            tf.TensorSpec([2], tf.int32),
            [0.5, 1.0],
            "has the dtype float64, expected int32",
        ),
        (tf.TensorSpec([1], tf.int8), [300], "has the dtype int64, expected int8"),
        (tf.TensorSpec([1], tf.float32), ["a"], "holds strings, expected float32"),
        (tf.TensorSpec([1], tf.bool), [1], "has the dtype int64, expected bool"),
        (tf.TensorSpec([1], tf.string), [1], "holds int, expected strings"),
        (tf.TensorSpec([1], tf.string), [None], "holds NoneType, expected strings"),
        (
            tf.TensorSpec([1], tf.float32),
            tf.constant([1.0], tf.float64),
            "has the dtype float64, expected float32",
        ),
        (
            tf.TensorSpec([None], tf.float32),
            tf.ragged.constant([[1.0]]),
            "is a RaggedTensor, expected float32 [None]",
        ),
        (
            tf.RaggedTensorSpec([None, None], tf.int64),
            tf.constant([[1]], tf.int64),
            "is a Tensor, expected RaggedTensor int64 [None, None]",
        ),
    ],
)
def test_wrong_values(spec, value, finding):
    with pytest.raises(SignatureError) as info:
        added({"x": spec})(value)

    assert info.value.findings == (f"input 'x' {finding}",)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "uint8", "complex64"])
def test_lists_become_numbers_of_any_type(dtype):
    spec = tf.TensorSpec([None], tf.as_dtype(dtype))

    assert added({"x": spec})([1, 2])["x"].tolist() == [1, 2]
    assert added({"x": spec})([])["x"].shape == (0,)


def test_bytes_are_kept_to_the_last_zero():
    signature = added({"x": tf.TensorSpec([None], tf.string)})

    assert signature([b"a\0\0", "é"])["x"].tolist() == [b"a\0\0", "é".encode()]
    assert signature([])["x"].shape == (0,)


def test_single_values_are_arrays():
    signature = added(
        {"n": tf.TensorSpec([], tf.int32), "t": tf.TensorSpec([], "string")}
    )

    values = signature(3, b"a\0")

    assert all(isinstance(value, np.ndarray) for value in values.values())
    assert (values["n"].item(), values["t"].item()) == (3, b"a\0")


def test_sparse_and_ragged_values():
    signature = added(
        {
            "s": tf.SparseTensorSpec([None, 3], tf.float32),
            "r": tf.RaggedTensorSpec([None, None], tf.int64),
        }
    )

    for s in (X, tf.sparse.from_dense(X)):
        values = signature(s=s, r=[[1], [2, 3]])
        np.testing.assert_array_equal(tf.sparse.to_dense(values["s"]), X)
        assert values["r"].to_list() == [[1], [2, 3]]


def test_errors_of_the_run_name_signature_and_input():
    def fail(x):
        return {"y": tf.debugging.check_numerics(x, "no number")}

    signature = kmg.predict_signature(fail, tf.TensorSpec([None], tf.float32))
    with pytest.raises(SignatureError, match=r"'fail' failed on its input 'x'") as info:
        signature([float("nan")])

    (finding,) = info.value.findings
    assert "no number" in finding
    assert isinstance(info.value.__cause__, tf.errors.InvalidArgumentError)


def test_the_graph_behind_a_signature():
    scale = tf.Variable(3.0, name="scale")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])

    def scaled(x):
        return {"y": scale * model(x)}

    specs = tf.TensorSpec([None, 3])
    for target, inputs, names in (
        (model, None, {"dense/kernel", "dense/bias"}),
        (scaled, specs, {"dense/kernel", "dense/bias", "scale"}),
        (lambda x: x + 1.0, specs, set()),
    ):
        signature_def, graph_def = kmg.predict_signature(target, inputs).to_graph("s")
        variables = {n.name for n in graph_def.node if n.op == "VarHandleOp"}
        assert {name.removeprefix("sequential/") for name in variables} == names
        (key,) = signature_def.outputs
        with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
            tf.import_graph_def(graph_def, name="")
            for operation in graph.get_operations():
                if operation.type == "AssignVariableOp":
                    session.run(operation)
            (given,) = signature_def.inputs.values()
            found = session.run(signature_def.outputs[key].name, {given.name: X})
        assert found.shape[0] == 2


def test_one_signature_under_several_keys_is_one_graph():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    signature = kmg.predict_signature(model)
    other = kmg.predict_signature(model)
    meta_graph_def = kmg.export_meta_graph(
        model, signatures={"a": signature, "b": signature, "c": other}
    )
    a, b, c = (meta_graph_def.signature_def[key] for key in "abc")
    assert a == b
    assert a.outputs != c.outputs


def test_keys_of_any_letters():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    spec = tf.TensorSpec([None, 3])
    signatures = {
        key: kmg.predict_signature(lambda x, n=number: {"y": n * x}, [spec])
        for number, key in enumerate(["my key", "my/key", "my_key", "my:key", "é"])
    }
    meta_graph_def = kmg.export_meta_graph(model, signatures=signatures)

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(meta_graph_def.graph_def, name="")
        for number, key in enumerate(signatures):
            found = meta_graph_def.signature_def[key]
            feeds = {found.inputs["x"].name: X}
            values = session.run(found.outputs["y"].name, feeds)
            np.testing.assert_array_equal(values, number * X)


def test_the_key_of_a_step_is_taken():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    signatures = {"train": kmg.predict_signature(model)}

    with pytest.raises(SignatureError, match="The train graph has a signature"):
        kmg.export_meta_graph(model, signatures=signatures)
    only = kmg.export_meta_graph(model, signatures=signatures, graphs=["predict"])
    assert set(only.signature_def) == {"serving_default", "train"}


def test_a_new_signature_in_the_memory_of_an_old_one_is_exported():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    old, new = (
        kmg.classify_signature(model, from_logits=True, labels=labels)
        for labels in (["a", "b"], ["c", "d"])
    )
    kmg.export_meta_graph(model, signatures={"c": old})
    place = id(old)
    del old
    gc.collect()
    others = []
    while id(new) != place and len(others) < 100_000:
        others.append(new)
        new = dataclasses.replace(new)

    meta_graph_def = kmg.export_meta_graph(model, signatures={"c": new})

    nodes = meta_graph_def.graph_def.node
    constants = [list(node.attr["value"].tensor.string_val) for node in nodes]
    assert [b"c", b"d"] in constants


def test_a_model_that_is_not_used_any_more_is_freed():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    signature = kmg.predict_signature(model)
    kmg.export_meta_graph(model, signatures={"p": signature})
    gone = weakref.ref(model)

    del model, signature
    gc.collect()

    assert gone() is None


def test_what_cannot_be_traced_is_an_error_of_the_signature():
    def eager(x):
        return x.numpy()

    signature = kmg.predict_signature(eager, tf.TensorSpec([None], tf.float32))
    with pytest.raises(SignatureError, match="'eager' cannot be traced: Attribute"):
        signature([1.0])


def test_all_signatures_that_cannot_be_traced_are_listed():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    spec = tf.TensorSpec([None], tf.float32)
    signatures = {
        "first": kmg.predict_signature(lambda x: x.numpy(), spec),
        "fine": kmg.predict_signature(lambda x: x, spec),
        "second": tf.function(lambda x: x),
    }
    with pytest.raises(ExportError, match="Several signatures") as info:
        kmg.export_meta_graph(model, signatures=signatures)

    first, second = info.value.findings
    assert "'first' failed: AttributeError" in first
    assert second.startswith("The signature 'second' is a tf.function that does not")


@pytest.mark.parametrize(
    "make", [list, lambda signatures: signatures["raw"], lambda _: {1: 2}]
)
def test_signatures_are_passed_by_key(tmp_path, make):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    signatures = make({"raw": kmg.predict_signature(model)})

    with pytest.raises(SignatureError, match="are passed by key"):
        kmg.save_meta_graph(model, tmp_path / "x" / "model", signatures=signatures)
    with pytest.raises(SignatureError, match="are passed by key"):
        kmg.save_saved_model(tmp_path / "x", model, signatures=signatures)

    assert not (tmp_path / "x").exists()
