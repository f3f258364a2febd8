"""The examination of a store: the attached one, or what lies in a directory, read-only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ckptlog.errors import CheckpointError, StoreClosedError
from ckptlog.model.system_configuration import SystemConfiguration
from ckptlog.monitor import health
from ckptlog.monitor.health import Check, Probe
from ckptlog.repository.opening import directory_of, open_store
from ckptlog.repository.report import Report
from ckptlog.repository.store import Store

Kind = TypeVar("Kind")


class Examination:
    """Looks at one store again and again.

    Args:
        directory: Where it lies; opened for each look, unless a store is given.
        structure_s: How long a verification of the structure counts.

    Threads: one at a time.
    """

    def __init__(
        self, directory: str, settings: SystemConfiguration, *, stale_s: float, structure_s: float
    ) -> None:
        self._directory: str | Path = directory
        with suppress(CheckpointError):  # each look tells it
            self._directory = directory_of(directory)
        self._settings = settings
        self._stale_s = stale_s
        self._structure_s = structure_s
        self._verified: tuple[float, str, Report] | None = None

    def checks(self, store: Store | None, fresh_us: int, *, is_fresh: bool) -> list[Check]:
        """Return what was found.

        Args:
            fresh_us: When the state was last seen to be what the newest capture has.
            is_fresh: Whether the structure is verified anew.
        """

        def verified(store: Store) -> Report:
            return self._structure(store, is_fresh=is_fresh)

        def checks_of(store: Store) -> list[Check]:
            probe = Probe(store, self._settings, stale_s=self._stale_s, fresh_us=fresh_us)
            return probe.checks(verified)

        try:
            if store is not None:
                store.catch_up()
            return self._asked(store, checks_of)
        except StoreClosedError:
            return [health.closed("store")]
        except CheckpointError as error:
            return [health.unopened(error)]

    def statistics(self, store: Store | None) -> dict[str, Any] | None:
        """Return a store's figures; None where it cannot be read."""
        try:
            return self._asked(store, Store.stats)
        except CheckpointError:
            return None

    def _asked(self, store: Store | None, question: Callable[[Store], Kind]) -> Kind:
        if store is not None:
            return question(store)
        with open_store(self._directory, read_only=True) as opened:
            return question(opened)

    def _structure(self, store: Store, *, is_fresh: bool) -> Report:
        now_s = store.environment.monotonic_s()
        if not is_fresh and self._verified is not None:
            then_s, identity, report = self._verified
            if identity == store.id and now_s - then_s < self._structure_s:
                return report
        report = store.verify("structure")
        self._verified = (now_s, store.id, report)
        return report
