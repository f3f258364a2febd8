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


@needs_kernel
class TestSuspicious:
    @given(st.binary(max_size=40), st.sampled_from("VIK_-zx9JB:"), st.binary(max_size=40))
    def test_nothing_that_an_expression_finds_is_missed(self, before, letter, after):
        wire = before + letter.encode() + after
        found = any(needs in wire and search(wire) for needs, search in sanitise._SEARCHES)
        assert native.suspicious(wire, sanitise._TABLE) or not found

    @pytest.mark.parametrize("shift", range(9))
    @pytest.mark.parametrize("length", range(9))
    def test_at_every_place(self, shift, length):
        wire = b"." * shift + b"ghp_" + b"a" * (1 + length)
        assert native.suspicious(wire, sanitise._TABLE) is True
        assert native.suspicious(b"." * shift + b"ghp_", sanitise._TABLE) is False
        assert native.suspicious(wire.replace(b"ghp", b"gop"), sanitise._TABLE) is False

    def test_a_byte_that_must_be_there(self):
        assert native.suspicious(b"see http://host/path", sanitise._TABLE) is False
        assert native.suspicious(b"see http://me:pw@host", sanitise._TABLE) is True

    def test_most_texts_are_cleared(self):
        wire = TRANSCRIPT.read_bytes()
        parts = wire.splitlines()
        suspects = sum(native.suspicious(part, sanitise._TABLE) for part in parts)
        assert suspects < len(parts) / 20

    @pytest.mark.parametrize("arguments", [(), (b"", b""), ("", bytes(600)), (b"", bytes(512))])
    def test_wrong_arguments(self, arguments):
        with pytest.raises(TypeError):
            native.suspicious(*arguments)


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
