"""Runs one piece of work at a time in the background, and hands its error over."""

import threading
import warnings
import weakref
from collections.abc import Callable

_UNDER_WAY: set[threading.Thread] = set()


class BackgroundWork:
    """Work in a thread of its own.

    The interpreter waits for it when it exits. After a fork the child has no work under
    way. An error that nobody waited for is a warning at the end.

    Example:
        >>> work = BackgroundWork()
        >>> work.start(lambda: None)
        >>> work.wait()
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._errors: list[BaseException] = []
        weakref.finalize(self, _report, self._errors)

    def start(self, action: Callable[[], None]) -> None:
        """Starts a piece of work, when the one before it is done.

        Args:
            action: The work.

        Raises:
            BaseException: What the one before raised; the new one is not started then.
        """
        self.wait()
        errors = self._errors

        def run() -> None:
            try:
                action()
            except BaseException as error:
                errors.append(error)
            finally:
                _UNDER_WAY.discard(threading.current_thread())

        self._thread = threading.Thread(
            target=run, name="keras_metagraph", daemon=False
        )
        _UNDER_WAY.add(self._thread)
        self._thread.start()

    def settle(self) -> bool:
        """Waits until the work is done, in any thread; says whether it came off."""
        thread = self._thread
        if thread is not None:
            thread.join()
        return not self._errors

    def wait(self) -> None:
        """Waits until the work is done.

        Raises:
            BaseException: What it raised.
        """
        self.settle()
        self._thread = None
        if self._errors:
            raise self._errors.pop()


def wait_for_all() -> None:
    """Waits until no work of this process is under way, whatever comes of it."""
    for thread in list(_UNDER_WAY):
        thread.join()


def _report(errors: list[BaseException]) -> None:
    """Says what went wrong and was never asked for."""
    for error in errors:
        warnings.warn(f"A save in the background failed. {error}", stacklevel=2)
    errors.clear()
