"""Versions that are mounted while they are removed and collected: a mount reads to its end what it showed."""

from __future__ import annotations

import os
import random
import subprocess
import time
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
        try:
            top = point if address else point / "r" / "v1"
            names = sorted(os.listdir(top))
            assert [lease.what for lease in heeded(repository).values()] == [f"mount on {point}"]
            remove(repository, ["r@v1"])
            assert gc(repository, grace_ns=0, below=1).deleted_frames == 0
            for name in names:
                assert (top / name).read_bytes() == files[name.encode()]
        finally:
            subprocess.run(["umount", str(point)], check=True)
        deadline_s = time.monotonic() + 120
        while heeded(repository):  # until its process has ended
            assert time.monotonic() < deadline_s, "the lease of the mount is still there"
            time.sleep(0.05)
        assert gc(repository, grace_ns=0).deleted_frames >= 3
        with pytest.raises(VersionNotFound):
            repository.resolve("r@v1")
