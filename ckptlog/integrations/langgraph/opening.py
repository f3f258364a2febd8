"""What a saver works on: a path, an open store, or a manager of one; and how it was asked to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypedDict

from ckptlog.errors import SettingsError
from ckptlog.integrations.langgraph.codec import codec_of, codecs_of
from ckptlog.manager.manager import CheckpointManager
from ckptlog.model.codec import Codecs, TypeCodec
from ckptlog.model.quotation import quoted
from ckptlog.repository.opening import open_store
from ckptlog.repository.store import Store

Answer = Literal["refuse", "accept"]
ANSWERS: Final = ("refuse", "accept")
STATE_SIZE_MB_MAX: Final = 256.0
WORKERS_MAX: Final = 8


class SaverOptions(TypedDict, total=False):
    """Options of a saver; `ckptlog.open`'s may stand beside them in `CkptlogSaver.open`.

    types: Classes of your own in the state: dataclasses, enums, named tuples, pydantic models,
        or a `TypeCodec` for any other.
    late_writes: What becomes of a put or a write that belongs to something deleted: "refuse".
    second_children: Whether a second put on one parent is a fork ("accept") or a conflict
        ("refuse"); a put whose metadata says "fork" always is a fork.
    sanitise: Replace secrets in what is stored (off: they are a part of the state).
    state_size_mb_max: Limit of one checkpoint, MiB.
    workers_max: Threads for the asynchronous methods.
    """

    types: Iterable[type | TypeCodec]
    late_writes: Answer
    second_children: Answer
    sanitise: bool
    state_size_mb_max: float
    workers_max: int


NAMES: Final = frozenset(SaverOptions.__annotations__)


class Options(NamedTuple):
    """The same, checked."""

    types: tuple[type | TypeCodec, ...] = ()
    accepts_late: bool = False
    accepts_second: bool = True
    sanitise: bool = False
    state_size_mb_max: float = STATE_SIZE_MB_MAX
    workers_max: int = WORKERS_MAX


def options_of(given: Mapping[str, Any]) -> Options:
    """Return options, checked.

    Raises:
        SettingsError: One is unknown, or of a wrong kind.
    """
    if unknown := sorted(set(given) - NAMES):
        raise SettingsError(
            f"The saver has no option {unknown[0]!r}.",
            hint=f"Options are: {', '.join(sorted(NAMES))}.",
            argument=unknown[0],
        )
    types = given.get("types", ())
    if isinstance(types, str | bytes | type) or not isinstance(types, Iterable):
        raise _wrong("types", types, "a list of classes")
    sanitise = given.get("sanitise", False)
    if type(sanitise) is not bool:
        raise _wrong("sanitise", sanitise, "True or False")
    return Options(
        tuple(types),
        _answer(given, "late_writes", "refuse") == "accept",
        _answer(given, "second_children", "accept") == "accept",
        sanitise,
        _number(given, "state_size_mb_max", STATE_SIZE_MB_MAX, (int, float)),
        int(_number(given, "workers_max", WORKERS_MAX, (int,))),
    )


def manager_of(source: Store | CheckpointManager) -> CheckpointManager:
    """Return a manager of what was given.

    Raises:
        SettingsError: It is neither.
    """
    if isinstance(source, CheckpointManager):
        return source
    if isinstance(source, Store):
        return CheckpointManager(store=source)
    raise SettingsError(
        f"{quoted(source)} is neither a store nor a manager.",
        hint="With a path: CkptlogSaver.open(path).",
        argument="source",
    )


def store_at(path: str | Path, options: Options, given: Mapping[str, Any]) -> Store:
    """Open the store at a path, made where it is missing.

    Args:
        given: Options of `ckptlog.open`.

    Raises:
        ArgumentError: One of them is wrong.
        CheckpointStorageError: The store cannot be opened.
    """
    others = dict(given)
    codecs = registry(options, others.pop("codecs", ()))
    return open_store(path, create=True, codecs=codecs, **others)


def registry(options: Options, others: Codecs | Iterable[TypeCodec]) -> Codecs:
    """Return a saver's codecs: its own, its user's, its store's."""
    return codecs_of(options.types, Codecs.of(others))


def is_storable(kind: type) -> bool:
    """Say whether a class can be stored by its own fields."""
    try:
        codec_of(kind)
    except SettingsError:
        return False
    return True


def _answer(given: Mapping[str, Any], name: str, default: Answer) -> Answer:
    answer: Any = given.get(name, default)
    if answer not in ANSWERS:
        raise _wrong(name, answer, " or ".join(repr(one) for one in ANSWERS))
    return answer  # type: ignore[no-any-return]


def _number(given: Mapping[str, Any], name: str, default: float, kinds: tuple[type, ...]) -> float:
    number = given.get(name, default)
    if type(number) not in kinds or not 0 < number < 1e9:
        raise _wrong(name, number, "a number above 0")
    return float(number)


def _wrong(name: str, value: object, wanted: str) -> SettingsError:
    return SettingsError(f"{name} is {quoted(value)}; {wanted} is needed.", argument=name)
