"""`keras-metagraph signatures`: what a file declares, and what a server says of it."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from keras_metagraph.errors import FormatError
from keras_metagraph.formats.keras_h5 import is_hdf5
from keras_metagraph.formats.registry import open_export
from keras_metagraph.inspect_tables import signatures_table
from keras_metagraph.loading.infer.signatures import signature_defs
from keras_metagraph.loading.summary import SignatureSummary, summarize_signatures
from keras_metagraph.printed import Printed
from keras_metagraph.signatures.validation import signature_findings


@dataclasses.dataclass(frozen=True)
class ServedSignature(SignatureSummary):
    """A signature, and what a server says of it.

    Attributes:
        name: Its name.
        method: Its method name.
        inputs: Tensors by key.
        outputs: Tensors by key.
        findings: What TensorFlow Serving would not take; empty if it takes it all.
    """

    findings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class GraphSignatures:
    """The signatures of one MetaGraph.

    Attributes:
        tags: Its tags.
        signatures: Its signatures, by name in the alphabet's order.
    """

    tags: tuple[str, ...]
    signatures: tuple[ServedSignature, ...]


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
        [signature.name for signature in report.graphs[0].signatures]
        ```
    """
    refuse_keras_file(filepath)
    export = open_export(filepath)
    wanted = export.meta_graphs if tags is None else [export.select(tags)]
    return SignaturesReport(
        path=export.path,
        kind=export.kind,
        graphs=tuple(map(_served, wanted)),
    )


def _served(meta_graph_def: Any) -> GraphSignatures:
    definitions = signature_defs(meta_graph_def)
    return GraphSignatures(
        tuple(meta_graph_def.meta_info_def.tags),
        tuple(
            ServedSignature(
                **vars(summary),
                findings=tuple(
                    signature_findings(summary.name, definitions[summary.name])
                ),
            )
            for summary in summarize_signatures(meta_graph_def)
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


def _tables(graph: GraphSignatures) -> Iterator[RenderableType]:
    title = f"\nGraph {' + '.join(graph.tags)}" if graph.tags else "\nGraph"
    if not graph.signatures:
        yield Text.assemble((title, "italic"), " has no signatures.")
        return
    yield signatures_table(graph.signatures, title)
    findings = [finding for each in graph.signatures for finding in each.findings]
    for finding in findings:
        yield Text(f"! TensorFlow Serving: {finding}", style="yellow")
    if not findings:
        yield Text("TensorFlow Serving takes all of them.", style="green")
