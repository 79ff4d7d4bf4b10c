"""What a Keras H5 file holds, before any of it is made."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from keras_metagraph.formats.keras_h5 import read_keras_h5
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
        head = Table(box=None, show_header=False)
        head.add_column(style="bold", no_wrap=True)
        head.add_column(overflow="fold")
        head.add_row("file", self.path)
        head.add_row("format", f"HDF5 of Keras {self.keras_version}, {self.backend}")
        head.add_row("model", self.model or "none: weights only")
        if self.optimizer:
            settings = {k: v for k, v in self.optimizer.items() if k != "class"}
            told = ", ".join(f"{key}={value}" for key, value in settings.items())
            head.add_row("optimizer", f"{self.optimizer['class']}({told})")
            head.add_row("state", f"{self.optimizer_arrays} arrays")
            head.add_row("loss", str(self.loss))
        if self.lambdas:
            head.add_row("needs consent", f"Lambda layers {', '.join(self.lambdas)}")
        yield head
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("layer", "class", "weights"):
            table.add_column(column, overflow="fold")
        for name, kind, shapes in self.layers[:_ROWS]:
            table.add_row(name, kind, " ".join(str(shape) for shape in shapes))
        if len(self.layers) > _ROWS:
            table.add_row(f"and {len(self.layers) - _ROWS} more", "", "")
        yield table


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
    optimizer = training.get("optimizer_config") or {}
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
        optimizer={
            "class": optimizer.get("class_name"),
            **(optimizer.get("config") or {}),
        }
        if optimizer
        else {},
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
