"""The kernel says what its twins in Python say, to the byte; without it, everything works alike."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog import kernel
from ckptlog.errors import UnstorableError
from ckptlog.kernel import native
from ckptlog.model import value as values
from ckptlog.policy import sanitise
from ckptlog.policy.sanitise import Sanitiser
from tests.model.value_cases import GOOD
from tests.model.value_cases import values as any_values

TRANSCRIPT = Path(sanitise.__file__).parents[1] / "cli" / "demo_transcript.json"
needs_kernel = pytest.mark.skipif(native is None, reason="the kernel was not compiled here")
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def short_way(value, sanitiser=None):
    verdicts = None if sanitiser is None else sanitiser.verdicts
    return native.plain_wire(value, verdicts, values._encode, values.DEPTH_MAX, 10**6)


def long_way(value, sanitiser=None):
    return values._walked(value, "data", sanitiser)[1]


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


# --- plain values ----------------------------------------------------------------------------


@needs_kernel
class TestPlainWire:
    @given(plain | any_values)
    def test_the_wire_is_the_long_ways_or_none(self, value):
        wire = short_way(value)
        assert wire is None or wire == long_way(value)

    @given(plain)
    def test_what_json_has_is_taken(self, value):
        if json.dumps(value).find("Infinity") < 0 and is_ordinary(value):
            assert short_way(value) == long_way(value)

    @pytest.mark.parametrize("name", GOOD)
    def test_every_type(self, name):
        for value in (GOOD[name], [GOOD[name]], {"a": {"b": GOOD[name]}}):
            wire = short_way(value)
            assert wire is None or wire == long_way(value)

    @pytest.mark.parametrize(
        "value",
        [
            (1,),
            {1: 2},
            {"$x": 1},
            {"$": 1},
            2**63,
            -(2**63) - 1,
            float("nan"),
            float("inf"),
            b"bytes",
            "\ud800",
            {"\udfff": 1},
            type("Text", (str,), {})("text"),
            type("Number", (int,), {})(1),
            type("List", (list,), {})(),
            type("Dict", (dict,), {})(),
            {type("Text", (str,), {})("key"): 1},
        ],
        ids=repr,
    )
    def test_what_needs_the_long_way(self, value):
        assert short_way(value) is None
        assert short_way([[value]]) is None
        assert short_way({"a": 1, "b": [value]}) is None

    def test_two_keys_are_no_tag(self):
        assert short_way({"$x": 1, "$y": 2}) == b'{"$x":1,"$y":2}'
        assert short_way({"": 1}) == b'{"":1}'

    def test_depth_and_containers_are_bounded(self):
        value: list = []
        for _ in range(values.DEPTH_MAX - 1):
            value = [value]
        assert short_way(value) is not None
        assert short_way([value]) is None
        loop: list = []
        loop.append(loop)
        assert short_way(loop) is None
        assert native.plain_wire([[], []], None, values._encode, 9, 2) is None
        assert native.plain_wire([[], []], None, values._encode, 9, 3) == b"[[],[]]"

    def test_keys(self):
        sanitiser = Sanitiser()
        value = {"note": [{"text": "t"}]}
        assert short_way(value, sanitiser) is None, "no key was judged yet"
        assert long_way(value, sanitiser) == b'{"note":[{"text":"t"}]}'
        assert short_way(value, sanitiser) == b'{"note":[{"text":"t"}]}'
        long_way({"password": 1}, sanitiser)
        assert short_way({"note": {"password": 1}}, sanitiser) is None

    def test_errors_of_the_encoder_pass(self):
        def broken(_value):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            native.plain_wire({}, None, broken, 9, 9)

    @pytest.mark.parametrize(
        "arguments", [(), ({},), ({}, [], repr, 9, 9), ({}, None, repr, "", 9)]
    )
    def test_wrong_arguments(self, arguments):
        with pytest.raises(TypeError):
            native.plain_wire(*arguments)

    def test_a_value_that_others_change(self):
        """What is written is a state that the value had: the check and the writing are one."""
        value = {"items": [1]}
        stop = threading.Event()

        def change():
            while not stop.is_set():
                value["items"] = (1, 2)
                value["items"] = [1]

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(20_000):
                assert short_way(value) in (None, b'{"items":[1]}')
        finally:
            stop.set()
            thread.join()


def is_ordinary(value):
    """Say whether nothing in a value needs the long way."""
    if isinstance(value, dict):
        is_tag = len(value) == 1 and next(iter(value)).startswith("$")
        return not is_tag and all(map(is_ordinary, value.values()))
    if isinstance(value, list):
        return all(map(is_ordinary, value))
    return not isinstance(value, float | int) or (
        value == value and value not in (float("inf"), -float("inf")) and abs(value) < 2**63  # noqa: PLR0124
    )


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
value = {"a": [1, 2.5, None, "x", {"password": "p", "b": (1, b"2")}], "text": "ghp_" + "A1" * 20}
print(prepare(value, sanitiser=Sanitiser()))
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
        return values.prepare(value) if left == 0 else deep(left - 1)

    limit = sys.getrecursionlimit()
    outcomes = set()
    for depth in range(limit - 400, limit):
        try:
            outcomes.add(type(deep(depth)).__name__)
        except UnstorableError:
            outcomes.add("UnstorableError")
        except RecursionError as error:
            # Of the calls in front of it, not of the value.
            assert "prepare" not in str(error.__traceback__)
            break
    assert outcomes >= {"Prepared", "UnstorableError"}


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
