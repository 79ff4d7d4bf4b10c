"""What a graph offers to a Keras model: the result of the inference."""

import dataclasses
from typing import Any


@dataclasses.dataclass
class Interface:
    """Which tensors and operations of a graph play which part.

    Tensors are named `node:index`, operations `node`. All values are plain Python, so
    that `dataclasses.asdict` gives what JSON can hold.

    Attributes:
        inputs: Tensors that are fed with the model's inputs, by input name.
        outputs: Tensors that the model returns, by output name.
        labels: Tensors that are fed with the `y` of `fit`, by label name.
        loss: The loss that the graph's own training minimizes.
        train_op: Operations that one training step runs.
        training_values: Tensors that are fed with a value when training, and with
            another one otherwise: flags, dropout rates, constants of the caller.
        updates: Operations or tensors to run beside a training step (moving averages
            of batch normalization); they need nothing but inputs.
        losses: Regularization losses; they need nothing but inputs.
        unfed: Placeholders that outputs or train op need and whose value nobody knows.
        unfed_outputs: Those of `unfed` that the outputs need.
        signature: Name of the signature that gave inputs and outputs.
        alternatives: What was found but not chosen, by part (`"outputs"`, `"loss"`,
            `"train_op"`).
        reasons: Why each name was chosen, by tensor or operation name; by part where
            nothing was found.
        warnings: What the caller should know before relying on it.
        dropped: What the file refers to but does not have.
    """

    inputs: dict[str, str] = dataclasses.field(default_factory=dict)
    outputs: dict[str, str] = dataclasses.field(default_factory=dict)
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    loss: str | None = None
    train_op: list[str] = dataclasses.field(default_factory=list)
    training_values: dict[str, tuple[Any, Any]] = dataclasses.field(
        default_factory=dict
    )
    updates: list[str] = dataclasses.field(default_factory=list)
    losses: list[str] = dataclasses.field(default_factory=list)
    unfed: list[str] = dataclasses.field(default_factory=list)
    unfed_outputs: list[str] = dataclasses.field(default_factory=list)
    signature: str | None = None
    alternatives: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    dropped: list[str] = dataclasses.field(default_factory=list)
