"""Every variable that a train step reads or writes, and its place in a checkpoint."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.checkpoint.reader import TensorReader
from keras_metagraph.checkpoint.snapshot import read_value
from keras_metagraph.errors import CheckpointError, ShapeMismatchError
from keras_metagraph.export.names import optimizers_of

PREFIX = "keras_metagraph/"

# Ops that draw from a generator inside of their kernel, where no one can read it.
_HIDDEN_RANDOM_OPS = frozenset(
    {
        "Multinomial",
        "ParameterizedTruncatedNormal",
        "RandomGamma",
        "RandomPoisson",
        "RandomPoissonV2",
        "RandomShuffle",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "TruncatedNormal",
    }
)
_NUMBER = re.compile(r"_\d+$")


class TrainingVariables:
    """The variables of a model's training: all that a next step depends on.

    Weights, random seeds, metrics, optimizers, and what else the train step uses, as
    Keras's default random generator. The step is traced for them, which creates those
    that are not there yet and runs nothing.

    Args:
        model: The compiled model.
        element_spec: Specs of a batch.

    Raises:
        CheckpointError: If the step cannot be traced, or draws random numbers that
            cannot be resumed.
    """

    def __init__(self, model: Any, element_spec: Any) -> None:
        captured = _trace(model, element_spec)
        self._variables = dict(_listed(model, captured))

    def place(self, names: Mapping[int, str]) -> list[dict[str, Any]]:
        """Says where a checkpoint has each variable.

        Args:
            names: Names of the variables that it holds anyway, by their ids.

        Returns:
            A record a variable, for JSON.
        """
        return [
            {
                "key": key,
                "path": _path(variable),
                "shape": list(variable.shape),
                "dtype": _dtype(variable),
                "tensor": names.get(id(variable), f"{PREFIX}{key}"),
            }
            for key, variable in self._variables.items()
        ]

    def extra_values(self, names: Mapping[int, str]) -> dict[str, Any]:
        """The values that a checkpoint does not hold anyway, by name in it."""
        return {
            f"{PREFIX}{key}": read_value(variable)
            for key, variable in self._variables.items()
            if id(variable) not in names
        }

    def check(self, records: Sequence[Mapping[str, Any]], prefix: str) -> None:
        """Compares the variables with those of a checkpoint.

        Args:
            records: What `place` returned.
            prefix: The checkpoint's prefix.

        Raises:
            ShapeMismatchError: If there are others; lists all of them.
        """
        wanted = {r["key"]: (r["dtype"], tuple(r["shape"])) for r in records}
        paths = {record["key"]: record["path"] for record in records}
        findings = []
        for key, variable in self._variables.items():
            held = _dtype(variable), tuple(variable.shape)
            was = wanted.pop(key, None)
            if was is None:
                findings.append(f"{_path(variable)} {held}: not in the checkpoint")
            elif was != held:
                findings.append(f"{paths[key]} {was}: {_path(variable)} {held} now")
        findings += [f"{paths[key]} {was}: not here" for key, was in wanted.items()]
        if findings:
            raise ShapeMismatchError(
                f"The checkpoint {prefix!r} is that of another model, or of one that "
                "was compiled otherwise:",
                findings=findings,
                fix="run the script that wrote it, or choose another filepath.",
            )

    def restore(
        self, records: Sequence[Mapping[str, Any]], reader: TensorReader
    ) -> None:
        """Gives the variables the values of a checkpoint, all of them or none.

        Args:
            records: What `place` returned.
            reader: The checkpoint.

        Raises:
            CheckpointError: If a value cannot be read.
        """
        tensors = {record["key"]: record["tensor"] for record in records}
        values = {key: reader.read(tensors[key]) for key in self._variables}
        for key, variable in self._variables.items():
            variable.assign(values[key])


def _trace(model: Any, element_spec: Any) -> list[Any]:
    """Traces the train step; returns the variables that it uses."""
    spec = tf.nest.map_structure(
        lambda each: None if isinstance(each, tf.OptionalSpec) else each, element_spec
    )
    try:
        # Keras does not convert the step's Python either.
        step = tf.function(model.train_step, autograph=False)
        graph = step.get_concrete_function(spec).graph
    except Exception as error:  # The step is the user's code.
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise CheckpointError(
            f"The train step cannot be traced, so what it depends on is not known: "
            f"{reason}",
            fix="let train_step run in a tf.function, or leave out resume=True.",
        ) from error
    definition = graph.as_graph_def()
    nodes = [
        *definition.node,
        *(n for function in definition.library.function for n in function.node_def),
    ]
    findings = sorted(
        {f"{n.op}: {n.name}" for n in nodes if n.op in _HIDDEN_RANDOM_OPS}
    )
    if findings:
        raise CheckpointError(
            "The train step draws random numbers from generators of TensorFlow that "
            "cannot be saved:",
            findings=findings,
            fix="use keras.random, with a keras.random.SeedGenerator as seed.",
        )
    return list(graph.variables)


def _listed(model: Any, captured: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Every variable once, with a key that is the same in each process."""
    optimizers = optimizers_of(model)
    groups = {
        "model": model.variables,
        "metrics": model.metrics_variables,
        **{f"optimizer_{i}": each.variables for i, each in enumerate(optimizers)},
        "others": captured,
    }
    seen: set[int] = set()
    for group, variables in groups.items():
        index = 0
        for variable in variables:
            held = getattr(variable, "value", variable)
            held = variable if callable(held) else held
            if id(held) not in seen:
                seen.add(id(held))
                yield f"{group}/{index}", variable
                index += 1


def _path(variable: Any) -> str:
    return str(getattr(variable, "path", variable.name))


def _dtype(variable: Any) -> str:
    return str(keras.backend.standardize_dtype(variable.dtype))


def describe_training(model: Any) -> bytes:
    """What of a model and its compilation two runs must have in common, as JSON.

    Args:
        model: The compiled model.

    Returns:
        The configs, as far as there are any.
    """
    described = {
        "model": _config(lambda: keras.saving.serialize_keras_object(model)),
        "compile": _config(model.get_compile_config),
    }
    return json.dumps(described, sort_keys=True).encode("utf-8")


def _config(get: Callable[[], Any]) -> Any:
    """What a config method gives, as JSON has it; None if it gives none."""
    try:
        return json.loads(json.dumps(get()))
    except Exception:  # Config methods are the user's code.
        return None


def differences(before: bytes, after: bytes) -> list[str]:
    """Compares two descriptions.

    Names that Keras numbers and seeds that it draws say nothing.

    Args:
        before: A description.
        after: Another one.

    Returns:
        What differs, a line each.
    """
    findings = []
    waiting = [("", json.loads(before), json.loads(after))]
    while waiting:
        path, old, new = waiting.pop()
        if isinstance(old, dict) and isinstance(new, dict):
            keys = sorted((old.keys() | new.keys()) - {"seed"}, reverse=True)
            waiting += [(f"{path}.{k}", old.get(k), new.get(k)) for k in keys]
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            pairs = enumerate(zip(old, new, strict=True))
            waiting += [(f"{path}[{i}]", a, b) for i, (a, b) in reversed(list(pairs))]
        elif _plain(old) != _plain(new):
            findings.append(f"{path[1:]}: {_short(old)} before, {_short(new)} now")
    return findings


def _plain(value: Any) -> Any:
    return _NUMBER.sub("", value) if isinstance(value, str) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
