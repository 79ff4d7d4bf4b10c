"""What TensorFlow 1 calls the step of an optimizer: one fused op and its arguments.

`ResourceApplyAdam` and its like compute slots and weight in one kernel, by the same
formula in TensorFlow 1.15 and 2. A rule says which op that is for an optimizer of
Keras, what it feeds, and how TensorFlow 1 names its slots. Only optimizers whose own
arithmetic is the op's, but for rounding, have a rule.
"""

import dataclasses
from collections.abc import Callable, Container, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.errors import MetaGraphError

_ROUNDED_ALIKE = 1e-6
Scalar = str | float | Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class UpdateRule:
    """The fused update of an optimizer.

    Attributes:
        op: The op's name without its prefix: `"Adam"` for `ResourceApplyAdam`.
        slots: The slots that the op updates: its argument, and Keras's name of the
            slot. `RMSprop(momentum=0.0)` keeps no `"momentum"`, which the op writes
            all the same: whoever runs it gives it one of zeros.
        scalars: What else it takes, by argument: an attribute of the optimizer, a
            number, or a function of the optimizer and the learning rate.
        suffixes: By Keras's name of a slot, what TensorFlow 1 puts behind the name of
            the weight: `"Adam_1"` in `dense/kernel/Adam_1`; in the order in which
            TensorFlow 1 creates them.
        sparse_op: The op for a sparse gradient where the optimizer updates only the
            rows that have one: `"Momentum"` for `ResourceSparseApplyMomentum`.
            TensorFlow has none for `"GradientDescent"`, which subtracts the rows with
            `ResourceScatterSub`.
        densify: Whether the optimizer treats a sparse gradient as a dense one that is
            zero elsewhere, so that `op` takes it. With neither this nor `sparse_op`
            the fused update is for dense gradients only.
        attributes: Attributes of the op that are not at their default.
        squares: Arguments of `slots` that average squared gradients by `1 - decay`,
            with the attribute that is the decay. The op subtracts it in the dtype of
            the weight, Keras exactly: of 0.999 in float32 that makes 1.3e-5 of the
            average, for which the slot is prepared before the op runs.
        rate: The argument that takes the learning rate.
        gradient: The argument that takes a dense gradient; for rows it is `grad`.
    """

    op: str
    slots: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scalars: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    suffixes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sparse_op: str | None = None
    densify: bool = False
    attributes: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    squares: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rate: str = "lr"
    gradient: str = "grad"

    @property
    def takes_rows(self) -> bool:
        """Whether there is a fused update for a sparse gradient.

        Not for most of Keras's own optimizers: they square (or take the sign of) each
        row that has the same index before they add the rows, as neither TensorFlow 1
        nor their own step for dense gradients does.
        """
        return self.densify or self.sparse_op is not None


def rule_of(optimizer: Any) -> UpdateRule | None:
    """Finds the fused update of an optimizer.

    Args:
        optimizer: A `keras.optimizers.Optimizer`. Its class must be exact: a subclass
            may compute something else.

    Returns:
        The rule; None where TensorFlow 1 has no op for what this optimizer, as it is
        configured, computes.

    Example:
        >>> rule_of(keras.optimizers.Adam()).op
        'Adam'
        >>> rule_of(keras.optimizers.Lion()) is None
        True
    """
    rule = _RULES.get(type(optimizer))
    return None if rule is None else rule(optimizer)


def slot_suffixes(optimizer: Any) -> dict[str, str]:
    """Which slots of an optimizer have a name, and the same meaning, in TensorFlow 1.

    An optimizer may differ from the op in its step and yet keep the same slots.

    Args:
        optimizer: A `keras.optimizers.Optimizer`.

    Returns:
        `UpdateRule.suffixes` and that of the moving averages of `use_ema`.

    Example:
        >>> slot_suffixes(keras.optimizers.Adagrad())
        {'accumulator': 'Adagrad', 'average': 'ExponentialMovingAverage'}
    """
    rule = (
        _ADAGRAD if type(optimizer) is keras.optimizers.Adagrad else rule_of(optimizer)
    )
    # The optimizers of this package tell it even where no op is their step.
    own = getattr(optimizer, "suffixes", {}) if rule is None else rule.suffixes
    return {**own, "average": "ExponentialMovingAverage"}


def register_rule(kind: type, rule: Callable[[Any], UpdateRule | None]) -> None:
    """Says what the fused update of a class of optimizers is.

    Args:
        kind: The class.
        rule: Gets an optimizer of just this class and returns its rule.

    Raises:
        MetaGraphError: If the class has a rule already.
    """
    if kind in _RULES:
        raise MetaGraphError(f"{kind.__name__} has an update rule already.")
    _RULES[kind] = rule


def run_rule(
    rule: UpdateRule,
    optimizer: Any,
    gradient: Any,
    variable: Any,
    learning_rate: Any,
    slots: Mapping[str, Any],
    **arguments: Any,
) -> None:
    """Updates a weight and its slots with the fused op of TensorFlow.

    Args:
        rule: What to run.
        optimizer: The optimizer that the rule is of; the scalars come from it.
        gradient: A tensor or `tf.IndexedSlices`; rows that come twice are added.
        variable: The weight: a resource `tf.Variable` or a `keras.Variable`.
        learning_rate: A scalar.
        slots: The weight's slots by Keras's names, as `optimizer_slots` lists them;
            all of those that the rule names.
        **arguments: Arguments of the op that are given in place of the rule's own:
            `beta1_power=power` where a variable keeps it.

    Raises:
        MetaGraphError: If the gradient is sparse and the rule takes no rows.

    Example:
        ```python
        (slots,) = optimizer_slots(optimizer, [kernel])
        rule, rate = rule_of(optimizer), optimizer.learning_rate
        run_rule(rule, optimizer, gradient, kernel, rate, slots)
        ```
    """
    sparse = isinstance(gradient, tf.IndexedSlices)
    if sparse and not rule.takes_rows:
        raise MetaGraphError(
            f"{type(optimizer).__name__} has no fused update for a sparse gradient.",
            fix="see `rule.takes_rows`, and take the optimizer's own step.",
        )
    weight = resource(variable)
    rate = tf.cast(learning_rate, weight.dtype)
    gradient = tf.cast(gradient, weight.dtype)
    if sparse and rule.sparse_op == "GradientDescent":
        weight.scatter_sub(tf.IndexedSlices(rate * gradient.values, gradient.indices))
        return
    values = {k: resource(slots[slot]).handle for k, slot in rule.slots.items()}
    values |= scalars_of(rule, optimizer, rate, without=arguments)
    values |= {"var": weight.handle, rule.rate: rate, **rule.attributes, **arguments}
    if sparse and rule.sparse_op:
        op = getattr(tf.raw_ops, f"ResourceSparseApply{rule.sparse_op}")
        values["grad"], values["indices"] = unique_rows(gradient)
    else:
        op = getattr(tf.raw_ops, f"ResourceApply{rule.op}")
        values[rule.gradient] = dense(gradient, weight.shape)
        for argument, decay in rule.squares.items():
            average = resource(slots[rule.slots[argument]])
            _prepare(average, values[rule.gradient], getattr(optimizer, decay))
    op(**values)


def _prepare(average: Any, gradient: Any, decay: float) -> None:
    """Changes an average so that the op makes of it what exact arithmetic makes.

    From `a + (g**2 - a) * exact = b + (g**2 - b) * rounded` follows the `b` for an `a`.
    """
    kind = average.dtype.as_numpy_dtype
    exact, rounded = 1.0 - decay, float(kind(1.0) - kind(decay))
    if abs(exact - rounded) > _ROUNDED_ALIKE * exact:
        factor = (exact - rounded) / (1.0 - rounded)
        average.assign_add((tf.square(gradient) - average) * factor)


def scalars_of(
    rule: UpdateRule, optimizer: Any, rate: Any, without: Container[str] = ()
) -> dict[str, Any]:
    """The scalars that the op of a rule takes besides the learning rate.

    Args:
        rule: The rule.
        optimizer: Where they come from.
        rate: The learning rate, in the dtype of the weight.
        without: Arguments that are left out.

    Returns:
        Tensors by argument; the same for all weights of a dtype.
    """
    return {
        argument: _scalar(value, optimizer, rate)
        for argument, value in rule.scalars.items()
        if argument not in without
    }


def unique_rows(gradient: tf.IndexedSlices) -> tuple[Any, Any]:
    """Adds the rows of a sparse gradient that have the same index.

    Args:
        gradient: The gradient of an embedding, say.

    Returns:
        The rows, `(unique rows, ...)`, and the index of each.
    """
    indices, place = tf.unique(gradient.indices)
    rows = tf.math.unsorted_segment_sum(gradient.values, place, tf.shape(indices)[0])
    return rows, indices


def dense(gradient: Any, shape: Any) -> Any:
    """A gradient with a row for each of the weight's; a dense one as it is."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    # Not tf.convert_to_tensor, which warns of large ones.
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, shape[0])


def resource(variable: Any) -> Any:
    """The `tf.Variable` of a variable of Keras."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def _scalar(value: Scalar, optimizer: Any, rate: Any) -> Any:
    """A scalar argument, in the dtype of the weight unless a function made it."""
    if callable(value):
        return value(optimizer, rate)
    if isinstance(value, str):
        value = getattr(optimizer, value)
    if isinstance(value, keras.Variable):
        return tf.cast(value, rate.dtype)
    # tf.cast would round a number to float32 first.
    return tf.constant(value, rate.dtype)


def _power(beta: str) -> Callable[[Any, Any], Any]:
    """A decay to the power of the step that is being taken, as Keras computes it."""

    def power(optimizer: Any, rate: Any) -> Any:
        base = tf.constant(getattr(optimizer, beta), rate.dtype)
        return tf.pow(base, tf.cast(optimizer.iterations + 1, rate.dtype))

    return power


_ADAGRAD = UpdateRule(
    "Adagrad",
    slots={"accum": "accumulator"},
    suffixes={"accumulator": "Adagrad"},
)


def sgd_rule(optimizer: Any) -> UpdateRule:
    """The rule of `keras.optimizers.SGD`."""
    if not optimizer.momentum:
        return UpdateRule(
            "GradientDescent",
            sparse_op="GradientDescent",
            rate="alpha",
            gradient="delta",
        )
    return UpdateRule(
        "KerasMomentum",
        slots={"accum": "momentum"},
        scalars={"momentum": "momentum"},
        densify=True,
        attributes={"use_nesterov": bool(optimizer.nesterov)},
    )


def adam_rule(optimizer: Any, name: str = "Adam") -> UpdateRule:
    """The rule of `keras.optimizers.Adam`; `name` is what its slots are called."""
    rule = UpdateRule(
        "Adam",
        slots={"m": "momentum", "v": "velocity"},
        scalars={
            "beta1_power": _power("beta_1"),
            "beta2_power": _power("beta_2"),
            "beta1": "beta_1",
            "beta2": "beta_2",
            "epsilon": "epsilon",
        },
        suffixes={"momentum": name, "velocity": f"{name}_1"},
        squares={"v": "beta_2"},
    )
    if not optimizer.amsgrad:
        return rule
    slots = {**rule.slots, "vhat": "velocity_hat"}
    return dataclasses.replace(rule, op="AdamWithAmsgrad", slots=slots)


def _adamax(_: Any) -> UpdateRule:
    return UpdateRule(
        "AdaMax",
        slots={"m": "momentum", "v": "norm"},
        scalars={
            "beta1_power": _power("beta_1"),
            "beta1": "beta_1",
            "beta2": "beta_2",
            "epsilon": "epsilon",
        },
        suffixes={"momentum": "AdaMax", "norm": "AdaMax_1"},
    )


def rmsprop_rule(optimizer: Any) -> UpdateRule:
    """The rule of `keras.optimizers.RMSprop`."""
    scalars = {"rho": "rho", "momentum": "momentum", "epsilon": "epsilon"}
    slots = {"ms": "velocity", "mom": "momentum"}
    if not optimizer.centered:
        suffixes = {"velocity": "RMSProp", "momentum": "RMSProp_1"}
        return UpdateRule("RMSProp", slots, scalars, suffixes)
    return UpdateRule(
        "CenteredRMSProp",
        {"mg": "average_gradient", **slots},
        scalars,
        {
            "velocity": "RMSProp",
            "average_gradient": "RMSProp_1",
            "momentum": "RMSProp_2",
        },
    )


def _adagrad(optimizer: Any) -> UpdateRule | None:
    # `AdagradV2` adds its epsilon to the root, Keras to what is under it.
    return None if optimizer.epsilon else _ADAGRAD


def _adadelta(_: Any) -> UpdateRule:
    return UpdateRule(
        "Adadelta",
        slots={"accum": "accumulated_grad", "accum_update": "accumulated_delta_var"},
        scalars={"rho": "rho", "epsilon": "epsilon"},
        suffixes={
            "accumulated_grad": "Adadelta",
            "accumulated_delta_var": "Adadelta_1",
        },
    )


def _ftrl(_: Any) -> UpdateRule:
    return UpdateRule(
        "FtrlV2",
        slots={"accum": "accumulator", "linear": "linear"},
        scalars={
            "l1": "l1_regularization_strength",
            "l2": _ftrl_l2,
            "l2_shrinkage": "l2_shrinkage_regularization_strength",
            "lr_power": "learning_rate_power",
        },
        suffixes={"accumulator": "Ftrl", "linear": "Ftrl_1"},
    )


def _ftrl_l2(optimizer: Any, rate: Any) -> Any:
    """The strength of L2 with Keras's `beta` in it."""
    strength = tf.constant(optimizer.l2_regularization_strength, rate.dtype)
    return strength + optimizer.beta / (2.0 * rate) if optimizer.beta else strength


_RULES: dict[type, Callable[[Any], UpdateRule | None]] = {
    keras.optimizers.SGD: sgd_rule,
    keras.optimizers.Adam: adam_rule,
    keras.optimizers.AdamW: lambda optimizer: adam_rule(optimizer, "AdamW"),
    keras.optimizers.Adamax: _adamax,
    keras.optimizers.RMSprop: rmsprop_rule,
    keras.optimizers.Adagrad: _adagrad,
    keras.optimizers.Adadelta: _adadelta,
    keras.optimizers.Ftrl: _ftrl,
}
