"""Builds one Keras optimizer after one optimizer of a graph."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from keras_metagraph.errors import (
    LoweringError,
    MissingVariableError,
    ShapeMismatchError,
)
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.variables import GraphVariable
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.extra_writes import extra_writes
from keras_metagraph.loading.infer.gradient_chain import (
    GradientChain,
    UnknownGradientError,
    describe_chain,
)
from keras_metagraph.loading.infer.interface import Interface
from keras_metagraph.loading.infer.optimizers import Gradient, OptimizerDescription
from keras_metagraph.loading.infer.schedules import (
    ScheduleDescription,
    infer_schedule,
)
from keras_metagraph.loading.infer.updates import Training
from keras_metagraph.loading.optimizer_kinds import (
    DECAYING,
    KINDS,
    UNKNOWN,
    kind_of,
)
from keras_metagraph.loading.optimizer_state import SMALLEST, Binding, Power, Slot
from keras_metagraph.training import optimizers as tf1
from keras_metagraph.training.rules import rule_of
from keras_metagraph.training.schedules import ShiftedSchedule
from keras_metagraph.training.slots import optimizer_slots

EQUAL = 2e-6
"""How far apart factors may be that are the same in float32."""
# Of what has no op of its own.
_SLOTS = {"m": "momentum", "v": "velocity", "rms": "velocity", "accum": "momentum"}
_STILL = frozenset({"Adagrad", "GradientDescent"})  # where a gradient is zero
_SCHEDULED = frozenset({"learning_rate", "sign_decay"})


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that keeps an optimizer from going on as it was."""

    kind: type[Exception]
    text: str
    fix: str = ""


class Reader:
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


class Part:
    """Builds one Keras optimizer after one of the graph."""

    def __init__(
        self,
        reader: Reader,
        description: OptimizerDescription,
        run: Collection[str],
        counters: Mapping[str, int],
        everything: Mapping[str, Gradient],
    ) -> None:
        self._reader = reader
        self._run = run
        self._counters = counters
        self.description = description
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.bindings: list[Binding] = []
        self._numbers = self._read_numbers()
        self._kind = kind_of(description)
        if self._kind is UNKNOWN:
            self.problems.append(self._unknown())
        self._check_slots()
        self.chain = self._read_chain(everything)
        self._extra = extra_writes(
            reader.training, description, run, reader.values, reader.feeds
        )

    def _unknown(self) -> Problem:
        return Problem(
            LoweringError,
            f"{self.description.name or 'the update by plain ops'} is none of the "
            "optimizers that are known; it updates "
            f"{listed(self.description.variables)}",
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
                self.problems.append(Problem(LoweringError, text, number.fix))
            elif key not in _SCHEDULED and not isinstance(number.value, float):
                text = f"{key} changes from step to step: {number}"
                self.problems.append(Problem(LoweringError, text))
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
                        Problem(
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
                        Problem(
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
                Problem(
                    LoweringError,
                    "what updates these variables is not the gradient of a loss of the "
                    f"graph: {listed(error.args)}",
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
        elif abs(chain.scale - 1) > EQUAL:
            self.warnings.append(
                f"not carried: gradients are multiplied by {chain.scale}"
            )
        self.warnings += [*chain.findings, *self._extra.findings]
        optimizer = self._decaying(arguments, weights) or self._plain(own, arguments)
        rule = rule_of(optimizer)
        lazy = rule is not None and not rule.densify
        if chain.densified and lazy and self.description.name not in _STILL:
            self.warnings.append(
                "not carried: the graph makes the sparse gradients of "
                f"{listed(sorted(chain.densified))} dense; here only rows with a "
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
            abs((1 - np.float32(beta)) - (1 - beta)) <= EQUAL * (1 - beta)
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
                optimizer = KINDS[name].exact(**arguments)
                kept = self.description.excluded
        elif extra.decay and not chain.decay and name in DECAYING:
            optimizer = DECAYING[name](weight_decay=extra.decay, **arguments)
            kept = tuple(weights.keys() - set(extra.decayed))
        elif chain.decay and not extra.decay and name == "GradientDescent":
            # w - rate * (g + decay * w), whichever is subtracted first.
            optimizer = tf1.TF1GradientDescent(weight_decay=chain.decay, **arguments)
            kept = tuple(weights.keys() - chain.decayed)
        else:
            optimizer = None
            rates = [rate for rate in (chain.decay, extra.decay) if rate]
            names = listed(sorted({*chain.decayed, *extra.decayed}))
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
            if SMALLEST < value < 1:
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
                self.bindings.append(Binding(slot, Slot(optimizer, variable, scaled)))

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
                read: Callable[[], Any] = Slot(optimizer, variable, False)
            elif base is not None:
                read = Power(optimizer, step, value, base)
            else:
                continue
            self.bindings.append(Binding(name, read))


def listed(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
