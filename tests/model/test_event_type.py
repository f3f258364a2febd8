"""Types as people ask for them: known ones, short ones, patterns; the rest is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import ArgumentError
from ckptlog.model.event import CHECKPOINT_TYPES, TYPES
from ckptlog.model.event_type import asked_types

KINDS = sorted(TYPES)
SHORT = {kind.removeprefix("checkpoint."): kind for kind in CHECKPOINT_TYPES}
patterns = st.builds(lambda kind, end: kind[:end] + "*", st.sampled_from(KINDS), st.integers(0, 9))


@given(st.sets(st.sampled_from((*KINDS, *SHORT)) | patterns))
def test_what_is_asked_for_is_had_and_nothing_else(words):
    asked = asked_types("types", words)
    for kind in (*KINDS, "moon.risen"):
        wanted = any(
            kind.startswith(word[:-1]) if word.endswith("*") else kind in {word, SHORT.get(word)}
            for word in words
        )
        assert asked.has(kind) == wanted


@pytest.mark.parametrize(
    ("word", "meant"),
    [("checkpoint.craeted", "checkpoint.created"), ("complete", "completed"), ("xyz", None)],
)
def test_a_slip_of_the_pen_is_refused_and_told_what_was_meant(word, meant):
    with pytest.raises(ArgumentError) as caught:
        asked_types("types", [word])
    assert (f"Did you mean {meant!r}?" in caught.value.hint) == (meant is not None)
    assert "restored" in caught.value.hint


@given(st.text())
def test_whatever_is_typed_is_taken_or_refused(word):
    try:
        asked_types("types", [word])
    except ArgumentError:
        assert word not in TYPES
