"""Variables of the environment as settings of a service: all that are wrong are told at once. Pure.

    CKPTLOG_INTERVAL_SECONDS, CKPTLOG_CHECKPOINT_INTERVAL_SECONDS   a setting, as in a dict
    CKPTLOG_STORE                                                   CKPTLOG_STORAGE_LOCAL_PATH, else
    CKPTLOG_INTERVAL, CKPTLOG_PRIMARY, CKPTLOG_S3_BUCKET            meant for one: refused
    CKPTLOG_KEYS, CKPTLOG_LEASE, ...                                of other parts of ckptlog
    CKPTLOG_SERVICE_HOST                                            somebody else's: left alone

The last cannot be refused: where containers are run, a service named ckptlog makes variables of
its name in every process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ckptlog.errors import SettingsError
from ckptlog.model.configuration import CheckpointConfiguration
from ckptlog.model.setting import Setting, nearest, parsed
from ckptlog.model.setting_fault import SettingFaults
from ckptlog.model.setting_group import Group, lacking, put

STORE: Final = "STORE"
OTHERS: Final = frozenset({
    "ATTEMPT", "CHECKPOINT", "DEBUG", "KEYS", "LEASE", "POSITION", "PURE", "PYTHON", "RESUMED_FROM",
    STORE, "TASK", "TASK_MASTER", "WEBHOOK_SECRET",
})  # fmt: skip
"""What other parts of ckptlog read, or hand to programs that they start; and EVENT_..."""
_EVENT: Final = "EVENT_"
_OUTER: Final = "CHECKPOINT_"
_S3: Final = ("STORAGE_S3", "S3")
_TOLD_MAX: Final = 3


class ServiceVariables:
    """Reads variables.

    Args:
        kind: The group of all settings.
        names: Path and declaration of each setting, by the name of its variable.
        prefix: In front of every variable.
        faults: Takes in what is refused.

    Threads: one.
    """

    def __init__(
        self,
        kind: type[Group],
        names: Mapping[str, tuple[str, Setting]],
        prefix: str,
        faults: SettingFaults,
    ) -> None:
        self._kind = kind
        self._names = names
        self._prefix = prefix
        self._faults = faults
        self._seen: dict[str, str] = {}

    def read(self, environment: Mapping[str, str]) -> dict[str, Any]:
        """Return the settings that the variables make, as a tree."""
        found: dict[str, Any] = {}
        store = self._prefix + STORE  # first: the setting's own variable says more
        for variable, text in sorted(environment.items(), key=lambda one: one[0] != store):
            if variable.startswith(self._prefix):
                with self._faults.collected():
                    self._take(found, variable, text)
        return found

    def _take(self, found: dict[str, Any], variable: str, text: str) -> None:
        name = variable.removeprefix(self._prefix)
        if name == STORE:
            put(found, "storage.local.path", text)
            return
        if name in OTHERS or name.startswith(_EVENT):
            return
        name = name.removeprefix(_OUTER)
        key = name.lower()
        if name in self._names:
            path, setting = self._names[name]
            self._once(name, variable)
            put(found, path, parsed(setting, text, variable))
        elif key in self._kind.PASSED_ON:
            self._once(name, variable)
            plain = self._prefix + name
            read = CheckpointConfiguration.from_env({plain: text}, prefix=self._prefix)
            found[key] = getattr(read, key)
        else:
            self._refuse(variable, name)

    def _once(self, name: str, variable: str) -> None:
        """Refuse a setting that two variables set: with the word CHECKPOINT and without it."""
        before = self._seen.setdefault(name, variable)
        if before != variable:
            raise SettingsError(
                f"The variables {before} and {variable} set the same.",
                hint="Unset one of them.",
                argument=variable,
            )

    def _refuse(self, variable: str, name: str) -> None:
        """Refuse a variable that was probably meant for us; leave the others alone."""
        if instead := self._kind.ELSEWHERE.get(name.lower()):
            raise SettingsError(
                f"The variable {variable} sets nothing of a service.",
                hint=f"Here it is {instead}.",
                argument=variable,
            )
        if any(name == one or name.startswith(f"{one}_") for one in _S3):
            raise lacking(variable, "Object storage", "Unset it; captures lie in storage.local.")
        if meant := self._meant(name):
            told = " or ".join(self._prefix + one for one in meant[:_TOLD_MAX])
            raise SettingsError(
                f"The variable {variable} names no setting.",
                hint=f"Did you mean {told}?",
                argument=variable,
            )

    def _meant(self, name: str) -> list[str]:
        """Return the names of settings that a variable is a part of, or is nearly."""
        own, passed_on = list(self._names), [one.upper() for one in self._kind.PASSED_ON]
        for known in (own, passed_on):
            if found := [one for one in known if _is_part(name, one)]:
                return sorted(found, key=len)
            if near := nearest(name, known, 0.85):
                return [near]
        return []


def _is_part(name: str, known: str) -> bool:
    """Say whether the words of one begin or end those of the other: INTERVAL, INTERVAL_SECONDS."""
    short, long = sorted((name, known), key=len)
    if short == known and "_" not in known:
        return False  # a single word says too little: CKPTLOG_FILE_SYSTEM
    return bool(short) and (long.startswith(f"{short}_") or long.endswith(f"_{short}"))
