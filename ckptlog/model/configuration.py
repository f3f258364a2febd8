"""The configuration: every setting of the specification, checked where it is set.

Invariants:
- A configuration never holds a value that is out of range or of the wrong type: each assignment is
  checked, in the constructor and later, and so is each name.
- Nothing that this version lacks can be asked for in silence: encryption and access control are
  off, and switching them on is refused.

One table, `_LIMITS`, says what each setting may be. The room is pure: the caller hands the
environment to `from_env`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ckptlog.errors import SettingsError
from ckptlog.model.identifier import id_fault
from ckptlog.model.quotation import quoted
from ckptlog.model.setting_fault import SettingFaults

MEBIBYTE: Final = 1024 * 1024
GIBIBYTE: Final = 1024 * MEBIBYTE

DURABILITIES: Final = ("commit", "interval")

# compression_level 1 to 9 -> level of zstd.
_ZSTD_LEVELS: Final = (1, 2, 3, 5, 7, 9, 12, 15, 19)

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


class Limit(NamedTuple):
    """What a number may be; unit is what messages call it. whole: Only an int will do."""

    least: float
    most: float
    unit: str
    whole: bool = False


_LIMITS: Final[dict[str, Limit]] = {
    "max_checkpoint_size_mb": Limit(0.001, 4096, "MiB"),
    "max_storage_size_gb": Limit(0.001, 1_000_000, "GiB"),
    "max_concurrent_operations": Limit(1, 100_000, "operations", whole=True),
    "operation_timeout_seconds": Limit(0, 86_400, "seconds"),
    "cache_size_mb": Limit(0, 1_000_000, "MiB"),
    "cleanup_interval_hours": Limit(0, 87_600, "hours"),
    "max_checkpoint_age_days": Limit(0.001, 36_500, "days"),
    "interval_s": Limit(0.001, 60, "seconds"),
    "head_interval_s": Limit(0, 31_536_000, "seconds"),
    "compression_level": Limit(1, len(_ZSTD_LEVELS), "(level)", whole=True),
}
_SWITCHES: Final = frozenset({"encryption_enabled", "access_control_enabled", "sanitise"})
_PATTERNS: Final = "sanitise_extra_patterns"
_RETENTION: Final = "retention"
_LISTS: Final = ("sanitise_extra_keys", "sanitise_keep_keys", _PATTERNS)
_LETTER: Final = re.compile(r"[^\W\d_]")

# Settings of the automatic service of the specification; they are in another configuration.
_OF_THE_SERVICE: Final = frozenset(
    {"interval_seconds", "max_checkpoints", "storage", "performance", "alerts", "jitter", "system"}
)


@dataclasses.dataclass
class CheckpointConfiguration:
    """Settings of a manager and its store. One MB is 1,048,576 bytes.

    storage_dir: Directory of the store.
    max_checkpoint_size_mb: Limit of data and metadata together, of one checkpoint.
    max_storage_size_gb: Limit of the whole store; creates are refused there.
    max_concurrent_operations: Operations that may wait for a commit; one more has to wait.
    operation_timeout_seconds: How long an operation waits for the lock or the queue.
    cache_size_mb: Limit of verified bytes held in memory; 0 holds none.
    cleanup_interval_hours: Between clean-ups in the background; 0 is off.
    max_checkpoint_age_days: Age from which a clean-up takes completed and failed checkpoints.
    retention: A policy by which clean-ups in the background go instead, as a dictionary
        (specs/retention.md): {"keep_last": 5, ...}. None goes by the age.
    encryption_enabled, encryption_key, access_control_enabled: Off; refused in this version.
    durability: `commit` (a call returns when its event is durable) or `interval`.
    interval_s: With durability `interval`: the longest time that an event is not yet durable.
    sanitise: Whether secrets are replaced before anything is stored.
    sanitise_extra_keys: More keys whose values are secrets; case and punctuation do not matter.
    sanitise_keep_keys: Keys that are no secrets whatever the tables say; before extra keys.
    sanitise_extra_patterns: More regular expressions over texts (as text); the group `secret`, or
        the whole match, is replaced. With one of them every text is read at every write.
    actor: Who acts, in events; None means user@host.
    compression_level: 1 (fast) to 9 (small).
    head_interval_s: Time between two signed heads of the history; 0 signs on request only.
    """

    storage_dir: str = ".taskmaster/checkpoints"
    max_checkpoint_size_mb: float = 10
    max_storage_size_gb: float = 100
    max_concurrent_operations: int = 100
    operation_timeout_seconds: float = 30
    cache_size_mb: float = 100
    cleanup_interval_hours: float = 24
    max_checkpoint_age_days: float = 30
    retention: dict[str, Any] | None = None
    encryption_enabled: bool = False
    encryption_key: str | None = None
    access_control_enabled: bool = False
    durability: str = "commit"
    interval_s: float = 0.05
    sanitise: bool = True
    sanitise_extra_keys: tuple[str, ...] = ()
    sanitise_keep_keys: tuple[str, ...] = ()
    sanitise_extra_patterns: tuple[str, ...] = ()
    actor: str | None = None
    compression_level: int = 1
    head_interval_s: float = 0

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, _checked(name, value))

    @property
    def checkpoint_size_bytes_max(self) -> int:
        """Limit of one checkpoint's data and metadata, bytes."""
        return int(self.max_checkpoint_size_mb * MEBIBYTE)

    @property
    def storage_size_bytes_max(self) -> int:
        """Limit of the store, bytes."""
        return int(self.max_storage_size_gb * GIBIBYTE)

    @property
    def cache_size_bytes(self) -> int:
        """Limit of the cache, bytes."""
        return int(self.cache_size_mb * MEBIBYTE)

    @property
    def zstd_level(self) -> int:
        """Level of zstd that compression_level stands for."""
        return _ZSTD_LEVELS[self.compression_level - 1]

    def to_dict(self) -> dict[str, Any]:
        """Return every setting, safe for JSON and reversible through from_dict."""
        settings = dataclasses.asdict(self)
        return settings | {name: list(settings[name]) for name in _LISTS}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> CheckpointConfiguration:
        """Return the configuration of settings named in snake_case or camelCase.

        Raises:
            SettingsError: Names are unknown or stand twice, or values are out of range; all of
                them are told.
        """
        if not isinstance(settings, Mapping):
            raise SettingsError(f"Settings are a dict, not of type {type(settings).__name__}.")
        faults = SettingFaults()
        found: dict[str, Any] = {}
        for name, value in settings.items():
            with faults.collected():
                field = _field_of(name)
                if field in found:
                    raise SettingsError(f"The setting {field} is given twice.", argument=field)
                found[field] = value
        return cls._made(found, faults)

    @classmethod
    def _made(cls, found: Mapping[str, Any], faults: SettingFaults) -> CheckpointConfiguration:
        """Return the configuration of settings; all that are wrong are told at once."""
        for name, value in found.items():
            with faults.collected():
                _checked(name, value)
        faults.tell()
        return cls(**found)

    @classmethod
    def from_env(
        cls, environment: Mapping[str, str], *, prefix: str = "CKPTLOG_"
    ) -> CheckpointConfiguration:
        """Return the configuration of variables such as CKPTLOG_CACHE_SIZE_MB.

        Lists of keys are parted by commas; patterns, which hold commas, are a list in JSON.
        Variables of the prefix that name no setting are left to others, unless they look like a
        setting spelled wrong.

        Args:
            environment: os.environ, or what stands for it.

        Raises:
            SettingsError: Values are no number, switch or list, or names are nearly those of
                settings; all of them are told.
        """
        faults = SettingFaults()
        found: dict[str, Any] = {}
        for variable, text in environment.items():
            name = variable.removeprefix(prefix).lower()
            if not variable.startswith(prefix):
                continue
            with faults.collected():
                if name in FIELDS:
                    found[name] = _parsed(name, text, variable)
                elif nearest := _nearest(name, likeness=0.85):
                    raise SettingsError(
                        f"The variable {variable} names no setting.",
                        hint=f"Did you mean {prefix}{nearest.upper()}?",
                        argument=variable,
                    )
        return cls._made(found, faults)


FIELDS: Final = frozenset(field.name for field in dataclasses.fields(CheckpointConfiguration))


def _field_of(name: object) -> str:
    text = name if isinstance(name, str) else quoted(name)
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).lower()
    if snake in FIELDS:
        return snake
    raise _unknown(text, snake)


def _unknown(name: str, snake: str) -> SettingsError:
    if snake in _OF_THE_SERVICE:
        hint = (
            "It belongs to the automatic checkpointing service: SystemConfiguration, "
            "create_checkpoint_system(config, dependencies)."
        )
    elif nearest := _nearest(snake, likeness=0.6):
        hint = f"Did you mean {nearest}?"
    else:
        hint = f"Settings are: {', '.join(sorted(FIELDS))}."
    return SettingsError(f"There is no setting {quoted(name)}.", hint=hint, argument=name[:80])


def _nearest(name: str, *, likeness: float) -> str | None:
    import difflib  # takes a millisecond to load, and only mistakes need it

    return next(iter(difflib.get_close_matches(name, FIELDS, 1, likeness)), None)


def _parsed(name: str, text: str, variable: str) -> Any:
    """Return what a variable's text means for a setting."""
    if name in _SWITCHES:
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise _wrong(variable, text, "true or false")
        return word in _TRUE
    if limit := _LIMITS.get(name):
        try:
            return int(text) if limit.whole or text.strip().isdecimal() else float(text)
        except ValueError:
            raise _wrong(variable, text, "a whole number" if limit.whole else "a number") from None
    if name == _PATTERNS:
        return _parsed_json(text, variable, list, "a list of regular expressions in JSON")
    if name == _RETENTION:
        return _parsed_json(text, variable, dict, "a policy in JSON")
    if name in _LISTS:
        return tuple(key.strip() for key in text.split(",") if key.strip())
    return text


def _parsed_json(text: str, variable: str, kind: type, wanted: str) -> Any:
    try:
        parsed = json.loads(text) if text.strip() else kind()
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, kind):
        raise _wrong(variable, text, wanted)
    return parsed or None if kind is dict else parsed


def _checked(name: str, value: Any) -> Any:
    if name in _LIMITS:
        return _checked_number(name, value, _LIMITS[name])
    if name in _SWITCHES:
        if type(value) is not bool:
            raise _wrong(name, value, "True or False")
        return _checked_absence(name, value) if name != "sanitise" else value
    check = _CHECKS.get(name)
    if check is None:
        raise _unknown(name, name)
    return check(name, value)


def _checked_number(name: str, value: Any, limit: Limit) -> float:
    number = "a whole number" if limit.whole else "a number"
    wanted = f"{number} from {limit.least:,} to {limit.most:,} {limit.unit}"
    if type(value) is not int and (limit.whole or type(value) is not float):
        raise _wrong(name, value, wanted)
    if not limit.least <= value <= limit.most:  # so is NaN, and infinity
        raise _wrong(name, value, wanted)
    checked: float = value
    return checked


def _checked_absence(name: str, value: Any) -> Any:
    if value:
        raise SettingsError(
            f"{name} is set, and this version of ckptlog does not have it.",
            hint="Leave it out; protect the store's directory by its permissions.",
            argument=name,
        )
    return value


def _checked_directory(name: str, value: Any) -> str:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if type(path) is not str or not path or "\0" in path:
        raise _wrong(name, value, "a path, not empty")
    return path


def _checked_actor(name: str, value: Any) -> str | None:
    if value is not None and (fault := id_fault(value)):
        raise SettingsError(f"{name} {fault}.", argument=name)
    checked: str | None = value
    return checked


def _checked_durability(name: str, value: Any) -> str:
    if value not in DURABILITIES:
        raise _wrong(name, value, " or ".join(DURABILITIES))
    return str(value)


def _listed(name: str, value: Any) -> tuple[str, ...]:
    wanted = "a list of texts (str)"
    if not isinstance(value, list | tuple):
        raise _wrong(name, value, wanted)
    for one in value:
        if type(one) is not str:
            raise _wrong(name, value, f"{wanted}; {quoted(one)} is none")
    return tuple(value)


def _checked_keys(name: str, value: Any) -> tuple[str, ...]:
    keys = _listed(name, value)
    for key in keys:
        if not _LETTER.search(key):
            raise SettingsError(f"{name} has {quoted(key)}, which has no letter.", argument=name)
    return keys


def _checked_patterns(name: str, value: Any) -> tuple[str, ...]:
    patterns = _listed(name, value)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise SettingsError(
                f"{name} has {quoted(pattern)}, which is no regular expression: {error}.",
                argument=name,
            ) from error
    return patterns


def _checked_policy(name: str, value: Any) -> dict[str, Any] | None:
    # What the rules say is checked by whoever carries them out, where it is opened.
    if value is not None and type(value) is not dict:
        raise _wrong(name, value, "a dictionary such as {'keep_last': 5}, or None")
    return copy.deepcopy(value)


def _wrong(name: str, value: Any, wanted: str) -> SettingsError:
    return SettingsError(f"{name} is {quoted(value)}; it must be {wanted}.", argument=name)


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "storage_dir": _checked_directory,
    "encryption_key": _checked_absence,
    "durability": _checked_durability,
    "actor": _checked_actor,
    _RETENTION: _checked_policy,
    "sanitise_extra_keys": _checked_keys,
    "sanitise_keep_keys": _checked_keys,
    _PATTERNS: _checked_patterns,
}
