"""The build hook that compiles ckptlog/kernel/*.c, where the machine has a C compiler.

Without one (or without Python's headers) the package is installed without the kernel: everything
works, small writes take longer. Called by hatchling for wheels and editable installs; by hand:
`build_kernel.py` compiles in place and exits with 1 where that failed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "ckptlog" / "kernel"
# What the interpreter was compiled with decides about speed; the rest is said here.
FLAGS = ("-O3", "-fPIC", "-std=c11", "-Wall", "-Wextra", "-fvisibility=hidden")


def target() -> Path:
    """Return where the compiled kernel of this interpreter lies."""
    return FOLDER / f"_kernel{sysconfig.get_config_var('EXT_SUFFIX')}"


def command(output: Path) -> list[str]:
    """Return the compiler's command."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    shared = (
        ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
    )
    includes = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]
    sources = sorted(map(str, FOLDER.glob("*.c")))
    return [*compiler, *FLAGS, *includes, *shared, *sources, "-o", str(output)]


def compile_kernel() -> str:
    """Compile in place; return what went wrong, "" where nothing did."""
    output = target()
    temporary = output.with_suffix(".tmp")
    fault = _run(command(temporary))
    if fault:
        temporary.unlink(missing_ok=True)
        output.unlink(missing_ok=True)  # one of an older source must not stay
    else:
        # Never written over: another process may have it loaded.
        temporary.replace(output)
    return fault


def _run(words: list[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"no C compiler: {error}"
    if done.returncode == 0:
        return ""
    lines = (done.stderr or done.stdout).strip().splitlines()
    return f"{words[0]} ended with {done.returncode}: {lines[-1] if lines else 'nothing said'}"


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # called by hand
    pass
else:

    class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
        """Adds the compiled kernel to a wheel."""

        PLUGIN_NAME = "custom"

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile before the wheel is put together."""
            if self.target_name != "wheel":
                return
            fault = compile_kernel()
            if fault:
                self.app.display_warning(f"ckptlog is installed without its C kernel: {fault}")
                return
            if version != "editable":
                build_data["pure_python"] = False
                build_data["infer_tag"] = True
                name = target().name
                build_data["force_include"][str(target())] = f"ckptlog/kernel/{name}"


if __name__ == "__main__":
    problem = compile_kernel()
    print(problem or target().name)
    raise SystemExit(bool(problem))
