"""Keras programs: a model is saved, and another process goes on with it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_metagraph as kmg
from first_programs.sessions import read_meta, restored, run_signature, tf1

RNG = np.random.default_rng(5)
X = RNG.normal(size=(8, 5)).astype("float32")
Y = RNG.normal(size=(8, 1)).astype("float32")
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


class Scale(keras.layers.Layer):
    """The custom layer of every tutorial."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, shape):
        self.offset = self.add_weight(shape=(shape[-1],), name="offset")

    def call(self, x):
        return x * self.factor + self.offset

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Classifier(keras.Model):
    """The custom model of every tutorial."""

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.drop = keras.layers.Dropout(0.5)
        self.score = keras.layers.Dense(1)

    def call(self, x, training=None):
        return self.score(self.drop(self.hidden(x), training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def sequential():
    model = keras.Sequential(
        [
            keras.Input((5,), name="x"),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    return model


def assert_goes_on_the_same(again, model, x=X, y=Y):
    """Equal predictions, and equal steps after them."""
    for _ in range(3):
        np.testing.assert_array_equal(
            again.predict(x, verbose=0), model.predict(x, verbose=0)
        )
        assert again.train_on_batch(x, y) == model.train_on_batch(x, y)


def assert_session_goes_on_the_same(prefix, model, feeds, y=Y):
    """TensorFlow 1 predicts and trains as Keras does; the model is trained on."""
    signature = read_meta(f"{prefix}.meta").signature_def["train"]
    (label,) = signature.inputs.keys() - feeds.keys()
    x = next(iter(feeds.values())) if len(feeds) == 1 else feeds
    values = {**feeds, label: y}
    fed = {signature.inputs[key].name: value for key, value in values.items()}
    with restored(prefix) as session:
        (score,) = run_signature(
            session, f"{prefix}.meta", "serving_default", feeds
        ).values()
        train_op = tf1.get_collection("train_op")[-1]
        fetches = [signature.outputs["loss"].name, train_op]
        losses = [session.run(fetches, fed)[0] for _ in range(3)]
        after = session.run(tf1.trainable_variables())

    np.testing.assert_allclose(score, model.predict(x, verbose=0), **CLOSE)
    again = [model.train_on_batch(x, y) for _ in range(3)]
    np.testing.assert_allclose(losses, again, **CLOSE)
    for value, weight in zip(after, model.trainable_weights, strict=True):
        np.testing.assert_allclose(value, weight, **CLOSE)


def test_sequential(tmp_path):
    model = sequential()
    model.fit(X, Y, epochs=2, verbose=0)
    prefix = kmg.save_meta_graph(model, tmp_path / "model")
    again = kmg.load_from_meta_graph(prefix)

    assert_goes_on_the_same(again, model)


def test_sequential_goes_on_in_a_session(tmp_path):
    model = sequential()
    model.fit(X, Y, epochs=2, verbose=0)
    prefix = kmg.save_meta_graph(model, tmp_path / "model", model.optimizer.iterations)

    assert_session_goes_on_the_same(prefix, model, {"x": X})


def test_callback(tmp_path):
    model = sequential()
    model.fit(
        X,
        Y,
        batch_size=4,
        epochs=3,
        verbose=0,
        callbacks=[kmg.MetaGraphCheckpoint(tmp_path / "run" / "model", max_to_keep=2)],
    )

    assert tf.train.latest_checkpoint(str(tmp_path / "run")) == str(
        tmp_path / "run" / "model-6"
    )
    assert sorted(p.name for p in (tmp_path / "run").glob("*.meta")) == [
        "model-4.meta",
        "model-6.meta",
    ]
    assert_goes_on_the_same(kmg.load_from_meta_graph(tmp_path / "run"), model)


def test_subclassed(tmp_path):
    model = Classifier()
    model.compile("adam", "mse")
    model.fit(X, Y, epochs=2, verbose=0)
    prefix = kmg.save_meta_graph(model, tmp_path / "model")
    again = kmg.load_from_meta_graph(prefix, custom_objects={"Classifier": Classifier})

    assert type(again) is Classifier
    assert_goes_on_the_same(again, model)


def test_subclassed_without_its_class(tmp_path):
    model = Classifier()
    model.compile("sgd", "mse")
    model.fit(X, Y, epochs=2, verbose=0)
    prefix = kmg.save_meta_graph(model, tmp_path / "model")
    with pytest.warns(UserWarning, match="Classifier"):
        again = kmg.load_from_meta_graph(prefix)

    predicted = keras.tree.flatten(again.predict(X, verbose=0))
    np.testing.assert_allclose(predicted[0], model.predict(X, verbose=0), **CLOSE)


def test_custom_layer(tmp_path):
    model = keras.Sequential(
        [keras.Input((5,), name="x"), Scale(3.0), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    prefix = kmg.save_meta_graph(model, tmp_path / "model")
    again = kmg.load_from_meta_graph(prefix, custom_objects={"Scale": Scale})

    assert again.layers[0].factor == 3.0
    assert_goes_on_the_same(again, model)
    assert_session_goes_on_the_same(
        kmg.save_meta_graph(model, tmp_path / "later"), model, {"x": X}
    )


def test_functional_with_two_inputs(tmp_path):
    left, right = (keras.Input((5,), name=name) for name in ("left", "right"))
    both = keras.layers.Concatenate()([left, right])
    model = keras.Model({"left": left, "right": right}, keras.layers.Dense(1)(both))
    model.compile("adam", "mse")
    x = {"left": X, "right": X[::-1].copy()}
    model.fit(x, Y, epochs=2, verbose=0)
    prefix = kmg.save_meta_graph(model, tmp_path / "model")
    again = kmg.load_from_meta_graph(prefix)

    assert_goes_on_the_same(again, model, x)
    assert_session_goes_on_the_same(
        kmg.save_meta_graph(model, tmp_path / "later"), model, x
    )


def test_two_inputs_in_a_list(tmp_path):
    inputs = [keras.Input((5,), name=name) for name in ("left", "right")]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Add()(inputs)))
    model.compile("sgd", "mse")
    x = [X, X[::-1].copy()]
    model.fit(x, Y, verbose=0)
    again = kmg.load_from_meta_graph(kmg.save_meta_graph(model, tmp_path / "model"))

    assert_goes_on_the_same(again, model, x)


def test_custom_signature(tmp_path):
    model = sequential()

    @tf.function(input_signature=[tf.TensorSpec([None, 5], tf.float32, name="x")])
    def doubled(x):
        return {"doubled": 2.0 * model(x), "size": tf.shape(x)[0]}

    prefix = kmg.save_meta_graph(
        model, tmp_path / "model", signatures={"doubled": doubled}, graphs=["predict"]
    )
    with restored(prefix) as session:
        expected = run_signature(session, f"{prefix}.meta", "doubled", {"x": X})
    graph = kmg.load_from_meta_graph(prefix, compile=False).meta_graph

    np.testing.assert_allclose(expected["doubled"], 2.0 * model.predict(X), **CLOSE)
    for values in (
        graph.signatures["doubled"](x=X),
        graph.signatures["doubled"]({"x": X}),
        graph.signatures["doubled"](X),
    ):
        np.testing.assert_allclose(values["doubled"], expected["doubled"], **CLOSE)
        assert values["size"] == 8


def test_signature_that_names_tensors(tmp_path):
    model = sequential()
    hidden = {"inputs": {"x": "x:0"}, "outputs": {"hidden": "dense/Relu:0"}}
    prefix = kmg.save_meta_graph(
        model, tmp_path / "model", signatures={"hidden": hidden}, graphs=["predict"]
    )
    with restored(prefix) as session:
        expected = session.run("dense/Relu:0", {"x:0": X})
    graph = kmg.load_from_meta_graph(prefix, compile=False).meta_graph

    np.testing.assert_allclose(model.layers[0](X), expected, **CLOSE)
    np.testing.assert_allclose(graph.signatures["hidden"](x=X)["hidden"], expected)
    np.testing.assert_allclose(graph.fetch("dense/Relu:0").predict(X), expected)


def test_own_training_loop(tmp_path):
    model = sequential()
    optimizer = keras.optimizers.RMSprop(0.01)
    model.compile(optimizer, "mse")
    for _ in range(5):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(X, training=True) - Y))
        optimizer.apply(
            tape.gradient(loss, model.trainable_weights), model.trainable_weights
        )
    prefix = kmg.save_meta_graph(model, tmp_path / "model", optimizer.iterations)

    assert prefix.endswith("model-5")
    assert_session_goes_on_the_same(prefix, model, {"x": X})


def test_mixin_and_collections(tmp_path):
    class Named(kmg.MetaGraphMixin, keras.Model):
        pass

    inputs = keras.Input((5,), name="x")
    model = Named(inputs, keras.layers.Dense(1, "relu", name="score")(inputs))
    model.add_to_collection("hparams", b'{"units": 1}')
    model.add_to_collection("logits", "score/Relu:0")
    prefix = model.save_meta_graph(tmp_path / "model")
    with restored(prefix) as session:
        (logits,) = tf1.get_collection("logits")
        (hparams,) = tf1.get_collection("hparams")
        expected = session.run(logits, {"x:0": X})
    again = kmg.load_from_meta_graph(prefix, {"Named": Named})

    assert hparams == b'{"units": 1}'
    assert again.meta_graph.collections["hparams"] == [hparams]
    assert again.meta_graph.collections["logits"] == ["score/Relu:0"]
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, **CLOSE)


def test_moving_average_of_the_optimizer(tmp_path):
    model = sequential()
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9), "mse")
    for _ in range(3):
        model.train_on_batch(X, Y)
    prefix = kmg.save_meta_graph(model, tmp_path / "model")
    again = kmg.load_from_meta_graph(prefix)

    assert_goes_on_the_same(again, model)
    again.optimizer.finalize_variable_values(again.trainable_weights)
    model.optimizer.finalize_variable_values(model.trainable_weights)
    np.testing.assert_array_equal(again.weights[0], model.weights[0])


class Gan(kmg.MetaGraphMixin, keras.Model):
    """Two networks, two optimizers, and a train step of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.Sequential([keras.layers.Dense(5)], name="generator")
        self.discriminator = keras.Sequential(
            [keras.layers.Dense(4, "relu"), keras.layers.Dense(1)], name="discriminator"
        )
        self.d_optimizer = keras.optimizers.Adam(0.02)

    def call(self, noise):
        return self.discriminator(self.generator(noise))

    def train_step(self, data):
        noise, real = data
        entropy = keras.losses.BinaryCrossentropy(from_logits=True)
        with tf.GradientTape(persistent=True) as tape:
            made, given = self(noise), self.discriminator(real)
            g_loss = entropy(tf.ones_like(made), made)
            d_loss = entropy(tf.zeros_like(made), made)
            d_loss += entropy(tf.ones_like(given), given)
        for optimizer, loss, network in (
            (self.d_optimizer, d_loss, self.discriminator),
            (self.optimizer, g_loss, self.generator),
        ):
            weights = network.trainable_weights
            optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": d_loss, "g_loss": g_loss}


def test_gan_with_two_optimizers(tmp_path):
    model = Gan()
    model.compile(keras.optimizers.Adam(0.02), "mse")
    noise = RNG.normal(size=(8, 2)).astype("float32")
    model.fit(noise, X, batch_size=8, epochs=2, verbose=0)
    prefix = model.save_meta_graph(tmp_path / "model", 2)
    meta = read_meta(f"{prefix}.meta")
    signature = meta.signature_def["train"]
    (noise_key,) = meta.signature_def["serving_default"].inputs
    (real_key,) = set(signature.inputs) - {noise_key}
    fed = {signature.inputs[noise_key].name: noise, signature.inputs[real_key].name: X}
    with restored(prefix) as session:
        train_op = tf1.get_collection("train_op")[-1]
        fetches = [signature.outputs["loss"].name, train_op]
        losses = [session.run(fetches, fed)[0] for _ in range(3)]

    history = model.fit(noise, X, batch_size=8, epochs=3, verbose=0).history
    np.testing.assert_allclose(history["loss"], losses, **CLOSE)
