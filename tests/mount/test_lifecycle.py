"""Mounting and unmounting: daemons that end, die, or cannot start."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from spraydry.mount import mounts
from spraydry.mount.mounts import mounted_at
from spraydry.repository.repository import Repository
from tests.mount.conftest import SPRAYDRY, Run, daemon_of, ended, only_erofs, only_fuse, wait_until
from tests.versions import make_version

pytestmark = pytest.mark.fuse

Spraydry = Callable[..., Run]


@pytest.fixture
def version(repository: Repository) -> Repository:
    """A repository with one small version."""
    make_version(repository, "r", {b"a": b"1", b"d": {b"e": b"2"}})
    return repository


def test_umount_returns_when_the_daemon_has_ended(version: Repository, spraydry: Spraydry, point: Path) -> None:
    for _ in range(3):
        spraydry("mount", "r", str(point))
        daemon = daemon_of(point)
        assert (point / "a").read_bytes() == b"1"
        spraydry("umount", str(point))
        assert ended(daemon, 0) and mounted_at(str(point)) is None


@pytest.mark.skipif(shutil.which("fusermount3") is None, reason="NOT TESTED: needs fusermount3 (package fuse3)")
def test_fusermount_ends_the_daemon(version: Repository, spraydry: Spraydry, point: Path) -> None:
    spraydry("mount", "r", str(point))
    daemon = daemon_of(point)
    os.listdir(point)
    subprocess.run(["fusermount3", "-u", str(point)], check=True)
    assert ended(daemon)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount_also_with_open_files(
    version: Repository, spraydry: Spraydry, point: Path, number: signal.Signals
) -> None:
    spraydry("mount", "r", str(point))
    daemon = daemon_of(point)
    file = os.open(point / "a", os.O_RDONLY)
    os.kill(daemon, number)
    assert ended(daemon)
    with suppress(OSError):  # it tells that nobody serves it any more
        os.close(file)
    assert mounted_at(str(point)) is None and os.listdir(point) == []


def test_a_busy_mount_says_so(version: Repository, spraydry: Spraydry, point: Path) -> None:
    spraydry("mount", "r", str(point))
    with open(point / "a", "rb") as file:
        assert "in use" in spraydry("umount", str(point), code=10).stderr
        spraydry("umount", "--lazy", str(point))
        assert file.read() == b"1"


def test_a_daemon_that_died_is_cleaned_up_by_the_next_mount(
    version: Repository, spraydry: Spraydry, point: Path
) -> None:
    spraydry("mount", "r", str(point))
    daemon = daemon_of(point)
    (point / "a").stat()
    os.kill(daemon, signal.SIGKILL)
    assert ended(daemon)
    with pytest.raises(OSError) as raised:  # the kernel knows names by itself with engine erofs, contents never
        os.listdir(point)
        (point / "d" / "e").read_bytes()
    assert raised.value.errno in (errno.EIO, errno.ENOTCONN, errno.ECONNABORTED)
    spraydry("mount", "r", str(point))
    assert (point / "a").read_bytes() == b"1"
    spraydry("umount", str(point))
    assert mounted_at(str(point)) is None


def test_a_mount_point_named_through_a_symlink(
    version: Repository, spraydry: Spraydry, point: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(point)
    spraydry("mount", "r", str(link))
    assert (point / "a").read_bytes() == b"1"
    spraydry("umount", str(link))
    assert mounted_at(str(point)) is None


def test_while_another_process_writes(version: Repository, spraydry: Spraydry, point: Path) -> None:
    with version.batch():
        version.store.put("frames", "00", b"not committed yet")
        spraydry("mount", "r", str(point))
        assert (point / "d" / "e").read_bytes() == b"2"
        spraydry("umount", str(point))


def test_a_daemon_that_ends_late_leaves_the_note_of_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives the device number of a mount that is gone to the next, while its daemon is still ending."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = mounts.write_record(os.makedev(0, 77))
    assert path is not None
    late = "import sys; from spraydry.mount.mounts import remove_record; remove_record(sys.argv[1])"
    subprocess.run([sys.executable, "-c", late, path], check=True)
    assert os.path.exists(path)
    mounts.remove_record(path)
    assert not os.path.exists(path)
    mounts.remove_record(path)


@pytest.mark.root
def test_setuid_and_devices_take_effect_only_when_asked(version: Repository, spraydry: Spraydry, point: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: needs root")
    spraydry("mount", "r", str(point), "-o", "suid,dev")
    assert not os.statvfs(point).f_flag & (os.ST_NOSUID | os.ST_NODEV)


def test_in_front(version: Repository, spraydry: Spraydry, point: Path, engine: str) -> None:
    command = [*SPRAYDRY, "mount", "-f", "--engine", engine, "r", str(point)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as front:
        try:
            assert front.stdout is not None
            assert f"engine {engine}" in front.stdout.readline()
            assert (point / "d" / "e").read_bytes() == b"2"
        finally:
            front.send_signal(signal.SIGINT)
        assert front.wait(120) == 0
    assert mounted_at(str(point)) is None


def test_what_cannot_be_mounted(version: Repository, spraydry: Spraydry, point: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    (full / "x").mkdir(parents=True)
    file = tmp_path / "file"
    file.touch()

    def refused(code: int, *arguments: str) -> str:
        return spraydry("mount", *arguments, code=code).stderr

    assert "does not exist" in refused(10, "r", str(tmp_path / "absent"))
    assert "not a directory" in refused(10, "r", str(file))
    assert "not empty" in refused(10, "r", str(full))
    assert "no root 'nix'; there is r" in refused(4, "nix", str(point))
    assert "no version 'v7'" in refused(4, "r@v7", str(point))
    assert "holds no 'x'" in refused(4, "r:x", str(point))
    assert "not a directory" in refused(10, "r:a", str(point))
    assert "not a size" in refused(2, "r", str(point), "--cache", "12Q")
    assert "UID:GID" in refused(2, "r", str(point), "--owner", "me")
    assert "suid and dev" in refused(2, "r", str(point), "-o", "rw")
    assert "is not a mount of spraydry" in spraydry("umount", str(point), code=10).stderr
    spraydry("mount", "r", str(point))
    assert "mounted already" in refused(10, "r", str(point))
    assert os.listdir(point) == ["a", "d"]


def test_what_is_missing_is_named(
    version: Repository, spraydry: Spraydry, point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spraydry.errors import MountError

    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(MountError, match=r"spraydry\[mount\]"):
            mounts.check_fuse()
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "exists", lambda path: False)
        with pytest.raises(MountError, match="apt install fuse3"):
            mounts.check_fuse()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        patch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(MountError, match="apt install fuse3"):
            mounts.check_fuse()


@pytest.mark.root
@only_fuse
def test_an_unprivileged_user(version: Repository, tmp_path: Path, repository_path: str, engine: str) -> None:
    """Through fusermount3, in a mount namespace of its own where anyone may open /dev/fuse."""
    if os.geteuid() != 0 or shutil.which("fusermount3") is None:
        pytest.skip("NOT TESTED: needs root, and fusermount3 (package fuse3)")
    if subprocess.run(["setpriv", "--reuid", "1000", "--clear-groups", "test", "-x", SPRAYDRY[0]]).returncode:
        pytest.skip("NOT TESTED: other users cannot reach this checkout, for a folder above it is closed to them")
    version.close()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        home = Path(folder)
        (home / "mnt").mkdir()
        shutil.copy(repository_path, home / "repository.sqlite")
        for path in (home, home / "mnt", home / "repository.sqlite"):
            os.chown(path, 1000, 1000)
        script = tmp_path / "script"
        script.write_text(
            "set -e\n"
            # Of what others have mounted nothing is held here, where their unmounting does not reach: it would not end.
            "mounts=$(cat /proc/self/mounts)\n"
            "printf '%s\\n' \"$mounts\" | while read -r _ point kind _; do\n"
            'case $kind in fuse*|erofs) umount -cil "$(printf %b "$point")" || true;; esac; done\n'
            f"mknod {home}/fuse c 10 229; chmod 666 {home}/fuse; mount --bind {home}/fuse /dev/fuse\n"
            f"export HOME={home} XDG_STATE_HOME={home} XDG_RUNTIME_DIR= SPRAYDRY_REPO={home}/repository.sqlite\n"
            'run() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@" 2>&1; }\n'
            f"run {SPRAYDRY[0]} mount r {home}/mnt\n"
            f"run cat {home}/mnt/a; grep ' {home}/mnt ' /proc/self/mounts\n"
            f"run {SPRAYDRY[0]} umount {home}/mnt; ! grep ' {home}/mnt ' /proc/self/mounts\n"
            f"! run {SPRAYDRY[0]} mount r {home}/mnt -o suid\n"
        )
        done = subprocess.run(["unshare", "-m", "sh", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n1spraydry " in done.stdout and "nosuid,nodev" in done.stdout and "user_id=1000" in done.stdout


@only_erofs
def test_erofs_leaves_nothing_behind(version: Repository, spraydry: Spraydry, point: Path, tmp_path: Path) -> None:
    for end in (lambda daemon: spraydry("umount", str(point)), lambda daemon: os.kill(daemon, signal.SIGTERM)):
        assert "erofs (" in spraydry("mount", "r", str(point)).stdout
        mounted = mounted_at(str(point))
        assert mounted is not None and mounted.fstype == "erofs"
        daemon = daemon_of(point)
        assert (point / "a").read_bytes() == b"1"
        end(daemon)
        assert ended(daemon)
        assert mounted_at(str(point)) is None
        assert list((tmp_path / "run" / "spraydry").iterdir()) == []


@only_erofs
def test_a_plain_umount_ends_the_daemon(version: Repository, spraydry: Spraydry, point: Path) -> None:
    spraydry("mount", "r", str(point))
    daemon = daemon_of(point)
    assert (point / "d" / "e").read_bytes() == b"2"
    subprocess.run(["umount", str(point)], check=True)
    assert ended(daemon)


@only_erofs
def test_auto_takes_what_is_there_and_prepares_the_rest(
    version: Repository, spraydry: Spraydry, point: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spraydry.mount import engines

    make_version(version, "many", {b"%05d" % number: b"" for number in range(engines.AT_ONCE_INODES)})
    said = spraydry("mount", "many", str(point), "--engine", "auto").stdout
    assert "engine fuse" in said and "is being made" in said
    wait_until(lambda: list((tmp_path / "cache" / "spraydry").glob("*/erofs-" + "?" * 32)))
    spraydry("umount", str(point))
    said = spraydry("mount", "many", str(point), "--engine", "auto").stdout
    assert "engine erofs (its image was there)" in said
    assert len(os.listdir(point)) == engines.AT_ONCE_INODES
    spraydry("umount", str(point))
    assert "engine erofs (the image" in spraydry("mount", "r", str(point), "--engine", "auto").stdout
    spraydry("umount", str(point))
    assert "other owners" in spraydry("mount", "r", str(point), "--engine", "auto", "--owner", "1:1").stdout
    spraydry("umount", str(point))
    assert "every root" in spraydry("mount", str(point), "--engine", "auto").stdout


@only_erofs
def test_what_erofs_cannot_do_is_said(version: Repository, spraydry: Spraydry, point: Path) -> None:
    assert "other owners" in spraydry("mount", "r", str(point), "--owner", "1:1", code=10).stderr
    assert "every root" in spraydry("mount", str(point), code=10).stderr
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        os.chmod(folder, 0o711)
        seen = os.path.join(folder, "mnt")
        os.mkdir(seen)
        try:
            assert "--allow-other" in spraydry("mount", "r", seen, code=10).stderr
            assert "fuse (no erofs: " in spraydry("mount", "r", seen, "--engine", "auto").stdout
            spraydry("umount", seen)
            spraydry("mount", "r", seen, "--allow-other")
        finally:
            if mounted_at(seen) is not None:
                spraydry("umount", "--lazy", seen)


@only_erofs
def test_a_kernel_that_turns_errors_into_zeros_gets_no_erofs(
    version: Repository, spraydry: Spraydry, tmp_path: Path
) -> None:
    """The probe, on a device that gives zeros where it should fail: what such a kernel makes of one that fails."""
    from spraydry.mount import erofs

    device = tmp_path / "device"
    device.write_bytes(bytes(erofs.PROBE_BLOCKS * 4096))
    with pytest.raises(erofs.ErofsUnavailable, match="zeros"):
        erofs.probe(str(device))


@only_erofs
def test_where_no_image_can_be_kept_auto_takes_fuse(
    version: Repository, spraydry: Spraydry, point: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "no image can be made" in spraydry("mount", "r", str(point), code=10).stderr
    assert (
        "engine fuse (no erofs: no image can be made" in spraydry("mount", "r", str(point), "--engine", "auto").stdout
    )
    assert (point / "a").read_bytes() == b"1"


@only_erofs
def test_a_damaged_image_is_made_anew(version: Repository, spraydry: Spraydry, point: Path, tmp_path: Path) -> None:
    spraydry("mount", "r", str(point))
    spraydry("umount", str(point))
    (image,) = (tmp_path / "cache" / "spraydry").glob("*/erofs-*")
    whole = image.read_bytes()
    for damaged in (whole[:-100], whole[:5000] + b"\xff" + whole[5001:], b""):
        image.write_bytes(damaged)
        assert "was made" in spraydry("mount", "r", str(point)).stdout
        assert (point / "d" / "e").read_bytes() == b"2"
        spraydry("umount", str(point))
        assert image.read_bytes() == whole
