"""Errors of the package: one hierarchy, each also a built-in error.

A message says what came, what was expected and how to fix it; its last line starts
with "To fix:". Everything that was found is listed, not only the first finding.
"""

import difflib
from collections.abc import Iterable, Sequence


class MetaGraphError(Exception):
    """Base class of every error that this package raises on purpose.

    Args:
        problem: What happened, with the received values, and what was expected.
        fix: How the user gets on; printed after "To fix:".
        findings: The single findings, one line each, all of them.
    """

    def __init__(
        self, problem: str, *, fix: str = "", findings: Sequence[str] = ()
    ) -> None:
        self.problem = problem
        self.fix = fix
        self.findings = tuple(findings)
        lines = [problem, *(f"  - {finding}" for finding in self.findings)]
        if fix:
            lines.append(f"To fix: {fix}")
        super().__init__("\n".join(lines))

    def __str__(self) -> str:
        # KeyError would print the repr of its argument.
        return str(self.args[0])


class FormatError(MetaGraphError, ValueError):
    """A file is missing, truncated, too large, or of another format."""


class ProtocolVersionError(FormatError):
    """An own file was written by a newer protocol than this package reads."""


class SignatureError(MetaGraphError, ValueError):
    """A tensor, operation or signature name does not exist or does not fit."""


class CheckpointError(MetaGraphError, ValueError):
    """A checkpoint is missing, damaged, or does not fit the graph."""


class MissingVariableError(CheckpointError, KeyError):
    """The checkpoint lacks variables that the model needs."""


class ShapeMismatchError(CheckpointError):
    """Variables have another shape or dtype in the checkpoint than in the model."""


class CustomObjectError(MetaGraphError, TypeError):
    """Classes or functions named by a file could not be found."""


class UntrustedContentError(MetaGraphError, ValueError):
    """A file holds ops or objects that are not run without the user's consent."""


class LoweringError(MetaGraphError, RuntimeError):
    """A graph could not be rebuilt."""


class UnsupportedOpError(LoweringError, NotImplementedError):
    """The graph needs ops that TensorFlow does not know (contrib, custom)."""


class DuplicateHandlerError(LoweringError, ValueError):
    """Two handlers were registered for one op type."""


class HandlerError(LoweringError):
    """A handler failed on a node; the cause is chained."""


class PassError(MetaGraphError, RuntimeError):
    """A graph pass met a graph that it cannot rewrite."""


class ExportError(MetaGraphError, ValueError):
    """A model could not be exported."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Says which of `known` is spelled like `name`, to end an error line with.

    Args:
        name: The name that was not found.
        known: The names there are.
        count: How many to propose at most.

    Returns:
        `"; nearest: a, b"`, or an empty string where nothing is near.

    Example:
        >>> nearest("dense/kernl", ["dense/kernel", "conv/bias"])
        '; nearest: dense/kernel'
    """
    found = difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
    return f"; nearest: {', '.join(found)}" if found else ""
