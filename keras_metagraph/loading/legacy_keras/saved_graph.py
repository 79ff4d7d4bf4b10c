"""`model.meta_graph` of a model that was rebuilt from a Keras 2 SavedModel."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from keras_metagraph.formats.layout import Export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.infer import Interface
from keras_metagraph.loading.infer.signatures import signature_defs
from keras_metagraph.loading.initializers import self_contained
from keras_metagraph.loading.legacy_keras.saved_objects import SavedObjects
from keras_metagraph.loading.legacy_keras.saved_weights import Pair
from keras_metagraph.loading.meta_graph import LoadedMetaGraph

_SERVING = "serving_default"


def without_traces(meta_graph_def: Any) -> Any:
    """Leaves out the functions that nothing in the graph calls.

    Keras 2 traced every layer by itself, so that a program could call it. Those
    functions are most of the file.

    Args:
        meta_graph_def: The MetaGraphDef of a SavedModel; not changed.

    Returns:
        A copy with fewer functions.
    """
    library = meta_graph_def.graph_def.library
    functions = {function.signature.name: function for function in library.function}
    gradients = {each.function_name: each.gradient_func for each in library.gradient}
    waiting = list(_called(meta_graph_def.graph_def.node))
    kept: dict[str, Any] = {}
    while waiting:
        name = waiting.pop()
        if name in functions and name not in kept:
            kept[name] = functions[name]
            waiting += _called(functions[name].node_def)
            waiting.append(gradients.get(name, ""))
    result = type(meta_graph_def)()
    result.CopyFrom(meta_graph_def)
    del result.graph_def.library.function[:]
    del result.graph_def.library.gradient[:]
    result.graph_def.library.function.extend(
        function for name, function in functions.items() if name in kept
    )
    result.graph_def.library.gradient.extend(
        each for each in library.gradient if each.function_name in kept
    )
    return result


def meta_graph_of(
    export: Export, meta_graph_def: Any, pairs: Sequence[Pair], saved: SavedObjects
) -> LoadedMetaGraph:
    """Puts the weights of a model into the graph that it was saved with.

    Args:
        export: Where the SavedModel lies.
        meta_graph_def: Its MetaGraphDef, checked.
        pairs: The weights of the model, and which saved variables they were.
        saved: The objects of the SavedModel.

    Returns:
        The graph, whose signatures compute with the model's own weights.
    """
    meta_graph_def = self_contained(meta_graph_def, export)
    graph = graph_from_proto(meta_graph_def.graph_def)
    weights = {saved.key(pair.node): pair.variable for pair in pairs}
    variables = {
        name: weights[variable.checkpoint_key]
        for name, variable in graph_variables(meta_graph_def, graph).items()
        if variable.checkpoint_key in weights
    }
    signature = signature_defs(meta_graph_def).get(_SERVING)
    interface = Interface()
    if signature is not None:
        interface.inputs = {k: info.name for k, info in signature.inputs.items()}
        interface.outputs = {k: info.name for k, info in signature.outputs.items()}
    return LoadedMetaGraph(meta_graph_def, variables, interface)


def _called(nodes: Iterable[Any]) -> Iterator[str]:
    """The names of the functions that nodes call, by their op or an attribute."""
    for node in nodes:
        yield node.op
        stack = list(node.attr.values())
        while stack:
            value = stack.pop()
            for called in (value.func, *value.list.func):
                if called.name:
                    yield called.name
                    stack.extend(called.attr.values())
