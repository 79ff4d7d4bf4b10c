"""Says under which keys a checkpoint has variables, where their names differ.

A map gives names one by one, by regular expressions, or by a function. What it says is
checked as a whole before anything is read: a name that nothing has, a pattern that fits
nothing, a key that is not there, two variables that would get one tensor.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from keras_metagraph.checkpoint.reader import TensorReader
from keras_metagraph.errors import SignatureError, nearest
from keras_metagraph.graph.variables import GraphVariable

VariableMap = (
    Mapping[str | re.Pattern[str], str | Callable[[re.Match[str]], str]]
    | Callable[[str], str | None]
)


def is_pattern(key: Any) -> bool:
    """Whether the key of a map is a regular expression, and no name.

    Args:
        key: A compiled expression is one, and a string that begins with `^` or ends
            with `$`, which no name of TensorFlow does.

    Returns:
        Whether it is.
    """
    return isinstance(key, re.Pattern) or (
        isinstance(key, str) and (key.startswith("^") or key.endswith("$"))
    )


def map_variables(
    variables: Mapping[str, GraphVariable],
    variable_map: VariableMap | None,
    reader: TensorReader,
) -> dict[str, GraphVariable]:
    """Lets the caller say under which keys a checkpoint has variables of a graph.

    The parts of a partitioned variable go by the name of the whole, `emb` for
    `emb/part_0`, since a checkpoint holds one tensor of them. A part can also be named
    itself: where its key holds a tensor of the part's own shape, it gets all of it.

    Args:
        variables: The variables by name.
        variable_map: Keys by name of variable; see `mapped_keys`.
        reader: The checkpoint.

    Returns:
        The variables with the keys that the map gives them.

    Raises:
        SignatureError: If the map does not fit; lists all that is wrong with it.
    """
    if not variable_map:
        return dict(variables)
    given = variable_map if isinstance(variable_map, Mapping) else {}
    asked = {
        name: name if name in given else _whole(variable)
        for name, variable in variables.items()
    }
    own_keys: dict[str, str] = {}
    for name, variable in variables.items():
        own_keys.setdefault(asked[name], variable.checkpoint_key or "")
    keys = mapped_keys(own_keys, variable_map, reader.keys())
    return {
        name: _with_key(variable, keys.get(asked[name]), reader)
        for name, variable in variables.items()
    }


def mapped_keys(
    own_keys: Mapping[str, str], variable_map: VariableMap, keys: Collection[str]
) -> dict[str, str]:
    r"""Finds the keys that a map gives to names.

    Args:
        own_keys: The key that each variable has without the map, by its name.
        variable_map: Either keys by name; `^` or `$` make a name a regular expression,
            or it is a compiled one: the first match in a name is replaced, as
            `re.sub` does it. A name goes before an expression. Or a function that
            gets a name and returns a key, or None to leave it as it is.
        keys: The keys that the checkpoint has.

    Returns:
        Keys by name, for the names that the map is about.

    Raises:
        SignatureError: If the map does not fit; lists all that is wrong with it.

    Example:
        >>> mapped_keys({"tower/w": "tower/w"}, {r"^tower/(.*)": r"net/\1"}, ["net/w"])
        {'tower/w': 'net/w'}
    """
    findings: list[str] = []
    if isinstance(variable_map, Mapping):
        chosen = _by_name(own_keys, variable_map, findings)
        _by_pattern(own_keys, variable_map, chosen, findings)
    else:
        answers = {name: variable_map(name) for name in own_keys}
        chosen = {name: key for name, key in answers.items() if key is not None}
    present = set(keys)
    findings += [
        f"{name}: the checkpoint has no {key!r}{nearest(str(key), present)}"
        for name, key in chosen.items()
        if key not in present
    ]
    findings += _shared(own_keys, chosen)
    if findings:
        raise SignatureError(
            "variable_map does not fit the graph and its checkpoint:",
            findings=findings,
            fix="its keys are names of variables or regular expressions (with ^ or $), "
            "its values keys of the checkpoint; inspect_meta_graph lists both.",
        )
    return chosen


def _by_name(
    names: Collection[str], given: Mapping[Any, Any], findings: list[str]
) -> dict[str, str]:
    chosen = {}
    for name, key in given.items():
        if is_pattern(name):
            continue
        if name in names:
            chosen[name] = key
        else:
            findings.append(f"{name}: no such variable{nearest(str(name), names)}")
    return chosen


def _by_pattern(
    names: Collection[str],
    given: Mapping[Any, Any],
    chosen: dict[str, str],
    findings: list[str],
) -> None:
    """Adds what the expressions say about names that were not given themselves."""
    named = set(chosen)
    sources: dict[str, str] = {}
    for source, replacement in given.items():
        if not is_pattern(source):
            continue
        try:
            pattern = re.compile(source)
            matched = {
                name: pattern.sub(replacement, name, count=1)
                for name in names
                if pattern.search(name)
            }
        except (re.error, IndexError) as error:
            findings.append(f"{source!r} → {replacement!r}: {error}")
            continue
        if not matched:
            findings.append(f"{pattern.pattern!r} matches no variable")
        for name in matched.keys() - named:
            if chosen.setdefault(name, matched[name]) != matched[name]:
                findings.append(
                    f"{name}: {chosen[name]!r} by {sources[name]!r}, but "
                    f"{matched[name]!r} by {pattern.pattern!r}"
                )
            sources.setdefault(name, pattern.pattern)


def _shared(own_keys: Mapping[str, str], chosen: Mapping[str, str]) -> Iterable[str]:
    """Keys that the map gives to a variable while another one takes them too."""
    takers: dict[str, list[str]] = {}
    for name, key in own_keys.items():
        takers.setdefault(chosen.get(name, key), []).append(name)
    for key in sorted(set(chosen.values())):
        if len(takers[key]) > 1:
            yield f"{', '.join(sorted(takers[key]))}: all from the one key {key!r}"


def _whole(variable: GraphVariable) -> str:
    return variable.name if variable.slice is None else variable.slice.full_name


def _with_key(
    variable: GraphVariable, key: str | None, reader: TensorReader
) -> GraphVariable:
    if key is None:
        return variable
    part = variable.slice
    if part is not None and reader.shape(key) == part.shape != part.full_shape:
        part = None  # The checkpoint holds this part alone.
    return dataclasses.replace(variable, checkpoint_key=key, slice=part)
