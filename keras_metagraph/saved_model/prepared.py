"""A SavedModel between its export and the disk.

Only the first half looks at the model. The second may run in another thread, while
training goes on.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from keras_metagraph.saved_model.assets import Source, named_files, write_files
from keras_metagraph.saved_model.contents import Contents, build_contents
from keras_metagraph.saved_model.directory import new_directory
from keras_metagraph.saved_model.graph_specs import graph_specs

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True, slots=True)
class PreparedSavedModel:
    """All that is to be written, with the values of one moment.

    Attributes:
        contents: Graphs, values and assets.
        extra: Files for `assets.extra/` by name.
        as_text: Whether the graphs are written as text.
    """

    contents: Contents
    extra: Mapping[str, Source]
    as_text: bool

    def write(self, directory: str, further: Mapping[str, bytes] | None = None) -> None:
        """Writes a new directory.

        Args:
            directory: The directory, which must not be there yet.
            further: Contents of further files for `assets.extra/`, by name.

        Raises:
            ExportError: If it is there, or files cannot be written.
        """
        with new_directory(directory) as temporary:
            self.contents.write(temporary, as_text=self.as_text)
            extra = {**self.extra, **(further or {})}
            write_files(os.path.join(temporary, "assets.extra"), extra)


def prepare_saved_model(
    graphs: Any,
    *,
    signatures: Mapping[str, Any] | None = None,
    assets: Mapping[str, Path] | Sequence[Path] | None = None,
    assets_extra: Mapping[str, Path] | None = None,
    main_op: Any = None,
    collections: Mapping[str, Any] | None = None,
    clear_devices: bool = False,
    strip_default_attrs: bool = False,
    as_text: bool = False,
    layout: str | None = None,
    checkpoint: Path | None = None,
    target: str | None = "1.15",
) -> PreparedSavedModel:
    """Exports the graphs of a SavedModel, and takes the values of the moment.

    Args:
        graphs: What `save_saved_model` takes, as are the other arguments.
        signatures: Signatures of the graphs that predict.
        assets: Files for `assets/`.
        assets_extra: Files for `assets.extra/`.
        main_op: What a loader runs.
        collections: Further collections of all graphs.
        clear_devices: Whether to remove devices.
        strip_default_attrs: Whether to leave attributes with default values out.
        as_text: Whether to write text.
        layout: Layout of the signatures.
        checkpoint: A checkpoint to take the values from.
        target: Which TensorFlow the graphs are for.

    Returns:
        What is to be written.

    Raises:
        ExportError: If a model or argument cannot be exported.
        SignatureError: If a signature does not fit its graph.
        CheckpointError: If `checkpoint` does not fit.
    """
    files = named_files(assets=assets, assets_extra=assets_extra)
    common = {
        "signatures": signatures,
        "assets": files["assets"],
        "main_op": main_op,
        "collections": collections,
        "clear_devices": clear_devices,
        "strip_default_attrs": strip_default_attrs,
        "target": target,
    }
    specs = graph_specs(graphs, layout, common)
    contents = build_contents(specs, checkpoint)
    return PreparedSavedModel(contents, files["assets_extra"], as_text)
