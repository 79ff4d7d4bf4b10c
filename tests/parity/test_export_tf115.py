"""Keras models go on in real TensorFlow 1.15: the same predictions, the same losses.

Dropout is on, and its masks are those that Keras would have drawn.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_metagraph import save_meta_graph

BATCH, BEFORE, AFTER = 16, 3, 20


def mlp():
    model = keras.Sequential(
        [
            keras.Input((6,), name="x"),
            layers.Dense(16, "relu", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, {"x": floats(6)}, {"labels": classes(3)}


def conv():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(8, 3),
            layers.SpatialDropout2D(0.2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.1, 50)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9, nesterov=True), loss)
    return model, {"image": floats(8, 8, 3)}, {"labels": classes(4)}


def recurrent(layer):
    def build():
        model = keras.Sequential(
            [
                keras.Input((7,), dtype="int32", name="ids"),
                layers.Embedding(20, 8, mask_zero=True),
                layers.Bidirectional(layer(6, return_sequences=True, dropout=0.2)),
                layer(5),
                layers.Dense(1),
            ]
        )
        model.compile(keras.optimizers.RMSprop(0.01, momentum=0.5), "mse")
        return model, {"ids": classes(20, 7)}, {"labels": floats(1)}

    return build


def transformer():
    ids = keras.Input((8,), dtype="int32", name="ids")
    x = layers.Embedding(30, 16)(ids)
    for _ in range(2):
        attended = layers.MultiHeadAttention(2, 8, dropout=0.1)(x, x)
        x = layers.LayerNormalization()(x + attended)
        x = layers.LayerNormalization()(x + layers.Dense(16, "gelu")(x))
    outputs = layers.Dense(2, "softmax")(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(ids, outputs)
    model.compile(
        keras.optimizers.AdamW(0.01, clipnorm=1.0), "sparse_categorical_crossentropy"
    )
    return model, {"ids": classes(30, 8)}, {"labels": classes(2)}


def two_in_two_out():
    left = keras.Input((4,), name="left")
    right = keras.Input((5,), name="right")
    shared = layers.Dense(6, "tanh")
    both = layers.concatenate([shared(layers.Dense(3)(left)), shared(right[:, :3])])
    both = layers.GaussianNoise(0.1)(both)
    number = layers.Dense(1, name="number")(both)
    kind = layers.Dense(3, "softmax", name="kind")(both)
    model = keras.Model(
        {"left": left, "right": right}, {"number": number, "kind": kind}
    )
    model.compile(
        keras.optimizers.Nadam(0.01),
        {"number": "mse", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"number": 1.0, "kind": 0.5},
    )
    feeds = {"left": floats(4), "right": floats(5)}
    return model, feeds, {"number": floats(1), "kind": classes(3)}


class OwnStep(keras.Model):
    """A subclassed model that trains in its own way."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(8, "relu")
        self.dropout = layers.Dropout(0.4)
        self.head = layers.Dense(1)

    def call(self, inputs, training=False):
        return self.head(self.dropout(self.hidden(inputs), training=training))

    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            error = y - self(x, training=True)
            loss = tf.reduce_mean(error**2) + 1e-3 * tf.reduce_sum(
                self.hidden.kernel**2
            )
        gradients = tape.gradient(loss, self.trainable_variables)
        gradients = [tf.clip_by_norm(gradient, 1.0) for gradient in gradients]
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_variables, strict=True)
        )
        return {"loss": loss}


def subclassed():
    model = OwnStep()
    model(np.zeros([1, 4], "float32"))
    model.compile(keras.optimizers.Adagrad(0.05), "mse")
    return model, {"x": floats(4)}, {"labels": floats(1)}


def string_lookup():
    words = keras.Input((3,), dtype="string", name="words")
    ids = layers.StringLookup(vocabulary=["red", "green", "blue"])(words)
    x = layers.Flatten()(layers.Embedding(4, 5)(ids))
    model = keras.Model(words, layers.Dense(1)(layers.Dropout(0.2)(x)))
    model.compile("adam", "mse")
    colours = np.array([b"red", b"green", b"blue", b"none"])
    return (
        model,
        {"words": lambda r: colours[r.randint(0, 4, [BATCH, 3])]},
        {"labels": floats(1)},
    )


def floats(*shape):
    return lambda random: random.rand(BATCH, *shape).astype("float32")


def classes(count, *shape):
    return lambda random: random.randint(0, count, [BATCH, *shape]).astype("int32")


MODELS = {
    "mlp": mlp,
    "conv": conv,
    "lstm": recurrent(layers.LSTM),
    "gru": recurrent(layers.GRU),
    "transformer": transformer,
    "two_in_two_out": two_in_two_out,
    "subclassed": subclassed,
    "string_lookup": string_lookup,
}


def batch_of(makers, random):
    return {key: make(random) for key, make in makers.items()}


def given(values, keys):
    """As Keras takes it: the one array, or the dict."""
    values = {
        key: tf.constant(value) if value.dtype.kind == "S" else value
        for key, value in values.items()
    }
    return values if len(keys) > 1 else next(iter(values.values()))


@pytest.mark.parametrize("name", MODELS)
def test_goes_on_in_tensorflow_1(name, tmp_path, tf115):
    model, inputs, labels = MODELS[name]()
    random = np.random.RandomState(5)
    batches = [
        (batch_of(inputs, random), batch_of(labels, random))
        for _ in range(BEFORE + AFTER)
    ]
    losses, prefix = [], None
    for step, (x, y) in enumerate(batches):
        if step == BEFORE:
            prefix = save_meta_graph(model, tmp_path / "model", step)
            predicted = model(given(x, inputs), training=False)
        model.reset_metrics()
        logs = model.train_on_batch(
            given(x, inputs), given(y, labels), return_dict=True
        )
        losses.append(float(logs["loss"]))
    signatures = read_signatures(prefix)
    feeds = feeds_of(signatures["train"], inputs, labels)
    rows = [x | y for x, y in batches[BEFORE:]]
    arrays = {f"step/{feeds[k]}": np.stack([row[k] for row in rows]) for k in feeds}
    first = batches[BEFORE][0]
    served = feeds_of(signatures["serving_default"], inputs, {})
    arrays |= {f"feed/{served[key]}": first[key] for key in served}
    outputs = signatures["serving_default"].outputs
    done = tf115(
        "session",
        arrays,
        {
            "meta": f"{prefix}.meta",
            "checkpoint": prefix,
            "loss": signatures["train"].outputs["loss"].name,
            "fetches": {key: info.name for key, info in outputs.items()},
            "after": False,
        },
    )
    predicted = predicted if isinstance(predicted, dict) else {"": predicted}
    for value, key in zip(
        predicted.values(), sorted_like(outputs, predicted), strict=True
    ):
        np.testing.assert_allclose(done[f"fetch/{key}"], value, 1e-5, 1e-5)
    np.testing.assert_allclose(done["losses"], losses[BEFORE:], rtol=1e-6)


def read_signatures(prefix):
    with open(f"{prefix}.meta", "rb") as file:
        meta_graph_def = tf.compat.v1.MetaGraphDef.FromString(file.read())
    return meta_graph_def.signature_def


def feeds_of(signature, inputs, labels):
    """Placeholders by our name of what they take; a single one may have another."""
    found = {key: info.name for key, info in signature.inputs.items()}
    wanted = [*inputs, *labels]
    rest = [key for key in found if key not in wanted]
    return {key: found[key] if key in found else found[rest.pop(0)] for key in wanted}


def sorted_like(outputs, predicted):
    return list(predicted) if set(predicted) == set(outputs) else list(outputs)
