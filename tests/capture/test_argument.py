"""Ready components are given nonsense: the fault names the component, and what is wrong."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ckptlog import (
    AsyncQueueComponent,
    CallableComponent,
    CheckpointManager,
    ComponentError,
    DirectoryComponent,
    EnvironmentComponent,
    FileComponent,
    MappingComponent,
    Recovery,
    SqliteComponent,
    state_component,
)
from ckptlog.capture.capturer import Capturer
from ckptlog.errors import ArgumentError, CaptureFailedError, RecoveryRefusedError, SourceError

PLACED = [FileComponent, SqliteComponent, DirectoryComponent]


@pytest.mark.parametrize("path", [5, None, b"x", "", "a\0b", ["x"]], ids=repr)
@pytest.mark.parametrize("kind", PLACED)
def test_a_path_that_is_none(kind, path):
    with pytest.raises(ComponentError, match="path of the component 'f' is") as caught:
        kind("f", path)
    assert caught.value.context["component"] == "f"


@pytest.mark.parametrize("kind", PLACED)
def test_paths(kind, tmp_path):
    assert kind("f", str(tmp_path)).location == kind("f", tmp_path).location


def nothing(*_):
    return None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FileComponent("f", "x", size_max="1"), "size_max of the component 'f' is '1'"),
        (lambda: FileComponent("f", "x", size_max=-1), "size_max"),
        (lambda: SqliteComponent("f", "x", busy_timeout_s="1"), "busy_timeout_s"),
        (lambda: SqliteComponent("f", "x", busy_timeout_s=math.nan), "busy_timeout_s"),
        (lambda: AsyncQueueComponent("f", asyncio.Queue(), loop=5), "loop of the component 'f'"),
        (lambda: AsyncQueueComponent("f", asyncio.Queue(), timeout_s=True), "timeout_s"),
        (lambda: CallableComponent("f", nothing, nothing, loop=5), "loop"),
        (lambda: CallableComponent("f", nothing, nothing, timeout_s=None), "timeout_s"),
        (lambda: CallableComponent("f", nothing, nothing, depends_on="db"), "depends_on"),
        (lambda: DirectoryComponent("f", "x", depends_on="db"), "depends_on"),
        (lambda: EnvironmentComponent("f", variables="PATH"), "variables of the component 'f'"),
        (lambda: EnvironmentComponent("f", variables=[5]), "holds 5"),
        (lambda: EnvironmentComponent("f", must_match="packages"), "must_match"),
        (lambda: EnvironmentComponent("f", must_match=[5]), "holds 5"),
        (lambda: MappingComponent("f", 5), "of type int"),
        (lambda: SqliteComponent("f", ":memory:"), "in memory"),
    ],
)
def test_other_arguments(make, words):
    with pytest.raises(ComponentError, match=words):
        make()


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "store") as manager:
        yield manager


def test_a_failure_is_told_once_and_with_one_hint(manager, tmp_path):
    part = SqliteComponent("db", tmp_path / "none.db")
    with pytest.raises(SourceError) as inner:
        part.capture()
    with pytest.raises(CaptureFailedError) as caught:
        Capturer(manager, "sys", [part]).capture()
    error = caught.value
    assert error.message == (
        "Component 'db' failed in capture(), and the system was not captured: SourceError: "
        f"{inner.value.message}"
    )
    assert (error.hint, str(error).count(error.hint)) == (inner.value.hint, 1)


def test_faults_are_sentences(manager):
    class Fussy:
        name = "fussy"

        def capture(self):
            return 1

        def restore(self, payload):
            del payload

        def validate(self, payload):
            del payload
            return ["is odd", "is old."]

    recovery = Recovery(Capturer(manager, "sys", [Fussy()]))
    info = recovery.capturer.capture()
    with pytest.raises(RecoveryRefusedError) as caught:
        recovery.recover(info.id)
    assert caught.value.message == "Component 'fussy': is odd. Component 'fussy': is old."


def test_what_is_not_there_is_told_with_a_command(manager):
    capturer = Capturer(manager, "my system", [state_component("a", {})])
    info = capturer.capture()
    with pytest.raises(ArgumentError, match="at is 'yesterday'") as caught:
        capturer.find(at="yesterday")
    assert "aware datetime" in caught.value.hint
    with pytest.raises(ArgumentError, match="at is -1"):
        capturer.find(at=-1)
    early = datetime(2000, 1, 1, tzinfo=UTC)
    for find in (lambda: capturer.find("nosuch"), lambda: capturer.find(at=early)):
        with pytest.raises(Exception, match="has no capture") as found:
            find()
        assert "`ckptlog list --task 'my system'`" in found.value.hint
    first = info.created_at.strftime("%Y-%m-%dT%H:%M:%S")
    assert f"the first is of {first}" in found.value.message


def test_no_component_at_all():
    from ckptlog import create_checkpoint_system

    with pytest.raises(ComponentError, match="0 components") as caught:
        create_checkpoint_system({"storage": {"local": {"path": str(Path("x"))}}}, {})
    assert "get_state" in caught.value.hint
