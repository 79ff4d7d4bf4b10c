"""Signatures as callables: what they take, what they refuse, and what they run."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_metagraph import load_from_meta_graph
from keras_metagraph.errors import (
    FormatError,
    SignatureError,
    UntrustedContentError,
)
from keras_metagraph.loading.signature_values import fitted

v1 = tf.compat.v1
SavedModel = saved_model_pb2.SavedModel
PREDICT = "tensorflow/serving/predict"


def signature(inputs, outputs, method=PREDICT):
    info = v1.saved_model.build_tensor_info
    sides = [{k: info(t) for k, t in side.items()} for side in (inputs, outputs)]
    return v1.saved_model.build_signature_def(*sides, method_name=method)


def many():
    """A graph with one signature of each kind."""
    x = v1.placeholder(tf.float32, [None, 2], "x")
    ids = v1.placeholder(tf.int32, [None], "ids")
    text = v1.placeholder(tf.string, [None], "text")
    scale = v1.placeholder_with_default(2.0, [], "scale")
    sparse = v1.sparse_placeholder(tf.float32, [None, 2], name="sparse")
    examples = v1.placeholder(tf.string, [None], "examples")
    features = {
        "height": tf.io.FixedLenFeature([2], tf.float32),
        "age": tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_example(examples, features)
    weights = v1.get_variable("weights", initializer=[[1.0, 2.0], [3.0, 4.0]])
    return {
        "several": signature(
            {"x": x, "ids": ids, "text": text},
            {"y": x @ weights, "ids": ids + 1, "text": tf.strings.upper(text)},
        ),
        "serving_default": signature({"x": x}, {"y": x @ weights}),
        "default": signature({"x": x, "scale": scale}, {"y": x * scale}),
        "sparse": signature(
            {"matrix": sparse},
            {
                "y": tf.sparse.sparse_dense_matmul(sparse, weights),
                "twice": tf.SparseTensor(
                    sparse.indices, 2 * sparse.values, sparse.dense_shape
                ),
            },
        ),
        "parse": signature(
            {"inputs": examples}, {"y": parsed["height"] @ weights, **parsed}
        ),
        "none": signature({}, {"weights": weights}),
        "shapes": signature({"x": x}, {"y": tf.reshape(x, [-1, 3])}),
    }


def save(path, build, tags=("serve",), train_op=None):
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        signatures = build()
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, list(tags), signatures)
        builder.save()


@pytest.fixture(scope="module")
def meta(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    save(path, many)
    return load_from_meta_graph(path).meta_graph


def test_forms_of_a_call(meta):
    call = meta.signatures["several"]
    x, ids, text = [[1.0, 1.0]], [3], ["word"]
    expected = {"y": [[4.0, 6.0]], "ids": [4], "text": [b"WORD"]}
    for outputs in (
        call(x=x, ids=ids, text=text),
        call({"x": x, "ids": ids, "text": text}),
        call(ids, text, x),  # by position in the order of the sorted keys
        call(ids, text=np.array(text), x=np.array(x)),
        call(x=tf.constant(x), ids=np.int32(ids), text=np.array([b"word"], object)),
    ):
        assert {key: value.tolist() for key, value in outputs.items()} == expected
        assert all(isinstance(value, np.ndarray) for value in outputs.values())


def test_attributes(meta):
    call = meta.signatures["several"]
    assert call.method_name == PREDICT
    assert call.inputs == {
        "ids": tf.TensorSpec([None], tf.int32),
        "text": tf.TensorSpec([None], tf.string),
        "x": tf.TensorSpec([None, 2], tf.float32),
    }
    assert call.outputs["text"] == tf.TensorSpec([None], tf.string)
    assert "x: float32[None, 2]" in repr(call)
    sparse = meta.signatures["sparse"].inputs["matrix"]
    assert sparse == tf.SparseTensorSpec([None, 2], tf.float32)


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_batches(meta, size):
    x = np.random.RandomState(0).rand(size, 2)
    y = meta.signatures["serving_default"](x)["y"]
    assert y.shape == (size, 2)
    np.testing.assert_allclose(y, x @ [[1.0, 2.0], [3.0, 4.0]], 1e-6)


def test_empty_list_is_an_empty_batch(meta):
    assert meta.signatures["serving_default"]([])["y"].shape == (0, 2)


def test_all_that_is_wrong_is_in_one_error(meta):
    with pytest.raises(SignatureError) as caught:
        meta.signatures["several"](x=[1.0, 2.0], ids=[0.5], texts=["a"])
    assert "'several'" in str(caught.value)
    assert caught.value.findings == (
        "input 'text': missing",
        "input 'texts': unknown",
        "input 'x': has the shape [2], expected [None, 2]",
        "input 'ids': has the dtype float64, expected int32",
    )


def test_too_many_by_position_and_twice(meta):
    with pytest.raises(SignatureError) as caught:
        meta.signatures["serving_default"]([[1.0, 1.0]], 2, x=[[1.0, 1.0]])
    assert caught.value.findings == (
        "input 'x': given twice",
        "2 inputs by position, 1 too many",
    )


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([1, 2], tf.float32),
        (np.array([1.5]), tf.float16),
        (np.array([1.5]), tf.bfloat16),
        (np.array([3], np.int64), tf.int8),
        ([True], tf.int32),
        ([1.5], tf.complex64),
        (np.array(["a"]), tf.string),
        (["a", b"b"], tf.string),
        ([], tf.string),
        (np.array([1, 2], object), tf.int64),
    ],
)
def test_casts_without_a_loss(value, dtype):
    array = fitted(value, tf.TensorSpec([None], dtype))
    # What TensorFlow makes of the same numbers is what a session would have got.
    expected = np.asarray(value, object if dtype == tf.string else dtype.as_numpy_dtype)
    assert array.dtype == expected.dtype
    assert array.tolist() == expected.tolist()


def test_bytes_are_kept_as_they_are():
    value = [b"\xff\x00", "\xe9"]
    array = fitted(value, tf.TensorSpec([None], tf.string))
    assert array.tolist() == value


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([1.0], tf.int32),
        ([300], tf.uint8),
        ([-1], tf.uint8),
        ([1], tf.bool),
        ([1 + 2j], tf.float32),
        (["1"], tf.float32),
        ([1], tf.string),
        ([b"a", 1], tf.string),
        ([[1], [1, 2]], tf.float32),
        ([None], tf.float32),
    ],
)
def test_other_casts_are_refused(value, dtype):
    with pytest.raises(ValueError, match=r"has the|holds|is no array"):
        fitted(value, tf.TensorSpec(None, dtype))


def test_default_of_a_placeholder(meta):
    call = meta.signatures["default"]
    assert call(x=[[1.0, 2.0]])["y"].tolist() == [[2.0, 4.0]]
    assert call(x=[[1.0, 2.0]], scale=3)["y"].tolist() == [[3.0, 6.0]]


class Coordinates:
    """What matrices of SciPy give."""

    def __init__(self, row, col, data, shape):
        self.row, self.col = np.array(row), np.array(col)
        self.data, self.shape = np.array(data), shape

    def tocoo(self):
        return self


def test_sparse_inputs_and_outputs(meta):
    call = meta.signatures["sparse"]
    parts = ([[0, 1], [2, 0]], [2.0, 5.0], [3, 2])
    for value in (
        parts,
        tf.SparseTensor(*parts),
        v1.SparseTensorValue(*parts),
        Coordinates([0, 2], [1, 0], [2.0, 5.0], (3, 2)),
    ):
        outputs = call(matrix=value)
        assert outputs["y"].tolist() == [[6.0, 8.0], [0.0, 0.0], [5.0, 10.0]]
        assert isinstance(outputs["twice"], v1.SparseTensorValue)
        assert outputs["twice"].values.tolist() == [4.0, 10.0]
    with pytest.raises(SignatureError, match="is a ndarray, expected a tf"):
        call(matrix=np.eye(2))


def example(**features):
    result = tf.train.Example()
    for key, values in features.items():
        kind = "float_list" if isinstance(values[0], float) else "int64_list"
        getattr(result.features.feature[key], kind).value.extend(values)
    return result.SerializeToString()


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_examples(meta, size):
    batch = [example(height=[1.0, 1.0], age=[7])] * size
    outputs = meta.signatures["parse"](batch)
    assert outputs["y"].tolist() == [[4.0, 6.0]] * size
    assert outputs["age"].tolist() == [7] * size


@pytest.mark.parametrize(
    ("wrong", "feature"),
    [
        ({"age": [7]}, "height"),
        ({"height": [1.0, 1.0]}, "age"),
        ({"height": [1.0, 1.0], "age": [7.0]}, "age"),
        ({"height": [1.0], "age": [7]}, "height"),
    ],
)
def test_wrong_feature_is_named(meta, wrong, feature):
    batch = [example(height=[1.0, 1.0], age=[7]), example(**wrong)]
    with pytest.raises(SignatureError) as caught:
        meta.signatures["parse"](batch)
    assert "'parse'" in caught.value.problem
    assert f"feature '{feature}'" in caught.value.problem
    assert len(caught.value.findings) == 1


def test_what_is_no_example_is_named(meta):
    # Bytes that are no text are in the message of TensorFlow, too.
    for content in ("garbage", b"\xff\xfe"):
        with pytest.raises(SignatureError, match=r"'parse'.*\n.*Could not parse exam"):
            meta.signatures["parse"]([content])


def test_values_that_the_graph_refuses(meta):
    with pytest.raises(SignatureError, match="'shapes' failed"):
        meta.signatures["shapes"]([[1.0, 2.0]])


def test_no_inputs(meta):
    assert meta.signatures["none"]()["weights"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_callable_of_any_signature(meta):
    name = meta.signatures["serving_default"].signature_def.outputs["y"].name
    definition = signature_def("x:0", "hidden", name)
    made = meta.callable(definition)
    assert made(x=[[1.0, 1.0]])["hidden"].tolist() == [[4.0, 6.0]]
    unknown = meta.callable(signature_def("x:0", "hidden", "nowhere:0"))
    with pytest.raises(SignatureError, match="no tensor 'nowhere:0'"):
        unknown(x=[[1.0, 1.0]])


def signature_def(given, key, name):
    result = tf.compat.v1.saved_model.build_signature_def(method_name="mine")
    result.inputs["x"].name = given
    result.outputs[key].name = name
    return result


def test_follows_the_weights_of_the_model(tmp_path):
    save(tmp_path / "model", many)
    model = load_from_meta_graph(tmp_path / "model")
    model.get_layer("graph").assign({"weights": np.eye(2)})
    y = model.meta_graph.signatures["serving_default"]([[1.0, 2.0]])["y"]
    assert y.tolist() == [[1.0, 2.0]]


# --------------------------------------------------------------------------
# Training and evaluation


def supervised():
    x = v1.placeholder(tf.float32, [None, 1], "x")
    y = v1.placeholder(tf.float32, [None, 1], "y")
    weight = v1.get_variable("weight", initializer=[[0.0]])
    predicted = x @ weight
    loss = tf.reduce_mean((predicted - y) ** 2)
    value, update = v1.metrics.mean_absolute_error(y, predicted)
    train = v1.train.GradientDescentOptimizer(0.25).minimize(
        loss, v1.train.get_or_create_global_step()
    )
    v1.add_to_collection("saved_model_train_op", train)
    metric = {"metrics/error/value": value, "metrics/error/update_op": update}
    method = "tensorflow/supervised/"
    return {
        "train": signature(
            {"x": x, "y": y}, {"loss": loss, **metric}, f"{method}training"
        ),
        "eval": signature({"x": x, "y": y}, {"loss": loss, **metric}, f"{method}eval"),
    }


@pytest.fixture
def trained(tmp_path):
    save(tmp_path / "model", supervised, tags=["train"])
    return load_from_meta_graph(tmp_path / "model", tags=["train"]).meta_graph


STEP = {"x": [[1.0]], "y": [[2.0]]}


def test_train_runs_a_step(trained):
    # w goes 0, 1, 1.5: half of the way to 2 at each step.
    losses = [trained.signatures["train"](STEP)["loss"] for _ in range(3)]
    assert losses == [4.0, 1.0, 0.25]
    assert trained.variables["weight"].numpy().item() == 1.75
    assert trained.global_step.numpy() == 3


def test_eval_gives_value_and_update_and_trains_nothing(trained):
    first = trained.signatures["eval"](STEP)
    assert first["metrics/error/value"] == 0.0
    assert first["metrics/error/update_op"] == 2.0
    second = trained.signatures["eval"](x=[[0.0]], y=[[1.0]])
    assert second["metrics/error/value"] == 2.0  # what was measured before
    assert second["metrics/error/update_op"] == 1.5
    assert trained.variables["weight"].numpy().item() == 0.0


# --------------------------------------------------------------------------
# What a SavedModel of TensorFlow 2 adds


def table(path, folder):
    """A module whose table is made of a file; returns its SavedModel proto."""
    words = folder / "words.txt"
    words.write_text("cat\ndog\n")
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(words),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        -1,
    )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "word")])
    def call(word):
        return {"id": module.table.lookup(word)}

    tf.saved_model.save(module, str(path), signatures=call)
    return SavedModel.FromString((path / "saved_model.pb").read_bytes())


def rewrite(path, proto, filename):
    for asset in proto.meta_graphs[0].asset_file_def:
        asset.filename = filename
    (path / "saved_model.pb").write_bytes(proto.SerializeToString())


def find(path):
    model = load_from_meta_graph(path)
    return model.meta_graph.signatures["serving_default"](["dog", "cow"])["id"].tolist()


def test_reserved_names_are_left_out(tmp_path):
    proto = table(tmp_path / "export", tmp_path)
    assert "__saved_model_init_op" in proto.meta_graphs[0].signature_def
    model = load_from_meta_graph(tmp_path / "export")
    assert list(model.meta_graph.signatures) == ["serving_default"]


def test_asset_is_read_from_inside(tmp_path):
    table(tmp_path / "export", tmp_path)
    (tmp_path / "words.txt").unlink()  # the path that the graph has in it
    assert find(tmp_path / "export") == [1, -1]


@pytest.mark.parametrize("kind", ["parent", "absolute", "link", "linked directory"])
def test_asset_outside_is_refused(tmp_path, kind):
    path = tmp_path / "export"
    proto = table(path, tmp_path)
    secret = tmp_path / "secret.txt"
    secret.write_text("dog\ncow\n")
    if kind == "parent":
        rewrite(path, proto, "../../secret.txt")
    elif kind == "absolute":
        rewrite(path, proto, str(secret))
    elif kind == "link":
        (path / "assets" / "words.txt").unlink()
        (path / "assets" / "words.txt").symlink_to(secret)
    else:
        (path / "assets").rename(tmp_path / "elsewhere")
        (path / "assets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((UntrustedContentError, FormatError)) as caught:
        find(path)
    expected = FormatError if kind == "linked directory" else UntrustedContentError
    assert isinstance(caught.value, expected)


def test_table_of_a_file_that_is_no_asset_is_refused(tmp_path):
    path = tmp_path / "export"
    proto = table(path, tmp_path)
    del proto.meta_graphs[0].asset_file_def[:]
    (path / "saved_model.pb").write_bytes(proto.SerializeToString())
    with pytest.raises(UntrustedContentError):
        find(path)


def test_functions_are_signatures_where_there_are_none(tmp_path):
    module = tf.Module()
    module.weight = tf.Variable([2.0, 3.0])
    module.table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(["cat", "dog"], [1, 2]), 0
    )

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x")])
    def call(x):
        return {"sum": tf.reduce_sum(x * module.weight, 1), "double": 2.0 * x}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def other(x):  # TensorFlow makes a signature of a function that is the only one
        return x + 1.0

    @tf.function
    def find(word):
        return module.table.lookup(word), tf.strings.length(word)

    find.get_concrete_function(tf.TensorSpec([None], tf.string))
    find.get_concrete_function(tf.TensorSpec([], tf.string))
    module.call, module.find, module.other = call, find, other
    tf.saved_model.save(module, str(tmp_path / "export"))
    model = load_from_meta_graph(tmp_path / "export")
    signatures = model.meta_graph.signatures
    assert sorted(signatures) == ["call", "find", "find_1", "other"]
    expected = {"sum": [8.0], "double": [[2.0, 4.0]]}
    outputs = signatures["call"]([[1.0, 2.0]])
    assert {key: value.tolist() for key, value in outputs.items()} == expected
    found = signatures["find"](["dog", "horse"])
    assert {key: value.tolist() for key, value in found.items()} == {
        "output_0": [2, 0],
        "output_1": [3, 5],
    }
    assert signatures["find_1"]("cat")["output_0"] == 1
    assert [weight.name for weight in model.trainable_weights] == ["Variable"]


def test_tables_that_lie_in_functions(tmp_path):
    """What TensorFlow 2 makes of a TensorFlow 1 module when it saves it again."""
    words = tmp_path / "words.txt"
    words.write_text("cat\ndog\n")

    def build():
        given = v1.placeholder(tf.string, [None], "word")
        initializer = tf.lookup.TextFileInitializer(
            str(words),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        found = v1.lookup.StaticHashTable(initializer, -1).lookup(given)
        return signature({"word": given}, {"id": found})

    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        definition = build()
        builder = v1.saved_model.Builder(str(tmp_path / "first"))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": definition},
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()
    module = tf.Module()
    module.inner = tf.saved_model.load(str(tmp_path / "first"))
    for name in ("second", "third"):
        tf.saved_model.save(
            module, str(tmp_path / name), signatures=dict(module.inner.signatures)
        )
    words.unlink()
    lines = tmp_path / "third" / "assets" / "words.txt"
    lines.write_text("horse\ncow\ndog\n")
    # Both have tables of the same name, and contents of their own.
    # So do the layers of the models and their signatures, in whichever order.
    for _ in range(2):
        load_from_meta_graph(tmp_path / "second")
        assert find(tmp_path / "second") == [1, -1]
        assert find(tmp_path / "third") == [2, 1]
    assert find(tmp_path / "second") == [1, -1]
