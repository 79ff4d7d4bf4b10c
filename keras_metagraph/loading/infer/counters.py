"""Finds the variables that count the steps of a training."""

from collections.abc import Collection
from typing import Any

from keras_metagraph.graph.ir import Node
from keras_metagraph.loading.infer.analysis import GraphAnalysis

_ADDING = frozenset({"AssignAdd", "AssignAddVariableOp"})
_ASSIGNING = frozenset({"Assign", "AssignVariableOp"})
_SUMS = frozenset({"Add", "AddV2"})


def step_counters(
    analysis: GraphAnalysis, run: Collection[str] | None = None
) -> dict[str, Any]:
    """The scalars to which a training step adds a constant.

    Args:
        analysis: The graph.
        run: Names of the nodes that the step runs; by default all.

    Returns:
        What is added, by name of the variable; the global step comes first.

    Example:
        >>> step_counters(analysis, run)
        {'global_step': 1}
    """
    found = {}
    for name, variable in analysis.writes.items():
        if run is None or name in run:
            added = increment(analysis, analysis.graph.nodes[name])
            if added and analysis.variables[variable].shape == ():
                found[variable] = added
    return dict(sorted(found.items(), key=lambda item: _order(analysis, item[0])))


def increment(analysis: GraphAnalysis, node: Node) -> Any:
    """The constant that a node adds to a variable; `None` if it does something else."""
    if node.op in _ADDING:
        return analysis.constant(node.inputs[1])
    if node.op not in _ASSIGNING:
        return None
    # BERT assigns global_step + 1.
    total = analysis.graph.nodes[analysis.source(node.inputs[1]).node]
    if total.op not in _SUMS:
        return None
    variable = analysis.writes.get(node.name)
    behind = [analysis.variable_behind(tensor) for tensor in total.inputs]
    if variable is None or variable not in behind:
        return None
    return analysis.constant(total.inputs[1 - behind.index(variable)])


def _order(analysis: GraphAnalysis, name: str) -> tuple[bool, bool]:
    """The counter that the file names comes first, and then whole numbers."""
    variable = analysis.variables[name]
    named = "global_step" in variable.collections or name.endswith("global_step")
    return not named, not variable.dtype.is_integer
