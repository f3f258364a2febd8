"""A power cut left an older published end, and what stands beyond it is damaged, or torn.

A store is opened if and only if verification calls it sound, and what it calls damaged is mended.
"""

from __future__ import annotations

from threading import Event, Thread

import pytest

import ckptlog
from ckptlog.errors import CheckpointError
from ckptlog.formats import end as end_format
from ckptlog.repository.layout import read_info
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory
from tests.repository.pair import blot, grow, leaves_now, lose, rows_of, segments_of, sign
from tests.repository.ruin import fresh

ROLLED, FLAT = 36, 12


def cut_power(root, count):
    """Make a store of so many events whose published end is that of six."""
    grow(root, "one", 6)
    old = (root / "log" / "end").read_bytes()
    grow(root, "two", count - 6)
    whole = fresh(root, root.with_name(f"{root.name} whole"))
    (root / "log" / "end").write_bytes(old)
    return whole


@pytest.fixture(scope="module", params=[FLAT, ROLLED], ids=["flat", "rolled"])
def image(request, tmp_path_factory):
    """A store with an older end, one that is whole, and the leaf hashes of its events."""
    root = tmp_path_factory.mktemp("beyond") / "store"
    whole = cut_power(root, request.param)
    assert (len(segments_of(root)) > 1) == (request.param == ROLLED)
    return root, whole, leaves_now(whole)


def end_of(root):
    data = (root / "log" / "end").read_bytes()
    return end_format.decode(data, read_info(root).id_bytes)


def is_opened(root):
    try:
        with ckptlog.open(root) as store:
            return len(list(store.events())) > 0
    except CheckpointError:
        return False


def mended(root, to, leaves, copy):
    """Repair a fresh copy of a damaged store; check what becomes of it."""
    to = fresh(root, to)
    planned = repair(to, copy=copy)
    assert not planned.is_empty
    done = repair(to, is_applied=True, copy=copy)
    assert (planned.lost_positions, done.ok) == (done.lost_positions, True)
    assert is_opened(to)
    assert verify_directory(to).problems == ()
    assert leaves_now(to)[: len(leaves)] == leaves
    assert repair(to).is_empty
    return done


KINDS = {
    "flip": lambda data, at: data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :],
    "cut": lambda data, at: data[:at],
    "zero": lambda data, at: data[:at] + bytes(len(data[at : at + 400])) + data[at + 400 :],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.02, 0.31, 0.64, 0.97])
def test_what_verification_calls_sound_is_opened_and_the_rest_is_mended(
    image, tmp_path, kind, part
):
    root, whole, leaves = image
    end = end_of(root)
    for number, path in enumerate(segments_of(root)):
        broken = fresh(root, tmp_path / "broken")
        data = path.read_bytes()
        start = end.offset if number == 0 else 0
        at = start + int(part * (len(data) - start))
        (broken / "log" / path.name).write_bytes(KINDS[kind](data, at))
        report = verify_directory(broken)
        assert report.ok == is_opened(fresh(broken, tmp_path / "opened")), (path.name, at)
        if report.ok:
            assert repair(fresh(broken, tmp_path / "torn")).files == (), (path.name, at)
            continue
        assert {one.code for one in report.problems} >= {"log.corrupt"}
        mended(broken, tmp_path / "alone", leaves, None)
        done = mended(broken, tmp_path / "both", leaves, whole)
        assert done.lost_positions == ()
        assert done.lost_chunks == ()


def test_a_torn_tail_behind_damage_is_not_made_permanent(image, tmp_path):
    """The last commit was torn: it is neither mended nor a tombstone, and it is cut at last."""
    root = fresh(image[0], tmp_path / "broken")
    path, leaves = segments_of(root)[-1], image[2]
    ends = [one.piece.offset_end for _, one in sorted(rows_of(root, path).known.items())]
    data = path.read_bytes()
    path.write_bytes(data[: ends[-2] + 30] + bytes(len(data) - ends[-2] - 30))
    first = segments_of(root)[0]
    blot(first, end_of(root).offset + 8, 30)
    assert not verify_directory(root).ok
    mended(root, tmp_path / "mended", leaves[:-1], None)
    with ckptlog.open(tmp_path / "mended") as store:
        types = [entry.event.type for entry in store.events()]
    assert len(types) == len(leaves), "the repair's own event has the place of the torn one"
    assert types[-1] == "repair.finished"


def test_a_missing_segment_beyond_the_end(tmp_path):
    whole = cut_power(tmp_path / "store", ROLLED)
    leaves = leaves_now(whole)
    segments_of(tmp_path / "store")[1].unlink()
    assert not verify_directory(tmp_path / "store").ok
    assert not is_opened(fresh(tmp_path / "store", tmp_path / "opened"))
    mended(tmp_path / "store", tmp_path / "alone", leaves, None)
    assert mended(tmp_path / "store", tmp_path / "both", leaves, whole).lost_positions == ()


def set_back(tmp_path, after):
    """Return a store, its leaves, and a copy: so many events after its end the first was settled.

    No crash leaves such an end, but a `log/end` of an earlier time that somebody put back is one.
    """
    root = tmp_path / "store"
    grow(root, "one", 6)
    old = (root / "log" / "end").read_bytes()
    grow(root, "two", after, kind="settled")
    leaves, whole = leaves_now(root), fresh(root, tmp_path / "whole")
    (root / "log" / "end").write_bytes(old)
    first, *_, newest = segments_of(root)
    assert (first.suffix, newest.suffix) == (".set", ".seg")
    return root, leaves, whole


def test_an_older_end_in_a_segment_that_was_settled_since(tmp_path):
    root, leaves, _ = set_back(tmp_path, 30)
    assert verify_directory(root).problems == ()
    assert repair(root).is_empty
    assert is_opened(root)
    assert leaves_now(root) == leaves


def test_damage_behind_an_older_end_in_a_segment_that_was_settled_since(tmp_path):
    root, leaves, whole = set_back(tmp_path, 30)
    lost = lose(root, [end_of(root).position + 2])
    assert not verify_directory(root).ok
    assert not is_opened(fresh(root, tmp_path / "opened"))
    assert lost[0] in range(*mended(root, tmp_path / "alone", leaves, None).lost_positions[0])
    assert mended(root, tmp_path / "both", leaves, whole).lost_positions == ()


def test_an_older_end_in_a_settled_segment_with_nothing_behind_it(tmp_path):
    """Nothing can be appended to a settled segment, and nobody knows what came behind it."""
    root, leaves, whole = set_back(tmp_path, 4)
    for path in segments_of(root)[1:]:
        path.unlink()
    assert [one.code for one in verify_directory(root).problems][:1] == ["log.corrupt"]
    assert not is_opened(root)
    alone = repair(root)
    assert [one.action for one in alone.files] == ["refused"]
    assert "is missing" in alone.files[0].message
    assert mended(root, tmp_path / "both", leaves, whole).lost_positions == ()


def test_damage_that_reaches_over_an_older_end(image, tmp_path):
    """One gap, from before the end to behind it: no commit ends there any more."""
    root, whole, leaves = image
    root = fresh(root, tmp_path / "store")
    end = end_of(root)
    path = segments_of(root)[0]
    known = rows_of(root, path).known
    before, behind = known[end.position - 1].piece, known[end.position].piece
    blot(path, before.offset, behind.offset_end - before.offset - 8)
    done = mended(root, tmp_path / "alone", leaves, None)
    assert done.lost_positions == ((end.position - 1, end.position),)
    assert ("log/end", "mended") in [(one.container, one.action) for one in done.files]
    assert not any("end of the log was lost" in one for one in done.notes)
    assert mended(root, tmp_path / "both", leaves, whole).lost_positions == ()


def test_where_nothing_tells_the_end_only_a_copy_helps(tmp_path):
    """Of the newest segment nothing is left; without a copy the log and its views stay."""
    root = tmp_path / "store"
    whole = cut_power(root, ROLLED)
    path = segments_of(root)[-1]
    path.write_bytes(b"\x5a" * path.stat().st_size)
    before = {one: one.read_bytes() for one in root.rglob("*") if one.is_file()}
    done = repair(root, is_applied=True)
    assert [(one.container, one.action) for one in done.files] == [(f"log/{path.name}", "refused")]
    assert (done.ok, done.views) == (False, "kept")
    assert {one: one.read_bytes() for one in root.rglob("*") if one.is_file()} == before
    assert mended(root, tmp_path / "both", leaves_now(whole), whole).lost_positions == ()


def test_heads_beyond_an_older_end_bind(tmp_path, monkeypatch):
    """What a head refutes is not taken, and the head is told as neither older nor rewritten."""
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "keys"))
    root, other = tmp_path / "store", tmp_path / "other"
    grow(root, "one", 4)
    fresh(root, other)
    grow(root, "two", 4)
    grow(other, "too", 4)  # another history, whose events stand at the same places
    old = (root / "log" / "end").read_bytes()
    grow(root, "six", 4)
    sign(root)
    leaves = leaves_now(root)
    (root / "log" / "end").write_bytes(old)
    (path,) = segments_of(root)
    one = rows_of(root, path).known[4].piece
    blot(path, one.offset, one.length)
    assert [one.code for one in verify_directory(root).problems if one.is_of_heads] == []
    done = repair(root, is_applied=True, copy=other)
    assert done.lost_positions == ((4, 4),)
    assert not [one for one in done.problems_after if one.startswith("head.")]
    assert leaves_now(root)[: len(leaves)] == leaves
    assert verify_directory(root).problems == ()


def test_beside_a_writer_nothing_is_called_damaged(tmp_path):
    """Commits are written before they are published, and segments begun before that."""
    root, is_over = tmp_path / "store", Event()
    grow(root, "one", 2)

    def write():
        grow(root, "two", 120)
        is_over.set()

    writer = Thread(target=write)
    writer.start()
    try:
        while not is_over.wait(0.001):
            assert verify_directory(root, "structure").problems == ()
    finally:
        writer.join()
    assert len(segments_of(root)) > 3
