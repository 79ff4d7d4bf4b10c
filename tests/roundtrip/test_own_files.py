"""Own files: what is loaded is what was saved, and goes on as it would have."""

import json
import os
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_metagraph as kmg
from keras_metagraph.errors import (
    CheckpointError,
    CustomObjectError,
    FormatError,
    MissingVariableError,
    ProtocolVersionError,
    ShapeMismatchError,
    SignatureError,
    UntrustedContentError,
)
from keras_metagraph.formats.layout import Export
from keras_metagraph.loading.own import COLLECTION, PROTOCOL, is_own, load_own

LAYERS = keras.layers
RNG = np.random.default_rng(3)
X = RNG.random((8, 5), dtype=np.float32)
Y = RNG.random((8, 1), dtype=np.float32)
ONE_HOT = np.eye(2, dtype=np.float32)[np.arange(8) % 2]
TOKENS = RNG.integers(0, 10, (8, 7))


class Loss(keras.losses.Loss):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, y_true, y_pred):
        return keras.ops.mean(self.factor * keras.ops.square(y_true - y_pred), -1)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Metric(keras.metrics.MeanAbsoluteError):
    pass


class Optimizer(keras.optimizers.RMSprop):
    pass


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, start=0.1):
        self.start = start

    def __call__(self, step):
        return self.start / (1.0 + keras.ops.cast(step, "float32"))

    def get_config(self):
        return {"start": self.start}


class Start(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape, dtype) * 0.1


class Gate(keras.layers.Layer):
    """Holds another layer, and variables of its own."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner
        self.norm = LAYERS.BatchNormalization()

    def build(self, shape):
        self.gate = self.add_weight(shape=(shape[-1],), initializer=Start(), name="g")
        super().build(shape)

    def call(self, inputs, training=None):
        return self.inner(self.norm(inputs, training=training)) * self.gate

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner}

    @classmethod
    def from_config(cls, config):
        inner = keras.saving.deserialize_keras_object(config.pop("inner"))
        return cls(inner, **config)


class Subclassed(keras.Model):
    """Takes a dict with integers; the names of its layers are Keras's choice."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.embedding = LAYERS.Embedding(10, 3)
        self.blocks = [LAYERS.Dense(units, activation="relu") for _ in range(2)]
        self.norm = LAYERS.BatchNormalization()
        self.dropout = LAYERS.Dropout(0.5)
        self.head = LAYERS.Dense(1)

    def call(self, inputs, training=None):
        words = keras.ops.mean(self.embedding(inputs["tokens"]), axis=1)
        hidden = keras.ops.concatenate([words, inputs["x"]], axis=-1)
        for block in self.blocks:
            hidden = self.dropout(block(hidden), training=training)
        return self.head(self.norm(hidden, training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("own_files")
class Registered(Subclassed):
    def train_step(self, data):
        logs = super().train_step(data)
        self.norm.gamma.assign(self.norm.gamma * 0.99)
        return logs


def half(x):
    return keras.ops.relu(x) * 0.5


def bias(y_true, y_pred):
    return keras.ops.mean(y_pred - y_true)


def sequential():
    model = keras.Sequential(
        [
            keras.Input([5]),
            LAYERS.Dense(6, activation="relu"),
            LAYERS.BatchNormalization(),
            LAYERS.Dropout(0.5),
            LAYERS.Dense(1, kernel_regularizer="l2"),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model, X, Y, {}


def deferred():
    model = keras.Sequential(
        [LAYERS.Dense(4), LAYERS.GaussianNoise(0.2), LAYERS.Dense(1)], name="deferred"
    )
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9, clipnorm=0.1), "mae")
    return model, X, Y, {}


def functional():
    """Two inputs, two outputs, a shared layer, a nested model, operations."""
    left, right = keras.Input([5], name="left"), keras.Input([5], name="right")
    shared = LAYERS.Dense(4, name="shared")
    nested = keras.Sequential(
        [keras.Input([4]), LAYERS.Dense(3, name="deep"), LAYERS.Dropout(0.3)],
        name="nested",
    )
    hidden = nested(shared(left) + shared(right))
    hidden = keras.ops.concatenate([hidden, shared(left) * 2.0], axis=-1)
    outputs = {
        "size": LAYERS.Dense(1, name="size")(hidden),
        "kind": LAYERS.Dense(2, activation="softmax", name="kind")(hidden),
    }
    model = keras.Model({"left": left, "right": right}, outputs, name="two")
    model.compile(
        keras.optimizers.AdamW(1e-2, use_ema=True),
        {"size": "mse", "kind": "categorical_crossentropy"},
        loss_weights={"size": 0.5, "kind": 2.0},
        metrics={"kind": ["accuracy"]},
    )
    data = {"left": X, "right": X[::-1].copy()}
    return model, data, {"size": Y, "kind": ONE_HOT}, {}


def recurrent():
    model = keras.Sequential(
        [
            keras.Input([7], dtype="int32"),
            LAYERS.Embedding(10, 4, mask_zero=True),
            LAYERS.Bidirectional(LAYERS.LSTM(3, dropout=0.2, recurrent_dropout=0.2)),
            LAYERS.Dense(1),
        ]
    )
    model.compile("nadam", "mse")
    return model, TOKENS.astype(np.int32), Y, {}


def mixed_precision():
    model = keras.Sequential(
        [
            keras.Input([5]),
            LAYERS.Dense(4, dtype="mixed_float16"),
            LAYERS.Dense(1, dtype="mixed_float16"),
        ]
    )
    optimizer = keras.optimizers.SGD(momentum=0.9, gradient_accumulation_steps=2)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer), "mse")
    return model, X, Y, {}


def mixed_by_policy():
    """Made under a policy for all layers, by which Keras scales the loss."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input([5]), LAYERS.Dense(4), LAYERS.Dense(1)])
        model.compile("adam", "mse")
    finally:
        keras.config.set_dtype_policy(before)
    return model, X, Y, {}


def custom_objects():
    """A custom layer, activation, initializer, loss, metric, optimizer, schedule."""
    gate = Gate(LAYERS.Dense(5, activation=half, kernel_initializer=Start()))
    model = keras.Sequential([keras.Input([5]), gate, LAYERS.Dense(1)])
    model.compile(Optimizer(Schedule()), Loss(3.0), metrics=[Metric(), bias])
    return model, X, Y, {item.__name__: item for item in CUSTOM}


CUSTOM = (Gate, Start, half, Loss, Metric, bias, Optimizer, Schedule)


def subclassed():
    model = Subclassed(units=3)
    model.compile("ftrl", "mse", metrics=["mae"])
    return model, {"tokens": TOKENS, "x": X}, Y, {"Subclassed": Subclassed}


def registered():
    model = Registered(name="registered")
    model.compile("adam", "mse")
    return model, {"tokens": TOKENS, "x": X}, Y, {}


def functional_subclass():
    class Wrapped(keras.Model):
        pass

    inputs = keras.Input([5], name="x")
    model = Wrapped(inputs, LAYERS.Dense(1)(LAYERS.Dropout(0.5)(inputs)))
    model.compile("adagrad", "mse")
    return model, X, Y, {"Wrapped": Wrapped}


MODELS = (
    sequential,
    deferred,
    functional,
    recurrent,
    mixed_precision,
    mixed_by_policy,
    custom_objects,
    subclassed,
    registered,
    functional_subclass,
)


def trained(make, steps=3):
    model, x, y, custom = make()
    for _ in range(steps):
        model.train_on_batch(x, y)
    return model, x, y, custom


def save(model, directory):
    return kmg.save_meta_graph(
        model, os.path.join(directory, "model"), model.optimizer.iterations
    )


def assert_equal(left, right):
    flat = keras.tree.flatten(left), keras.tree.flatten(right)
    for one, other in zip(*flat, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def as_json(config):
    return json.dumps(config, sort_keys=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saves each model once; gives model, prefix, x, y, custom objects."""
    done = {}

    def get(make):
        if make not in done:
            model, x, y, custom = trained(make)
            prefix = save(model, tmp_path_factory.mktemp(make.__name__))
            done[make] = (model, prefix, x, y, custom)
        return done[make]

    return get


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_everything_is_the_same_and_goes_on_the_same(tmp_path, make):
    model, x, y, custom = trained(make)
    prefix = save(model, tmp_path)
    keras.utils.clear_session()  # other layer numbers, as in another process
    loaded = kmg.load_from_meta_graph(prefix, custom, rebuild="config")

    assert type(loaded) is type(model)
    assert loaded.name == model.name
    assert as_json(loaded.get_config()) == as_json(model.get_config())
    assert as_json(loaded.get_compile_config()) == as_json(model.get_compile_config())
    if make is not custom_objects:  # What Gate does with its layer is its own affair.
        assert [w.path for w in loaded.weights] == [w.path for w in model.weights]
    assert_equal(loaded.weights, model.weights)
    assert_equal(loaded.variables, model.variables)  # random seeds too
    assert_equal(loaded.optimizer.variables, model.optimizer.variables)
    assert [w.trainable for w in loaded.weights] == [w.trainable for w in model.weights]
    assert_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))

    for _ in range(4):
        one, other = loaded.train_on_batch(x, y), model.train_on_batch(x, y)
    assert_equal(loaded.variables, model.variables)
    assert_equal(loaded.optimizer.variables, model.optimizer.variables)
    assert np.isfinite(np.asarray(one)).all()
    assert np.isfinite(np.asarray(other)).all()


def test_dropout_goes_on_with_the_next_mask(saved):
    model, prefix, x, _, _ = saved(sequential)
    loaded = kmg.load_from_meta_graph(prefix)
    one, other = loaded(x, training=True), model(x, training=True)
    assert_equal(one, other)
    assert not np.array_equal(other, model(x, training=True))


def test_layers_keep_their_names(saved):
    model, prefix, *_ = saved(functional)
    loaded = kmg.load_from_meta_graph(prefix)
    assert [la.name for la in loaded.layers] == [la.name for la in model.layers]
    assert loaded.get_layer("nested").get_layer("deep").units == 3
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]


def test_names_are_in_the_variable_map(saved):
    model, prefix, *_ = saved(sequential)
    loaded = kmg.load_from_meta_graph(prefix)
    assert loaded.meta_graph.variables["dense/kernel"] is loaded.weights[0]
    assert loaded.meta_graph.variables["global_step"] is loaded.optimizer.iterations
    assert loaded.meta_graph.variable_map["dense/kernel"] == model.weights[0].path


def test_without_compile(saved):
    _, prefix, x, _, custom = saved(custom_objects)
    model_only = {name: custom[name] for name in ("Gate", "Start", "half")}
    loaded = kmg.load_from_meta_graph(
        prefix, model_only, compile=False, rebuild="config"
    )
    assert not loaded.compiled
    assert loaded.predict(x, verbose=0).shape == (8, 1)


def test_model_that_was_not_compiled(tmp_path):
    model = keras.Sequential([keras.Input([5]), LAYERS.Dense(2)])
    prefix = kmg.save_meta_graph(model, tmp_path / "model", graphs=["predict"])
    loaded = kmg.load_from_meta_graph(prefix, rebuild="config")
    assert not loaded.compiled
    assert_equal(loaded.weights, model.weights)


def test_predict_graph_alone_says_that_it_has_no_optimizer(tmp_path):
    model, *_ = trained(sequential)
    prefix = kmg.save_meta_graph(model, tmp_path / "model", graphs=["predict"])
    with pytest.warns(UserWarning, match="no state of the optimizer") as caught:
        loaded = kmg.load_from_meta_graph(prefix)
    message = str(caught[0].message)
    assert "global_step" in message
    assert "dense/kernel/Adam" in message
    assert loaded.compiled
    assert int(loaded.optimizer.iterations) == 0
    assert_equal(loaded.weights, model.weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kmg.load_from_meta_graph(prefix, compile=False)


def test_directory_and_meta_load_the_same(tmp_path):
    model, *_ = trained(sequential)
    prefix = save(model, tmp_path)
    for path in (prefix, f"{prefix}.meta", tmp_path):
        assert_equal(kmg.load_from_meta_graph(path).weights, model.weights)


def test_all_missing_names_are_in_one_error(saved):
    _, prefix, *_ = saved(custom_objects)
    with pytest.raises(CustomObjectError) as caught:
        kmg.load_from_meta_graph(prefix, rebuild="config")
    named = {finding.split("'")[1] for finding in caught.value.findings}
    assert named == {item.__name__ for item in CUSTOM}


def test_without_the_classes_the_graph_predicts_and_trains(saved):
    model, prefix, x, y, _ = saved(custom_objects)
    with pytest.warns(UserWarning, match="loaded as its graph") as caught:
        loaded = kmg.load_from_meta_graph(prefix)
    assert all(item.__name__ in str(caught[0].message) for item in CUSTOM)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-5)
    history = loaded.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    losses = history.history["loss"]
    assert losses[2] < losses[0]


def test_what_the_caller_names_is_taken_from_the_graph(tmp_path):
    inputs = keras.Input([5], name="x")
    hidden = LAYERS.Dense(4, "relu", name="hidden")(inputs)
    model = keras.Model(inputs, LAYERS.Dense(1)(hidden))
    features = {"serving_default": kmg.predict_signature(model)}
    features["features"] = kmg.predict_signature(model, outputs={"h": hidden})
    prefix = kmg.save_meta_graph(model, tmp_path / "model", signatures=features)
    loaded = kmg.load_from_meta_graph(prefix, signature="features")
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0),
        keras.Model(inputs, hidden).predict(X, verbose=0),
        rtol=1e-5,
    )
    with pytest.raises(SignatureError, match="nearest: features"):
        kmg.load_from_meta_graph(prefix, signature="feature")
    assert type(kmg.load_from_meta_graph(prefix, variable_map={})) is type(model)


def test_the_graph_takes_its_sample_weights(tmp_path):
    model = keras.Sequential([keras.Input([5]), LAYERS.Dense(1)])
    model.compile("sgd", "mse")
    prefix = kmg.save_meta_graph(model, tmp_path / "model", sample_weight=True)
    weights = np.arange(8, dtype=np.float32)
    expected = model.train_on_batch(X, Y, sample_weight=weights)
    for y, given in ((Y, weights), ({"labels": Y, "sample_weight": weights}, None)):
        loaded = kmg.load_from_meta_graph(prefix, rebuild="graph")
        loss = loaded.train_on_batch(X, y, sample_weight=given)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
    with pytest.raises(SignatureError, match="missing label: sample_weight"):
        loaded.train_on_batch(X, Y)


@pytest.mark.parametrize("rebuild", ["config", "graph"])
def test_sparse_inputs_are_whole(tmp_path, rebuild):
    inputs = keras.Input([5], sparse=True, name="bag")
    model = keras.Model(inputs, LAYERS.Dense(1)(inputs))
    prefix = kmg.save_meta_graph(model, tmp_path / "model")
    loaded = kmg.load_from_meta_graph(prefix, rebuild=rebuild)
    bag = tf.sparse.from_dense(X)
    (output,) = loaded.meta_graph.signatures["serving_default"](bag=bag).values()
    np.testing.assert_allclose(output, model.predict(bag, verbose=0), rtol=1e-5)


def test_frozen_layers_stay_frozen(tmp_path):
    model, x, y, custom = subclassed()
    model.predict(x, verbose=0)
    model.norm.trainable = False
    model.blocks[0].trainable = False
    model.compile("adam", "mse")
    model.train_on_batch(x, y)
    loaded = kmg.load_from_meta_graph(save(model, tmp_path), custom, rebuild="config")
    assert not loaded.norm.trainable
    assert not loaded.blocks[0].trainable
    assert loaded.blocks[1].trainable
    model.train_on_batch(x, y)
    loaded.train_on_batch(x, y)
    assert_equal(loaded.weights, model.weights)


@pytest.mark.parametrize("mode", ["int", "tf_idf"])
def test_adapted_vocabularies_come_back(tmp_path, mode):
    lookup = LAYERS.StringLookup(output_mode=mode)
    lookup.adapt(tf.constant([["red", "blue"], ["red", "green"]]))
    inputs = keras.Input([2], dtype="string")
    hidden = LAYERS.Rescaling(1.0)(keras.ops.cast(lookup(inputs), "float32"))
    model = keras.Model(inputs, LAYERS.Dense(1)(hidden))
    model.compile("sgd", "mse")
    x = tf.constant([["blue", "none"], ["red", "green"]])
    model.train_on_batch(x, Y[:2])
    loaded = kmg.load_from_meta_graph(save(model, tmp_path), rebuild="config")
    assert_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_adapted_normalization_comes_back(tmp_path):
    normalization = LAYERS.Normalization()
    normalization.adapt(X * 10.0)
    model = keras.Sequential([keras.Input([5]), normalization, LAYERS.Dense(1)])
    model.compile("sgd", "mse")
    model.train_on_batch(X, Y)
    loaded = kmg.load_from_meta_graph(save(model, tmp_path), rebuild="config")
    assert_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


def test_quantized_layers_come_back(tmp_path):
    model = keras.Sequential([keras.Input([5]), LAYERS.Dense(4), LAYERS.Dense(1)])
    for layer in model.layers:
        layer.quantize("int8")
    prefix = kmg.save_meta_graph(model, tmp_path / "model")
    loaded = kmg.load_from_meta_graph(prefix, rebuild="config")
    assert loaded.layers[0].kernel.dtype == "int8"
    assert_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


def test_the_optimizer_is_whole_after_a_save_to_h5(tmp_path):
    model = keras.Sequential([keras.Input([5]), LAYERS.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1, amsgrad=True), "mse")
    model.train_on_batch(X, Y)
    model.save(tmp_path / "model.h5")  # takes the optimizer out of Keras's own config
    loaded = kmg.load_from_meta_graph(save(model, tmp_path), rebuild="config")
    assert loaded.train_on_batch(X, Y) == model.train_on_batch(X, Y)


def test_lambda_is_refused_unless_trusted(tmp_path):
    model = keras.Sequential([keras.Input([5]), LAYERS.Lambda(lambda t: t * 2.0)])
    model.add(LAYERS.Dense(1))
    model.compile("sgd", loss=lambda y, p: (y - p) ** 2)
    with pytest.warns(UserWarning, match="lambda"):
        prefix = save(model, tmp_path)
    with pytest.raises(UntrustedContentError, match='rebuild="graph"'):
        kmg.load_from_meta_graph(prefix)
    loaded = kmg.load_from_meta_graph(prefix, rebuild="graph")
    assert_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    loaded = kmg.load_from_meta_graph(prefix, safe_mode=False, rebuild="config")
    assert_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert loaded.train_on_batch(X, Y) == model.train_on_batch(X, Y)


def test_callback_and_load_go_on_as_one_fit(tmp_path):
    def fit(model, epochs, initial_epoch=0, **arguments):
        model.fit(
            X,
            Y,
            batch_size=4,
            shuffle=False,
            epochs=epochs,
            initial_epoch=initial_epoch,
            verbose=0,
            **arguments,
        )

    model, *_ = sequential()
    fit(model, 2, callbacks=[kmg.MetaGraphCheckpoint(tmp_path / "model")])
    loaded = kmg.load_from_meta_graph(tmp_path)
    fit(model, 4, 2)
    fit(loaded, 4, 2, callbacks=[kmg.MetaGraphCheckpoint(tmp_path / "model")])
    assert_equal(loaded.variables, model.variables)
    assert_equal(loaded.optimizer.variables, model.optimizer.variables)
    assert_equal(kmg.load_from_meta_graph(tmp_path).weights, model.weights)


@pytest.fixture
def description(saved):
    """The MetaGraphDef of an own file, and a function that loads it changed."""
    _, prefix, *_ = saved(sequential)
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    with open(f"{prefix}.meta", "rb") as file:
        meta_graph_def.ParseFromString(file.read())
    values = meta_graph_def.collection_def[COLLECTION].bytes_list.value
    fields = json.loads(values[0])

    def load(checkpoint=prefix, text=None, **changes):
        changed = json.dumps({**fields, **changes}).encode() if text is None else text
        values[0] = changed
        export = Export(f"{prefix}.meta", "meta_graph", [meta_graph_def], checkpoint)
        return load_own(export, meta_graph_def)

    load.fields = fields
    load.meta_graph_def = meta_graph_def
    return load


def test_own_files_are_known_by_their_collection(description):
    assert is_own(description.meta_graph_def)
    assert not is_own(tf.compat.v1.MetaGraphDef())


def test_newer_protocol_says_so(description):
    with pytest.raises(ProtocolVersionError, match="newer keras_metagraph"):
        description(protocol=PROTOCOL + 1, variables="of another form")


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": "1"},
        {"protocol": 0},
        {"model": "text"},
        {"variables": [{"name": "x"}]},
        {"variables": [{"name": 1, "role": "weight", "index": 0, "shape": []}]},
        {"variables": None},
        {"text": b""},
        {"text": b"[]"},
        {"text": b"{"},
        {"text": b"\xff\xff"},
        {"text": b"[" * 100_000},
    ],
)
def test_damaged_description_is_one_error(description, changes):
    with pytest.raises(FormatError, match="damaged"):
        description(**changes)


def test_model_without_config_says_why(description):
    with pytest.raises(CustomObjectError, match="no get_config here"):
        description(model=None, model_error="no get_config here")


def test_missing_checkpoint(description):
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        description(checkpoint=None)


def test_config_that_is_no_model(description):
    config = keras.saving.serialize_keras_object(LAYERS.Dense(2))
    with pytest.raises(CustomObjectError, match="not a model"):
        description(model=config)


def test_config_that_its_class_does_not_take(description):
    model = json.loads(json.dumps(description.fields["model"]))
    model["config"]["layers"][1]["config"]["unheard_of"] = 1
    with pytest.raises(CustomObjectError, match="unheard_of"):
        description(model=model)


def test_checkpoint_of_another_model_lists_all_that_is_missing(description, saved):
    _, other, *_ = saved(functional)
    with pytest.raises(MissingVariableError) as caught:
        description(checkpoint=other)
    missing = {finding.split(" ")[0] for finding in caught.value.findings}
    assert {"dense/kernel", "dense_1/bias", "batch_normalization/gamma"} <= missing


def test_shapes_that_do_not_fit_are_all_listed(description, tmp_path):
    model = keras.Sequential(
        [
            keras.Input([5]),
            LAYERS.Dense(7, activation="relu"),
            LAYERS.BatchNormalization(),
            LAYERS.Dropout(0.5),
            LAYERS.Dense(1),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    model.train_on_batch(X, Y)
    with pytest.raises(ShapeMismatchError) as caught:
        description(checkpoint=save(model, tmp_path))
    wrong = {finding.split(":")[0] for finding in caught.value.findings}
    assert {"dense/kernel", "dense/bias", "batch_normalization/gamma/Adam"} <= wrong
    assert "dense_1/bias" not in wrong


def test_variables_that_the_model_does_not_have_are_all_listed(description):
    records = description.fields["variables"]
    more = [{**records[0], "name": f"more/{n}", "index": 100 + n} for n in range(3)]
    with pytest.raises(ShapeMismatchError) as caught:
        description(variables=records + more)
    assert len(caught.value.findings) == 3


def test_damaged_values_are_one_error(saved, tmp_path):
    model, _, _, _ = trained(sequential)
    prefix = save(model, tmp_path)
    path = f"{prefix}.data-00000-of-00001"
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8)
    with pytest.raises(CheckpointError, match="To fix:"):
        kmg.load_from_meta_graph(prefix)
