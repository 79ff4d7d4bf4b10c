"""Finds the updates of variables that are written out in plain ops.

`tf.train` has fused ops for most of its optimizers, but not for all, nor for all
sparse gradients; BERT's and Keras 2's are Python code over plain ops. Here such an
update is cut out of the graph, from the gradient to the new values of the variable and
of its slots, as a function that can be tried.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_metagraph.graph.ir import TensorName
from keras_metagraph.loading.infer.analysis import SHAPE_OPS, GraphAnalysis
from keras_metagraph.loading.infer.optimizers import Gradient
from keras_metagraph.loading.infer.scratch import (
    Scratch,
    branch_conditions,
    corner,
    loose_part,
)
from keras_metagraph.loading.infer.updates import Training

Array = Any
_SUBTRACTING = frozenset({"AssignSub", "AssignSubVariableOp"})
_ASSIGNING = frozenset({"Assign", "AssignVariableOp"})
_SCALING = frozenset({"Mul", "RealDiv", "Div", "Neg"})
_OF_SHAPES = frozenset({"StridedSlice", "Slice", "GatherV2", "Gather"})
_NO_MEANING = frozenset({"_class", "_output_shapes", "use_locking", "validate_shape"})


class Rows(NamedTuple):
    """The tensors of sparse gradients, beside their values.

    Attributes:
        indices: Which rows there are.
        shapes: The shapes of the variables.
    """

    indices: tuple[TensorName, ...]
    shapes: tuple[TensorName, ...]


def rows_of(training: Training, nodes: Iterable[str]) -> Rows:
    """Finds what nodes take of sparse gradients, beside their values.

    Args:
        training: The backward part of the graph.
        nodes: Names of nodes behind it.

    Returns:
        The tensors that come out of the backward part.
    """
    indices: dict[TensorName, None] = {}
    shapes: dict[TensorName, None] = {}
    for name in nodes:
        node = training.analysis.graph.nodes[name]
        for tensor in node.inputs:
            dtype = training.analysis.dtype(tensor)
            if tensor.node in training.backward and dtype in (tf.int32, tf.int64):
                found = shapes if node.op in _OF_SHAPES else indices
                found.setdefault(tensor)
    return Rows(tuple(indices), tuple(shapes))


@dataclasses.dataclass(frozen=True)
class AssignedUpdate:
    """The update of one variable by plain ops.

    Attributes:
        variable: Its name.
        slots: Names of the variables that are updated with it, in an order that is the
            same for all variables of the optimizer.
        gradient: The gradient that it takes.
        rows: What else it takes of a sparse gradient.
        writers: The operations that write the variable and its slots.
        nodes: Names of all nodes between them and the gradient.
        scalars: Float tensors among these that follow neither gradients nor weights:
            hyper-parameters and what is computed of them.
        signature: Equal for updates that compute the same.
    """

    variable: str
    slots: tuple[str, ...]
    gradient: Gradient
    rows: Rows
    writers: tuple[str, ...]
    nodes: frozenset[str]
    scalars: tuple[TensorName, ...]
    signature: int


def assigned_update(
    training: Training, variable: str, run: Collection[str]
) -> AssignedUpdate | None:
    """Cuts out the update of a variable.

    Args:
        training: The backward part of the graph.
        variable: Name of a trained variable.
        run: Names of the nodes that a training step runs.

    Returns:
        The update; `None` where no single gradient goes into it.
    """
    return _Cut(training, variable, run).update()


class _Cut:
    """Looks for the parts of one update."""

    def __init__(self, training: Training, variable: str, run: Collection[str]) -> None:
        self._training = training
        self._analysis = training.analysis
        self._graph = training.analysis.graph
        self._variable = variable
        self._run = run
        self._writers = self._writers_of([variable])
        self._nodes = self._cone(self._writers)
        self._slots = self._find_slots()
        self._writers += self._writers_of(self._slots)
        self._nodes = self._cone(self._writers)

    def update(self) -> AssignedUpdate | None:
        state = [self._variable, *self._slots]
        changing = self._analysis.reach(state, within=self._nodes | set(state))
        frontier = self._frontier(changing | set(self._writers))
        values = self._dominator([t for t in frontier if self._floats(t)])
        if values is None:
            return None
        if not self._slots:
            values = self._unscaled(values)
        nodes = self._cone(self._writers, {values})
        rows = rows_of(self._training, nodes)
        after = self._training.after | changing
        unsure = self._analysis.in_branches | self._analysis.in_frames  # may be dead
        scalars = [
            TensorName(name)
            for name in sorted(nodes - after - unsure)
            if self._analysis.rank(TensorName(name)) == 0
            and self._floats(TensorName(name))
            and self._graph.nodes[name].op not in SHAPE_OPS
        ]
        nodes |= branch_conditions(self._graph, nodes)
        ordered = self._order(values)
        return AssignedUpdate(
            self._variable,
            ordered,
            Gradient(values, rows.indices[0] if rows.indices else None),
            rows,
            tuple(self._writers),
            frozenset(nodes),
            tuple(scalars),
            self._hash(values, {n: f"slot{i}" for i, n in enumerate(ordered)}),
        )

    def _writers_of(self, variables: Collection[str]) -> list[str]:
        """The operations of the training step that write variables."""
        wanted = set(variables)
        skipped = {v.initializer for v in self._analysis.variables.values()}
        return [
            name
            for name, variable in self._analysis.writes.items()
            if variable in wanted and name in self._run and name not in skipped
        ]

    def _cone(
        self, roots: Iterable[str], ends: Collection[TensorName] = ()
    ) -> set[str]:
        """The nodes that `roots` need, without the backward part of the graph."""
        seen: set[str] = set()
        stack = list(roots)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            for tensor in self._graph.nodes[name].inputs:
                if tensor in ends or tensor.node in self._training.backward:
                    continue
                stack.append(tensor.node)
        return seen

    def _find_slots(self) -> list[str]:
        """Variables that take part in the update and are written after the gradient."""
        after = self._training.after
        written = {
            variable
            for name, variable in self._analysis.writes.items()
            if name in self._run and name in after
        }
        near = self._nodes & self._analysis.variables.keys() & written
        shape = self._analysis.variables[self._variable].shape
        return sorted(
            name
            for name in near - self._analysis.trained - {self._variable}
            if self._analysis.variables[name].shape == shape
        )

    def _frontier(self, changing: Collection[str]) -> list[TensorName]:
        """The tensors that bring the gradient to where variables come in."""
        after = self._training.after
        found: dict[TensorName, None] = {}
        for name in self._nodes & set(changing):
            for tensor in self._graph.nodes[name].inputs:
                if tensor.node in after and tensor.node not in changing:
                    found.setdefault(tensor)
        return list(found)

    def _dominator(self, frontier: list[TensorName]) -> TensorName | None:
        """The last tensor through which all of the gradient comes."""
        places = {name: place for place, name in enumerate(self._graph.nodes)}
        current = set(frontier)
        while len(current) > 1:
            last = max(current, key=lambda tensor: places[tensor.node])
            if last.node in self._training.backward:
                return None
            current.remove(last)
            current.update(
                tensor
                for tensor in self._graph.nodes[last.node].inputs
                if tensor.node in self._training.after and self._floats(tensor)
            )
        return next(iter(current), None)

    def _unscaled(self, tensor: TensorName) -> TensorName:
        """The gradient before it was multiplied by the learning rate."""
        while tensor.node not in self._training.backward:
            node = self._graph.nodes[tensor.node]
            inputs = [t for t in node.inputs if t.node in self._training.after]
            if node.op not in _SCALING or len(inputs) != 1:
                return tensor
            tensor = inputs[0]
        return tensor

    def _floats(self, tensor: TensorName) -> bool:
        dtype = self._analysis.dtype(tensor)
        return dtype is None or dtype.is_floating

    def _order(self, gradient: TensorName) -> tuple[str, ...]:
        """The slots, in an order that only what is done to them decides."""
        labels = dict.fromkeys(self._slots, "other")
        return tuple(
            sorted(
                self._slots,
                key=lambda slot: (self._hash(gradient, {**labels, slot: "self"}), slot),
            )
        )

    def _hash(self, gradient: TensorName, labels: Mapping[str, str]) -> int:
        """A number for what the update computes, whatever its nodes are called."""
        known: dict[str, int] = {self._variable: hash("variable")}
        known |= {name: hash(label) for name, label in labels.items()}
        nodes = self._graph.nodes
        for name in [name for name in nodes if name in self._nodes]:
            node = nodes[name]
            if name in known:
                continue
            if name in self._analysis.variables:
                known[name] = hash(name)  # a scalar that all variables share
                continue
            inputs = tuple(
                ("gradient" if t == gradient else known.get(t.node, 0), t.index)
                for t in node.inputs
            )
            attrs = tuple(
                (key, node.attrs[key].SerializeToString(deterministic=True))
                for key in sorted(node.attrs.keys() - _NO_MEANING)
            )
            known[name] = hash((node.op, inputs, attrs))
        return hash(tuple(sorted(known[name] for name in self._writers)))


class UpdateProbe:
    """Runs an update on made-up state and gradients.

    Args:
        analysis: The graph.
        update: The update.
        values: Arrays by variable name.
        feeds: Values of placeholders, by tensor name.
        moving: Scalar variables that change with the steps: a function of the step.
    """

    def __init__(
        self,
        analysis: GraphAnalysis,
        update: AssignedUpdate,
        values: Mapping[str, Any],
        feeds: Mapping[str, Any],
        moving: Mapping[str, Any],
    ) -> None:
        self._analysis = analysis
        self.update = update
        weight = corner(values[update.variable])
        self.shape = weight.shape
        self._feeds = dict(feeds)
        self._moving = moving
        part = loose_part(analysis.graph, update.nodes)
        small = dict.fromkeys((update.variable, *update.slots), weight)
        self._scratch = Scratch(part, list(analysis.variables), {**values, **small})
        self._random = np.random.default_rng(1)

    @property
    def sparse(self) -> bool:
        """Whether it takes rows."""
        return self.update.gradient.indices is not None

    @property
    def exact(self) -> bool:
        """Whether the change is a tensor, and not only seen as a difference."""
        return self._subtracted is not None

    def numbers(self, low: float = 0.5, high: float = 2.0) -> Array:
        """Random numbers of both signs in the shape of the variable."""
        size = self._random.uniform(low, high, self.shape)
        return size * self._random.choice([-1.0, 1.0], self.shape)

    def __call__(
        self,
        variable: Array,
        slots: Sequence[Array],
        gradient: Array,
        step: int,
        rows: int | None = None,
    ) -> tuple[Array, list[Array]]:
        """One update.

        Args:
            variable: The value of the variable.
            slots: Those of the slots.
            gradient: The gradient, in the shape of the variable.
            step: The number of updates so far.
            rows: How many of the first rows a sparse gradient has; by default all.

        Returns:
            What is subtracted from the variable, and the new slots, in float64.
        """
        update = self.update
        state = {update.variable: self._typed(update.variable, variable)}
        for name, value in zip(update.slots, slots, strict=True):
            state[name] = self._typed(name, value)
        state |= self._at(step)
        count = rows or (self.shape[0] if self.sparse else None)
        feeds: dict[str, Any] = {
            str(update.gradient.values): np.float32(gradient[:count])
        }
        for tensor in update.rows.indices:
            feeds[str(tensor)] = np.arange(count or 0)
        for tensor in update.rows.shapes:
            feeds[str(tensor)] = np.array(self.shape)
        fetched = self._subtracted
        fetches = [*update.writers, *([str(fetched)] if fetched else [])]
        found = self._scratch.run(fetches, self._feeds | feeds, state)
        change = (
            np.asarray(found[-1], np.float64)
            if fetched
            else np.asarray(variable, np.float64)
            - self._scratch.value(update.variable).astype(np.float64)
        )
        after = [self._scratch.value(name).astype(np.float64) for name in update.slots]
        return change, after

    def scalars(self, step: int) -> dict[TensorName, float]:
        """The scalars of the update at a step."""
        names = [str(tensor) for tensor in self.update.scalars]
        found = self._scratch.run(names, self._feeds, self._at(step)) if names else []
        return {
            tensor: float(np.asarray(value))
            for tensor, value in zip(self.update.scalars, found, strict=True)
        }

    def _at(self, step: int) -> dict[str, Any]:
        """The state of counters and powers before a step."""
        return {
            name: self._typed(name, function(step))
            for name, function in self._moving.items()
        }

    def _typed(self, name: str, value: Any) -> Any:
        dtype = self._analysis.variables[name].dtype.as_numpy_dtype
        return np.asarray(value).astype(dtype)

    @functools.cached_property
    def _subtracted(self) -> TensorName | None:
        """The tensor that is subtracted: the difference would lose its digits."""
        graph = self._analysis.graph
        for name in self.update.writers:
            node = graph.nodes[name]
            if self._analysis.writes[name] != self.update.variable:
                continue
            if node.op in _SUBTRACTING:
                return node.inputs[1]
            source = graph.nodes[node.inputs[1].node]
            if node.op in _ASSIGNING and source.op == "Sub":
                before = self._analysis.variable_behind(source.inputs[0])
                if before == self.update.variable:
                    return source.inputs[1]
        return None
