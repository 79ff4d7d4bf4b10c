"""Keras models with data, for comparing what they do with what TensorFlow 1 does.

Each builder returns a compiled model and a function that draws a batch: `x`, `y` and
sample weights as `fit` takes them, None for what there is not.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

BATCH = 8


def floats(rng, *shape):
    return rng.normal(size=(BATCH, *shape)).astype("float32")


def classes(rng, count, *shape):
    return rng.integers(0, count, size=(BATCH, *shape))


def words(rng, vocabulary, *shape):
    return np.array(vocabulary)[classes(rng, len(vocabulary), *shape)]


def is_unused(variable, optimizer):
    """Whether a slot is one that RMSProp without momentum writes and never reads."""
    rmsprop = isinstance(optimizer, keras.optimizers.RMSprop)
    return rmsprop and not optimizer.momentum and variable.endswith("/RMSProp_1")


def mlp():
    """MLP with batch normalization, dropout and regularization."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="relu", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, lambda rng: (floats(rng, 8), classes(rng, 3), None)


def conv():
    """Convolutions, grouped and separable, a schedule and Nesterov momentum."""
    model = keras.Sequential(
        [
            keras.Input((12, 12, 4)),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(8, 3),
            layers.Conv2D(8, 2, groups=2),
            layers.SpatialDropout2D(0.2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(0.05, 30)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model, lambda rng: (floats(rng, 12, 12, 4), classes(rng, 4), None)


def lstm():
    """LSTMs over masked embeddings, with both kinds of dropout."""
    model = keras.Sequential(
        [
            keras.Input((7,)),
            layers.Embedding(11, 6, mask_zero=True),
            layers.LSTM(5, return_sequences=True, dropout=0.2, recurrent_dropout=0.1),
            layers.Bidirectional(layers.LSTM(4)),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("rmsprop", "binary_crossentropy", metrics=["AUC"])
    return model, lambda rng: (
        classes(rng, 11, 7),
        classes(rng, 2, 1).astype("float32"),
        None,
    )


def gru():
    """GRUs of both kinds, weighted samples."""
    model = keras.Sequential(
        [
            keras.Input((7, 3)),
            layers.GRU(5, return_sequences=True),
            layers.GRU(4, reset_after=False, dropout=0.1),
            layers.Dense(2),
        ]
    )
    model.compile("nadam", "mse", weighted_metrics=["mae"])
    return model, lambda rng: (
        floats(rng, 7, 3),
        floats(rng, 2),
        np.abs(floats(rng)),
    )


def transformer():
    """A causal transformer block with weight decay and clipping."""
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(13, 8)(tokens) + layers.Embedding(6, 8)(ops.arange(6))
    attended = layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x, use_causal_mask=True)
    x = layers.LayerNormalization()(x + attended)
    wide = layers.Dense(16, activation="gelu")(x)
    x = layers.LayerNormalization()(x + layers.Dropout(0.1)(layers.Dense(8)(wide)))
    model = keras.Model(tokens, layers.Dense(13)(x))
    model.compile(
        keras.optimizers.AdamW(1e-2, weight_decay=0.01, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model, lambda rng: (
        classes(rng, 13, 6).astype("int32"),
        classes(rng, 13, 6),
        None,
    )


def two_inputs_two_outputs():
    """A functional model with two inputs, two weighted losses and noise."""
    a, b = keras.Input((5,), name="a"), keras.Input((4,), name="b")
    hidden = layers.Dense(8, activation="tanh")(layers.Concatenate()([a, b]))
    hidden = layers.GaussianNoise(0.1)(hidden)
    outputs = [
        layers.Dense(2, name="main")(hidden),
        layers.Dense(1, activation="sigmoid", name="aux")(hidden),
    ]
    model = keras.Model([a, b], outputs)
    model.compile(
        "adam",
        ["mse", "binary_crossentropy"],
        loss_weights=[1.0, 0.3],
        metrics=[["mae"], ["accuracy"]],
    )
    return model, lambda rng: (
        [floats(rng, 5), floats(rng, 4)],
        [floats(rng, 2), classes(rng, 2, 1).astype("float32")],
        None,
    )


class OwnStep(keras.Model):
    """A subclassed model with a train step and metrics of its own."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(8, activation="relu")
        self.dropout = layers.Dropout(0.4)
        self.head = layers.Dense(1)
        self.mean_loss = keras.metrics.Mean(name="loss")

    def call(self, x, training=False):
        return self.head(self.dropout(self.hidden(x), training=training))

    @property
    def metrics(self):
        return [self.mean_loss]

    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            error = ops.mean((self(x, training=True) - y) ** 2)
            weights = self.trainable_variables
            loss = error + 1e-3 * sum(ops.sum(weight**2) for weight in weights)
        gradients = [tf.clip_by_norm(g, 1.0) for g in tape.gradient(loss, weights)]
        self.optimizer.apply(gradients, weights)
        self.mean_loss.update_state(loss)
        return {"loss": self.mean_loss.result()}

    def test_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        self.mean_loss.update_state(ops.mean((self(x) - y) ** 2))
        return {"loss": self.mean_loss.result()}


def subclassed():
    """`OwnStep`."""
    model = OwnStep()
    model.compile("adam")
    return model, lambda rng: (floats(rng, 6), floats(rng, 1), None)


def string_lookup():
    """Words looked up in a table."""
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="string"),
            layers.StringLookup(vocabulary=["a", "b", "c"]),
            layers.Embedding(5, 4),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(1),
        ]
    )
    model.compile("adagrad", "mse")
    return model, lambda rng: (
        words(rng, ["a", "b", "c", "?"], 3),
        floats(rng, 1),
        None,
    )


def text_vectorization():
    """Texts split and counted."""
    vocabulary = ["the", "cat", "dog", "runs"]
    vectorize = layers.TextVectorization(output_mode="multi_hot", vocabulary=vocabulary)
    texts = ["The cat runs", "dog!", "a dog, the cat", ""]
    model = keras.Sequential(
        [keras.Input((), dtype="string"), vectorize, layers.Dense(1)]
    )
    model.compile("ftrl", "mse")
    return model, lambda rng: (words(rng, texts), floats(rng, 1), None)


def moving_averages():
    """Averaged weights that take the place of the weights, and clipped gradients."""
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, activation="relu"), layers.Dense(3)]
    )
    model.compile(
        keras.optimizers.Adam(
            1e-2, use_ema=True, ema_overwrite_frequency=3, clipvalue=0.5
        ),
        "huber",
    )
    return model, lambda rng: (floats(rng, 8), floats(rng, 3), None)


def accumulated_gradients():
    """Gradients of three batches for one update: control flow in the optimizer."""
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, activation="relu"), layers.Dense(3)]
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3), "mse"
    )
    return model, lambda rng: (floats(rng, 8), floats(rng, 3), None)


def scaled_loss():
    """A loss scale that grows while no gradient overflows."""
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    inner = keras.optimizers.Adam(1e-2)
    model.compile(
        keras.optimizers.LossScaleOptimizer(inner, dynamic_growth_steps=4), "mse"
    )
    return model, lambda rng: (floats(rng, 8), floats(rng, 3), None)


class Penalty(layers.Layer):
    """Adds a loss of its own."""

    def call(self, x):
        self.add_loss(1e-2 * ops.sum(ops.square(x)))
        return x


def nested_and_shared():
    """Dicts in and out, a nested model called twice, a shared layer, `add_loss`."""
    inner = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(6, activation="relu"),
            Penalty(),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
        ],
        name="inner",
    )
    x = keras.Input((8,), name="x")
    shared = layers.Dense(8, name="shared")
    both = inner(shared(x)) + inner(shared(shared(x)))
    model = keras.Model({"x": x}, {"o": layers.Dense(2, name="o")(both)})
    model.compile("adadelta", {"o": "mse"})
    return model, lambda rng: ({"x": floats(rng, 8)}, {"o": floats(rng, 2)}, None)


MODELS = {
    builder.__name__: builder
    for builder in (
        mlp,
        conv,
        lstm,
        gru,
        transformer,
        two_inputs_two_outputs,
        subclassed,
        string_lookup,
        text_vectorization,
        moving_averages,
        accumulated_gradients,
        scaled_loss,
        nested_and_shared,
    )
}

# One of each family of `keras.applications`, and the smallest image it takes.
APPLICATIONS = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "VGG19": 32,
    "Xception": 71,
}
