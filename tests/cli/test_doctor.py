"""The doctor finds what is wrong around a store, and says what to do."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ckptlog.cli import diagnosis
from ckptlog.storage.environment import Environment


class Mounted(Environment):
    """A machine with one file system of a kind."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def mounts(self):
        return f"36 35 98:0 / / rw,noatime shared:1 - {self.kind} /dev/sda1 rw\n"


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("ext4", "ok"),
        ("xfs", "ok"),
        ("nfs4", "error"),
        ("nfs", "error"),
        ("cifs", "error"),
        ("9p", "error"),
        ("fuse.sshfs", "error"),
        ("tmpfs", "warning"),
    ],
)
def test_file_system(tmp_path, kind, level):
    finding = diagnosis.file_system(tmp_path, Mounted(kind))
    assert (finding.level, finding.code) == (level, "doctor.file_system")
    assert kind in finding.message
    assert bool(finding.hint) == (level != "ok")


@pytest.mark.parametrize(
    ("free", "nodes", "level"),
    [
        (10**12, (100, 50), "ok"),
        (10**12, (0, 0), "ok"),
        (10**8, (100, 50), "warning"),
        (10**6, (100, 50), "error"),
        (10**12, (100, 0), "error"),
    ],
)
def test_free_space(tmp_path, monkeypatch, free, nodes, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    nodes = SimpleNamespace(f_files=nodes[0], f_favail=nodes[1])
    monkeypatch.setattr(os, "statvfs", lambda _: nodes)
    finding = diagnosis.free_space(tmp_path)
    assert (finding.level, finding.code) == (level, "doctor.disk")


def test_permissions(tmp_path, monkeypatch):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.seg").write_text("x")
    assert [f.level for f in diagnosis.permissions(tmp_path)] == ["ok"]
    tmp_path.chmod(0o777)
    assert [f.level for f in diagnosis.permissions(tmp_path)] == ["ok", "warning"]
    tmp_path.chmod(0o755)
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: real(path, mode) and "a.seg" not in str(path)
    )
    (finding,) = diagnosis.permissions(tmp_path)
    assert finding.level == "error"
    assert "a.seg" in finding.message
    assert "chown" in finding.hint


def test_versions(monkeypatch):
    findings = list(diagnosis.versions())
    assert [f.level for f in findings] == ["ok", "ok"]
    assert "msgspec" in findings[0].message
    monkeypatch.setattr(diagnosis, "PACKAGES", ("blake3", "no-such-package"))
    findings = list(diagnosis.versions())
    assert [f.level for f in findings][:2] == ["ok", "error"]
    assert "no-such-package" in findings[1].message


def test_a_chunker_in_python_is_slow(monkeypatch):
    import pyfastcdc

    class FastCDC:
        __module__ = "pyfastcdc.py.fastcdc"

    monkeypatch.setattr(pyfastcdc, "FastCDC", FastCDC)
    finding = diagnosis.chunker_speed()
    assert (finding.level, finding.code) == ("warning", "doctor.chunker")


def test_lock_holder(tmp_path):
    assert "No process" in diagnosis.lock_holder(tmp_path).message
    with (tmp_path / "lock").open("w") as lock:
        assert "No process" in diagnosis.lock_holder(tmp_path).message
        fcntl.flock(lock, fcntl.LOCK_EX)
        message = diagnosis.lock_holder(tmp_path).message
        if Path("/proc/locks").read_text():  # some containers show none
            assert f"process {os.getpid()}" in message


def test_a_healthy_store(run, filled):
    done = run("--store", filled.path, "doctor", "--json")
    assert (done.status, done.err) == (0, "")
    assert (done.document["ok"], done.document["store"]) == (True, str(filled.path))
    codes = {finding["code"] for finding in done.document["findings"]}
    assert {"doctor.versions", "doctor.permissions", "doctor.disk", "doctor.file_system"} <= codes
    assert run("--store", filled.path, "doctor").out.startswith("ok ")


def test_a_store_that_cannot_be_opened_is_a_finding(run, filled, tmp_path):
    (filled.path / "store.json").write_text("{")
    done = run("--store", filled.path, "doctor", "--json")
    assert (done.status, done.error["code"]) == (5, "cli.doctor")
    assert done.document["findings"][-1]["code"] == "format.malformed"
    done = run("--store", filled.path, "doctor")
    assert "ERROR" in done.out
    assert "->" in done.out
    done = run("--store", tmp_path / "none", "doctor", "--json")
    assert (done.status, done.document["findings"][-1]["code"]) == (3, "store.missing")


def test_an_error_around_the_store_is_no_success(run, filled, monkeypatch):
    monkeypatch.setattr(diagnosis, "FREE_BYTES_NEEDED", 10**30)
    done = run("--store", filled.path, "doctor")
    assert done.status == 1
    assert "The disk is full" in done.out
    assert "[cli.doctor]" in done.err


def test_the_doctor_needs_no_terminal():
    done = subprocess.run(
        [sys.executable, "-c", "from ckptlog.cli.diagnosis import versions; list(versions())"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_kernel(monkeypatch):
    from ckptlog import kernel

    monkeypatch.setattr(kernel, "native", object())
    assert diagnosis.kernel().level == "ok"
    monkeypatch.setattr(kernel, "native", None)
    monkeypatch.setenv("CKPTLOG_PURE", "1")
    finding = diagnosis.kernel()
    assert (finding.level, finding.code) == ("warning", "doctor.kernel")
    assert "CKPTLOG_PURE is set" in finding.message
    monkeypatch.delenv("CKPTLOG_PURE")
    assert "could not be compiled" in diagnosis.kernel().message
    around = diagnosis.surroundings(Path("none"), Environment())
    assert "doctor.kernel" in {finding.code for finding in around}


@pytest.mark.root
def test_a_read_only_mount_is_not_a_matter_of_rights(run, filled):
    """It once said "this user" and "chown", and ended with 1."""
    place = str(filled.path)
    mounted = subprocess.run(["mount", "--bind", place, place], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        done = run("--store", place, "doctor")
        found = run("--store", place, "doctor", "--json")
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
    assert done.status == found.status == 6
    assert "mounted read-only" in done.out
    assert "chown" not in done.out
    codes = [f["code"] for f in found.document["findings"] if f["level"] == "error"]
    assert codes == ["store.read_only"]
