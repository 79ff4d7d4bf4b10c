"""Diagonals of matrices: version 3 of the ops can also align several diagonals."""

from typing import Any

import numpy as np

from keras_metagraph.export.rewrites.rewriter import Rewrite, Rewriter

_ALIGNED_AS_VERSION_2 = b"LEFT_LEFT"


def rewrite_diagonals(rewriter: Rewriter) -> str | None:
    """Takes version 1 for the main diagonal, version 2 for others."""
    node = rewriter.node
    place = 2 if node.op == "MatrixSetDiagV3" else 1
    diagonals = _numbers(rewriter.constant(place))
    dtype = rewriter.dtype("T")
    if diagonals == {0} and _is_square(rewriter):
        # In 1.15 version 2 infers wrong shapes where a size is not known.
        rewriter.replace(node.op.removesuffix("V3"), node.inputs[:place], T=dtype)
        return None
    align = node.attrs["align"].s if "align" in node.attrs else b"RIGHT_LEFT"
    if len(diagonals) != 1 and align != _ALIGNED_AS_VERSION_2:
        return "it aligns several diagonals in a way that 1.15 cannot"
    rewriter.replace(node.op.replace("V3", "V2"), node.inputs, T=dtype)
    return None


def _numbers(diagonals: Any) -> set[int]:
    """Which diagonals an op works on; empty if only the run will tell."""
    return set() if diagonals is None else set(np.ravel(diagonals).tolist())


def _is_square(rewriter: Rewriter) -> bool:
    """Whether `MatrixDiagV3` makes square matrices with zeros beside the diagonal."""
    if rewriter.node.op != "MatrixDiagV3":
        return True
    rows, columns, padding = (rewriter.constant(place) for place in (2, 3, 4))
    return (
        rows is not None
        and columns is not None
        and int(rows) == int(columns)
        and padding is not None
        and not np.any(padding)
    )


REWRITES: dict[str, Rewrite] = dict.fromkeys(
    ("MatrixDiagV3", "MatrixDiagPartV3", "MatrixSetDiagV3"), rewrite_diagonals
)
