"""`model.meta_graph` of a model that was rebuilt from its config."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.export.names import named_variables
from keras_metagraph.loading.infer import Interface
from keras_metagraph.loading.meta_graph import LoadedMetaGraph
from keras_metagraph.loading.restoration import LOCAL_COLLECTIONS
from keras_metagraph.session.executor import SessionExecutor

_DERIVED = "derived"


def derived_variables(
    model: Any, records: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the graph keeps and Keras computes, by name in the file.

    Args:
        model: The rebuilt model, with its optimizer.
        records: What the file says of its variables.

    Returns:
        Objects with `read_value()`; none if the optimizer is another than the file's.
    """
    recorded = [r["name"] for r in records if r["role"] == _DERIVED]
    live = [v.variable for v in named_variables(model) if v.role == _DERIVED]
    if len(recorded) != len(live):
        return {}
    return dict(zip(recorded, live, strict=True))


class OwnMetaGraph(LoadedMetaGraph):
    """The graph of an own file, on the weights and the optimizer of the Keras model.

    Its metrics are not those of the model: they have values of their own, which start
    where the graph says.

    Args:
        meta_graph_def: The MetaGraphDef.
        variables: Keras variables by their names in the graph.
        interface: Which tensors are inputs, outputs, labels, loss and so on.
        derived: What `derived_variables` returned.
    """

    def __init__(
        self,
        meta_graph_def: Any,
        variables: Mapping[str, Any],
        interface: Interface,
        derived: Mapping[str, Any],
    ) -> None:
        super().__init__(meta_graph_def, variables, interface)
        self._derived = dict(derived)

    @functools.cached_property
    def executor(self) -> SessionExecutor:
        """Runs the graph on the model's own variables, as a session did."""
        with tf.init_scope():
            derived = {
                name: tf.Variable(each.read_value(), trainable=False)
                for name, each in self._derived.items()
            }
            local = {
                name: tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False)
                for name, v in self._all_variables.items()
                if v.collections & LOCAL_COLLECTIONS and name not in self.variables
            }
        own = {name: variable.value for name, variable in self.variables.items()}
        executor = _Executor(
            self.graph,
            {**own, **derived, **local},
            early=self._readers_of_weights(),
            derived=[(derived[name], each) for name, each in self._derived.items()],
        )
        starts = executor.run(
            {n: str(self._all_variables[n].initial_value) for n in local}
        )
        for name, value in starts.items():
            local[name].assign(value)
        return executor


class _Executor(SessionExecutor):
    """One with variables whose values follow from others.

    Args:
        *args: As for `SessionExecutor`.
        derived: Variables of TensorFlow, and what says their values.
        **kwargs: As for `SessionExecutor`.
    """

    def __init__(
        self, *args: Any, derived: Sequence[tuple[Any, Any]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._derived = tuple(derived)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Runs fetches, after steps that Keras may have taken."""
        for variable, source in self._derived:
            variable.assign(source.read_value())
        return super().run(*args, **kwargs)
