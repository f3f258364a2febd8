"""Captures through a real store: what is in them, how they are found, when nothing is written."""

from __future__ import annotations

import multiprocessing
import os
import threading
from datetime import UTC, datetime, timedelta

import numpy
import pytest

from ckptlog import (
    CaptureFailedError,
    CheckpointManager,
    CheckpointNotFoundError,
    FileComponent,
)
from ckptlog.capture import failure
from ckptlog.capture.capturer import Capturer
from ckptlog.errors import ArgumentError, CaptureTooLargeError, ChangedError, FormatError
from ckptlog.model.capture import digest_of
from tests.capture.sample import Account, Bank, Book, Failing, Hanging, Phased, Value


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "store", actor="tester") as manager:
        yield manager


def values(capturer, info):
    return {name: stored.value() for name, stored in capturer.stored(info).items()}


STATE = {
    "agents": {"a1": {"messages": ["hi", "ho"], "api_key": "sk-abcdefghijklmnop1234567890"}},
    "memory": [1, 2.5, None, True, b"bytes", (1, 2), {3}, datetime(2020, 1, 1, tzinfo=UTC)],
    "text": "just text",
    "nothing": None,
    "large": {"blob": bytes(range(256)) * 1000, "small": 1},
}


def test_names_and_paths_that_look_like_secrets_stay_and_secrets_in_words_go(manager, tmp_path):
    """What is read again is stored as it is; the sanitiser is for the user's own words."""
    secret = STATE["agents"]["a1"]["api_key"]
    path = tmp_path / secret
    path.write_text("content")
    parts = [Value(name, {"n": 1}) for name in ("token", "password", "api_key", "secrets")]
    capturer = Capturer(manager, "sys", [*parts, FileComponent("credentials", path)])
    info = capturer.capture(description=f"with {secret}", tags=["keep", secret])
    (found,) = capturer.captures()
    assert found.components == info.components
    assert found.components["credentials"].location == {"path": str(path)}
    assert capturer.check(found) == []
    assert secret not in found.description
    assert found.tags == ("keep", "[redacted]")
    created = next(manager.store.events(found.position)).event
    assert created.sanitised == 2
    plain = capturer.capture()
    assert next(manager.store.events(plain.position)).event.sanitised == 0


@pytest.mark.parametrize("stability", ["live", "copied", "immutable", "fork"])
def test_what_was_captured_comes_back_exactly(manager, stability):
    array = numpy.random.default_rng(1).random((500, 60))
    state = {**STATE, "arrays": {"weights": array, "turned": array.T, "half": array[:, ::2]}}
    capturer = Capturer(
        manager, "sys", [Value(name, value, stability=stability) for name, value in state.items()]
    )
    info = capturer.capture(description="first", tags=["x", "y", "x"], reason="test")
    found = values(capturer, info)
    for name, value in STATE.items():
        assert found[name] == value
        assert type(found[name]) is type(value)
    for name, value in state["arrays"].items():
        assert (found["arrays"][name] == value).all()
    assert list(found) == list(state)
    assert capturer.check(info) == []
    assert (info.number, info.description, info.tags, info.reason) == (
        1,
        "first",
        ("x", "y"),
        "test",
    )
    assert info.id.startswith("cp_sys_1_")
    assert info.digest == digest_of(info.components)
    assert {one.stability for one in info.components.values()} == {stability}
    assert info.slowest in state
    assert info.bytes_logical == sum(one.size for one in info.components.values())
    assert manager.get_checkpoint(info.id).state.value == "completed"


def test_equal_states_have_equal_digests_whatever_else_differs(tmp_path):
    digests = set()
    for number, order in enumerate((1, -1)):
        with CheckpointManager(tmp_path / str(number)) as manager:
            parts = [Value("a", {"x": [1]}), Value("b", "b" * 40_000)][::order]
            info = Capturer(manager, f"s{number}", parts).capture(description=str(number))
            digests.add(info.digest)
            parts[0].value = 7
            digests.add(Capturer(manager, "t", parts).capture().digest)
    assert len(digests) == 3


def test_the_digest_is_of_the_text_that_the_page_says(manager):
    import hashlib

    info = Capturer(
        manager, "s", [Value("b", 1, kind="k"), Value("a", 2, schema_version=5)]
    ).capture()
    a, b = info.components["a"], info.components["b"]
    text = f"ckptlog capture 1\na value 5 leaf {a.root} {a.size}\nb k 1 leaf {b.root} {b.size}\n"
    assert info.digest == hashlib.sha512(text.encode()).hexdigest()


def test_nothing_is_written_where_nothing_changed(manager):
    part = Value("a", {"n": 1})
    capturer = Capturer(manager, "s", [part, Value("b", [1])])
    assert capturer.capture(skip_unchanged=True).number == 1
    before = manager.store.position
    assert capturer.capture(skip_unchanged=True) is None
    assert manager.store.position == before
    part.value["n"] = 2
    assert capturer.capture(skip_unchanged=True).number == 2
    assert capturer.capture().number == 3


def test_a_second_capturer_goes_on_with_the_number(manager):
    Capturer(manager, "s", [Value("a", 1)]).capture()
    other = Capturer(manager, "s", [Value("a", 1)])
    assert other.capture(skip_unchanged=True) is None
    assert other.capture().number == 2


def test_captures_are_found_by_id_time_and_position(manager):
    capturer = Capturer(manager, "s", [Value("a", 1)])
    with pytest.raises(CheckpointNotFoundError, match="'s' has no capture"):
        capturer.find()
    infos = []
    for _ in range(4):
        infos.append(capturer.capture())
        manager.create_checkpoint("else", "Other", 1)
    assert capturer.captures() == infos[::-1]
    assert capturer.captures(2) == infos[:1:-1]
    assert capturer.captures(0) == []
    assert capturer.find() == infos[-1]
    for info in infos:
        assert capturer.find(info.id) == info
        assert capturer.find(at=info.position) == info
        assert capturer.find(at=info.position + 1) == info
        assert capturer.find(at=info.created_at) == info
    assert capturer.find(at=datetime.now(UTC) + timedelta(days=1)) == infos[-1]
    for at in (infos[0].created_at - timedelta(seconds=1),):
        with pytest.raises(CheckpointNotFoundError, match="at or before"):
            capturer.find(at=at)
    with pytest.raises(CheckpointNotFoundError):
        capturer.find("cp_s_9_9")
    other = manager.create_checkpoint("s2", "T", 1)
    with pytest.raises(CheckpointNotFoundError):
        capturer.find(other)
    with pytest.raises(ArgumentError, match="time zone"):
        capturer.find(at=datetime(2020, 1, 1))  # noqa: DTZ001
    with pytest.raises(ArgumentError):
        capturer.find(infos[0].id, at=3)
    with pytest.raises(ArgumentError):
        capturer.captures(-1)


def test_a_plain_checkpoint_of_the_system_is_no_capture(manager):
    name = manager.create_checkpoint("s", "T", 1, data={"x": 1})
    capturer = Capturer(manager, "s", [Value("a", 1)])
    assert capturer.captures() == []
    with pytest.raises(CheckpointNotFoundError):
        capturer.find(name)
    assert capturer.capture().number == 1
    manager.create_checkpoint("s", "T", 1, metadata={"capture": {"format": 1}})
    with pytest.raises(FormatError, match="is no capture"):
        capturer.captures()


def test_systems_in_one_store_do_not_meet(manager):
    one, two = (Capturer(manager, name, [Value("a", name)]) for name in ("s", "s2"))
    first, second = one.capture(), two.capture()
    assert (first.number, second.number) == (1, 1)
    assert one.captures() == [first]
    assert two.captures() == [second]


def test_a_deleted_capture_is_gone_and_its_number_is_not_used_again(manager):
    capturer = Capturer(manager, "s", [Value("a", {"x": "y" * 30_000})])
    infos = [capturer.capture() for _ in range(3)]
    manager.delete_checkpoint(infos[1].id)
    with pytest.raises(CheckpointNotFoundError):
        capturer.find(infos[1].id)
    with pytest.raises(CheckpointNotFoundError):
        capturer.stored(infos[1])
    assert capturer.check(infos[1])
    assert [one.number for one in capturer.captures()] == [3, 1]
    assert capturer.capture().number == 4
    for info in capturer.captures():
        manager.delete_checkpoint(info.id)
    again = capturer.capture()
    assert again.id not in {one.id for one in infos}
    assert capturer.check(again) == []
    assert capturer.captures() == [again]


def test_a_failure_writes_one_event_and_nothing_else(manager, monkeypatch):
    parts = [Phased("a", 1), Failing("b", "capture", times=99)]
    capturer = Capturer(manager, "s", parts)
    for _ in range(5):
        with pytest.raises(CaptureFailedError, match="'b'"):
            capturer.capture()
    assert capturer.captures() == []
    assert manager.store.position == 1
    monkeypatch.setattr(failure, "QUIET_S", 0.0)
    with pytest.raises(CaptureFailedError):
        capturer.capture()
    assert manager.store.position == 2
    assert manager.validate_checkpoint_integrity() == []


def test_the_event_says_what_and_holds_no_message(manager, monkeypatch):
    told = []
    monkeypatch.setattr(
        manager, "record", lambda kind, facts, task: told.append((kind, facts, task))
    )
    part = Failing("b", "capture", ValueError("secret of a user"), times=3)
    capturer = Capturer(manager, "s", [part])
    for _ in range(3):
        with pytest.raises(CaptureFailedError):
            capturer.capture()
    facts = {
        "component": "b",
        "step": "capture",
        "reason": "failed",
        "error": "ValueError",
        "suppressed": 0,
    }
    assert told == [("capture.failed", facts, "s")]
    capturer.capture()  # tells what was left out: this one's own, and one more; and begins anew
    assert told[1:] == [("capture.failed", {**facts, "suppressed": 1}, "s")]
    part.times = 1
    with pytest.raises(CaptureFailedError):
        capturer.capture()
    assert told[2:] == [("capture.failed", facts, "s")]
    capturer.capture()
    assert len(told) == 3


def test_while_a_thread_hangs_nothing_is_begun(manager):
    hanging, other = Hanging("b", "capture"), Phased("a", 1)
    capturer = Capturer(manager, "s", [other, hanging], deadline_s=0.05)
    with pytest.raises(CaptureFailedError, match="in time"):
        capturer.capture()
    calls = list(other.calls)
    with pytest.raises(CaptureFailedError, match=r"'b' still hangs in capture") as caught:
        capturer.capture()
    assert caught.value.context["reason"] == "hung"
    assert other.calls == calls
    hanging.gate.set()
    assert hanging.has_ended.wait(20)
    hanging.step = ""
    while capturer._left and capturer._left[0].is_at_work:
        capturer._left[0].join(1)
    assert capturer.capture().number == 1


def test_two_threads_capture_one_after_the_other(manager):
    capturer = Capturer(manager, "s", [Phased("a", 1), Phased("b", 2)])
    numbers, lock = [], threading.Lock()

    def run():
        for _ in range(5):
            info = capturer.capture()
            with lock:
                numbers.append(info.number)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 21))


def test_two_managers_take_no_number_twice(tmp_path):
    with CheckpointManager(tmp_path) as one, CheckpointManager(tmp_path) as two:
        numbers, lock = [], threading.Lock()

        def run(manager):
            capturer = Capturer(manager, "s", [Value("a", {"x": "y" * 50_000})])
            for _ in range(8):
                info = capturer.capture()
                with lock:
                    numbers.append(info.number)

        threads = [threading.Thread(target=run, args=(manager,)) for manager in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(numbers) == list(range(1, 17))
        assert [info.number for info in Capturer(one, "s").captures()] == list(range(16, 0, -1))


def test_a_forked_child_goes_on(tmp_path):
    with CheckpointManager(tmp_path) as manager:
        capturer = Capturer(manager, "s", [Phased("a", {"n": 1})])
        capturer.capture()
        import warnings

        context = multiprocessing.get_context("fork")
        with capturer._mutex.held(1.0), warnings.catch_warnings():  # as if another was at it
            warnings.simplefilter("ignore", DeprecationWarning)
            child = context.Process(target=lambda: os._exit(capturer.capture().number))
            child.start()
        child.join(60)
        assert child.exitcode == 2
        assert capturer.capture().number == 3


def test_reading_needs_no_components_and_capturing_does(manager):
    info = Capturer(manager, "s", [Value("a", 1)]).capture()
    reader = Capturer(manager, "s")
    assert reader.find() == info
    with pytest.raises(ArgumentError, match="no components"):
        reader.capture()


@pytest.mark.parametrize(
    ("option", "bad"),
    [("description", 3), ("tags", "abc"), ("tags", [""]), ("tags", ["x"] * 101), ("reason", "")],
)
def test_wrong_arguments_are_named(manager, option, bad):
    capturer = Capturer(manager, "s", [Value("a", 1)])
    with pytest.raises(ArgumentError, match="tag" if option == "tags" else option):
        capturer.capture(**{option: bad})
    assert manager.store.position == 0


def test_what_changed_while_it_was_read_is_taken_again(manager):
    book = Book("book", changes=2)
    capturer = Capturer(manager, "s", [book, Value("a", 1)])
    info = capturer.capture()
    assert capturer.stored(info)["book"].value() == {"version": 3, "text": "once"}
    # Twice after the barrier; the last time before it ends.
    assert book.calls == [
        *("capture", "commit", "write", "close"),
        *("capture", "commit", "write", "close"),
        *("capture", "write", "commit", "close"),
    ]
    assert info.components["book"].stability == "reread"
    assert info.components["book"].kind == "book"


def test_what_changes_always_is_told(manager):
    book = Book("book", changes=99)
    capturer = Capturer(manager, "s", [book, Value("a", 1)])
    with pytest.raises(ChangedError, match=r"'book': page 7 changed") as caught:
        capturer.capture()
    assert caught.value.context["component"] == "book"
    assert book.calls.count("close") == book.calls.count("capture") == 3
    assert capturer.captures() == []


def test_a_snapshot_is_given_what_it_was_before(manager):
    book = Book("book")
    capturer = Capturer(manager, "s", [book])
    capturer.capture()
    book.version = 5
    capturer.capture()
    assert book.before[0] is None
    assert book.before[1].value() == {"version": 1, "text": "once"}


class Loose(Account):
    """An account that nobody holds still."""

    prepare = commit = abort = None


@pytest.mark.parametrize("kind", [Account, Loose])
def test_only_a_barrier_makes_money_that_is_being_moved_add_up(manager, kind):
    bank, is_half, goes_on = Bank(["a", "b"]), threading.Event(), threading.Event()

    def pause():
        is_half.set()
        goes_on.wait(0.2 if kind is Account else 60)

    mover = threading.Thread(target=bank.move, args=("a", "b", 30, pause))
    mover.start()
    assert is_half.wait(20)
    capturer = Capturer(manager, "bank", [kind(bank, "a"), kind(bank, "b", depends_on=["a"])])
    info = capturer.capture()
    goes_on.set()
    mover.join()
    total = sum(one["money"] for one in values(capturer, info).values())
    # The invariant that the state machine watches can be broken: without the barrier it is.
    assert total == (200 if kind is Account else 170)


def test_a_capture_over_its_limit_is_refused_and_names_the_largest(manager):
    small, large = Value("small", "s" * 100), Value("large", "l" * 10_000)
    size = Capturer(manager, "whole", [small, large]).capture().bytes_logical
    exactly = Capturer(manager, "sys", [small, large], size_bytes_max=size)
    first = exactly.capture()
    assert first.bytes_logical == size
    capturer = Capturer(manager, "sys", [small, large], size_bytes_max=size - 1)
    position = manager.store.position
    with pytest.raises(CaptureTooLargeError, match="'large'") as caught:
        capturer.capture(reason="interval")
    context = caught.value.context
    assert (context["component"], context["reason"]) == ("large", "too_large")
    assert context["size_bytes"] == size
    assert context["limit_bytes"] == size - 1
    assert "maxCaptureSizeBytes" in caught.value.hint
    assert not caught.value.retryable
    assert [one.id for one in capturer.captures()] == [first.id]
    (entry,) = manager.store.events(position)
    assert (entry.event.type, entry.event.facts["reason"]) == ("capture.failed", "too_large")
    assert capturer.of([small]).capture().components.keys() == {"small"}
    # What grew too large must be recoverable all the same.
    assert capturer.capture(reason="safety").bytes_logical == size


@pytest.mark.parametrize("size_bytes_max", [0, -1, True, 1.5, "1"])
def test_a_limit_is_a_number_of_bytes(manager, size_bytes_max):
    with pytest.raises(ArgumentError, match="size_bytes_max"):
        Capturer(manager, "sys", [Value("a", 1)], size_bytes_max=size_bytes_max)


def test_what_is_too_large_is_given_up_before_all_of_it_is_written(manager, tmp_path):
    class Endless:
        """Blocks that never come to an end: only a limit stops reading them."""

        stability = "snapshot"

        def __init__(self):
            self.given = 0

        def blocks(self):
            while True:
                self.given += 1
                yield self.given.to_bytes(8) * 8192

        def write(self, writer, before):
            return writer.root(writer.raw(self.blocks()))

        def close(self):
            pass

    snapshot = Endless()
    capturer = Capturer(manager, "sys", [Value("endless", snapshot)], size_bytes_max=4 << 20)
    with pytest.raises(CaptureTooLargeError, match="'endless'"):
        capturer.capture()
    assert 4 << 20 <= snapshot.given * 65_536 <= 16 << 20
    assert not list((tmp_path / "store" / "packs").iterdir())


def test_a_sample_of_a_capture_is_read_again(manager, tmp_path):
    state = {"blob": bytes(os.urandom(3_000_000)), "list": list(range(50_000)), "n": None}
    info = Capturer(manager, "sys", [Value("large", state), Value("small", 1)]).capture()
    capturer = Capturer(manager, "sys")
    reads = []
    real = manager.store.blobs.raw

    def raw(digest, domain):
        reads.append(digest)
        return real(digest, domain)

    manager.store.blobs.raw = raw
    assert capturer.check(info) == []
    everything = set(reads)
    reads.clear()
    assert capturer.check(info, sample=5) == []
    assert 5 < len(reads) < len(everything)
    assert set(reads) <= everything
    for _ in range(40):  # every byte may be met; a leaf of some hundred seldom is
        capturer.check(info, sample=50)
    assert len(set(reads)) > 0.9 * len(everything)
