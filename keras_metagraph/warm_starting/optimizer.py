"""Finds the state of a model's optimizer beside the weights that it belongs to.

The slots of a weight follow it under whatever name the file has it: where `new/kernel`
comes from `old/kernel`, its first moment comes from `old/kernel/Adam`.
"""

import dataclasses
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_metagraph.export.names import GLOBAL_STEP, named_variables
from keras_metagraph.export.object_graph import OBJECT_GRAPH_KEY, find_variables
from keras_metagraph.loading.infer.checkpoint_optimizers import describe_checkpoint
from keras_metagraph.training.optimizers import OptimizerGroup
from keras_metagraph.training.rules import rule_of, slot_suffixes
from keras_metagraph.training.slots import optimizer_slots
from keras_metagraph.warm_starting.findings import Findings
from keras_metagraph.warm_starting.sources import Source, object_graph
from keras_metagraph.warm_starting.structure import by_structure
from keras_metagraph.warm_starting.targets import Target, Targets, held_by
from keras_metagraph.warm_starting.transfers import Transfer

# Canned estimators before 1.14 called the slots of whole variables as if of parts.
_PARTS = ("", "/part_0", "/t_0")
# What Keras 2 called the slots that Keras 3 has, in graphs (`training/Adam/w/m`) and in
# checkpoints by objects. They hold the same values.
_KERAS_2 = {
    "Adadelta": {
        "accumulated_grad": "accum_grad",
        "accumulated_delta_var": "accum_var",
    },
    "Adagrad": {"accumulator": "accumulator"},
    "Adam": {"momentum": "m", "velocity": "v", "velocity_hat": "vhat"},
    "Adamax": {"momentum": "m", "norm": "v"},
    "Ftrl": {"accumulator": "accumulator", "linear": "linear"},
    "RMSprop": {"velocity": "rms", "momentum": "momentum", "average_gradient": "mg"},
    "SGD": {"momentum": "momentum"},
}
# The fused ops of optimizers that `describe_checkpoint` has another name for.
_OPS = {
    "Ftrl": frozenset({"Ftrl", "FtrlV2"}),
    "LazyAdam": frozenset({"Adam"}),
    "RMSProp": frozenset({"RMSProp", "CenteredRMSProp"}),
    "keras SGD with momentum": frozenset({"KerasMomentum"}),
}
_NUMBER = re.compile(r"_\d+$")

# Slots by Keras's names and what is not certain of them, by the name of the weight.
Described = dict[str, tuple[dict[str, str], str]]


def plan_optimizer(
    plans: Sequence[Transfer], source: Source, targets: Targets, findings: Findings
) -> list[Transfer]:
    """Plans what the variables of the optimizer get.

    Args:
        plans: The transfers of the weights.
        source: Where the tensors are.
        targets: The variables of the model.
        findings: Gets what is missing.

    Returns:
        Transfers for the slots of these weights, the iterations, and what else the
        optimizer keeps. The learning rate stays where the file has none.
    """
    optimizer = getattr(targets.model, "optimizer", None)
    if optimizer is None:
        findings.problem("optimizer=True: the model is not compiled with an optimizer")
        return []
    if not optimizer.built:
        optimizer.build(targets.model.trainable_variables)
    own = {
        id(v.variable): Target(v.name, v.path, v.path, v.variable, trainable=False)
        for v in named_variables(targets.model)
        if v.role == "optimizer"
    }
    found = _by_structure(optimizer, own, source, targets)
    if found:
        return found
    return _ByName(optimizer, own, source, targets, findings).transfers(plans)


def _by_structure(
    optimizer: Any, own: dict[int, Target], source: Source, targets: Targets
) -> list[Transfer]:
    """The state of an optimizer in a file that has the structure of the whole model."""
    if not by_structure(source, targets):
        return []
    if source.reader is not None and OBJECT_GRAPH_KEY in source.reader:
        live = {id(held_by(t.variable)): t.name for t in own.values()}
        roots = [targets.model, optimizer]
        names = find_variables(object_graph(source.reader), roots, live, {})
    else:
        names = {
            own[id(variable)].name: f"optimizer/vars/{index}"
            for index, variable in enumerate(optimizer.variables)
            if id(variable) in own
        }
    stored = {name: source.find(key) for name, key in names.items()}
    # Another class of optimizer may have as many variables.
    kinds = {_NUMBER.sub("", str(name).partition("/")[0]) for name in stored.values()}
    if len(stored) < len(own) or not kinds <= {_base_name(optimizer), "optimizer"}:
        return []
    return [
        _copy(target, str(stored[target.name]), "structure of the file", source)
        for target in own.values()
    ]


def _copy(target: Target, name: str, how: str, source: Source) -> Transfer:
    tensor = source.tensors[name]
    return Transfer((target,), (name,), how, (tensor.shape,), tensor.dtype)


def _singles(optimizer: Any) -> list[Any]:
    """The optimizers that keep the slots: those of a group, or of loss scaling."""
    if isinstance(optimizer, OptimizerGroup):
        return list(optimizer.optimizers)
    return [getattr(optimizer, "inner_optimizer", optimizer)]


def _base_name(optimizer: Any) -> str:
    """An optimizer's name without the number of its kind in this process."""
    return _NUMBER.sub("", str(optimizer.name))


def _without_number(name: str) -> str:
    """A name without the number of its outermost scope: `adam_1/iteration`."""
    outer, slash, rest = name.partition("/")
    return f"{_NUMBER.sub('', outer)}{slash}{rest}" if slash else name


class _ByName:
    """Finds the state of an optimizer by names that follow those of the weights."""

    def __init__(
        self,
        optimizer: Any,
        own: dict[int, Target],
        source: Source,
        targets: Targets,
        findings: Findings,
    ) -> None:
        self._optimizer = optimizer
        self._own = own
        self._source = source
        self._findings = findings
        self._owners = {
            id(variable): single
            for single in _singles(optimizer)
            for variable in single.variables
        }
        self._described: dict[int, Described] = {}
        self._numbered = {_without_number(name): name for name in source.tensors}
        slots = optimizer_slots(optimizer, [t.variable for t in targets.all])
        self._slots = {
            target.name: held for target, held in zip(targets.all, slots, strict=True)
        }

    def transfers(self, plans: Sequence[Transfer]) -> list[Transfer]:
        """The transfers of all slots, and of what belongs to no weight."""
        self._described = {
            id(single): self._describe(plans, single)
            for single in _singles(self._optimizer)
        }
        found: list[Transfer] = []
        for plan in plans:
            held = [self._slots.get(target.name) or {} for target in plan.targets]
            for slot in held[0]:
                if not plan.moves_slots:
                    self._findings.conflict(
                        f"{plan.targets[0].name}: its {slot} has no values for the "
                        "entries that are new in the vocabulary"
                    )
                    continue
                variables = tuple(self._own[id(own[slot])] for own in held)
                found += self._slot(plan, slot, variables)
        slots = {id(v) for own in self._slots.values() for v in own.values()}
        for key, target in self._own.items():
            if key not in slots:
                found += self._single(target)
        return found

    def _slot(
        self, plan: Transfer, slot: str, variables: tuple[Target, ...]
    ) -> Iterator[Transfer]:
        """One slot of a weight, or of all the weights of a transfer."""
        weights = plan.slots_of or plan.sources
        owner = self._owners[id(variables[0].variable)]
        names = [self._slot_name(name, slot, owner) for name in weights]
        notes = ""
        if None in names and len(names) == 1:
            described, notes = self._described[id(owner)].get(weights[0], ({}, ""))
            names = [described.get(slot)]
        stored = tuple(name for name in names if name is not None)
        if len(stored) < len(names):
            for target in variables:
                self._findings.lacks(target, target.name, self._source)
            return
        yield dataclasses.replace(
            plan,
            targets=variables,
            sources=stored,
            how=f"{slot} of {' + '.join(weights)}",
            dtype=self._source.tensors[stored[0]].dtype,
            convert=plan.convert_slots or plan.convert,
            note=notes,
        )

    def _slot_name(self, weight: str, slot: str, owner: Any) -> str | None:
        """The tensor that holds a slot of a weight, whatever wrote the file."""
        name, kind = _base_name(owner), type(owner).__name__
        candidates = [f"{name}/{weight.replace('/', '_')}_{slot}"]
        suffix = slot_suffixes(owner).get(slot)
        if suffix:
            candidates += [f"{weight}{part}/{suffix}" for part in _PARTS]
        keras_2 = _KERAS_2.get(kind, {}).get(slot)
        if keras_2:
            candidates += [
                f"{scope}{kind}/{weight}/{keras_2}" for scope in ("training/", "")
            ]
        candidates.append(f"{name}/{weight}/{slot}")
        for candidate in candidates:
            found = self._find(candidate)
            if found is not None:
                return found
        return None

    def _describe(self, plans: Sequence[Transfer], optimizer: Any) -> Described:
        """Slots by weight, of an optimizer of this kind whatever it was called.

        A program may have given it a name or a scope, and Keras 2 gave its slots none.
        """
        rule = rule_of(optimizer)
        if rule is None:
            return {}
        tensors = self._source.tensors
        keys = {name: [name, *tensor.aliases][-1] for name, tensor in tensors.items()}
        names = {key: name for name, key in keys.items()}
        shapes = {key: tensors[name].shape for name, key in keys.items()}
        trained = [
            keys[name]
            for plan in plans
            if plan.targets[0].trainable
            for name in plan.slots_of or plan.sources
        ]
        found: dict[str, list[tuple[dict[str, str], str]]] = {}
        for description in describe_checkpoint(shapes, trained):
            known = _OPS.get(description.name, frozenset({description.name}))
            if rule.op not in known:
                continue
            for variable, roles in description.slots.items():
                slots = {
                    rule.slots[role]: names[key]
                    for role, key in roles.items()
                    if role in rule.slots
                }
                notes = "; ".join(description.notes)
                found.setdefault(names[variable], []).append((slots, notes))
        # Of two optimizers of one kind nothing says which it is.
        return {name: held[0] for name, held in found.items() if len(held) == 1}

    def _find(self, name: str) -> str | None:
        """A tensor of a name, whatever number the optimizer had in its process."""
        return self._source.find(name) or self._numbered.get(_without_number(name))

    def _single(self, target: Target) -> Iterator[Transfer]:
        """A variable of the optimizer that belongs to no weight."""
        if target.variable is self._optimizer.iterations or target.path.endswith(
            "/iteration"
        ):
            yield from self._iterations(target)
            return
        for candidate in (target.name, target.path):
            name = self._find(candidate)
            if name is not None:
                yield _copy(target, name, "name", self._source)
                return
        if not target.path.endswith("/learning_rate"):
            self._findings.lacks(target, target.name, self._source)

    def _iterations(self, target: Target) -> Iterator[Transfer]:
        """The step: a counter, or what the powers of Adam's betas say."""
        # `TFKerasAdam` of this package is Adam as tf.keras had it.
        owner = type(self._owners.get(id(target.variable))).__name__
        kind = owner.removeprefix("TFKeras")
        candidates = (
            target.name,
            target.path,
            f"training/{kind}/iter",
            f"{kind}/iter",
            GLOBAL_STEP,
        )
        stored = [self._find(name) for name in candidates]
        counter = next((name for name in stored if name is not None), None)
        counted = self._counted()
        if counter is None and counted is None:
            self._findings.lacks(target, target.name, self._source)
            return
        power, steps = counted or ("", 0)
        if counter is None:
            # Keras counts the steps whose number the power of beta says.
            yield self._step(target, power, "power of beta", steps)
            return
        value = int(self._source.read(counter))
        if counted and steps != value:
            warnings.warn(
                f"{counter!r} says {value} steps, and {power!r} says {steps}: Keras "
                f"counts in one variable, which gets {value}. Its bias correction goes "
                "on from there.",
                stacklevel=8,
            )
        yield self._step(target, counter, "counter of steps", value)

    def _step(self, target: Target, name: str, how: str, value: int) -> Transfer:
        counter = np.asarray(value, target.dtype)
        shape, dtype = (), target.dtype
        return Transfer(
            (target,), (name,), how, (shape,), dtype, lambda arrays: [counter]
        )

    def _counted(self) -> tuple[str, int] | None:
        """How many steps the powers of Adam's betas say, while they are numbers."""
        for power, beta in (("beta2_power", "beta_2"), ("beta1_power", "beta_1")):
            name = self._source.find(power)
            decay = getattr(self._optimizer, beta, None)
            if name is None or not isinstance(decay, float) or not 0 < decay < 1:
                continue
            value = float(self._source.read(name))
            # Denormal numbers are flushed to zero, and say nothing.
            if np.finfo(np.float32).tiny < value < 1:
                return name, round(math.log(value) / math.log(decay)) - 1
        return None
