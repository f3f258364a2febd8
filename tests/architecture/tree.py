"""The files of the project, for the tests that read them as text or as syntax."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ckptlog"
NOT_OURS = {".git", ".venv", "__pycache__", "build", "dist", "htmlcov", ".bench"}


def _walk(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.name in NOT_OURS or path.name.endswith(("_cache", ".egg-info")):
            continue
        found += _walk(path) if path.is_dir() and not path.is_symlink() else [path]
    return found


@cache
def project_files() -> tuple[Path, ...]:
    """List what git holds or would add; without git (an unpacked copy), what lies here."""
    listing = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
        top = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        if Path(top.stdout.strip()).resolve() != ROOT:
            return tuple(_walk(ROOT))
    except (OSError, subprocess.CalledProcessError):
        return tuple(_walk(ROOT))
    files = [ROOT / name for name in done.stdout.split("\0") if name]
    return tuple(sorted(path for path in files if path.is_file()))


@cache
def text_files() -> tuple[tuple[str, str], ...]:
    """List (path below the root, text) of every file that is text."""
    found = []
    for path in project_files():
        raw = path.read_bytes()
        if b"\0" not in raw[:8192]:
            found.append((str(path.relative_to(ROOT)), raw.decode("utf-8", "replace")))
    return tuple(found)


@cache
def python_files(*folders: str) -> tuple[tuple[str, ast.Module], ...]:
    """List (path below the root, syntax tree) of every Python file in some top folders."""
    return tuple(
        (name, ast.parse(text, name))
        for name, text in text_files()
        if name.endswith(".py") and name.split("/", 1)[0] in folders
    )
