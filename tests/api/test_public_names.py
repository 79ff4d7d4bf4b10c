import importlib
import inspect
import re

import pytest

import keras_metagraph as kmg

_CLASSES_AND_FUNCTIONS = [name for name in kmg.__all__ if name != "errors"]
_ERRORS = [
    name
    for name, value in vars(importlib.import_module("keras_metagraph.errors")).items()
    if inspect.isclass(value) and issubclass(value, Exception)
]
_SECTION = re.compile(r"^(\w[\w ]*):$", re.MULTILINE)


def _sections(doc: str) -> dict[str, str]:
    """The sections of a Google docstring, by title."""
    pieces = _SECTION.split(doc)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def _documented(section: str) -> list[str]:
    """The names that an Args section documents: its least indented lines."""
    lines = [line for line in section.splitlines() if line.strip()]
    indent = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    heads = [line.strip() for line in lines if len(line) - len(line.lstrip()) == indent]
    return [
        name.strip(" *`")
        for head in heads
        for name in re.split(r"[:(]", head)[0].split(",")
    ]


def _parameters(callable_: object) -> list[str]:
    """The named parameters that a caller may give."""
    return [
        parameter.name
        for parameter in inspect.signature(callable_).parameters.values()
        if parameter.name != "self"
        and parameter.kind
        not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]


def _own_methods(cls: type) -> dict[str, object]:
    """The public methods that a class of this package defines itself.

    What overrides a method of Keras or Python is documented there.
    """
    return {
        name: value
        for name, value in vars(cls).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and not any(hasattr(base, name) for base in cls.__mro__[1:])
    }


def _public_callables() -> list[tuple[str, object]]:
    """Every public function and own method, and the classes for their arguments."""
    found: list[tuple[str, object]] = []
    for name in _CLASSES_AND_FUNCTIONS:
        value = getattr(kmg, name)
        found.append((name, value))
        if inspect.isclass(value):
            found += [(f"{name}.{m}", f) for m, f in _own_methods(value).items()]
    return found


def test_names_are_sorted_and_few():
    assert list(kmg.__all__) == sorted(kmg.__all__)
    assert len(kmg.__all__) <= 16


@pytest.mark.parametrize("name", kmg.__all__)
def test_name_is_there_and_listed(name):
    assert getattr(kmg, name) is not None
    assert name in dir(kmg)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'keras_metagraph' has no attribute 'x'"):
        kmg.x  # noqa: B018


@pytest.mark.parametrize("name", _CLASSES_AND_FUNCTIONS)
def test_first_line_is_a_sentence(name):
    first = inspect.getdoc(getattr(kmg, name)).splitlines()[0]

    assert len(first) <= 80
    assert first.endswith(".")


@pytest.mark.parametrize("name", _CLASSES_AND_FUNCTIONS)
def test_docstring_has_an_example(name):
    assert "Example" in _sections(inspect.getdoc(getattr(kmg, name)))


def test_every_parameter_is_documented():
    missing = {
        name: lacking
        for name, value in _public_callables()
        if (
            lacking := set(_parameters(value))
            - set(_documented(_sections(inspect.getdoc(value) or "").get("Args", "")))
        )
    }

    assert missing == {}


def test_no_parameter_is_documented_that_is_not_there():
    stale = {
        name: extra
        for name, value in _public_callables()
        if (
            extra := set(
                _documented(_sections(inspect.getdoc(value) or "").get("Args", ""))
            )
            - set(inspect.signature(value).parameters)
        )
    }

    assert stale == {}


@pytest.mark.parametrize(
    "name",
    ["export_meta_graph", "inspect_meta_graph", "load_from_meta_graph"],
)
def test_docstring_says_what_is_raised(name):
    raises = _sections(inspect.getdoc(getattr(kmg, name)))["Raises"]

    named = _documented(raises)
    assert named
    assert set(named) <= set(_ERRORS) | {"ValueError", "TypeError", "OSError"}


def test_parameters_are_annotated():
    bare = {
        f"{name}({parameter.name})"
        for name, value in _public_callables()
        for parameter in inspect.signature(value).parameters.values()
        if parameter.annotation is inspect.Parameter.empty and parameter.name != "self"
    }

    assert bare == set()


@pytest.mark.parametrize("name", _ERRORS)
def test_error_is_also_a_builtin_error(name):
    error = getattr(kmg.errors, name)

    assert issubclass(error, kmg.errors.MetaGraphError)
    assert inspect.getdoc(error)
    if error is not kmg.errors.MetaGraphError:
        builtin = {cls for cls in error.__mro__ if cls.__module__ == "builtins"}
        assert builtin - {Exception, BaseException, object}


@pytest.mark.parametrize("name", _ERRORS)
def test_error_ends_with_the_fix_and_lists_findings(name):
    error = getattr(kmg.errors, name)("a broke", fix="mend a", findings=("x", "y"))

    assert str(error) == "a broke\n  - x\n  - y\nTo fix: mend a"


def test_signatures_are_those_of_the_calls_they_stand_for():
    load = list(inspect.signature(kmg.load_from_meta_graph).parameters.values())
    assert [parameter.name for parameter in load[:2]] == ["filepath", "custom_objects"]
    assert {parameter.kind for parameter in load[2:]} == {
        inspect.Parameter.KEYWORD_ONLY
    }

    callback = inspect.signature(kmg.MetaGraphCheckpoint).parameters
    assert list(callback)[:7] == [
        "filepath",
        "monitor",
        "verbose",
        "save_best_only",
        "mode",
        "save_freq",
        "initial_value_threshold",
    ]
    assert callback["max_to_keep"].kind is inspect.Parameter.KEYWORD_ONLY
    assert callback["filepath"].default == "meta_graphs/model"
