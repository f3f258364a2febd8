"""The error tree: drawn as it is, one code per class, documented, mapped, fit to travel."""

from __future__ import annotations

import builtins
import errno
import importlib.util
import pickle
import re
from typing import NamedTuple

import pytest

from ckptlog import errors
from tests.architecture.tree import ROOT, text_files

CLASSES = sorted(
    (
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.CheckpointError)
    ),
    key=lambda kind: kind.__name__,
)
CODE = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")


class Drawn(NamedTuple):
    """One line of the tree in the docstring of ckptlog.errors."""

    parent: str | None
    also: str
    code: str | None


class Documented(NamedTuple):
    """One row of the table in specs/errors.md."""

    kind: str
    exit_status: int
    http_status: int
    meaning: str
    advice: str


def drawn_tree() -> dict[str, Drawn]:
    """Parse the docstring: name -> parent by indentation, remark in brackets, code."""
    line = re.compile(r"    ((?:[|] {3}| {4})*)([|`]-- )?(\w+Error)(?: \((.+)\))?(?: +(\S+))?$")
    found: dict[str, Drawn] = {}
    path: list[str] = []
    for text in (errors.__doc__ or "").splitlines():
        if match := line.match(text):
            bars, joint, name, also, code = match.groups()
            depth = len(bars) // 4 + 1 if joint else 0
            path[depth:] = [name]
            found[name] = Drawn(path[depth - 1] if depth else None, also or "", code)
    return found


def documented_table() -> dict[str, Documented]:
    """Parse specs/errors.md: code -> row."""
    found = {}
    for line in (ROOT / "specs" / "errors.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and CODE.fullmatch(cells[0].strip("`")):
            code, kind, exit_status, http_status, meaning, advice = cells
            assert code.strip("`") not in found, f"{code} stands twice"
            row = Documented(kind.strip("`"), int(exit_status), int(http_status), meaning, advice)
            found[code.strip("`")] = row
    return found


def test_every_class_has_a_code_of_its_own():
    codes = [str(vars(kind).get("code")) for kind in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(CODE.fullmatch(code) for code in codes)


def test_the_tree_is_drawn_as_it_is():
    drawn = drawn_tree()
    assert sorted(drawn) == [kind.__name__ for kind in CLASSES]
    for kind in CLASSES:
        line = drawn[kind.__name__]
        if line.parent:
            assert kind.__bases__[0].__name__ == line.parent
        is_branch = bool(kind.__subclasses__())
        assert line.code == kind.code or (is_branch and line.code is None), kind.__name__


def test_the_tree_draws_the_builtin_bases():
    drawn = drawn_tree()
    for kind in CLASSES[:]:
        if kind is errors.CheckpointError:
            continue
        also = {base.__name__ for base in kind.__bases__ if vars(builtins).get(base.__name__)}
        words = {word for word in drawn[kind.__name__].also.split(", ") if hasattr(builtins, word)}
        assert also == words, kind.__name__


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_says_what_it_means(kind):
    assert (kind.__doc__ or "").strip().endswith(".") or "\n" in kind.__doc__


def test_every_code_is_documented():
    documented = documented_table()
    assert {code: row.kind for code, row in documented.items()} == {
        kind.code: kind.__name__ for kind in CLASSES
    }
    for code, row in documented.items():
        assert row.meaning.endswith("."), code
        assert row.advice.endswith("."), code


def test_the_documented_statuses_fit():
    for code, row in documented_table().items():
        kind = next(kind for kind in CLASSES if kind.code == code)
        assert 1 <= row.exit_status <= 6, code
        assert 400 <= row.http_status <= 599, code
        assert ("Retryable." in row.meaning) == kind.retryable, code
        # A client's mistake is 4xx, ours and the medium's 5xx; only the latter can pass by itself.
        assert not kind.retryable or row.http_status >= 500, code


@pytest.mark.skipif(
    importlib.util.find_spec("ckptlog.cli.exit_status") is None, reason="no command line yet"
)
def test_the_command_line_keeps_the_documented_statuses():
    from ckptlog.cli import exit_status

    documented = {code: row.exit_status for code, row in documented_table().items()}
    actual = {kind.code: exit_status.status_of(kind("x")) for kind in CLASSES}
    assert actual == documented
    assert sorted(exit_status.BY_CODE) == sorted(actual)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_errors_survive_pickle(kind):
    error = kind("Chunk 3 is gone.", hint="Look again.", path="packs/1.pack", position=3)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is kind
        assert copy.to_dict() == error.to_dict()
        assert str(copy) == str(error) == "Chunk 3 is gone. Look again."


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, errors.FullError),
        (errno.EDQUOT, errors.FullError),
        (errno.EACCES, errors.DeniedError),
        (errno.EPERM, errors.DeniedError),
        (errno.EROFS, errors.ReadOnlyError),
        (errno.EIO, errors.InputOutputError),
        (errno.ENAMETOOLONG, errors.InputOutputError),
    ],
)
def test_an_operating_system_error_crosses_at_the_door(number, kind):
    with pytest.raises(kind) as caught, errors.operating_system_door("Writing the log"):
        raise OSError(number, "because", "log/0.seg")
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.context == {"errno": number, "path": "log/0.seg"}
    assert "Writing the log (log/0.seg): because" in str(caught.value)
    assert errno.errorcode[number] in caught.value.message


def test_an_operating_system_error_without_number_or_file_is_named():
    error = errors.from_os_error(OSError("odd"), "Reading")
    assert type(error) is errors.InputOutputError
    assert error.message == "Reading: odd [no errno]."
    assert error.context["path"] is None


@pytest.mark.skipif(
    not (ROOT / "ckptlog" / "__init__.py").exists(), reason="the public face is not there yet"
)
def test_every_leaf_is_met_by_a_test():
    tests = "\n".join(
        text
        for name, text in text_files()
        if name.startswith("tests/") and not name.startswith("tests/architecture/")
    )
    unmet = [
        kind.__name__
        for kind in CLASSES
        if not kind.__subclasses__()
        and not re.search(rf"\b{kind.__name__}\b|{re.escape(kind.code)}", tests)
    ]
    assert unmet == []
