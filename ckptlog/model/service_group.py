"""The groups of a service's settings; the outermost one is `model.system_configuration`.

Each setting's bounds and effect stand where it is declared; the table of all of them is in
specs/service.md. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ckptlog.errors import SettingsError
from ckptlog.model.configuration import GIBIBYTE
from ckptlog.model.quotation import quoted
from ckptlog.model.setting import camel, nearest, number, snake, word, wrong
from ckptlog.model.setting_group import Group, lacking

_MONTH_S: Final = 31 * 86_400
_S3_KEYS: Final = ("bucket", "region", "prefix", "accessKeyId", "secretAccessKey")


def _refuse_s3(value: Any) -> None:
    """Check the keys of storage.s3, and refuse it: object storage comes later."""
    if not isinstance(value, Mapping):
        raise wrong("storage.s3", value, "a table of settings (a dict)")
    for given in value:
        if snake(str(given)) not in map(snake, _S3_KEYS):
            meant = nearest(str(given), _S3_KEYS)
            raise SettingsError(
                f"There is no setting {quoted(f'storage.s3.{given}')}.",
                hint=f"Did you mean storage.s3.{meant}?" if meant else "",
                argument=f"storage.s3.{given}"[:80],
            )
    raise lacking("storage.s3", "Object storage", "Leave it out; captures lie in storage.local.")


@dataclasses.dataclass(frozen=True)
class LocalStorage(Group):
    """Where the store lies, and how much it may take."""

    PLACE = "storage.local."

    path: str = word(
        ".ckptlog",
        "a path, not empty",
        "Directory of the store; made where it is missing. `CKPTLOG_STORE` sets it too, where its "
        "own variable is not there.",
        lambda text: bool(text) and "\0" not in text,
    )
    max_size_bytes: int = number(
        10 * GIBIBYTE,
        2 * 1024 * 1024,
        10**15,
        "bytes",
        "Limit of the whole store. From 90 % on, or of the disk's room, captures become rarer and "
        "an alert is raised; a capture that would pass it fails (`create.quota`).",
        whole=True,
    )


@dataclasses.dataclass(frozen=True)
class Storage(Group):
    """The store."""

    PLACE = "storage."
    REFUSED = MappingProxyType({"s3": _refuse_s3})

    primary: str = word(
        "local", "local", "Where captures are stored; `s3` is refused in this version.", bool
    )
    local: LocalStorage = dataclasses.field(default_factory=LocalStorage)
    cache_size: float = number(100, 0, 1_000_000, "MiB", "Limit of verified bytes held in memory.")
    cache_ttl: float = number(
        3600, 0, _MONTH_S, "seconds", "What is cached is let go of when so old; 0: never."
    )

    def checks(self) -> Iterable[Callable[[], object]]:
        """Refuse a store elsewhere."""
        return (self._check_primary,)

    def _check_primary(self) -> None:
        if type(self.primary) is not str or not self.primary:
            return  # that was refused
        if self.primary == "s3":
            raise lacking(
                "storage.primary",
                "Object storage (s3)",
                'Set it to "local" and name storage.local.path.',
            )
        if self.primary != "local":
            raise wrong("storage.primary", self.primary, '"local"')


@dataclasses.dataclass(frozen=True)
class Performance(Group):
    """What is expected of saves and recoveries."""

    PLACE = "performance."

    max_save_time_ms: float = number(
        5000, 1, 86_400_000, "ms", "A slower save raises the alert `save_time`; never an abort."
    )
    max_recovery_time_ms: float = number(
        60_000, 1, 86_400_000, "ms", "A slower recovery raises the alert `recovery_time`."
    )
    compression_target: float = number(
        10, 1, 1_000_000, "to 1", "A day's ratio below it raises the alert `compression`."
    )
    batch_size: int = number(5, 1, 1000, "components", "Captured at once.", whole=True)


@dataclasses.dataclass(frozen=True)
class Recovery(Group):
    """How a recovery meets errors, and when it leaves alone what fails again and again."""

    PLACE = "recovery."

    retry_attempts: int = number(
        3,
        1,
        100,
        "attempts",
        "Of one component's restore, in all, where its error may pass; 1: it is not tried again.",
        whole=True,
    )
    retry_delay_seconds: float = number(
        0.2, 0, 3600, "seconds", "Limit of the wait before the second attempt, which is at random."
    )
    retry_factor: float = number(
        2, 1, 100, "times", "What each further wait's limit is of the one before."
    )
    retry_delay_max_seconds: float = number(10, 0, 3600, "seconds", "No wait has a higher limit.")
    breaker_failures: int = number(
        3,
        1,
        1000,
        "recoveries",
        "After so many that failed in a row because of it, a component, or the storage, is left "
        "alone: recoveries are refused (`recovery.suspended`).",
        whole=True,
    )
    breaker_rest_seconds: float = number(
        30, 0.01, _MONTH_S, "seconds", "For so long; then one recovery is tried."
    )
    breaker_rest_max_seconds: float = number(
        600,
        0.01,
        _MONTH_S,
        "seconds",
        "Each trial that fails doubles the rest, up to this.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_below("retry_delay_max_seconds", "retry_delay_seconds")
        self._refuse_below("breaker_rest_max_seconds", "breaker_rest_seconds")

    def _refuse_below(self, most: str, first: str) -> None:
        value = getattr(self, most)
        if value < getattr(self, first):
            raise wrong(self.PLACE + camel(most), value, f"{self.PLACE}{camel(first)} or more")


@dataclasses.dataclass(frozen=True)
class Alerts(Group):
    """Thresholds; crossing one is an event `alert.raised` or `alert.cleared`, and a callback."""

    PLACE = "alerts."

    error_rate: float = number(
        0.5, 0.001, 1, "of the last 20 operations", "Alert `error_rate`, after at least 3 of them."
    )
    save_time_ms: float = number(
        0, 0, 86_400_000, "ms", "Alert `save_time`; 0: as `performance.maxSaveTimeMs`."
    )
    storage_pressure: float = number(
        0.9, 0.01, 1, "of the room", "Alert `storage_pressure`; captures become rarer with it."
    )
    stale_seconds: float = number(
        0,
        0,
        _MONTH_S,
        "seconds",
        "Alert `stale` when no capture was taken, or found to be "
        "unneeded, for so long; 0: five intervals, or five times `minIntervalSeconds` where that "
        "is longer.",
    )
