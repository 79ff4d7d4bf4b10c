"""Methods for the user's own model classes."""

import os
from typing import Any

from keras_metagraph.export.collections import check_name
from keras_metagraph.export.specs import watch_data
from keras_metagraph.saving import export_meta_graph, save_meta_graph

_COLLECTIONS = "_meta_graph_collections"


class MetaGraphMixin:
    """Adds MetaGraph methods to a `keras.Model` class.

    It stands before `keras.Model` among the bases. What a model passes to its steps is
    noted while it is fitted, so that its labels are known at the export.

    Example:
        ```python
        class MyModel(MetaGraphMixin, keras.Model):
            ...

        model.add_to_collection("classes", ["cat", "dog"])
        model.save_meta_graph("run/model", model.optimizer.iterations)
        ```
    """

    def export_meta_graph(
        self, filename: str | os.PathLike[str] | None = None, **export_arguments: Any
    ) -> Any:
        """Exports this model; see `keras_metagraph.export_meta_graph`.

        Args:
            filename: Where to write the MetaGraph; None only returns it.
            **export_arguments: As that function takes them.

        Returns:
            The `MetaGraphDef`.
        """
        return export_meta_graph(self, filename, **export_arguments)

    def save_meta_graph(
        self,
        filepath: str | os.PathLike[str],
        global_step: Any = None,
        **save_arguments: Any,
    ) -> str:
        """Saves this model; see `keras_metagraph.save_meta_graph`.

        Args:
            filepath: Directory and base name of the checkpoint.
            global_step: The step to append to the name.
            **save_arguments: As that function takes them.

        Returns:
            The prefix of the checkpoint.
        """
        return save_meta_graph(self, filepath, global_step, **save_arguments)

    def add_to_collection(self, name: str, value: Any) -> None:
        """Adds a value to a collection of the exported MetaGraph.

        Args:
            name: Name of the collection.
            value: The name of a tensor (`"dense/Relu:0"`) or operation (`"^init"`), a
                variable of the model, a number, bytes, a text, a message, or an object
                with `to_proto`.

        Raises:
            ExportError: If the name belongs to the format.
        """
        self._collections().setdefault(check_name(name), []).append(value)

    def get_collection(self, name: str) -> list[Any]:
        """The values that were added to a collection.

        Args:
            name: Name of the collection.

        Returns:
            A copy of the list; empty if there is no such collection.
        """
        return list(self._collections().get(name, ()))

    def meta_graph_collections(self) -> dict[str, list[Any]]:
        """All collections that were added to, by name."""
        return {name: list(values) for name, values in self._collections().items()}

    def meta_graph_signatures(self) -> dict[str, Any]:
        """Further signatures for the exported MetaGraph; for subclasses to override.

        Returns:
            Signatures by key, as `keras_metagraph.export_meta_graph` takes them.
        """
        return {}

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that `fit` runs, and notes what it is about to see.

        Args:
            force: Whether to make it again.

        Returns:
            The function.
        """
        watch_data(self)
        return super().make_train_function(force)  # type: ignore[misc]

    def make_test_function(self, force: bool = False) -> Any:
        """Makes the function that `evaluate` runs, and notes what it is about to see.

        Args:
            force: Whether to make it again.

        Returns:
            The function.
        """
        watch_data(self)
        return super().make_test_function(force)  # type: ignore[misc]

    def _collections(self) -> dict[str, list[Any]]:
        # Not an attribute in the usual way: Keras would track and wrap it.
        own: dict[str, list[Any]] = vars(self).setdefault(_COLLECTIONS, {})
        return own
