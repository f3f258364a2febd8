"""Check that the rooms of a package import downwards only.

The rooms (sub-packages or modules right inside the package) stand in pyproject.toml, from the
bottom up; rooms in one list are on one level:

    [tool.layers]
    package = "ckptlog"
    order = [["errors"], ["model"], ["formats", "policy"]]

A room may import itself and rooms on lower levels: never a higher one (upwards), one of its own
level (sideways), or one that is not listed. Every import statement counts, wherever it stands: in
a function, under `if TYPE_CHECKING`, relative or absolute, and `import_module("...")` with a
literal name. The package's own `__init__` and `__main__` are the front door and free. Only the
rooms on the top level may come in through that door (`import ckptlog`), as a user would: from any
lower room it would be a way to see what lies above.

Usage: layer_check.py [PROJECT]    exit status 0: no breach, 1: breaches, 2: bad settings
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FRONT_DOOR = frozenset({"__init__", "__main__"})


class LayerSettingsError(ValueError):
    """The table [tool.layers] is missing or says something impossible."""


@dataclass(frozen=True)
class Layers:
    """The order of a package's rooms.

    package: Name of the package.
    levels: Level of each room; 0 is the bottom.
    """

    package: str
    levels: dict[str, int]

    @classmethod
    def from_pyproject(cls, path: Path) -> Layers:
        """Read the table [tool.layers].

        Raises:
            LayerSettingsError: It is missing, malformed, or names a room twice.
        """
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("layers", {})
        try:
            package, order = table["package"], table["order"]
            rooms = [(room, level) for level, line in enumerate(order) for room in line]
        except (KeyError, TypeError) as error:
            message = f"{path}: [tool.layers] needs `package` and `order`, a list of lists."
            raise LayerSettingsError(message) from error
        names = [room for room, _ in rooms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise LayerSettingsError(f"{path}: [tool.layers] names {', '.join(twice)} twice.")
        return cls(package, dict(rooms))

    def verdict(self, room: str, target: str) -> str | None:
        """Say why `room` may not import the room `target`; None if it may."""
        if target == room:
            return None
        if target not in self.levels:
            return "not listed"
        if self.levels[target] < self.levels[room]:
            return None
        return "sideways" if self.levels[target] == self.levels[room] else "upwards"

    def is_top(self, room: str) -> bool:
        """Tell whether no room lies above."""
        return self.levels[room] == max(self.levels.values())


@dataclass(frozen=True, order=True)
class Breach:
    """One import that breaks the order."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


def imported_names(tree: ast.Module, package: list[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute dotted name) of every import in a module that lies in `package`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package[: len(package) - level + 1] if level else []
                origin = ".".join([*above, *([module] if module else [])])
                yield from ((node.lineno, f"{origin}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def check_file(path: Path, inside: Path, layers: Layers) -> Iterator[Breach]:
    """Yield the breaches of one file; `inside` is its path below the package."""
    room = inside.parts[0].removesuffix(".py")
    if room in FRONT_DOOR:
        return
    if room not in layers.levels:
        yield Breach(path, 1, f"room {room!r} is not listed in [tool.layers]")
        return
    package = [layers.package, *inside.parent.parts]
    for line, name in imported_names(ast.parse(path.read_bytes(), str(path)), package):
        top, _, rest = name.partition(".")
        if top != layers.package:
            continue
        target = rest.partition(".")[0]
        if target not in layers.levels and not is_module(path, inside, target):
            if not layers.is_top(room):
                yield Breach(path, line, f"{room} imports the front door ({name})")
        elif reason := layers.verdict(room, target):
            yield Breach(path, line, f"{room} imports {target} ({reason}: {name})")


def is_module(path: Path, inside: Path, room: str) -> bool:
    """Tell whether a name right below the package is a module rather than one of its values."""
    root = path.parents[len(inside.parts) - 1]
    return bool(room) and ((root / room).is_dir() or (root / f"{room}.py").is_file())


def check_project(project: Path) -> list[Breach]:
    """Return every breach in a project, in order of file and line.

    Raises:
        LayerSettingsError: The settings are wrong.
    """
    layers = Layers.from_pyproject(project / "pyproject.toml")
    root = project / layers.package
    if not root.is_dir():
        raise LayerSettingsError(f"{root}: [tool.layers] names a package that is not there.")
    files = sorted(root.rglob("*.py"))
    return sorted(
        breach for path in files for breach in check_file(path, path.relative_to(root), layers)
    )


def main(arguments: list[str]) -> int:
    """Print every breach of the project named by the first argument (default: this one)."""
    project = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    try:
        breaches = check_project(project)
    except (OSError, SyntaxError, LayerSettingsError) as error:
        print(error, file=sys.stderr)
        return 2
    for breach in breaches:
        print(breach)
    print(f"layers: {len(breaches)} breach(es)" if breaches else "layers: no breach")
    return 1 if breaches else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
