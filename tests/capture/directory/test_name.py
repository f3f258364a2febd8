from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.capture.directory import name as naming
from ckptlog.errors import ArgumentError, FormatError

names = st.binary(min_size=1, max_size=20).filter(
    lambda raw: b"/" not in raw and b"\0" not in raw and raw not in (b".", b"..")
)


@given(st.lists(names, min_size=1, max_size=4))
def test_every_path_comes_back(parts: list[bytes]) -> None:
    path = os.fsdecode(b"/".join(parts))
    text = naming.encode(path)
    text.encode()
    assert naming.decode(text) == path
    assert not text.startswith("$")


@given(st.text(max_size=12))
def test_one_path_has_one_spelling(text: str) -> None:
    try:
        path = naming.decode(text)
    except (FormatError, UnicodeEncodeError):
        return
    assert naming.encode(path) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        ".",
        "./a",
        "a//b",
        "a/",
        "a\0b",
        "%2E%2E/x",
        "%2e%2e",
        "a%2Fb",
        "%41",
        "%",
        "%zz",
        "$a",
        "%24%",
        "a/%00",
    ],
)
def test_paths_that_lead_elsewhere_or_are_spelled_otherwise_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        naming.decode(text)


def test_a_named_path_is_made_plain() -> None:
    assert naming.given("./a//b/") == "a/b"
    with pytest.raises(ArgumentError):
        naming.given("a/../../b")
