"""Nothing grows past what one head holds: 600 lines a file, 800 of tests, 60 a function."""

from __future__ import annotations

import ast

from tests.architecture.tree import python_files, text_files

FILE_LINES_MAX = 600
# A list of cases is read one at a time.
TEST_LINES_MAX = 800
FUNCTION_LINES_MAX = 60


def test_files():
    sizes = {name: text.count("\n") for name, text in text_files() if name.endswith(".py")}
    too_long = {
        name: size
        for name, size in sizes.items()
        if size > (TEST_LINES_MAX if name.startswith("tests/") else FILE_LINES_MAX)
    }
    assert too_long == {}


def test_functions():
    too_long = {}
    for name, tree in python_files("ckptlog", "tools"):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > FUNCTION_LINES_MAX:
                    too_long[f"{name}:{node.lineno} {node.name}"] = size
    assert too_long == {}
