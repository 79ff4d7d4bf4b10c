"""What a caller may ask of an export."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from keras_metagraph.errors import ExportError

GRAPHS = ("predict", "eval", "train")
TARGETS = ("1.15", None)


@runtime_checkable
class SignatureFunction(Protocol):
    """A function with specs of what it takes, for a signature.

    Attributes:
        method_name: How servers call it: `"tensorflow/serving/classify"`.
        inputs: Specs by input key.
        function: Takes tensors by input key as keywords; gives them by output key.
    """

    method_name: str
    inputs: Mapping[str, Any]
    function: Callable[..., Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class SavedModelOptions:
    """What is different in a graph that is one of a SavedModel.

    Attributes:
        names: Names of variables in the other graphs, by `export.names.identity`: all
            of them read one checkpoint.
        main_op: What runs after a load, besides the initializers of tables and
            metrics: a function without arguments, or the name of an operation.
        layout: `"estimator"` for the signatures that Estimator wrote, or None.
    """

    names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    main_op: Any = None
    layout: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ExportOptions:
    """Arguments of `export_meta_graph` that shape the graph.

    Attributes:
        graphs: Which graphs are written: `"predict"`, `"eval"`, `"train"`.
        signatures: Further signatures by key: functions (`SignatureFunction`, or a
            `tf.function` with an input signature), or what names tensors of the graph.
            The key `serving_default` takes the place of the default signature.
        collections: Further collections by name.
        collection_list: The only collections to write; None writes all.
        inputs: Specs of the inputs, for models that do not know theirs.
        labels: Specs of the labels.
        sample_weight: Specs of the sample weights, True for one weight a sample, or
            False for none.
        meta_info: `tags`, `meta_graph_version` and fields of the user.
        export_scope: The only scope to write.
        clear_devices: Whether to remove devices.
        strip_default_attrs: Whether to remove attributes with default values.
        target: `"1.15"`, or None for the ops of this TensorFlow.
        saved_model: What a graph of a SavedModel has besides.

    Raises:
        ExportError: If an option has a value that is not in this list.
    """

    graphs: tuple[str, ...] = GRAPHS
    signatures: Mapping[str, Any] | None = None
    collections: Mapping[str, Any] | None = None
    collection_list: Sequence[str] | None = None
    inputs: Any = None
    labels: Any = None
    sample_weight: Any = None
    meta_info: Mapping[str, Any] | None = None
    export_scope: str | None = None
    clear_devices: bool = False
    strip_default_attrs: bool = False
    target: str | None = "1.15"
    saved_model: SavedModelOptions | None = None

    def __post_init__(self) -> None:
        unknown = [graph for graph in self.graphs if graph not in GRAPHS]
        if unknown or not self.graphs:
            raise ExportError(
                f"graphs names some of {GRAPHS}. Received: graphs={self.graphs!r}",
                fix="leave it out for all of them.",
            )
        if self.target not in TARGETS:
            raise ExportError(
                f"target is one of {TARGETS}. Received: target={self.target!r}",
                fix='leave it out for "1.15".',
            )
