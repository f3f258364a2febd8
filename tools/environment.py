"""Make `.venv`, the project's own Python environment, complete or not at all.

Runs under any Python from 3.11, with the standard library alone. Rules:

1. A stamp inside `.venv` says what a complete install was made from (settings, constraints,
   interpreter, place). It is written last and removed first.
2. No stamp, a foreign stamp, or an interpreter that does not start: the environment is unfinished
   or broken, so it is deleted and made again.
3. A stamp of older settings: the environment is complete, so pip brings it up to date in place.
4. One process at a time (`.venv.lock`); the others wait and find it done.

Usage: environment.py [--test]    (--test adds what the tests need, Debian packages too)
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "complete.json"
PYTHON = VENV / "bin" / "python"
CONSTRAINTS = ROOT / "constraints.txt"
KERNEL = ROOT / "ckptlog" / "kernel"

# Debian packages that tests need, a program of each (or a pattern of its path), and what is
# skipped without it.
DEBIAN_PACKAGES = {
    "postgresql": (
        "/usr/lib/postgresql/*/bin/initdb",
        "tests of the import from PostgreSQL",
    ),
    "strace": ("strace", "tests marked strace (faults injected into system calls)"),
    "spin": ("spin", "tests of the protocols' models (tests/models)"),
    "gcc": ("gcc", "tests of the protocols' models (tests/models)"),
}


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


def say(text: str) -> None:
    """Print one line about what happens; stdout belongs to the job."""
    print(f"[ckptlog] {text}", file=sys.stderr, flush=True)


def is_superuser() -> bool:
    """Tell whether packages can be installed with apt-get."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install_debian(package: str) -> bool:
    """Install one Debian package; lists are fetched only if the first try fails."""
    say(f"installing the Debian package {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
    for command in (install, ["apt-get", "update", "-q"], install):
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if command is install and done.returncode == 0:
            return True
    return False


def fingerprint() -> dict[str, str]:
    """Describe what a complete install is made from, as far as it can go stale."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    relevant = [settings["project"], settings["build-system"], settings["tool"]["hatch"]]
    text = json.dumps(relevant, sort_keys=True) + CONSTRAINTS.read_text(encoding="utf-8")
    for source in sorted(KERNEL.glob("*.[ch]")):  # compiled by the installation
        text += source.read_text(encoding="utf-8")
    return {
        "place": str(VENV),
        "settings": hashlib.sha256(text.encode()).hexdigest(),
    }


def read_stamp() -> dict[str, str]:
    """Return the stamp of a working environment in this place, or {} if there is none."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        # A moved tree keeps scripts that start the old place's interpreter.
        if stamp["place"] != str(VENV):
            return {}
        subprocess.run([PYTHON, "-I", "-c", "import pip"], check=True, capture_output=True)
    except (OSError, ValueError, KeyError, TypeError, subprocess.CalledProcessError):
        return {}
    return dict(stamp)


def can_bootstrap() -> bool:
    """Tell whether this Python can make environments; Debian packs ensurepip separately."""
    # A new process each time: this one may have started before ensurepip was installed.
    script = "import venv; from ensurepip import bootstrap"
    command = [sys.executable, "-I", "-c", script]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def make_venv() -> None:
    """Replace `.venv` by a new, empty environment."""
    if VENV.is_symlink():
        VENV.unlink()
    elif VENV.exists():
        say("the environment in .venv is unfinished or broken; making it again")
        shutil.rmtree(VENV)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    say(f"making .venv with Python {version} ({sys.executable})")
    if not can_bootstrap():
        package = f"python{version}-venv"
        advice = f"Run: apt-get install {package}   (as root), then call this again."
        if not is_superuser():
            raise SetupError(f"{sys.executable} cannot make environments (no ensurepip). {advice}")
        if not (install_debian(package) and can_bootstrap()):
            raise SetupError(f"apt-get could not install {package}. {advice}")
    subprocess.run([sys.executable, "-I", "-m", "venv", VENV], check=True)


def pip_install(*arguments: str) -> None:
    """Install with the exact versions of constraints.txt."""
    command = [str(PYTHON), "-I", "-m", "pip", "install", "-qq", "--constraint"]
    subprocess.run(
        [*command, str(CONSTRAINTS), *arguments],
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        cwd=ROOT,
        check=True,
    )


def install(extra: str) -> None:
    """Install the build backend, then the project (editable) with an extra."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    say("installing the packages pinned in constraints.txt" + (" (with test)" if extra else ""))
    # The backend is pinned too: a build of its own would fetch whatever is newest.
    pip_install(*settings["build-system"]["requires"])
    pip_install("--no-build-isolation", "--editable", f".{extra}")


def prepare(*, with_tests: bool) -> None:
    """Bring `.venv` to what the settings ask for."""
    wanted = fingerprint()
    stamp = read_stamp()
    is_current = stamp.get("settings") == wanted["settings"]
    if is_current and (stamp.get("extra") or not with_tests):
        return
    if not stamp:
        make_venv()
    extra = "[test]" if with_tests or stamp.get("extra") else ""
    STAMP.unlink(missing_ok=True)
    install(extra)
    STAMP.write_text(json.dumps({**wanted, "extra": extra}, indent=1) + "\n", encoding="utf-8")


def has_program(program: str) -> bool:
    """Tell whether a program is on PATH, or where a pattern of whole paths says."""
    if shutil.which(program):
        return True
    return any(Path("/").glob(program.removeprefix("/")))


def prepare_debian() -> None:
    """Install the Debian packages that tests need, or say which tests will be skipped."""
    for package, (program, tests) in DEBIAN_PACKAGES.items():
        if has_program(program) or (is_superuser() and install_debian(package)):
            continue
        say(f"no {Path(program).name} here (apt-get install {package}, as root): skipping {tests}")
    if os.geteuid() != 0:
        say("not root: skipping tests marked root (full disks on small mounts)")


def main() -> int:
    """Prepare under the lock; one line and exit status 1 if it cannot be done."""
    with_tests = "--test" in sys.argv[1:]
    try:
        with (ROOT / ".venv.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            prepare(with_tests=with_tests)
        if with_tests:
            prepare_debian()
    except SetupError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"cannot make {VENV}: {error}. The project's directory must be writable.")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next call begins again")
        return 130
    except subprocess.CalledProcessError as error:
        say(f"failed: {' '.join(map(str, error.cmd))} (status {error.returncode}); call again")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
