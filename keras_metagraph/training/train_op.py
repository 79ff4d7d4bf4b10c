"""The optimizer of a model that trains with the update ops of its own graph."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_metagraph.errors import MetaGraphError


@keras.saving.register_keras_serializable("keras_metagraph")
class TrainOp(keras.optimizers.Optimizer):
    """Stands for the `train_op` of a loaded graph.

    A model compiled with it runs the operations of the graph itself (gradients,
    clipping, slots, schedules, moving averages), as `Session.run(train_op)` did. Its
    `iterations` are the graph's global step.

    Args:
        operations: Names of the operations that one training step runs. Operations in
            one list run in one go, as in one `Session.run`; the members of the outer
            list run one after the other.
        loss: Name of the loss tensor, as `fit` reports it; or one name for each of the
            runs. Those after the first are reported by their own names.
        name: Name of the optimizer.

    Example:
        ```python
        model = keras_metagraph.load_from_meta_graph("run/model-1000")
        model.fit(x, y)                        # the graph's own train op
        model.compile("adam", "mse")           # from here on Keras trains
        ```
    """

    def __init__(
        self,
        operations: Sequence[str | Sequence[str]],
        loss: str | Sequence[str | None] | None = None,
        name: str = "train_op",
    ) -> None:
        # The rate lives in the graph; Keras wants to hold one.
        super().__init__(learning_rate=0.0, name=name)
        self.runs = tuple(
            (run,) if isinstance(run, str) else tuple(run) for run in operations
        )
        losses = [loss] if loss is None or isinstance(loss, str) else list(loss)
        losses += [None] * (len(self.runs) - len(losses))
        self.losses = tuple(losses)
        self._global_step: Any = None
        self.built = True

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of all operations that a step runs."""
        return tuple(name for run in self.runs for name in run)

    @property
    def loss(self) -> str | None:
        """Name of the loss tensor of the first run."""
        return self.losses[0] if self.losses else None

    def bind(self, global_step: Any) -> None:
        """Takes the model's global step variable as `iterations`."""
        # Not tracked: the variable belongs to the model.
        object.__setattr__(self, "_global_step", global_step)

    @property
    def iterations(self) -> Any:
        """The graph's global step; this optimizer's own count where it has none."""
        return self._iterations if self._global_step is None else self._global_step

    @property
    def counts_itself(self) -> bool:
        """Whether the graph has no global step, so that the model counts the steps."""
        return self._global_step is None

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Refuses: the graph computes its own gradients.

        Raises:
            MetaGraphError: Always.
        """
        raise MetaGraphError(
            "The model is compiled with the train op of its graph, which takes no "
            "gradients from outside.",
            fix='call model.compile("adam", loss=...) to train it with Keras.',
        )

    def get_config(self) -> dict[str, Any]:
        """The names of the operations and of the loss."""
        return {
            "operations": [list(run) for run in self.runs],
            "loss": list(self.losses),
            "name": self.name,
        }
