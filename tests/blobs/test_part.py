"""Parts of payloads: the same as in the whole, and no chunk read that does not lead to them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.blobs import payload, tree
from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.part import part_of
from ckptlog.errors import NoSuchPartError
from ckptlog.formats.json_text import Bounds
from ckptlog.formats.store import Chunker as Parameters

CODEC = Codec()
CHUNKER = Chunker(Parameters(min=64, mean=256, max=1024))

texts = st.builds(
    lambda piece, times: piece * times,
    st.text('ab\\"[]{},:\n', min_size=1, max_size=9),
    st.integers(0, 90),
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers(-9, 9) | texts,
    lambda inner: (
        st.lists(inner, max_size=30)
        | st.dictionaries(texts.map(lambda text: text[:40]), inner, max_size=12)
    ),
    max_leaves=60,
)


class Shelf(dict[bytes, bytes]):
    """Records by digest; counts what is read."""

    def plant(self, value: Any) -> payload.Reference:
        draft = payload.plant(
            msgspec.json.encode(value),
            CHUNKER,
            lambda digest, one: CODEC.encode(one.domain, digest, one.raw),
        )
        self.update(draft.fresh)
        return draft.reference

    def __init__(self) -> None:
        super().__init__()
        self.read: list[bytes] = []

    def raw(self, digest: bytes, domain: int) -> bytes:
        self.read.append(digest)
        return CODEC.raw(self[digest], digest, domain=domain)

    def part(self, reference: payload.Reference, *path: str | int) -> Any:
        parts = payload.parts_of(reference, self.raw)
        return msgspec.json.decode(part_of(parts, path, self.raw))


@pytest.fixture
def small(monkeypatch):
    """Rules under which small values make deep trees."""
    monkeypatch.setattr(tree, "INLINE_MAX", 120)
    monkeypatch.setattr(payload, "INLINE_MAX", 120)
    monkeypatch.setattr(tree, "BOUNDS", Bounds(30, 60, 200))


def places(value: Any, path: tuple[str | int, ...] = ()):
    """Yield every path of a value, and what is there."""
    yield path, value
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))
            yield (*path, index - len(value)), item
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))


@pytest.mark.unmeasured
@given(value=values | st.builds(lambda one: [one] * 9, values))
def test_every_part_is_that_of_the_whole(value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "INLINE_MAX", 120)
        patch.setattr(payload, "INLINE_MAX", 120)
        patch.setattr(tree, "BOUNDS", Bounds(30, 60, 200))
        shelf = Shelf()
        reference = shelf.plant(value)
        for path, expected in places(value):
            assert shelf.part(reference, *path) == expected


def test_an_escape_may_be_cut_in_two(small):
    for shift in range(64):
        value = {"a": "x" * shift + '\\"' * 900, "b": [shift, "end"]}
        shelf = Shelf()
        reference = shelf.plant(value)
        assert shelf.part(reference, "b", 1) == "end"
        assert shelf.part(reference, "a") == value["a"]


def test_only_what_leads_to_a_part_is_read():
    messages = [{"id": n, "text": f"message {n} " * 60} for n in range(2000)]
    shelf = Shelf()
    reference = shelf.plant({"messages": messages, "long": "words " * 40_000, "last": 1})
    assert len(shelf) > 200
    for path, expected in (
        (("messages", -1), messages[-1]),
        (("messages", 700, "id"), 700),
        (("last",), 1),
    ):
        shelf.read.clear()
        assert shelf.part(reference, *path) == expected
        assert len(shelf.read) <= 8


@pytest.mark.parametrize(
    "path",
    [("none",), ("list", 3), ("list", -4), ("list", "a"), ("text", 0), ("list", 0, 0), (0,)],
)
def test_what_is_not_there(path):
    shelf = Shelf()
    reference = shelf.plant({"list": [1, 2, 3], "text": "abc"})
    with pytest.raises(NoSuchPartError):
        shelf.part(reference, *path)


def test_digits_are_an_index_of_a_list_and_a_key_of_a_dict():
    shelf = Shelf()
    reference = shelf.plant({"list": [1, 2, 3], "dict": {"1": "one"}})
    assert shelf.part(reference, "list", "-1") == 3
    assert shelf.part(reference, "dict", "1") == "one"
