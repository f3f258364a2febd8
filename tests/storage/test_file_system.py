from __future__ import annotations

import os

import pytest

from ckptlog.storage import environment as environment_module
from ckptlog.storage.environment import Environment
from ckptlog.storage.file_system import file_system_of, parse_mounts

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /srv rw - xfs /dev/sdb1 rw
24 23 0:22 / /srv/share rw,relatime shared:3 master:4 - nfs4 server:/export rw,vers=4.2
25 22 0:23 / /mnt/with\\040space rw - btrfs /dev/sdc1 rw
26 22 0:24 / /twice rw - tmpfs tmpfs rw
27 26 0:25 / /twice rw - fuse.sshfs host: rw
"""


class Mounted(Environment):
    def __init__(self, table=TABLE):
        super().__init__()
        self.table = table

    def mounts(self):
        return self.table


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/ada/store", "ext4"),
        ("/srv/store", "xfs"),
        ("/srv", "xfs"),
        ("/srv/share/store", "nfs4"),
        ("/srv/shared/store", "xfs"),
        ("/srvx", "ext4"),
        ("/mnt/with space/store", "btrfs"),
        ("/twice/store", "fuse.sshfs"),
    ],
)
def test_the_nearest_and_newest_mount_counts(path, kind, tmp_path):
    assert file_system_of(type(tmp_path)(path), Mounted()) == kind


def test_links_are_followed(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    table = f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {target} rw - cifs x rw\n"
    assert file_system_of(link / "store", Mounted(table)) == "cifs"
    assert file_system_of(tmp_path / "other", Mounted(table)) == "ext4"


def test_a_loop_of_links_is_unknown(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert file_system_of(tmp_path / "a" / "store", Mounted()) in ("unknown", "ext4")


@pytest.mark.parametrize("table", ["", "nonsense\n", "1 2 3 - ext4\n", "1 0 0:1 / / rw\n"])
def test_no_table_is_unknown(table, tmp_path):
    assert file_system_of(tmp_path, Mounted(table)) == "unknown"


def test_parses_what_the_kernel_writes():
    assert parse_mounts(TABLE)[3] == ("/mnt/with space", "btrfs")
    assert parse_mounts("1 0 0:1 / /x rw - \n") == []
    found = parse_mounts(Environment().mounts())
    assert all(mount.startswith("/") and kind for mount, kind in found)


def test_a_name_beyond_ascii_is_itself(tmp_path):
    table = "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /srv/Größe rw - nfs x rw\n"
    assert file_system_of(type(tmp_path)("/srv/Größe/store"), Mounted(table)) == "nfs"


def test_a_name_that_is_no_text_is_compared_as_bytes(tmp_path, monkeypatch):
    name = b"/srv/\xff"
    path = tmp_path / "mountinfo"
    path.write_bytes(b"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / " + name + b" rw - nfs x rw\n")
    monkeypatch.setattr(environment_module, "MOUNTS", path)
    store = type(tmp_path)(os.fsdecode(name)) / "store"
    assert file_system_of(store, Environment()) == "nfs"
