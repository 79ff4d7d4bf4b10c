"""The loss of a model whose graph computes the loss itself."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.errors import MetaGraphError


@dataclasses.dataclass(frozen=True)
class LossStep:
    """One run of a graph's training, and what it means.

    Attributes:
        loss: Name of the loss tensor, as it is reported.
        variables: Names of the variables that are trained.
        operations: Names of the operations that the graph runs to train them. What
            they do beside the update itself (moving averages, step counters) is done
            in a step of Keras too.
        parts: Where the run minimizes several losses at a time: these, each with the
            variables that it trains.
    """

    loss: str
    variables: tuple[str, ...]
    operations: tuple[str, ...] = ()
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def gradients(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The losses to differentiate, each with the variables that it trains."""
        return self.parts or ((self.loss, self.variables),)


@keras.saving.register_keras_serializable("keras_metagraph")
class GraphLoss(keras.losses.Loss):
    """Stands for the loss tensors of a loaded graph, regularization included.

    A model compiled with it and a Keras optimizer differentiates the graph's own loss
    by the variables that the graph trains. Where the graph has several train ops (a
    GAN), one step minimizes their losses in turn.

    Args:
        steps: The losses, in the order in which they are minimized: `LossStep`, or
            dicts of their fields.
        name: Name of the loss.

    Example:
        ```python
        model = keras_metagraph.load_from_meta_graph("run/model-1000")
        model.compile(model.meta_graph.optimizer(), loss=model.meta_graph.loss())
        model.fit(x, y)
        ```
    """

    def __init__(
        self,
        steps: Sequence[LossStep | Mapping[str, Any]],
        name: str = "graph_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.steps = tuple(
            step if isinstance(step, LossStep) else _loss_step(**step) for step in steps
        )

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the variables that are trained, each once."""
        names = (name for step in self.steps for name in step.variables)
        return tuple(dict.fromkeys(names))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Refuses: the loss is not a function of labels and predictions alone.

        Raises:
            MetaGraphError: Always.
        """
        losses = [step.loss for step in self.steps]
        raise MetaGraphError(
            f"{losses} are computed by the graph of a loaded model, which this model "
            "is not.",
            fix="compile the model that load_from_meta_graph returned, or use a loss "
            "of Keras.",
        )

    def get_config(self) -> dict[str, Any]:
        """The names of tensors and variables."""
        config: dict[str, Any] = super().get_config()
        config["steps"] = [dataclasses.asdict(step) for step in self.steps]
        return config


def _loss_step(
    loss: str,
    variables: Sequence[str],
    operations: Sequence[str] = (),
    parts: Sequence[tuple[str, Sequence[str]]] = (),
) -> LossStep:
    pairs = tuple((name, tuple(trained)) for name, trained in parts)
    return LossStep(loss, tuple(variables), tuple(operations), pairs)
