"""A module imports only from floors below its own: read from the sources."""

import ast
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import pytest

PACKAGE = Path(util.find_spec("keras_metagraph").origin).parent

# Modules and rooms by their floor, as docs/design.md has them. The longest name that
# fits a module counts.
FLOORS = {
    "errors": 1,
    "printed": 1,
    "graph": 2,
    "audit": 3,
    "checkpoint": 3,
    "formats": 4,
    "training": 4,
    "export": 5,
    "layers": 5,
    "session": 5,
    "signatures": 6,
    "saving": 7,
    "loading": 8,
    "mixin": 8,
    "resuming": 8,
    "saved_model": 8,
    "callbacks": 9,
    "conversion": 9,
    "inspect_tables": 9,
    "warm_starting": 9,
    "inspect": 10,
    "inspect_signatures": 10,
    "cli": 11,
}
WITHOUT_KERAS = ("audit", "formats", "graph")


def _modules() -> dict[str, Path]:
    """Every module of the package, by its name below the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = _modules()


def _place(module: str) -> str:
    """The entry of `FLOORS` that a module belongs to."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in FLOORS:
            return ".".join(parts[:end])
    return ""


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _imports(path: Path) -> Iterator[str]:
    """The full names of what a module imports when it runs, anywhere in it."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if not _is_type_checking(node):
            waiting += ast.iter_child_nodes(node)


def _own_imports(module: str) -> set[str]:
    """The modules of this package that a module imports, below the package."""
    found = set()
    for name in _imports(MODULES[module]):
        parts = name.split(".")
        if parts[0] != "keras_metagraph":
            continue
        below = ".".join(parts[1:])
        found.add(below if below in MODULES else ".".join(parts[1:-1]))
    return found


def test_there_are_modules_to_look_at():
    assert "errors" in MODULES
    assert _own_imports("graph.ir") == {"errors"}


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_module_has_a_floor(module):
    assert _place(module)


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_module_imports_from_below(module):
    own = _place(module)

    wrong = {
        name
        for name in _own_imports(module)
        if _place(name) != own and FLOORS.get(_place(name), 0) >= FLOORS[own]
    }

    assert wrong == set()


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.split(".")[0] in WITHOUT_KERAS]
)
def test_module_is_without_keras(module):
    roots = {name.split(".")[0] for name in _imports(MODULES[module])}

    assert "keras" not in roots


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.split(".")[0] == "audit"]
)
def test_audit_is_pure_python(module):
    roots = {name.split(".")[0] for name in _imports(MODULES[module])}

    assert not roots & {"keras", "tensorflow"}


def test_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").is_file()
