"""Describes optimizers by the keys of a checkpoint, where there is no graph.

Names are all there is then: those of `tf.train` slots (`dense/kernel/Adam_1`), of
tf.keras in TensorFlow 1 graphs (`training/Adam/dense/kernel/v`) and of object-based
checkpoints (`.../.OPTIMIZER_SLOT/optimizer/v/...`). With a graph, `describe_optimizer`
knows better.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Shape = tuple[int, ...]

_NUMBER = re.compile(r"_\d+$")
_OBJECT_SLOT = re.compile(
    r"(?P<variable>.*)/\.OPTIMIZER_SLOT/(?P<optimizer>.*)/(?P<slot>[^/]+)"
    r"/\.ATTRIBUTES/VARIABLE_VALUE"
)
_PART = re.compile(r"/(?:part|t)_\d+$")  # canned estimators, before 1.14
_OBJECT_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_POSITIONAL = re.compile(
    r"(?P<scope>.*/(?P<kind>[A-Z]\w*))/Variable(?:_(?P<place>\d+))?"
)
# By what `tf.train` puts behind a variable's name: the roles, in order of creation.
_TRAIN_SLOTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "AdaMax": ("AdaMax", ("m", "v")),
    "Adadelta": ("Adadelta", ("accum", "accum_update")),
    "Adagrad": ("Adagrad", ("accum",)),
    "AdagradDA": (
        "AdagradDA",
        ("gradient_accumulator", "gradient_squared_accumulator"),
    ),
    "Adam": ("Adam", ("m", "v")),
    "AdamW": ("Adam", ("m", "v")),
    "AdamWeightDecayOptimizer": ("BertAdamW", ("m", "v")),
    "AddSign": ("AddSign", ("m",)),
    "Ftrl": ("Ftrl", ("accum", "linear")),
    "LAMBOptimizer": ("LAMB", ("m", "v")),
    "LazyAdam": ("LazyAdam", ("m", "v")),
    "Momentum": ("Momentum", ("accum",)),
    "MomentumW": ("Momentum", ("accum",)),
    "Nadam": ("Nadam", ("m", "v")),
    "PowerSign": ("PowerSign", ("m",)),
    "ProximalAdagrad": ("ProximalAdagrad", ("accum",)),
    "RMSProp": ("RMSProp", ("ms", "mom")),
}
_CENTERED = ("ms", "mg", "mom")
# The slots of tf.keras, by the set of their names.
_KERAS_SLOTS: Mapping[frozenset[str], tuple[str, Mapping[str, str]]] = {
    frozenset({"m", "v"}): ("Adam", {"m": "m", "v": "v"}),
    frozenset({"m", "v", "vhat"}): (
        "keras Adam with amsgrad",
        {"m": "m", "v": "v", "vhat": "vhat"},
    ),
    frozenset({"adam_m", "adam_v"}): ("BertAdamW", {"adam_m": "m", "adam_v": "v"}),
    frozenset({"momentum"}): ("keras SGD with momentum", {"momentum": "accum"}),
    frozenset({"rms"}): ("keras RMSprop", {"rms": "rms"}),
    frozenset({"rms", "momentum"}): ("RMSProp", {"rms": "ms", "momentum": "mom"}),
    frozenset({"rms", "momentum", "mg"}): (
        "RMSProp",
        {"rms": "ms", "mg": "mg", "momentum": "mom"},
    ),
    frozenset({"accumulator"}): ("Adagrad", {"accumulator": "accum"}),
    frozenset({"accumulator", "linear"}): (
        "Ftrl",
        {"accumulator": "accum", "linear": "linear"},
    ),
    frozenset({"accum_grad", "accum_var"}): (
        "Adadelta",
        {"accum_grad": "accum", "accum_var": "accum_update"},
    ),
}
_KERAS_NAMES = frozenset(name for names in _KERAS_SLOTS for name in names)
_NAMED_LIKE_ADAM = {"Adamax": "AdaMax", "Nadam": "keras Nadam"}
# What Keras 2 keeps in variables without names, in order.
_POSITIONAL_SLOTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Adadelta": ("Adadelta", ("accum", "accum_update")),
    "Adagrad": ("Adagrad", ("accum",)),
    "Adam": ("Adam", ("m", "v")),
    "Adamax": ("AdaMax", ("m", "v")),
    "Nadam": ("keras Nadam", ("m", "v")),
    "RMSprop": ("keras RMSprop", ("rms",)),
    "SGD": ("keras SGD with momentum", ("accum",)),
}
_COUNTERS = ("global_step", "iter", "iterations", "iteration")
_SCALARS = {
    "beta_1": "beta1",
    "beta_2": "beta2",
    "decay": "decay",
    "learning_rate": "learning_rate",
    "lr": "learning_rate",
    "momentum": "momentum",
    "rho": "rho",
}


@dataclasses.dataclass(frozen=True)
class CheckpointOptimizer:
    """An optimizer as the keys of a checkpoint tell of it.

    Attributes:
        name: Its class, as `OptimizerDescription.name` has it.
        slots: The keys of the slots, by the variable's key and the slot's role; roles
            are arguments of the fused op (`UpdateRule.slots`).
        step: The key of the counter of steps.
        powers: The keys of powers of decays: `"beta1_power"`, `"beta2_power"`.
        scalars: The keys of hyper-parameters that are variables.
        notes: What is not certain.
    """

    name: str
    slots: dict[str, dict[str, str]]
    step: str | None = None
    powers: dict[str, str] = dataclasses.field(default_factory=dict)
    scalars: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def steps(
        self, values: Mapping[str, Any], beta1: float = 0.9, beta2: float = 0.999
    ) -> int | None:
        """How many updates the optimizer has made.

        Args:
            values: Arrays by key.
            beta1: The decay of the first moment, where it has powers.
            beta2: The decay of the second.

        Returns:
            The number, from the powers where they tell and agree with each other, else
            from the counter; `None` where nothing tells it.
        """
        found = []
        for name, base in (("beta2_power", beta2), ("beta1_power", beta1)):
            if name in self.powers and self.powers[name] in values:
                power = float(np.asarray(values[self.powers[name]]).reshape(()))
                # Small floats are flushed to 0 by TensorFlow.
                if float(np.finfo(np.float32).tiny) < power < 1:
                    found.append(round(math.log(power) / math.log(base)) - 1)
        if found and len(set(found)) == 1:
            return found[0]
        if self.step is not None and self.step in values:
            return int(np.asarray(values[self.step]).reshape(()))
        return None


def describe_checkpoint(
    shapes: Mapping[str, Shape], variables: Sequence[str] = ()
) -> list[CheckpointOptimizer]:
    """Finds the optimizers whose state a checkpoint holds, by the names of its keys.

    Args:
        shapes: The shape of each tensor of the checkpoint, by key.
        variables: Keys of the trained variables in the order of the model. Keras 2 has
            no names for its slots, only this order; nothing else needs it.

    Returns:
        The optimizers, those with most slots first; none if it has no slots.

    Example:
        >>> reader = tf.train.load_checkpoint("run/model-1000")
        >>> (adam,) = describe_checkpoint(reader.get_variable_to_shape_map())
        >>> adam.slots["dense/kernel"]
        {'m': 'dense/kernel/Adam', 'v': 'dense/kernel/Adam_1'}
    """
    keys = _Keys({key: tuple(shape) for key, shape in shapes.items()})
    found = [
        *keys.by_objects(),
        *keys.by_positions(variables),
        *keys.by_keras(),
        *keys.by_train(),
    ]
    return sorted(found, key=lambda optimizer: -len(optimizer.slots))


class _Keys:
    """The keys of a checkpoint; each search takes those that it explains."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = shapes
        self._left = dict.fromkeys(sorted(shapes))

    def by_objects(self) -> Iterator[CheckpointOptimizer]:
        """Slots of object-based checkpoints."""
        found: dict[str, dict[str, dict[str, str]]] = {}
        for key in list(self._left):
            match = _OBJECT_SLOT.fullmatch(key)
            if match is None:
                continue
            del self._left[key]
            variable = match["variable"] + _OBJECT_VALUE
            slots = found.setdefault(match["optimizer"], {}).setdefault(variable, {})
            slots[match["slot"]] = key
        for path, variables in found.items():
            yield self._keras(variables, path, _OBJECT_VALUE)

    def by_keras(self) -> Iterator[CheckpointOptimizer]:
        """Slots of tf.keras: `training/Adam/w/m`, and `Adam/m/w` since 2.11."""
        found: dict[str, dict[str, dict[str, str]]] = {}
        for key in list(self._left):
            for scope, variable, slot in _keras_readings(key):
                same = self._shapes.get(variable) == self._shapes[key]
                if same and variable != key:
                    slots = found.setdefault(scope, {}).setdefault(variable, {})
                    slots[slot] = key
                    del self._left[key]
                    break
        for scope, variables in found.items():
            yield self._keras(variables, scope, "")

    def by_train(self) -> Iterator[CheckpointOptimizer]:
        """Slots of `tf.train`: `w/Adam`, `w/Adam_1`, with or without a scope before."""
        groups: dict[tuple[str, str], dict[str, list[str]]] = {}
        for key in self._left:
            head, _, tail = key.rpartition("/")
            variable = self._variable(head, key)
            if variable is None or tail in _COUNTERS:
                continue
            head = _PART.sub("", head)
            scope = head[: len(head) - len(variable)].strip("/")
            name = _NUMBER.sub("", tail)
            groups.setdefault((scope, name), {}).setdefault(variable, []).append(key)
        adams = 0
        for (scope, name), variables in groups.items():
            for part in _parts(name, variables):
                powers = self._powers(scope, adams) if part.name in _WITH_POWERS else {}
                adams += bool(powers)
                if name in _TRAIN_SLOTS or (powers and part.name == "Adam"):
                    step = self._counter("")
                    yield dataclasses.replace(part, powers=powers, step=step)

    def by_positions(self, variables: Sequence[str]) -> Iterator[CheckpointOptimizer]:
        """Slots of Keras 2: `training/Adam/Variable_7`."""
        scopes: dict[tuple[str, str], dict[int, str]] = {}
        for key in list(self._left):
            match = _POSITIONAL.fullmatch(key)
            if match is not None and match["kind"] in _POSITIONAL_SLOTS:
                places = scopes.setdefault((match["scope"], match["kind"]), {})
                places[int(match["place"] or 0)] = key
                del self._left[key]
        for (scope, kind), places in scopes.items():
            name, roles = _POSITIONAL_SLOTS[kind]
            ordered = [places[place] for place in sorted(places)]
            slots: dict[str, dict[str, str]] = {}
            for index, variable in enumerate(variables):
                keys = ordered[index :: len(variables)][: len(roles)]
                if [self._shapes[k] for k in keys] == [self._shapes[variable]] * len(
                    roles
                ):
                    slots[variable] = dict(zip(roles, keys, strict=True))
            notes = ["slots are told by their order alone"]
            if len(slots) < len(variables) or not variables:
                notes.append(
                    f"{len(ordered)} slots without names do not follow the order of "
                    f"{len(variables)} variables"
                )
                slots = {}
            yield CheckpointOptimizer(
                name,
                slots,
                self._counter(scope),
                {},
                self._scalars(scope),
                tuple(notes),
            )

    def _keras(
        self, variables: dict[str, dict[str, str]], scope: str, suffix: str
    ) -> CheckpointOptimizer:
        """The optimizer of tf.keras that has some slots."""
        names = frozenset(name for slots in variables.values() for name in slots)
        title, roles = _KERAS_SLOTS.get(names, ("", {name: name for name in names}))
        kind = _NUMBER.sub("", scope.rpartition("/")[2])
        notes = [] if title else [f"no optimizer is known with slots {sorted(names)}"]
        if title == "Adam" and kind in _NAMED_LIKE_ADAM:
            title = _NAMED_LIKE_ADAM[kind]
        elif title == "Adam" and suffix:
            notes.append("Adamax and Nadam have slots of these names, too")
        return CheckpointOptimizer(
            title,
            {
                v: {roles[n]: k for n, k in slots.items()}
                for v, slots in variables.items()
            },
            self._counter(scope, suffix),
            {},
            self._scalars(scope, suffix),
            tuple(notes),
        )

    def _counter(self, scope: str, suffix: str = "") -> str | None:
        """The counter of an optimizer, or that of the whole graph."""
        inside = [f"{scope}/{name}{suffix}".lstrip("/") for name in _COUNTERS]
        for key in [*inside, *_COUNTERS]:
            if self._shapes.get(key) == ():
                return key
        return None

    def _scalars(self, scope: str, suffix: str = "") -> dict[str, str]:
        keys = {name: f"{scope}/{name}{suffix}" for name in _SCALARS}
        kept = {name: key for name, key in keys.items() if self._shapes.get(key) == ()}
        return {_SCALARS[name]: key for name, key in kept.items()}

    def _variable(self, head: str, key: str) -> str | None:
        """The variable that a slot's name begins with, or ends with behind a scope."""
        head = _PART.sub("", head)
        while head:
            if head != key and self._shapes.get(head) == self._shapes[key]:
                return head
            head = head.partition("/")[2]
        return None

    def _powers(self, scope: str, place: int) -> dict[str, str]:
        """The powers of an Adam: those of its scope, or the next without number."""
        ending = f"_{place}" if place else ""
        for name in ("beta1_power", "beta2_power"):
            if self._shapes.get(f"{scope}/{name}".lstrip("/")) == ():
                ending = "" if scope else ending
        found = {}
        for name in ("beta1_power", "beta2_power"):
            named = [
                key
                for key in self._shapes
                if key.rpartition("/")[2] == name + ending and self._shapes[key] == ()
            ]
            inside = [key for key in named if key.startswith(scope)]
            if inside:
                found[name] = min(inside, key=len)
        return found


_WITH_POWERS = frozenset({"Adam", "AdaMax", "LazyAdam", "Nadam"})


def _parts(name: str, variables: Mapping[str, list[str]]) -> list[CheckpointOptimizer]:
    """The optimizers that have slots of one name: a second one counts on."""
    count = max(len(keys) for keys in variables.values())
    title, roles = _TRAIN_SLOTS.get(name, ("", ()))
    notes: tuple[str, ...] = ()
    if title == "RMSProp" and count % 3 == 0:
        roles = _CENTERED
    if not title:
        # `name=` was given to the optimizer; two slots and powers are Adam's.
        title, roles = ("Adam", ("m", "v")) if count == 2 else ("", ())
        notes = (f"the program called the optimizer {name!r}",)
    if not roles:
        return []
    parts = []
    for start in range(0, count, len(roles)):
        slots = {
            variable: dict(zip(roles, _in_order(keys)[start:], strict=False))
            for variable, keys in variables.items()
            if len(keys) > start
        }
        parts.append(CheckpointOptimizer(title, slots, notes=notes))
    return parts


def _in_order(keys: Sequence[str]) -> list[str]:
    """Slots in order of creation: `w/Adam`, `w/Adam_1`, ... `w/Adam_10`."""

    def number(key: str) -> int:
        found = _NUMBER.search(key)
        return int(found[0][1:]) if found else 0

    return sorted(keys, key=number)


def _keras_readings(key: str) -> Iterator[tuple[str, str, str]]:
    """Scope, variable and slot that a key may be made of."""
    parts = key.split("/")
    if parts[-1] in _KERAS_NAMES:
        for end in range(len(parts) - 1):
            yield "/".join(parts[:end]), "/".join(parts[end:-1]), parts[-1]
    for place in range(1, len(parts) - 1):
        if parts[place] in _KERAS_NAMES:
            head, tail = parts[:place], parts[place + 1 :]
            yield "/".join(head), "/".join(tail), parts[place]
