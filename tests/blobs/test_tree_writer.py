"""Values that are written piece by piece, beside a plain dict and plain bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlog.blobs.chunker import Chunker
from ckptlog.blobs.pieces import Group, Pieces, Root
from ckptlog.blobs.tree_reader import Stored
from ckptlog.blobs.tree_writer import SINGLE_RAW_MAX, TreeWriter
from ckptlog.errors import (
    ArgumentError,
    BlobCorruptionError,
    NoSuchPartError,
    TooLargeError,
    UnstorableError,
)
from ckptlog.formats import branch, chunk
from ckptlog.formats.branch import BRANCH, BYTES, LEAF, Link
from ckptlog.formats.store import Chunker as Parameters
from ckptlog.model.event import Reference

MIB = 1024 * 1024


class Chunks(dict[bytes, tuple[int, bytes]]):
    """A sink, and a reader of what went into it."""

    asked = 0

    def put(self, digest: bytes, domain: int, raw: bytes | memoryview) -> None:
        self[digest] = domain, bytes(raw)

    def read(self, digest: bytes, domain: int) -> bytes:
        self.asked += 1
        found = self[digest]
        assert found[0] == domain
        return found[1]

    def writer(self) -> TreeWriter:
        return TreeWriter(self.put, Chunker(Parameters()), is_stored=self.__contains__)

    def stored(self, root: Root) -> Stored:
        return Stored(root.reference, self.read)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def mapped(chunks: Chunks, content: dict[str, bytes]) -> tuple[Root, list[Group]]:
    writer = chunks.writer()
    made = writer.mapping()
    for key in sorted(content):
        made.add(key, writer.raw(content[key]))
    return writer.root(made.finish()), made.groups


def edited(
    chunks: Chunks, old: dict[str, bytes], before: Root, groups: list[Group], new: dict[str, bytes]
) -> tuple[Root, int]:
    """Write what is new as a directory component does: kept where nothing changed."""
    writer = chunks.writer()
    made = writer.mapping()
    stored = chunks.stored(before)
    keys, at, kept = sorted(new), 0, 0
    waiting = list(groups)
    old_keys = sorted(old)
    while at < len(keys):
        while waiting and waiting[0].first < keys[at]:
            waiting.pop(0)
        if waiting and waiting[0].first == keys[at]:
            count = waiting[0].link.items
            run = keys[at : at + count]
            begin = old_keys.index(waiting[0].first)
            is_same = run == old_keys[begin : begin + count] and all(
                old[key] == new[key] for key in run
            )
            if is_same and made.keep(waiting[0]):
                kept, at = kept + 1, at + count
                continue
        key = keys[at]
        if old.get(key) == new[key]:
            made.add(key, stored.get(key).kept())
        else:
            made.add(key, writer.raw(new[key]))
        at += 1
    return writer.root(made.finish()), kept


contents = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=12) | st.integers(0, 400).map("f{:03}".format),
    st.builds(noise, st.sampled_from([0, 1, 60, 500, 513, 3000, 9000]), st.integers(0, 5)),
    max_size=60,
)


@settings(max_examples=25, deadline=None)
@given(contents)
def test_what_is_written_comes_back(content: dict[str, bytes]) -> None:
    chunks = Chunks()
    root, _ = mapped(chunks, content)
    stored = chunks.stored(root)
    assert stored.value() == content
    assert {key: b"".join(item.raw()) for key, item in stored.items()} == content
    assert stored.is_mapping
    for key, raw in content.items():
        item = stored.get(key)
        assert item.is_bytes
        assert item.raw_size == len(raw)
        assert item.value() == raw


@settings(max_examples=25, deadline=None)
@given(contents, contents, st.lists(st.integers(0, 500), max_size=3))
def test_equal_content_has_equal_roots_through_any_edit(
    some: dict[str, bytes], others: dict[str, bytes], touched: list[int]
) -> None:
    chunks = Chunks()
    old = {f"f{number:03}": noise(200 + number, number) for number in range(80)} | some
    new = {key: raw for key, raw in old.items() if len(key) < 3 or sum(map(ord, key)) % 7} | others
    for number in touched:
        new[f"f{number:03}"] = b"touched"
    before, groups = mapped(chunks, old)
    after, _ = edited(chunks, old, before, groups, new)
    assert after == mapped(Chunks(), new)[0]
    assert chunks.stored(after).value() == new


def test_what_is_unchanged_is_kept_and_not_read() -> None:
    chunks = Chunks()
    old = {f"dir/{number:05}": noise(600, number) for number in range(1500)}
    before, groups = mapped(chunks, old)
    chunks.asked = 0
    remembered = msgspec.msgpack.decode(msgspec.msgpack.encode(groups), type=list[Group])
    writer = chunks.writer()
    made = writer.mapping()
    assert all(made.keep(group) for group in remembered)
    assert chunks.asked == 0
    tail = {key: raw for key, raw in old.items() if key > groups[-1].last}
    for key, raw in tail.items():
        made.add(key, writer.raw(raw))
    assert writer.root(made.finish()) == before
    new = {**old, "dir/00700": b"changed"}
    after, kept = edited(chunks, old, before, groups, new)
    assert kept >= len(groups) - 3
    assert after == mapped(Chunks(), new)[0]


def test_a_group_is_kept_only_where_it_would_end() -> None:
    chunks = Chunks()
    _, groups = mapped(chunks, {f"{number:05}": noise(400, number) for number in range(400)})
    writer = chunks.writer()
    made = writer.mapping()
    assert not made.keep(groups[1])  # it was not the first
    assert made.keep(groups[0])
    made.add(groups[0].last + "x", writer.raw(b""))
    assert not made.is_between
    assert not made.keep(groups[1])  # a group is open
    empty = Chunks().writer().mapping()
    assert not empty.keep(groups[0])  # it is not stored


@settings(max_examples=15, deadline=None)
@given(st.integers(0, MIB + 300_000), st.lists(st.integers(1, MIB), min_size=1, max_size=4))
def test_raw_content_is_cut_alike_however_it_comes(size: int, steps: list[int]) -> None:
    raw = noise(size)

    def pieces() -> Iterator[memoryview]:
        buffer, at, turn = bytearray(MIB), 0, 0
        while at < size:
            step = min(steps[turn % len(steps)], size - at)
            buffer[:step] = raw[at : at + step]  # one buffer, used again and again
            yield memoryview(buffer)[:step]
            at, turn = at + step, turn + 1

    one, other = Chunks(), Chunks()
    whole = one.writer().raw(raw)
    assert other.writer().raw(pieces()) == whole
    assert one == other
    root = one.writer().root(whole)
    assert Stored(whole.parts, one.read).value() == raw
    assert b"".join(Stored(whole.parts, one.read).raw()) == raw
    assert root.reference.size == whole.size


def test_long_content_in_long_buffers_is_cut_alike() -> None:
    raw = noise(11 * MIB)
    one, other = Chunks(), Chunks()
    whole = one.writer().raw(raw)
    assert other.writer().raw([raw[: 5 * MIB + 3], raw[5 * MIB + 3 :]]) == whole
    assert max(len(one[digest][1]) for digest in one) <= 256 * 1024


def test_pages_are_leaves_and_kept_by_their_links() -> None:
    chunks = Chunks()
    pages = [noise(4096, number) for number in range(500)]
    before = chunks.writer().blocks(pages)
    stored = Stored(before.parts, chunks.read)
    links = list(stored.blocks())
    assert all(type(link) is Link for link in links)
    assert [stored.block(link) for link in links if type(link) is Link] == pages
    pages[77] = noise(4096, 1000)
    mixed = [pages[77] if number == 77 else link for number, link in enumerate(links)]
    after = chunks.writer().blocks(mixed)
    assert after == Chunks().writer().blocks(pages)
    assert b"".join(Stored(after.parts, chunks.read).raw()) == b"".join(pages)
    assert chunks.writer().blocks([]) == chunks.writer().raw(b"")
    with pytest.raises(ArgumentError, match="not stored"):
        Chunks().writer().blocks(mixed)


def test_values_come_back_exactly_and_large_bytes_never_become_text() -> None:
    numpy = pytest.importorskip("numpy")
    chunks = Chunks()
    value = {
        "weights": numpy.arange(400_000, dtype="<f8").reshape(400, 1000),
        "fortran": numpy.asfortranarray(numpy.ones((500, 600), "<f4")),
        "stride": numpy.arange(600_000, dtype="<i8")[::2],
        "flag": True,
        "nested": [1, {"raw": bytearray(noise(2 * MIB)), "": None}, "text"],
        "$odd": b"",
    }
    writer = chunks.writer()
    root = writer.root(writer.value(value))
    found = chunks.stored(root).value()
    assert list(found) == list(value)
    assert found["nested"] == value["nested"]
    assert type(found["nested"][1]["raw"]) is bytearray
    for name in ("weights", "fortran", "stride"):
        assert found[name].dtype == value[name].dtype
        assert (found[name] == value[name]).all()
    assert found["fortran"].flags.f_contiguous
    assert not found["weights"].flags.f_contiguous
    # As raw bytes, and not a third more.
    assert sum(len(raw) for _, raw in chunks.values()) < 1.02 * (3.2e6 + 1.2e6 + 2.4e6 + 2 * MIB)
    assert chunks.stored(root).get("nested", 1, "raw").raw_size == 2 * MIB


def test_a_key_that_looks_like_a_tag_is_escaped() -> None:
    chunks = Chunks()
    for content in ({"$bytes": b"x"}, {"$a": b"1", "$b": b"2"}, {"$bytes": noise(9000)}):
        root, _ = mapped(chunks, content)
        stored = chunks.stored(root)
        assert stored.value() == content
        assert stored.is_mapping
        assert {key: item.value() for key, item in stored.items()} == content
        assert stored.get(next(iter(content))).value() == next(iter(content.values()))


def test_lists_and_texts() -> None:
    chunks = Chunks()
    writer = chunks.writer()
    made = writer.listing()
    for number in range(5000):
        made.append(writer.value({"n": number}))
    root = writer.root(made.finish())
    stored = chunks.stored(root)
    assert [one.value()["n"] for one in stored.elements()] == list(range(5000))
    assert stored.get(-1, "n").value() == 4999
    text = writer.root(writer.value("é" * 100_000))
    assert b"".join(chunks.stored(text).raw()) == ("é" * 100_000).encode()
    with pytest.raises(NoSuchPartError):
        next(stored.items())
    with pytest.raises(NoSuchPartError):
        next(stored.raw())


def test_keys_must_rise_and_be_keys() -> None:
    writer = Chunks().writer()
    made = writer.mapping()
    made.add("b", writer.raw(b""))
    for key in ("b", "a"):
        with pytest.raises(ArgumentError, match="keys rise"):
            made.add(key, writer.raw(b""))
    with pytest.raises(UnstorableError, match="surrogate"):
        made.add("\udc80", writer.raw(b""))
    with pytest.raises(UnstorableError, match="bytes"):
        made.add("k" * 70_000, writer.raw(b""))
    with pytest.raises(ArgumentError):
        made.append(writer.raw(b""))
    with pytest.raises(ArgumentError):
        writer.listing().add("k", writer.raw(b""))


def test_a_long_value_is_a_tree_of_its_text() -> None:
    chunks = Chunks()
    writer = chunks.writer()
    value = list(range(20_000))
    first = writer.root(writer.value(value))
    memo = writer.memo
    assert memo is not None
    again = Chunks()
    writer = again.writer()
    second = writer.root(writer.value([*value, 1], memo=memo))
    assert len(again) < len(chunks) / 4
    fresh = Chunks()
    assert fresh.writer().root(fresh.writer().value([*value, 1])) == second
    assert first != second


# --- hostile trees ------------------------------------------------------------------------------


def planted(chunks: Chunks, parts: list[bytes | Link], domain: int = chunk.BRANCH) -> bytes:
    raw = branch.encode(parts)
    digest = chunk.digest_of(domain, raw)
    chunks[digest] = domain, raw
    return digest


def test_what_is_over_a_gibibyte_is_walked_and_never_put_together() -> None:
    chunks = Chunks()
    leaf = bytes(MIB)
    digest = chunk.digest_of(chunk.LEAF, leaf)
    chunks[digest] = chunk.LEAF, leaf
    link = Link(LEAF, digest, MIB)
    for _ in range(4):  # 8**4 mebibytes, of six chunks
        below = planted(chunks, [link] * 8)
        link = Link(BRANCH, below, link.size * 8)
    top = planted(chunks, [b'{"big":{"$bytes":"', Link(BYTES, link.digest, link.size), b'"}}'])
    size = len(b'{"big":{"$bytes":""}}') + (link.size + 2) // 3 * 4
    stored = Stored(Reference("tree", top.hex(), size), chunks.read)
    with pytest.raises(TooLargeError, match="stored"):
        stored.value()
    assert stored.get("big").raw_size == 4096 * MIB
    with pytest.raises(TooLargeError):
        stored.get("big").value()
    pieces = stored.get("big").raw()
    assert next(pieces) == leaf


@pytest.mark.parametrize("lie", [-1, 1])
def test_a_size_that_lies_is_refused_before_more_is_read(lie: int) -> None:
    chunks = Chunks()
    raw = noise(9000)
    leaf = chunk.digest_of(chunk.LEAF, raw)
    chunks[leaf] = chunk.LEAF, raw
    inner = planted(chunks, [Link(LEAF, leaf, 9000)])
    parts = (b'{"$bytes":"', Link(BYTES, inner, 9000 + lie), b'"}')
    with pytest.raises(BlobCorruptionError, match="expected"):
        list(Stored(parts, chunks.read).raw())
    wrong = planted(chunks, [Link(LEAF, leaf, 9000 + lie)])
    parts = (b'{"$bytes":"', Link(BYTES, wrong, 9000 + lie), b'"}')
    with pytest.raises(BlobCorruptionError, match="expected"):
        list(Stored(parts, chunks.read).raw())


def test_endless_depth_is_refused() -> None:
    chunks = Chunks()
    raw = b"x"
    leaf = chunk.digest_of(chunk.LEAF, raw)
    chunks[leaf] = chunk.LEAF, raw
    link = Link(LEAF, leaf, 1)
    for _ in range(600):
        link = Link(BRANCH, planted(chunks, [link]), 1)
    parts = (b'{"$bytes":"', Link(BYTES, link.digest, 1), b'"}')
    with pytest.raises(BlobCorruptionError, match="inside one another"):
        list(Stored(parts, chunks.read).raw())
    with pytest.raises(BlobCorruptionError, match="begins with"):
        Stored([link], chunks.read).get("a")


def test_single_chunks() -> None:
    chunks = Chunks()
    writer = chunks.writer()
    writer.raw(noise(SINGLE_RAW_MAX))
    assert len(chunks) == 1
    writer.raw(noise(SINGLE_RAW_MAX + 1))
    assert len(chunks) == 3
    assert writer.raw(b"ab") == Pieces((b'{"$bytes":"YWI="}',))
