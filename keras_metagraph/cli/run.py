"""`keras-metagraph run`: a signature, on inputs of the command line."""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from keras_metagraph.cli.inputs import Inputs
from keras_metagraph.cli.json_values import from_array
from keras_metagraph.cli.outputs import refuse_existing, write_npz
from keras_metagraph.errors import SignatureError, nearest
from keras_metagraph.formats.layout import Export
from keras_metagraph.formats.registry import open_export
from keras_metagraph.inspect_signatures import refuse_keras_file
from keras_metagraph.loading.api import load_from_meta_graph
from keras_metagraph.loading.infer.signatures import signature_defs
from keras_metagraph.printed import Printed

_DEFAULT = "serving_default"
_COMPOSITES = (
    (tf.compat.v1.SparseTensorValue, ("indices", "values", "dense_shape")),
    (tf.compat.v1.ragged.RaggedTensorValue, ("values", "row_splits")),
)
_VALUES = 24  # of an output; of larger ones the first and last are shown


@dataclasses.dataclass(frozen=True)
class Outputs(Printed):
    """What a signature gave.

    Attributes:
        signature: Its key.
        outputs: Arrays by output name; those that a sparse or ragged output is made of
            by its name and theirs.
        file: Where they were written; `None` if nowhere.
    """

    signature: str
    outputs: Mapping[str, Any]
    file: str | None

    def to_dict(self) -> dict[str, Any]:
        """As TensorFlow Serving answers requests with `inputs`."""
        values = {key: from_array(value) for key, value in self.outputs.items()}
        written = {} if self.file is None else {"file": self.file}
        return {"signature_name": self.signature, "outputs": values, **written}

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        table = Table(title=f"Outputs of {self.signature}", box=box.SIMPLE_HEAD)
        table.title_justify, table.pad_edge = "left", False
        for column in ("output", "type", "value"):
            table.add_column(column, overflow="fold")
        for key, value in self.outputs.items():
            kind = "string" if value.dtype.kind in "SUO" else value.dtype.name
            shown = np.array2string(value, threshold=_VALUES, max_line_width=48)
            table.add_row(Text(key), Text(f"{kind} {value.shape}"), Text(shown))
        yield table
        if self.file is not None:
            yield Text(f"written to {self.file}")


def run_signature(options: argparse.Namespace) -> Outputs:
    """Runs a signature of a file.

    Args:
        options: The arguments of the command.

    Returns:
        Its outputs.

    Raises:
        FormatError: If the file cannot be read.
        SignatureError: If there is no such signature, or inputs do not fit.
        ExportError: If the output file exists, or cannot be written.
    """
    refuse_keras_file(options.path)
    if options.output:
        refuse_existing(options.output, force=options.force)
    inputs = Inputs(options.inputs, options.inputs_json, options.examples)
    export = open_export(options.path)
    meta_graph_def = export.select(options.tags)
    key = _choose(export, meta_graph_def, options.signature or inputs.signature_name)
    infos = signature_defs(meta_graph_def)[key].inputs
    values = inputs.read({name: infos[name] for name in sorted(infos)})
    model = load_from_meta_graph(
        options.path,
        tags=options.tags,
        signature=key,
        rebuild="graph",
        compile=False,
        safe_mode=not options.trust,
    )
    outputs = model.meta_graph.signatures[key](values)
    arrays = {
        part: array
        for name in sorted(outputs)
        for part, array in _parts(name, outputs[name]).items()
    }
    report = Outputs(key, arrays, options.output)
    if options.output:
        write_npz(options.output, report.outputs, force=options.force)
    return report


def _parts(name: str, value: Any) -> dict[str, Any]:
    """The arrays of an output: several of a sparse or ragged one, none of an operation.

    They are called as the attributes that have them: `x.indices`, `x.row_splits`.
    """
    if value is None:
        return {}
    if isinstance(value, list):
        return {f"{name}.{place}": np.asarray(v) for place, v in enumerate(value)}
    for kind, attributes in _COMPOSITES:
        if isinstance(value, kind):
            found = [(f"{name}.{a}", getattr(value, a)) for a in attributes]
            return {part: v for n, each in found for part, v in _parts(n, each).items()}
    return {name: np.asarray(value)}


def _choose(export: Export, meta_graph_def: Any, name: str | None) -> str:
    """The signature that is asked for: `serving_default`, or the only one."""
    keys = list(signature_defs(meta_graph_def))
    if name is None and (_DEFAULT in keys or len(keys) == 1):
        return _DEFAULT if _DEFAULT in keys else keys[0]
    if name in keys:
        return str(name)
    tags = list(meta_graph_def.meta_info_def.tags)
    graph = f"The graph {tags} of {export.path}" if tags else export.path
    if not keys:
        problem = f"{graph} has no signatures."
    elif name is None:
        problem = f"{graph} has several signatures, and none is {_DEFAULT!r}."
    else:
        problem = f"{graph} has no signature {name!r}{nearest(name, keys)}."
    raise SignatureError(
        problem,
        findings=[
            f"there is {key!r}"
            + (f" with --tags {','.join(other.meta_info_def.tags)}" if tags else "")
            for other in export.meta_graphs
            for key in signature_defs(other)
        ],
        fix="pass one of them as --signature."
        if any(map(signature_defs, export.meta_graphs))
        else "convert the file to a SavedModel, which gets one: keras-metagraph "
        "convert SRC DST.",
    )
