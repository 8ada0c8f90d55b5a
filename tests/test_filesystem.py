"""A queue on a network file system is refused, by name; what cannot be found out is allowed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from child_program import unmeasured

from causality_sdk import Client, QueueError, filesystem, ownership
from causality_sdk.claim import claim
from causality_sdk.schema import Destination

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 27 0:30 / /mnt/share rw,relatime shared:5 master:2 - nfs4 server:/export rw,vers=4.2
32 27 0:31 / /mnt/with\040space rw - cifs //server/share rw
33 27 0:32 / /mnt/ssh rw - fuse.sshfs me@host:/ rw
34 27 0:33 / /mnt/guest rw - 9p host rw
35 27 0:34 / /mnt/shared rw - virtiofs host rw
36 27 0:35 / /mnt/local rw - fuse.mergerfs a:b rw
37 27 0:36 / /mnt/efs rw - fuse.mount-s3 bucket rw
38 31 0:37 / /mnt/share/local rw - tmpfs tmpfs rw
a line of another shape
"""


@pytest.mark.skipif(not hasattr(os, "makedev"), reason="needs POSIX device numbers")
class TestLinux:
    @pytest.mark.parametrize(
        ("minor", "expected"),
        [(30, "nfs4"), (31, "cifs"), (32, "fuse.sshfs"), (36, "fuse.mount-s3"), (33, None),
         (34, None), (35, None), (37, None)],
    )  # fmt: skip
    def test_the_device_tells(self, minor: int, expected: str | None) -> None:
        found = filesystem.in_mounts(MOUNTS.splitlines(), os.makedev(0, minor), "/nowhere")
        assert found == expected

    @pytest.mark.parametrize(
        ("directory", "expected"),
        [
            ("/mnt/share", "nfs4"),
            ("/mnt/share/deep/below", "nfs4"),
            ("/mnt/share/local/below", None),
            ("/mnt/sharelocal", None),
            ("/mnt/with space/x", "cifs"),
            ("/home/me", None),
        ],
    )
    def test_else_the_mount_point_above_does(self, directory: str, expected: str | None) -> None:
        """A subvolume of btrfs has a device that no mount names."""
        assert filesystem.in_mounts(MOUNTS.splitlines(), os.makedev(9, 9), directory) == expected

    def test_nothing_known_is_allowed(self) -> None:
        assert filesystem.in_mounts([], os.makedev(0, 1), "/x") is None


def test_a_local_directory_is_allowed(tmp_path: Path) -> None:
    assert filesystem.network_type(tmp_path) is None
    filesystem.refuse_network(tmp_path / "queue.db")


def test_a_directory_that_is_not_there_is_not_the_file_systems_fault(tmp_path: Path) -> None:
    assert filesystem.network_type(tmp_path / "nowhere") is None


def test_the_structure_of_macos_is_read() -> None:
    """`struct statfs` with 64-bit inodes: f_flags at 64, f_fstypename at 72."""
    flags = (0x00001000).to_bytes(4, sys.byteorder)
    local = bytes(64) + flags + bytes(4) + b"apfs" + bytes(12)
    remote = bytes(64) + bytes(4) + bytes(4) + b"smbfs" + bytes(11)
    assert filesystem.of_statfs(local) is None
    assert filesystem.of_statfs(remote) == "smbfs"


class TestARefusal:
    @pytest.fixture(autouse=True)
    def network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No test can mount a network file system; the rest of the way is real."""
        monkeypatch.setattr(filesystem, "network_type", lambda _: "nfs4")

    def test_it_names_the_file_system_and_the_fix_and_locks_nothing(self, tmp_path: Path) -> None:
        base = tmp_path / "queue.db"
        with pytest.raises(QueueError, match=r"network file system \(nfs4\).*local disk") as caught:
            claim(base, Destination("a", "b", "c"))
        assert str(tmp_path) in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_with_a_fallback_the_client_lives_in_memory(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        errors: list[Exception] = []
        with Client(
            api_key="key",
            endpoint="http://127.0.0.1:1",
            app_id="a",
            queue_path=tmp_path / "queue.db",
            fallback="memory",
            start=False,
            on_error=errors.append,
        ) as client:
            assert client.track("tick") is not None
            assert client.stats().queue_path == ":memory:"
            client._opened().queue.settle(client._opened().queue.peek(0, max_events=9, max_bytes=9))
        assert "nfs4" in str(errors[0])
        assert any("MEMORY ONLY" in line for line in caplog.messages)


class TestWhatLiesBeside:
    """The names that SQLite and the lock need, taken by other things."""

    @pytest.mark.parametrize("suffix", ["-wal", "-shm", ".lock"])
    @pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
    def test_an_odd_thing_at_a_companions_name_is_an_error_that_names_it(
        self, tmp_path: Path, suffix: str, kind: str
    ) -> None:
        if kind != "directory" and os.name == "nt":
            pytest.skip("needs POSIX")
        base = tmp_path / "queue.db"
        odd = tmp_path / f"queue.db{suffix}"
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_bytes(b"untouched")
        if kind == "directory":
            odd.mkdir()
        elif kind == "link":
            odd.symlink_to(elsewhere)
        else:
            os.mkfifo(odd)
        with pytest.raises(QueueError) as caught:
            claim(base, Destination("a", "b", "c"))
        assert str(odd) in str(caught.value)
        assert "another queue_path" in str(caught.value)
        assert elsewhere.read_bytes() == b"untouched"
        odd.rmdir() if kind == "directory" else odd.unlink()
        lease = ownership.acquire(base)
        assert lease is not None
        lease.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
class TestNoHome:
    SCRIPT = """
import os, sys
os.environ.pop("HOME", None)
for name in list(os.environ):
    if name.startswith("XDG_"):
        del os.environ[name]
import filelock, sqlite_utils, platformdirs, requests
from causality_sdk import Client, QueueError
if os.getuid() == 0:
    os.setgid(54321)
    os.setuid(54321)  # nobody's: as in a container with a random uid
try:
    client = Client(
        api_key="k", endpoint="http://127.0.0.1:1", app_id="a", start=False,
        fallback=sys.argv[1] if len(sys.argv) > 1 else None,
    )
    print(client.track("tick") is not None, client.stats().queue_path)
except QueueError as error:
    print("QueueError:", error)
"""

    def run(self, tmp_path: Path, *arguments: str) -> str:
        import subprocess

        if os.getuid() != 0:
            pytest.skip("needs root, to become a user without a passwd entry")
        place = tmp_path / "cwd"
        place.mkdir(mode=0o777)
        place.chmod(0o777)
        result = subprocess.run(
            [sys.executable, "-c", self.SCRIPT, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            cwd=place,
            env={**unmeasured(os.environ), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )
        assert list(place.iterdir()) == []  # no directory called ~
        return result.stdout

    def test_a_user_without_a_home_is_told_what_to_give(self, tmp_path: Path) -> None:
        said = self.run(tmp_path)
        assert "QueueError: there is no home directory" in said
        assert "CAUSALITY_QUEUE_PATH" in said

    def test_the_fallback_keeps_its_program_going(self, tmp_path: Path) -> None:
        assert self.run(tmp_path, "memory").strip().endswith("True :memory:")


ROOT = Path(__file__).resolve().parent.parent
