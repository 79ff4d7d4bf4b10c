"""What holds for every module of the package, and for the pages that name its parts."""

import inspect
import re
from importlib import util
from pathlib import Path

import pytest

import keras_metagraph as kmg
from keras_metagraph import errors

PACKAGE = Path(util.find_spec("keras_metagraph").origin).parent
ROOT = Path(__file__).parents[2]
MODULES = sorted(PACKAGE.rglob("*.py"))
_MOST_LINES = 500  # look twice from 400 on
_NAMELESS = {"common", "helper", "helpers", "misc", "util", "utils"}


def _id(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_module_fits_a_head(path):
    assert len(path.read_text().splitlines()) <= _MOST_LINES
    assert path.stem not in _NAMELESS


@pytest.mark.parametrize("path", [p for p in MODULES if p.stat().st_size], ids=_id)
def test_module_says_what_it_is(path):
    assert path.read_text().startswith(('"""', 'r"""'))


def test_every_room_is_a_package():
    rooms = {path.parent for path in MODULES}

    assert {
        _id(room) for room in rooms if not (room / "__init__.py").is_file()
    } == set()


def test_unit_tests_mirror_the_package():
    unit = ROOT / "tests" / "unit"
    rooms = {test.parent.relative_to(unit) for test in unit.rglob("test_*.py")}

    assert rooms
    assert {room for room in rooms if not (PACKAGE / room).is_dir()} == set()


def test_every_error_has_an_entry_in_troubleshooting():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    entries = set(re.findall(r"^## (\w+Error)$", page, re.MULTILINE))

    assert entries == {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.MetaGraphError)
    }


def test_every_public_name_is_on_the_page_of_names():
    page = (ROOT / "docs" / "api.md").read_text()
    listed = re.findall(
        r"^\.\. auto(?:class|function|module):: (\S+)", page, re.MULTILINE
    )

    names = {name.removeprefix("keras_metagraph.") for name in listed}
    assert set(kmg.__all__) <= names


def test_every_room_has_a_floor_in_the_design_page():
    page = (ROOT / "docs" / "design.md").read_text()
    rooms = {path.relative_to(PACKAGE).parts[0] for path in MODULES} - {"__init__.py"}
    table = re.findall(r"^\| \d+ \| (.*) \|$", page, re.MULTILINE)
    named = {name.strip("/") for row in table for name in re.findall(r"`(\S+?)`", row)}

    assert {room.removesuffix(".py") for room in rooms} <= named
