"""Keras optimizers for the training of a legacy graph, with its state, and back.

Each number and slot comes from the ops that update the variables. What Keras computes
as TensorFlow 1 did gets Keras's own class, the rest those of
`keras_metagraph.training.optimizers`.
"""

import collections
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_metagraph.errors import CheckpointError, LoweringError
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.variables import GraphVariable
from keras_metagraph.loading.infer.assigned_optimizers import describe_assigned, join
from keras_metagraph.loading.infer.counters import step_counters
from keras_metagraph.loading.infer.interface import Interface
from keras_metagraph.loading.infer.optimizers import (
    OptimizerDescription,
    fused_optimizers,
)
from keras_metagraph.loading.infer.updates import TrainingStep
from keras_metagraph.loading.optimizer_parts import (
    EQUAL,
    Part,
    Problem,
    Reader,
    listed,
)
from keras_metagraph.loading.optimizer_state import Binding, Counter
from keras_metagraph.training import optimizers as tf1


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
    reader = Reader(graph, variables, interface, values)
    phases = [
        _Phase(reader, step, model_variables)
        for step in reader.training.runs(interface.train_op)
        if step.variables
    ]
    _refuse([problem for phase in phases for problem in phase.problems])
    built = [phase.build() for phase in phases]
    _warn([warning for phase in phases for warning in phase.warnings])
    return built


def _refuse(problems: Sequence[Problem]) -> None:
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


class _Phase:
    """Builds one phase."""

    def __init__(
        self, reader: Reader, step: TrainingStep, model_variables: Mapping[str, Any]
    ) -> None:
        self._reader = reader
        self._step = step
        self._model_variables = model_variables
        self.problems: list[Problem] = []
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
            Part(reader, description, self._run, self._counters, everything)
            for description in self._descriptions
        ]
        if not self._parts and not self.problems:
            operations = ", ".join(step.operations)
            text = f"{operations} updates nothing by the gradient of a loss"
            self.problems.append(Problem(LoweringError, text))
        for part in self._parts:
            self.problems += part.problems
        self._check_losses()

    def _check_losses(self) -> None:
        """Refuses losses of copies of the weights, as asynchronous workers have them.

        What is a gradient by the copy in the graph is none by the weights in Keras.
        """
        losses, variables = self._step.losses, self._step.variables
        if not losses or variables & self._reader.analysis.ancestors(losses):
            return
        self.problems.append(
            Problem(
                LoweringError,
                f"{losses[0]} is computed with copies of the variables that are "
                f"updated: {listed(sorted(variables))}",
            )
        )

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
        for reason in dict.fromkeys(unknown.values()):
            same = [name for name, why in unknown.items() if why == reason]
            self.problems.append(
                Problem(
                    LoweringError,
                    "the update by plain ops of these variables is none of the "
                    f"optimizers that are known, {reason}: {listed(same)}",
                )
            )
        times = collections.Counter(
            name for each in [*more, *found] for name in each.variables
        )
        shared = [name for name, count in times.items() if count > 1]
        if shared:
            text = (
                f"several optimizers train these variables in one run: {listed(shared)}"
            )
            self.problems.append(Problem(LoweringError, text))
        joined: dict[Any, OptimizerDescription] = {}
        for description in [*more, *found]:
            key = self._numbers(description)
            # Lazy Adam is Adam where gradients are dense.
            lazy = ("LazyAdam", *key[1:]) if key[0] == "Adam" else key
            key = lazy if lazy in joined else key
            known = joined.get(key)
            powers = self._powers(description)
            if known and self._powers(known) and powers - self._powers(known):
                key = (*key, powers)  # it counts its steps for itself
                known = joined.get(key)
            joined[key] = join(known, description) if known else description
        return list(joined.values())

    def _powers(self, description: OptimizerDescription) -> frozenset[str]:
        """The variables that hold the powers of an optimizer's decays."""
        behind = map(self._reader.analysis.variable_behind, description.powers.values())
        return frozenset(name for name in behind if name is not None)

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
                if isinstance(factor, float) and abs(factor * scale - 1) < EQUAL:
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
                    Binding(name, Counter(optimizer, start, value, increment))
                )
        return bindings
