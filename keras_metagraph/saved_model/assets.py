"""The files of a SavedModel that its graphs name: `assets/`."""

import os
import shutil
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from google.protobuf.any_pb2 import Any as AnyProto
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef

from keras_metagraph.checkpoint.durable import sync_file, write_bytes
from keras_metagraph.errors import ExportError
from keras_metagraph.export.names import node_name
from keras_metagraph.export.nodes import const_node

Source = str | os.PathLike[str] | bytes


class AssetFiles:
    """Collects files, each content once and each name once.

    Attributes:
        sources: Paths or contents of the files by name.
    """

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self._names: dict[bytes, str] = {}

    def add(self, name: str, source: Source) -> bool:
        """Adds a file of the user; returns whether the name is that of no other."""
        return self.sources.setdefault(name, source) == source

    def add_content(self, name: str, content: bytes) -> str:
        """Adds a file that a table reads.

        Args:
            name: How to call it, if nothing else is called so.
            content: What is in it.

        Returns:
            Its name; that of the file that has the same content, if there is one.
        """
        if content not in self._names:
            self._names[content] = self._free(name)
            self.sources[self._names[content]] = content
        return self._names[content]

    def _free(self, name: str) -> str:
        stem, ending = os.path.splitext(name)
        candidate, count = name, 0
        while candidate in self.sources:
            count += 1
            candidate = f"{stem}_{count}{ending}"
        return candidate


def named_files(**arguments: Any) -> dict[str, dict[str, str]]:
    """Reads arguments that name files.

    Args:
        **arguments: Paths by name; or paths, whose names are those of the files.

    Returns:
        Paths by name, by argument.

    Raises:
        ExportError: If a path is no file, or a name leads out; lists all of them.
    """
    found, findings = {}, []
    for what, files in arguments.items():
        found[what], wrong = _named(files)
        findings += [f"{what}: {each}" for each in wrong]
    if findings:
        raise ExportError(
            "Assets are files by name, or a list of files:",
            findings=findings,
            fix="pass paths of files that are there, by names without '..'.",
        )
    return found


def _named(files: Any) -> tuple[dict[str, str], list[str]]:
    """Paths by name, and what is wrong with them."""
    if isinstance(files, Mapping):
        named = {str(name): os.fspath(path) for name, path in files.items()}
        twice = []
    else:
        paths = [os.fspath(path) for path in files or ()]
        named = {os.path.basename(path): path for path in paths}
        twice = [p for p in paths if named[os.path.basename(p)] != p]
    findings = [
        f"{path!r} is no file" for path in named.values() if not os.path.isfile(path)
    ]
    findings += [
        f"{name!r} is no name of a file" for name in named if not _is_inside(name)
    ]
    return named, findings + [f"{path!r}: another file has that name" for path in twice]


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def add_asset(meta_graph_def: Any, filename: str, node: str | None = None) -> None:
    """Tells a loader of a file, as Builder did: in a collection, and in its own field.

    Args:
        meta_graph_def: The message to write to.
        filename: The file in `assets/`.
        node: The constant that a loader feeds the path to; by default a new one.
    """
    if node is None:
        node = _add_constant(meta_graph_def.graph_def, filename)
    asset = AssetFileDef(filename=filename)
    asset.tensor_info.name = f"{node}:0"
    meta_graph_def.asset_file_def.append(asset)
    packed = AnyProto()
    packed.Pack(asset)
    meta_graph_def.collection_def["saved_model_assets"].any_list.value.append(packed)


def _add_constant(graph_def: Any, filename: str) -> str:
    """Adds a constant for the path of a file of the user."""
    taken = {node.name for node in graph_def.node}
    base = candidate = node_name(f"assets/{filename}")
    count = 0
    while candidate in taken:
        count += 1
        candidate = f"{base}_{count}"
    constant = const_node(candidate, filename)
    written = graph_def.node.add(name=candidate, op=constant.op)
    for key, value in constant.attrs.items():
        written.attr[key].CopyFrom(value)
    return candidate


def write_files(directory: str, files: Mapping[str, Source]) -> None:
    """Writes files and syncs them.

    Args:
        directory: Where to; it is made if there are files.
        files: Paths or contents by name, which may have directories in it.
    """
    for name, source in files.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if isinstance(source, bytes):
            write_bytes(path, source)
        else:
            shutil.copyfile(source, path)
            sync_file(path)
