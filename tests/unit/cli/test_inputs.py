import base64
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from keras_metagraph.cli.inputs import Inputs
from keras_metagraph.errors import SignatureError


def infos(**dtypes):
    return {
        key: TensorInfo(dtype=tf.as_dtype(dtype).as_datatype_enum)
        for key, dtype in dtypes.items()
    }


def features(serialized):
    """The features of a tf.Example, as TensorFlow's own proto reads them."""
    feature = tf.train.Example.FromString(serialized).features.feature
    kinds = {name: each.WhichOneof("kind") for name, each in feature.items()}
    return {
        name: (kind, kind and list(getattr(feature[name], kind).value))
        for name, kind in kinds.items()
    }


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.arange(3.0))
    np.savez("one.npz", only=np.arange(2))
    np.savez("both.npz", x=np.ones(2), y=np.array([b"a", b"b"]))
    np.save("objects.npy", np.array([{}], dtype=object))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["x=x.npy"], {"x": [0.0, 1.0, 2.0]}),
        (["x=one.npz"], {"x": [0, 1]}),
        (["x=both.npz[y]"], {"x": [b"a", b"b"]}),
        (["both.npz[y]"], {"y": [b"a", b"b"]}),
        (["both.npz"], {"x": [1.0, 1.0], "y": [b"a", b"b"]}),
        (["x=x.npy", "y=one.npz[only]"], {"x": [0.0, 1.0, 2.0], "y": [0, 1]}),
    ],
)
def test_arrays_of_files(files, given, expected):
    found = Inputs(given).read(infos(x=tf.float32, y=tf.string))

    assert {key: value.tolist() for key, value in found.items()} == expected


@pytest.mark.parametrize(
    ("request_", "dtypes", "expected"),
    [
        ({"x": [[1, 2]], "y": ["a"]}, {"x": "float32", "y": "string"}, None),
        ([[1, 2]], {"x": "float32"}, {"x": [[1, 2]]}),
        (3.5, {"x": "float32"}, {"x": 3.5}),
        ({"inputs": [[1, 2]]}, {"x": "float32"}, {"x": [[1, 2]]}),
        ({"inputs": {"x": [1], "y": [2]}}, {"x": "int32", "y": "int32"}, None),
        ({"inputs": [1]}, {"inputs": "int32"}, {"inputs": [1]}),
        ({"inputs": {"inputs": [1]}}, {"inputs": "int32"}, {"inputs": [1]}),
        ({"instances": [[1, 2], [3, 4]]}, {"x": "int32"}, {"x": [[1, 2], [3, 4]]}),
        (
            {"instances": [{"x": 1, "y": [2]}, {"x": 3, "y": [4]}]},
            {"x": "int32", "y": "int32"},
            {"x": [1, 3], "y": [[2], [4]]},
        ),
        ({"instances": []}, {"x": "int32"}, {"x": []}),
        ({"instances": [1], "y": [2]}, {"instances": "int32", "y": "int32"}, None),
        ({"examples": ["raw"]}, {"examples": "string"}, {"examples": [b"raw"]}),
    ],
)
def test_the_forms_of_json(request_, dtypes, expected):
    found = Inputs(json_text=json.dumps(request_)).read(infos(**dtypes))

    expected = expected or request_.get("inputs", request_)
    plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in found.items()}
    encoded = json.loads(json.dumps(plain, default=bytes.decode))
    assert encoded == json.loads(json.dumps(expected, default=bytes.decode))


def test_bytes_keep_the_zeros_at_their_end():
    data = b"\x00\xff\x00\x00"
    text = base64.b64encode(data).decode()
    request = {"instances": [{"b64": text}, "text"]}

    found = Inputs(json_text=json.dumps(request)).read(infos(x=tf.string))

    assert found["x"].tolist() == [data, b"text"]


def test_ragged_lists_stay_lists():
    given = {"words": [["a"], ["b", "c"]], "sparse": [[[0, 1]], ["a"], [1, 2]]}

    found = Inputs(json_text=json.dumps(given)).read(
        infos(words=tf.string, sparse=tf.string)
    )

    assert found["words"] == [[b"a"], [b"b", b"c"]]
    assert found["sparse"] == [[[0, 1]], [b"a"], [1, 2]]


def test_a_request_names_its_signature():
    request = {"signature_name": "classify", "instances": [1]}

    assert Inputs(json_text=json.dumps(request)).signature_name == "classify"
    assert Inputs(json_text='{"x": [1]}').signature_name is None
    # Here it is an input.
    assert Inputs(json_text='{"signature_name": "a", "x": 1}').signature_name is None


@pytest.mark.parametrize("prefix", ["", "inputs="])
def test_short_examples_have_the_kind_of_their_values(prefix):
    text = (
        '[{"age": [22.0, 3], "n": [1, 2], "flag": true, "city": "Lyon",'
        ' "image": {"b64": "/wA="}, "none": []}, {}]'
    )
    given = infos(inputs=tf.string, x=tf.float32)

    first, second = Inputs(examples=prefix + text).read(given)["inputs"]

    assert features(first) == {
        "age": ("float_list", [22.0, 3.0]),
        "n": ("int64_list", [1, 2]),
        "flag": ("int64_list", [1]),
        "city": ("bytes_list", [b"Lyon"]),
        "image": ("bytes_list", [b"\xff\x00"]),
        "none": (None, None),
    }
    assert features(second) == {}


@pytest.mark.parametrize("depth", ["features", "feature"])
def test_examples_as_protobuf_writes_json(depth):
    example = tf.train.Example()
    example.features.feature["age"].float_list.value.append(1.5)
    example.features.feature["city"].bytes_list.value.append(b"\xff")
    value = json_format.MessageToDict(example)
    value = value if depth == "features" else value["features"]

    (found,) = Inputs(examples=json.dumps([value])).read(infos(x=tf.string))["x"]

    assert tf.train.Example.FromString(found) == example


def test_a_feature_may_be_called_as_the_proto_calls_its_own():
    text = '[{"features": [1], "feature": ["a"]}]'
    (found,) = Inputs(examples=text).read(infos(x=tf.string))["x"]

    assert features(found) == {
        "features": ("int64_list", [1]),
        "feature": ("bytes_list", [b"a"]),
    }


def test_requests_for_examples_share_their_context():
    request = {"examples": [{"a": 1}, {"a": 2}], "context": {"c": "x"}}

    found = Inputs(json_text=json.dumps(request)).read(infos(inputs=tf.string))

    assert [features(each)["a"][1] for each in found["inputs"]] == [[1], [2]]
    assert [features(each)["c"][1] for each in found["inputs"]] == [[b"x"], [b"x"]]


def test_json_comes_from_files_and_standard_input(tmp_path, monkeypatch):
    (tmp_path / "x.json").write_text('{"x": [1]}')
    monkeypatch.setattr("sys.stdin", io.StringIO('[{"a": [1]}]'))

    found = Inputs(json_text=f"@{tmp_path / 'x.json'}", examples="s=@-").read(
        infos(x=tf.int32, s=tf.string)
    )

    assert found["x"] == [1]
    assert features(found["s"][0]) == {"a": ("int64_list", [1])}


def test_all_that_is_wrong_is_said_at_once(files):
    given = Inputs(
        ["x=nothing.npy", "x.npy", "x=both.npz", "objects=objects.npy", "both.npz[z]"],
        '{"x": [1], "inptus": [2]}',
        '[{"a": ["b", 1]}, 3]',
    )

    with pytest.raises(SignatureError) as caught:
        given.read(infos(inputs=tf.string, x=tf.int32))

    text = "\n".join(caught.value.findings)
    for part in (
        "nothing.npy",
        "expected NAME=x.npy",
        "which one of ['x', 'y']",
        "allow_pickle",
        "no array 'z'",
        "unknown input 'inptus'; nearest: inputs",
        "example 0, a: expected numbers or texts, received ['b', 1]",
        "example 1: 3 is no dict of features",
        "nothing was read for ['inputs']",
    ):
        assert part in text
    assert len(caught.value.findings) == 8


def test_an_input_is_given_once(files):
    with pytest.raises(SignatureError, match="'x' is given twice"):
        Inputs(["x=x.npy"], '{"x": [1]}').read(infos(x=tf.float32))


@pytest.mark.parametrize(
    ("text", "dtypes", "message"),
    [
        ("[1]", {"x": "int32", "y": "int32"}, "which of the inputs"),
        ('{"instances": 3}', {"x": "int32"}, "no list"),
        (
            '{"instances": [{"x": 1}, {"y": 1}, 3]}',
            {"x": "int32", "y": "int32"},
            r"without some of \['x', 'y'\]: \[0, 1, 2\]",
        ),
        ('{"x": [{"b64": "%"}]}', {"x": "string"}, "not base64"),
        ('{"examples": [{"a": 1}]}', {"x": "int32"}, "the one string input"),
        (
            '{"examples": [{"a": 1e30, "b": [9223372036854775808]}]}',
            {"x": "string"},
            "b",
        ),
        ('{"examples": [{"a": {"b64": "%"}}]}', {"x": "string"}, "not base64"),
    ],
)
def test_json_of_another_form(text, dtypes, message):
    with pytest.raises(SignatureError, match=message):
        Inputs(json_text=text).read(infos(**dtypes))


@pytest.mark.parametrize("text", ["{'x': 1}", "x=[1]", "@nowhere.json", ""])
def test_what_is_no_json(text):
    with pytest.raises(SignatureError, match="Expected JSON"):
        Inputs(json_text=text)
