"""`update_signature_methods`: other method names for the signatures of a SavedModel."""

import os
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import text_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_metagraph.checkpoint.durable import sync_file, write_bytes
from keras_metagraph.errors import FormatError, SignatureError, UntrustedContentError
from keras_metagraph.export.signatures import CLASSIFY, PREDICT, REGRESS
from keras_metagraph.formats.registry import open_export
from keras_metagraph.saved_model.directory import new_directory
from keras_metagraph.signatures.validation import signature_findings

Path = str | os.PathLike[str]

# What TensorFlow 2 says of the file that is replaced.
_FINGERPRINT = "fingerprint.pb"
_SERVING = "tensorflow/serving/"


def update_signature_methods(
    source: Path, destination: Path, methods: Mapping[Any, Any]
) -> str:
    """Copies a SavedModel, with other method names for some of its signatures.

    What `tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater` is for. That
    writes the graphs alone, and such a copy does not load; this has variables and
    assets too, and not the fingerprint of the graphs that were replaced.

    Args:
        source: A SavedModel.
        destination: The copy, which must not be there yet.
        methods: Method names, such as `"tensorflow/serving/regress"`, by the key of
            the signature, for all graphs that have it; or such dicts by tags (a text
            or a tuple), for one graph each.

    Returns:
        The directory of the copy.

    Raises:
        FormatError: If `source` is no SavedModel.
        SignatureError: If there are no such tags or signatures, or a signature has not
            the form that servers require of the method; lists all of them.
        UntrustedContentError: If files of the SavedModel are links that lead out of it.
        ExportError: If `destination` is there already, or cannot be written.

    Example:
        ```python
        update_signature_methods(
            "export/1", "export/2", {"score": "tensorflow/serving/regress"}
        )
        ```
    """
    export = open_export(source)
    if export.kind != "saved_model":
        raise FormatError(
            f"{os.fspath(source)!r} is no SavedModel.",
            fix="pass a directory with saved_model.pb.",
        )
    findings = list(_update(export.meta_graphs, methods))
    if findings:
        raise SignatureError(
            f"The method names do not fit the signatures of {export.path}:",
            findings=findings,
            fix="name signatures that are there, and methods whose form they have "
            "(docs/saved-models).",
        )
    directory = os.path.dirname(os.path.abspath(export.path))
    _refuse_links(directory)
    replaced = {os.path.basename(export.path), _FINGERPRINT}
    saved_model = SavedModel(saved_model_schema_version=1)
    saved_model.meta_graphs.extend(export.meta_graphs)
    target = os.fspath(destination)
    with new_directory(target) as temporary:
        shutil.copytree(
            directory,
            temporary,
            ignore=lambda folder, _: replaced if folder == directory else (),
            copy_function=_copy,
            dirs_exist_ok=True,
        )
        written = os.path.join(temporary, os.path.basename(export.path))
        write_bytes(written, _encoded(saved_model, written))
    return target


def _update(meta_graphs: list[Any], methods: Mapping[Any, Any]) -> Iterable[str]:
    """Replaces the names; yields what does not fit, a line each."""
    if not isinstance(methods, Mapping):
        yield f"{methods!r} is no dict of method names by key"
        return
    for key, value in methods.items():
        if isinstance(value, Mapping):
            tags = {key} if isinstance(key, str) else set(key)
            graphs = [m for m in meta_graphs if set(m.meta_info_def.tags) == tags]
            if not graphs:
                known = [sorted(m.meta_info_def.tags) for m in meta_graphs]
                yield f"{sorted(tags)}: there is no graph with these tags, but {known}"
            for name, method in value.items():
                yield from _replace(graphs, name, method)
        else:
            yield from _replace(meta_graphs, key, value)


def _replace(graphs: list[Any], key: str, method: str) -> Iterable[str]:
    """Replaces one name in the graphs that have the signature."""
    if not isinstance(method, str):
        yield f"{key}: the method name {method!r} is no text"
        return
    if _SERVING + method in (CLASSIFY, PREDICT, REGRESS):
        yield f"{key}: the full method name is {_SERVING + method!r}, not {method!r}"
        return
    found = [graph.signature_def for graph in graphs if key in graph.signature_def]
    if graphs and not found:
        known = sorted({name for graph in graphs for name in graph.signature_def})
        yield f"{key}: there is no such signature, but {known}"
    for signatures in found:
        signatures[key].method_name = method
        yield from signature_findings(key, signatures[key])


def _refuse_links(directory: str) -> None:
    """Refuses files that are not in the SavedModel, but only named there."""
    root = os.path.realpath(directory)
    findings = [
        f"{os.path.relpath(path, directory)} leads to {os.path.realpath(path)}"
        for folder, folders, files in os.walk(directory)
        for path in (os.path.join(folder, name) for name in [*folders, *files])
        if os.path.commonpath([os.path.realpath(path), root]) != root
    ]
    if findings:
        raise UntrustedContentError(
            f"Files of {directory!r} are links that lead out of it:",
            findings=findings,
            fix="where they are yours, copy the directory with `cp -rL` first.",
        )


def _copy(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    sync_file(target)


def _encoded(saved_model: Any, path: str) -> bytes:
    if path.endswith(".pbtxt"):
        return bytes(text_format.MessageToString(saved_model).encode("utf-8"))
    return bytes(saved_model.SerializeToString(deterministic=True))
