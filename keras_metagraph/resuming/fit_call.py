"""The `fit` that a callback runs in: its data, its other callbacks, its first epoch.

Keras tells a callback the model, and none of these. They are read from the frames that
call the callback: those of `keras.callbacks.CallbackList`, whose attribute `callbacks`
is public, and of `fit`, by the public names of its parameters. `_initial_epoch` is what
Keras's own `BackupAndRestore` sets; there is no public name for it. Nothing else of
the package looks into Keras.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras


class FitCall:
    """One call of `fit`.

    Args:
        model: The model.
        callback_list: The list that calls the callbacks.
        arguments: What `fit` has, by the names of its parameters.

    Attributes:
        model: The model.
        callbacks: The callbacks, in the order in which they are called.
    """

    def __init__(
        self, model: Any, callback_list: Any, arguments: dict[str, Any]
    ) -> None:
        self.model = model
        self.callbacks: list[Any] = list(callback_list.callbacks)
        self._list = callback_list
        self._arguments = {
            name: arguments.get(name) for name in ("x", "steps_per_epoch", "batch_size")
        }

    @property
    def data(self) -> Any:
        """What `fit` trains on: its parameter `x`."""
        return self._arguments["x"]

    @property
    def steps_per_epoch(self) -> int | None:
        """The parameter `steps_per_epoch`."""
        return self._arguments.get("steps_per_epoch")

    @property
    def batch_size(self) -> int | None:
        """The parameter `batch_size`."""
        return self._arguments.get("batch_size")

    def call_only(self, callbacks: Sequence[Any]) -> None:
        """Lets Keras call only these from its next event on."""
        self._list.callbacks = list(callbacks)

    def call_all(self) -> None:
        """Lets Keras call every callback again."""
        self._list.callbacks = list(self.callbacks)

    def call_last(self, callback: Any) -> None:
        """Lets Keras call one callback after all others, from its next event on."""
        others = [each for each in self.callbacks if each is not callback]
        self._list.callbacks = [*others, callback]

    def start_at(self, epoch: int) -> None:
        """Lets the epochs begin at this one."""
        self.model._initial_epoch = epoch

    def start_as_usual(self) -> None:
        """Lets the epochs of the next `fit` begin where its arguments say."""
        self.model._initial_epoch = None


def find_fit(callback: Any, model: Any) -> FitCall | None:
    """Finds the `fit` that calls a callback's `set_model`.

    Args:
        callback: The callback.
        model: The model.

    Returns:
        The call, or None: some other program calls the callback.
    """
    callback_list = None
    for frame in _callers():
        owner = frame.f_locals.get("self")
        if callback_list is None:
            if isinstance(owner, keras.callbacks.CallbackList) and any(
                each is callback for each in owner.callbacks
            ):
                callback_list = owner
        elif owner is model and frame.f_code.co_name == "fit":
            return FitCall(model, callback_list, dict(frame.f_locals))
    return None


def _callers() -> Iterator[Any]:
    """The frames of the callers, the nearest first."""
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back
