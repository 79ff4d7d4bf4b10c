"""Finds the schedule behind a learning rate of a graph."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.audit.tensors import decode_tensor, tensor_problem
from keras_metagraph.errors import MetaGraphError
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build, prepare_for_session
from keras_metagraph.graph.to_proto import graph_to_proto
from keras_metagraph.graph.variables import GraphVariable
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.counters import increment
from keras_metagraph.loading.infer.feeds import PLACEHOLDERS
from keras_metagraph.loading.infer.schedule_fit import (
    agrees,
    fit,
    shortest,
    steps_to_compare,
)
from keras_metagraph.loading.infer.scratch import Scratch
from keras_metagraph.session.executor import cone
from keras_metagraph.training.schedules import GraphSchedule

_RANDOM = ("Random", "TruncatedNormal", "StatelessRandom", "StatefulUniform")
_LARGE = 1 << 16
_RATE, _STEP = "rate", "step"


@dataclasses.dataclass(frozen=True)
class ScheduleDescription:
    """A learning rate, or another number of an optimizer, as Keras can have it.

    Attributes:
        tensor: The tensor of the graph that has it.
        value: A float or a Keras schedule; `None` where there is a problem.
        step: Name of the variable that the schedule counts with.
        offset: What is added to that before: 1 where the graph counts first, and then
            computes the rate.
        problem: Why it is no function of the step alone.
        fix: What the user can do about it.
    """

    tensor: TensorName
    value: Any
    step: str | None = None
    offset: int = 0
    problem: str = ""
    fix: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return self.problem
        if isinstance(self.value, float):
            return str(self.value)
        config = self.value.get_config()
        shown = [
            f"{key}={value}"
            for key, value in config.items()
            if key not in ("name", "graph_def") and not isinstance(value, dict)
        ]
        return f"{type(self.value).__name__}({', '.join(shown)})"


def infer_schedule(
    graph: Graph,
    variables: Mapping[str, GraphVariable],
    rate: TensorName,
    values: Mapping[str, Any],
    *,
    feeds: Mapping[str, Any] | None = None,
    written: Collection[str] | None = None,
    analysis: GraphAnalysis | None = None,
) -> ScheduleDescription:
    """Finds what gives a number that an optimizer uses.

    The candidates are made of the constants of the formula and compared with it at
    many steps; where none agrees, the formula itself becomes the schedule.

    Args:
        graph: A repaired graph.
        variables: Its variables by node name.
        rate: The tensor.
        values: Arrays by variable name.
        feeds: Values of placeholders in training, by tensor name.
        written: Names of the nodes that a training step runs; by default all that
            neither initialize nor restore.
        analysis: The analysis of the graph, where there is one.

    Returns:
        The number or schedule, or the problem.

    Example:
        ```python
        found = infer_schedule(graph, variables, TensorName("ExponentialDecay"), values)
        found.value(1000)  # the rate at step 1000
        ```
    """
    analysis = analysis or GraphAnalysis(graph, variables)
    constant = analysis.constant(rate)
    if constant is not None:
        return ScheduleDescription(rate, float(constant))
    formula = _Formula(analysis, rate, values, feeds or {}, written)
    return formula.describe()


class _Formula:
    """The part of a graph that a rate is computed by."""

    def __init__(
        self,
        analysis: GraphAnalysis,
        rate: TensorName,
        values: Mapping[str, Any],
        feeds: Mapping[str, Any],
        written: Collection[str] | None,
    ) -> None:
        self._analysis = analysis
        self._rate = rate
        self._values = values
        fed = {TensorName.parse(name): value for name, value in feeds.items()}
        names, used = cone(analysis.graph, [rate], set(fed))
        if rate in fed:
            used = {rate}
        self._names = names | {tensor.node for tensor in used}
        self._feeds = {str(tensor): fed[tensor] for tensor in used}
        self._part = analysis.graph.subgraph(names)
        self._reads = sorted(names & analysis.variables.keys())
        self._writers = self._find_writers(written)
        self._unordered = self._find_unordered()
        self._scratch = Scratch(self._with_writers(), list(analysis.variables), values)

    def describe(self) -> ScheduleDescription:
        problem, fix = self._problem()
        if problem:
            return ScheduleDescription(self._rate, None, problem=problem, fix=fix)
        counters = [name for name in self._reads if name in self._writers]
        try:
            if not counters:
                return ScheduleDescription(self._rate, shortest(self._evaluate()))
            return self._schedule(counters[0])
        except MetaGraphError as error:
            return ScheduleDescription(
                self._rate, None, problem=error.problem, fix=error.fix
            )

    def _find_writers(self, written: Collection[str] | None) -> dict[str, list[Node]]:
        """Nodes that write the variables of the formula while the graph trains."""
        analysis = self._analysis
        skipped = {v.initializer for v in analysis.variables.values()}
        found: dict[str, list[Node]] = {}
        for name, variable in analysis.writes.items():
            known = name not in skipped and name not in analysis.saver_nodes
            runs = known if written is None else name in written
            if runs and variable in self._names:
                found.setdefault(variable, []).append(analysis.graph.nodes[name])
        return found

    def _find_unordered(self) -> list[Node]:
        """Writers that do not wait for the rate, such as `step.assign(step + 1)`.

        With reference variables they run first, and the rate sees what they wrote.
        """
        ancestors = self._analysis.ancestors
        return [
            node
            for nodes in self._writers.values()
            for node in nodes
            if node.name not in self._names
            and self._rate.node not in ancestors([TensorName(node.name)])
        ]

    def _with_writers(self) -> Graph:
        """The nodes of the formula, and the writers that do not wait for it."""
        graph = self._analysis.graph
        names, _ = cone(graph, [t for n in self._unordered for t in n.inputs], set())
        part = graph.subgraph(self._names | names)
        for node in self._unordered:
            controls = [name for name in node.control_inputs if name in part.nodes]
            part.nodes[node.name] = dataclasses.replace(node, control_inputs=controls)
        return part

    def _problem(self) -> tuple[str, str]:
        """Why the formula is no function of a step counter, and what helps."""
        nodes = self._analysis.graph.nodes
        random = [n for n in sorted(self._names) if nodes[n].op.startswith(_RANDOM)]
        if random:
            return (
                f"{self._rate} is random ({nodes[random[0]].op} {random[0]!r}): no "
                "schedule repeats it",
                "train with the graph's own train op, which has it.",
            )
        fed = {TensorName.parse(name).node for name in self._feeds}
        unfed = [
            f"{name}:0"
            for name in sorted(self._names - fed)
            if nodes[name].op in PLACEHOLDERS and not nodes[name].inputs
        ]
        if unfed:
            return (
                f"{self._rate} is fed by the caller ({', '.join(unfed)}), and no file "
                "says with what",
                f"load_from_meta_graph(..., feeds={{{unfed[0]!r}: 0.01}}).",
            )
        for name in self._reads:
            writers = self._writers.get(name, [])
            if not all(increment(self._analysis, node) for node in writers):
                return (
                    f"{self._rate} depends on the variable {name!r}, which the train "
                    f"op changes by {sorted({node.op for node in writers})}",
                    "train with the graph's own train op.",
                )
        counters = [name for name in self._reads if name in self._writers]
        if len(counters) > 1:
            return (
                f"{self._rate} depends on several counters, {counters}",
                "train with the graph's own train op.",
            )
        large = [n for n in self._reads if np.size(self._values.get(n, 0)) > _LARGE]
        if large:
            return (
                f"{self._rate} depends on the weights {large}",
                "train with the graph's own train op.",
            )
        return "", ""

    def _evaluate(self, step: str | None = None, at: int = 0) -> float:
        """The rate, by the graph itself."""
        state: dict[str, Any] = {}
        if step is not None:
            self._scratch.reset()  # the formula may count on its own
            state[step] = np.asarray(at, self._dtype(step).as_numpy_dtype)
        fetches = [str(self._rate), *(node.name for node in self._unordered)]
        value, *_ = self._scratch.run(fetches, self._feeds, state)
        return float(np.asarray(value).reshape(()))

    def _dtype(self, variable: str) -> tf.DType:
        return self._analysis.variables[variable].dtype

    def _schedule(self, step: str) -> ScheduleDescription:
        """The schedule that counts with a variable."""
        now = int(np.asarray(self._values.get(step, 0)).reshape(()))
        steps = [s for s in steps_to_compare(self._constants(), now) if self._fits(s)]
        formula, offset = self._frozen(step, now)
        if formula is None:
            rates = [self._evaluate(step, at) for at in steps]
        else:
            rates = [float(formula(np.int64(at))) for at in steps]
        value = fit(steps, np.array(rates), self._constants())
        if value is None:
            value = formula
        if value is None:
            return ScheduleDescription(
                self._rate,
                None,
                step,
                problem=f"{self._rate} is computed from {step!r} by ops that cannot be "
                "cut out of the graph",
                fix="train with the graph's own train op.",
            )
        return ScheduleDescription(self._rate, value, step, offset)

    def _fits(self, step: int) -> bool:
        """Whether the counter can count so far."""
        return all(
            step <= self._dtype(name).max
            for name in self._writers
            if self._dtype(name).is_integer
        )

    def _constants(self) -> list[float]:
        """The numbers of the formula."""
        found: list[float] = []
        for name in self._names:
            node = self._analysis.graph.nodes[name]
            if node.op == "Const" and "value" in node.attrs:
                proto = node.attrs["value"].tensor
                if not tensor_problem(proto):
                    found.extend(_numbers(decode_tensor(proto)))
        for name in self._reads:
            if name not in self._writers and name in self._values:
                found.extend(_numbers(self._values[name]))
        found.extend(_numbers(self._computed()))
        # A program has few of its own; 1 and 0 stand in the formulas themselves.
        own = sorted(set(found), key=lambda value: (value in (0.0, 0.5, 1.0), value))
        return own

    def _computed(self) -> Any:
        """Numbers that the formula computes of constants alone, as 2 * epoch_size."""
        analysis, nodes = self._analysis, self._analysis.graph.nodes
        moving = analysis.reach(
            [name for name in self._reads if name in self._writers],
            within=self._names,
        )
        still = [
            f"{name}:0"
            for name in sorted(self._names - moving - analysis.in_branches)
            if nodes[name].op in ("Mul", "Add", "AddV2", "Sub", "RealDiv", "FloorDiv")
        ]
        if not still:
            return []
        arrays = self._scratch.run(still, self._feeds)
        return [a for array in arrays for a in _numbers(array)]

    def _frozen(self, step: str, now: int) -> tuple[Any, int]:
        """The formula as a schedule, and how far the graph counts before it.

        `None` if the formula cannot be cut out, or does not prove to be the same.
        """
        graph = self._cut(step)
        if graph is None:
            return None, 0
        data = graph_to_proto(graph).SerializeToString()
        try:
            schedule = GraphSchedule(data, _STEP, f"{_RATE}:0")
            checked = [s for s in (0, 1, 2, 100, now, now + 1) if self._fits(s)]
            expected = np.array([self._evaluate(step, at) for at in checked])
            if agrees(schedule, checked, expected):
                return schedule, 0
            added = int(increment(self._analysis, self._writers[step][0]))
            if agrees(schedule, [at + added for at in checked], expected):
                return schedule, added
        except (MetaGraphError, tf.errors.OpError, ValueError):
            pass  # not a function of the step alone, as far as can be seen
        return None, 0

    def _cut(self, step: str) -> Graph | None:
        """The nodes of the formula, variables frozen, the counter a placeholder."""
        analysis = self._analysis
        nodes = {}
        for name, node in self._part.nodes.items():
            if name in analysis.writes:
                continue
            controls = [n for n in node.control_inputs if n not in analysis.writes]
            nodes[name] = dataclasses.replace(node, control_inputs=controls)
        if any(t.node not in nodes for n in nodes.values() for t in n.inputs):
            return None
        for tensor, value in self._feeds.items():
            name = TensorName.parse(tensor).node
            dtype = analysis.dtype(TensorName.parse(tensor))
            if dtype is None or not tensor.endswith(":0"):
                return None
            nodes[name] = build.const_node(name, value, dtype.as_datatype_enum)
        part = prepare_for_session(
            Graph(nodes, self._part.functions, self._part.producer)
        )
        kinds = {name: self._dtype(name).as_datatype_enum for name in self._reads}
        return _without_handles(part, kinds, step, self._values, self._rate)


def _without_handles(
    graph: Graph,
    kinds: Mapping[str, int],
    step: str,
    values: Mapping[str, Any],
    rate: TensorName,
) -> Graph | None:
    """Puts values where handles of variables were; `None` if functions take them."""
    kept = dict(graph.nodes)
    users: dict[str, list[Node]] = graph.consumers()
    step_node = Node(
        _STEP,
        "Placeholder",
        attrs={"dtype": build.type_attr(kinds[step]), "shape": build.shape_attr(())},
    )
    renamed = {}
    for name, kind in kinds.items():
        queue, seen = [name], {name}
        while queue:
            for user in users[queue.pop()]:
                if user.name in seen or user.op == "Const":
                    continue
                if user.op == "ReadVariableOp":
                    kept[user.name] = dataclasses.replace(
                        user, op="Identity", attrs={"T": build.type_attr(kind)}
                    )
                elif user.op in ("Switch", "Enter", "Identity", "Merge"):
                    attrs = {**user.attrs, "T": build.type_attr(kind)}
                    attrs.pop("_output_shapes", None)
                    kept[user.name] = dataclasses.replace(user, attrs=attrs)
                    queue.append(user.name)
                elif any(tensor.node == name for tensor in user.inputs):
                    return None
                seen.add(user.name)
        if name == step:
            kept[name] = dataclasses.replace(step_node, name=name)
            renamed[name] = _STEP
        else:
            kept[name] = build.const_node(name, values[name], kind)
    return _renamed(Graph(kept, graph.functions, graph.producer), renamed, rate)


def _renamed(graph: Graph, names: Mapping[str, str], rate: TensorName) -> Graph:
    """The graph with the ends called `step` and `rate`."""
    taken = {n: f"formula/{n}" for n in (_STEP, _RATE) if n in graph.nodes}
    taken.update(names)

    def now(name: str) -> str:
        return taken.get(name, name)

    nodes = {}
    for node in graph.nodes.values():
        nodes[now(node.name)] = dataclasses.replace(
            node,
            name=now(node.name),
            inputs=[TensorName(now(t.node), t.index) for t in node.inputs],
            control_inputs=[now(name) for name in node.control_inputs],
            attrs={k: v for k, v in node.attrs.items() if k != "_class"},
        )
    source = TensorName(now(rate.node), rate.index)
    nodes[_RATE] = Node(
        _RATE,
        "Cast",
        [source],
        attrs={
            "SrcT": build.type_attr(_rate_type(graph, rate)),
            "DstT": build.type_attr(build.FLOAT),
        },
    )
    return Graph(nodes, graph.functions, graph.producer)


def _rate_type(graph: Graph, rate: TensorName) -> int:
    spec = GraphAnalysis(graph, {}).dtype(rate)
    return build.FLOAT if spec is None else int(spec.as_datatype_enum)


def _numbers(value: Any) -> Sequence[float]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.size > 64:
        return []
    return [float(number) for number in array.ravel()]
