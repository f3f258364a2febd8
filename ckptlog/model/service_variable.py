"""Variables of the environment as settings of a service: all that are wrong are told at once. Pure.

Variables of the prefix that name no setting are left to others, unless they look like a setting
spelled wrong, or are what a dict is refused for.
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
_S3: Final = "STORAGE_S3"


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

    def read(self, environment: Mapping[str, str]) -> dict[str, Any]:
        """Return the settings that the variables make, as a tree."""
        found: dict[str, Any] = {}
        for variable, text in environment.items():
            if variable.startswith(self._prefix):
                with self._faults.collected():
                    self._take(found, variable, text)
        return found

    def _take(self, found: dict[str, Any], variable: str, text: str) -> None:
        name = variable.removeprefix(self._prefix)
        key = name.lower()
        if name == STORE:
            put(found, "storage.local.path", text)
        elif name in self._names:
            path, setting = self._names[name]
            put(found, path, parsed(setting, text, variable))
        elif key in self._kind.PASSED_ON:
            read = CheckpointConfiguration.from_env({variable: text}, prefix=self._prefix)
            found[key] = getattr(read, key)
        else:
            self._refuse(variable, name)

    def _refuse(self, variable: str, name: str) -> None:
        """Refuse a variable that was probably meant for us; leave the others alone."""
        if instead := self._kind.ELSEWHERE.get(name.lower()):
            raise SettingsError(
                f"The variable {variable} sets nothing of a service.",
                hint=f"Here it is {instead}.",
                argument=variable,
            )
        if name == _S3 or name.startswith(f"{_S3}_"):
            raise lacking(variable, "Object storage", "Unset it; captures lie in storage.local.")
        known = [*self._names, *map(str.upper, self._kind.PASSED_ON)]
        if meant := nearest(name, known, 0.85):
            raise SettingsError(
                f"The variable {variable} names no setting.",
                hint=f"Did you mean {self._prefix}{meant}?",
                argument=variable,
            )
