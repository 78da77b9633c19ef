"""Real mounts for tests, and what they need."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spraydry.mount.erofs import ErofsUnavailable, check
from spraydry.mount.mounts import mounted_at
from spraydry.mount.options import MountOptions

SPRAYDRY = [str(Path(sys.executable).with_name("spraydry"))]

Run = subprocess.CompletedProcess[str]


@pytest.fixture
def fuse() -> None:
    """Skips a test, visibly, where nothing can be mounted."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("NOT TESTED: a kernel mount needs /dev/fuse, which is not there or not open to this user")


only_fuse = pytest.mark.parametrize("engine", ["fuse"], indirect=True)
only_erofs = pytest.mark.parametrize("engine", ["erofs"], indirect=True)


@pytest.fixture(params=["fuse", "erofs"])
def engine(request: pytest.FixtureRequest, fuse: None) -> str:
    """Each engine in turn; skips a test, visibly, where one cannot run."""
    name: str = request.param
    if name == "erofs":
        try:
            check("/", MountOptions(cache_bytes=0, allow_other=True))
        except ErofsUnavailable as error:
            pytest.skip(f"NOT TESTED: engine erofs: {error}")
    return name


@pytest.fixture
def spraydry(
    repository_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> Iterator[Callable[..., Run]]:
    """Runs the command line on the test's repository, mounting with the test's engine; takes down what is still mounted
    below tmp_path at the end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SPRAYDRY_REPO", repository_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir(mode=0o700)

    def run(*arguments: str, code: int = 0) -> Run:
        if arguments[0] == "mount" and "--engine" not in arguments:
            arguments += ("--engine", engine)
        done = subprocess.run([*SPRAYDRY, *arguments], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == code, (arguments, done.returncode, done.stderr)
        assert len(done.stderr.splitlines()) <= 1 or code == 0, done.stderr
        return done

    yield run
    for point in tmp_path.iterdir():
        if mounted_at(str(point)) is not None:
            subprocess.run([*SPRAYDRY, "umount", "--lazy", str(point)], check=False)


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """An empty directory to mount on."""
    made = tmp_path / "mnt"
    made.mkdir()
    return made


@pytest.fixture
def log_text(tmp_path: Path) -> Callable[[], str]:
    """What the daemons of this test have logged so far."""
    return lambda: (tmp_path / "state" / "spraydry" / "mount.log").read_text()


def ended(pid: int, within_s: float = 120.0) -> bool:
    """Whether a process ends within that time with all of its threads: only then are its descriptors closed."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], within_s)[0])
    finally:
        os.close(process)


def wait_until(happened: Callable[[], object], within_s: float = 300.0) -> None:
    """Look again and again until it has happened; fails where it does not within that time."""
    until_s = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def daemon_of(point: Path) -> int:
    """The process that serves a mount."""
    mounted = mounted_at(str(point))
    assert mounted is not None
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                command = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"mount" in command and os.fsencode(point) in command:
                return int(process.name)
    raise LookupError(f"nobody serves {point}")
