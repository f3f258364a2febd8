"""The guards of one system: circuit breakers around its components and the storage.

They live as long as the system's Capturer, whoever makes a Recovery of it.
"""

from __future__ import annotations

import sys
import threading
import weakref
from typing import Final

from ckptlog.capture.capturer import Capturer
from ckptlog.errors import CheckpointStorageError, CircuitOpenError, SourceError
from ckptlog.recovery.breaker import Breaker, BreakerSettings
from ckptlog.storage.fork import free_in_child

STORAGE: Final = "storage"

_lock = threading.Lock()
free_in_child(sys.modules[__name__], "_lock")
_guards: weakref.WeakKeyDictionary[Capturer, Guards] = weakref.WeakKeyDictionary()


class Guards:
    """Breakers by name.

    Threads: safe.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        free_in_child(self, "_lock")
        self._breakers: dict[tuple[str, str], Breaker] = {}
        self.hung: dict[str, threading.Thread] = {}
        """Threads of components that did not come back, by component."""

    def component(self, name: str) -> Breaker:
        """Return a component's breaker."""
        return self._of("component", name)

    def storage(self) -> Breaker:
        """Return the breaker of the storage."""
        return self._of(STORAGE, "")

    def _of(self, kind: str, name: str) -> Breaker:
        with self._lock:
            return self._breakers.setdefault((kind, name), Breaker(self._settings))

    def still_hung(self) -> list[str]:
        """Return components whose threads act still."""
        with self._lock:
            self.hung = {name: one for name, one in self.hung.items() if one.is_alive()}
            return list(self.hung)


def guards_of(capturer: Capturer, settings: BreakerSettings | None) -> Guards:
    """Return a system's guards; the settings are those of whoever asks first."""
    with _lock:
        found = _guards.get(capturer)
        if found is None:
            found = _guards[capturer] = Guards(settings or BreakerSettings())
        return found


def open_circuit(name: str, wait_s: float) -> CircuitOpenError:
    """Return the error of a breaker that is open."""
    what = "The storage" if name == STORAGE else f"Component {name!r}"
    return CircuitOpenError(
        f"{what} failed too often in a row and is left alone for {wait_s:.0f} s more.",
        hint="Mend it meanwhile.",
        component=name,
        wait_s=round(wait_s, 3),
    )


def is_of_storage(error: BaseException) -> bool:
    """Say whether an error is the store's, not a component's."""
    return isinstance(error, CheckpointStorageError) and not isinstance(error, SourceError)
