"""The view against its model, grown in any slices; and what it must not believe."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.views.history.scribe import ACTS, contents, play

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@SHARED
@given(acts=st.lists(ACTS, max_size=90), window=st.sampled_from([1, 7, 4096]))
def test_rows_are_those_of_the_model(make_scribe, acts, window):
    scribe = make_scribe()
    play(scribe, acts)
    found = scribe.view(window_events=window).update()
    assert found.to_table().sort_by("position").to_pylist() == scribe.rows


@SHARED
@given(
    slices=st.lists(st.lists(ACTS, max_size=60), min_size=1, max_size=4),
    step=st.sampled_from([1, 30, 100, 10_000]),
)
def test_grown_in_any_slices_it_is_byte_for_byte_the_one_that_is_made_at_once(
    make_scribe, slices, step
):
    scribe = make_scribe()
    grown = scribe.root / "views" / "history"
    for acts in slices:
        play(scribe, acts)
        scribe.view(grown, step_events=step, window_events=5).update()
    at_once = scribe.root / "at-once"
    scribe.view(at_once).update()
    assert contents(grown) == contents(at_once)
    assert scribe.view(grown).update().count_rows() == len(scribe.rows)
