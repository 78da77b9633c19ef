"""Processes killed, and system calls that fail, at every point of an ingest: what was acknowledged stays whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder where fsync costs nothing: what is tested is the order of things, not the disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    folder = tempfile.mkdtemp(prefix="spraydry-faults-", dir="/dev/shm")
    yield Path(folder)
    shutil.rmtree(folder)


def harness(mode: str, variant: str, points: int, folder: Path, seed: int = 1) -> dict[str, Any]:
    command = [os.path.realpath(sys.executable), "-m", "tests.faults.harness"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((os.getcwd(), *sys.path))}
    done = subprocess.run(
        [*command, mode, variant, str(seed), str(points), str(folder)],
        capture_output=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("NO strace, so failing system calls are NOT TESTED here")
    done = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True)
    if done.returncode:
        pytest.skip(f"strace CANNOT TRACE here, so failing system calls are NOT TESTED: {done.stderr.decode()}")


def test_killed_at_some_points(quick: Path) -> None:
    result = harness("kills", "sound", 40, quick, seed=7)
    assert result["bad"] == []
    assert result["points"] == 40


@pytest.mark.slow
def test_killed_at_500_points(quick: Path) -> None:
    result = harness("kills", "sound", 500, quick)
    assert result["bad"] == []
    assert result["points"] == 500


@pytest.mark.parametrize("variant", ["frames last", "acknowledge first"])
def test_killing_finds_what_is_broken(quick: Path, variant: str) -> None:
    """The harness itself: a program that commits in the wrong order does not pass."""
    assert harness("kills", variant, 300, quick)["bad"] != []


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
def test_every_call_failing_once(quick: Path) -> None:
    result = harness("injections", "sound", 1000, quick)
    assert result["bad"] == []
    for kind in ("ingest fdatasync", "ingest pwrite64", "recompress fdatasync"):
        for fault in ("error=EIO", "error=ENOSPC", "signal=KILL"):
            assert result["reached"].get(f"{kind} {fault}", 0) > 3, result["reached"]


@pytest.mark.usefixtures("strace")
def test_failing_calls_find_what_is_broken(quick: Path) -> None:
    assert harness("injections", "errors ignored", 100, quick)["bad"] != []
