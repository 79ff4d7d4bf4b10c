"""Keras optimizers for the training of a legacy graph, with its state, and back.

Each number and slot comes from the ops that update the variables. What Keras computes
as TensorFlow 1 did gets Keras's own class, the rest those of
`keras_metagraph.training.optimizers`.
"""

import dataclasses
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
from keras_metagraph.loading.infer.interface import Interface
from keras_metagraph.loading.infer.optimizers import (
    OptimizerDescription,
    describe_optimizer,
)
from keras_metagraph.loading.infer.schedules import (
    ScheduleDescription,
    infer_schedule,
)
from keras_metagraph.loading.infer.updates import Training, TrainingStep
from keras_metagraph.training.rules import rule_of
from keras_metagraph.training.schedules import ShiftedSchedule
from keras_metagraph.training.slots import optimizer_slots

_SMALLEST = float(np.finfo(np.float32).tiny)  # TensorFlow flushes what is below to 0
_COUNTING = frozenset({"AssignAdd", "AssignAddVariableOp"})


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
        (phase,) = keras_optimizers(graph, variables, interface, values, model_variables)
        model.compile(phase.optimizer, loss)
        model.fit(x, y)
        values |= phase.write_back(model_variables)
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
    _refuse([problem for phase in phases for problem in phase.problems])
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
        self._descriptions = describe_optimizer(
            reader.graph, reader.variables, step.operations
        )
        self._counters = self._find_counters()
        self._parts = [
            _Part(reader, description, self._run, self._counters)
            for description in self._descriptions
        ]
        for part in self._parts:
            self.problems += part.problems

    def build(self) -> TrainingPhase:
        """The phase; problems that show while it is built are in `problems`."""
        bindings: list[Binding] = []
        optimizers = []
        names: list[str] = []
        for part in self._parts:
            found = part.build(self._model_variables)
            self.problems += part.problems
            self.warnings += part.warnings
            names += part.description.variables
            if found is not None:
                optimizers.append(found)
                bindings += part.bindings
        bindings += self._count(optimizers)
        losses = self._step.losses
        return TrainingPhase(
            tuple(self._step.operations),
            str(losses[0]) if losses else self._reader.interface.loss,
            self._joined(optimizers),
            tuple(names),
            tuple(self._descriptions),
            tuple(self.warnings),
            tuple(bindings),
        )

    def _joined(self, optimizers: Sequence[Any]) -> Any:
        """One optimizer for all variables of the phase."""
        if len(optimizers) == 1:
            return optimizers[0]
        from keras_metagraph.training.optimizers import OptimizerGroup

        return OptimizerGroup(
            optimizers, [list(part.description.variables) for part in self._parts]
        )

    def _find_counters(self) -> dict[str, int]:
        """The variables that the phase counts its steps with, and by how much."""
        analysis = self._reader.analysis
        found = {}
        for name, variable in analysis.writes.items():
            node = analysis.graph.nodes[name]
            if name not in self._run or node.op not in _COUNTING:
                continue
            dtype = analysis.variables[variable].dtype
            increment = analysis.constant(node.inputs[1])
            shape = analysis.variables[variable].shape
            if shape == () and increment and (dtype.is_integer or increment == 1):
                found[variable] = increment
        # The one that the file names comes first.
        return dict(
            sorted(found.items(), key=lambda item: not self._is_global_step(item[0]))
        )

    def _is_global_step(self, name: str) -> bool:
        collections = self._reader.variables[name].collections
        return "global_step" in collections or name.endswith("global_step")

    def _count(self, optimizers: Sequence[Any]) -> list[Binding]:
        """The counters, as they are after Keras went on counting."""
        if not optimizers:
            return []
        optimizer = optimizers[0]
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
    ) -> None:
        self._reader = reader
        self._run = run
        self._counters = counters
        self.description = description
        self.problems: list[_Problem] = []
        self.warnings: list[str] = []
        self.bindings: list[Binding] = []
        self._numbers = self._read_numbers()
        self._kind = _KINDS.get(description.name)
        if self._kind is None:
            self.problems.append(self._unknown())
        self._check_slots()

    def _unknown(self) -> _Problem:
        names = ", ".join(self.description.variables[:5])
        more = len(self.description.variables) - 5
        return _Problem(
            LoweringError,
            f"{self.description.name or 'the update by plain ops'} is none of the "
            f"optimizers that are known (it updates {names}"
            f"{f' and {more} more' if more > 0 else ''})",
        )

    def _read_numbers(self) -> dict[str, Any]:
        """The hyper-parameters as numbers; the learning rate may be a schedule."""
        found: dict[str, Any] = {
            key: value
            for key, value in self.description.hyper_parameters.items()
            if isinstance(value, bool)
        }
        for key, tensor in self.description.tensors.items():
            number = self._reader.number(tensor, self._run)
            if number.value is None:
                text = f"{key}: {number.problem}"
                self.problems.append(_Problem(LoweringError, text, number.fix))
            elif key != "learning_rate" and not isinstance(number.value, float):
                text = f"{key} changes from step to step: {number}"
                self.problems.append(_Problem(LoweringError, text))
            else:
                found[key] = number.value
        return found

    def _check_slots(self) -> None:
        """All slots must have a value, of the shape of their variable."""
        values = self._reader.values
        for name, slots in self.description.slots.items():
            for role, slot in slots.items():
                if slot not in values:
                    self.problems.append(
                        _Problem(
                            MissingVariableError,
                            f"{slot} has no value (slot {role!r} of {name})",
                            "load a checkpoint that has the slots.",
                        )
                    )
                    continue
                shape, expected = np.shape(values[slot]), self._shape(name)
                if expected is not None and shape != expected:
                    self.problems.append(
                        _Problem(
                            ShapeMismatchError,
                            f"{slot}: {shape}, expected {expected} (slot {role!r} of "
                            f"{name})",
                            "load the checkpoint that belongs to the graph.",
                        )
                    )

    def _shape(self, name: str) -> tuple[int, ...] | None:
        if name in self._reader.values:
            return tuple(np.shape(self._reader.values[name]))
        shape = self._reader.variables[name].shape
        return None if shape is None or None in shape else tuple(shape)

    def build(self, model_variables: Mapping[str, Any]) -> Any:
        """The Keras optimizer, with its state; `None` where there is a problem."""
        if self.problems or self._kind is None:
            return None
        numbers = dict(self._numbers)
        step = self._step()
        rate = numbers.get("learning_rate")
        if callable(rate):
            numbers["learning_rate"] = self._aligned(rate, step)
        optimizer = self._kind(numbers, bool(self.description.sparse))
        weights = [model_variables[name] for name in self.description.variables]
        optimizer.build(weights)
        optimizer.iterations.assign(step)
        self._assign_slots(optimizer, weights)
        self._bind_powers(optimizer, step)
        return optimizer

    def _aligned(self, schedule: Any, step: int) -> Any:
        """The schedule, by the steps that the optimizer counts."""
        number = self._reader.number(
            self.description.tensors["learning_rate"], self._run
        )
        if number.step is None or number.step not in self._reader.values:
            return schedule
        counted = self._reader.integer(number.step)
        return (
            ShiftedSchedule(schedule, counted - step) if counted != step else schedule
        )

    def _step(self) -> int:
        """How many updates the optimizer has made."""
        by_powers = self._step_of_powers()
        counted = next(
            (
                (name, self._reader.integer(name) // by)
                for name, by in self._counters.items()
                if name in self._reader.values
            ),
            None,
        )
        if by_powers is None:
            return counted[1] if counted else 0
        variable, step = by_powers
        if counted and counted[1] != step:
            self.warnings.append(
                f"{counted[0]} says that step {counted[1]} comes next, but {variable} "
                f"that the optimizer is at step {step}: its bias correction goes on "
                f"from {step}, schedules from their own counter"
            )
        return step

    def _step_of_powers(self) -> tuple[str, int] | None:
        """The step that the powers of the decays tell; the slowest one knows best."""
        for power in ("beta2_power", "beta1_power"):
            tensor = self.description.powers.get(power)
            base = self._numbers.get(power.removesuffix("_power"))
            if tensor is None or base is None or not 0 < base < 1:
                continue
            variable = self._reader.analysis.variable_behind(tensor)
            if variable is None or variable not in self._reader.values:
                continue
            value = float(np.asarray(self._reader.values[variable]).reshape(()))
            if _SMALLEST < value < 1:
                return variable, round(math.log(value) / math.log(np.float32(base))) - 1
        return None

    def _assign_slots(self, optimizer: Any, weights: Sequence[Any]) -> None:
        rule = rule_of(optimizer)
        names = rule.slots if rule is not None else {}
        places = optimizer_slots(optimizer, weights)
        scaled = (
            self.description.name == "Momentum"
            and type(optimizer) is keras.optimizers.SGD
        )
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

    def _bind_powers(self, optimizer: Any, step: int) -> None:
        for power, tensor in self.description.powers.items():
            variable = self._reader.analysis.variable_behind(tensor)
            base = self._numbers.get(power.removesuffix("_power"))
            if variable is None or base is None:
                continue
            value = self._reader.values.get(variable)
            if value is not None and variable in self._reader.variables:
                self.bindings.append(
                    Binding(variable, _Power(optimizer, step, value, base))
                )


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


Kind = Callable[[dict[str, Any], bool], Any]


def _gradient_descent(numbers: dict[str, Any], sparse: bool) -> Any:
    del sparse
    return keras.optimizers.SGD(numbers["learning_rate"])


def _momentum(numbers: dict[str, Any], sparse: bool) -> Any:
    rate = numbers["learning_rate"]
    nesterov = numbers.get("use_nesterov", False)
    if sparse or callable(rate) or not rate:
        from keras_metagraph.training.optimizers import TF1Momentum

        return TF1Momentum(rate, numbers["momentum"], use_nesterov=nesterov)
    return keras.optimizers.SGD(rate, numbers["momentum"], nesterov)


def _keras_momentum(numbers: dict[str, Any], sparse: bool) -> Any:
    del sparse
    return keras.optimizers.SGD(
        numbers["learning_rate"],
        numbers["momentum"],
        numbers.get("use_nesterov", False),
    )


def _adam(numbers: dict[str, Any], sparse: bool) -> Any:
    arguments = [numbers[k] for k in ("learning_rate", "beta1", "beta2", "epsilon")]
    if sparse:
        from keras_metagraph.training.optimizers import TF1Adam

        return TF1Adam(*arguments)
    return keras.optimizers.Adam(*arguments)


def _rmsprop(numbers: dict[str, Any], sparse: bool) -> Any:
    arguments = [numbers[k] for k in ("learning_rate", "decay", "momentum", "epsilon")]
    if sparse:
        from keras_metagraph.training.optimizers import TF1RMSProp

        return TF1RMSProp(*arguments, centered=numbers.get("centered", False))
    return keras.optimizers.RMSprop(*arguments, centered=numbers.get("centered", False))


def _adagrad(numbers: dict[str, Any], sparse: bool) -> Any:
    if sparse:
        from keras_metagraph.training.optimizers import TF1Adagrad

        return TF1Adagrad(numbers["learning_rate"])
    return keras.optimizers.Adagrad(
        numbers["learning_rate"], 0.1, epsilon=numbers.get("epsilon", 0.0)
    )


_KINDS: dict[str, Kind] = {
    "Adagrad": _adagrad,
    "Adam": _adam,
    "GradientDescent": _gradient_descent,
    "KerasMomentum": _keras_momentum,
    "keras SGD with momentum": _keras_momentum,
    "Momentum": _momentum,
    "RMSProp": _rmsprop,
}
