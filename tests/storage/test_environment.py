from __future__ import annotations

import getpass
import os
import socket
import time
from pathlib import Path

import pytest

from ckptlog.storage import environment as module
from ckptlog.storage.disk import Disk
from ckptlog.storage.environment import Environment


@pytest.fixture(autouse=True)
def _nothing_remembered():
    module._boot.cache_clear()
    module._actor.cache_clear()
    yield
    module._boot.cache_clear()
    module._actor.cache_clear()


def test_carries_a_disk():
    disk = Disk()
    assert Environment(disk).disk is disk
    assert type(Environment().disk) is Disk


def test_clocks_have_their_units():
    environment = Environment()
    before = time.time()
    now_us = environment.now_us()
    assert before - 1 < now_us / 1e6 < time.time() + 1
    first = environment.monotonic_s()
    environment.sleep(0.001)
    assert environment.monotonic_s() >= first + 0.001


def test_random_bytes_differ():
    environment = Environment()
    found = {environment.random_bytes(16) for _ in range(100)}
    assert len(found) == 100
    assert {len(one) for one in found} == {16}


def test_a_boot_has_an_id_of_16_bytes_that_stays():
    first = Environment().boot()
    assert len(first) == 16
    assert Environment().boot() == first


def test_reads_the_kernels_boot_id(tmp_path, monkeypatch):
    path = tmp_path / "boot_id"
    path.write_text("00112233-4455-6677-8899-aabbccddeeff\n")
    monkeypatch.setattr(module, "BOOT_ID", path)
    assert Environment().boot() == bytes.fromhex("00112233445566778899aabbccddeeff")


@pytest.mark.parametrize("content", [None, "", "no digits"])
def test_no_boot_id_is_zeros(tmp_path, monkeypatch, content):
    path = tmp_path / "boot_id"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(module, "BOOT_ID", path)
    assert Environment().boot() == bytes(16)


def test_no_table_of_mounts_is_empty(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MOUNTS", tmp_path / "none")
    assert Environment().mounts() == ""
    monkeypatch.setattr(module, "MOUNTS", Path(__file__))
    assert "no_table_of_mounts" in Environment().mounts()


def test_the_actor_is_user_at_host(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(socket, "gethostname", lambda: "engine")
    assert Environment().actor() == "ada@engine"


@pytest.mark.parametrize("error", [KeyError, OSError, ImportError])
def test_a_user_without_a_name_is_a_number(monkeypatch, error):
    def nobody():
        raise error

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr(socket, "gethostname", lambda: "engine")
    assert Environment().actor() == f"{os.getuid()}@engine"


def test_an_actor_is_printable_and_bounded(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "a\x00\n\x1bb" + "c" * 500)
    found = Environment().actor()
    assert found.startswith("abccc")
    assert len(found) == 200
