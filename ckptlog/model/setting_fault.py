"""Faults of settings: collected while they are checked, and told all at once. Pure.

Whoever brings a file of settings mends it once, and not key by key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ckptlog.errors import SettingsError


class SettingFaults:
    """Collects what is refused.

    Threads: one.
    """

    def __init__(self) -> None:
        self._found: list[SettingsError] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep what the block refuses, and go on behind it."""
        try:
            yield
        except SettingsError as error:
            self._found.append(error)

    def tell(self) -> None:
        """Raise what was collected: one fault as it was, several as one error; or nothing.

        Raises:
            SettingsError: Its context has `faults`: of each its argument, message and hint.
        """
        if len(self._found) == 1:
            raise self._found[0]
        if not self._found:
            return
        faults = [one for error in self._found for one in _faults_of(error)]
        raise SettingsError(
            f"{len(faults)} settings are refused. "
            + " ".join(f"{one['message']} {one['hint']}".strip() for one in faults),
            argument=faults[0]["argument"],
            faults=faults,
        )


def _faults_of(error: SettingsError) -> list[dict[str, str]]:
    given = error.context.get("faults")
    if given is not None:
        return list(given)
    argument = str(error.context.get("argument", ""))
    return [{"argument": argument, "message": error.message, "hint": error.hint}]
