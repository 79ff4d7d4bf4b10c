"""Which key a variable is restored from, when the caller says so."""

import re

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph import load_from_meta_graph, save_meta_graph
from keras_metagraph.errors import SignatureError
from keras_metagraph.loading.variable_map import mapped_keys

v1 = tf.compat.v1
pytestmark = pytest.mark.filterwarnings("ignore:The checkpoint lacks variables")


@pytest.fixture
def exported(tmp_path):
    """`exported(keys)`: a graph whose Saver knows nothing of these keys."""

    def save(names, partitions=None):
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None, 4], "x")
            w = v1.get_variable("tower/w", [4, 3], use_resource=False)
            b = v1.get_variable("tower/b", [3], use_resource=True)
            table = v1.get_variable(
                "tower/table",
                [3, 2],
                partitioner=v1.fixed_size_partitioner(partitions or 1),
                use_resource=False,
            )
            y = tf.matmul(tf.matmul(x, w) + b, tf.convert_to_tensor(table))
            tf.identity(y, "y")
            session.run(v1.global_variables_initializer())
            every = {"w": w, "b": b, "table": table}
            kept = {key: every[name] for name, key in names.items()}
            # The graph of another run: its own saver asks for the graph's names.
            v1.train.Saver().export_meta_graph(str(tmp_path / "model.meta"))
            v1.train.Saver(kept).save(
                session, str(tmp_path / "model"), write_meta_graph=False
            )
            fed = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
            return str(tmp_path / "model"), fed, session.run(y, {x: fed})

    return save


def load(path, variable_map):
    return load_from_meta_graph(path, inputs=["x:0"], variable_map=variable_map)


@pytest.mark.parametrize(
    "variable_map",
    [
        {"tower/w": "model/w", "tower/b": "model/b", "tower/table": "model/table"},
        {r"^tower/(.*)": r"model/\1"},
        {re.compile("tower"): "model"},
        {re.compile("^(tower)/"): lambda match: f"model{'/' if match[1] else ''}"},
        lambda name: name.replace("tower", "model"),
        {"tower/w": "model/w", r"^tower/": "model/"},
    ],
    ids=["names", "string", "compiled", "replacement", "function", "both"],
)
@pytest.mark.parametrize("partitions", [None, 2])
def test_every_form_of_map_restores_the_same(exported, variable_map, partitions):
    path, x, expected = exported(
        {name: f"model/{name}" for name in ("w", "b", "table")}, partitions
    )

    model = load(path, variable_map)

    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5)


def test_a_function_leaves_others_as_they_are(exported):
    path, x, expected = exported({"w": "old", "b": "tower/b", "table": "tower/table"})

    model = load(path, lambda name: "old" if name == "tower/w" else None)

    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5)


def test_parts_can_have_a_tensor_each(exported, tmp_path):
    path, x, expected = exported(
        {name: f"model/{name}" for name in ("w", "b", "table")}, 2
    )
    reader = tf.train.load_checkpoint(path)
    values = {key: reader.get_tensor(key) for key in ("model/w", "model/b")}
    whole = reader.get_tensor("model/table")
    with tf.Graph().as_default(), v1.Session() as session:
        parts = {"first": whole[:2], "second": whole[2:]}
        saved = {k: v1.Variable(v) for k, v in (values | parts).items()}
        session.run(v1.global_variables_initializer())
        v1.train.Saver(saved).save(session, path, write_meta_graph=False)

    model = load(
        path,
        {
            "^tower/(?!table)": "model/",
            "tower/table/part_0": "first",
            "tower/table/part_1": "second",
        },
    )

    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5)


def test_all_that_is_wrong_is_said_at_once(exported):
    path, _, _ = exported({"w": "tower/w", "b": "tower/b", "table": "tower/table"})

    with pytest.raises(SignatureError) as caught:
        load(
            path,
            {
                "tower/q": "tower/w",
                "^nothing": "x",
                "tower/b": "tower/w",
                r"^(tower/tab)le$": r"\2",
                "tower/table": "gone",
            },
        )

    text = "\n".join(caught.value.findings)
    assert "tower/q: no such variable; nearest: " in text
    assert "'^nothing' matches no variable" in text
    assert "tower/b, tower/w: all from the one key 'tower/w'" in text
    assert r"'^(tower/tab)le$' → '\\2'" in text
    assert "tower/table: the checkpoint has no 'gone'" in text
    assert len(caught.value.findings) == 5


def test_two_expressions_must_agree():
    with pytest.raises(SignatureError) as caught:
        mapped_keys({"a/w": "a/w"}, {"^a": "b", "w$": "v"}, ["b/w", "a/v"])

    assert caught.value.findings == ("a/w: 'b/w' by '^a', but 'a/v' by 'w$'",)


def test_names_can_change_places():
    keys = mapped_keys({"a": "a", "b": "b"}, {"a": "b", "b": "a"}, ["a", "b"])

    assert keys == {"a": "b", "b": "a"}


def test_own_files_take_a_map_too(tmp_path):
    import keras

    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, name="first"), keras.layers.Dense(2)]
    )
    prefix = save_meta_graph(model, tmp_path / "m", 0, graphs=["predict"])
    kernel, bias = (w.numpy() for w in model.layers[0].weights)
    with tf.Graph().as_default(), v1.Session() as session:
        reader = tf.train.load_checkpoint(prefix)
        keys = reader.get_variable_to_shape_map()
        saved = {k.replace("first", "old"): reader.get_tensor(k) for k in keys}
        variables = {k: v1.Variable(v) for k, v in saved.items()}
        session.run(v1.global_variables_initializer())
        v1.train.Saver(variables).save(session, str(tmp_path / "new"))
    (tmp_path / "new.meta").write_bytes((tmp_path / "m-0.meta").read_bytes())

    loaded = load_from_meta_graph(
        tmp_path / "new", variable_map={r"^first/(.*)": r"old/\1"}
    )

    np.testing.assert_array_equal(loaded.layers[0].weights[0].numpy(), kernel)
    np.testing.assert_array_equal(loaded.layers[0].weights[1].numpy(), bias)
