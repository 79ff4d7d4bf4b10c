"""What an H5 file or a SavedModel of Keras holds, before any of it is made."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from keras_metagraph.formats.keras_h5 import read_keras_h5
from keras_metagraph.formats.keras_metadata import KerasObject
from keras_metagraph.printed import Printed

_ROWS = 40


@dataclasses.dataclass(frozen=True)
class KerasH5Report(Printed):
    """What a file of Keras 1 or 2 holds.

    Attributes:
        path: The file.
        kind: `"keras_h5"`.
        keras_version: The release that wrote it; `"1"` where it does not say.
        backend: The backend that wrote it.
        model: The class of the model; empty in a file of weights only.
        layers: For each layer its name, its class, and the shapes of its weights.
        lambdas: The layers that are Python bytecode: they are not made unless the
            caller gives their functions, or trusts the file.
        optimizer: The class of the optimizer and its settings; empty without one.
        optimizer_arrays: How many arrays of state it has.
        loss: What the file says of the loss.
    """

    path: str
    kind: str
    keras_version: str
    backend: str
    model: str
    layers: tuple[tuple[str, str, tuple[tuple[int, ...], ...]], ...]
    lambdas: tuple[str, ...]
    optimizer: Mapping[str, Any]
    optimizer_arrays: int
    loss: Any

    @property
    def blocked(self) -> bool:
        """Whether the model needs what is not run unless the file is trusted."""
        return bool(self.lambdas)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        head = _head()
        head.add_row("file", self.path)
        head.add_row("format", f"HDF5 of Keras {self.keras_version}, {self.backend}")
        head.add_row("model", self.model or "none: weights only")
        _training_rows(head, self.optimizer, self.loss, self.optimizer_arrays)
        _consent_row(head, self.lambdas)
        yield head
        yield _layer_table(self.layers)


@dataclasses.dataclass(frozen=True)
class KerasModelSummary(Printed):
    """The Keras 2 model that a SavedModel holds.

    Attributes:
        keras_version: The release that wrote it.
        model: The class of the model.
        layers: For each layer, those inside others too, its name, its class, and the
            shapes of its own weights.
        lambdas: The layers that are Python bytecode: unless the caller gives their
            functions, the functions of the SavedModel are loaded in place of the model.
        optimizer: The class of the optimizer and its settings; empty without one.
        loss: What the file says of the loss.
    """

    keras_version: str
    model: str
    layers: tuple[tuple[str, str, tuple[tuple[int, ...], ...]], ...]
    lambdas: tuple[str, ...]
    optimizer: Mapping[str, Any]
    loss: Any

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        head = _head()
        head.add_row("model", f"{self.model} of Keras {self.keras_version}")
        _training_rows(head, self.optimizer, self.loss)
        _consent_row(head, self.lambdas)
        yield head
        yield _layer_table(self.layers)


def summarize_keras2(
    meta_graph_def: Any, keras_objects: Mapping[int, KerasObject]
) -> KerasModelSummary:
    """Looks at the Keras 2 model in a SavedModel; nothing of it is made.

    Args:
        meta_graph_def: The MetaGraphDef of the SavedModel.
        keras_objects: What `read_keras_metadata` read; its object 0 is the model.

    Returns:
        The summary.

    Example:
        >>> summarize_keras2(meta_graph_def, keras_objects).layers[0]
        ('dense', 'Dense', ((5, 3), (3,)))
    """
    nodes = meta_graph_def.object_graph_def.nodes
    root = keras_objects[0]
    training = root.metadata.get("training_config") or {}
    layers = [
        found
        for node, found in sorted(keras_objects.items())
        if node and found.identifier != "_tf_keras_metric"
    ]
    return KerasModelSummary(
        keras_version=str(root.metadata.get("keras_version", "2")),
        model=root.class_name,
        layers=tuple(
            (layer.name, layer.class_name, _own_shapes(nodes, layer.node))
            for layer in layers
        ),
        lambdas=tuple(layer.name for layer in layers if layer.class_name == "Lambda"),
        optimizer=_optimizer(training),
        loss=training.get("loss"),
    )


def _own_shapes(nodes: Any, node: int) -> tuple[tuple[int, ...], ...]:
    """The shapes of the variables that an object has as attributes."""
    held = [nodes[edge.node_id] for edge in nodes[node].children]
    return tuple(
        tuple(dim.size for dim in child.variable.shape.dim)
        for child in held
        if child.WhichOneof("kind") == "variable"
    )


def _optimizer(training: Mapping[str, Any]) -> dict[str, Any]:
    """The class of the optimizer in a `training_config`, and its settings."""
    found = training.get("optimizer_config") or {}
    if not found:
        return {}
    return {"class": found.get("class_name"), **(found.get("config") or {})}


def _head() -> Table:
    head = Table(box=None, show_header=False)
    head.add_column(style="bold", no_wrap=True)
    head.add_column(overflow="fold")
    return head


def _training_rows(
    head: Table, optimizer: Mapping[str, Any], loss: Any, arrays: int | None = None
) -> None:
    if not optimizer:
        return
    settings = {k: v for k, v in optimizer.items() if k != "class"}
    told = ", ".join(f"{key}={value}" for key, value in settings.items())
    head.add_row("optimizer", f"{optimizer['class']}({told})")
    if arrays is not None:
        head.add_row("state", f"{arrays} arrays")
    head.add_row("loss", str(loss))


def _consent_row(head: Table, lambdas: Sequence[str]) -> None:
    if lambdas:
        head.add_row("needs consent", f"Lambda layers {', '.join(lambdas)}")


def _layer_table(
    layers: Sequence[tuple[str, str, tuple[tuple[int, ...], ...]]],
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("layer", "class", "weights"):
        table.add_column(column, overflow="fold")
    for name, kind, shapes in layers[:_ROWS]:
        table.add_row(name, kind, " ".join(str(shape) for shape in shapes))
    if len(layers) > _ROWS:
        table.add_row(f"and {len(layers) - _ROWS} more", "", "")
    return table


def summarize_h5(filepath: str | os.PathLike[str]) -> KerasH5Report:
    """Looks into an H5 file of Keras; nothing of it is made.

    Args:
        filepath: The file.

    Returns:
        The report.

    Raises:
        FormatError: If the file is damaged, or no file of Keras 1 or 2.
        UntrustedContentError: If it links to other files.

    Example:
        >>> summarize_h5("model.h5").keras_version
        '2.2.4'
    """
    content = read_keras_h5(filepath)
    training = content.training_config or {}
    layers = list(_layers(content.model_config))
    kinds = dict(layers)
    return KerasH5Report(
        path=content.path,
        kind="keras_h5",
        keras_version=content.keras_version,
        backend=content.backend,
        model=str((content.model_config or {}).get("class_name", "")),
        layers=tuple(
            (name, kinds.get(name, ""), tuple(value.shape for _, value in group))
            for name, group in content.weights.items()
        ),
        lambdas=tuple(name for name, kind in layers if kind == "Lambda"),
        optimizer=_optimizer(training),
        optimizer_arrays=len(content.optimizer_weights or ()),
        loss=training.get("loss"),
    )


def _layers(config: Any) -> Iterator[tuple[str, str]]:
    """The names and classes of all layers in a config, outermost first."""
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            inner = value.get("config")
            kind = value.get("class_name")
            if isinstance(kind, str) and isinstance(inner, Mapping):
                name = value.get("name") or inner.get("name")
                if isinstance(name, str):
                    yield name, kind
            stack.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            stack.extend(reversed(value))
