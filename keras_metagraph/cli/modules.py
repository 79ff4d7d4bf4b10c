"""Imports the modules that the user names, for the classes of a model."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from keras_metagraph.errors import CustomObjectError


def import_modules(names: Sequence[str]) -> dict[str, Any]:
    """Imports modules, also from the current directory.

    Args:
        names: Their names.

    Returns:
        The classes and functions that they define, by name.

    Raises:
        CustomObjectError: If a module cannot be imported; lists all of them.
    """
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: dict[str, Any] = {}
    findings = []
    for name in names:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # whatever the code of the user says
            findings.append(f"{name}: {type(error).__name__}: {error}")
            continue
        found |= {
            key: value
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == name
        }
    if findings:
        raise CustomObjectError(
            "Modules cannot be imported:",
            findings=findings,
            fix="run the command where Python finds them, or set PYTHONPATH.",
        )
    return found
