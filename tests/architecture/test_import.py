"""What an import brings with it, and what may be imported."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from tests.architecture.tree import PACKAGE, ROOT, python_files

HEAVY = ("argparse", "cryptography", "numpy", "pyarrow", "rich", "watchfiles")


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that a new interpreter holds after a statement."""
    script = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    # Coverage measures child processes by loading itself into them; not into this one.
    environment = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_import_of_ckptlog_is_light():
    loaded = modules_after("import ckptlog")
    assert "ckptlog" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.skipif(
    not (PACKAGE / "__init__.py").exists(), reason="the public face is not there yet"
)
def test_use_of_the_manager_is_light():
    loaded = modules_after("import ckptlog; ckptlog.CheckpointManager; ckptlog.open")
    assert loaded.isdisjoint(HEAVY)


def imports_when_loaded(tree: ast.Module) -> set[str]:
    """Return the top-level packages that a module imports outside its functions."""
    found = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue  # never loaded
            case ast.Import(names=names):
                found |= {alias.name.split(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.split(".")[0])
        waiting += ast.iter_child_nodes(node)
    return found


def test_no_room_below_the_command_line_loads_a_heavy_library():
    breaches = [
        f"{name}: {sorted(heavy)}"
        for name, tree in python_files("ckptlog")
        if not name.startswith("ckptlog/cli/")
        and (heavy := imports_when_loaded(tree).intersection(HEAVY))
    ]
    assert breaches == []


def test_no_underscore_name_crosses_a_module():
    breaches = []
    for name, tree in python_files("ckptlog", "tools"):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module != "__future__":
                breaches += [
                    f"{name}:{node.lineno}: {alias.name}"
                    for alias in node.names
                    if alias.name.startswith("_") and not alias.name.endswith("__")
                ]
    assert breaches == []


def names_of_ours(tree: ast.Module) -> set[str]:
    """Return the names that a module's imports of the project's own modules bind."""
    bound = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("ckptlog"):
                bound |= {alias.asname or alias.name for alias in names}
            case ast.Import(names=names):
                ours = [alias for alias in names if alias.name.startswith("ckptlog")]
                bound |= {(alias.asname or alias.name).split(".")[0] for alias in ours}
    return bound


def test_no_underscore_attribute_of_another_module_is_used():
    breaches = []
    for name, tree in python_files("ckptlog", "tools"):
        ours = names_of_ours(tree)
        breaches += [
            f"{name}:{node.lineno}: {node.value.id}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ours
            and node.attr.startswith("_")
            and not node.attr.endswith("__")
        ]
    assert breaches == []


def test_no_pickle_and_no_eval_in_the_package():
    breaches = []
    for name, tree in python_files("ckptlog"):
        for node in ast.walk(tree):
            match node:
                case ast.Import(names=names):
                    breaches += [
                        f"{name}: {alias.name}"
                        for alias in names
                        if alias.name in {"pickle", "marshal", "shelve", "dill"}
                    ]
                case ast.ImportFrom(module="pickle" | "marshal" | "shelve" | "dill" as module):
                    breaches.append(f"{name}: {module}")
                case ast.Call(func=ast.Name(id="eval" | "exec" as call)):
                    breaches.append(f"{name}: {call}")
    assert breaches == []
