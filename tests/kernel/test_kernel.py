"""The kernel says what its twins in Python say, to the byte; without it, everything works alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog import kernel
from ckptlog.errors import UnstorableError
from ckptlog.kernel import native
from ckptlog.model import value as values
from ckptlog.policy import sanitise

TRANSCRIPT = Path(sanitise.__file__).parents[1] / "cli" / "demo_transcript.json"
SECRETS = ["ghp_" + "A1" * 20, "Bearer " + "a1" * 20, "http://me:pw@host", "AKIA" + "A" * 16, "x:/"]
needs_kernel = pytest.mark.skipif(native is None, reason="the kernel was not compiled here")


def test_a_machine_with_a_compiler_has_a_kernel():
    """Everything works without it, but a build that fails must not pass unnoticed."""
    if os.environ.get("CKPTLOG_PURE", "0") != "0":
        pytest.skip("switched off by CKPTLOG_PURE")
    if (
        shutil.which("cc") is None
        or not (Path(sysconfig.get_path("include")) / "Python.h").exists()
    ):
        pytest.skip("no C compiler, or no headers of Python")
    assert native is not None


# --- suspicion -------------------------------------------------------------------------------


def places_of(wire):
    """Return every place that the kernel suspects."""
    places, at = [], native.suspect(wire, sanitise._TABLE, 0)
    while at >= 0:
        places.append(at)
        at = native.suspect(wire, sanitise._TABLE, at + 1)
    return places


@needs_kernel
class TestSuspect:
    @given(st.binary(max_size=80), st.sampled_from("VIK_-zx9JB:GvAT"), st.binary(max_size=80))
    def test_nothing_that_an_expression_finds_is_missed(self, before, letter, after):
        wire = before + letter.encode() + after
        places = places_of(wire)
        for needs, _, expression in sanitise._EXPRESSIONS:
            found = {match.start() for match in expression.finditer(wire) if needs in wire}
            assert found <= set(places)
        assert places == sorted(set(places))

    @given(st.lists(st.sampled_from(SECRETS) | st.text(max_size=40), max_size=8))
    def test_with_and_without_it_the_same_wires_have_hints(self, texts):
        wire = "|".join(texts).encode("utf-8", "surrogatepass")
        found = any(needs in wire and search(wire) for needs, search in sanitise._SEARCHES)
        assert sanitise._has_hint(wire) == found

    @pytest.mark.parametrize("shift", range(67))
    @pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 30, 40])
    def test_at_every_place(self, shift, length):
        wire = b"." * shift + b"ghp_" + b"a" * (1 + length)
        assert places_of(wire) == [shift + 3]
        assert places_of(b"." * shift + b"ghp_") == []
        assert places_of(wire.replace(b"ghp", b"gop")) == []
        assert places_of(wire + wire) == [shift + 3, len(wire) + shift + 3]

    def test_a_byte_that_must_be_there(self):
        assert places_of(b"see http://host/path") == []
        assert places_of(b"see http://me:pw@host") == [8]
        assert places_of(b"see http://me:pw@host or http://host") == [8]

    def test_most_texts_are_cleared(self):
        wire = TRANSCRIPT.read_bytes()
        parts = wire.splitlines()
        suspects = sum(native.suspect(part, sanitise._TABLE, 0) >= 0 for part in parts)
        assert suspects < len(parts) / 20

    @pytest.mark.parametrize(
        "arguments", [(), (b"", b"", 0), ("", bytes(600), 0), (b"", bytes(600), "")]
    )
    def test_wrong_arguments(self, arguments):
        with pytest.raises(TypeError):
            native.suspect(*arguments)
        with pytest.raises(ValueError, match="place"):
            native.suspect(b"", bytes(600), -1)

    def test_behind_the_end(self):
        assert native.suspect(b"ghp_a", sanitise._TABLE, 99) == -1


# --- without it ------------------------------------------------------------------------------

PROGRAM = """
import sys, ckptlog, ckptlog.kernel
from ckptlog.model.value import prepare
from ckptlog.policy.sanitise import Sanitiser
print(ckptlog.kernel.native is not None)
from tests.model.codec_cases import CODECS, TYPED
value = {"a": [1, 2.5, None, "x", {"password": "p", "b": (1, b"2")}], "text": "ghp_" + "A1" * 20}
print(prepare(value, sanitiser=Sanitiser()))
print(prepare({"a": "ghp_" + "A1" * 20, "b": [TYPED]}, sanitiser=Sanitiser(), codecs=CODECS))
print(prepare({"plain": [1, 2.5, {"b": "c"}]}, sanitiser=Sanitiser()))
"""


def test_pure_python_says_the_same():
    said = {}
    for pure in ("0", "1"):
        environment = {**os.environ, "CKPTLOG_PURE": pure}
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        said[pure] = done.stdout.splitlines()
    assert said["1"][0] == "False"
    assert said["0"][1:] == said["1"][1:]


def test_a_value_that_the_stack_is_too_short_for():
    value: list = []
    for _ in range(150):
        value = [value]

    def deep(left):
        return values._walked(value, "data", None) if left == 0 else deep(left - 1)

    limit = sys.getrecursionlimit()
    outcomes = set()
    for depth in range(limit - 400, limit):
        try:
            outcomes.add(type(deep(depth)).__name__)
        except UnstorableError:
            outcomes.add("UnstorableError")
        except RecursionError as error:
            # Of the calls in front of it, not of the value.
            assert "_walked" not in str(error.__traceback__)
            break
    assert outcomes >= {"tuple", "UnstorableError"}


def test_a_kernel_of_another_revision_is_none(monkeypatch):
    monkeypatch.setenv("CKPTLOG_PURE", "0")
    monkeypatch.setattr(kernel, "REVISION", -1)
    assert kernel._compiled() is None


def test_a_missing_kernel_is_none(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(kernel, "import_module", missing)
    monkeypatch.setenv("CKPTLOG_PURE", "0")
    assert kernel._compiled() is None
