"""Groups of settings: from a dictionary to dataclasses whose every value is checked, and back.

A group is a dataclass of settings (`model.setting`) and of smaller groups. What it refuses, and
where it says that a key belongs, stands in its class attributes. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from ckptlog.errors import SettingsError
from ckptlog.model.quotation import quoted
from ckptlog.model.setting import Setting, camel, nearest, setting_of, snake, wrong
from ckptlog.model.setting_fault import SettingFaults


class Group:
    """A dataclass of settings, each checked when it is made.

    Class attributes:
        PLACE: In front of its keys, with a dot; "" for the outermost one.
        PASSED_ON: Keys that are kept as they are, in a field `manager`.
        ELSEWHERE: Keys that have another name here, and which.
        REFUSED: Keys that are known, and what raises for their values.
    """

    PLACE: ClassVar[str] = ""
    PASSED_ON: ClassVar[Iterable[str]] = ()
    ELSEWHERE: ClassVar[Mapping[str, str]] = {}
    REFUSED: ClassVar[Mapping[str, Callable[[Any], None]]] = {}

    def __post_init__(self) -> None:
        faults = SettingFaults()
        for one in dataclasses.fields(self):  # type: ignore[arg-type]
            with faults.collected():
                self._check(one)
        for check in self.checks():
            with faults.collected():
                check()
        faults.tell()

    def checks(self) -> Iterable[Callable[[], object]]:
        """Return what else refuses values: those that are good by themselves."""
        return ()

    def _check(self, field: dataclasses.Field[Any]) -> None:
        setting, value = setting_of(field), getattr(self, field.name)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(self, field.name, value)
        if setting is not None and not setting.is_good(value):
            raise wrong(self.PLACE + camel(field.name), value, setting.wanted)
        group = _group_of(field)
        if group is not None and not isinstance(value, group):
            wanted = f"a {group.__name__} (a dict is what from_dict takes)"
            raise wrong(self.PLACE + camel(field.name), value, wanted)


def walk(group: Any, place: str = "") -> Iterator[tuple[str, tuple[Setting, Any]]]:
    """Yield each setting below a group: its path, what is declared of it, and its value."""
    for one in dataclasses.fields(group):
        path, value = place + camel(one.name), getattr(group, one.name)
        if setting := setting_of(one):
            yield path, (setting, value)
        elif dataclasses.is_dataclass(value):
            yield from walk(value, f"{path}.")


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a path of a tree."""
    *groups, name = path.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[name] = value


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree over another; keys in either spelling."""
    found: dict[str, Any] = {camel(snake(name)): value for name, value in below.items()}
    for given, value in above.items():
        name = camel(snake(given))
        old = found.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            found[name] = merged(old, value)
        else:
            found[name] = value
    return found


def made(
    kind: type[Any], settings: Mapping[str, Any], everywhere: Callable[[], Iterable[str]]
) -> Any:
    """Return a group out of a dictionary.

    Args:
        everywhere: Gives the paths of all settings, among which a wrong key may be meant.

    Raises:
        SettingsError: Keys are unknown, stand twice, or have wrong values; all paths are told.
    """
    faults = SettingFaults()
    fields = {one.name: one for one in dataclasses.fields(kind) if one.name != "manager"}
    found: dict[str, Any] = {}
    manager: dict[str, Any] = {}
    for given, value in settings.items():
        name = snake(given) if type(given) is str else quoted(given)
        path = kind.PLACE + camel(name)
        with faults.collected():
            if name in found or name in manager:
                raise SettingsError(f"The setting {path} is given twice.", argument=path)
            if name in fields:
                group = _group_of(fields[name])
                found[name] = value if group is None else _nested(group, path, value, everywhere)
            elif name in kind.PASSED_ON:
                manager[name] = value
            elif name in kind.REFUSED:
                kind.REFUSED[name](value)
            else:
                raise _unknown(kind, fields, str(given), everywhere)
    with faults.collected():
        group_made = kind(**found, **({"manager": manager} if manager else {}))
    faults.tell()
    return group_made


def _group_of(field: dataclasses.Field[Any]) -> type[Any] | None:
    factory: Any = field.default_factory
    return factory if isinstance(factory, type) and issubclass(factory, Group) else None


def _nested(
    group: type[Any], path: str, value: Any, everywhere: Callable[[], Iterable[str]]
) -> Any:
    if isinstance(value, group):
        return value
    if not isinstance(value, Mapping):
        error = wrong(path, value, "a table of settings (a dict)")
        names = (one.name for one in dataclasses.fields(group) if one.name != "manager")
        error.hint = _listed(names)
        raise error
    return made(group, value, everywhere)


def _unknown(
    kind: type[Any],
    fields: Mapping[str, Any],
    given: str,
    everywhere: Callable[[], Iterable[str]],
) -> SettingsError:
    path, name = kind.PLACE + given, snake(given)
    if name in kind.ELSEWHERE:
        hint = f"Here it is {kind.ELSEWHERE[name]}."
    elif meant := nearest(name, [*fields, *kind.PASSED_ON]):
        hint = f"Did you mean {kind.PLACE}{camel(meant)}?"
    elif places := [one for one in everywhere() if one.split(".")[-1] == camel(name)]:
        hint = f"Did you mean {places[0]}?"
    else:
        hint = _listed(fields)
    return SettingsError(f"There is no setting {quoted(path)}.", hint=hint, argument=path[:80])


def _listed(names: Iterable[str]) -> str:
    return f"Here are: {', '.join(sorted(map(camel, names)))}."


def lacking(path: str, what: str, hint: str) -> SettingsError:
    """Return the error for a setting that asks for what this version does not have."""
    return SettingsError(
        f"{path} is set. {what} is what this version of ckptlog does not have.",
        hint=hint,
        argument=path,
    )


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a table of JSON; a key that stands twice is refused."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingsError(f"The setting {twice} is given twice.", argument=twice)
    return found
