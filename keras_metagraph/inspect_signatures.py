"""`keras-metagraph signatures`: what a file declares, and what a server says of it."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from keras_metagraph.errors import FormatError
from keras_metagraph.formats.keras_h5 import is_hdf5
from keras_metagraph.formats.registry import open_export
from keras_metagraph.loading.infer.signatures import signature_defs
from keras_metagraph.printed import Printed
from keras_metagraph.signatures.validation import signature_findings


@dataclasses.dataclass(frozen=True)
class DeclaredTensor:
    """A `TensorInfo` of a signature.

    Attributes:
        names: Its tensor; the parts of a sparse or composite one.
        dtype: Its dtype.
        shape: Its shape, `None` for unknown dimensions; `None` for an unknown rank.
    """

    names: tuple[str, ...]
    dtype: str
    shape: tuple[int | None, ...] | None

    @classmethod
    def of(cls, info: Any) -> "DeclaredTensor":
        """Reads a `TensorInfo`."""
        shape = tf.TensorShape(info.tensor_shape)
        return cls(
            tuple(_names(info)),
            tf.dtypes.as_dtype(info.dtype).name if info.dtype else "",
            None if shape.rank is None else tuple(shape.as_list()),
        )

    def __str__(self) -> str:
        shape = "of unknown shape" if self.shape is None else str(self.shape)
        return f"{self.dtype or 'unknown dtype'} {shape}"


@dataclasses.dataclass(frozen=True)
class DeclaredSignature:
    """A signature as a file declares it.

    Attributes:
        key: Its key.
        method: Its method name.
        inputs: Tensors by key.
        outputs: Tensors by key.
        findings: What TensorFlow Serving would not take; empty if it takes it all.
    """

    key: str
    method: str
    inputs: dict[str, DeclaredTensor]
    outputs: dict[str, DeclaredTensor]
    findings: tuple[str, ...]

    @classmethod
    def of(cls, key: str, signature_def: Any) -> "DeclaredSignature":
        """Reads a `SignatureDef`."""
        return cls(
            key,
            signature_def.method_name,
            _side(signature_def.inputs),
            _side(signature_def.outputs),
            tuple(signature_findings(key, signature_def)),
        )


@dataclasses.dataclass(frozen=True)
class GraphSignatures:
    """The signatures of one MetaGraph.

    Attributes:
        tags: Its tags.
        signatures: Its signatures, by key in the alphabet's order.
    """

    tags: tuple[str, ...]
    signatures: tuple[DeclaredSignature, ...]


@dataclasses.dataclass(frozen=True)
class SignaturesReport(Printed):
    """The signatures of a file.

    Printed, it is readable in 80 columns; `rich` shows it in colour.

    Attributes:
        path: The file that holds the graphs.
        kind: `"meta_graph"` or `"saved_model"`.
        graphs: The signatures of each graph.
    """

    path: str
    kind: str
    graphs: tuple[GraphSignatures, ...]

    @property
    def refused(self) -> bool:
        """Whether TensorFlow Serving would not take all signatures."""
        return any(s.findings for graph in self.graphs for s in graph.signatures)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        yield Text.assemble(("file ", "bold"), self.path)
        for graph in self.graphs:
            yield from _tables(graph)


def inspect_signatures(
    filepath: str | os.PathLike[str], *, tags: str | Iterable[str] | None = None
) -> SignaturesReport:
    """Lists the signatures of a MetaGraph or SavedModel; nothing of it is run.

    Those that TensorFlow reserves for itself (`__saved_model_init_op`) are left out.

    Args:
        filepath: What `open_export` takes: a checkpoint prefix, a `.meta` or `.pbtxt`
            file, a directory with a `checkpoint` state file, or a SavedModel.
        tags: Only the graph with exactly these tags; by default all graphs.

    Returns:
        The signatures with what TensorFlow Serving would refuse of each.

    Raises:
        FormatError: If the file is missing, damaged, or no MetaGraph.
        SignatureError: If no graph has the tags.

    Example:
        ```python
        report = inspect_signatures("exports/1")
        [signature.key for signature in report.graphs[0].signatures]
        ```
    """
    refuse_keras_file(filepath)
    export = open_export(filepath)
    wanted = export.meta_graphs if tags is None else [export.select(tags)]
    return SignaturesReport(
        path=export.path,
        kind=export.kind,
        graphs=tuple(
            GraphSignatures(
                tuple(meta_graph_def.meta_info_def.tags),
                tuple(
                    DeclaredSignature.of(key, signature_def)
                    for key, signature_def in signature_defs(meta_graph_def).items()
                ),
            )
            for meta_graph_def in wanted
        ),
    )


def refuse_keras_file(filepath: str | os.PathLike[str]) -> None:
    """Refuses files of Keras, which have no signatures.

    Args:
        filepath: Any path.

    Raises:
        FormatError: If it is a `.keras` or H5 file.
    """
    path = os.fsdecode(os.fspath(filepath))
    if is_hdf5(path) or (path.endswith(".keras") and os.path.isfile(path)):
        raise FormatError(
            f"{path!r} is a file of Keras, which has a model and no signatures.",
            fix=f"make a SavedModel of it: keras-metagraph convert {path} exported",
        )


def _names(info: Any) -> Iterator[str]:
    """The tensors of a `TensorInfo` (`meta_graph.proto`)."""
    encoding = info.WhichOneof("encoding")
    if encoding == "coo_sparse":
        parts = info.coo_sparse
        yield parts.indices_tensor_name
        yield parts.values_tensor_name
        yield parts.dense_shape_tensor_name
    elif encoding == "composite_tensor":
        for component in info.composite_tensor.components:
            yield from _names(component)
    else:
        yield info.name


def _side(infos: Mapping[str, Any]) -> dict[str, DeclaredTensor]:
    return {key: DeclaredTensor.of(infos[key]) for key in sorted(infos)}


def _tables(graph: GraphSignatures) -> Iterator[RenderableType]:
    title = f"Graph {' + '.join(graph.tags)}" if graph.tags else "Graph"
    if not graph.signatures:
        yield Text.assemble((f"\n{title} ", "italic"), "has no signatures.")
        return
    table = Table(
        title=f"\n{title}", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
    for column in ("signature", "key", "tensor", "type"):
        table.add_column(column, overflow="fold")
    for signature in graph.signatures:
        head = [signature.key, f"  {signature.method.removeprefix('tensorflow/')}"]
        rows = [
            (f"{arrow} {key}", "\n".join(tensor.names), str(tensor))
            for arrow, side in (("in ", signature.inputs), ("out", signature.outputs))
            for key, tensor in side.items()
        ]
        for place in range(max(len(head), len(rows))):
            first = head[place] if place < len(head) else ""
            table.add_row(first, *(rows[place] if place < len(rows) else ("", "", "")))
    yield table
    for signature in graph.signatures:
        for finding in signature.findings:
            yield Text(f"! TensorFlow Serving: {finding}", style="yellow")
    if not any(signature.findings for signature in graph.signatures):
        yield Text("TensorFlow Serving takes all of them.", style="green")
