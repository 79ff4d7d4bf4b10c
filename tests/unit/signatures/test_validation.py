"""The rules of TensorFlow Serving, compared with those of TensorFlow 1.15's loader."""

import textwrap

import keras
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.errors import SignatureError
from keras_metagraph.signatures.validation import signature_findings

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
PREDICT = "tensorflow/serving/predict"


def info(dtype, shape=(None,), name="t:0"):
    made = tf.compat.v1.MetaGraphDef().signature_def["s"].inputs["x"]
    made.name, made.dtype = name, tf.as_dtype(dtype).as_datatype_enum
    made.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return made


STRINGS, ROW = info("string"), (None, 3)


def signature_def(method, inputs, outputs):
    made = tf.compat.v1.MetaGraphDef().signature_def["s"]
    made.method_name = method
    for side, tensors in (("inputs", inputs), ("outputs", outputs)):
        for key, value in tensors.items():
            getattr(made, side)[key].CopyFrom(value)
    return made


VALID = {
    "both": (
        CLASSIFY,
        {"inputs": STRINGS},
        {
            "classes": info("string", ROW),
            "scores": info("float32", (None, None)),
        },
    ),
    "classes": (CLASSIFY, {"inputs": STRINGS}, {"classes": info("string", ROW)}),
    "scores": (CLASSIFY, {"inputs": STRINGS}, {"scores": info("float32", None)}),
    "vector": (REGRESS, {"inputs": STRINGS}, {"outputs": info("float32")}),
    "column": (REGRESS, {"inputs": STRINGS}, {"outputs": info("float32", (None, 1))}),
    "predict": (PREDICT, {"x": info("int8")}, {"y": info("bool", ())}),
    "own": ("my/method", {}, {}),
}
WRONG = {
    "no input": (CLASSIFY, {}, {"scores": info("float32", ROW)},
                 "has the input 'inputs'"),
    "renamed": (CLASSIFY, {"examples": STRINGS}, {"scores": info("float32", ROW)},
                "another input 'examples'"),
    "floats": (CLASSIFY, {"inputs": info("float32")}, {"scores": info("float32", ROW)},
               "input 'inputs' is DT_FLOAT, expected DT_STRING"),
    "no output": (CLASSIFY, {"inputs": STRINGS}, {}, "'classes' or 'scores', or both"),
    "numbers": (CLASSIFY, {"inputs": STRINGS}, {"classes": info("int64", ROW)},
                "output 'classes' is DT_INT64, expected DT_STRING"),
    "half": (CLASSIFY, {"inputs": STRINGS}, {"scores": info("float16", ROW)},
             "output 'scores' is DT_HALF, expected DT_FLOAT"),
    "third": (CLASSIFY, {"inputs": STRINGS}, {
        "scores": info("float32", ROW), "logits": info("float32", ROW),
    }, "another output 'logits'"),
    "regressed": (REGRESS, {"inputs": STRINGS}, {"scores": info("float32")},
                  "has the output 'outputs'"),
    "double": (REGRESS, {"inputs": STRINGS}, {"outputs": info("float64")},
               "output 'outputs' is DT_DOUBLE, expected DT_FLOAT"),
    "two": (REGRESS, {"inputs": STRINGS}, {
        "outputs": info("float32"), "more": info("float32"),
    }, "another output 'more'"),
    "deaf": (PREDICT, {}, {"y": info("bool")}, "has inputs, and this has none"),
    "dumb": (PREDICT, {"x": info("bool")}, {}, "has outputs, and this has none"),
}  # fmt: skip


@pytest.mark.parametrize("name", VALID)
def test_valid_signatures(name):
    assert signature_findings(name, signature_def(*VALID[name])) == []


@pytest.mark.parametrize("name", WRONG)
def test_wrong_signatures(name):
    *parts, expected = WRONG[name]
    findings = signature_findings(name, signature_def(*parts))
    assert any(expected in finding for finding in findings)
    assert all(finding.startswith(f"{name}: ") for finding in findings)


def test_tensorflow_1_has_the_same_opinion(tf115):
    script = """
        import numpy as np
        import tensorflow.compat.v1 as tf
        from tensorflow.core.protobuf import meta_graph_pb2
        from tensorflow.python.saved_model import signature_def_utils

        def main(arrays, args):
            message = meta_graph_pb2.MetaGraphDef()
            message.ParseFromString(arrays["message"].tobytes())
            return {
                key: np.asarray(signature_def_utils.is_valid_signature(value))
                for key, value in message.signature_def.items()
            }
    """
    cases = {**{k: v for k, v in VALID.items() if k != "own"},
             **{k: v[:3] for k, v in WRONG.items()}}  # fmt: skip
    message = tf.compat.v1.MetaGraphDef()
    for name, parts in cases.items():
        message.signature_def[name].CopyFrom(signature_def(*parts))
    content = list(message.SerializeToString())

    found = tf115(textwrap.dedent(script), {"message": tf.constant(content, tf.uint8)})

    assert {name: bool(value) for name, value in found.items()} == {
        name: name in VALID for name in cases
    }


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"scores": info("float32", (None,))}, "(batch, classes)"),
        (
            {"scores": info("float32", ROW), "classes": info("string", (None, 2))},
            "different widths: [2, 3]",
        ),
    ],
)
def test_shapes_that_fail_at_run_time(outputs, expected):
    wrong = signature_def(CLASSIFY, {"inputs": STRINGS}, outputs)
    assert any(expected in finding for finding in signature_findings("s", wrong))
    wide = signature_def(
        REGRESS,
        {"inputs": info("string", (None, 1))},
        {"outputs": info("float32", ROW)},
    )
    assert len(signature_findings("s", wide)) == 2


def test_names_and_types_must_be_there():
    nameless = signature_def(
        "", {"x": info("float32", name=""), "": info("int8")}, {"y": STRINGS}
    )
    nameless.outputs["y"].dtype = 0
    sparse = nameless.outputs["s"]
    sparse.coo_sparse.values_tensor_name = "v:0"
    sparse.dtype = 1
    findings = "\n".join(signature_findings("__saved_model_init_op", nameless))
    for expected in (
        "TensorFlow's own",
        "method name is empty",
        "input 'x' names no tensor",
        "an input has an empty key",
        "output 'y' has no type",
        "output 's' names no tensor",
    ):
        assert expected in findings
    assert signature_findings("", signature_def(*VALID["own"])) == [
        ": the key is empty"
    ]


def test_every_signature_is_checked_when_it_is_written():
    model = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(2, name="d")])
    tensors = {"inputs": {"inputs": "x:0"}, "outputs": {"scores": "d/BiasAdd:0"}}
    signatures = {
        "c": {"method_name": CLASSIFY, **tensors},
        "r": {"method_name": REGRESS, **tensors},
        "good": tensors,
    }
    with pytest.raises(SignatureError, match="would not take") as error:
        kmg.export_meta_graph(model, signatures=signatures)

    keys = [finding.partition(":")[0] for finding in error.value.findings]
    assert keys == ["c", "c", "r", "r", "r", "r"]
