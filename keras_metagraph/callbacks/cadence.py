"""When a callback saves: after epochs, batches or seconds, or if a metric is better."""

import math
import re
import time
import warnings
from collections.abc import Mapping
from typing import Any

from keras_metagraph.errors import CheckpointError

# Parts of the names of metrics, and of their classes, by which way is better.
_LOWER = re.compile(
    "crossentropy|divergence|error|false|hinge|logcosh|loss|mae|mape|mse|msle"
    "|perplexity|poisson"
)
_HIGHER = re.compile(
    "acc|auc|cosine|f1|fbeta|iou|precision|r2|recall|sensitivity|specificity|true"
)


class Cadence:
    """Says when a save is due: after epochs, batches or seconds."""

    def __init__(self, save_freq: str | int, save_secs: float | None) -> None:
        counted = isinstance(save_freq, int) and not isinstance(save_freq, bool)
        if not (save_freq == "epoch" or (counted and int(save_freq) > 0)):
            raise CheckpointError(
                'save_freq is "epoch" or a number of batches above 0. '
                f"Received: save_freq={save_freq!r}",
                fix='leave it at "epoch", or pass a number.',
            )
        if save_secs is not None and (counted or save_secs < 0):
            raise CheckpointError(
                "save_secs is a number of seconds, and takes the place of save_freq. "
                f"Received: save_secs={save_secs!r}, save_freq={save_freq!r}",
                fix="pass one of the two.",
            )
        self.batches = int(save_freq) if counted else None
        self.seconds = save_secs
        self.per_epoch = not counted and save_secs is None
        self._last_batch = -1
        self._batches_since = 0
        self._started = 0.0

    def start(self) -> None:
        """Starts to count the seconds again."""
        self._started = time.monotonic()

    def count(self, batch: int) -> int:
        """Counts the batches up to this one; several where steps run in one go."""
        if batch <= self._last_batch:  # a new epoch
            self._last_batch = -1
        new = batch - self._last_batch
        self._last_batch = batch
        self._batches_since += new
        return new

    def get_state(self) -> tuple[int, int]:
        """Says what was counted."""
        return self._last_batch, self._batches_since

    def set_state(self, state: tuple[int, int]) -> None:
        """Goes on with what was counted."""
        self._last_batch, self._batches_since = state

    def is_due(self) -> bool:
        """Whether the batches or the seconds are up; then batches start again."""
        if self.batches is not None and self._batches_since >= self.batches:
            self._batches_since = 0
            return True
        return (
            self.seconds is not None
            and time.monotonic() - self._started >= self.seconds
        )


class Best:
    """Keeps the best value of a metric."""

    def __init__(self, monitor: str, mode: str, best: float | None) -> None:
        if mode not in ("auto", "min", "max"):
            raise CheckpointError(
                f'mode is "auto", "min" or "max". Received: mode={mode!r}',
                fix='leave it at "auto".',
            )
        self.monitor = monitor
        self.mode = mode
        self.best = best

    def improves(self, logs: Mapping[str, float], model: Any) -> bool:
        """Whether the new value is better; without a value the model is saved."""
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(
                f"save_best_only looks at {self.monitor!r}, which is not among the "
                f"metrics {sorted(logs)}. The model is saved each time.",
                stacklevel=5,
            )
            return True
        wants_more = self._direction(model) == "max"
        if math.isnan(current):
            return False
        if self.best is None:
            return True
        return current > self.best if wants_more else current < self.best

    def accept(self, logs: Mapping[str, float]) -> None:
        """Takes the value of a model that was saved."""
        self.best = logs.get(self.monitor, self.best)

    def _direction(self, model: Any) -> str:
        """Says whether more of the metric is better, or less."""
        if self.mode != "auto":
            return self.mode
        name = self.monitor.removeprefix("val_")
        kinds = [
            type(metric).__name__
            for group in getattr(model, "metrics", ())
            for metric in getattr(group, "metrics", (group,))
            if metric.name == name
        ]
        for text in (*kinds, name):
            for mode, pattern in (("min", _LOWER), ("max", _HIGHER)):
                if pattern.search(text.lower().replace("_", "")):
                    return mode
        raise CheckpointError(
            f"Whether more of {self.monitor!r} is better, or less, cannot be told by "
            "its name.",
            fix='pass mode="max" or mode="min".',
        )
