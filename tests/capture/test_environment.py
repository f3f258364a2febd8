"""The environment: what is different is told; secrets never leave; nothing changes unasked."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata

import pytest

from ckptlog import Capturer, CheckpointManager, MappingComponent, Recovery, RecoveryRefusedError
from ckptlog.capture.environment import Difference, EnvironmentComponent
from ckptlog.errors import ComponentError, EnvironmentDiffersError, ForeignPayloadError
from ckptlog.model.value import prepare
from ckptlog.policy.sanitise import Sanitiser

TOKEN = "ghp_" + "a1B2" * 10


def test_it_says_where_it_ran():
    payload = EnvironmentComponent().capture()
    prepare(payload)
    assert payload["python"]["version"] == platform.python_version()
    assert payload["packages"]["blake3"]
    assert payload["directory"] == os.getcwd()
    assert "PATH" in payload["variables"]


def test_a_directory_that_was_removed_fails_no_capture(tmp_path, monkeypatch):
    gone = tmp_path / "release"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    part = EnvironmentComponent(environ={})
    payload = part.capture()
    assert payload["directory"] in (f"{gone} (deleted)", "")
    assert part.compare(payload) == ()


def test_a_variable_that_no_process_can_have_is_left_out():
    environ = {"": "1", "A=": "2", "B": "3\0", "C": "4"}
    part = EnvironmentComponent(environ=environ, apply_variables=True)
    payload = part.capture()
    assert payload["variables"] == {"C": "4"}
    part.restore(payload)
    assert len(environ) == 4


def test_packages_are_read_before_anybody_is_held(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    (folder / "some-1.dist-info").mkdir(parents=True)
    (folder / "some-1.dist-info" / "METADATA").write_text("Name: some\nVersion: 1\n")
    monkeypatch.syspath_prepend(str(folder))
    read = []

    class Gate:
        name, is_held = "gate", False

        def prepare(self):
            self.is_held = True

        def capture(self):
            return {}

        def restore(self, payload):
            pass

        def commit(self):
            self.is_held = False

        abort = commit

    gate = Gate()
    distributions = metadata.distributions

    def reading():
        read.append(gate.is_held)
        return distributions()

    monkeypatch.setattr(metadata, "distributions", reading)
    component = EnvironmentComponent()
    with CheckpointManager(tmp_path / "store") as manager:
        capturer = Capturer(manager, "s", [gate, component])
        info = capturer.capture()
        assert capturer.stored(info)["environment"].value()["packages"]["some"] == "1"
    assert read == [False]


def test_secrets_are_named_and_not_told():
    environ = {
        "API_KEY": "by-name-alone",
        "HARMLESS": f"by shape {TOKEN}",
        "PASSWORD": "",
        "HOME": "/home/x",
    }
    payload = EnvironmentComponent(environ=environ).capture()
    assert payload["redacted"] == ["API_KEY", "HARMLESS"]
    assert payload["variables"] == {"HOME": "/home/x", "PASSWORD": ""}
    assert "by-name" not in str(payload)
    assert TOKEN not in str(payload)


def test_a_sanitiser_of_ones_own_is_asked():
    environ = {"PIN": "1234", "OTHER": "x"}
    part = EnvironmentComponent(environ=environ, sanitiser=Sanitiser(extra_keys=["pin"]))
    assert part.capture()["redacted"] == ["PIN"]


def test_a_restore_compares_and_changes_nothing():
    environ = {"A": "1", "B": "2", "SECRET_KEY": "x"}
    part = EnvironmentComponent(environ=environ)
    payload = part.capture()
    part.restore(payload)
    assert part.differences == ()
    environ.update(A="9", C="3", SECRET_KEY="y")
    del environ["B"]
    payload["packages"]["blake3"] = "0.0.1"
    part.restore(payload)
    found = {(one.aspect, one.name): (one.before, one.now) for one in part.differences}
    assert found.pop(("packages", "blake3"))[0] == "0.0.1"
    assert found == {
        ("variables", "A"): ("1", "9"),
        ("variables", "B"): ("2", None),
        ("variables", "C"): (None, "3"),
    }
    assert environ == {"A": "9", "C": "3", "SECRET_KEY": "y"}


def test_variables_are_applied_on_request_and_secrets_stay():
    environ = {"A": "1", "B": "2", "OTHER": "o", "A_TOKEN": "secret-1"}
    part = EnvironmentComponent(environ=environ, apply_variables=True, variables=["[AB]*"])
    payload = part.capture()
    environ.update(A="9", OTHER="p", A_TOKEN="secret-2", BEHIND="x")
    del environ["B"]
    part.restore(payload)
    assert environ == {"A": "1", "B": "2", "OTHER": "p", "A_TOKEN": "secret-2"}


def test_a_variable_outside_of_the_selection_is_not_applied():
    payload = EnvironmentComponent(environ={"A": "1", "LD_PRELOAD": "/x"}).capture()
    environ = {}
    EnvironmentComponent(environ=environ, apply_variables=True, variables=["A"]).restore(payload)
    assert environ == {"A": "1"}


@pytest.mark.parametrize("entry", ["packages", "packages.blake3", "variables.A"])
def test_what_must_match_is_refused(entry):
    environ = {"A": "1"}
    part = EnvironmentComponent(environ=environ, must_match=[entry], apply_variables=True)
    payload = part.capture()
    part.restore(payload)
    environ["A"] = "2"
    payload["packages"]["blake3"] = "0.0.1"
    with pytest.raises(EnvironmentDiffersError, match=r"blake3|A: '1'"):
        part.restore(payload)
    assert environ == {"A": "2"}


def test_many_differences_are_cut_short():
    part = EnvironmentComponent(environ={}, must_match=["variables"])
    payload = part.capture()
    payload["variables"] = {f"V{number}": "x" for number in range(9)}
    with pytest.raises(EnvironmentDiffersError, match="and 4 more"):
        part.restore(payload)


def test_an_unknown_aspect_is_told():
    with pytest.raises(ComponentError, match="pakages"):
        EnvironmentComponent(must_match=["pakages.numpy"])


def test_bytes_that_are_no_text_come_back():
    odd = os.fsdecode(b"caf\xe9")
    environ = {"ODD": odd, "MARK": "bytes in hexadecimal: 00"}
    part = EnvironmentComponent(environ=environ, apply_variables=True)
    payload = part.capture()
    prepare(payload)
    environ.clear()
    part.restore(payload)
    assert environ == {"ODD": odd, "MARK": "bytes in hexadecimal: 00"}


@pytest.mark.parametrize(
    "change",
    [
        {"variables": {"A": 1}},
        {"variables": {"A=B": "1"}},
        {"variables": {"": "1"}},
        {"variables": {"A": "\0"}},
        {"redacted": [1]},
        {"python": None},
    ],
)
def test_impossible_payloads_are_refused(change):
    environ = {"A": "1"}
    part = EnvironmentComponent(environ=environ, apply_variables=True)
    with pytest.raises(ForeignPayloadError):
        part.restore({**part.capture(), **change})
    assert environ == {"A": "1"}


def test_packages_are_found_again_when_a_folder_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    part = EnvironmentComponent()
    assert "late-comer" not in part.capture()["packages"]
    folder = tmp_path / "late_comer-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: late-comer\nVersion: 1.2\n")
    assert part.capture()["packages"]["late-comer"] == "1.2"


def test_a_difference_is_a_sentence():
    assert str(Difference("variables", "A", "1", None)) == (
        "variables A: '1' when captured, absent now"
    )


def test_a_recovery_where_other_variables_are_selected_now(tmp_path):
    """What this program does not set is not missed after a restore either."""
    environ = {"MODE": "fast", "OTHER": "1"}
    with CheckpointManager(tmp_path / "store") as manager:
        wide = EnvironmentComponent(apply_variables=True, environ=environ)
        Capturer(manager, "system", [wide]).capture()
        environ |= {"MODE": "slow", "OTHER": "2"}
        narrow = EnvironmentComponent(apply_variables=True, variables=("MODE",), environ=environ)
        recovery = Recovery(Capturer(manager, "system", [narrow]))
        planned = recovery.recover(dry_run=True).plans["environment"]
        assert [one.path for one in planned.changes] == ["variables MODE"]
        assert recovery.recover().status == "completed"
        assert environ == {"MODE": "fast", "OTHER": "2"}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("python.versoin", "implementation, version"),
        ("platform.kernel", "system, release, machine"),
        ("directory.x", "nothing to name"),
        ("packages.", "packages.numpy"),
        ("variables.B", "not captured"),
        ("variables.A_TOKEN", "a secret"),
    ],
)
def test_what_would_guard_nothing_is_refused(entry, words):
    with pytest.raises(ComponentError) as caught:
        EnvironmentComponent(variables=["A*"], must_match=[entry])
    assert words in caught.value.hint


@pytest.mark.parametrize("spelled", ["Ruamel.Yaml", "ruamel-yaml", "RUAMEL__YAML", "ruamel.yaml"])
def test_a_package_is_guarded_by_any_spelling_of_its_name(spelled):
    part = EnvironmentComponent(environ={}, must_match=[f"packages.{spelled}"])
    payload = part.capture()
    payload["packages"].pop("ruamel.yaml", None)
    for name, is_guarded in (("ruamel.yaml", True), ("ruamel_yaml", True), ("ruamelyaml", False)):
        changed = {**payload, "packages": {**payload["packages"], name: "0.0"}}
        assert bool(part.validate(changed)) is is_guarded


def test_what_must_match_is_told_before_anything_is_touched(tmp_path):
    environ, state = {"A": "1"}, {"n": 1}
    with CheckpointManager(tmp_path / "store") as manager:
        parts = [
            MappingComponent("first", state),
            EnvironmentComponent(environ=environ, must_match=["variables.A"]),
        ]
        recovery = Recovery(Capturer(manager, "sys", parts))
        info = recovery.capturer.capture()
        environ["A"], state["n"] = "2", 2
        plan = recovery.recover(info.id, dry_run=True)
        (fault,) = plan.errors
        assert fault == (
            "Component 'environment': must match, and does not: variables A: '1' when captured, "
            "'2' now"
        )
        position = manager.store.position
        with pytest.raises(RecoveryRefusedError, match="must match"):
            recovery.recover(info.id)
        assert (state, manager.store.position) == ({"n": 2}, position)
        environ["A"] = "1"
        assert recovery.recover(info.id).status == "completed"
        environ.update(B="x", C="x", D="x", E="x")
        summary = recovery.recover(info.id, dry_run=True).plans["environment"].summary
        assert summary.startswith("4 differences (variables B: absent when captured, 'x' now; ")
        assert summary.endswith("; ...), 0 to change")
