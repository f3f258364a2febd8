"""A second copy that is another history, or lies: nothing of it gets into the log."""

from __future__ import annotations

import json
import os
import random
import shutil
from types import SimpleNamespace

import msgspec
import pytest

import ckptlog
from ckptlog.errors import LogCorruptionError
from ckptlog.formats import frame
from ckptlog.repository import repair as repairing
from ckptlog.repository.layout import read_info
from ckptlog.repository.repair import repair
from ckptlog.repository.verify import verify_directory
from ckptlog.storage.environment import Environment
from tests.repository.pair import (
    BLOCK_BYTES,
    EVERYTHING,
    blot,
    blot_header,
    forge,
    grow,
    holder_of,
    leaves_now,
    lose,
    name_of,
    put_header,
    rows_of,
    segments_of,
    sign,
)
from tests.repository.ruin import frames_of, fresh, leaves_of
from tests.repository.test_repair_later import lost_of

COMMON, OWN = 30, 40


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Give stores by kind and word: both went on by themselves from a common backup."""
    folder = tmp_path_factory.mktemp("branches")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ckptlog.log.settling._BLOCK_BYTES", BLOCK_BYTES)
        found["common"] = folder / "common"
        grow(folder / "common", "both", COMMON)
        for kind in ("written", "settled"):
            for word in ("mine", "your"):
                path = fresh(folder / "common", folder / f"{kind}-{word}")
                grow(path, word, OWN, kind=kind)
                found[kind, word] = path
    return found


@pytest.fixture(params=["written", "settled"])
def kind(request):
    return request.param


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Give stores their own memory of signed heads."""
    shutil.copytree(os.environ["CKPTLOG_KEYS"], tmp_path / "keys")
    monkeypatch.setenv("CKPTLOG_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr("ckptlog.log.settling._BLOCK_BYTES", BLOCK_BYTES)


@pytest.fixture
def store(images, lab, kind, tmp_path):
    return fresh(images[kind, "mine"], tmp_path / "store")


@pytest.fixture
def branch(images, kind, tmp_path):
    return fresh(images[kind, "your"], tmp_path / "branch")


def repaired(store, copy, lost=()):
    """Repair; check what is lost, and that everything else is as it was."""
    done = repair(store, is_applied=True, copy=copy)
    assert done.ok, (done.files, done.problems_after)
    told = [p for first, last in done.lost_positions for p in range(first, last + 1)]
    assert told == sorted(lost)
    assert verify_directory(store).problems == ()
    assert repair(store, copy=copy).is_empty
    return done


def positions_at_ends(store):
    """Return the first positions of segments behind the parting that both have."""
    return [name_of(path)[0] for path in segments_of(store) if name_of(path)[0] > COMMON]


# --- headers ----------------------------------------------------------------------------------


def test_both_seal_at_the_same_positions(images, kind):
    mine, other = images[kind, "mine"], images[kind, "your"]
    assert positions_at_ends(mine)[0] == positions_at_ends(other)[0]


def test_a_header_of_another_branch_is_not_believed(store, branch):
    leaves = leaves_now(store)
    for first in positions_at_ends(store):
        blot_header(holder_of(store, first))
        repaired(store, branch)
    assert leaves_now(store)[: len(leaves)] == leaves


@pytest.mark.parametrize("what", ["leaf", "previous_length", "an earlier one", "one between"])
def test_a_header_that_lies_is_not_believed(store, tmp_path, what):
    copy, leaves = fresh(store, tmp_path / "copy"), leaves_now(store)
    first = positions_at_ends(store)[0]
    path = holder_of(copy, first)
    header = rows_of(copy, path).header
    other = {
        "leaf": {"leaf": b"\x11" * 32},
        "previous_length": {"previous_length": header.previous_length - 100},
        "an earlier one": {"previous_first": 0},
        "one between": {"previous_first": header.previous_first + 1},
    }
    put_header(path, msgspec.structs.replace(header, **other[what]))
    for damaged in (path, holder_of(copy, 0)):
        blot_header(store / "log" / damaged.name)
    repaired(store, copy)
    assert leaves_now(store)[: len(leaves)] == leaves


def lose_an_end(store):
    """Spoil a header, and the event before it; return which are lost."""
    first = positions_at_ends(store)[0]
    blot_header(holder_of(store, first))
    if holder_of(store, first).suffix == ".set":  # whose trailer tells where it ends, too
        path = holder_of(store, first - 1)
        blot(path, path.stat().st_size - 60, 30)
    return lose(store, [first - 1])


def test_where_our_end_is_lost_a_copy_tells_it(store, tmp_path):
    copy, leaves = fresh(store, tmp_path / "copy"), leaves_now(store)
    lose_an_end(store)
    repaired(store, copy)
    assert leaves_now(store)[: len(leaves)] == leaves


def test_where_our_end_is_lost_no_segment_of_ours_is_left_out(store, tmp_path):
    copy, leaves = fresh(store, tmp_path / "copy"), leaves_now(store)
    lose_an_end(store)
    path = holder_of(copy, positions_at_ends(copy)[0])
    put_header(path, msgspec.structs.replace(rows_of(copy, path).header, previous_first=0))
    repaired(store, copy)
    assert leaves_now(store)[: len(leaves)] == leaves


def test_where_our_end_is_lost_another_branch_does_not(store, branch):
    leaves = leaves_now(store)
    lost = lose_an_end(store)
    done = repaired(store, branch, lost)
    assert any("another history" in note for note in done.notes)
    now = leaves_now(store)
    assert [p for p, leaf in enumerate(leaves) if now[p] != leaf and p not in lost] == []


def test_a_length_that_does_not_fit_the_copy_itself_is_not_believed(store, tmp_path):
    copy, leaves = fresh(store, tmp_path / "copy"), leaves_now(store)
    lose_an_end(store)
    path = holder_of(copy, positions_at_ends(copy)[0])
    header = rows_of(copy, path).header
    put_header(path, msgspec.structs.replace(header, previous_length=header.previous_length + 100))
    repaired(store, copy)
    assert leaves_now(store)[: len(leaves)] == leaves


@pytest.mark.parametrize("length", [500, 1 << 40])
def test_a_length_that_does_not_fit_our_frames_is_not_believed(store, tmp_path, length):
    """Else the copy would not fit at all, and would help nowhere in that segment."""
    copy, first = fresh(store, tmp_path / "copy"), positions_at_ends(store)[0]
    path = holder_of(copy, first)
    header = rows_of(copy, path).header
    put_header(path, msgspec.structs.replace(header, previous_length=length))
    lost = lose(copy, [first - 1])
    assert lose_an_end(store) == lost
    assert lose(store, [first - 8])
    assert holder_of(store, first - 8) == holder_of(store, first - 1)
    repaired(store, copy, lost)


def test_chunks_between_lost_events_at_an_end_that_nothing_tells(store):
    """What stood between two of them was left as it was."""
    first = positions_at_ends(store)[0]
    lost = lose_an_end(store)
    lost = sorted({*lost, *lose(store, [first - 2])})
    repaired(store, None, lost)


# --- events -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("at", [COMMON, COMMON + 8, -1])
def test_an_event_of_another_branch_is_not_taken(store, branch, tmp_path, at, *, is_signed):
    """Also the first one, of which nothing tells whose it is; and the last one of a segment."""
    if is_signed:
        sign(store)
    copy, leaves = fresh(store, tmp_path / "copy"), leaves_now(store)
    lost = lose(store, [at if at >= 0 else positions_at_ends(store)[0] - 1])
    lost = [one for one in lost if one >= COMMON]
    done = repaired(store, branch, lost)
    assert leaves_now(store)[: len(leaves)] == leaves
    assert at != COMMON or "another history" in done.notes[0]
    done = repair(store, is_applied=True, copy=copy)
    assert done.positions_back == ((lost[0], lost[-1]),)
    assert leaves_now(store)[: len(leaves)] == leaves


def test_what_lies_before_the_parting_is_taken(store, branch):
    leaves = leaves_now(store)
    lost = lose(store, [0, 3, 12])
    assert lost[-1] < COMMON - 1
    repaired(store, branch)
    assert leaves_now(store)[: len(leaves)] == leaves


def test_what_a_head_refutes_is_not_taken_and_what_it_proves_is(store, tmp_path):
    sign(store)
    copy, sound, leaves = fresh(store, tmp_path / "copy"), fresh(store, tmp_path / "sound"), None
    leaves = leaves_now(store)
    forge(copy, 10, b"both010", b"both999")
    assert 10 in lose(store, [10])
    lose(store, [14])
    done = repaired(store, copy, [10])
    assert leaves_now(store)[: len(leaves)] == leaves
    assert done.facts()["from_copy"]
    assert repair(store, is_applied=True, copy=sound).positions_back == ((10, 10),)
    assert leaves_now(store)[: len(leaves)] == leaves


def test_what_only_all_together_refutes_is_not_applied(store, tmp_path):
    """No cache knows the lost event: with the copy's, the head would speak of another past."""
    sign(store)
    copy, sound, leaves = fresh(store, tmp_path / "copy"), fresh(store, tmp_path / "sound"), None
    leaves = leaves_now(store)
    forge(copy, 10, b"both010", b"both999")
    lost = lose(store, [10])
    (store / "views/tree/leaves").unlink()
    done = repaired(store, copy, lost)
    assert "Nothing of the copy" in done.notes[-1]
    repair(store, is_applied=True, copy=sound)
    assert leaves_now(store)[: len(leaves)] == leaves


def test_a_tombstone_of_a_copy_is_not_taken(store, tmp_path):
    copy, sound = fresh(store, tmp_path / "copy"), fresh(store, tmp_path / "sound")
    leaves = leaves_now(store)
    lost = lose(copy, [10])
    shutil.rmtree(copy / "views")
    repair(copy, is_applied=True)
    assert leaves_now(copy) != leaves
    assert lose(store, [10]) == lost
    done = repaired(store, copy, lost)
    assert done.facts()["from_copy"] == 0
    assert leaves_now(store)[: len(leaves)] == leaves
    assert len(repair(store, is_applied=True, copy=sound).positions_back) == 1
    assert leaves_now(store)[: len(leaves)] == leaves


@pytest.mark.parametrize("who", ["store", "copy"])
def test_what_an_earlier_repair_made_is_no_difference(store, tmp_path, who):
    """A header that was made from a tombstone, and one that was not, are of one history."""
    copy = fresh(store, tmp_path / "copy")
    mended = store if who == "store" else copy
    lose_an_end(mended)
    shutil.rmtree(mended / "views")
    assert repair(mended, is_applied=True).ok
    leaves = leaves_now(store)
    lose(store, [positions_at_ends(store)[0] + 6])
    done = repair(store, is_applied=True, copy=copy)
    assert (done.ok, done.lost_positions, done.notes) == (True, (), ())
    assert leaves_now(store)[: len(leaves)] == leaves


# --- behind the last event that both have alike -----------------------------------------------


def grown(images, path, word, count):
    """Go on from the common backup; the events have no chunks that could be compared."""
    fresh(images["common"], path)
    grow(path, word, count, has_data=False)
    return path


def lose_tail(store):
    """Spoil all events behind the common ones, but the last."""
    stop = max(rows_of(store, segments_of(store)[-1]).known)
    return [one for one in lose(store, [*range(COMMON, stop)]) if one < stop]


def flip(store, position):
    """Let the cache of leaf hashes be wrong about an event."""
    with (store / "views/tree/leaves").open("r+b") as file:
        file.seek(32 * position)
        first = file.read(1)[0]
        file.seek(32 * position)
        file.write(bytes([first ^ 1]))


def test_a_sound_cache_speaks_against_a_branch(images, lab, tmp_path):
    """It ends before the last event of ours that is left: nothing is to be compared."""
    store = grown(images, tmp_path / "store", "mine", 12)
    shorter = grown(images, tmp_path / "shorter", "your", 3)
    sound, leaves = fresh(store, tmp_path / "sound"), leaves_now(store)
    lost = lose_tail(store)
    done = repaired(store, shorter, lost)
    assert f"From event {COMMON} on the copy is another history" in done.notes[0]
    assert f"alike up to event {COMMON - 1}" in done.notes[0]
    assert "cache of leaf hashes" in done.notes[0]
    done = repair(store, is_applied=True, copy=sound)
    assert done.positions_back == ((lost[0], lost[-1]),)
    assert leaves_now(store)[: len(leaves)] == leaves


@pytest.mark.parametrize("wrong", [3, -1])
def test_a_cache_that_is_wrong_about_a_whole_event_speaks_against_none(
    images, lab, tmp_path, wrong
):
    """The copy is an older one of ours, and what the cache has of an event of it is false."""
    store = grown(images, tmp_path / "store", "mine", 3)
    copy = fresh(store, tmp_path / "copy")
    grow(store, "more", 9, has_data=False)
    leaves = leaves_now(store)
    last = max(rows_of(store, segments_of(store)[-1]).known)
    lose_tail(store)
    for position in (COMMON + 1, wrong % (last + 1)):
        flip(store, position)
    done = repair(store, is_applied=True, copy=copy)
    assert done.lost_positions == ((COMMON + 3, last - 1),)
    assert done.notes == ()
    assert leaves_now(store)[: COMMON + 3] == leaves[: COMMON + 3]


# --- chunks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["written"], indirect=True)
def test_a_chunk_that_differs_tells_of_another_branch(images, store, tmp_path):
    """The one event that both have behind the parting is lost here: only its data tell."""
    branch = fresh(images["common"], tmp_path / "branch")
    grow(branch, "your", 1)
    places = [
        rows_of(root, holder_of(root, COMMON)).known[COMMON].piece.offset
        for root in (store, branch)
    ]
    assert places[0] == places[1]
    leaves = leaves_now(store)
    repaired(store, branch, lose(store, [COMMON]))
    assert leaves_now(store)[: len(leaves)] == leaves


@pytest.mark.parametrize("kind", ["written"], indirect=True)
def test_chunks_of_another_branch_are_not_taken(store, branch):
    leaves = leaves_now(store)
    path = holder_of(store, COMMON + 8)
    rows = rows_of(store, path)
    begin = rows.known[[one for one in sorted(rows.known) if one >= COMMON][1]].piece.offset_end
    frames = frames_of(path, read_info(store).id_bytes)
    chunk = next(at for kind, at, _ in frames if kind == frame.CHUNK and at >= begin)
    blot(path, chunk, 30)
    done = repair(store, is_applied=True, copy=branch)
    assert done.facts()["from_copy"] == 0
    assert done.lost_chunks
    assert leaves_now(store)[: len(leaves)] == leaves


# --- our own settled form ---------------------------------------------------------------------


@pytest.fixture
def beside(images, lab, tmp_path):
    """A store whose segments are there written and settled; a collection leaves it so if killed."""
    store = fresh(images["common"], tmp_path / "beside")
    written = {path: path.read_bytes() for path in segments_of(store)}
    with ckptlog.CheckpointManager(store) as manager:
        manager.store.compact(EVERYTHING)
    for path, data in written.items():
        path.write_bytes(data)
    return store


def forge_written(root, position):
    """Put another event into the written form, and leave the settled one beside it as it is."""
    path = root / "log" / "00000000000000000000.0.set"
    kept = path.read_bytes()
    path.unlink()
    forge(root, position, b"both%03d" % position, b"evil%03d" % position)
    path.write_bytes(kept)


def lose_written(root, position):
    path = root / "log" / "00000000000000000000.0.seg"
    blot(path, rows_of(root, path).known[position].piece.offset, 40)


def test_our_own_settled_form_is_asked_before_a_copy(beside, tmp_path):
    copy, leaves = fresh(beside, tmp_path / "copy"), leaves_now(beside)
    forge_written(copy, 5)
    lose_written(beside, 5)
    repaired(beside, copy)
    assert leaves_now(beside)[: len(leaves)] == leaves


def test_a_difference_counts_though_the_settled_forms_are_the_same(beside, tmp_path):
    lose(beside, [12])  # in the settled form
    shutil.rmtree(beside / "views")
    copy = fresh(beside, tmp_path / "copy")
    forge_written(copy, 5)
    lose_written(beside, 5)
    lose_written(beside, 12)
    done = repaired(beside, copy, [12])
    assert "From event 5 on the copy is another history" in done.notes[0]


# --- all of it --------------------------------------------------------------------------------


def check_damage(images, tmp_path, seed):
    """Whatever is lost: what is there afterwards is ours, from the branch and from a sound copy."""
    chance = random.Random(seed)
    kind = chance.choice(["written", "settled"])
    store = fresh(images[kind, "mine"], tmp_path / "store")
    if chance.random() < 0.5:
        sign(store)
    if chance.random() < 0.3:
        (store / "views/tree/leaves").unlink()
    sound, leaves = fresh(store, tmp_path / "sound"), leaves_now(images[kind, "mine"])
    last = max(rows_of(store, segments_of(store)[-1]).known)
    lose(store, chance.sample(range(last), chance.choice([1, 5, 20])))
    for path in segments_of(store)[:-1]:
        if chance.random() < 0.2:
            blot_header(path)
        length = chance.choice([0, 0, 1, 40, 600])
        if path.stat().st_size > 108 + length:
            blot(path, chance.randrange(108, path.stat().st_size - length) - 4, length)
    for copy in (images[kind, "your"], sound):
        done = repair(store, is_applied=True, copy=copy)
        assert done.ok, (copy, done.files, done.problems_after)
        assert verify_directory(store).problems == ()
        with ckptlog.open(store, read_only=True) as opened:
            lost = lost_of(opened)
            now = leaves_of(opened)
        for position, leaf in enumerate(leaves):
            assert position in lost or now[position] == leaf
    assert repair(store, copy=sound).is_empty


@pytest.mark.parametrize("seed", range(4))
def test_beside_another_branch(images, lab, tmp_path, seed):
    check_damage(images, tmp_path, seed)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(4, 100))
def test_beside_another_branch_whatever_is_lost(images, lab, tmp_path, seed):
    check_damage(images, tmp_path, seed)


# --- the report -------------------------------------------------------------------------------


def test_a_copy_that_cannot_be_read_counts_as_none(store, tmp_path):
    copy = fresh(store, tmp_path / "copy")
    lost = lose(store, [10])
    path = holder_of(copy, 10)
    path.unlink()
    path.mkdir()
    done = repaired(store, copy, lost)
    assert f"log/{path.name} counts as missing" in done.notes[0]


def test_where_no_event_can_be_written_the_report_is_told_all_the_same(store, monkeypatch):
    lost = lose(store, [10])
    with monkeypatch.context() as patch:

        def fails(*_given, **_named):
            raise LogCorruptionError("no")

        patch.setattr(repairing, "open_store", fails)
        opened = SimpleNamespace(
            path=store, timeout_s=5, environment=Environment(), rebuild_views=fails
        )
        given = {"copy": None, "actor": "me", "progress": None}
        done = repairing.repair_store(opened, is_applied=True, **given)
    assert not done.ok
    assert done.problems_after == ("log.corrupt: no",)
    assert done.files[0].quarantine
    assert list(store.glob("quarantine/*/repair.json"))
    assert repair(store, is_applied=True).ok
    (told,) = store.glob("quarantine/*/done.json")
    assert json.loads(told.read_text())["lost_positions"] == [[lost[0], lost[-1]]]
