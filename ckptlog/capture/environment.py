"""The environment of a process as a component: interpreter, platform, packages, variables.

It is captured so that a recovery can say what is different now; it is the one ready component whose
restore changes nothing unless it is asked to. `restore` compares, keeps the differences for
`differences`, and raises for those that `must_match` names. Only with `apply_variables=True` are
variables set and removed, and only those that the component selects.

Secrets: a variable whose name or shape says that it is one never leaves this module, whatever the
store's own setting; its name alone is listed in `redacted`, and it is never compared, set or
removed. specs/capture-components.md, section 4.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

from ckptlog.capture.argument import texts_of
from ckptlog.capture.shape import Shape, refuse_faults
from ckptlog.errors import ComponentError, EnvironmentDiffersError
from ckptlog.model.component import COPIED, Change, Plan
from ckptlog.model.quotation import quoted
from ckptlog.policy.sanitise import Sanitiser

_SHAPE: Final = Shape(
    "environment-1",
    {
        "python": (dict,),
        "platform": (dict,),
        "packages": (dict,),
        "directory": (str,),
        "variables": (dict,),
        "redacted": (list,),
    },
)
ASPECTS: Final = ("python", "platform", "packages", "directory", "variables")
"""What is compared."""
_NAMES: Final = {
    "python": ("implementation", "version", "executable", "prefix"),
    "platform": ("system", "release", "machine"),
    "directory": (),
}
"""What is in an aspect, where that is always the same."""
_MARK: Final = "bytes in hexadecimal: "
_SEPARATORS: Final = re.compile(r"[-_.]+")
_TOLD: Final = 3  # differences in one line


class Difference(NamedTuple):
    """One thing that is not as it was captured.

    Attributes:
        aspect: One of ASPECTS.
        name: Of the variable, package, or fact.
        before: As captured; None if it was not there.
        now: As it is; None if it is not there.
    """

    aspect: str
    name: str
    before: str | None
    now: str | None

    def __str__(self) -> str:
        before, now = (quoted(text) if text is not None else "absent" for text in self[2:])
        return f"{self.aspect} {self.name}: {before} when captured, {now} now"


class EnvironmentComponent:
    """Interpreter, platform, packages and variables of this process.

    Stability: "copied".

    Threads: safe as far as os.environ is.
    """

    kind = "environment"
    stability = COPIED

    def __init__(
        self,
        name: str = "environment",
        *,
        variables: Sequence[str] = ("*",),
        must_match: Sequence[str] = (),
        apply_variables: bool = False,
        sanitiser: Sanitiser | None = None,
        environ: MutableMapping[str, str] | None = None,
    ) -> None:
        """Make the component.

        Args:
            name: Of the component.
            variables: Patterns (`*`, `?`) of the variables that are captured.
            must_match: Aspects (python, platform, packages, directory, variables), or one name
                in one (`packages.numpy`), that a restore refuses to find different.
            apply_variables: Whether a restore sets the captured variables, and removes selected
                ones that were not there. Secrets are left as they are.
            sanitiser: Finds secrets; the usual tables if None.
            environ: os.environ if None.

        Raises:
            ComponentError: must_match names no aspect; what must be a list of texts is none.
        """
        self._patterns = texts_of(name, "variables", variables)
        self._must_match = texts_of(name, "must_match", must_match)
        self.name = name
        self._is_applied = apply_variables
        self._sanitiser = sanitiser or Sanitiser()
        for entry in self._must_match:
            if hint := self._fault_of(*entry.partition(".")):
                raise ComponentError(
                    f"must_match of the component {quoted(name)} holds {quoted(entry)}.", hint=hint
                )
        self._environ = os.environ if environ is None else environ
        self.differences: tuple[Difference, ...] = ()
        """What the last restore found different (before it applied anything)."""

    def look_ahead(self) -> None:
        """Read the installed packages, which takes the longest; capture() finds them read."""
        _packages()

    def capture(self) -> dict[str, Any]:
        """Return what is there now, secrets replaced."""
        variables, redacted = self._variables()
        return {
            "form": _SHAPE.form,
            "python": _python(),
            "platform": _platform(),
            "packages": _packages(),
            "directory": _shown(_directory()),
            "variables": variables,
            "redacted": redacted,
        }

    def restore(self, payload: Any) -> None:
        """Compare, refuse what must match, and set variables if asked to.

        Raises:
            ForeignPayloadError: The payload is not of this component.
            EnvironmentDiffersError: Something of must_match is different; nothing was set.
        """
        refuse_faults(self.name, _faults(payload))
        self.differences = self.compare(payload)
        refused = [one for one in self.differences if self._is_refused(one)]
        if refused:
            raise EnvironmentDiffersError(
                f"The environment is not the captured one: {'; '.join(map(str, refused[:5]))}"
                + (f"; and {len(refused) - 5} more." if len(refused) > 5 else "."),
                hint="Restore it by hand, or take the entry out of must_match.",
                component=self.name,
                differences=[list(one) for one in refused[:100]],
            )
        if self._is_applied:
            self._apply(payload["variables"], frozenset(payload["redacted"]))

    def validate(self, payload: Any) -> list[str]:
        """Return what is wrong with a payload, and what of it must match and does not."""
        return _faults(payload) or [
            f"must match, and does not: {one}"
            for one in self.compare(payload)
            if self._is_refused(one)
        ]

    def plan(self, stored: Any) -> Plan:
        """Return what is different, and whether a restore would change it (of a Stored)."""
        payload = stored.value()
        refuse_faults(self.name, _faults(payload))
        found = self.compare(payload)
        applied = [
            one
            for one in found
            if self._is_applied and one.aspect == "variables" and self._is_chosen(one.name)
        ]
        changes = tuple(
            Change("remove" if one.before is None else "change", f"{one.aspect} {one.name}")
            for one in applied
        )
        told = f" ({'; '.join(map(str, found[:_TOLD]))}{'; ...' if found[_TOLD:] else ''})"
        summary = f"{len(found)} differences{told if found else ''}, {len(changes)} to change"
        return Plan(changes, 0, summary)

    def compare(self, payload: Mapping[str, Any]) -> tuple[Difference, ...]:
        """Return what is different from a captured payload."""
        now = self.capture()
        hidden = frozenset([*payload["redacted"], *now["redacted"]])
        found: list[Difference] = []
        for aspect in ASPECTS:
            before, present = payload[aspect], now[aspect]
            if aspect == "directory":
                before, present = {"": before}, {"": present}
            skipped = hidden if aspect == "variables" else frozenset[str]()
            found += _differences(aspect, before, present, skipped)
        return tuple(found)

    def _fault_of(self, aspect: str, dot: str, name: str) -> str:
        """Return why an entry of must_match would guard nothing; "" where it does."""
        if aspect not in ASPECTS or (dot and not name):
            return f"Name one of {', '.join(ASPECTS)}, or one thing in it: packages.numpy."
        if not dot:
            return ""
        if name not in _NAMES.get(aspect, (name,)):
            return f"In {aspect} there is: {', '.join(_NAMES[aspect]) or 'nothing to name'}."
        if aspect == "variables" and not self._is_chosen(name):
            return "Let variables= choose it, too: it is not captured."
        if aspect == "variables" and self._sanitiser.key_is_secret(name):
            return "It is a secret, by its name: such are never captured, nor compared."
        return ""

    def _is_refused(self, one: Difference) -> bool:
        if one.aspect in self._must_match:
            return True
        told = (entry.partition(".") for entry in self._must_match)
        return any(
            aspect == one.aspect and _is_same_name(aspect, name, one.name)
            for aspect, _, name in told
        )

    def _variables(self) -> tuple[dict[str, str], list[str]]:
        variables, redacted = {}, []
        for name, text in sorted(self._selected()):
            cleaned, count = self._sanitiser.clean_text(text)
            if text and (count or self._sanitiser.key_is_secret(name)):
                redacted.append(name)
                cleaned = self._sanitiser.replacement
            variables[name] = cleaned
        for name in redacted:
            del variables[name]
        return variables, redacted

    def _selected(self) -> Iterator[tuple[str, str]]:
        for name, text in self._environ.items():
            if self._is_chosen(name) and _is_settable(name, text):
                yield _shown(name), _shown(text)

    def _is_chosen(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._patterns)

    def _apply(self, variables: Mapping[str, str], redacted: frozenset[str]) -> None:
        now, hidden = self._variables()
        for name in now.keys() - variables.keys() - redacted - frozenset(hidden):
            del self._environ[_real(name)]
        for name, text in variables.items():
            if self._is_chosen(name) and now.get(name) != text and name not in hidden:
                self._environ[_real(name)] = _real(text)


def _is_same_name(aspect: str, one: str, other: str) -> bool:
    """Say whether two names are of the same thing; packages are spelled in many ways (PEP 503)."""
    if aspect != "packages":
        return one == other
    plain = (_SEPARATORS.sub("-", name).lower() for name in (one, other))
    return len(set(plain)) == 1


def _faults(payload: Any) -> list[str]:
    faults = _SHAPE.faults(payload)
    if faults:
        return faults
    for aspect in ("python", "platform", "packages", "variables"):
        if any(type(text) is not str for text in payload[aspect].values()):
            faults.append(f"has something else than texts in {aspect!r}")
    if any(type(name) is not str for name in payload["redacted"]):
        faults.append("has something else than texts in 'redacted'")
    if any(not _is_settable(*pair) for pair in payload["variables"].items()):
        faults.append("has a variable that no process can have")
    return faults


def _differences(
    aspect: str, before: Mapping[str, str], now: Mapping[str, str], skipped: frozenset[str]
) -> Iterator[Difference]:
    for name in sorted((before.keys() | now.keys()) - skipped):
        if before.get(name) != now.get(name):
            yield Difference(aspect, name, before.get(name), now.get(name))


def _python() -> dict[str, str]:
    return {
        "implementation": platform.python_implementation(),
        "version": platform.python_version(),
        "executable": _shown(sys.executable or ""),
        "prefix": _shown(sys.prefix),
    }


def _directory() -> str:
    """Return the working directory; one that was removed as the system tells it, or ""."""
    with suppress(OSError):
        return os.getcwd()  # noqa: PTH109 - the text is what is kept
    with suppress(OSError):
        return os.readlink("/proc/self/cwd")  # noqa: PTH115 - likewise
    return ""


def _platform() -> dict[str, str]:
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
    }


def _packages() -> dict[str, str]:
    """Return the installed distributions and their versions, of each the one first on the path.

    Cost: some milliseconds for each ten the first time; nothing until a folder of the path changes.
    """
    return dict(_packages_at(tuple((folder, _changed_at(folder)) for folder in sys.path)))


@lru_cache(maxsize=4)
def _packages_at(_path: tuple[tuple[str, int], ...]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for one in metadata.distributions():
        fields = one.metadata
        if "Name" in fields and "Version" in fields:
            found.setdefault(_shown(fields["Name"]), _shown(fields["Version"]))
    return tuple(sorted(found.items()))


def _changed_at(folder: str) -> int:
    try:
        return Path(folder or ".").stat().st_mtime_ns
    except OSError:
        return 0


def _is_settable(name: str, text: str) -> bool:
    return bool(name) and "=" not in name and "\0" not in f"{name}{text}"


def _shown(text: str) -> str:
    """Return a text of the system as a storable one.

    Bytes that are no UTF-8 come from the system as lone surrogates, which cannot be stored.
    """
    is_storable = text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)
    if is_storable and not text.startswith(_MARK):
        return text
    return _MARK + text.encode("utf-8", "surrogateescape").hex()


def _real(text: str) -> str:
    """Return what `_shown` was made of."""
    if not text.startswith(_MARK):
        return text
    return bytes.fromhex(text.removeprefix(_MARK)).decode("utf-8", "surrogateescape")
