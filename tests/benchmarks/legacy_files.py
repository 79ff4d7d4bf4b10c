"""Files of TensorFlow 1 to load: fixtures, and a residual network made on the spot.

As a program it writes the network, with TensorFlow's interface of then, reference
variables and v1 conditionals: `python -m benchmarks.legacy_files PREFIX BLOCKS`.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from oracle import references

_FIXTURES = ("zoo/mlp_adam", "zoo/lstm_rmsprop", "zoo/transformer_adamw")
_WIDTHS = (64, 128, 256, 512)
tf1 = tf.compat.v1


@dataclasses.dataclass(frozen=True)
class LegacyFile:
    """An export, and what to run in it.

    Attributes:
        name: What it is.
        prefix: Its checkpoint prefix; the `.meta` is beside it.
        inputs: Tensor names by input name.
        output: The tensor to predict.
        arrays: A value by input name.
        constants: Values of placeholders that are no inputs, by tensor name.
    """

    name: str
    prefix: str
    inputs: dict[str, str]
    output: str
    arrays: dict[str, np.ndarray]
    constants: dict[str, Any]


def legacy_files(folder: Path, quick: bool) -> list[LegacyFile]:
    """The files of a run; the large one is written to `folder`."""
    files = [_fixture(name) for name in _FIXTURES[: 1 if quick else None]]
    prefix, blocks = folder / "residual", ("1", "1") if quick else ("3", "4", "6", "3")
    subprocess.run([sys.executable, "-m", __spec__.name, prefix, *blocks], check=True)
    name = f"residual net, {sum(map(int, blocks))} blocks"
    images = np.random.default_rng(4).standard_normal((2, 64, 64, 3), "float32")
    made = LegacyFile(
        name,
        str(prefix),
        {"images": "images:0"},
        "scores:0",
        {"images": images},
        {"is_training:0": False},
    )
    return [*files, made]


def _fixture(name: str) -> LegacyFile:
    export = references.export(name)
    is_input = {key: bool(array.ndim) for key, array in export.inputs.items()}
    return LegacyFile(
        name,
        str(export.source.checkpoint),
        {key: tensor for key, tensor in export.feeds.items() if is_input[key]},
        next(iter(export.fetches.values())),
        {key: array for key, array in export.inputs.items() if is_input[key]},
        {
            export.feeds[key]: array.item()
            for key, array in export.inputs.items()
            if not is_input[key]
        },
    )


def write_residual_net(prefix: str, blocks: list[int]) -> None:
    """Writes a network of bottleneck blocks, trained by Adam, after its first step."""
    with tf1.Graph().as_default(), tf1.Session() as session:
        tf1.set_random_seed(6)
        images = tf1.placeholder(tf.float32, [None, 64, 64, 3], "images")
        labels = tf1.placeholder(tf.int32, [None], "labels")
        training = tf1.placeholder_with_default(False, [], "is_training")
        x = _convolution("stem", images, 64, 7, 2, training)
        for stage, (count, width) in enumerate(zip(blocks, _WIDTHS, strict=False)):
            for i in range(count):
                stride = 2 if stage and not i else 1
                x = _block(f"stage{stage}/block{i}", x, width, stride, training)
        pooled = tf.reduce_mean(x, [1, 2])
        kernel = _variable("scores/kernel", [pooled.shape[-1], 1000])
        scores = tf.nn.softmax(logits := tf.matmul(pooled, kernel), name="scores")
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), name="loss"
        )
        with tf1.control_dependencies(tf1.get_collection(tf1.GraphKeys.UPDATE_OPS)):
            train_op = tf1.train.AdamOptimizer().minimize(loss)
        tf1.add_to_collection("train_op", train_op)
        session.run(tf1.global_variables_initializer())
        zeros = np.zeros((2, 64, 64, 3), "float32")
        feeds: dict[Any, Any] = {images: zeros, labels: [1, 2], training: True}
        session.run([train_op, scores], feeds)
        tf1.train.Saver().save(session, prefix)


def _block(name: str, x: Any, width: int, stride: int, training: Any) -> Any:
    """A bottleneck block: three convolutions, and the way past them."""
    y = _convolution(f"{name}/a", x, width, 1, stride, training)
    y = _convolution(f"{name}/b", y, width, 3, 1, training)
    y = _convolution(f"{name}/c", y, 4 * width, 1, 1, training, activation=False)
    if x.shape != y.shape:
        x = _convolution(
            f"{name}/shortcut", x, 4 * width, 1, stride, training, activation=False
        )
    return tf.nn.relu(x + y)


def _convolution(
    name: str,
    x: Any,
    filters: int,
    size: int,
    stride: int,
    training: Any,
    activation: bool = True,
) -> Any:
    """A convolution with batch normalization, as `tf.layers` built it."""
    kernel = _variable(f"{name}/kernel", [size, size, x.shape[-1], filters])
    x = tf.nn.conv2d(x, kernel, stride, "SAME")
    gamma = _variable(f"{name}/gamma", [filters], tf1.ones_initializer())
    beta = _variable(f"{name}/beta", [filters], tf1.zeros_initializer())
    mean = _variable(f"{name}/moving_mean", [filters], tf1.zeros_initializer(), False)
    variance = _variable(
        f"{name}/moving_variance", [filters], tf1.ones_initializer(), False
    )
    x, batch_mean, batch_variance = tf1.cond(
        training,
        lambda: tf1.nn.fused_batch_norm(x, gamma, beta),
        lambda: tf1.nn.fused_batch_norm(
            x, gamma, beta, mean, variance, is_training=False
        ),
    )
    for moving, new in ((mean, batch_mean), (variance, batch_variance)):
        update = tf1.assign_sub(moving, 0.01 * (moving - new))
        tf1.add_to_collection(tf1.GraphKeys.UPDATE_OPS, update)
    return tf.nn.relu(x) if activation else x


def _variable(
    name: str, shape: list[int], initializer: Any = None, trainable: bool = True
) -> Any:
    return tf1.get_variable(
        name,
        shape,
        initializer=initializer,
        trainable=trainable,
        use_resource=False,
    )


if __name__ == "__main__":
    tf1.disable_control_flow_v2()
    write_residual_net(sys.argv[1], [int(count) for count in sys.argv[2:]])
