"""File names of a checkpoint: the prefix, its step suffix, and the files beside it."""

import os
import re

from keras_metagraph.errors import CheckpointError

STATE_FILE = "checkpoint"

_META = ".meta"
_INDEX = ".index"
_MANIFEST = ".manifest"
_DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")
_SHARDS = re.compile(r"-[\d?]+-of-\d+$")
_STEP = re.compile(r"^(?P<base>.*)-(?P<step>\d+)$", re.DOTALL)
_SEPARATORS = re.compile(r"[/\\]")


def check_filepath(filepath: str | os.PathLike[str]) -> str:
    """Refuses file paths that cannot be the prefix of a checkpoint.

    Args:
        filepath: Where checkpoints go, without step: `"run/model"`.

    Returns:
        `filepath` as text.

    Raises:
        CheckpointError: If the path has no base name, or the one that is kept for the
            state file.

    Example:
        >>> check_filepath("run/model")
        'run/model'
    """
    text = os.fsdecode(os.fspath(filepath))
    base = os.path.basename(text)
    if base in ("", ".", ".."):
        raise CheckpointError(
            f"A checkpoint prefix is a directory and a base name. Received: {text!r}",
            fix=f"append a base name, such as {os.path.join(text, 'model')!r}.",
        )
    if base == STATE_FILE:
        raise CheckpointError(
            f"The base name {STATE_FILE!r} belongs to the state file of the directory, "
            f"that names its newest checkpoint. Received: {text!r}",
            fix=f"choose another name, such as "
            f"{os.path.join(os.path.dirname(text), 'model')!r}.",
        )
    if _SHARDS.search(base):
        raise CheckpointError(
            "A base name that ends as a shard does, in a number of a number, "
            f"would be taken for one. Received: {text!r}",
            fix="choose another name.",
        )
    if "://" in text:
        raise CheckpointError(
            "Checkpoints are written to a local or mounted file system, where a file "
            f"can be linked and synced. Received: {text!r}",
            fix="write to a local directory and copy from there.",
        )
    if "\0" in text or "\n" in text:
        raise CheckpointError(
            f"A checkpoint prefix is one line of text. Received: {text!r}",
            fix="remove the control characters from the path.",
        )
    return text


def step_prefix(filepath: str | os.PathLike[str], step: int | None) -> str:
    """Returns the prefix of the checkpoint of one step, as `tf.train.Saver` does.

    Args:
        filepath: Where checkpoints go, without step.
        step: Steps taken by the optimizer; None appends nothing.

    Returns:
        The prefix.

    Raises:
        CheckpointError: If the file path cannot be a prefix, or the step is negative.

    Example:
        >>> step_prefix("run/model", 120)
        'run/model-120'
    """
    text = check_filepath(filepath)
    if step is None:
        return text
    if step < 0:
        raise CheckpointError(
            f"A step counts from 0 on. Received: global_step={step}",
            fix="pass the number of steps that the optimizer has taken, or None.",
        )
    return f"{text}-{step}"


def split_step(prefix: str) -> tuple[str, int | None]:
    """Parts a prefix, or its base name, into what stands before the step and the step.

    Args:
        prefix: A checkpoint prefix.

    Returns:
        The prefix without step and the step, or the prefix and None.

    Example:
        >>> split_step("run/model-120")
        ('run/model', 120)
    """
    match = _STEP.match(prefix)
    if match is None:
        return prefix, None
    return match["base"], int(match["step"])


def meta_path(prefix: str) -> str:
    """Returns the `.meta` of a prefix; sharded V1 prefixes have one without shards."""
    return _SHARDS.sub("", prefix) + _META


def index_path(prefix: str) -> str:
    """Returns the index of a V2 checkpoint."""
    return prefix + _INDEX


def data_path(prefix: str, shard: int = 0, shards: int = 1) -> str:
    """Returns one data file of a V2 checkpoint."""
    return f"{prefix}.data-{shard:05d}-of-{shards:05d}"


def manifest_path(prefix: str) -> str:
    """Returns the manifest of a checkpoint that this package wrote."""
    return prefix + _MANIFEST


def prefix_of(path: str) -> str:
    """Returns the prefix that a file of a checkpoint belongs to.

    Args:
        path: A `.meta`, `.index`, `.manifest` or data file, or a prefix.

    Returns:
        The prefix; `path` itself if it has none of these endings.

    Example:
        >>> prefix_of("run/model-120.data-00000-of-00001")
        'run/model-120'
    """
    for ending in (_META, _INDEX, _MANIFEST):
        if path.endswith(ending):
            return path[: -len(ending)]
    return _DATA.sub("", path)


def is_file_of(name: str, prefix: str) -> bool:
    """Says whether a base name is one of the files that a save of `prefix` makes."""
    base = os.path.basename(prefix)
    rest = name.removeprefix(base)
    return name.startswith(base) and (
        rest in (_META, _INDEX, _MANIFEST) or _DATA.fullmatch(rest) is not None
    )


def confine(entry: str) -> str | None:
    r"""Reduces a path of a state file to a base name in the state file's directory.

    State files travel: they hold absolute paths of other machines, and anyone can write
    `../..` into one. What they name is looked for in their own directory only.

    Args:
        entry: A path of a state file, with separators of any system.

    Returns:
        The base name, or None if there is none that could be a checkpoint's.

    Example:
        >>> confine("C:\\run\\model-120")
        'model-120'
    """
    base = _SEPARATORS.split(entry)[-1]
    if base in ("", ".", "..", STATE_FILE) or "\0" in base:
        return None
    return base
