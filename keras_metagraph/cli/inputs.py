"""Reads the inputs of `keras-metagraph run`: arrays in files, JSON, tf.Examples."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_metagraph.cli import requests
from keras_metagraph.cli.examples import serialized_examples
from keras_metagraph.errors import SignatureError, nearest

_FILE = re.compile(r"(?:(?P<key>[^=]+)=)?(?P<path>.+?)(?:\[(?P<member>[^\[\]]+)\])?")


class Inputs:
    """What the command line gives for the inputs of a signature.

    Args:
        files: `name=file.npy`, `name=file.npz[key]` or `file.npz`.
        json_text: JSON in a form of `requests`; `@file`, `@-` (standard input).
        examples: JSON of a list of tf.Examples, after `name=` or not; `@file`, `@-`.

    Raises:
        SignatureError: If JSON cannot be read.
    """

    def __init__(
        self,
        files: Sequence[str] = (),
        json_text: str | None = None,
        examples: str | None = None,
    ) -> None:
        self._files = files
        # Lists of at most one: null is JSON too.
        self._requests = [] if json_text is None else [_parsed(json_text)]
        self._examples = []
        if examples is not None:
            name, text = _split_name(examples)
            self._examples = [(name, _parsed(text))]

    @property
    def signature_name(self) -> str | None:
        """The signature that a request names."""
        return next(map(requests.signature_name, self._requests), None)

    def read(self, infos: Mapping[str, Any]) -> dict[str, Any]:
        """Reads what is given for the inputs of a signature.

        Whether it fits, the signature says when it is called: names, dtypes, shapes.

        Args:
            infos: The `TensorInfo` of each input.

        Returns:
            Arrays and nested lists by input name.

        Raises:
            SignatureError: If files or JSON cannot be read; lists all that is wrong.
        """
        found: dict[str, Any] = {}
        findings: list[str] = []
        for where, key, value in self._values(infos, findings):
            if key in found:
                findings.append(f"{where}: the input {key!r} is given twice")
            found[key] = value
        if not findings:
            return found
        findings += [
            f"unknown input {key!r}{nearest(key, infos)}"
            for key in found
            if key not in infos
        ]
        missing = [key for key in infos if key not in found]
        if missing:
            findings.append(f"nothing was read for {missing}")
        raise SignatureError(
            f"The inputs of the signature are {list(infos)}. Not all that is given "
            "can be read:",
            findings=findings,
            fix="see keras-metagraph run --help.",
        )

    def _values(
        self, infos: Mapping[str, Any], findings: list[str]
    ) -> Iterator[tuple[str, str, Any]]:
        """Where it came from, the name, and the value of each input that is given."""
        for text in self._files:
            where = f"--inputs {text}"
            try:
                values = _arrays(text)
            except (OSError, ValueError, EOFError) as error:
                findings.append(f"{where}: {error}")
                continue
            for key, value in values.items():
                yield where, key, value
        for request in self._requests:
            where = "--inputs-json"
            try:
                values = requests.columns(request, infos)
            except SignatureError as error:
                findings.append(f"{where}: it {error}")
                continue
            for key, value in values.items():
                yield where, key, value
        for name, examples in self._examples:
            where = "--examples"
            try:
                serialized = serialized_examples(examples)
                key = name or requests.only_string(infos)
            except SignatureError as error:
                findings.append(f"{where}: it {error}")
                continue
            yield where, key, serialized


def _parsed(text: str) -> Any:
    """JSON of the command line, of a file, or of standard input."""
    try:
        if text == "@-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            with open(text[1:], encoding="utf-8") as file:
                text = file.read()
        return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise SignatureError(
            f"Expected JSON, or @FILE or @- to read it from. Received: {text[:80]!r}",
            findings=[str(error)],
            fix="quote it for the shell: '{\"x\": [[1, 2]]}'.",
        ) from error


def _split_name(text: str) -> tuple[str | None, str]:
    """`name=JSON` as its two parts; JSON alone begins otherwise."""
    if text.lstrip().startswith(("[", "{", "@")):
        return None, text
    name, equals, rest = text.partition("=")
    return (name, rest) if equals else (None, text)


def _arrays(text: str) -> dict[str, Any]:
    """The arrays of `name=file.npy`, `name=file.npz[key]` or `file.npz`."""
    match = _FILE.fullmatch(text)
    if match is None:
        raise SignatureError("it is not of the form NAME=FILE")
    key, path, member = match["key"], match["path"], match["member"]
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        if key is None or member is not None:
            raise SignatureError(f"it holds one array; expected NAME={path}")
        return {key: content}
    with content:
        if key is None and member is None:
            return dict(content)
        if member is None:
            if len(content.files) != 1:
                raise SignatureError(f"which one of {content.files}? {path}[...]")
            member = content.files[0]
        if member not in content.files:
            raise SignatureError(
                f"it has no array {member!r}{nearest(member, content.files)}"
            )
        return {key or member: content[member]}
