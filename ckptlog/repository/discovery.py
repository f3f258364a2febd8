"""Which store a command works on.

`--store PATH` first; then `$CKPTLOG_STORE`; then, going up from the working directory, the
nearest directory that holds a store as `.ckptlog` or as `.taskmaster/checkpoints` (in one
directory, the first of the two). A store is a directory with a `store.json`; nothing is opened
here. Page: specs/cli.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "CKPTLOG_STORE"
PLACES = (Path(".ckptlog"), Path(".taskmaster/checkpoints"))
MARK = "store.json"


@dataclass(frozen=True)
class Found:
    """A store's path, and how it was found: `option`, `environment` or `directory`."""

    path: Path
    source: str

    @property
    def note(self) -> str:
        """What to tell the user; empty when the user named the store on the command line."""
        if self.source == "option":
            return ""
        how = f"${VARIABLE}" if self.source == "environment" else "found from here upwards"
        return f"store {self.path} ({how})"


def find_store(option: str | None, environ: Mapping[str, str], directory: Path) -> Found:
    """Return the store to work on.

    Args:
        option: What followed `--store`; None without it.
        directory: Where the search starts, going up.

    Raises:
        StoreMissingError: Nothing names a store and none was found.
        ArgumentError: option is empty.
    """
    if (named_path := one_path(None, "", option)) is not None:
        return Found(named_path, "option")
    if named := environ.get(VARIABLE):
        return Found(Path(named), "environment")
    for parent in (directory, *directory.parents):
        for place in PLACES:
            if (parent / place / MARK).is_file():
                return Found(parent / place, "directory")
    raise _missing(directory)


def one_path(given: str | None, name: str, store: str | None) -> Path | None:
    """Return the path that an argument or `--store` names, or None where neither does.

    Args:
        given: The argument's value; name is what the user calls it.

    Raises:
        ArgumentError: They name different places, or one is empty.
    """
    if "" in {given, store}:
        from ckptlog.errors import ArgumentError

        raise ArgumentError(
            f"{name if given == '' else '--store'} is empty.", hint="Name a directory."
        )
    if given is None or store is None:
        named = store if given is None else given
        return None if named is None else Path(named)
    if Path(given).absolute() != Path(store).absolute():
        from ckptlog.errors import ArgumentError

        raise ArgumentError(
            f"{name} is {given!r}, and --store is {store!r}.", hint="Name one of the two."
        )
    return Path(given)


def _missing(directory: Path) -> LookupError:
    from ckptlog.errors import StoreMissingError

    hint = f"Make one with `ckptlog init`, name one with --store PATH, or set ${VARIABLE}."
    if old := _old_layout(directory):
        hint = (
            f"{old} holds checkpoints of the old layout: `ckptlog init {old}`, then "
            f"`ckptlog --store {old} import legacy {old}`."
        )
    return StoreMissingError(
        f"No store was found in {directory} or above it.", hint=hint, path=str(directory)
    )


def _old_layout(directory: Path) -> Path | None:
    for parent in (directory, *directory.parents):
        for place in PLACES:
            folder = parent / place
            if any(folder.glob("checkpoint_*.json*")) or any(folder.glob("*/checkpoint_*.json*")):
                return folder
    return None
