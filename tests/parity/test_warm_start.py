"""Warm starts from what TensorFlow 1.15.5 writes, against what it does with it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.formats.registry import open_export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.moving_averages import find_moving_averages
from keras_metagraph.training import optimizers
from oracle.references import exports

_RECURRENT = """
import numpy as np
import tensorflow as tf


def main(arrays, args):
    cells = {
        "basic": lambda: tf.nn.rnn_cell.BasicLSTMCell(4),
        "lstm": lambda: tf.nn.rnn_cell.LSTMCell(4, forget_bias=0.5),
        "block": lambda: tf.contrib.rnn.LSTMBlockCell(4, forget_bias=2.0),
        "gru": lambda: tf.nn.rnn_cell.GRUCell(4),
    }
    tf.set_random_seed(3)
    x = tf.placeholder(tf.float32, [None, 5, 3], "x")
    y = tf.placeholder(tf.float32, [None, 2], "y")
    out, _ = tf.nn.dynamic_rnn(cells[args["cell"]](), x, dtype=tf.float32)
    head = tf.layers.dense(out[:, -1], 2, name="head")
    loss = tf.reduce_mean(tf.square(head - y))
    step = tf.train.get_or_create_global_step()
    # Keras's epsilon.
    train = tf.train.AdamOptimizer(0.01, epsilon=1e-7).minimize(loss, step)
    feed = {x: arrays["x"], y: arrays["y"]}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(5):
            session.run(train, feed)
        tf.train.Saver().save(session, args["prefix"])
        outputs = session.run(out, feed)
        losses = [session.run([loss, train], feed)[0] for _ in range(10)]
    return {"outputs": outputs, "losses": np.array(losses)}
"""


@pytest.mark.parametrize("cell", ["basic", "lstm", "block", "gru"])
def test_recurrent_cells_compute_the_same_and_train_on(cell, tf115, tmp_path):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 5, 3)).astype("float32")
    y = rng.normal(size=(4, 2)).astype("float32")
    prefix = str(tmp_path / "model")
    expected = tf115(_RECURRENT, {"x": x, "y": y}, {"cell": cell, "prefix": prefix})
    layer = (
        layers.GRU(4, reset_after=False, return_sequences=True, name="r")
        if cell == "gru"
        else layers.LSTM(4, return_sequences=True, name="r")
    )
    inputs = keras.Input((5, 3))
    hidden = layer(inputs)
    head = layers.Dense(2, name="head")(hidden[:, -1])
    model = keras.Model(inputs, head)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    kind = {"basic": "basic_lstm_cell", "gru": "gru_cell"}.get(cell, "lstm_cell")

    kmg.warm_start(
        model, prefix, {f"rnn/{kind}/": layer, "head/": "head/"}, optimizer=True
    )

    outputs = keras.Model(inputs, hidden)(x)
    np.testing.assert_allclose(outputs, expected["outputs"], atol=1e-6)
    losses = [model.train_on_batch(x, y) for _ in range(10)]
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-5)


_PARTITIONED = """
import numpy as np
import tensorflow as tf


def main(arrays, args):
    ids = tf.placeholder(tf.int32, [None], "ids")
    table = tf.get_variable(
        "emb",
        [10, 4],
        partitioner=tf.fixed_size_partitioner(args["parts"], args["axis"]),
        use_resource=args["resource"],
    )
    rows = tf.gather(tf.convert_to_tensor(table), ids)
    w = tf.get_variable("w", [4, 3], use_resource=args["resource"])
    out = tf.matmul(rows, w, name="out")
    loss = tf.reduce_mean(tf.square(out), name="loss")
    train = tf.train.AdamOptimizer(0.1).minimize(
        loss, tf.train.get_or_create_global_step()
    )
    feed = {ids: arrays["ids"]}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(3):
            session.run(train, feed)
        tf.train.Saver(write_version=args["version"]).save(session, args["prefix"])
        slot = [v for v in tf.global_variables() if v.op.name.endswith("/Adam")]
        parts = sorted((v for v in slot if "emb" in v.op.name), key=lambda v: v.op.name)
        return {
            "out": session.run(out, feed),
            "emb": session.run(tf.convert_to_tensor(table)),
            "w": session.run(w),
            "slot": np.concatenate(session.run(parts), args["axis"]),
        }
"""


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("resource", [False, True])
@pytest.mark.parametrize(("parts", "axis"), [(3, 0), (2, 1)])
def test_partitioned_variables(version, resource, parts, axis, tf115, tmp_path):
    """The checkpoint holds one tensor, in slices; the graph has parts."""
    prefix = str(tmp_path / "model")
    ids = np.arange(10, dtype="int32")
    settings = {"parts": parts, "axis": axis, "resource": resource, "version": version}
    expected = tf115(_PARTITIONED, {"ids": ids}, settings | {"prefix": prefix})

    # The graph, as it is.
    loaded = kmg.load_from_meta_graph(prefix, inputs=["ids:0"], outputs=["out:0"])
    (out,) = loaded.predict(ids, verbose=0).values()
    np.testing.assert_allclose(out, expected["out"], atol=1e-6)

    # One variable of Keras, with its slots.
    inputs = keras.Input((), dtype="int32")
    embedding = layers.Embedding(10, 4, name="words")
    model = keras.Model(inputs, layers.Dense(3, use_bias=False)(embedding(inputs)))
    model.compile(keras.optimizers.Adam(0.1), "mse")
    kmg.warm_start(
        model,
        prefix,
        {"emb": embedding.embeddings, "w": model.layers[-1].kernel},
        optimizer=True,
    )
    np.testing.assert_array_equal(embedding.embeddings.numpy(), expected["emb"])
    (moment,) = [
        v
        for v in model.optimizer.variables
        if v.shape == (10, 4) and v.name.endswith("momentum")
    ]
    np.testing.assert_array_equal(moment.numpy(), expected["slot"])

    # The parts of a graph, from a checkpoint that knows only the whole.
    for part in loaded.weights:
        part.assign(np.zeros(part.shape, part.dtype))
    report = kmg.warm_start(loaded, prefix, [".*emb", "w$"])
    assert len(report.matched) >= parts + 1
    (out,) = loaded.predict(ids, verbose=0).values()
    np.testing.assert_allclose(out, expected["out"], atol=1e-6)


_AVERAGED = """
import numpy as np
import tensorflow as tf


def main(arrays, args):
    x = tf.placeholder(tf.float32, [None, 3], "x")
    with tf.variable_scope("net", use_resource=args["resource"]):
        hidden = tf.layers.dense(x, 4, tf.nn.relu, name="hidden")
        hidden = tf.layers.batch_normalization(
            hidden, momentum=0.5, training=args["train"], name="bn", fused=False
        )
        out = tf.layers.dense(hidden, 2, name="out")
    tf.identity(out, "out")
    average = tf.train.ExponentialMovingAverage(0.75, name=args["name"])
    if not args["train"]:
        # As evaluation did it in TensorFlow 1.
        with tf.Session() as session:
            tf.train.Saver(average.variables_to_restore()).restore(
                session, args["prefix"]
            )
            return {"out": session.run(out, {x: arrays["x"]})}
    loss = tf.reduce_mean(tf.square(out - 1), name="loss")
    step = tf.train.get_or_create_global_step()
    train = tf.train.GradientDescentOptimizer(0.5).minimize(loss, step)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    with tf.control_dependencies([train] + updates):
        train = average.apply(tf.trainable_variables())
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(6):
            session.run(train, {x: arrays["x"]})
        tf.train.Saver().save(session, args["prefix"])
    return {}
"""


@pytest.mark.parametrize("resource", [False, True])
@pytest.mark.parametrize("name", ["ExponentialMovingAverage", "slow"])
def test_moving_averages(resource, name, tf115, tmp_path):
    x = np.random.default_rng(6).normal(size=(8, 3)).astype("float32")
    settings = {"resource": resource, "name": name, "prefix": str(tmp_path / "model")}
    tf115(_AVERAGED, {"x": x}, settings | {"train": True})
    expected = tf115(_AVERAGED, {"x": x}, settings | {"train": False})["out"]

    # A Keras model of the same variables, in inference.
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "relu", name="hidden"),
            layers.BatchNormalization(name="bn"),
            layers.Dense(2, name="out"),
        ]
    )
    kmg.warm_start(model, settings["prefix"], {"net/": "/"}, ema=True)
    np.testing.assert_allclose(model(x), expected, atol=1e-6)

    # The graph itself, whose variables become the averages too.
    loaded = kmg.load_from_meta_graph(settings["prefix"], ema=True)
    for weight in model.weights:
        tf1_name = f"net/{weight.path.split('/', 1)[1]}"
        np.testing.assert_array_equal(
            loaded.meta_graph.variables[tf1_name].numpy(), weight.numpy()
        )

    meta = open_export(settings["prefix"]).select()
    graph = graph_from_proto(meta.graph_def)
    averages = find_moving_averages(graph, graph_variables(meta, graph))
    assert averages.decay == 0.75
    assert not averages.counted
    assert averages.shadows["net/out/bias"] == f"net/out/bias/{name}"


_WARM_STARTED = """
import tensorflow as tf


def main(arrays, args):
    with tf.variable_scope("new"):
        table = tf.get_variable("table", [6, 2], initializer=tf.zeros_initializer())
        kernel = tf.get_variable("kernel", [2, 3], initializer=tf.ones_initializer())
        bias = tf.get_variable("bias", [3], initializer=tf.ones_initializer())
        rest = tf.get_variable("rest", [3], initializer=tf.ones_initializer())
    if args["map"]:
        tf.train.init_from_checkpoint(args["prefix"], args["map"])
    else:
        info = tf.train.VocabInfo(
            args["new"], 5, 1, args["old"], 3, tf.ones_initializer()
        )
        tf.train.warm_start(
            args["prefix"],
            vars_to_warm_start="new/(table|kernel|bias)",
            var_name_to_vocab_info={"new/table": info},
            var_name_to_prev_var_name={
                "new/table": "old/table",
                "new/kernel": "old/kernel",
                "new/bias": "old/bias",
            },
        )
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        names = {"table": table, "kernel": kernel, "bias": bias, "rest": rest}
        return session.run(names)
"""

_OLD = """
import tensorflow as tf


def main(arrays, args):
    with tf.Session() as session:
        variables = {key: tf.Variable(value) for key, value in arrays.items()}
        session.run(tf.global_variables_initializer())
        tf.train.Saver(variables).save(session, args["prefix"])
    return {}
"""


class Tables(keras.layers.Layer):
    """The variables of the script above."""

    def build(self, shape):
        self.table = self.add_weight(shape=(6, 2), initializer="zeros", name="table")
        self.kernel = self.add_weight(shape=(2, 3), initializer="ones", name="kernel")
        self.bias = self.add_weight(shape=(3,), initializer="ones", name="bias")
        self.rest = self.add_weight(shape=(3,), initializer="ones", name="rest")

    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    "assignment_map",
    [
        {"old/": "new/"},
        {"old/kernel": "new/kernel", "old/bias": "new/bias"},
        {"flat/": "new/", "old/rest": "new/rest"},
        None,
    ],
    ids=["scope", "names", "both", "vocabulary"],
)
def test_variables_are_those_of_tensorflow_1(assignment_map, tf115, tmp_path):
    rng = np.random.default_rng(8)
    shapes = {"table": (6, 2), "kernel": (2, 3), "bias": (3,), "rest": (3,)}
    stored = {
        f"{scope}/{name}": rng.normal(size=shape).astype("float32")
        for scope in ("old", "flat")
        for name, shape in shapes.items()
    }
    if assignment_map and "flat/" in assignment_map:
        del stored["flat/rest"]
        stored["flat/rest"] = stored["old/rest"] + 1  # The single name goes last.
    settings = {"prefix": str(tmp_path / "old"), "map": assignment_map}
    for name, words in (("old.txt", "abcd"), ("new.txt", "dbzac")):
        (tmp_path / name).write_text("\n".join(words) + "\n")
        settings[name[:3]] = str(tmp_path / name)
    tf115(_OLD, stored, settings)
    expected = tf115(_WARM_STARTED, {}, settings)
    inputs = keras.Input((1,))
    model = keras.Model(inputs, Tables(name="new")(inputs))

    if assignment_map:
        kmg.warm_start(model, settings["prefix"], assignment_map)
    else:
        info = tf.compat.v1.train.VocabInfo(
            settings["new"], 5, 1, settings["old"], 3, tf.compat.v1.ones_initializer()
        )
        names = ("table", "kernel", "bias")
        kmg.warm_start(
            model,
            settings["prefix"],
            {f"old/{name}": f"new/{name}" for name in names},
            vocabularies={"new/table": info},
        )

    for weight in model.weights:
        np.testing.assert_array_equal(weight.numpy(), expected[weight.name])


def _restored(path, tags=None):
    """Loads an export, forgets its values, and warm-starts it from its own file."""
    model = kmg.load_from_meta_graph(path, tags=tags, rebuild="graph")
    before = [weight.numpy() for weight in model.weights]
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape, weight.dtype))
    kmg.warm_start(model, path)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value, err_msg=weight.path)


@pytest.mark.parametrize("export", exports(), ids=repr)
def test_the_values_of_every_release_are_found(export):
    _restored(export.source.path, export.source.tags)


def test_keys_that_are_no_names_are_found(corpus):
    """A canned estimator: `dnn/dnn/x/part_0/...` is stored as `dnn/x/t_0/...`."""
    _restored(corpus / "estimator-ncaam")


_OPTIMIZED = """
import numpy as np
import tensorflow as tf


def main(arrays, args):
    x = tf.placeholder(tf.float32, [None, 3], "x")
    y = tf.placeholder(tf.float32, [None, 2], "y")
    tf.set_random_seed(5)
    with tf.variable_scope("old"):
        out = tf.layers.dense(x, 2, name="out")
    loss = tf.reduce_mean(tf.square(out - y))
    step = tf.train.get_or_create_global_step()
    optimizer = getattr(tf.train, args["optimizer"])(0.05, **args["settings"])
    train = optimizer.minimize(loss, step)
    feed = {x: arrays["x"], y: arrays["y"]}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(5):
            session.run(train, feed)
        tf.train.Saver().save(session, args["prefix"])
        losses = [session.run([loss, train], feed)[0] for _ in range(20)]
    return {"losses": np.array(losses)}
"""

_OPTIMIZERS = {
    "MomentumOptimizer": ({"momentum": 0.9}, lambda: optimizers.TF1Momentum(0.05, 0.9)),
    "RMSPropOptimizer": (
        {"momentum": 0.5, "centered": True},
        lambda: optimizers.TF1RMSProp(0.05, momentum=0.5, centered=True),
    ),
    "AdagradOptimizer": ({}, lambda: optimizers.TF1Adagrad(0.05)),
    "AdadeltaOptimizer": ({}, lambda: optimizers.TF1Adadelta(0.05)),
    "FtrlOptimizer": ({}, lambda: optimizers.TF1Ftrl(0.05)),
    "ProximalAdagradOptimizer": ({}, lambda: optimizers.TF1ProximalAdagrad(0.05)),
    "AdamOptimizer": ({"epsilon": 1e-7}, lambda: keras.optimizers.Adam(0.05)),
}


@pytest.mark.parametrize("name", _OPTIMIZERS)
def test_training_goes_on_with_the_slots(name, tf115, tmp_path):
    settings, make_optimizer = _OPTIMIZERS[name]
    rng = np.random.default_rng(9)
    x = rng.normal(size=(8, 3)).astype("float32")
    y = rng.normal(size=(8, 2)).astype("float32")
    prefix = str(tmp_path / "model")
    expected = tf115(
        _OPTIMIZED,
        {"x": x, "y": y},
        {"optimizer": name, "settings": settings, "prefix": prefix},
    )
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="new")])
    model.compile(make_optimizer(), "mse")

    kmg.warm_start(model, prefix, {"old/out/": "new/"}, optimizer=True)

    losses = [model.train_on_batch(x, y) for _ in range(20)]
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-5)


_TF_KERAS = """
import numpy as np
import tensorflow as tf


def main(arrays, args):
    if args["eager"]:
        tf.enable_eager_execution()
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Dense(4, "relu", name="a", input_shape=(3,)),
            tf.keras.layers.Dense(2, name="b"),
        ]
    )
    kind = getattr(tf.keras.optimizers, args["optimizer"])
    model.compile(kind(0.05, **args["settings"]), "mse")
    for _ in range(5):
        model.train_on_batch(arrays["x"], arrays["y"])
    prefix = args["prefix"]
    if args["kind"] == "saver":
        tf.train.Saver().save(tf.keras.backend.get_session(), prefix)
    elif args["kind"] == "h5":
        model.save(prefix)
    else:
        model.save_weights(prefix, save_format="tf")
    losses = [model.train_on_batch(arrays["x"], arrays["y"]) for _ in range(10)]
    return {"losses": np.array(losses)}
"""


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [("Adam", {}), ("SGD", {"momentum": 0.9}), ("Adagrad", {})],
    ids=["Adam", "SGD", "Adagrad"],
)
@pytest.mark.parametrize("kind", ["saver", "h5", "objects", "objects, eager"])
def test_what_tf_keras_wrote_goes_on(kind, optimizer, settings, tf115, tmp_path):
    rng = np.random.default_rng(9)
    x = rng.normal(size=(8, 3)).astype("float32")
    y = rng.normal(size=(8, 2)).astype("float32")
    prefix = str(tmp_path / ("model.h5" if kind == "h5" else "model"))
    expected = tf115(
        _TF_KERAS,
        {"x": x, "y": y},
        {
            "eager": kind.endswith("eager"),
            "kind": kind,
            "optimizer": optimizer,
            "settings": settings,
            "prefix": prefix,
        },
    )
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "relu", name="a"),
            layers.Dense(2, name="b"),
        ]
    )
    model.compile(getattr(keras.optimizers, optimizer)(0.05, **settings), "mse")

    kmg.warm_start(model, prefix, optimizer=True)

    losses = [model.train_on_batch(x, y) for _ in range(10)]
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-5)
