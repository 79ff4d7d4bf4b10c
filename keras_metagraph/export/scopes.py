"""Node names from which the layer can be read, and the names the file gets.

Keras opens a layer's name scope twice a call, for `build` and for `call`, so TensorFlow
names the nodes of layer `dense` `dense_1/MatMul`, and those of `dense_1`
`dense_1_2/MatMul`. While a model is traced, numbers are therefore set apart by a sign
that no Keras name has; afterwards scopes of one layer are laid together.
"""

import re
from collections.abc import Iterable
from typing import Any

_MARK = ">"
_NUMBERS = re.compile(_MARK + r"\d+")
_GRADIENTS = "gradient_tape/"


class MarkedNames:
    """Makes names unique as `tf.Graph.unique_name` does, with the number set apart.

    Args:
        graph: The graph that is traced; its `unique_name` is replaced.
    """

    def __init__(self, graph: Any) -> None:
        self._scope = graph.get_name_scope
        self._counts: dict[str, int] = {}
        graph.unique_name = self

    def __call__(self, name: str, mark_as_used: bool = True) -> str:
        """Returns `scope/name`, or `scope/name>1` where that is taken."""
        scope = self._scope()
        name = f"{scope}/{name}" if scope else name
        key = name.lower()
        count = self._counts.get(key)
        candidate = name
        while candidate.lower() in self._counts:
            count = (count or 0) + 1
            candidate = f"{name}{_MARK}{count}"
        if mark_as_used:
            self._counts[key] = count or 0
            self._counts.setdefault(candidate.lower(), 0)
        return candidate


def plain_names(
    names: Iterable[str], model_name: str, prefix: str, taken: set[str]
) -> dict[str, str]:
    """Names the nodes of one traced graph in the exported one.

    The model's own scope goes, numbers of scopes go, the prefix comes in front, and
    what then is called the same is numbered as TensorFlow does.

    Args:
        names: Node names of the trace, in order.
        model_name: Name of the model, whose scope is left out.
        prefix: `""`, `"eval/"` or `"train/"`.
        taken: Names that are gone, in lower case; the new ones are added.

    Returns:
        The new name by the old one.

    Example:
        >>> plain_names(["net>1/dense>1/MatMul"], "net", "train/", set())
        {'net>1/dense>1/MatMul': 'train/dense/MatMul'}
    """
    renamed: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name in names:
        base = prefix + _without_model(_NUMBERS.sub("", name), model_name)
        candidate, count = base, counts.get(base.lower(), 0)
        while candidate.lower() in taken:
            count += 1
            candidate = f"{base}_{count}"
        counts[base.lower()] = count
        taken.add(candidate.lower())
        renamed[name] = candidate
    return renamed


def layer_of(name: str, model_name: str) -> str:
    """The scope that a node of the trace lies in, as a user knows it."""
    scope, _, _ = _without_model(_NUMBERS.sub("", name), model_name).rpartition("/")
    return scope


def _without_model(name: str, model_name: str) -> str:
    """Cuts the model's scope off a name, also behind the gradients' own scope."""
    start = ""
    if name.startswith(_GRADIENTS):
        start, name = _GRADIENTS, name[len(_GRADIENTS) :]
    inside = name.removeprefix(f"{model_name}/")
    return start + (inside or name)
