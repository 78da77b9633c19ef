"""Versions that are mounted while they are removed and collected: a mount reads to its end what it showed."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from spraydry.actions.collect import gc
from spraydry.actions.remove import remove
from spraydry.errors import VersionNotFound
from spraydry.repository.leases import heeded
from spraydry.repository.repository import Repository
from tests.ingest.trees import command
from tests.versions import make_version


@pytest.mark.fuse
@pytest.mark.parametrize("address", ["r@v1", None])
def test_a_mounted_version_is_never_cut(tmp_path: Path, address: str | None) -> None:
    rng = random.Random(1)
    files = {f"{number:02}".encode(): rng.randbytes(100_000) for number in range(40)}
    path, point = tmp_path / "r.sqlite", tmp_path / "mnt"
    point.mkdir()
    with Repository.open(str(path), create=True) as repository:
        make_version(repository, "r", files)
        make_version(repository, "r", {b"other": b"content"})
        done = command("--repo", path, "mount", *([address] if address else []), point, "--cache", "8M")
        assert done.returncode == 0, done.stderr
        with ExitStack() as stack:
            stack.callback(subprocess.run, ["umount", str(point)], check=True)
            top = point if address else point / "r" / "v1"
            inside = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, inside)
            names = sorted(os.listdir(inside))
            assert [lease.what for lease in heeded(repository).values()] == [f"mount on {point}"]
            remove(repository, ["r@v1"])
            assert gc(repository, grace_ns=0, below=1).deleted_frames == 0
            if address is None:
                until(lambda: not top.exists(), "a mount of all still shows the version")
            for name in names:
                with open(name, "rb", opener=partial(os.open, dir_fd=inside)) as file:
                    assert file.read() == files[name.encode()]
        until(lambda: not heeded(repository), "the lease of the mount is still there")  # its process has ended
        assert gc(repository, grace_ns=0).deleted_frames >= 3
        with pytest.raises(VersionNotFound):
            repository.resolve("r@v1")


def until(so: Callable[[], bool], otherwise: str) -> None:
    deadline_s = time.monotonic() + 120
    while not so():
        assert time.monotonic() < deadline_s, otherwise
        time.sleep(0.05)
