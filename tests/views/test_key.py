from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.model.identifier import checkpoint_id
from ckptlog.views.current import CurrentView
from ckptlog.views.key import generated_time, id_key, time_of
from tests.views.author import STORE, Author

NOW_US = 1_760_000_000_000_000


@pytest.mark.parametrize(
    ("identifier", "time"),
    [
        ("cp_task_1_1700000000000000", 1700000000000000),
        ("cp_5", 5),
        ("cp_a_007", 7),
        ("cp__0", 0),
        ("cp_a_" + "9" * 18, 10**18 - 1),
        ("cp_a_" + "9" * 19, None),
        ("cp_a_" + "9" * 5000, None),
        ("cp_a_", None),
        ("cp_a_1x", None),
        ("cp_a_-1", None),
        ("cp_a_ 1", None),
        ("cp_a_\u0661", None),  # a digit of another script
        ("cp_a_\u00b2", None),
        ("CP_a_1", None),
        ("xcp_a_1", None),
        ("", None),
        ("cp_\ud800_5", 5),
    ],
)
def test_generated_time(identifier, time):
    assert generated_time(identifier) == time
    assert time_of(identifier, id_key(identifier)) == (time or 0)


@given(st.text(max_size=50) | st.from_regex(r"cp_[a-z_]*_[0-9]{1,20}", fullmatch=True))
def test_a_key_fits_an_integer_of_sqlite(identifier):
    key = id_key(identifier)
    assert -(2**63) <= key < 2**63
    assert key == id_key(identifier)
    assert time_of(identifier, key) == (generated_time(identifier) or 0)


@given(st.text(max_size=20), st.text(max_size=20), st.integers(1, 10**9))
def test_keys_of_generated_ids_rise_with_time(early, late, gap_us):
    before = id_key(checkpoint_id(early, 3, NOW_US))
    assert 0 <= before < id_key(checkpoint_id(late, 1, NOW_US + gap_us))


def test_ids_that_share_a_key_are_told_apart():
    by_key: dict[int, str] = {}
    for number in range(100_000):
        name = f"cp_{number}_1_{NOW_US}"
        twin = by_key.setdefault(id_key(name), name)
        if twin != name:
            break
    else:
        pytest.fail("no two ids share a key")
    author = Author()
    view = CurrentView.open(None, STORE)
    author.create(id=twin)
    assert view.apply(author.commits, author.meta_of)
    assert view.row(name) is None
    author.create(id=name)
    assert view.apply(author.commits, author.meta_of)
    assert (view.row(twin), view.row(name)) == (author.model[twin], author.model[name])
    author.delete(twin)
    author.delete(name)
    assert view.apply(author.commits, author.meta_of)
    assert (view.row(twin), view.row(name)) == (author.model[twin], author.model[name])
