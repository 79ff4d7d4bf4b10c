"""Rows follow the entries of a vocabulary as `tf.train.warm_start` moves them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.errors import ShapeMismatchError, SignatureError

v1 = tf.compat.v1
VocabInfo = v1.train.VocabInfo

OLD = ["a", "b", "c", "d"]
NEW = ["d", "new", "a", "newer", "b"]


@pytest.fixture
def files(tmp_path):
    """`files(old, new)`: the paths of two vocabularies."""

    def write(old=OLD, new=NEW):
        for name, words in (("old", old), ("new", new)):
            (tmp_path / name).write_text("".join(f"{word}\n" for word in words))
        return str(tmp_path / "old"), str(tmp_path / "new")

    return write


def info(files, size=5, oov=0, old_size=-1, initializer=None, axis=0):
    old, new = files
    return VocabInfo(new, size, oov, old, old_size, initializer, axis)


def embedding_model(rows=5, columns=2):
    model = keras.Sequential(
        [keras.Input((3,)), layers.Embedding(rows, columns, name="words")]
    )
    model.layers[0].embeddings.assign(np.full((rows, columns), 9.0))
    return model


def by_tensorflow(prefix, shape, vocab_info, parts=None):
    """The variable of `tf.train.warm_start`."""
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable(
            "words/embeddings",
            shape,
            partitioner=v1.fixed_size_partitioner(parts) if parts else None,
            use_resource=False,
        )
        v1.train.warm_start(
            prefix, var_name_to_vocab_info={"words/embeddings": vocab_info}
        )
        session.run(v1.global_variables_initializer())
        return session.run(tf.convert_to_tensor(variable))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"oov": 2},
        {"old_size": 2},
        {"size": 3},
        {"initializer": v1.ones_initializer(), "oov": 1},
        {"axis": 1},
        {"axis": 1, "oov": 2, "initializer": v1.ones_initializer()},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_rows_and_columns_are_those_of_tensorflow(settings, files, checkpoint):
    entries = settings.get("size", len(NEW)) + settings.get("oov", 0)
    old = np.arange(24.0, dtype="float32").reshape(4, 6)
    shape = (entries, 6)
    if settings.get("axis"):
        old, shape = old.T.copy(), (6, entries)
    prefix = checkpoint({"words/embeddings": old})
    vocab_info = info(files(), **settings)
    model = embedding_model(*shape)

    report = kmg.warm_start(
        model, prefix, vocabularies={"words/embeddings": vocab_info}
    )

    np.testing.assert_array_equal(
        model.weights[0].numpy(), by_tensorflow(prefix, shape, vocab_info)
    )
    unit = "columns" if settings.get("axis") else "rows"
    assert f"of {entries} {unit} from the old vocabulary" in report.matched[0].note


def test_vocabularies_as_lists_and_initializers_of_keras(checkpoint):
    old = np.arange(8.0, dtype="float32").reshape(4, 2)
    vocab_info = VocabInfo(
        NEW, 5, 1, OLD, backup_initializer=keras.initializers.Constant(7.0)
    )
    model = embedding_model(6)

    kmg.warm_start(
        model,
        checkpoint({"words/embeddings": old}),
        vocabularies={"words/embeddings": vocab_info},
    )

    new = [[7.0, 7.0]]
    expected = np.concatenate([old[3:], new, old[:1], new, old[1:2], new])
    np.testing.assert_array_equal(model.weights[0].numpy(), expected)


def test_a_renamed_variable_with_a_vocabulary(files, checkpoint):
    old = np.arange(8.0, dtype="float32").reshape(4, 2)
    model = embedding_model()

    kmg.warm_start(
        model,
        checkpoint({"before/table": old}),
        {"before/table": "words/embeddings"},
        vocabularies={"words/embeddings": info(files())},
    )

    zeros = np.zeros((1, 2))
    expected = np.concatenate([old[3:], zeros, old[:1], zeros, old[1:2]])
    np.testing.assert_array_equal(model.weights[0].numpy(), expected)


def test_a_vector_has_a_vocabulary_too(files, checkpoint):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(5, name="words")])
    values = {
        "words/kernel": np.arange(8.0, dtype="float32").reshape(2, 4),
        "words/bias": np.arange(4.0, dtype="float32"),
    }

    kmg.warm_start(
        model,
        checkpoint(values),
        vocabularies={
            "words/kernel": info(files(), axis=1),
            "words/bias": info(files()),
        },
    )

    np.testing.assert_array_equal(model.weights[1].numpy(), [3, 0, 0, 0, 1])
    np.testing.assert_array_equal(
        model.weights[0].numpy(), [[3, 0, 0, 0, 1], [7, 0, 4, 0, 5]]
    )


def test_what_does_not_fit_is_said_at_once(files, checkpoint, tmp_path):
    prefix = checkpoint({"words/embeddings": np.zeros((4, 2), "float32")})
    (tmp_path / "twice").write_text("a\na\n")
    names = files()
    wrong = {
        "short": info(names, size=9),
        "twice": info((str(tmp_path / "twice"), names[1])),
        "gone": info((str(tmp_path / "gone"), names[1])),
    }

    for vocab_info in wrong.values():
        with pytest.raises(SignatureError, match="vocabularies: words/embeddings"):
            kmg.warm_start(
                embedding_model(), prefix, vocabularies={"words/embeddings": vocab_info}
            )
    with pytest.raises(SignatureError, match="the model has no variable 'other'"):
        kmg.warm_start(embedding_model(4), prefix, vocabularies={"other": info(names)})


def test_a_vocabulary_of_another_table(files, checkpoint):
    prefix = checkpoint({"words/embeddings": np.zeros((2, 2), "float32")})

    with pytest.raises(
        ShapeMismatchError, match="more entries than the 2 along axis 0"
    ):
        kmg.warm_start(
            embedding_model(), prefix, vocabularies={"words/embeddings": info(files())}
        )


def test_slots_do_not_follow_a_vocabulary(files, checkpoint):
    model = embedding_model()
    model.compile(keras.optimizers.Adagrad(), "mse")
    values = {
        "words/embeddings": np.zeros((4, 2), "float32"),
        "words/embeddings/Adagrad": np.zeros((4, 2), "float32"),
        "global_step": np.int64(3),
    }

    with pytest.raises(ShapeMismatchError, match="new in the vocabulary"):
        kmg.warm_start(
            model,
            checkpoint(values),
            vocabularies={"words/embeddings": info(files())},
            optimizer=True,
        )
