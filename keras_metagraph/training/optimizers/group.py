"""One Keras optimizer made of several, each for some of the weights."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.errors import MetaGraphError, nearest


@keras.saving.register_keras_serializable("keras_metagraph")
class OptimizerGroup(keras.optimizers.Optimizer):
    """Several optimizers that take a step together, as wide and deep models have them.

    Clipping, moving averages and gradient accumulation are settings of the single
    optimizers; each sees only its own variables.

    Args:
        optimizers: Optimizers of Keras, of this package, or both.
        assignments: By the path of each variable, `"wide/kernel"`, the index of its
            optimizer; a list of indices where several train it in turn. Then each is
            applied by itself, `group.optimizers[i].apply(...)`.
        name: Name of the group.

    Attributes:
        optimizers: Them; each has its own `iterations`, which go with the group's.
        learning_rate: That of the first optimizer. It cannot be set: a callback that
            does so would mean one of them; set `group.optimizers[i].learning_rate`.
        variables: `iterations` of the group, then the variables of each optimizer.

    Raises:
        MetaGraphError: If an index is out of range, if an optimizer scales the loss in
            another way than the first, or, as soon as the group is built, if a variable
            has no optimizer.

    Example:
        ```python
        group = OptimizerGroup(
            [TF1Ftrl(0.2), TF1Adagrad(0.05)],
            {v.path: int("deep" in v.path) for v in model.trainable_variables},
        )
        model.compile(group, "mse")
        ```
    """

    def __init__(
        self,
        optimizers: Sequence[Any],
        assignments: Mapping[str, int | Sequence[int]],
        name: str | None = None,
    ) -> None:
        _check(optimizers, assignments)
        super().__init__(
            # A function, as Keras makes a variable of a float.
            learning_rate=lambda: optimizers[0].learning_rate,
            loss_scale_factor=optimizers[0].loss_scale_factor,
            name=name,
        )
        self.optimizers = list(optimizers)
        self.assignments = dict(assignments)
        self._indices = {path: _listed(each) for path, each in assignments.items()}

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the slots of the variables in their optimizers."""
        if self.built:
            return
        unknown = [
            path for path in map(_path, variables) if path not in self.assignments
        ]
        if unknown:
            raise MetaGraphError(
                "Some variables have no optimizer in the group.",
                findings=[f"{p}{nearest(p, self.assignments)}" for p in unknown],
                fix="name them in `assignments`, by their paths.",
            )
        super().build(variables)
        for optimizer, own in self._parts(variables):
            optimizer.build([variable for variable, _ in own])

    @property
    def variables(self) -> list[Any]:
        """The count of the steps, then the variables of each optimizer."""
        inner = (v for optimizer in self.optimizers for v in optimizer.variables)
        return [*super().variables, *inner]

    @property
    def takes_turns(self) -> bool:
        """Whether several of the optimizers train the same variable."""
        return any(len(indices) > 1 for indices in self._indices.values())

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the first optimizer."""
        return self.optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        raise MetaGraphError(
            "A group of optimizers has no learning rate of its own to set.",
            fix="set `group.optimizers[i].learning_rate`.",
        )

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Applies each gradient by the optimizer of its variable.

        Raises:
            MetaGraphError: If a variable has several optimizers.
        """
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        trainable_variables = list(trainable_variables)
        self.build(trainable_variables)
        shared = [
            p for p in map(_path, trainable_variables) if len(self._indices[p]) > 1
        ]
        if shared:
            raise MetaGraphError(
                "Several optimizers of the group train these variables in turn.",
                findings=shared,
                fix="apply the one whose turn it is: `group.optimizers[i].apply(...)`.",
            )
        for optimizer, own in self._parts(trainable_variables, list(grads)):
            optimizer.apply([g for _, g in own], [variable for variable, _ in own])
        self.iterations.assign_add(1)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets `variables`, in their order."""
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Lets each optimizer overwrite its variables, as `use_ema` does."""
        # Keras passes all that a model could train, also what nothing trains.
        known = [v for v in var_list if _path(v) in self.assignments]
        for optimizer, own in self._parts(known):
            optimizer.finalize_variable_values([variable for variable, _ in own])

    def get_config(self) -> dict[str, Any]:
        """The optimizers with their settings, and the assignments."""
        return {
            "optimizers": [
                keras.saving.serialize_keras_object(optimizer)
                for optimizer in self.optimizers
            ],
            "assignments": dict(self.assignments),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Creates the group from `get_config()`."""
        optimizers = [
            keras.saving.deserialize_keras_object(each, custom_objects=custom_objects)
            for each in config["optimizers"]
        ]
        return cls(**{**config, "optimizers": optimizers})

    def _parts(
        self, variables: Sequence[Any], values: Sequence[Any] | None = None
    ) -> Iterator[tuple[Any, list[tuple[Any, Any]]]]:
        """Each optimizer that has variables, with these and their values."""
        pairs = list(zip(variables, values or [None] * len(variables), strict=True))
        for index, optimizer in enumerate(self.optimizers):
            own = [pair for pair in pairs if index in self._indices[_path(pair[0])]]
            if own:
                yield optimizer, own


def _path(variable: Any) -> str:
    """The name of a variable in `assignments`."""
    return str(getattr(variable, "path", variable.name))


def _listed(indices: int | Sequence[int]) -> tuple[int, ...]:
    return (indices,) if isinstance(indices, int) else tuple(indices)


def _check(
    optimizers: Sequence[Any], assignments: Mapping[str, int | Sequence[int]]
) -> None:
    """Refuses what cannot be a group."""
    factors = {optimizer.loss_scale_factor for optimizer in optimizers}
    findings = [
        f"{path}: optimizer {index} of {len(optimizers)}"
        for path, indices in assignments.items()
        for index in _listed(indices)
        if not 0 <= index < len(optimizers)
    ]
    if len(factors) > 1:
        findings.append(f"loss_scale_factor: {sorted(factors, key=str)}")
    if findings or not optimizers:
        raise MetaGraphError(
            "These optimizers do not make a group.",
            findings=findings,
            fix="give at least one optimizer, the index of one for each variable, and "
            "one loss_scale_factor to all.",
        )
