"""What a service is made of: dependencies, listeners, what stays, how it is made, asyncio."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptlog
from ckptlog.capture.roll import Line
from ckptlog.errors import ArgumentError, ComponentError, SettingsError
from ckptlog.model.checkpoint import time_text
from ckptlog.service import listener
from ckptlog.service.creation import load_configuration
from ckptlog.service.dependency import MANAGERS, components_of
from ckptlog.service.keeping import SAFETY_MAX, doomed
from ckptlog.service.listener import Listeners
from tests.service.system import Agents, settings, until


class Own:
    name = "own"

    def capture(self):
        return 1

    def restore(self, payload):
        pass


# --- dependencies ---------------------------------------------------------------------------------


def test_the_five_managers_in_both_spellings():
    from ckptlog.model.setting import camel

    for spell in (str, camel):
        given_ = {spell(name): Agents() for name in MANAGERS}
        assert [one.name for one in components_of(given_)] == list(MANAGERS.values())
    found = components_of(SimpleNamespace(agentManager=Agents(), queueManager=None, other=1))
    assert [one.name for one in found] == ["agents"]


def test_components_and_anything_by_its_name():
    own = Own()
    assert components_of([own]) == [own]
    found = components_of({"cache": {"a": 1}, "components": [own], "memoryManager": None})
    assert [one.name for one in found] == ["cache", "own"]
    assert components_of({"own": own}) == [own]
    assert components_of(None) == []


@pytest.mark.parametrize(
    ("given_", "word"),
    [
        ({"agentsManager": Agents()}, "Did you mean agent_manager?"),
        ({"agent_manager": 3}, "gives no state"),
        ({"agents": Own()}, "under the name"),
        ({"a": {}, "components": [3]}, "is no component"),
        ({"agentManager": Agents(), "agents": Agents()}, "given twice"),
        ({3: Agents()}, "a text is needed"),
        ([Agents()], "is no component"),
        ([Own], "is no component"),
        (SimpleNamespace(x=1), "none of"),
    ],
)
def test_wrong_dependencies_are_told(given_, word):
    with pytest.raises(ComponentError) as caught:
        components_of(given_)
    assert word in str(caught.value)


# --- listeners ------------------------------------------------------------------------------------


def test_both_spellings_any_and_the_end():
    listeners, seen = Listeners(), []
    for name in ("checkpointCreated", "checkpoint_created", "*"):
        end = listeners.on(name, seen.append)
    listeners.tell(listener.CHECKPOINT_CREATED, 1)
    until(lambda: seen == [1, 1, 1])
    end()
    listeners.tell(listener.ALERT_RAISED, 2)
    listeners.tell(listener.CHECKPOINT_CREATED, 3)
    assert listeners.end(30)
    assert seen == [1, 1, 1, 3, 3]
    listeners.tell(listener.CHECKPOINT_CREATED, 4)  # again after an end
    until(lambda: len(seen) == 7)
    assert listeners.end(30)


def test_order_holds_and_beyond_the_limit_is_dropped(monkeypatch):
    monkeypatch.setattr(listener, "PENDING_MAX", 5)
    hold, seen, listeners = threading.Event(), [], Listeners()
    listeners.on("*", lambda what: (hold.wait(30), seen.append(what)))
    for number in range(20):
        listeners.tell(listener.CHECKPOINT_CREATED, number)
    hold.set()
    assert listeners.end(30)
    assert seen == sorted(seen)
    assert len(seen) + listeners.dropped == 20
    assert 5 <= len(seen) <= 6


def test_unknown_events_are_refused():
    with pytest.raises(ArgumentError, match="Did you mean 'checkpointCreated'"):
        Listeners().on("checkpointCreate", print)
    with pytest.raises(ArgumentError, match=r"Did you mean 'recovery_failed'.* recovery_progress,"):
        Listeners().on("recovery_fail", print)
    with pytest.raises(ArgumentError):
        Listeners().on("checkpointCreated", 3)


# --- what stays -----------------------------------------------------------------------------------

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def line(number, age_days):
    return Line(f"c{number:02}", time_text(NOW - timedelta(days=age_days)))


def numbers(lines):
    return [int(one.id[1:]) for one in lines]


def test_count_and_age():
    found = [line(n, 10 - n) for n in range(1, 10)]
    assert numbers(doomed(found, [], count_max=3, before=None)) == [1, 2, 3, 4, 5, 6]
    assert numbers(doomed(found, [], count_max=0, before=NOW - timedelta(7.5))) == [1, 2]


def test_the_good_one_stays():
    old = [line(1, 200), line(2, 100)]
    before = NOW - timedelta(1)
    assert numbers(doomed(old, [], count_max=1, before=before, good="c01")) == [2]


def test_what_recoveries_saved_counts_apart():
    found, saved = [line(n, 50 - n) for n in range(5)], [line(n, 50 - n) for n in range(10, 20)]
    gone = numbers(doomed(found, saved, count_max=4, before=None))
    assert gone == [0, *range(10, 17)]
    assert numbers(doomed(found, saved, count_max=0, before=None)) == []
    assert len(doomed(found, saved, count_max=0, before=NOW)) == 15


@given(
    st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=12),
    st.integers(0, 5),
    st.none() | st.floats(0, 100),
    st.none() | st.integers(0, 11),
)
def test_what_stays_is_enough(facts, count, age, good):
    found = [(line(number, days), is_safety) for number, (days, is_safety) in enumerate(facts)]
    loose = [one for one, is_safety in found if not is_safety]
    safety = [one for one, is_safety in found if is_safety]
    before = None if age is None else NOW - timedelta(age)
    name = None if good is None else f"c{good:02}"
    gone = doomed(loose, safety, count_max=count, before=before, good=name)
    assert name not in [one.id for one in gone]
    assert len(gone) == len({one.id for one in gone})
    stay = [one for one in loose if one not in gone]
    if count:
        assert len(stay) <= count + 1
        assert len(safety) - len([one for one in safety if one in gone]) <= SAFETY_MAX + 1
    if before is None:
        assert len(stay) >= min(len(loose), count or len(loose))
        assert loose[len(loose) - len(stay) + 1 :] == stay[1:]


# --- making ---------------------------------------------------------------------------------------


def test_configurations_of_every_kind(tmp_path, monkeypatch):
    toml, js = tmp_path / "c.toml", tmp_path / "c.json"
    toml.write_text("intervalSeconds = 3\n")
    js.write_text(json.dumps({"interval_seconds": 3}))
    for given_ in (toml, str(js), {"intervalSeconds": 3}):
        assert load_configuration(given_).interval_seconds == 3
    assert (
        load_configuration(ckptlog.CheckpointConfiguration(storage_dir="x")).storage.local.path
        == "x"
    )
    monkeypatch.setenv("CKPTLOG_INTERVAL_SECONDS", "4")
    assert load_configuration().interval_seconds == 4
    (tmp_path / "c.yaml").write_text("")
    (tmp_path / "bad.json").write_bytes(b"\xff")
    (tmp_path / "large.json").write_bytes(b" " * (1024 * 1024 + 1))
    for name in ("c.yaml", "bad.json", "large.json"):
        with pytest.raises(SettingsError):
            load_configuration(tmp_path / name)
    with pytest.raises(ckptlog.CheckpointStorageError):
        load_configuration(tmp_path / "none.json")
    with pytest.raises(SettingsError):
        load_configuration(3)
    toml.write_text("intervalSecond = 3\n")
    with pytest.raises(SettingsError) as caught:
        load_configuration(toml)
    assert str(toml) in caught.value.__notes__[0]


def test_quick_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    service = ckptlog.quick_start(config={"captureSignals": [], "captureOnShutdown": False})
    until(service.list_checkpoints, "a capture")
    assert list(service.list_checkpoints()[0].components) == ["environment"]
    service.close()
    assert (tmp_path / ".ckptlog" / "store.json").exists()


# --- asyncio --------------------------------------------------------------------------------------


def test_the_loop_is_not_blocked_and_coroutines_are_called_in_it(tmp_path):
    class Slow(Agents):
        async def get_state(self):
            await asyncio.sleep(0.2)
            return {"thread": threading.current_thread().name}

    async def main():
        ticks, seen, is_told = 0, [], asyncio.Event()

        async def created(info):
            seen.append((info.number, asyncio.get_running_loop()))
            is_told.set()

        async def ticking():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticker = asyncio.create_task(ticking())
        service = ckptlog.AsyncCheckpointService.create(
            settings(tmp_path / "s", intervalSeconds=3600), {"agents": Slow()}
        )
        assert await service is service  # as the specification writes it
        async with service:
            service.on("checkpointCreated", created)
            info = await service.create_checkpoint("by hand", ["a"])
            assert info.tags == ("a",)
            await is_told.wait()
            assert seen[0][1] is asyncio.get_running_loop()
            await service.pause()
            assert service.state == "paused"
            await service.resume()
            assert (await service.get_metrics()).total_checkpoints >= 1
            assert len(await service.list_checkpoints()) >= 1
            await service.stop()
        assert service.state == "closed"
        assert ticks >= 5
        ticker.cancel()

    asyncio.run(main())
