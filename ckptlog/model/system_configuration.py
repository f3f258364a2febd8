"""SystemConfiguration: every setting of the automatic service, checked where it is set.

Invariants:
- A configuration never holds a value that is out of range, and each error names the path of the
  key (`storage.cacheSize`) and what was probably meant.
- Nothing is ignored: what this version lacks (s3, encryption) is refused by name, an unknown key
  too, and so is a setting that is given twice under two names.

Keys are camelCase or snake_case. Page, with the table of all keys: specs/service.md. Pure: files
and the environment are handed in.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from ckptlog.errors import SettingsError
from ckptlog.model.configuration import FIELDS, GIBIBYTE, CheckpointConfiguration
from ckptlog.model.identifier import id_fault
from ckptlog.model.quotation import quoted
from ckptlog.model.service_group import Alerts, Performance, Recovery, Storage
from ckptlog.model.service_variable import ServiceVariables
from ckptlog.model.setting import (
    camel,
    number,
    snake,
    switch,
    word,
    words,
    wrong,
)
from ckptlog.model.setting_fault import SettingFaults
from ckptlog.model.setting_group import Group, lacking, made, merged, walk, without_repeats

OUTER: Final = "checkpoint"
_DAY_S: Final = 86_400
_MONTH_S: Final = 31 * _DAY_S
_SIGNALS: Final = ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGALRM", "SIGWINCH")
_CHECKS: Final = ("digest", "sample", "full")
# What the manager's settings say too, under the service's own names.
_TWINS: Final = {
    "storage_dir": "storage.local.path",
    "max_storage_size_gb": "storage.local.maxSizeBytes",
    "cache_size_mb": "storage.cacheSize",
    "compression_level": "compressionLevel",
    "max_checkpoint_age_days": "maxAgeDays",
    "cleanup_interval_hours": "maxCheckpoints and maxAgeDays",
    "retention": "maxCheckpoints, maxAgeDays and the tag `keep`",
    "encryption_enabled": "encryptionEnabled",
}
PASSED_ON: Final = tuple(sorted(FIELDS - _TWINS.keys()))
"""Settings of CheckpointConfiguration that are keys here too, with the same meaning."""


def _is_name(text: str) -> bool:
    return not id_fault(text)


@dataclasses.dataclass(frozen=True)
class SystemConfiguration(Group):
    """Settings of a service. Made by hand, or by `from_dict`, `from_toml`, `from_json`, `from_env`.

    Each field's meaning, range and default: specs/service.md.
    """

    PASSED_ON = PASSED_ON
    ELSEWHERE = MappingProxyType(_TWINS)

    system: str = word(
        "system", "a name of 1 to 200 characters", "Whose captures these are.", _is_name
    )
    interval_seconds: float = number(
        30, 0.05, _MONTH_S, "seconds", "Time between two automatic captures."
    )
    min_interval_seconds: float = number(
        0,
        0,
        _MONTH_S,
        "seconds",
        "Least time between an automatic capture and any before it, also by hand.",
    )
    backoff_factor: float = number(
        2,
        1,
        16,
        "times",
        "What a failed capture makes of the interval, each further one in a row again; 1: nothing.",
    )
    max_interval_seconds: float = number(
        0,
        0,
        _MONTH_S,
        "seconds",
        "Limit of what back-off and storage pressure make of the interval; 0: sixteen intervals.",
    )
    jitter: float = number(
        0.1,
        0,
        0.5,
        "of the interval",
        "By how much at most each capture is late, at random, so "
        "that services do not all save at once; it never adds up.",
    )
    deadline_seconds: float = number(
        30,
        0.01,
        86_400,
        "seconds",
        "For each step of each component; who is slower is named, and the capture given up.",
    )
    restore_deadline_seconds: float = number(
        0,
        0,
        86_400,
        "seconds",
        "For each restore, and each comparison, of each component in a recovery; who is slower is "
        "named, and the recovery rolled back; 0: `deadlineSeconds`, and twenty times that for a "
        "component that reads its payload by parts (a directory, a database).",
    )
    skip_unchanged: bool = switch(
        True, "An automatic capture that would equal the one before is not taken."
    )
    max_checkpoints: int = number(
        10,
        0,
        1_000_000,
        "captures",
        "The newest so many stay; 0: all. What is pinned or has the "
        "tag `keep` stays and does not count.",
        whole=True,
    )
    max_capture_size_bytes: int = number(
        0,
        0,
        10**15,
        "bytes",
        "Limit of one capture: its components' sizes together, before compression; a larger one "
        "is refused (`capture.too_large`) and names the largest component; 0: none. A recovery's "
        "own safety capture has none.",
        whole=True,
    )
    max_age_days: float = number(
        0, 0, 36_500, "days", "Older captures go, but for the newest good one; 0: none."
    )
    retention_check: str = word(
        "sample",
        "digest, sample or full",
        "What the newest capture must pass before older ones are deleted: its `digest`, also a "
        "`sample` of its bytes (64 chunks of each component, at random) read again, or all "
        "(`full`). One that fails is told (`operationFailed`); the next one counts instead, and "
        "where none passes none is deleted.",
        lambda text: text in _CHECKS,
    )
    compression_level: int = number(
        6, 1, 9, "(level)", "1 (fast) to 9 (small): zstd 1, 2, 3, 5, 7, 9, 12, 15, 19.", whole=True
    )
    encryption_enabled: bool = switch(False, "Refused in this version.")
    capture_signals: tuple[str, ...] = words(
        f"a list of {', '.join(_SIGNALS)}",
        "Signals that take a capture at once; installed by `start()` in the main thread.",
        lambda one: one in _SIGNALS and hasattr(signal, one),
        "SIGUSR1",
    )
    capture_on_shutdown: bool = switch(
        True, "A last capture at `stop()`, at the interpreter's end and on SIGTERM."
    )
    standby: bool = switch(
        False, "While another process owns the system: wait for it to go, instead of an error."
    )
    lease_seconds: float = number(
        60, 0.5, 86_400, "seconds", "How long an owner that died still counts as one."
    )
    compaction_interval_seconds: float = number(
        3600,
        0,
        _MONTH_S,
        "seconds",
        "Least time between two compactions, which give the room of "
        "deleted captures back; 0: none.",
    )
    storage: Storage = dataclasses.field(default_factory=Storage)
    performance: Performance = dataclasses.field(default_factory=Performance)
    recovery: Recovery = dataclasses.field(default_factory=Recovery)
    alerts: Alerts = dataclasses.field(default_factory=Alerts)
    manager: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.manager, Mapping):
            raise wrong("manager", self.manager, "a dict of settings of CheckpointConfiguration")
        object.__setattr__(self, "manager", dict(self.manager))
        self.checkpoint_configuration()

    def checks(self) -> Iterable[Callable[[], object]]:
        """Refuse what this version lacks, and what contradicts something else."""
        return (self._check_encryption, self._check_interval_max)

    def _check_encryption(self) -> None:
        if self.encryption_enabled is True:
            raise lacking(
                "encryptionEnabled",
                "Encryption",
                "Set it to false; protect the store's directory by its permissions.",
            )

    def _check_interval_max(self) -> None:
        values = (self.max_interval_seconds, self.interval_seconds)
        if not all(type(one) in {int, float} for one in values):
            return  # that was refused
        if 0 < self.max_interval_seconds < self.interval_seconds:
            raise wrong(
                "maxIntervalSeconds", self.max_interval_seconds, "intervalSeconds or more, or 0"
            )

    # --- derived ------------------------------------------------------------------------------

    @property
    def interval_max_s(self) -> float:
        """Limit of what back-off and pressure make of the interval."""
        return self.max_interval_seconds or min(16 * self.interval_seconds, _MONTH_S)

    @property
    def stale_s(self) -> float:
        """Age of the newest capture from which on it is stale."""
        step_s = max(self.interval_seconds, self.min_interval_seconds)
        return self.alerts.stale_seconds or 5 * step_s

    @property
    def restore_s(self) -> float:
        """Limit of a call of a component in a recovery."""
        return self.restore_deadline_seconds or self.deadline_seconds

    @property
    def restore_parts_s(self) -> float:
        """The same, of a component that reads its payload by parts."""
        return self.restore_deadline_seconds or 20 * self.deadline_seconds

    @property
    def save_time_ms(self) -> float:
        """Time of a save from which on the alert is raised."""
        return self.alerts.save_time_ms or self.performance.max_save_time_ms

    def checkpoint_configuration(self) -> CheckpointConfiguration:
        """Return the manager's settings. Clean-up is off: the service does its own.

        Raises:
            SettingsError: One of `manager` is wrong.
        """
        return CheckpointConfiguration.from_dict(
            {
                **self.manager,
                "storage_dir": self.storage.local.path,
                "max_storage_size_gb": self.storage.local.max_size_bytes / GIBIBYTE,
                "cache_size_mb": self.storage.cache_size,
                "compression_level": self.compression_level,
                "cleanup_interval_hours": 0,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return every setting in camelCase, safe for JSON, reversible through from_dict."""
        tree: dict[str, Any] = {}
        for path, (_, value) in walk(self):
            *groups, name = path.split(".")
            place = tree
            for group in groups:
                place = place.setdefault(group, {})
            place[name] = list(value) if isinstance(value, tuple) else value
        return tree | {camel(name): value for name, value in self.manager.items()}

    # --- where settings come from -------------------------------------------------------------

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> SystemConfiguration:
        """Return the configuration of a dictionary, with or without an outer "checkpoint".

        Raises:
            SettingsError: A key is unknown, stands twice, or has a wrong value.
        """
        if not isinstance(settings, Mapping):
            raise SettingsError(
                f"Settings are a dict, not of type {type(settings).__name__}.", argument="config"
            )
        found: SystemConfiguration = made(cls, _inner(settings), _paths)
        return found

    @classmethod
    def from_toml(cls, text: str) -> SystemConfiguration:
        """Return the configuration of a TOML document; see `from_dict`."""
        return cls.from_dict(_parsed("TOML", tomllib.loads, text))

    @classmethod
    def from_json(cls, text: str) -> SystemConfiguration:
        """Return the configuration of a JSON document; see `from_dict`."""
        load = partial(json.loads, object_pairs_hook=without_repeats)
        return cls.from_dict(_parsed("JSON", load, text))

    @classmethod
    def from_env(
        cls,
        environment: Mapping[str, str],
        *,
        base: SystemConfiguration | None = None,
        prefix: str = "CKPTLOG_",
    ) -> SystemConfiguration:
        """Return the configuration of variables such as CKPTLOG_STORAGE_CACHE_SIZE, over a base.

        The word CHECKPOINT may stand first, as in a dict. Variables of the prefix that name no
        setting are left to others, unless they are a part of one's name or nearly one, or are what
        a dict is refused for (s3, a manager's settings that have another name here).

        Raises:
            SettingsError: Values cannot be read or are wrong, or names are nearly those of
                settings; all of them are told.
        """
        below, faults = base or cls(), SettingFaults()
        names = {_variable(path): (path, setting) for path, (setting, _) in walk(below)}
        found = ServiceVariables(cls, names, prefix, faults).read(environment)
        with faults.collected():
            made_of = cls.from_dict(merged(below.to_dict(), found))
        faults.tell()
        return made_of

    @classmethod
    def from_checkpoint_configuration(
        cls, config: CheckpointConfiguration, **settings: Any
    ) -> SystemConfiguration:
        """Return the configuration that means what a manager's does, with the rest as it is here.

        Its clean-up by age becomes maxAgeDays. One without it (cleanup_interval_hours 0) deletes
        by maxCheckpoints alone.

        Raises:
            SettingsError: It has a retention policy, which a service does not go by.
        """
        if config.retention is not None:
            raise SettingsError(
                "A service does not go by a `retention` policy.",
                hint=f"Here it is {_TWINS['retention']}.",
                argument="retention",
            )
        # What a manager never says is left out: a key given twice is refused.
        passed_on = {name: getattr(config, name) for name in PASSED_ON}
        tree: dict[str, Any] = {
            "storage": {
                "local": {
                    "path": config.storage_dir,
                    "maxSizeBytes": config.storage_size_bytes_max,
                },
                "cacheSize": config.cache_size_mb,
            },
            "compressionLevel": config.compression_level,
            "maxAgeDays": config.max_checkpoint_age_days if config.cleanup_interval_hours else 0,
        }
        return cls.from_dict(merged({**passed_on, **tree}, settings))


def _parsed(kind: str, load: Callable[[str], Any], text: str) -> Any:
    try:
        return load(text)
    except SettingsError:  # a key that is given twice; it is a ValueError too
        raise
    except (ValueError, RecursionError) as error:  # also of a number that has too many digits
        raise SettingsError(f"The configuration is no {kind}: {error}.") from error


def _inner(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings themselves, where they stand in an outer "checkpoint".

    Raises:
        SettingsError: Others stand beside that, or it is no dict.
    """
    if OUTER not in settings:
        return settings
    inner = settings[OUTER]
    if not isinstance(inner, Mapping):
        raise wrong(OUTER, inner, "a table of settings (a dict)")
    if others := sorted(quoted(name) for name in settings if name != OUTER):
        raise SettingsError(
            f'The outer "{OUTER}" stands beside {", ".join(others)[:200]}; it must stand alone.',
            hint=f'Put all settings into "{OUTER}", or leave that out.',
            argument=OUTER,
        )
    return inner


def setting_rows() -> list[tuple[str, str, str, str]]:
    """Return every key: path, default, what it must be, what it does. For specs/service.md."""
    return [
        (path, json.dumps(value), setting.wanted, setting.effect)
        for path, (setting, value) in walk(SystemConfiguration())
    ]


def _paths() -> list[str]:
    return [path for path, *_ in setting_rows()]


def _variable(path: str) -> str:
    return snake(path.replace(".", "_")).upper()
