"""Checks what the caller named: every unknown name is in one error."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_metagraph.errors import SignatureError, nearest
from keras_metagraph.graph import op_defs
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.interface import Interface

Names = str | Sequence[str] | Mapping[str, str]


@dataclasses.dataclass
class Given:
    """What the caller named; `None` for what is to be inferred.

    Attributes:
        inputs: Tensors by input name.
        outputs: Tensors by output name.
        labels: Tensors by label name.
        loss: The loss.
        train_op: Operations of a training step.
        training_values: Values when training and otherwise; `None` in their place for
            a flag whose values are to be found.
        constants: Values to bake in.
        reasons: Who named a part, where it was not the caller.
    """

    inputs: dict[str, TensorName] | None = None
    outputs: dict[str, TensorName] | None = None
    labels: dict[str, TensorName] | None = None
    loss: TensorName | None = None
    train_op: list[str] | None = None
    training_values: dict[TensorName, tuple[Any, Any] | None] = dataclasses.field(
        default_factory=dict
    )
    constants: dict[TensorName, Any] = dataclasses.field(default_factory=dict)

    reasons: dict[str, str] = dataclasses.field(default_factory=dict)

    def reason(self, part: str) -> str:
        """Why what was named for a part is taken."""
        return self.reasons.get(part, "named by the caller")

    def fill(self, interface: Interface, graph: Graph, reason: str) -> None:
        """Takes what the caller left open from an interface that fits the graph.

        Args:
            interface: Where the names come from.
            graph: The graph; parts that it does not have are not taken.
            reason: Why the names are taken.
        """
        for part in ("inputs", "outputs", "labels"):
            tensors = {
                key: TensorName.parse(name)
                for key, name in getattr(interface, part).items()
            }
            known = all(tensor.node in graph.nodes for tensor in tensors.values())
            if getattr(self, part) is None and tensors and known:
                setattr(self, part, tensors)
                self.reasons[part] = reason
        loss = interface.loss and TensorName.parse(interface.loss)
        if self.loss is None and loss and loss.node in graph.nodes:
            self.loss, self.reasons["loss"] = loss, reason
        operations = [name for name in interface.train_op if name in graph.nodes]
        if self.train_op is None and operations:
            self.train_op, self.reasons["train_op"] = operations, reason

    @property
    def fed(self) -> list[TensorName]:
        """All tensors that the caller wants to feed."""
        sides = [self.inputs or {}, self.labels or {}]
        tensors = [tensor for side in sides for tensor in side.values()]
        return [*tensors, *self.training_values, *self.constants]


def check_arguments(
    graph: Graph,
    *,
    inputs: Names | None = None,
    outputs: Names | None = None,
    labels: Names | None = None,
    loss: str | None = None,
    train_op: str | Sequence[str] | None = None,
    training_flag: str | Sequence[str] | Mapping[str, Any] | None = None,
    feeds: Mapping[str, Any] | None = None,
) -> Given:
    """Reads the arguments of `load_from_meta_graph` that name parts of the graph.

    Args:
        graph: The graph.
        inputs: Tensor names by key, a list of tensor names, or one.
        outputs: The same.
        labels: The same.
        loss: A tensor name.
        train_op: An operation name or several.
        training_flag: A placeholder, several, or a pair of values by placeholder: when
            training, and otherwise.
        feeds: Constants by tensor name.

    Returns:
        The same as tensors and operations.

    Raises:
        SignatureError: If names are not in the graph; lists all of them with the
            nearest names.
    """
    reader = _Reader(graph)
    given = Given(
        inputs=reader.tensors("inputs", inputs),
        outputs=reader.tensors("outputs", outputs),
        labels=reader.tensors("labels", labels),
        loss=None if loss is None else reader.tensor("loss", loss),
        train_op=reader.operations("train_op", train_op),
        training_values=reader.flags("training_flag", training_flag),
        constants={
            reader.tensor("feeds", name): plain(value)
            for name, value in (feeds or {}).items()
        },
    )
    reader.finish()
    return given


def plain(value: Any) -> Any:
    """A value as plain Python, numbers and nested lists."""
    return np.asarray(value).tolist()


class _Reader:
    """Reads names and keeps what is wrong with them."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._findings: list[str] = []

    def tensor(self, argument: str, name: str) -> TensorName:
        """A tensor by its name, with or without `:0`."""
        tensor = TensorName.parse(str(name))
        node = self._graph.nodes.get(tensor.node)
        if node is None:
            known = nearest(tensor.node, self._graph.nodes)
            self._findings.append(f"{argument}: {name!r}{known}")
            return tensor
        definition = op_defs.op_def(node.op)
        if definition is None:
            return tensor
        offsets = op_defs.output_offsets(definition, node.attrs)
        count = sum(number for _, number in offsets.values())
        if tensor.index >= count and (count or not definition.output_arg):
            self._findings.append(
                f"{argument}: {name!r}; node {node.name!r} ({node.op}) has "
                f"{count or 'no'} output{'' if count == 1 else 's'}"
            )
        return tensor

    def tensors(
        self, argument: str, names: Names | None
    ) -> dict[str, TensorName] | None:
        """Tensors by key; keys are made from the nodes where only names are given."""
        if names is None:
            return None
        if isinstance(names, Mapping):
            return {
                str(key): self.tensor(argument, name) for key, name in names.items()
            }
        listed = [names] if isinstance(names, str) else list(names)
        tensors = dict.fromkeys(self.tensor(argument, name) for name in listed)
        known = [tensor for tensor in tensors if tensor.node in self._graph.nodes]
        if argument == "outputs":
            keys = naming.output_keys(self._graph, known, {})
        else:
            keys = naming.input_keys(known)
        return {key: TensorName.parse(name) for key, name in keys.items()}

    def operations(
        self, argument: str, names: str | Sequence[str] | None
    ) -> list[str] | None:
        """Names of operations; `:0` at the end does not matter."""
        if names is None:
            return None
        listed = [names] if isinstance(names, str) else list(names)
        operations = [TensorName.parse(str(n).removeprefix("^")).node for n in listed]
        for name in operations:
            if name not in self._graph.nodes:
                known = nearest(name, self._graph.nodes)
                self._findings.append(f"{argument}: {name!r}{known}")
        return operations

    def flags(
        self, argument: str, names: str | Sequence[str] | Mapping[str, Any] | None
    ) -> dict[TensorName, tuple[Any, Any] | None]:
        """Flags with their values, where the caller gave any."""
        if names is None:
            return {}
        if not isinstance(names, Mapping):
            listed = [names] if isinstance(names, str) else list(names)
            return {self.tensor(argument, name): None for name in listed}
        values: dict[TensorName, tuple[Any, Any] | None] = {}
        for name, pair in names.items():
            tensor = self.tensor(argument, name)
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                self._findings.append(
                    f"{argument}: {name!r} has the value {pair!r}; expected a pair, "
                    "when training and otherwise"
                )
                continue
            values[tensor] = (plain(pair[0]), plain(pair[1]))
        return values

    def finish(self) -> None:
        """Raises what was found."""
        if self._findings:
            raise SignatureError(
                "Some of the names are not in the graph:",
                findings=self._findings,
                fix="take names that inspect_meta_graph lists: 'node:0' for tensors, "
                "'node' for operations.",
            )
