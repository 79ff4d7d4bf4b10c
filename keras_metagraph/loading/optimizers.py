"""Keras optimizers for the training of a legacy graph, with its state, and back.

Each number and slot comes from the ops that update the variables. What Keras computes
as TensorFlow 1 did gets Keras's own class, the rest those of
`keras_metagraph.training.optimizers`.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_metagraph.errors import (
    CheckpointError,
    LoweringError,
    MissingVariableError,
    ShapeMismatchError,
)
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.variables import GraphVariable
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.assigned_optimizers import describe_assigned, join
from keras_metagraph.loading.infer.counters import step_counters
from keras_metagraph.loading.infer.extra_writes import extra_writes
from keras_metagraph.loading.infer.gradient_chain import (
    GradientChain,
    UnknownGradientError,
    describe_chain,
)
from keras_metagraph.loading.infer.interface import Interface
from keras_metagraph.loading.infer.optimizers import (
    Gradient,
    OptimizerDescription,
    fused_optimizers,
)
from keras_metagraph.loading.infer.schedule_fit import shortest
from keras_metagraph.loading.infer.schedules import (
    ScheduleDescription,
    infer_schedule,
)
from keras_metagraph.loading.infer.updates import Training, TrainingStep
from keras_metagraph.training import optimizers as tf1
from keras_metagraph.training.rules import rule_of
from keras_metagraph.training.schedules import ShiftedSchedule
from keras_metagraph.training.slots import optimizer_slots

_SMALLEST = float(np.finfo(np.float32).tiny)  # TensorFlow flushes what is below to 0
# Of what has no op of its own.
_SLOTS = {"m": "momentum", "v": "velocity", "rms": "velocity", "accum": "momentum"}
_EQUAL = 2e-6
_SCHEDULED = frozenset({"learning_rate", "sign_decay"})


@dataclasses.dataclass(frozen=True)
class Binding:
    """A variable of the graph, and where the Keras optimizer has its value.

    Attributes:
        name: Name of the variable of the graph.
        read: Makes its value of what the optimizer has now.
    """

    name: str
    read: Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class TrainingPhase:
    """One way in which a graph trains, as Keras does it.

    Attributes:
        operations: The operations of the graph that it stands for.
        loss: Name of the loss tensor that is minimized.
        optimizer: The Keras optimizer, built, with the state of the graph's.
        variables: Names of the variables that it trains, in its order.
        descriptions: The optimizers of the graph that it stands for.
        findings: What of the graph's training it does not do.
        bindings: Where the state of the graph is in Keras.
    """

    operations: tuple[str, ...]
    loss: str | None
    optimizer: Any
    variables: tuple[str, ...]
    descriptions: tuple[OptimizerDescription, ...] = ()
    findings: tuple[str, ...] = ()
    bindings: tuple[Binding, ...] = dataclasses.field(default=(), repr=False)

    def write_back(self, model_variables: Mapping[str, Any]) -> dict[str, Any]:
        """The graph's slots, powers and counters, as they are after Keras trained.

        Args:
            model_variables: Keras variables by the names of the graph.

        Returns:
            Arrays by name of the graph's variable, in their dtypes there.
        """
        return {
            binding.name: np.asarray(
                binding.read(), model_variables[binding.name].dtype
            )
            for binding in self.bindings
            if binding.name in model_variables
        }


def keras_optimizers(
    graph: Graph,
    variables: Mapping[str, GraphVariable],
    interface: Interface,
    values: Mapping[str, Any],
    model_variables: Mapping[str, Any],
) -> list[TrainingPhase]:
    """Makes the Keras optimizers that train as a graph does, with its state.

    Args:
        graph: A repaired graph.
        variables: Its variables by node name.
        interface: Its train op, and what is fed when training.
        values: Arrays by variable name: weights, slots, counters.
        model_variables: Keras variables by the same names; the optimizers are built
            for those of them that the graph trains.

    Returns:
        A phase for each loss that the train op minimizes, in its order.

    Raises:
        LoweringError: If the train op updates variables in a way that is none of an
            optimizer that is known; lists all of them.
        MissingVariableError: If slots have no value; lists all of them.
        ShapeMismatchError: If slots have other shapes than their variables; lists all
            of them.

    Example:
        ```python
        (phase,) = keras_optimizers(graph, variables, interface, values, weights)
        model.compile(phase.optimizer, loss)
        model.fit(x, y)
        values |= phase.write_back(weights)
        ```
    """
    reader = _Reader(graph, variables, interface, values)
    phases = [
        _Phase(reader, step, model_variables)
        for step in reader.training.runs(interface.train_op)
        if step.variables
    ]
    _refuse([problem for phase in phases for problem in phase.problems])
    built = [phase.build() for phase in phases]
    _warn([warning for phase in phases for warning in phase.warnings])
    return built


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Something that keeps an optimizer from going on as it was."""

    kind: type[Exception]
    text: str
    fix: str = ""


def _refuse(problems: Sequence[_Problem]) -> None:
    """Raises all problems in one error."""
    if not problems:
        return
    kinds: list[Any] = [problem.kind for problem in problems]
    kind = kinds[0] if len(set(kinds)) == 1 else CheckpointError
    if LoweringError in kinds:
        kind = LoweringError
    fixes = [problem.fix for problem in problems if problem.fix]
    raise kind(
        "The optimizer of the graph cannot go on in Keras:",
        findings=list(dict.fromkeys(problem.text for problem in problems)),
        fix=next(
            iter(fixes),
            "train with the graph's own train op, as load_from_meta_graph(path) does "
            "by default, or compile the model with an optimizer of your choice.",
        ),
    )


def _warn(warnings_: Sequence[str]) -> None:
    """Warns of all findings in one warning."""
    found = list(dict.fromkeys(warnings_))
    if found:
        lines = "".join(f"\n  - {line}" for line in found)
        warnings.warn(
            f"The training of the graph goes on in Keras, but:{lines}", stacklevel=3
        )


class _Reader:
    """The graph with its values, and what all phases ask about it."""

    def __init__(
        self,
        graph: Graph,
        variables: Mapping[str, GraphVariable],
        interface: Interface,
        values: Mapping[str, Any],
    ) -> None:
        self.graph = graph
        self.variables = variables
        self.values = values
        self.interface = interface
        self.analysis = GraphAnalysis(graph, variables)
        self.training = Training(self.analysis)
        self.feeds = {
            name: training for name, (training, _) in interface.training_values.items()
        }
        self._numbers: dict[TensorName, ScheduleDescription] = {}

    def number(self, tensor: TensorName, run: Collection[str]) -> ScheduleDescription:
        """What gives a hyper-parameter."""
        if tensor not in self._numbers:
            self._numbers[tensor] = infer_schedule(
                self.graph,
                self.variables,
                tensor,
                self.values,
                feeds=self.feeds,
                written=run,
                analysis=self.analysis,
            )
        return self._numbers[tensor]

    def integer(self, name: str) -> int:
        """The value of a counter."""
        return int(np.asarray(self.values[name]).reshape(()))


class _Phase:
    """Builds one phase."""

    def __init__(
        self, reader: _Reader, step: TrainingStep, model_variables: Mapping[str, Any]
    ) -> None:
        self._reader = reader
        self._step = step
        self._model_variables = model_variables
        self.problems: list[_Problem] = []
        self.warnings: list[str] = []
        self._run = reader.analysis.ancestors(TensorName(n) for n in step.operations)
        self._counters = step_counters(reader.analysis, self._run)
        self._descriptions = self._describe()
        everything = {
            name: gradient
            for description in self._descriptions
            for name, gradient in description.gradients.items()
        }
        self._parts = [
            _Part(reader, description, self._run, self._counters, everything)
            for description in self._descriptions
        ]
        if not self._parts and not self.problems:
            operations = ", ".join(step.operations)
            text = f"{operations} updates nothing by the gradient of a loss"
            self.problems.append(_Problem(LoweringError, text))
        for part in self._parts:
            self.problems += part.problems

    def _describe(self) -> list[OptimizerDescription]:
        """The optimizers of the phase; those with the same numbers are one."""
        reader = self._reader
        found, assigned = fused_optimizers(reader.training, self._step.operations)
        names = [name for name in assigned if name in reader.values]
        more, unknown = describe_assigned(
            reader.training,
            names,
            self._run,
            reader.values,
            reader.feeds,
            self._counters,
        )
        if unknown:
            self.problems.append(
                _Problem(
                    LoweringError,
                    "the update by plain ops of these variables is none of the "
                    f"optimizers that are known: {_list(unknown)}",
                )
            )
        joined: dict[Any, OptimizerDescription] = {}
        for description in [*more, *found]:
            key = self._numbers(description)
            # Lazy Adam is Adam where gradients are dense.
            lazy = ("LazyAdam", *key[1:]) if key[0] == "Adam" else key
            key = lazy if lazy in joined else key
            known = joined.get(key)
            joined[key] = join(known, description) if known else description
        return list(joined.values())

    def _numbers(self, description: OptimizerDescription) -> Any:
        """What optimizers have in common that are the same one."""
        numbers = dict(description.hyper_parameters)
        for key, tensor in description.tensors.items():
            found = self._reader.number(tensor, self._run)
            same = isinstance(found.value, float)
            numbers[key] = found.value if same else str(found)
        return description.name, tuple(sorted(numbers.items()))

    def build(self) -> TrainingPhase:
        """The phase; there must be no problems."""
        loss = self._unscaled_loss()
        optimizers = [part.build(self._model_variables) for part in self._parts]
        names = [name for part in self._parts for name in part.description.variables]
        self.warnings += [text for part in self._parts for text in part.warnings]
        bindings = [binding for part in self._parts for binding in part.bindings]
        bindings += self._count(optimizers[0])
        return TrainingPhase(
            tuple(self._step.operations),
            loss,
            self._joined(optimizers),
            tuple(names),
            tuple(self._descriptions),
            tuple(self.warnings),
            tuple(bindings),
        )

    def _unscaled_loss(self) -> str | None:
        """The loss; without its scale where the gradients are divided by that again."""
        losses = self._step.losses
        if not losses:
            return self._reader.interface.loss
        scales = {part.chain.scale for part in self._parts}
        node = self._reader.graph.nodes[losses[0].node]
        if len(scales) == 1 and node.op == "Mul" and scales != {1.0}:
            (scale,) = scales
            for place, tensor in enumerate(node.inputs):
                factor = self._reader.number(tensor, self._run).value
                if isinstance(factor, float) and abs(factor * scale - 1) < _EQUAL:
                    for part in self._parts:
                        part.chain = dataclasses.replace(part.chain, loss_scale=factor)
                    return str(node.inputs[1 - place])
        return str(losses[0])

    def _joined(self, optimizers: Sequence[Any]) -> Any:
        """One optimizer for all variables of the phase."""
        if len(optimizers) == 1:
            return optimizers[0]
        assignments = {
            self._model_variables[name].path: place
            for place, part in enumerate(self._parts)
            for name in part.description.variables
        }
        group = tf1.OptimizerGroup(optimizers, assignments)
        group.build(
            [
                self._model_variables[name]
                for part in self._parts
                for name in part.description.variables
            ]
        )
        group.iterations.assign(optimizers[0].iterations)
        return group

    def _count(self, optimizer: Any) -> list[Binding]:
        """The counters, as they are after Keras went on counting."""
        start = int(optimizer.iterations.numpy())
        bindings = []
        for name, increment in self._counters.items():
            if name in self._reader.values:
                value = self._reader.integer(name)
                bindings.append(
                    Binding(name, _Counter(optimizer, start, value, increment))
                )
        return bindings


@dataclasses.dataclass(frozen=True)
class _Counter:
    """A counter of the graph, after the iterations of a Keras optimizer."""

    optimizer: Any
    start: int
    value: int
    increment: int

    def __call__(self) -> int:
        passed = int(self.optimizer.iterations.numpy()) - self.start
        return self.value + passed * self.increment


@dataclasses.dataclass(frozen=True)
class _Power:
    """A power of a decay, multiplied up in float32 as the graph does it."""

    optimizer: Any
    start: int
    value: Any
    base: float

    def __call__(self) -> Any:
        power, base = np.float32(self.value), np.float32(self.base)
        for _ in range(int(self.optimizer.iterations.numpy()) - self.start):
            power = power * base
            if power < _SMALLEST:
                return np.float32(0)
        return power


class _Part:
    """Builds one Keras optimizer after one of the graph."""

    def __init__(
        self,
        reader: _Reader,
        description: OptimizerDescription,
        run: Collection[str],
        counters: Mapping[str, int],
        everything: Mapping[str, Gradient],
    ) -> None:
        self._reader = reader
        self._run = run
        self._counters = counters
        self.description = description
        self.problems: list[_Problem] = []
        self.warnings: list[str] = []
        self.bindings: list[Binding] = []
        self._numbers = self._read_numbers()
        self._kind = _kind(description)
        if self._kind is _UNKNOWN:
            self.problems.append(self._unknown())
        self._check_slots()
        self.chain = self._read_chain(everything)
        self._extra = extra_writes(
            reader.training, description, run, reader.values, reader.feeds
        )

    def _unknown(self) -> _Problem:
        return _Problem(
            LoweringError,
            f"{self.description.name or 'the update by plain ops'} is none of the "
            "optimizers that are known; it updates "
            f"{_list(self.description.variables)}",
        )

    def _read_numbers(self) -> dict[str, Any]:
        """The hyper-parameters as numbers; the learning rate may be a schedule."""
        found: dict[str, Any] = {
            key: value
            for key, value in self.description.hyper_parameters.items()
            if isinstance(value, bool | float)
        }
        for key, tensor in self.description.tensors.items():
            number = self._reader.number(tensor, self._run)
            if number.value is None:
                text = f"{key}: {number.problem}"
                self.problems.append(_Problem(LoweringError, text, number.fix))
            elif key not in _SCHEDULED and not isinstance(number.value, float):
                text = f"{key} changes from step to step: {number}"
                self.problems.append(_Problem(LoweringError, text))
            else:
                found[key] = self._aligned(number)
        return found

    def _aligned(self, number: ScheduleDescription) -> Any:
        """A schedule, by the steps that the optimizer counts."""
        value, step = number.value, self._counted
        if not callable(value) or number.step is None or step is None:
            return value
        offset = self._reader.integer(number.step) + number.offset - step
        return ShiftedSchedule(value, offset) if offset else value

    def _check_slots(self) -> None:
        """All slots must have a value, of the shape of their variable."""
        values = self._reader.values
        for name, slots in self.description.slots.items():
            for role, slot in slots.items():
                what = f"(slot {role!r} of {name})"
                if slot not in values:
                    text = f"{slot} has no value {what}"
                    self.problems.append(
                        _Problem(
                            MissingVariableError,
                            text,
                            "load a checkpoint that has the slots.",
                        )
                    )
                    continue
                shape, expected = np.shape(values[slot]), self._shape(name)
                if expected is not None and shape != expected:
                    text = f"{slot} has shape {shape}, expected {expected} {what}"
                    self.problems.append(
                        _Problem(
                            ShapeMismatchError,
                            text,
                            "load the checkpoint that belongs to the graph.",
                        )
                    )

    def _shape(self, name: str) -> tuple[int, ...] | None:
        if name in self._reader.values:
            return tuple(np.shape(self._reader.values[name]))
        shape = self._reader.variables[name].shape
        known = tuple(size for size in shape or () if size is not None)
        return known if shape is not None and len(known) == len(shape) else None

    def _read_chain(self, everything: Mapping[str, Gradient]) -> GradientChain:
        """What is done to the gradients before."""
        try:
            return describe_chain(
                self._reader.training,
                self.description.gradients,
                self._reader.values,
                self._reader.feeds,
                everything,
            )
        except UnknownGradientError as error:
            self.problems.append(
                _Problem(
                    LoweringError,
                    "what updates these variables is not the gradient of a loss of the "
                    f"graph: {_list(error.args)}",
                )
            )
            return GradientChain()

    @property
    def _counted(self) -> int | None:
        """The step that the graph's counter says comes next."""
        for name, increment in self._counters.items():
            if name in self._reader.values:
                return self._reader.integer(name) // increment
        return None

    def build(self, model_variables: Mapping[str, Any]) -> Any:
        """The Keras optimizer, with its state."""
        by_powers, counted = self._step_of_powers(), self._counted
        agree = by_powers is None or counted is None or by_powers[1] == counted
        if by_powers and counted is not None and not agree:
            self.warnings.append(
                f"{next(iter(self._counters))} says that {counted} steps were made, "
                f"but {by_powers[0]} that the optimizer made {by_powers[1]}: the bias "
                "correction goes on from the one, the learning rate from the other"
            )
        known = counted if counted is not None else by_powers and by_powers[1]
        named = {name: model_variables[name] for name in self.description.variables}
        own = agree and (known is not None or not self._powers())
        optimizer = self._make(own, named)
        weights = list(named.values())
        optimizer.build(weights)
        optimizer.iterations.assign(known or 0)
        self._assign_slots(optimizer, weights)
        self._assign_powers(optimizer)
        return optimizer

    def _make(self, own: bool, weights: Mapping[str, Any]) -> Any:
        """The Keras optimizer; Keras's own class where that computes the same."""
        chain = self.chain
        arguments = {**self._numbers, **chain.arguments}
        if chain.loss_scale is not None:
            arguments["loss_scale_factor"] = chain.loss_scale
        elif abs(chain.scale - 1) > _EQUAL:
            self.warnings.append(
                f"not carried: gradients are multiplied by {chain.scale}"
            )
        self.warnings += [*chain.findings, *self._extra.findings]
        optimizer = self._decaying(arguments, weights) or self._plain(own, arguments)
        rule = rule_of(optimizer)
        if chain.densified and rule is not None and not rule.densify:
            self.warnings.append(
                "not carried: the graph makes the sparse gradients of "
                f"{_list(sorted(chain.densified))} dense; here only rows with a "
                "gradient move"
            )
        return optimizer

    def _plain(self, own: bool, arguments: Mapping[str, Any]) -> Any:
        kind = self._kind
        scheduled = callable(self._numbers.get("learning_rate"))
        sparse = bool(self.description.sparse or self.chain.sparse)
        if own and not sparse and kind.own and (kind.scheduled or not scheduled):
            made = kind.own(**arguments) if self._rounds_well() else None
            if made is not None:
                return made
        return kind.exact(**arguments)

    def _rounds_well(self) -> bool:
        """Whether `1 - beta` is the same in float32, as TensorFlow 1 computes it.

        For 0.999 it differs by 1e-5.
        """
        decays = ("beta1", "beta2", "decay", "rho")
        return all(
            abs((1 - np.float32(beta)) - (1 - beta)) <= _EQUAL * (1 - beta)
            for beta in (self._numbers.get(name, 0.0) for name in decays)
        )

    def _decaying(
        self, arguments: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> Any:
        """The optimizer with weight decay, where there is any and a class for it."""
        name, chain, extra = self.description.name, self.chain, self._extra
        if not chain.decay and not extra.decay:
            optimizer = None
            if name in ("BertAdamW", "LAMB"):
                optimizer = _KINDS[name].exact(**arguments)
                kept = self.description.excluded
        elif extra.decay and not chain.decay and name in _DECAYING:
            optimizer = _DECAYING[name](weight_decay=extra.decay, **arguments)
            kept = tuple(weights.keys() - set(extra.decayed))
        elif chain.decay and not extra.decay and name == "GradientDescent":
            # w - rate * (g + decay * w), whichever is subtracted first.
            optimizer = tf1.TF1GradientDescent(weight_decay=chain.decay, **arguments)
            kept = tuple(weights.keys() - chain.decayed)
        else:
            optimizer = None
            rates = [rate for rate in (chain.decay, extra.decay) if rate]
            names = _list(sorted({*chain.decayed, *extra.decayed}))
            self.warnings.append(f"not carried: weight decay of {rates} of {names}")
        if optimizer is not None and kept:
            optimizer.exclude_from_weight_decay([weights[name] for name in kept])
        return optimizer

    def _powers(self) -> dict[str, str]:
        """The variables that hold powers of the decays, by the op's argument."""
        analysis, values = self._reader.analysis, self._reader.values
        found = {
            power: analysis.variable_behind(tensor)
            for power, tensor in self.description.powers.items()
        }
        return {k: v for k, v in found.items() if v is not None and v in values}

    def _step_of_powers(self) -> tuple[str, int] | None:
        """The step that the powers of the decays tell; the slowest one knows best."""
        powers = self._powers()
        for power in ("beta2_power", "beta1_power"):
            base = self._numbers.get(power.removesuffix("_power"))
            if power not in powers or base is None or not 0 < base < 1:
                continue
            value = float(np.asarray(self._reader.values[powers[power]]).reshape(()))
            if _SMALLEST < value < 1:
                exponent = math.log(value) / math.log(np.float32(base))
                return powers[power], round(exponent) - 1
        return None

    def _assign_slots(self, optimizer: Any, weights: Sequence[Any]) -> None:
        rule = rule_of(optimizer)
        names = rule.slots if rule is not None else _SLOTS
        scaled = rule is not None and (self.description.name, rule.op) == (
            "Momentum",
            "KerasMomentum",
        )
        places = optimizer_slots(optimizer, weights)
        for name, place in zip(self.description.variables, places, strict=True):
            for role, slot in self.description.slots[name].items():
                variable = place.get(names.get(role, role))
                if variable is None:
                    continue  # RMSProp without momentum has no use for it
                value = np.asarray(self._reader.values[slot])
                if scaled:
                    value = -np.float32(optimizer.learning_rate) * value
                variable.assign(value)
                self.bindings.append(Binding(slot, _Slot(optimizer, variable, scaled)))

    def _assign_powers(self, optimizer: Any) -> None:
        step = int(optimizer.iterations.numpy())
        for power in ("beta1_power", "beta2_power"):
            base = self._numbers.get(power.removesuffix("_power"))
            if hasattr(optimizer, power) and base is not None:
                # Where no variable holds it, the graph computes it of its counter.
                getattr(optimizer, power).assign(np.float64(base) ** (step + 1))
        for power, name in self._powers().items():
            value = self._reader.values[name]
            variable = getattr(optimizer, power, None)
            base = self._numbers.get(power.removesuffix("_power"))
            if variable is not None:
                variable.assign(np.asarray(value).reshape(()))
                read: Callable[[], Any] = _Slot(optimizer, variable, False)
            elif base is not None:
                read = _Power(optimizer, step, value, base)
            else:
                continue
            self.bindings.append(Binding(name, read))


@dataclasses.dataclass(frozen=True)
class _Slot:
    """A slot of the graph in a variable of a Keras optimizer.

    Keras's SGD keeps `-learning_rate * accumulator` where `MomentumOptimizer` keeps the
    accumulator.
    """

    optimizer: Any
    variable: Any
    scaled: bool

    def __call__(self) -> Any:
        value = keras.ops.convert_to_numpy(self.variable)
        return (
            value / -np.float32(self.optimizer.learning_rate) if self.scaled else value
        )


@dataclasses.dataclass(frozen=True)
class _Kind:
    """Which classes an optimizer of a graph may become.

    Attributes:
        exact: Makes the one with TensorFlow 1's rule, of TensorFlow 1's arguments.
        own: Makes Keras's own, which computes the same for dense gradients.
        scheduled: Whether it does so too where the learning rate changes.
    """

    exact: Callable[..., Any]
    own: Callable[..., Any] | None = None
    scheduled: bool = True


def _add_sign(sign_decay: Any, **arguments: Any) -> Any:
    return tf1.TF1AddSign(sign_decay_fn=_decay(sign_decay), **arguments)


def _power_sign(logbase: float, sign_decay: Any, **arguments: Any) -> Any:
    base = shortest(math.exp(logbase))
    return tf1.TF1PowerSign(base=base, sign_decay_fn=_decay(sign_decay), **arguments)


def _decay(value: Any) -> Any:
    return None if value == 1.0 else value


def _adagrad(epsilon: float | None = None, **arguments: Any) -> Any:
    if epsilon is None:
        return tf1.TF1Adagrad(**arguments)
    return tf1.TFKerasAdagrad(epsilon=epsilon, **arguments)


def _own_adagrad(epsilon: float = 0.0, **arguments: Any) -> Any:
    return keras.optimizers.Adagrad(epsilon=0.0, **arguments) if not epsilon else None


def _renamed(make: Callable[..., Any], **names: str) -> Callable[..., Any]:
    """`make`, with arguments as TensorFlow 1 calls them."""

    def made(**arguments: Any) -> Any:
        return make(**{names.get(key, key): value for key, value in arguments.items()})

    return made


def _amsgrad(make: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(_renamed(make, **_BETAS), amsgrad=True)


def _kind(description: OptimizerDescription) -> _Kind:
    """The classes for an optimizer of the graph."""
    nesterov = description.hyper_parameters.get("use_nesterov")
    if description.name == "Adam" and nesterov:
        return _Kind(_nadam)
    return _KINDS.get(description.name, _UNKNOWN)


def _nadam(use_nesterov: bool, **arguments: Any) -> Any:
    del use_nesterov
    return tf1.TF1Nadam(**arguments)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


_UNKNOWN = _Kind(tf1.TF1GradientDescent)
_DECAYING = {"Adam": tf1.TF1AdamW, "Momentum": tf1.TF1MomentumW}
_BETAS = {"beta1": "beta_1", "beta2": "beta_2"}
_KINDS: dict[str, _Kind] = {
    "AdaMax": _Kind(tf1.TF1AdaMax, _renamed(keras.optimizers.Adamax, **_BETAS)),
    "Adadelta": _Kind(tf1.TF1Adadelta, keras.optimizers.Adadelta),
    "Adagrad": _Kind(_adagrad, _own_adagrad),
    "AdagradDA": _Kind(tf1.TF1AdagradDA),
    "Adam": _Kind(tf1.TF1Adam, _renamed(keras.optimizers.Adam, **_BETAS)),
    "AddSign": _Kind(_add_sign),
    "BertAdamW": _Kind(_renamed(tf1.BertAdamW, **_BETAS)),
    "Ftrl": _Kind(tf1.TF1Ftrl, keras.optimizers.Ftrl),
    "GradientDescent": _Kind(tf1.TF1GradientDescent, keras.optimizers.SGD),
    "LAMB": _Kind(_renamed(tf1.BertLAMB, **_BETAS)),
    "LazyAdam": _Kind(tf1.TF1LazyAdam),
    "Momentum": _Kind(
        tf1.TF1Momentum,
        _renamed(keras.optimizers.SGD, use_nesterov="nesterov"),
        scheduled=False,
    ),
    "PowerSign": _Kind(_power_sign),
    "ProximalAdagrad": _Kind(tf1.TF1ProximalAdagrad),
    "ProximalGradientDescent": _Kind(tf1.TF1ProximalGradientDescent),
    "RMSProp": _Kind(tf1.TF1RMSProp, _renamed(keras.optimizers.RMSprop, decay="rho")),
    "keras Adam with amsgrad": _Kind(
        _amsgrad(tf1.TFKerasAdam), _amsgrad(keras.optimizers.Adam)
    ),
    "keras RMSprop": _Kind(tf1.TFKerasRMSprop),
    "keras SGD with momentum": _Kind(
        _renamed(tf1.TFKerasSGD, use_nesterov="nesterov"),
        _renamed(keras.optimizers.SGD, use_nesterov="nesterov"),
    ),
}
