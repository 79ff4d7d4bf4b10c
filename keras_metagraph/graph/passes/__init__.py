"""Passes: what is done to a graph before it runs, one file each."""

from collections.abc import Callable, Collection, Sequence

from keras_metagraph.graph.ir import Graph
from keras_metagraph.graph.passes.private_functions import private_functions
from keras_metagraph.graph.passes.repair_attributes import repair_attributes
from keras_metagraph.graph.passes.resource_handles import resource_handles
from keras_metagraph.graph.passes.resource_variables import resource_variables
from keras_metagraph.graph.passes.result import PassResult
from keras_metagraph.graph.passes.upgrade_ops import upgrade_ops

Pass = Callable[[Graph], PassResult]

REPAIRS: tuple[Pass, ...] = (
    repair_attributes,
    upgrade_ops,  # looks at the attributes that the ops have now
)
"""Make a file's graph one that TensorFlow reads as its writer meant it."""


def run_passes(graph: Graph, passes: Sequence[Pass]) -> PassResult:
    """Runs passes in order; the notes of all are kept.

    Args:
        graph: The graph; it is not changed.
        passes: The passes.

    Returns:
        The result of the last one, `modified` if any pass changed anything.
    """
    modified, notes = False, list[str]()
    for each in passes:
        result = each(graph)
        graph = result.graph
        modified = modified or result.modified
        notes.extend(result.notes)
    return PassResult(graph, modified, tuple(notes))


def repair(graph: Graph) -> Graph:
    """A graph that this TensorFlow reads as its writer meant it.

    Args:
        graph: As parsed from a file; it is not changed.

    Returns:
        The graph without devices, with the attributes and ops of this TensorFlow.
    """
    return run_passes(graph, REPAIRS).graph


def prepare_for_session(graph: Graph, early: Collection[str] = ()) -> Graph:
    """A repaired graph without references, as a wrapped function takes it.

    Args:
        graph: What one run needs of a repaired graph; it is not changed.
        early: Names of nodes that take the values of variables before all updates that
            the graph does not order before them.

    Returns:
        The graph with `VarHandleOp` nodes under the names of its variables, and with
        functions under names that are its own in this process.
    """
    # The first pass leaves no reference but those to variables.
    graph = resource_handles(graph).graph
    graph = resource_variables(graph, early).graph
    return private_functions(graph).graph
