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
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from ckptlog.errors import SettingsError
from ckptlog.model.configuration import FIELDS, GIBIBYTE, CheckpointConfiguration
from ckptlog.model.identifier import id_fault
from ckptlog.model.quotation import quoted
from ckptlog.model.setting import (
    Setting,
    camel,
    nearest,
    number,
    parsed,
    setting_of,
    snake,
    switch,
    word,
    words,
    wrong,
)

OUTER: Final = "checkpoint"
STORE_VARIABLE: Final = "STORE"
_DAY_S: Final = 86_400
_MONTH_S: Final = 31 * _DAY_S
_S3_KEYS: Final = ("bucket", "region", "prefix", "accessKeyId", "secretAccessKey")
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


class _Group:
    """A dataclass of settings, each checked when it is made."""

    PLACE: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):  # type: ignore[arg-type]
            setting, value = setting_of(one), getattr(self, one.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, one.name, value)
            if setting is not None and not setting.is_good(value):
                raise wrong(self.PLACE + camel(one.name), value, setting.wanted)


@dataclasses.dataclass(frozen=True)
class LocalStorage(_Group):
    """Where the store lies, and how much it may take."""

    PLACE = "storage.local."

    path: str = word(
        ".ckptlog",
        "a path, not empty",
        "Directory of the store; made where it is missing. `CKPTLOG_STORE` sets it too.",
        lambda text: bool(text) and "\0" not in text,
    )
    max_size_bytes: int = number(
        10 * GIBIBYTE,
        2 * 1024 * 1024,
        10**15,
        "bytes",
        "Limit of the whole store. From 90 % on, or of the disk's room, captures become rarer and "
        "an alert is raised; at 100 % captures fail.",
        whole=True,
    )


@dataclasses.dataclass(frozen=True)
class Storage(_Group):
    """The store."""

    PLACE = "storage."

    primary: str = word(
        "local", "local", "Where captures are stored; `s3` is refused in this version.", bool
    )
    local: LocalStorage = dataclasses.field(default_factory=LocalStorage)
    cache_size: float = number(100, 0, 1_000_000, "MiB", "Limit of verified bytes held in memory.")
    cache_ttl: float = number(
        3600, 0, _MONTH_S, "seconds", "What is cached is let go of when so old; 0: never."
    )


@dataclasses.dataclass(frozen=True)
class Performance(_Group):
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
class Alerts(_Group):
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
        "unneeded, for so long; 0: five intervals.",
    )


def _is_name(text: str) -> bool:
    return not id_fault(text)


@dataclasses.dataclass(frozen=True)
class SystemConfiguration(_Group):
    """Settings of a service. Made by hand, or by `from_dict`, `from_toml`, `from_json`, `from_env`.

    Each field's meaning, range and default: specs/service.md.
    """

    system: str = word(
        "system", "a name of 1 to 200 characters", "Whose captures these are.", _is_name
    )
    interval_seconds: float = number(
        30, 0.05, _MONTH_S, "seconds", "Time between two automatic captures."
    )
    min_interval_seconds: float = number(
        0, 0, _MONTH_S, "seconds", "Least time between an automatic capture and any before it."
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
    alerts: Alerts = dataclasses.field(default_factory=Alerts)
    manager: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_absent(self)
        if 0 < self.max_interval_seconds < self.interval_seconds:
            raise wrong(
                "maxIntervalSeconds", self.max_interval_seconds, "intervalSeconds or more, or 0"
            )
        object.__setattr__(self, "manager", dict(self.manager))
        self.checkpoint_configuration()

    # --- derived ------------------------------------------------------------------------------

    @property
    def interval_max_s(self) -> float:
        """Limit of what back-off and pressure make of the interval."""
        return self.max_interval_seconds or min(16 * self.interval_seconds, _MONTH_S)

    @property
    def stale_s(self) -> float:
        """Age of the newest capture from which on it is stale."""
        return self.alerts.stale_seconds or 5 * self.interval_seconds

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
        for path, (_, value) in _walk(self):
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
        if set(settings) == {OUTER} and isinstance(settings[OUTER], Mapping):
            settings = settings[OUTER]
        made: SystemConfiguration = _made(cls, settings)
        return made

    @classmethod
    def from_toml(cls, text: str) -> SystemConfiguration:
        """Return the configuration of a TOML document; see `from_dict`."""
        try:
            return cls.from_dict(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise SettingsError(f"The configuration is no TOML: {error}.") from error

    @classmethod
    def from_json(cls, text: str) -> SystemConfiguration:
        """Return the configuration of a JSON document; see `from_dict`."""
        try:
            return cls.from_dict(json.loads(text, object_pairs_hook=_without_repeats))
        except (json.JSONDecodeError, RecursionError) as error:
            raise SettingsError(f"The configuration is no JSON: {error}.") from error

    @classmethod
    def from_env(
        cls,
        environment: Mapping[str, str],
        *,
        base: SystemConfiguration | None = None,
        prefix: str = "CKPTLOG_",
    ) -> SystemConfiguration:
        """Return the configuration of variables such as CKPTLOG_STORAGE_CACHE_SIZE, over a base.

        Variables of the prefix that name no setting are left to others, unless they look like a
        setting spelled wrong.

        Raises:
            SettingsError: A value cannot be read, or a name is nearly one of a setting.
        """
        names = {_variable(path): (path, setting) for path, (setting, _) in _walk(base or cls())}
        found: dict[str, Any] = {}
        passed_on: dict[str, str] = {}
        for variable, text in environment.items():
            if not variable.startswith(prefix):
                continue
            name = variable.removeprefix(prefix)
            if name == STORE_VARIABLE:
                _put(found, "storage.local.path", text)
            elif name in names:
                path, setting = names[name]
                _put(found, path, parsed(setting, text, variable))
            elif name.lower() in PASSED_ON:
                passed_on[variable] = text
            elif meant := nearest(name, [*names, *map(str.upper, PASSED_ON)], 0.85):
                raise SettingsError(
                    f"The variable {variable} names no setting.",
                    hint=f"Did you mean {prefix}{meant}?",
                    argument=variable,
                )
        read = CheckpointConfiguration.from_env(passed_on, prefix=prefix)
        for variable in passed_on:
            name = variable.removeprefix(prefix).lower()
            found[name] = getattr(read, name)
        return cls.from_dict(_merged((base or cls()).to_dict(), found))

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
        return cls.from_dict(_merged({**passed_on, **tree}, settings))


def setting_rows() -> list[tuple[str, str, str, str]]:
    """Return every key: path, default, what it must be, what it does. For specs/service.md."""
    return [
        (path, json.dumps(value), setting.wanted, setting.effect)
        for path, (setting, value) in _walk(SystemConfiguration())
    ]


def _walk(group: Any, place: str = "") -> Iterator[tuple[str, tuple[Setting, Any]]]:
    for one in dataclasses.fields(group):
        path, value = place + camel(one.name), getattr(group, one.name)
        if setting := setting_of(one):
            yield path, (setting, value)
        elif dataclasses.is_dataclass(value):
            yield from _walk(value, f"{path}.")


def _variable(path: str) -> str:
    return snake(path.replace(".", "_")).upper()


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *groups, name = path.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[name] = value


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree over another; keys in either spelling."""
    merged: dict[str, Any] = {camel(snake(name)): value for name, value in below.items()}
    for given, value in above.items():
        name = camel(snake(given))
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(old, value)
        else:
            merged[name] = value
    return merged


def _made(kind: type[Any], settings: Mapping[str, Any]) -> Any:
    """Return a group out of a dictionary; unknown keys are refused with their path."""
    fields = {one.name: one for one in dataclasses.fields(kind) if one.name != "manager"}
    found: dict[str, Any] = {}
    manager: dict[str, Any] = {}
    for given, value in settings.items():
        name = snake(given) if type(given) is str else quoted(given)
        path = kind.PLACE + camel(name)
        if name in found or name in manager:
            raise SettingsError(f"The setting {path} is given twice.", argument=path)
        if name in fields:
            group = _group_of(fields[name])
            found[name] = value if group is None else _nested(group, path, value)
        elif kind is SystemConfiguration and name in PASSED_ON:
            manager[name] = value
        elif (kind, name) == (Storage, "s3"):
            _refuse_s3(value)
        else:
            raise _unknown(kind, fields, str(given), name)
    return kind(**found, **({"manager": manager} if manager else {}))


def _group_of(field: dataclasses.Field[Any]) -> type[Any] | None:
    factory: Any = field.default_factory
    return factory if isinstance(factory, type) and issubclass(factory, _Group) else None


def _nested(group: type[Any], path: str, value: Any) -> Any:
    if isinstance(value, group):
        return value
    if not isinstance(value, Mapping):
        raise wrong(path, value, "a table of settings (a dict)")
    return _made(group, value)


def _unknown(kind: type[Any], fields: Mapping[str, Any], given: str, name: str) -> SettingsError:
    path = kind.PLACE + given
    if kind is SystemConfiguration and name in _TWINS:
        hint = f"Here it is {_TWINS[name]}."
    elif meant := nearest(name, [*fields, *(PASSED_ON if kind is SystemConfiguration else ())]):
        hint = f"Did you mean {kind.PLACE}{camel(meant)}?"
    elif places := [one for one, *_ in setting_rows() if one.split(".")[-1] == camel(name)]:
        hint = f"Did you mean {places[0]}?"
    else:
        hint = f"Here are: {', '.join(sorted(map(camel, fields)))}."
    return SettingsError(f"There is no setting {quoted(path)}.", hint=hint, argument=path[:80])


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
    raise _absent("storage.s3", "Object storage", "Leave it out; captures lie in storage.local.")


def _refuse_absent(config: SystemConfiguration) -> None:
    if config.encryption_enabled:
        raise _absent(
            "encryptionEnabled",
            "Encryption",
            "Set it to false; protect the store's directory by its permissions.",
        )
    if config.storage.primary == "s3":
        raise _absent(
            "storage.primary",
            "Object storage (s3)",
            'Set it to "local" and name storage.local.path.',
        )
    if config.storage.primary != "local":
        raise wrong("storage.primary", config.storage.primary, '"local"')


def _absent(path: str, what: str, hint: str) -> SettingsError:
    return SettingsError(
        f"{path} is set. {what} is what this version of ckptlog does not have.",
        hint=hint,
        argument=path,
    )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingsError(f"The setting {twice} is given twice.", argument=twice)
    return found
