"""backup.json: whole, or refused; never a path out of the directory (specs/backup.md)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.formats import backup
from ckptlog.formats.backup import BackedFile, Manifest
from tests.formats.mutation import Refused, cuts, flips, is_refused, mutated, outcome
from tests.formats.vectors import check, every

FILES = (
    BackedFile("log/00000000000000000000.0.seg", 5, "ab" * 32),
    BackedFile("store.json", 1, "cd" * 32),
)
MADE = Manifest(created="2026", end="", files=FILES, serial=1, store="01" * 16)
DATA = backup.encode(MADE)


@every("backup")
def test_golden(vector):
    check(vector, backup.decode, backup.encode)


def test_round_trip():
    assert backup.encode(backup.decode(DATA)) == DATA
    assert backup.decode(DATA).files == FILES


def test_all_damage_of_one_bit_or_a_cut_is_refused():
    for damage in (flips, cuts):
        assert all(is_refused(backup.decode, data) for data in damage(DATA))


@given(data=mutated(DATA) | st.binary(max_size=200))
def test_a_mutation_never_shows_another_value(data):
    found = outcome(backup.decode, data)
    assert isinstance(found, Refused) or data == DATA


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "log/../x",
        "/etc/x",
        "log/end",
        "log/x.seg",
        "packs/x",
        "keys/",
        "keys/..",
        "keys/a/b",
        "views/x",
        "",
        "keys/\n",
        "x",
    ],
)
def test_only_names_of_ours_are_paths(name):
    assert not backup.is_name(name)


@pytest.mark.parametrize(
    "name",
    ["store.json", "keys/k", "consumers/a.cursor", "heads/1", "log/00000000000000000009.3.seg"],
)
def test_ours_are(name):
    assert backup.is_name(name)
