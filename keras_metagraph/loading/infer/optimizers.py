"""Describes the optimizer of a graph, after the ops that apply its gradients."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_metagraph.graph import op_defs
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.variables import GraphVariable
from keras_metagraph.loading.infer.analysis import APPLY_PREFIXES, GraphAnalysis
from keras_metagraph.loading.infer.updates import Training

# What `tf.train` calls the arguments of the ops (`core/ops/training_ops.cc`).
_ARGUMENTS = {
    "alpha": "learning_rate",
    "lr": "learning_rate",
    "l1": "l1_regularization_strength",
    "l2": "l2_regularization_strength",
    "l2_shrinkage": "l2_shrinkage_regularization_strength",
    "lr_power": "learning_rate_power",
}
_RMSPROP_ARGUMENTS = _ARGUMENTS | {"rho": "decay"}
_POWERS = ("beta1_power", "beta2_power", "global_step")
_GRADIENTS = ("grad", "delta", "gradient")
_NO_PARAMETERS = frozenset({"var", "indices", *_POWERS, *_GRADIENTS})
_NO_OP = "updates are assigned by plain ops: the graph does not name the optimizer"
_CLASSES = {
    "CenteredRMSProp": "RMSProp",
    "KerasMomentum": "keras SGD with momentum",
    "AdamWithAmsgrad": "keras Adam with amsgrad",
}


class Gradient(NamedTuple):
    """A gradient as an update takes it.

    Attributes:
        values: The gradient, or the rows of a sparse one.
        indices: Which rows these are; `None` for a dense gradient.
    """

    values: TensorName
    indices: TensorName | None = None


@dataclasses.dataclass(frozen=True)
class OptimizerDescription:
    """An optimizer as the graph has it.

    Attributes:
        name: As `tf.train` calls its class: `"Adam"`, `"Momentum"`; empty where the
            graph has no op for it and the updates are assigned.
        hyper_parameters: Numbers where they are constants, else the names of the
            tensors that give them.
        slots: Names of the slot variables by trained variable and role (`"m"`).
        variables: Names of the variables it trains.
        sparse: Those of them that it updates row by row.
        notes: What else a reader should know.
        tensors: The tensor of each hyper-parameter.
        gradients: What the update of each variable takes.
        powers: The variables that hold powers of decays, by the op's argument
            (`"beta2_power"`), or the tensors that compute them.
        updates: Names of the ops that update, by trained variable: those that write it
            and its slots.
        excluded: Those of the variables that have no weight decay, where it has any.
    """

    name: str
    hyper_parameters: dict[str, Any]
    slots: dict[str, dict[str, str]]
    variables: tuple[str, ...]
    sparse: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tensors: dict[str, TensorName] = dataclasses.field(default_factory=dict)
    gradients: dict[str, Gradient] = dataclasses.field(default_factory=dict)
    powers: dict[str, TensorName] = dataclasses.field(default_factory=dict)
    updates: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    excluded: tuple[str, ...] = ()

    def __str__(self) -> str:
        parameters = ", ".join(f"{k}={v}" for k, v in self.hyper_parameters.items())
        return f"{self.name or 'assigned updates'}({parameters})"


def describe_optimizer(
    graph: Graph,
    variables: Mapping[str, GraphVariable],
    train_op: Sequence[str] = (),
) -> list[OptimizerDescription]:
    """Describes the optimizers of a graph.

    Args:
        graph: The graph.
        variables: Its variables by node name.
        train_op: Operations; if given, only what they run counts.

    Returns:
        One description for each class and set of hyper-parameters; none for a graph
        that does not train.

    Example:
        ```python
        for optimizer in describe_optimizer(graph, variables):
            print(optimizer)  # Adam(learning_rate=0.01, beta1=0.9, ...)
        ```
    """
    training = Training(GraphAnalysis(graph, variables))
    found, assigned = fused_optimizers(training, train_op)
    return _add_assigned(training.analysis, found, assigned)


def fused_optimizers(
    training: Training, train_op: Sequence[str] = ()
) -> tuple[list[OptimizerDescription], dict[str, Node]]:
    """Describes the optimizers that have ops of their own.

    Args:
        training: The backward part of the graph.
        train_op: Operations; if given, only what they run counts.

    Returns:
        The optimizers; and a node that writes it for each variable that is trained by
        plain ops.
    """
    analysis, graph = training.analysis, training.analysis.graph
    run = analysis.ancestors(TensorName(name) for name in train_op)
    groups: dict[tuple[Any, ...], list[Node]] = {}
    assigned: dict[str, Node] = {}
    for name in training.updates:
        node = graph.nodes[name]
        if train_op and name not in run:
            continue
        if node.op.startswith(APPLY_PREFIXES):
            groups.setdefault(_group(analysis, node), []).append(node)
        else:
            assigned.setdefault(analysis.writes[name], node)
    found = [_describe(analysis, nodes) for nodes in groups.values()]
    covered = {name for description in found for name in description.variables}
    return found, {n: node for n, node in assigned.items() if n not in covered}


def _group(analysis: GraphAnalysis, node: Node) -> tuple[Any, ...]:
    """What the updates of one optimizer have in common."""
    parameters = _hyper_parameters(analysis, node)
    # Two optimizers may have the same numbers, but each has powers of its own.
    powers = {
        argument: analysis.variable_behind(tensor)
        for argument, tensor in _arguments(node)
        if argument in _POWERS
    }
    return (_name(node), *parameters.items(), *powers.items())


def _describe(analysis: GraphAnalysis, nodes: list[Node]) -> OptimizerDescription:
    """The optimizer behind some Apply ops of one kind."""
    parameters: dict[str, Any] = {}
    for node in nodes:
        for key, value in _hyper_parameters(analysis, node).items():
            if parameters.setdefault(key, value) != value:
                parameters[key] = "computed"
    if any("use_nesterov" in n.attrs and n.attrs["use_nesterov"].b for n in nodes):
        parameters["use_nesterov"] = True
    if any(node.op.endswith("CenteredRMSProp") for node in nodes):
        parameters["centered"] = True
    trained = [analysis.writes.get(node.name, node.inputs[0].node) for node in nodes]
    slots = {
        name: _slots(analysis, node) for name, node in zip(trained, nodes, strict=True)
    }
    return OptimizerDescription(
        _CLASSES.get(_name(nodes[0]), _name(nodes[0])),
        parameters,
        slots,
        tuple(slots),
        tuple(
            name
            for name, node in zip(trained, nodes, strict=True)
            if "Sparse" in node.op
        ),
        _gradient_notes(nodes),
        _tensors(nodes[0]),
        {n: _gradient(node) for n, node in zip(trained, nodes, strict=True)},
        {n: t for n, t in _arguments(nodes[0]) if n in _POWERS},
        {n: (node.name,) for n, node in zip(trained, nodes, strict=True)},
    )


def _add_assigned(
    analysis: GraphAnalysis,
    found: list[OptimizerDescription],
    assigned: Mapping[str, Node],
) -> list[OptimizerDescription]:
    """Adds the variables that are updated by plain ops.

    `tf.train` has no op for sparse gradients of Adam and gradient descent: it scatters
    them into slots and variables. The rest is Python code over plain ops.
    """
    scattered = {
        variable
        for name, variable in analysis.writes.items()
        if "Scatter" in analysis.graph.nodes[name].op
    }
    parts: dict[str, list[str]] = {"Adam": [], "GradientDescent": [], "": []}
    for name, node in assigned.items():
        slots = _named_slots(analysis, name)
        if "Scatter" in node.op and not slots:
            parts["GradientDescent"].append(name)
        elif {"m", "v"} <= slots.keys() and scattered & set(slots.values()):
            parts["Adam"].append(name)
        else:
            parts[""].append(name)
    for title, names in parts.items():
        if not names:
            continue
        same = next((d for d in found if d.name == title), None)
        parameters = dict(same.hyper_parameters) if same else {}
        if title == "GradientDescent" and not same:
            parameters = _scattered_rate(analysis, assigned[names[0]])
        extra = OptimizerDescription(
            title,
            parameters,
            {name: _named_slots(analysis, name) for name in names},
            tuple(names),
            tuple(names) if title else (),
            () if title else (_NO_OP,),
        )
        if same is None:
            found = [*found, extra]
        else:
            found = [_joined(d, extra) if d is same else d for d in found]
    return found


def _joined(
    first: OptimizerDescription, second: OptimizerDescription
) -> OptimizerDescription:
    return dataclasses.replace(
        first,
        slots=first.slots | second.slots,
        variables=first.variables + second.variables,
        sparse=first.sparse + second.sparse,
    )


def _named_slots(analysis: GraphAnalysis, name: str) -> dict[str, str]:
    """Slots by their names: `w/Adam` and `w/Adam_1`, with or without a scope before."""
    found = {}
    roles = {"Adam": "m", "Adam_1": "v"}
    for other in analysis.variables:
        head, _, tail = other.rpartition("/")
        if head == name or head.endswith(f"/{name}"):
            found[roles.get(tail, tail)] = other
    return found


def _scattered_rate(analysis: GraphAnalysis, node: Node) -> dict[str, Any]:
    """The learning rate that a scattered gradient was multiplied by."""
    product = analysis.graph.nodes.get(node.inputs[-1].node)
    for tensor in product.inputs if product is not None else ():
        value = analysis.constant(tensor)
        if value is not None:
            return {"learning_rate": value}
    return {}


def _name(node: Node) -> str:
    """The optimizer's name in an op's: `ResourceSparseApplyAdagradV2` is Adagrad."""
    name = node.op.removeprefix("Resource").removeprefix("Sparse")
    name = name.removeprefix("Apply")
    return name[:-2] if name.endswith("V2") else name


def _arguments(node: Node) -> list[tuple[str, TensorName]]:
    """The inputs of an op by argument name."""
    definition = op_defs.op_def(node.op)
    if definition is None:
        return []
    names = [argument.name for argument in definition.input_arg]
    return list(zip(names, node.inputs, strict=False))


def _tensors(node: Node) -> dict[str, TensorName]:
    """The hyper-parameters of an update, by the names that `tf.train` has for them."""
    names = _RMSPROP_ARGUMENTS if "RMSProp" in node.op else _ARGUMENTS
    if "AddSign" in node.op:
        names = {"lr": "learning_rate"}  # its alpha is none
    return {
        names.get(name, name): tensor
        for name, tensor in _arguments(node)
        if name not in _NO_PARAMETERS and not _is_slot(node, name)
    }


def _gradient(node: Node) -> Gradient:
    arguments = dict(_arguments(node))
    values = next(arguments[name] for name in _GRADIENTS if name in arguments)
    return Gradient(values, arguments.get("indices"))


def _hyper_parameters(analysis: GraphAnalysis, node: Node) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, tensor in _tensors(node).items():
        value = analysis.constant(tensor)
        if value is None:
            variable = analysis.variable_behind(tensor)
            source = str(analysis.source(tensor))
            value = f"variable {variable}" if variable else source
        found[name] = value
    return found


def _slots(analysis: GraphAnalysis, node: Node) -> dict[str, str]:
    found = {}
    for name, tensor in _arguments(node):
        variable = analysis.variable_behind(tensor)
        if _is_slot(node, name) and variable is not None:
            found[name] = variable
    return found


def _is_slot(node: Node, name: str) -> bool:
    """Whether an argument is a variable that the op updates beside the trained one."""
    definition = op_defs.op_def(node.op)
    if definition is None or name == "var":
        return False
    return any(
        argument.name == name
        and (argument.is_ref or argument.type == tf.resource.as_datatype_enum)
        for argument in definition.input_arg
    )


def _gradient_notes(nodes: list[Node]) -> tuple[str, ...]:
    """What is done to gradients on their way, by the scopes that `tf.clip_by_*` has."""
    marks = {
        "clip_by_global_norm": "gradients are clipped by their global norm",
        "clip_by_value": "gradients are clipped by value",
        "clip_by_norm": "gradients are clipped by norm",
    }
    found: dict[str, None] = {}
    for node in nodes:
        gradients = [t for name, t in _arguments(node) if name in _GRADIENTS]
        for tensor in gradients:
            for mark, note in marks.items():
                if mark in tensor.node:
                    found.setdefault(note)
    return tuple(found)
