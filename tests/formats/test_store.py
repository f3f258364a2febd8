"""store.json: refused by name when newer, foreign or damaged (specs/store.md)."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import CheckpointError, FormatError, NotAStoreError, UnsupportedError
from ckptlog.formats import store
from ckptlog.formats.store import Chunker, StoreInfo
from tests.formats.mutation import Refused, cuts, flips, is_refused, mutated, outcome
from tests.formats.vectors import check, every

INFO = StoreInfo(created="2026-01-02T03:04:05.678901Z", id=bytes(range(16)).hex())
DATA = store.encode(INFO)
FIELDS = json.loads(DATA)


def decode(data):
    return store.decode(data, "STORE/store.json")


def changed(**changes):
    return json.dumps(FIELDS | changes).encode()


@every("store")
def test_golden(vector):
    check(vector, lambda data: store.decode(data, vector["context"]["where"]), store.encode)


def test_it_is_sorted_and_indented_for_people():
    text = DATA.decode()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert FIELDS["kind"] == "ckptlog"
    assert FIELDS["features"] == sorted(FIELDS["features"])


sizes = st.tuples(st.integers(64, 2**21), st.integers(64, 2**21), st.integers(64, 2**22)).map(
    sorted
)


@given(
    size=sizes.filter(lambda three: three[0] < three[1] < three[2]),
    level=st.integers(0, 3),
    created=st.text(),
    id_bytes=st.binary(min_size=16, max_size=16),
    features=st.sets(st.sampled_from(store.FEATURES)).map(lambda some: tuple(sorted(some))),
)
def test_round_trip(size, level, created, id_bytes, features):
    chunker = Chunker(min=size[0], mean=size[1], max=size[2], normalization=level)
    info = StoreInfo(chunker=chunker, created=created, features=features, id=id_bytes.hex())
    assert decode(store.encode(info)) == info
    assert info.id_bytes == id_bytes


# store.json has no checksum, for people read it: what decides is protected by names and ranges,
# the id by every checksum in the store. A changed chunk size costs deduplication only.
FREE = {"chunker", "created", "id"}


def harmless(data: bytes) -> bool:
    found = outcome(decode, data)
    if isinstance(found, Refused):
        return True
    differing = {
        name for name in INFO.__struct_fields__ if getattr(found, name) != getattr(INFO, name)
    }
    return decode(store.encode(found)) == found and differing <= FREE


def test_a_flipped_bit_is_refused_or_changes_nothing_that_decides():
    assert all(harmless(data) for data in flips(DATA))


def test_every_cut_is_refused():
    assert all(is_refused(decode, cut) for cut in cuts(DATA[:-1]))


@given(data=mutated(DATA))
def test_mutations_end_in_our_errors(data):
    found = outcome(decode, data)
    assert isinstance(found, Refused) or decode(store.encode(found)) == found


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.binary(max_size=100) | documents.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_end_in_our_errors(data):
    assert is_refused(decode, data)


@given(name=st.sampled_from(sorted(FIELDS)), value=documents)
def test_any_value_in_any_field_ends_in_our_errors(name, value):
    found = outcome(decode, changed(**{name: value}))
    assert isinstance(found, Refused) or decode(store.encode(found)) == found


@given(name=st.sampled_from(sorted(FIELDS["chunker"])), value=documents)
def test_any_value_in_the_chunker_ends_in_our_errors(name, value):
    data = changed(chunker=FIELDS["chunker"] | {name: value})
    found = outcome(decode, data)
    assert isinstance(found, Refused) or decode(store.encode(found)) == found


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_no_field_is_guessed(name):
    data = json.dumps({key: value for key, value in FIELDS.items() if key != name}).encode()
    with pytest.raises(CheckpointError) as caught:
        decode(data)
    if name == "kind":
        assert isinstance(caught.value, NotAStoreError)
    else:
        assert f"lacks {name}." in caught.value.message


def test_an_unknown_field_is_ignored():
    assert decode(changed(note="moved to the new disk")) == INFO


def test_unknown_features_are_named_and_nothing_else_is_said():
    with pytest.raises(UnsupportedError) as caught:
        decode(changed(features=["log-1", "zeta-9", "alpha-2"]))
    assert "alpha-2, zeta-9." in caught.value.message
    assert "log-1" not in caught.value.message
    assert caught.value.context["features"] == ["alpha-2", "zeta-9"]
    assert caught.value.hint


def test_a_feature_name_cannot_break_a_terminal():
    with pytest.raises(UnsupportedError) as caught:
        decode(changed(features=["\x1b[2J", "\ud800"]))
    message = caught.value.message
    assert message.isprintable()
    assert message.encode()


def test_a_newer_format_is_refused_before_its_fields_are_looked_at():
    with pytest.raises(UnsupportedError, match=r"store\.json has store format 2"):
        decode(b'{"kind": "ckptlog", "format": 2, "features": 7}')


@pytest.mark.parametrize("kind", ["shop", None, 1, ["ckptlog"], "CKPTLOG"])
def test_another_programs_file_is_told_from_damage(kind):
    with pytest.raises(NotAStoreError, match="not written by ckptlog"):
        decode(changed(kind=kind))


def test_a_huge_file_is_not_parsed():
    with pytest.raises(FormatError, match="longer than 65536 bytes"):
        decode(b" " * (store.JSON_BYTES_MAX + 1))


@pytest.mark.parametrize("data", [b"[" * 60_000, b'{"a":' * 10_000, b"9" * 60_000])
def test_deep_and_long_json_ends_in_our_errors(data):
    with pytest.raises(FormatError):
        decode(data)


def test_messages_say_where():
    for data in (b"", b"[]", changed(id="x"), changed(format=2), changed(kind="")):
        with pytest.raises(CheckpointError, match=r"STORE/store\.json") as caught:
            decode(data)
        assert caught.value.context["path"] == "STORE/store.json"


def test_the_defaults_are_what_this_version_reads():
    assert decode(store.encode(INFO)) == INFO
    assert {*store.FEATURES, "events-1"} == store.FEATURES_READ
    assert msgspec.structs.asdict(INFO.chunker) == {
        "algorithm": "fastcdc2020",
        "max": 8192,
        "mean": 2048,
        "min": 1024,
        "normalization": 2,
    }
