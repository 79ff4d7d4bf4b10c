"""The random numbers of Python and NumPy, which `keras.utils.set_random_seed` seeds.

Those of Keras are variables: layers own theirs, and the trace of a train step finds the
default generator if the step uses it.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np


def random_state() -> dict[str, Any]:
    """Says where the generators of Python and NumPy stand.

    Returns:
        Their states, as `set_random_state` takes them.

    Example:
        >>> state = random_state()
        >>> first = random.random()
        >>> set_random_state(state)
        >>> random.random() == first
        True
    """
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - the one that is seeded
    return {
        "python": random.getstate(),
        "numpy": (str(kind), np.array(keys), *rest),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Puts the generators where they stood.

    Args:
        state: What `random_state` returned, or a part of it.
    """
    if "python" in state:
        random.setstate(state["python"])
    if "numpy" in state:
        np.random.set_state(state["numpy"])  # noqa: NPY002 - the same


def drawn_since(state: Mapping[str, Any]) -> set[str]:
    """Says which generators gave numbers since.

    Args:
        state: What `random_state` returned.

    Returns:
        Their names.
    """
    now = random_state()
    drawn = {"python"} if now["python"] != state["python"] else set()
    before, after = state["numpy"], now["numpy"]
    same = np.array_equal(before[1], after[1]) and before[2:] == after[2:]
    return drawn if same else drawn | {"numpy"}
