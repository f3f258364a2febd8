from __future__ import annotations

import errno
import os
import threading

import pytest

from ckptlog.blobs import store as stores
from ckptlog.blobs.codec import Codec
from ckptlog.blobs.store import container_name
from ckptlog.errors import (
    BlobCorruptionError,
    InputOutputError,
    MissingBlobError,
    UnsupportedError,
)
from ckptlog.formats import chunk, frame, pack, segment
from ckptlog.model.entry import Placement
from ckptlog.model.event import Reference
from ckptlog.storage import files
from tests.blobs.sample import STORE_ID, House, commit, digest, noise, text


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.fixture
def warm(tmp_path):
    return House(tmp_path, cache_bytes=10_000_000)


def point(house, *places):
    """Make the index say something else from now on."""
    assert house.index.add(commit(house.position, places))
    house.position += 1


def damage(house, place, at=-1):
    path = house.root / place.container
    data = bytearray(path.read_bytes())
    data[place.offset + (at % place.length)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("wire", [b"", b"{}", noise(1024), text(400), bytes(100_000)])
@pytest.mark.parametrize("cache_bytes", [0, 10_000_000])
def test_what_was_split_and_kept_is_read(tmp_path, wire, cache_bytes):
    house = House(tmp_path, cache_bytes=cache_bytes)
    draft = house.blobs.split(wire)
    house.keep(draft)
    for _ in range(2):
        assert house.blobs.wire(draft.reference) == wire
        assert house.blobs.digests(draft.reference) == draft.digests
    house.blobs.close()
    assert house.blobs.wire(draft.reference) == wire  # opened again


def test_the_next_version_shares_what_is_known(house):
    first = house.blobs.split(text(400))
    house.keep(first)
    known = house.blobs.digests(first.reference)
    second = house.blobs.split(text(401), known)
    assert len(second.fresh) < 6
    house.keep(second)
    assert house.blobs.wire(second.reference) == text(401)
    assert house.blobs.wire(first.reference) == text(400)


def test_a_hint_saves_the_look_up(house):
    draft = house.blobs.split(text(50))
    assert house.blobs.wire(draft.reference, dict(draft.fresh)) == text(50)


def test_a_hint_is_verified_and_the_stored_copy_helps_out(house):
    draft = house.blobs.split(text(50))
    hint = {name: record[:-1] + b"?" for name, record in draft.fresh}
    with pytest.raises(MissingBlobError):
        house.blobs.wire(draft.reference, hint)
    house.keep(draft)
    assert house.blobs.wire(draft.reference, hint) == text(50)


def test_a_verified_wire_is_read_once(warm):
    draft = warm.blobs.split(text(50))
    places = warm.keep(draft)
    wire = warm.blobs.wire(draft.reference)
    for place in places:
        damage(warm, place)
    assert warm.blobs.wire(draft.reference) is wire
    warm.blobs.close()
    with pytest.raises(BlobCorruptionError):
        warm.blobs.wire(draft.reference)


def test_a_cached_wire_answers_for_its_own_reference_only(warm):
    draft = warm.blobs.split(b"short")
    warm.keep(draft)
    warm.blobs.wire(draft.reference)
    root, size = draft.reference.root, draft.reference.size
    for wrong in (Reference("leaf", root, size + 1), Reference("list", root, size)):
        with pytest.raises(BlobCorruptionError):
            warm.blobs.wire(wrong)


def test_the_writer_fills_the_cache(warm):
    draft = warm.blobs.split(text(50))
    warm.blobs.put_cached(draft.reference, text(50), draft.digests)
    assert warm.blobs.wire(draft.reference) == text(50)
    assert warm.blobs.digests(draft.reference) is draft.digests


def test_the_cache_is_bounded(tmp_path):
    house = House(tmp_path, cache_bytes=20_000)
    drafts = [house.blobs.split(noise(1000, b"%d" % n)) for n in range(60)]
    for draft in drafts:
        house.keep(draft)
        house.blobs.wire(draft.reference)
        house.blobs.digests(draft.reference)
    assert house.blobs._cache.cost + house.blobs._digests.cost <= 20_000


def test_digests_need_the_nodes_only(house):
    draft = house.blobs.split(text(400))
    for place in house.keep(draft):
        if chunk.decode(house.blobs.read_record(place)).domain == chunk.LEAF:
            damage(house, place)
    assert house.blobs.digests(draft.reference) == draft.digests
    with pytest.raises(BlobCorruptionError):
        house.blobs.wire(draft.reference)


def test_read_record_returns_what_was_written(house):
    draft = house.blobs.split(text(50))
    records = dict(draft.fresh)
    for place in house.keep(draft):
        assert house.blobs.read_record(place) == records[place.digest]


def test_every_damaged_byte_of_a_frame_is_noticed(house):
    (place,) = house.keep(house.blobs.split(b"some bytes"))
    for at in range(place.length):
        damage(house, place, at)
        with pytest.raises(BlobCorruptionError, match=place.digest.hex()):
            house.blobs.read_record(place)
        damage(house, place, at)
    assert house.blobs.read_record(place)


def test_places_that_are_none_are_refused(house):
    places = house.keep(house.blobs.split(text(50)))
    place = places[0]
    for wrong in (
        Placement(place.digest, place.container, place.offset + 1, place.length),
        Placement(place.digest, place.container, place.offset, place.length - 1),
        Placement(place.digest, place.container, place.offset, place.length + 1),
        Placement(place.digest, place.container, 1 << 40, place.length),
        Placement(place.digest, place.container, 1 << 63, place.length),
        Placement(place.digest, place.container, -1, place.length),
        Placement(place.digest, place.container, place.offset, 1 << 31),
        Placement(place.digest, place.container, place.offset, 0),
        Placement(place.digest, place.container, 0, pack.HEADER_FRAME_BYTES),  # no chunk
        Placement(digest(1), place.container, place.offset, place.length),
    ):
        with pytest.raises(BlobCorruptionError):
            house.blobs.read_record(wrong)


def test_a_chunk_frame_without_a_record_is_refused(house):
    name = pack.pack_name(0, bytes(16))
    framed = frame.encode(frame.container_seed(STORE_ID, name), 0, frame.CHUNK, 0, b"short")
    (house.root / "packs" / name).write_bytes(framed)
    with pytest.raises(BlobCorruptionError, match="too short"):
        house.blobs.read_record(Placement(digest(1), f"packs/{name}", 0, len(framed)))


def test_a_frame_of_another_kind_is_refused(house):
    digest_, record = Codec().record(chunk.LEAF, b"looks like a chunk")
    name = pack.pack_name(0, bytes(16))
    framed = frame.encode(frame.container_seed(STORE_ID, name), 0, frame.EVENT, 0, record)
    (house.root / "packs" / name).write_bytes(framed)
    with pytest.raises(BlobCorruptionError, match="another frame"):
        house.blobs.read_record(Placement(digest_, f"packs/{name}", 0, len(framed)))


def test_no_place_makes_a_reader_allocate_more_than_a_record(house, monkeypatch):
    (place,) = house.keep(house.blobs.split(b"small"))
    monkeypatch.setattr(files, "read_at", lambda *_: pytest.fail("read"))
    for length in (chunk.RAW_BYTES_MAX + 200, 1 << 40):
        with pytest.raises(BlobCorruptionError, match="no chunk has"):
            house.blobs.read_record(Placement(place.digest, place.container, place.offset, length))


SEGMENT = segment.segment_name(0, 0)
PACK = pack.pack_name(0, bytes(16))


@pytest.mark.parametrize(
    "container",
    [
        "",
        "/",
        "log/",
        "packs/",
        "log/../store.json",
        "../" + SEGMENT,
        "log/../../etc/" + SEGMENT,
        "/etc/passwd",
        "log/" + PACK,
        "packs/" + SEGMENT,
        "log//" + SEGMENT,
        "log/./" + SEGMENT,
        "LOG/" + SEGMENT,
        f"log/{SEGMENT}/",
        f"log/{SEGMENT}\n",
        f"log/{SEGMENT}\0",
        "views/" + PACK,
        "log/" + SEGMENT.replace("0", "\u0660"),  # digits, but not ours
    ],
)
def test_no_other_file_is_ever_opened(house, monkeypatch, container):
    monkeypatch.setattr(os, "open", None)
    assert container_name(container) is None
    with pytest.raises(BlobCorruptionError, match="no such containers"):
        house.blobs.read_record(Placement(digest(1), container, 0, 100))


def test_the_two_kinds_of_containers_are_known():
    assert container_name("log/" + SEGMENT) == SEGMENT
    assert container_name("packs/" + PACK) == PACK


def test_a_chunk_that_nobody_knows_is_missing(house):
    draft = house.blobs.split(b"never stored")
    with pytest.raises(MissingBlobError, match=draft.reference.root):
        house.blobs.wire(draft.reference)
    asked: list[bytes] = []
    house.blobs.missing = lambda digest, _: asked.append(digest)
    with pytest.raises(MissingBlobError, match=draft.reference.root):
        house.blobs.wire(draft.reference)
    assert asked == [bytes.fromhex(draft.reference.root)]


def test_the_owner_is_asked_for_what_the_index_does_not_know(house):
    draft = house.blobs.split(text(50))
    places = {place.digest: place for place in house.keep(draft)}
    house.index.clear()
    house.blobs.missing = lambda digest, _: places.get(digest)
    assert house.blobs.wire(draft.reference) == text(50)


@pytest.mark.parametrize("wrong", ["offset", "container", "digest"])
def test_a_wrong_place_is_asked_for_once_more(house, wrong):
    draft = house.blobs.split(b"here I am")
    (place,) = house.keep(draft)
    (other,) = house.keep(house.blobs.split(b"another"))
    lies = {
        "offset": Placement(place.digest, place.container, 1, place.length),
        "container": Placement(place.digest, "packs/" + PACK, place.offset, place.length),
        "digest": Placement(place.digest, other.container, other.offset, other.length),
    }
    point(house, lies[wrong])
    asked: list[bytes] = []
    with pytest.raises((BlobCorruptionError, MissingBlobError)):
        house.blobs.wire(draft.reference)

    def missing(name, _):
        asked.append(name)
        return place

    house.blobs.missing = missing
    assert house.blobs.wire(draft.reference) == b"here I am"
    assert asked == [place.digest]
    house.blobs.missing = lambda *_: lies[wrong]  # the same place again: it is damaged
    with pytest.raises((BlobCorruptionError, MissingBlobError)):
        house.blobs.wire(draft.reference)
    house.blobs.missing = lambda *_: None
    with pytest.raises((BlobCorruptionError, MissingBlobError)):
        house.blobs.wire(draft.reference)


def test_a_missing_container_is_missing(house):
    draft = house.blobs.split(b"gone")
    (place,) = house.keep(draft)
    (house.root / place.container).unlink()
    with pytest.raises(MissingBlobError, match="which is missing") as caught:
        house.blobs.wire(draft.reference)
    assert caught.value.context["container"] == place.container
    with pytest.raises(MissingBlobError):
        house.blobs.read_record(place)


def test_a_container_that_was_replaced_is_opened_anew_after_a_failure(house):
    draft = house.blobs.split(b"restored from a backup")
    (place,) = house.keep(draft)
    path = house.root / place.container
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(bytes(len(whole)))
    with pytest.raises(BlobCorruptionError):
        house.blobs.wire(draft.reference)
    path.unlink()
    path.write_bytes(whole)
    assert house.blobs.wire(draft.reference) == b"restored from a backup"


def test_an_error_of_the_medium_is_no_corruption(house, monkeypatch):
    draft = house.blobs.split(b"unreadable")
    house.keep(draft)

    def failing(*_args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(InputOutputError):
        house.blobs.wire(draft.reference)


def test_a_newer_codec_is_unsupported_and_not_asked_for_again(house, monkeypatch):
    digest_, record = Codec().record(chunk.LEAF, b"from the future")
    newer = bytearray(record)
    newer[32] = 7
    draft = house.blobs.split(b"from the future")
    house.blobs.missing = lambda *_: pytest.fail("asked")
    with pytest.raises(UnsupportedError, match=digest_.hex()):
        house.blobs.wire(draft.reference, {digest_: bytes(newer)})


def test_few_files_are_open_and_close_closes_them(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "FILES_OPEN_MAX", 4)
    before = len(os.listdir("/proc/self/fd"))
    house = House(tmp_path)
    drafts = [house.blobs.split(noise(500, b"%d" % n)) for n in range(20)]
    for draft in drafts:
        house.keep(draft)
    for draft in drafts * 2:
        house.blobs.wire(draft.reference)
        assert len(os.listdir("/proc/self/fd")) - before <= 4
    house.blobs.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_threads_read_through_files_that_come_and_go(tmp_path, monkeypatch):
    """A descriptor that was closed under a reader would read another file, or none."""
    monkeypatch.setattr(stores, "FILES_OPEN_MAX", 2)
    house = House(tmp_path)
    wires = [noise(500, b"%d" % n) for n in range(12)]
    references = []
    for wire in wires:
        draft = house.blobs.split(wire)
        house.keep(draft)
        references.append(draft.reference)
    wrong: list[object] = []

    def work(step):
        try:
            for n in range(300):
                at = n * step % 12
                if house.blobs.wire(references[at]) != wires[at]:
                    wrong.append(at)
                if n % 40 == 0:
                    house.blobs.close()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 5, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
