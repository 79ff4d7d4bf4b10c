"""Sphinx configuration: `sphinx-build -W -b html docs docs/_build/html`."""

import importlib.metadata
import os
import re

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

project = "keras_metagraph"
author = "The keras_metagraph authors"
release = version = importlib.metadata.version("keras_metagraph")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False

html_theme = "furo"
html_title = f"keras_metagraph {release}"

myst_heading_anchors = 3
default_role = "code"  # docstrings are Markdown, where one backtick means code
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shape", "Units"]

_FENCE = re.compile(r"^(\s*)```(\w*)\s*$")


def _to_restructured_text(app, what, name, obj, options, lines):
    """Adapts Markdown docstrings: fenced code, and returns without a type."""
    lines[:] = _returns_to_field(_fences_to_blocks(lines))


def _fences_to_blocks(lines):
    """Turns fenced code into code blocks."""
    result, inside = [], False
    for line in lines:
        fence = _FENCE.match(line)
        if fence and not inside:
            result += [f"{fence[1]}.. code-block:: {fence[2] or 'text'}", ""]
        elif fence:
            result.append("")
        else:
            result.append(f"   {line}" if inside and line.strip() else line)
        inside ^= fence is not None
    return result


def _returns_to_field(lines):
    """Says it is all text: napoleon takes what stands before a colon for a type."""
    result = list(lines)
    if "Returns:" in result:
        start = result.index("Returns:")
        result[start : start + 2] = [f":returns: {result[start + 1].strip()}"]
    return result


def setup(app):
    """Called by Sphinx."""
    # Before napoleon, which would take a colon inside the code for a section.
    app.connect("autodoc-process-docstring", _to_restructured_text, priority=100)
