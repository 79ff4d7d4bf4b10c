"""The parser of examples follows from specs, or from what the user gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.errors import SignatureError
from keras_metagraph.signatures import EncodedImage
from keras_metagraph.signatures.examples import fit, make_parser
from oracle.tf_examples import example

FLOATS = tf.TensorSpec([None, 2], tf.float32)
TEXTS = tf.TensorSpec([None, 1], tf.string)


def parsed(specs, given, *examples):
    serialized = tf.constant([example(**each) for each in examples], tf.string)
    return make_parser("f", specs, given)(serialized)


@pytest.mark.parametrize(
    ("spec", "feature"),
    [
        (FLOATS, tf.io.FixedLenFeature([2], tf.float32)),
        (tf.TensorSpec([None], tf.string), tf.io.FixedLenFeature([], tf.string)),
        (tf.TensorSpec([8, 3], tf.uint16), tf.io.FixedLenFeature([3], tf.int64)),
        (tf.TensorSpec([None, 1], tf.bool), tf.io.FixedLenFeature([1], tf.int64)),
        (
            tf.TensorSpec([None, None, 4], tf.bfloat16),
            tf.io.FixedLenSequenceFeature([4], tf.float32, allow_missing=True),
        ),
        (tf.SparseTensorSpec([None, 9], tf.int32), tf.io.VarLenFeature(tf.int64)),
        (
            tf.RaggedTensorSpec([None, None], tf.string),
            tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int64),
        ),
        (
            tf.TensorSpec([None, 8, 8, 3], tf.uint8),
            tf.io.FixedLenFeature([], tf.string),
        ),
    ],
)
def test_features_follow_from_specs(spec, feature):
    assert make_parser("f", {"x": spec}).features == {"x": feature}


def test_all_inputs_without_a_feature_are_listed():
    specs = {
        "scalar": tf.TensorSpec([], tf.float32),
        "complex": tf.TensorSpec([None], tf.complex64),
        "open": tf.TensorSpec([None, None, None], tf.float32),
        "any": tf.TensorSpec(None, tf.float32),
        "sparse": tf.SparseTensorSpec([None, 2, 2], tf.float32),
        "ragged": tf.RaggedTensorSpec([None, None, None], tf.int64, ragged_rank=2),
        "good": FLOATS,
    }
    with pytest.raises(SignatureError) as info:
        make_parser("f", specs, {"god": tf.io.VarLenFeature(tf.int64)})

    findings = "\n".join(info.value.findings)
    assert "there is no input 'god'; nearest: good" in findings
    for name in specs.keys() - {"good"}:
        assert f"input {name!r}" in findings
    assert len(info.value.findings) == len(specs)


def test_given_features_win():
    specs = {"x": FLOATS, "t": TEXTS, "s": tf.SparseTensorSpec([None, 4], tf.float32)}
    given = {
        "x": tf.io.FixedLenFeature([2], tf.float32, default_value=[7.0, 8.0]),
        "t": tf.io.FixedLenFeature([], tf.string, default_value="none"),
        "s": tf.io.SparseFeature("at", "value", tf.float32, size=4),
    }

    values = parsed(specs, given, {"at": [3], "value": [0.5]}, {"x": [1.0, 2.0]})

    assert values["x"].numpy().tolist() == [[7, 8], [1, 2]]
    assert values["t"].numpy().tolist() == [[b"none"], [b"none"]]
    dense = tf.sparse.to_dense(values["s"]).numpy().tolist()
    assert dense == [[0, 0, 0, 0.5], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    "spec",
    [
        tf.TensorSpec([None, None], tf.int32),
        tf.SparseTensorSpec([None, 3], tf.int32),
        tf.SparseTensorSpec([None, None], tf.int32),
        tf.RaggedTensorSpec([None, None], tf.int32),
    ],
)
def test_any_form_fits_any_spec(spec):
    ragged = tf.ragged.constant([[1, 2, 3], [4]], tf.int64)
    for value in (ragged, ragged.to_sparse(), ragged.to_tensor()):
        found = fit(value, spec)
        assert spec.is_compatible_with(found)
        if isinstance(found, tf.SparseTensor):
            found = tf.sparse.to_dense(found)
        elif isinstance(found, tf.RaggedTensor):
            found = found.to_tensor()
        assert found.numpy().tolist() == [[1, 2, 3], [4, 0, 0]]


def test_preprocessing_layers():
    text = layers.TextVectorization(vocabulary=["red", "car"], output_sequence_length=3)
    normalize = layers.Normalization(mean=1.0, variance=4.0)
    kind = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    rank = layers.IntegerLookup(vocabulary=[5, 6])
    specs = {
        "text": tf.TensorSpec([None, 3], tf.int64),
        "size": FLOATS,
        "kind": tf.TensorSpec([None, 3], tf.float32),
        "rank": tf.TensorSpec([None, 2], tf.int32),
    }
    given = {"text": text, "size": normalize, "kind": kind, "rank": rank}

    values = parsed(
        specs,
        given,
        {"text": "red big car", "size": [3.0, 5.0], "kind": "b", "rank": [6, 5]},
    )

    assert {key: value.numpy().tolist() for key, value in values.items()} == {
        "text": [[2, 1, 3]],
        "size": [[1, 2]],
        "kind": [[0, 0, 1]],
        "rank": [[2, 1]],
    }


def test_the_feature_of_the_only_input_may_have_another_name():
    feature = tf.io.FixedLenFeature([2], tf.int64)
    values = parsed({"input_layer": FLOATS}, {"x": feature}, {"x": [1, 2]})
    assert values["input_layer"].numpy().tolist() == [[1, 2]]


def test_a_function_that_parses():
    def parse(serialized):
        return tf.io.parse_example(
            serialized, {"a": tf.io.FixedLenFeature([2], tf.int64)}
        )

    assert parsed({"a": FLOATS}, parse, {"a": [1, 2]})["a"].dtype == tf.float32
    alone = parsed({"x": FLOATS}, lambda s: parse(s)["a"], {"a": [1, 2]})
    assert alone["x"].numpy().tolist() == [[1, 2]]
    with pytest.raises(SignatureError, match="input 'b' is missing"):
        parsed({"a": FLOATS, "b": FLOATS}, parse, {"a": [1, 2]})
    with pytest.raises(SignatureError, match="none of what it may be"):
        make_parser("f", {"a": FLOATS}, 3)


def test_a_function_that_takes_serialized_examples():
    def ask(serialized):
        return tf.strings.length(serialized)

    texts = tf.TensorSpec([None], tf.string)
    signature = kmg.regress_signature(ask, texts, examples=False)
    assert signature([b"abc", b""])["outputs"].tolist() == [3, 0]
    with pytest.raises(SignatureError, match="does not take serialized examples"):
        kmg.regress_signature(lambda x: x[:, 0], {"x": FLOATS}, examples=False)


def test_images():
    spec = tf.TensorSpec([None, None, None, 1], tf.float32)
    pixels = np.arange(12, dtype="uint8").reshape(2, 6, 1)
    png, bmp_like = tf.io.encode_png(pixels), tf.io.encode_png(pixels[::-1])
    given = {"x": EncodedImage(default=png.numpy(), scale=0.5)}

    values = parsed({"x": spec}, given, {"x": bmp_like.numpy()}, {})

    assert values["x"].shape[1:] == [2, 6, 1]
    np.testing.assert_array_equal(values["x"][1], pixels / 2)
    np.testing.assert_array_equal(values["x"][0], pixels[::-1] / 2)
    small = EncodedImage(size=(1, 3))
    whole = {"x": tf.TensorSpec([None, 1, 3, 1], tf.uint8)}
    resized = parsed(whole, {"x": small}, {"x": png.numpy()})["x"]
    expected = tf.round(tf.image.resize(pixels.astype("float32"), (1, 3)))
    np.testing.assert_array_equal(resized[0], tf.cast(expected, tf.uint8))
    with pytest.raises(tf.errors.InvalidArgumentError):
        parsed(whole, None, {"x": png.numpy()})


def test_a_feature_space_that_is_not_adapted():
    space = keras.utils.FeatureSpace({"a": "float_normalized"})
    with pytest.raises(SignatureError, match="adapt"):
        make_parser("f", {"x": FLOATS}, space)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Keras's, of names in dicts
@pytest.mark.parametrize("mode", ["dict", "concat"])
def test_a_feature_space_encodes_for_models_that_take_it_encoded(mode):
    space = keras.utils.FeatureSpace(
        {"a": "float_normalized", "b": "float_rescaled"}, output_mode=mode
    )
    columns = {"a": tf.constant([[1.0], [3.0]]), "b": tf.constant([[2.0], [4.0]])}
    space.adapt(tf.data.Dataset.from_tensor_slices(columns).batch(2))
    encoded = space.get_encoded_features()
    flat = tf.nest.flatten(encoded)
    both = layers.Concatenate()(flat) if mode == "dict" else encoded
    model = keras.Model(encoded, layers.Dense(1)(both))
    raw = space.get_inputs()
    whole = keras.Model(raw, model(encoded))
    serialized = [example(a=[1.0], b=[2.0]), example(a=[3.0], b=[4.0])]

    for each, x in ((model, space(columns)), (whole, columns)):
        signature = kmg.regress_signature(each, examples=space)
        found = signature(serialized)["outputs"]
        np.testing.assert_allclose(found, each(x), rtol=1e-6)

    other = tf.TensorSpec([None, 9], tf.float32)
    with pytest.raises(SignatureError, match="'f' takes neither"):
        make_parser("f", {"x": other}, space)


def test_all_wrong_examples_are_explained():
    specs = {
        "x": FLOATS,
        "t": TEXTS,
        "many": tf.TensorSpec([None, None, 2], tf.int64),
    }

    def total(x, t, many):
        return x[:, 0] + tf.cast(tf.size(t) + tf.size(many), tf.float32)

    signature = kmg.regress_signature(total, specs)
    good = {"x": [1.0, 2.0], "t": "a"}
    wrong = [
        good,
        {"x": [1, 2], "t": "a"},
        {"x": [1.0], "t": "a"},
        {"t": 3},
        {"x": [1.0], "t": "a", "many": [1, 2, 3]},
    ]
    serialized = [example(**each) for each in wrong] + [b"\xff\xff"]

    with pytest.raises(SignatureError) as info:
        signature(serialized)

    assert "'total' failed on its input 'inputs'" in str(info.value)
    assert set(info.value.findings) == {
        "feature 'x' is a int64_list, expected a float_list: example 1",
        "feature 'x' has 1 values, expected 2: example 2, 4",
        "feature 'x' (float32) is missing: example 3",
        "feature 't' is a int64_list, expected a bytes_list: example 3",
        "feature 'many' has 3 values, expected a multiple of 2: example 4",
        "not a serialized tf.Example: example 5",
    }
    with pytest.raises(SignatureError, match="example 0, 1, 2, 3, 4 and 995 more"):
        signature([example(x=[1.0], t="a")] * 1000)


@pytest.mark.parametrize("form", [tf.io.VarLenFeature, tf.io.RaggedFeature])
@pytest.mark.parametrize("dims", [[3], [3, 1]])
def test_short_rows_are_filled_up_and_long_ones_refused(form, dims):
    signature = kmg.predict_signature(
        lambda x: x,
        tf.TensorSpec([None, *dims], tf.float32, name="x"),
        examples={"x": form(tf.float32)},
    )

    found = signature([example(x=[1.0, 2.0]), example(), example(x=[5.0] * 3)])

    assert found["output"].reshape(3, 3).tolist() == [[1, 2, 0], [0] * 3, [5] * 3]
    # Four and two values are as many as two rows have.
    with pytest.raises(SignatureError, match="out of bounds"):
        signature([example(x=[1.0] * 4), example(x=[1.0] * 2)])


def test_features_that_do_not_fit_are_listed():
    specs = {
        "a": tf.TensorSpec([None, 3], tf.float32),
        "b": tf.TensorSpec([None, 2], tf.float32),
        "c": tf.TensorSpec([None, 2], tf.float32),
    }
    given = {
        "a": tf.io.FixedLenFeature([4], tf.float32),
        "b": tf.io.FixedLenFeature([2], tf.string),
        "c": tf.TensorSpec([2], tf.float32),
    }
    with pytest.raises(SignatureError, match="'f' are not known") as info:
        make_parser("f", specs, given)

    assert [finding.split(",")[0] for finding in info.value.findings] == [
        "input 'a' takes [3] an example",
        "input 'b' has dtype float32",
        "input 'c' is given TensorSpec(shape=(2",
    ]


def test_layers_of_layers_and_unbuilt_ones():
    lookup = layers.StringLookup(vocabulary=["a", "b"])
    encode = layers.CategoryEncoding(3, output_mode="one_hot")
    chain = keras.Sequential([lookup, encode])
    specs = {
        "chain": tf.TensorSpec([None, 3], tf.float32),
        "model": tf.TensorSpec([None, 3], tf.float32),
        "norm": tf.TensorSpec([None, 2], tf.float32),
        "scale": tf.TensorSpec([None, 2], tf.float32),
    }
    given = {
        "chain": chain,
        "model": keras.Sequential([keras.Input((1,), dtype="string"), *chain.layers]),
        "norm": layers.Normalization(mean=1.0, variance=4.0),
        "scale": layers.Rescaling(0.5),
    }
    record = {"chain": "b", "model": "a", "norm": [3.0, 1.0], "scale": [3.0, 1.0]}

    # A layer that is built in one graph cannot be used in the next.
    for _ in range(2):
        signature = kmg.predict_signature(lambda x: x, [specs], examples=given)
        signature.to_graph()
        found = signature([example(**record)])

    assert {key: value.tolist() for key, value in found.items()} == {
        "chain": [[0, 0, 1]],
        "model": [[0, 1, 0]],
        "norm": [[1, 0]],
        "scale": [[1.5, 0.5]],
    }


def test_layers_that_do_not_fit_are_listed():
    specs = {key: tf.TensorSpec([None, 3], tf.float32) for key in ("wide", "dense")}
    given = {
        "wide": layers.StringLookup(vocabulary=["a"], output_mode="one_hot"),
        "dense": layers.Dense(3),
    }
    with pytest.raises(SignatureError, match="'f' are not known") as info:
        make_parser("f", specs, given)

    wide, dense = info.value.findings
    assert wide == "input 'wide' takes (3,) an example, and 'string_lookup' gives (2,)"
    assert dense.startswith("input 'dense' is given <Dense ")


def test_a_layer_for_the_only_input():
    model = keras.Sequential([keras.Input((2,), name="x"), layers.Dense(1)])
    signature = kmg.regress_signature(model, examples=layers.Rescaling(0.5))
    found = signature([example(x=[2.0, 4.0])])["outputs"]
    np.testing.assert_allclose(found, model(np.array([[1.0, 2.0]])), rtol=1e-6)


def test_wrong_images_are_explained():
    model = keras.Sequential(
        [keras.Input((4, 4, 3), dtype="uint8", name="photo"), layers.Flatten()]
    )
    signature = kmg.predict_signature(model, examples=True)
    small = tf.io.encode_png(np.zeros((2, 4, 3), "uint8")).numpy()
    photos = [tf.io.encode_png(np.zeros((4, 4, 3), "uint8")).numpy(), small, b"text"]

    with pytest.raises(SignatureError, match="failed on its input 'examples'") as info:
        signature([example(photo=photo) for photo in photos])

    assert info.value.findings == (
        "feature 'photo' is an image of the size (2, 4), expected (4, 4): example 1",
        "feature 'photo' is no image of a kind that is read: example 2",
    )
    _, graph_def = signature.to_graph("serve")
    assert any(node.name.startswith("serve/photo/") for node in graph_def.node)
