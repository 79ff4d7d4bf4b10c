"""The model around a graph: how it is fed, trained, compiled and saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph import load_from_meta_graph
from keras_metagraph.errors import MetaGraphError, SignatureError

v1 = tf.compat.v1


class Written:
    """A regression written by a session, which stays open as the oracle."""

    def __init__(self, folder, rank_known=True):
        with tf.Graph().as_default() as graph:
            self.session = v1.Session(graph=graph)
            shape = [None, 3] if rank_known else None
            x = v1.placeholder(tf.float32, shape, "x")
            label = v1.placeholder(tf.float32, [None], "label")
            w = v1.get_variable("w", [3, 1], use_resource=False)
            b = v1.get_variable("b", initializer=[0.5], use_resource=False)
            y = tf.squeeze(tf.matmul(x, w) + b, -1, name="y")
            loss = tf.reduce_mean((y - label) ** 2, name="loss")
            step = v1.train.get_or_create_global_step()
            v1.train.MomentumOptimizer(0.05, 0.9).minimize(loss, step, name="train_op")
            self.session.run(v1.global_variables_initializer())
            saver = v1.train.Saver()
            self.path = saver.save(self.session, str(folder / "model"), 0)

    def step(self, x, label):
        return self.session.run(["loss:0", "train_op"], {"x:0": x, "label:0": label})[0]


@pytest.fixture
def batch():
    random = np.random.RandomState(3)
    return random.rand(8, 3).astype("float32"), random.rand(8).astype("float32")


@pytest.fixture
def written(tmp_path):
    return Written(tmp_path)


def fit_one(model, x, y):
    return model.fit(x, y, batch_size=8, verbose=0).history["loss"][0]


def test_names_are_found_and_fit_goes_on_with_the_train_op(written, batch):
    model = load_from_meta_graph(written.path)
    for count in range(3):
        loss = fit_one(model, *batch)
        np.testing.assert_allclose(loss, written.step(*batch), rtol=1e-6)
        assert int(model.optimizer.iterations) == count + 1


@pytest.mark.parametrize("form", ["array", "list", "dict", "column", "float64"])
def test_batches_may_have_any_form_that_keras_takes(written, batch, form):
    x, label = batch
    given = {
        "array": (x, label),
        "list": ([x], [label]),
        "dict": ({"x": x}, {"label": label}),
        "column": (x, label[:, None]),
        "float64": (x.astype("float64"), label.astype("float64")),
    }[form]
    loss = fit_one(load_from_meta_graph(written.path), *given)
    np.testing.assert_allclose(loss, written.step(*batch), rtol=1e-6)


def test_loss_of_an_epoch_is_the_mean_over_its_batches(written, batch):
    x, label = batch
    model = load_from_meta_graph(written.path)
    history = model.fit(x, label, batch_size=4, shuffle=False, verbose=0)
    losses = [written.step(x[:4], label[:4]), written.step(x[4:], label[4:])]
    np.testing.assert_allclose(history.history["loss"][0], np.mean(losses), rtol=1e-6)


def test_evaluate_changes_nothing(written, batch):
    model = load_from_meta_graph(written.path)
    first = model.evaluate(*batch, verbose=0)
    assert model.evaluate(*batch, verbose=0) == first
    np.testing.assert_allclose(first, written.step(*batch), rtol=1e-6)


def test_all_that_a_batch_lacks_is_named(written, batch):
    model = load_from_meta_graph(written.path)
    with pytest.raises(SignatureError, match="missing label: label"):
        model.fit(batch[0], verbose=0)
    with pytest.raises(SignatureError) as caught:
        model.fit({"z": batch[0]}, batch[1], verbose=0)
    assert "missing input: x (x:0)" in caught.value.findings
    assert "unknown input: z" in caught.value.findings


def test_sample_weights_are_refused_not_ignored(written, batch):
    model = load_from_meta_graph(written.path)
    with pytest.raises(SignatureError, match="Sample weights"):
        model.fit(*batch, sample_weight=np.ones(8), verbose=0)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.1),
        # It decays weights that the graph reads, without waiting for the gradient.
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.5),
    ],
    ids=["adam", "adamw"],
)
def test_after_compile_keras_trains(written, batch, optimizer):
    model = load_from_meta_graph(written.path)
    reference = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    reference.set_weights([model.meta_graph.run("w:0"), model.meta_graph.run("b:0")])
    losses = []
    for each, target in ((model, batch[1]), (reference, batch[1][:, None])):
        each.compile(optimizer(), "mse")
        history = each.fit(
            batch[0], target, epochs=20, batch_size=8, shuffle=False, verbose=0
        )
        losses.append(history.history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    np.testing.assert_allclose(
        model.meta_graph.run("w:0"), reference.weights[0].numpy(), rtol=1e-5
    )


def test_train_op_takes_no_gradients_from_outside(written):
    model = load_from_meta_graph(written.path)
    with pytest.raises(MetaGraphError, match="takes no gradients"):
        model.optimizer.apply([tf.zeros([3, 1])])


def test_keras_file_and_back(written, batch, tmp_path):
    model = load_from_meta_graph(written.path)
    fit_one(model, *batch)
    written.step(*batch)
    model.save(tmp_path / "m.keras")
    back = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        back.predict(batch[0], verbose=0), model.predict(batch[0], verbose=0)
    )
    for _ in range(2):  # the slots came along
        loss = fit_one(back, *batch)
        np.testing.assert_allclose(loss, written.step(*batch), rtol=1e-6)
    assert int(back.optimizer.iterations) == 3


def test_placeholder_of_unknown_rank(tmp_path, batch):
    written = Written(tmp_path, rank_known=False)
    model = load_from_meta_graph(written.path, outputs="y")
    expected = written.session.run("y:0", {"x:0": batch[0]})
    found = model.predict(batch[0], verbose=0)
    found = found["y"] if isinstance(found, dict) else found
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_graph_without_inputs(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=[1.0, 2.0], use_resource=False)
        tf.multiply(w, 3.0, name="y")
        session.run(v1.global_variables_initializer())
        path = v1.train.Saver().save(session, str(tmp_path / "model"))
    model = load_from_meta_graph(path)
    np.testing.assert_array_equal(model(np.zeros([1])), [3.0, 6.0])


def test_fetch_of_a_hidden_tensor_shares_the_weights(written, batch):
    model = load_from_meta_graph(written.path)
    product = model.meta_graph.fetch("MatMul:0")
    fit_one(model, *batch)
    written.step(*batch)
    expected = written.session.run("MatMul:0", {"x:0": batch[0]})
    np.testing.assert_allclose(product.predict(batch[0], verbose=0), expected, 1e-6)


def test_names_by_which_nothing_can_be_fetched(written):
    model = load_from_meta_graph(written.path)
    with pytest.raises(SignatureError) as caught:
        model.meta_graph.fetch("MatMull:0", "other")
    assert caught.value.findings == ("MatMull:0; nearest: MatMul", "other:0")


def test_gradients_that_no_file_holds_are_told(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:

        @tf.custom_gradient
        def doubled(value):
            return tf.identity(value), lambda upstream: 2.0 * upstream

        x = v1.placeholder(tf.float32, [None, 2], "x")
        w = v1.get_variable("w", [2, 1], use_resource=False)
        doubled(tf.matmul(x, w) * 1.0)
        tf.identity(doubled(tf.matmul(x, w)), name="y")
        session.run(v1.global_variables_initializer())
        path = v1.train.Saver().save(session, str(tmp_path / "model"))
    model = load_from_meta_graph(path, outputs="y:0")
    with pytest.warns(UserWarning, match="gradients of its own"):
        model.compile("sgd", "mse")


def test_penalties_count_in_training_and_in_evaluation(tmp_path, batch):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        w = v1.get_variable("w", [3, 1], use_resource=False)
        v1.add_to_collection("regularization_losses", tf.reduce_sum(w**2))
        tf.matmul(x, w, name="y")
        session.run(v1.global_variables_initializer())
        path = v1.train.Saver().save(session, str(tmp_path / "model"))
    model = load_from_meta_graph(path)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    error = np.mean((model.predict(batch[0], verbose=0) - batch[1][:, None]) ** 2)
    expected = error + np.sum(model.meta_graph.run("w:0") ** 2)
    targets = batch[1][:, None]
    np.testing.assert_allclose(fit_one(model, batch[0], targets), expected, 1e-5)
    found = model.evaluate(batch[0], targets, verbose=0)
    np.testing.assert_allclose(found, expected, 1e-5)


def test_gradients_are_those_of_the_weights_before_the_update(tmp_path, batch):
    # A session left it to chance: nothing makes an update wait for the other gradients.
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        label = v1.placeholder(tf.float32, [None], "label")
        weights = [
            v1.get_variable(name, shape, use_resource=False)
            for name, shape in (("a", [3, 4]), ("b", [4, 4]), ("c", [4, 1]))
        ]
        y = x
        for weight in weights:
            y = tf.matmul(y, weight)
        loss = tf.reduce_sum((y[:, 0] - label) ** 2, name="loss")
        gradients = tf.gradients(loss, weights)
        updates = [
            v1.assign_sub(weight, 0.1 * gradient)
            for weight, gradient in zip(weights, gradients, strict=True)
        ]
        tf.group(*updates, name="step")
        session.run(v1.global_variables_initializer())
        feeds = {x: batch[0], label: batch[1]}
        values, slopes = session.run([weights, gradients], feeds)
        path = v1.train.Saver().save(session, str(tmp_path / "model"))
    model = load_from_meta_graph(path, train_op="step", loss="loss:0")
    fit_one(model, *batch)
    for name, value, slope in zip("abc", values, slopes, strict=True):
        found = model.meta_graph.run(f"{name}:0")
        np.testing.assert_allclose(found, value - 0.1 * slope, 1e-5, err_msg=name)


@pytest.mark.parametrize("default", [True, False, None])
def test_run_takes_flags_as_a_session_does(tmp_path, batch, default):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        label = v1.placeholder(tf.float32, [None], "label")
        if default is None:
            flag = v1.placeholder(tf.bool, [], "is_training")
        else:
            flag = v1.placeholder_with_default(default, [], "is_training")
        w = v1.get_variable("w", [3, 1], use_resource=False)
        scale = tf.cond(flag, lambda: tf.constant(2.0), lambda: tf.constant(1.0))
        y = tf.squeeze(tf.matmul(x, w) * scale, -1, name="y")
        loss = tf.reduce_mean((y - label) ** 2, name="loss")
        v1.train.GradientDescentOptimizer(0.05).minimize(loss, name="train_op")
        session.run(v1.global_variables_initializer())
        path = v1.train.Saver().save(session, str(tmp_path / "model"))
        feeds = {"x:0": batch[0], "label:0": batch[1]}

        def given(trains):  # a session insists on a value where there is no default
            return feeds | ({"is_training:0": trains} if default is None else {})

        expected = [session.run("y:0", given(False))]
        for fed in (given(True), feeds | {"is_training:0": False}):
            session.run("train_op", fed)
            expected.append(session.run(w))
    model = load_from_meta_graph(path, training_flag="is_training:0")
    found = [model.meta_graph.run("y:0", feeds)]
    for fed in (feeds, feeds | {"is_training:0": False}):
        model.meta_graph.run(["train_op"], fed)
        found.append(model.meta_graph.run("w:0"))
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, wanted, 1e-5)
