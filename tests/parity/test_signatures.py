"""Real TensorFlow 1.15 serves the signatures: Keras's own predictions, on examples."""

import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.signatures import EncodedImage
from oracle.tf_examples import example, split

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
LABELS = ["red", "green", "blue"]


def classifier(units, activation, inputs=None, **arguments):
    """A model on numbers and a word."""
    number = keras.Input((3,), name="number")
    word = keras.Input((1,), dtype="string", name="word")
    lookup = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    both = layers.Concatenate()([number, lookup(word)])
    head = layers.Dense(units, activation=activation, name="head", **arguments)
    return keras.Model([number, word], head(both))


def drawn(count, seed=0):
    """Serialized examples, and the same as Keras takes it."""
    rng = np.random.default_rng(seed)
    number = rng.normal(size=(count, 3)).astype("float32")
    word = rng.choice(["a", "b", "c"], (count, 1)).astype(object)
    serialized = [
        example(number=n, word=w[0]) for n, w in zip(number, word, strict=True)
    ]
    return serialized, [tf.constant(number), tf.constant(word, tf.string)]


def served(tf115, tmp_path, model, signatures, serialized):
    prefix = kmg.save_meta_graph(model, tmp_path / "model", signatures=signatures)
    settings = {"checkpoint": prefix, "signatures": list(signatures)}
    return tf115("serve", split(serialized), settings)


def assert_same(found, key, expected):
    """Whether 1.15 and the call in this process give what is expected."""
    for name, values in expected.items():
        there = found[f"{key}/{name}"]
        if there.dtype.kind == "S":
            assert there.tolist() == np.asarray(values).astype("S").tolist()
        else:
            np.testing.assert_allclose(there, values, **CLOSE)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_the_quartet_of_an_estimator(count, tf115, tmp_path):
    model = classifier(1, "sigmoid")
    serialized, x = drawn(count)
    classify = kmg.classify_signature(model, labels=["no", "yes"])
    signatures = {
        "serving_default": classify,
        "classification": classify,
        "regression": kmg.regress_signature(model),
        "predict": kmg.predict_signature(model, examples=True),
    }

    found = served(tf115, tmp_path, model, signatures, serialized)

    p = model(x).numpy()
    expected = {
        "classes": np.tile([["no", "yes"]], [count, 1]),
        "scores": np.concatenate([1 - p, p], axis=1),
    }
    assert found["classification/scores"].shape == (count, 2)
    for key, outputs in {
        "serving_default": expected,
        "classification": expected,
        "regression": {"outputs": p},
        "predict": {"head": p},
    }.items():
        assert_same(found, key, outputs)
        here = signatures[key](serialized)
        for name, values in here.items():
            assert values.shape == found[f"{key}/{name}"].shape
        assert_same(found, key, here)


def test_kinds_of_heads(tf115, tmp_path):
    serialized, x = drawn(5)
    lookup = layers.StringLookup(vocabulary=LABELS, num_oov_indices=0)
    with_unknown = layers.StringLookup(vocabulary=LABELS[:2])
    logits = classifier(3, None)
    probabilities = keras.ops.softmax(logits(x)).numpy()
    independent = keras.ops.sigmoid(logits(x)).numpy()
    half = keras.Model(
        logits.inputs, layers.Activation("softmax", dtype="float16")(logits.output)
    )
    multi = keras.Model(logits.inputs, logits.outputs)
    multi.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    best = np.argsort(-probabilities, axis=1)[:, :2]
    names = np.asarray(LABELS)
    ids = np.tile([["0", "1", "2"]], [5, 1])
    heads = {
        "logits": (
            kmg.classify_signature(logits, labels=lookup),
            {"classes": np.tile(names, [5, 1]), "scores": probabilities},
        ),
        "probabilities": (
            kmg.classify_signature(logits, from_logits=False),
            {"classes": ids, "scores": logits(x).numpy()},
        ),
        "ids": (
            kmg.classify_signature(logits, outputs=["classes"]),
            {"classes": ids},
        ),
        "best": (
            kmg.classify_signature(logits, labels=LABELS, top_k=2),
            {
                "classes": names[best],
                "scores": np.take_along_axis(probabilities, best, axis=1),
            },
        ),
        "unknown": (
            kmg.classify_signature(logits, labels=with_unknown),
            {"classes": np.tile([["[UNK]", "red", "green"]], [5, 1])},
        ),
        "several": (
            kmg.classify_signature(multi),
            {"classes": ids, "scores": independent},
        ),
        "vector": (
            kmg.classify_signature(
                lambda number: tf.sigmoid(number[:, 0]),
                {"number": tf.TensorSpec([None, 3])},
            ),
            {
                "classes": np.tile([["0", "1"]], [5, 1]),
                "scores": tf.sigmoid(tf.stack([-x[0][:, 0], x[0][:, 0]], 1)).numpy(),
            },
        ),
        "regress": (
            kmg.regress_signature(
                lambda number: tf.cast(tf.reduce_sum(number, 1), tf.float64),
                {"number": tf.TensorSpec([None, 3])},
            ),
            {"outputs": x[0].numpy().sum(axis=1)},
        ),
    }
    signatures = {key: signature for key, (signature, _) in heads.items()}

    found = served(tf115, tmp_path, logits, signatures, serialized)

    for key, (signature, expected) in heads.items():
        assert_same(found, key, expected)
        assert_same(found, key, signature(serialized))
    sixteen = kmg.classify_signature(half)(serialized)["scores"]
    assert sixteen.dtype == np.float32
    np.testing.assert_allclose(sixteen, probabilities, atol=1e-3)


INPUTS = {
    "floats": ((2, 2), "float32"),
    "half": ((2,), "float16"),
    "double": ((), "float64"),
    "byte": ((2,), "int8"),
    "short": ((), "uint16"),
    "flag": ((1,), "bool"),
    "ids": ((None,), "int32"),
    "words": ((None,), "string"),
    "pairs": ((None, 2), "float32"),
    "image": ((4, 4, 3), "uint8"),
}


def many_inputs():
    """A model of inputs of every kind; its outputs are sums over each."""
    taken = {
        name: keras.Input(shape, dtype=dtype, name=name)
        for name, (shape, dtype) in INPUTS.items()
    }
    taken["sparse"] = keras.Input((5,), sparse=True, name="sparse")
    kernel = np.arange(5, dtype="float32")[:, None]
    dense = layers.Dense(1, use_bias=False, name="of_sparse")
    given = {"sparse": dense(taken["sparse"])}
    dense.set_weights([kernel])
    lookup = layers.StringLookup(vocabulary=["a", "b"], mask_token="")
    for name, tensor in taken.items():
        if name == "words":
            tensor = lookup(tensor)
        if name != "sparse":
            given[name] = Total(name=f"total_{name}")(tensor)
    return keras.Model(taken, given)


class Total(layers.Layer):
    """The weighted sum of all that an example has."""

    def call(self, x):
        x = tf.cast(x, tf.float32)
        flat = tf.reshape(
            x,
            [tf.shape(x)[0], -1 if None in x.shape[1:] else int(np.prod(x.shape[1:]))],
        )
        weights = tf.cast(tf.range(tf.shape(flat)[1]) + 1, tf.float32)
        return tf.reduce_sum(flat * weights, axis=1)

    def compute_output_shape(self, shape):
        return shape[:1]


def row(seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (4, 4, 3)).astype("uint8")
    encode = tf.io.encode_png if seed % 2 else tf.io.encode_jpeg
    return {
        "floats": rng.random(4),
        "half": [0.5, 1.5],
        "double": rng.random(1),
        "byte": rng.integers(-9, 9, 2).tolist(),
        "short": [int(rng.integers(60000))],
        "flag": [seed % 2],
        "ids": rng.integers(0, 9, seed % 4).tolist() or [3],
        "words": ["a", "b", "?"][: 1 + seed % 3],
        "pairs": rng.random(2 * (seed % 3)),
        "sparse": rng.random(seed % 5),
        "image": encode(pixels).numpy(),
    }


def padded(rows, name, shape, dtype):
    values = [np.asarray(row[name]).reshape([-1, *shape[1:]]) for row in rows]
    width = max(len(value) for value in values)
    filler = "" if dtype == "string" else 0
    full = np.full([len(rows), width, *shape[1:]], filler, object)
    for place, value in enumerate(values):
        full[place, : len(value)] = value
    return full


def batch(rows):
    """What Keras takes for the rows."""
    x = {}
    for name, (shape, dtype) in INPUTS.items():
        if name == "image":
            decoded = [
                tf.io.decode_image(r[name], expand_animations=False) for r in rows
            ]
            x[name] = tf.stack(decoded)
        elif None in shape:
            full = padded(rows, name, shape, dtype)
            x[name] = tf.constant(full.tolist(), dtype)
        else:
            values = np.asarray([np.reshape(r[name], shape) for r in rows])
            x[name] = tf.constant(values.astype(dtype))
    sparse = padded(rows, "sparse", (5,), "float32").astype("float32")
    sparse = np.pad(sparse, [(0, 0), (0, 5 - sparse.shape[1])])
    x["sparse"] = tf.sparse.from_dense(sparse)
    return x


def test_examples_for_every_kind_of_input(tf115, tmp_path):
    model = many_inputs()
    rows = [row(seed) for seed in range(7)]
    serialized = [example(**each) for each in rows]
    signature = kmg.predict_signature(model, examples=True)

    found = served(tf115, tmp_path, model, {"p": signature}, serialized)

    expected = {key: value.numpy() for key, value in model(batch(rows)).items()}
    assert set(expected) == {*INPUTS, "sparse"}
    assert_same(found, "p", expected)
    assert_same(found, "p", signature(serialized))


def test_the_last_of_two_features_counts(tf115, tmp_path):
    model = classifier(1, None)
    (first,), _ = drawn(1, seed=1)
    (last,), x = drawn(1, seed=2)
    signature = kmg.regress_signature(model)

    found = served(tf115, tmp_path, model, {"r": signature}, [first + last])

    assert_same(found, "r", {"outputs": model(x)})
    assert_same(found, "r", signature([first + last]))


def test_wrong_examples_are_refused_by_the_feature(tf115, tmp_path):
    model = classifier(1, None)
    signatures = {"r": kmg.regress_signature(model)}
    cases = {
        "number": [example(word="a")],
        "word": [example(number=[1.0, 2.0, 3.0], word=3)],
    }
    for name, serialized in cases.items():
        found = served(tf115, tmp_path / name, model, signatures, serialized)
        assert name in bytes(found["refused/r"]).decode()
        with pytest.raises(kmg.errors.SignatureError, match=f"feature '{name}'"):
            signatures["r"](serialized)


class Ranker(keras.Model):
    """Endpoints of its own, with nested, ragged and string tensors."""

    def __init__(self):
        super().__init__(name="ranker")
        self.embed = layers.Embedding(10, 3)
        self.score = layers.Dense(1)

    def call(self, ids):
        return self.score(self.embed(ids))[..., 0]

    @kmg.signature(
        {
            "query": {
                "ids": tf.TensorSpec([None], tf.int64),
                "who": tf.TensorSpec([], tf.string),
            }
        }
    )
    def rank(self, query):
        scores = self(query["ids"])
        return {
            "best": tf.argmax(scores),
            "scores": [scores, tf.nn.softmax(scores)],
            "greeting": tf.strings.join(["hello ", query["who"]]),
        }

    @kmg.signature(
        tf.RaggedTensorSpec([None, None], tf.int64), name="lists", examples=True
    )
    def rank_lists(self, ids):
        return tf.reduce_max(ids.with_values(self(ids.values)), axis=1)

    @kmg.signature(
        tf.TensorSpec([None, 1], tf.int64, name="id"), method="regress", name="one"
    )
    def rate(self, ids):
        return self(ids)


def test_methods_are_endpoints(tf115, tmp_path):
    model = Ranker()
    model(np.zeros((1, 2), "int64"))
    lists = [[1, 2, 3], [4], [5, 6]]
    serialized = [example(ids=each, id=[each[0]]) for each in lists]
    prefix = kmg.save_meta_graph(model, tmp_path / "model")
    settings = {"checkpoint": prefix, "signatures": ["lists", "one"]}

    found = tf115("serve", split(serialized), settings)

    scores = model(tf.range(10, dtype=tf.int64)).numpy()
    assert_same(found, "lists", {"output": [scores[each].max() for each in lists]})
    assert_same(found, "one", {"outputs": scores[[[1], [4], [5]]]})
    script = """
        import tensorflow.compat.v1 as tf

        def main(arrays, args):
            with tf.Graph().as_default() as graph, tf.Session() as session:
                saver = tf.train.import_meta_graph(args["prefix"] + ".meta")
                saver.restore(session, args["prefix"])
                return session.run(
                    args["outputs"],
                    {args["inputs"]["ids"]: arrays["ids"],
                     args["inputs"]["who"]: b"Ann"})
    """
    meta_graph_def = tf.compat.v1.MetaGraphDef.FromString(
        (tmp_path / "model.meta").read_bytes()
    )
    rank = meta_graph_def.signature_def["rank"]
    names = {
        side: {key: info.name for key, info in getattr(rank, side).items()}
        for side in ("inputs", "outputs")
    }
    found = tf115(textwrap.dedent(script), {"ids": [7, 8]}, {"prefix": prefix, **names})
    assert found["greeting"] == b"hello Ann"
    np.testing.assert_allclose(found["scores_0"], scores[[7, 8]], **CLOSE)
    np.testing.assert_allclose(found["scores_1"].sum(), 1.0, **CLOSE)
    assert found["best"] == scores[[7, 8]].argmax()


def test_images_are_resized_when_asked(tf115, tmp_path):
    image = keras.Input((6, 5, 3), name="image")
    model = keras.Model(image, layers.Dense(1)(layers.Flatten()(image)))
    pixels = np.random.default_rng(0).integers(0, 255, (2, 12, 10, 3)).astype("uint8")
    serialized = [example(image=tf.io.encode_png(each).numpy()) for each in pixels]
    wanted = EncodedImage(size=(6, 5), scale=1 / 255)
    signature = kmg.regress_signature(model, examples={"image": wanted})

    found = served(tf115, tmp_path, model, {"r": signature}, serialized)

    x = tf.image.resize(pixels.astype("float32"), (6, 5)) / 255
    assert_same(found, "r", {"outputs": model(x)})
    assert_same(found, "r", signature(serialized))


def test_images_of_any_format_are_decoded(tf115, tmp_path):
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    pixels = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3)).astype("uint8")
    encoders = (tf.io.encode_png, tf.io.encode_jpeg)
    files = [
        encode(each).numpy() for encode, each in zip(encoders, pixels, strict=True)
    ]

    def decode(image):
        pixels = tf.io.decode_image(image, channels=3, expand_animations=False)
        return tf.ensure_shape(pixels, [8, 8, 3])

    signature = kmg.predict_signature(
        lambda images: {
            "pixels": tf.map_fn(decode, images, fn_output_signature="uint8")
        },
        tf.TensorSpec([None], tf.string),
    )

    found = served(tf115, tmp_path, model, {"d": signature}, files)

    assert_same(found, "d", signature(files))
    np.testing.assert_array_equal(signature(files)["pixels"][0], pixels[0])


def test_raw_features_of_a_feature_space(tf115, tmp_path):
    space = keras.utils.FeatureSpace(
        {
            "age": keras.utils.FeatureSpace.float_normalized(),
            "color": keras.utils.FeatureSpace.string_categorical(num_oov_indices=1),
            "rank": keras.utils.FeatureSpace.integer_categorical(),
        },
        output_mode="concat",
    )
    raw = {"age": [20.0, 30.0, 60.0], "color": ["b", "a", "b"], "rank": [1, 2, 3]}
    columns = {key: tf.constant(values)[:, None] for key, values in raw.items()}
    space.adapt(tf.data.Dataset.from_tensor_slices(columns).batch(3))
    encoded = space.get_encoded_features()
    model = keras.Model(encoded, layers.Dense(2, activation="softmax")(encoded))
    whole = keras.Model(space.get_inputs(), model(encoded))
    signatures = {
        "encoded": kmg.classify_signature(model, examples=space),
        "raw": kmg.classify_signature(whole, examples=space),
    }
    serialized = [
        example(**{key: [values[place]] for key, values in raw.items()})
        for place in range(3)
    ]

    found = served(tf115, tmp_path, model, signatures, serialized)

    expected = {"scores": model(space(columns))}
    for key, signature in signatures.items():
        assert_same(found, key, expected)
        assert_same(found, key, signature(serialized))


def test_this_tensorflow_serves_the_same(tmp_path):
    model = classifier(3, "softmax")
    serialized, x = drawn(4)
    signatures = {
        "predict": kmg.predict_signature(model, examples=True),
        "classify": kmg.classify_signature(model, labels=LABELS, top_k=2),
    }
    prefix = kmg.save_meta_graph(model, tmp_path / "model", signatures=signatures)
    meta_graph_def = tf.compat.v1.MetaGraphDef.FromString(
        (tmp_path / "model.meta").read_bytes()
    )
    again = kmg.load_from_meta_graph(prefix)

    here = {key: signature(serialized) for key, signature in signatures.items()}
    loaded = {key: again.meta_graph.signatures[key](serialized) for key in signatures}

    found = {}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(meta_graph_def)
        saver.restore(session, prefix)
        session.run(tf.compat.v1.tables_initializer())
        for key in signatures:
            definition = meta_graph_def.signature_def[key]
            fetches = {k: info.name for k, info in definition.outputs.items()}
            (given,) = definition.inputs.values()
            found[key] = session.run(fetches, {given.name: serialized})

    np.testing.assert_allclose(here["predict"]["head"], model(x), **CLOSE)
    for key, outputs in here.items():
        for name, expected in outputs.items():
            for values in (found[key][name], loaded[key][name]):
                if values.dtype == object:
                    assert values.tolist() == expected.tolist()
                else:
                    np.testing.assert_allclose(values, expected, **CLOSE)
