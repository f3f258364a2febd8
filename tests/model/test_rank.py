from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import ArgumentError
from ckptlog.model.identifier import CHECKPOINT_ID_CHARACTERS_MAX, id_fault
from ckptlog.model.rank import RANK_CHARACTERS_MAX, rank_of, ranked_id

SALT = "abcDEF019_-x"


@given(st.text(min_size=1, max_size=60))
def test_a_rank_comes_back_and_the_id_is_legal(rank):
    identifier = ranked_id(rank, SALT)
    assert rank_of(identifier) == rank
    assert id_fault(identifier, CHECKPOINT_ID_CHARACTERS_MAX) is None


def test_plain_ranks_stand_as_they_are():
    assert ranked_id("1f0ca8a5-7b1c", SALT) == f"1f0ca8a5-7b1c~{SALT}"


@pytest.mark.parametrize(
    "identifier",
    ["", "cp_t_1_1700000000000000", f"a{SALT}", "a~short", f"a~{SALT[:-1]}%", f"~{SALT}"],
)
def test_other_ids_have_none(identifier):
    assert rank_of(identifier) == ""


@pytest.mark.parametrize("rank", ["", "x" * (RANK_CHARACTERS_MAX + 1), "\ud800", "%" * 200])
def test_what_cannot_be_a_rank_is_refused(rank):
    with pytest.raises(ArgumentError):
        ranked_id(rank, SALT)
