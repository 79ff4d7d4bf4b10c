"""Diagonals of matrices: version 3 of the ops can also align several diagonals."""

import numpy as np

from keras_metagraph.export.rewrites.rewriter import Rewrite, Rewriter

_ALIGNED_AS_VERSION_2 = b"LEFT_LEFT"


def _version_2(places_of_k: int) -> Rewrite:
    """A rewrite to version 2, for an op whose diagonal numbers are that input."""

    def rewrite(rewriter: Rewriter) -> str | None:
        node = rewriter.node
        diagonals = rewriter.constant(places_of_k)
        align = node.attrs["align"].s if "align" in node.attrs else b"RIGHT_LEFT"
        one = diagonals is not None and len(set(np.ravel(diagonals).tolist())) == 1
        if not one and align != _ALIGNED_AS_VERSION_2:
            return "it aligns several diagonals in a way that 1.15 cannot"
        rewriter.replace(
            node.op.replace("V3", "V2"), node.inputs, T=rewriter.dtype("T")
        )
        return None

    return rewrite


REWRITES: dict[str, Rewrite] = {
    "MatrixDiagV3": _version_2(1),
    "MatrixDiagPartV3": _version_2(1),
    "MatrixSetDiagV3": _version_2(2),
}
