"""Learning rates of TensorFlow 1 that Keras has no schedule for.

They compute in float32, in the order of operations that `tf.train` has
(`python/training/learning_rate_decay.py` of TensorFlow 1), and count steps from 0.
"""

import base64
import binascii
import math
import zlib
from typing import Any

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError

from keras_metagraph.audit.policy import require_safe
from keras_metagraph.audit.structure import check_structure
from keras_metagraph.errors import FormatError
from keras_metagraph.graph.from_proto import graph_from_proto

_MAX_GRAPH_BYTES = 2**24  # a rate is a formula, not a model


def _float(value: Any) -> Any:
    return keras.ops.cast(value, "float32")


@keras.saving.register_keras_serializable("keras_metagraph")
class NaturalExpDecay(keras.optimizers.schedules.LearningRateSchedule):
    """`tf.train.natural_exp_decay`: `rate * exp(-decay_rate * step / decay_steps)`.

    Args:
        initial_learning_rate: The rate at step 0.
        decay_steps: How many steps one decay takes.
        decay_rate: The exponent of one decay.
        staircase: Whether `step / decay_steps` is rounded down.

    Example:
        >>> float(NaturalExpDecay(0.1, 10, 0.5)(10))
        0.06065307
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase

    def __call__(self, step: Any) -> Any:
        """The rate at a step.

        Args:
            step: Number of updates so far, a scalar.

        Returns:
            A float32 scalar.
        """
        passed = _float(step) / _float(self.decay_steps)
        if self.staircase:
            passed = keras.ops.floor(passed)
        decay = keras.ops.exp(_float(-self.decay_rate) * passed)
        return _float(self.initial_learning_rate) * decay

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "staircase": self.staircase,
        }


@keras.saving.register_keras_serializable("keras_metagraph")
class LinearCosineDecay(keras.optimizers.schedules.LearningRateSchedule):
    """`tf.train.linear_cosine_decay`: a line times a cosine, and a floor.

    With `p = min(step, decay_steps) / decay_steps` the rate is
    `rate * ((alpha + 1 - p) * (1 + cos(2 * pi * num_periods * p)) / 2 + beta)`.

    Args:
        initial_learning_rate: The rate that the decay is multiplied by.
        decay_steps: After how many steps the rate stays as it is.
        num_periods: How many periods the cosine has until then.
        alpha: What is added to the line.
        beta: What is added to the product.

    Example:
        >>> float(LinearCosineDecay(0.1, 10)(10))
        0.0001
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        num_periods: float = 0.5,
        alpha: float = 0.0,
        beta: float = 0.001,
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.num_periods = num_periods
        self.alpha = alpha
        self.beta = beta

    def __call__(self, step: Any) -> Any:
        """The rate at a step.

        Args:
            step: Number of updates so far, a scalar.

        Returns:
            A float32 scalar.
        """
        steps = _float(self.decay_steps)
        step = keras.ops.minimum(_float(step), steps)
        line = (steps - step) / steps
        fraction = 2.0 * self.num_periods * (step / steps)
        cosine = 0.5 * (1.0 + keras.ops.cos(_float(math.pi) * fraction))
        decayed = (self.alpha + line) * cosine + self.beta
        return _float(self.initial_learning_rate) * decayed

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "num_periods": self.num_periods,
            "alpha": self.alpha,
            "beta": self.beta,
        }


@keras.saving.register_keras_serializable("keras_metagraph")
class LinearWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises in a line, and then follows another schedule.

    As in BERT (`optimization.py`): before `warmup_steps` the rate is
    `warmup_target * step / warmup_steps`, from there on `schedule(step)`; the schedule
    counts the steps of the warm-up too.

    Args:
        schedule: The schedule that follows, or a number.
        warmup_steps: When it begins.
        warmup_target: The rate that the line leads to.

    Example:
        ```python
        decay = keras.optimizers.schedules.PolynomialDecay(5e-5, 10000, 0.0)
        keras.optimizers.Adam(LinearWarmup(decay, 1000, 5e-5))
        ```
    """

    def __init__(
        self, schedule: Any, warmup_steps: float, warmup_target: float
    ) -> None:
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.warmup_target = warmup_target

    def __call__(self, step: Any) -> Any:
        """The rate at a step.

        Args:
            step: Number of updates so far, a scalar.

        Returns:
            A float32 scalar.
        """
        step = _float(step)
        warmup_steps = _float(self.warmup_steps)
        line = _float(self.warmup_target) * (step / warmup_steps)
        after = self.schedule(step) if callable(self.schedule) else self.schedule
        return keras.ops.where(step < warmup_steps, line, _float(after))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "warmup_steps": self.warmup_steps,
            "warmup_target": self.warmup_target,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LinearWarmup":
        """Makes a schedule of what `get_config` returned."""
        return cls(**_with_schedule(config))


@keras.saving.register_keras_serializable("keras_metagraph")
class ShiftedSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that counts from elsewhere than the optimizer.

    A graph may have a step counter beside the one of its optimizer: with a second
    optimizer, or after fine-tuning. Then the rate follows the one, and the correction
    of Adam's bias the other.

    Args:
        schedule: The schedule.
        offset: What is added to the optimizer's step.

    Example:
        >>> decay = keras.optimizers.schedules.InverseTimeDecay(0.1, 1, 1.0)
        >>> float(ShiftedSchedule(decay, 8)(1))
        0.01
    """

    def __init__(self, schedule: Any, offset: int) -> None:
        self.schedule = schedule
        self.offset = offset

    def __call__(self, step: Any) -> Any:
        """The rate at a step.

        Args:
            step: Number of updates so far, a scalar.

        Returns:
            A float32 scalar.
        """
        return self.schedule(keras.ops.convert_to_tensor(step) + self.offset)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "offset": self.offset,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ShiftedSchedule":
        """Makes a schedule of what `get_config` returned."""
        return cls(**_with_schedule(config))


def _with_schedule(config: dict[str, Any]) -> dict[str, Any]:
    schedule = config["schedule"]
    if isinstance(schedule, dict):
        schedule = keras.saving.deserialize_keras_object(schedule)
    return {**config, "schedule": schedule}


@keras.saving.register_keras_serializable("keras_metagraph")
class GraphSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that a graph of TensorFlow 1 computes from its step counter.

    For formulas that are no schedule of Keras. All ops are looked at before
    TensorFlow sees the graph.

    Args:
        graph_def: A serialized `GraphDef`, or the text that `get_config` has for it.
        step: Name of the placeholder that is fed with the step.
        rate: Name of the tensor that is the rate, a scalar.

    Raises:
        FormatError: If the graph cannot be read.
        UntrustedContentError: If it holds ops that are not run.
        UnsupportedOpError: If it holds ops that nobody knows.

    Example:
        ```python
        with tf.Graph().as_default() as graph:
            step = tf.compat.v1.placeholder(tf.float32, [], "step")
            tf.math.rsqrt(step + 1.0, name="rate")
        data = graph.as_graph_def().SerializeToString()
        keras.optimizers.Adam(GraphSchedule(data, "step", "rate:0"))
        ```
    """

    def __init__(self, graph_def: bytes | str, step: str, rate: str) -> None:
        data = graph_def if isinstance(graph_def, bytes) else _unpack(graph_def)
        self._graph_def = _checked(data)
        self.step = step
        self.rate = rate
        self._function: Any = None

    def __call__(self, step: Any) -> Any:
        """The rate at a step.

        Args:
            step: Number of updates so far, a scalar.

        Returns:
            A float32 scalar.
        """
        if self._function is None:
            with tf.init_scope():
                self._function = self._build()
        (argument,) = self._function.inputs[:1]
        return _float(self._function(tf.cast(step, argument.dtype)))

    def get_config(self) -> dict[str, Any]:
        """The graph as text, and the names of its ends."""
        data = self._graph_def.SerializeToString(deterministic=True)
        packed = base64.b64encode(zlib.compress(data, 9)).decode("ascii")
        return {"graph_def": packed, "step": self.step, "rate": self.rate}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_function": None}  # functions cannot be copied

    def _build(self) -> Any:
        """The graph as a function of the step."""
        wrapped = tf.compat.v1.wrap_function(
            lambda: tf.graph_util.import_graph_def(self._graph_def, name=""), []
        )
        find = wrapped.graph.as_graph_element
        return wrapped.prune(find(f"{self.step}:0"), find(self.rate))


def _unpack(text: str) -> bytes:
    """The bytes that a configuration holds; bounded, as it may be of anyone."""
    unpacker = zlib.decompressobj()
    reason: Any = "it is too large, or its end is missing"
    data = b""
    try:
        data = unpacker.decompress(base64.b64decode(text), _MAX_GRAPH_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        reason = error
    if not unpacker.eof:
        raise FormatError(
            f"The graph in the configuration of a schedule cannot be read: {reason}.",
            fix="save the model again; the file is damaged.",
        )
    return data


def _checked(data: bytes) -> Any:
    """A `GraphDef` that is safe to import."""
    try:
        graph_def = tf.compat.v1.GraphDef.FromString(data)
    except DecodeError as error:
        raise FormatError(
            f"The graph of a schedule cannot be read: {error}.",
            fix="save the model again; the file is damaged.",
        ) from error
    check_structure(tf.compat.v1.MetaGraphDef(graph_def=graph_def))
    require_safe(graph_from_proto(graph_def))
    return graph_def
