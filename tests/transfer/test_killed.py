"""Pushes that are killed (-9) before any of their writes, and pushes at the same time: what is there is whole."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from spraydry.actions.transfer import transfer
from spraydry.actions.verify import verify
from spraydry.repository.repository import Repository
from tests.life.child import killed, told
from tests.transfer.reading import check_same, place
from tests.versions import make_version

SPRAYDRY = [sys.executable, "-c", "from spraydry.cli import main; main()"]


def fill(url: str, rng: random.Random) -> None:
    tree = {b"a": rng.randbytes(3000), b"d": {b"x": b"x" * 5000}}
    with Repository.open(url, create=True) as source:
        make_version(source, "r", tree)
        make_version(source, "r", tree | {b"new": rng.randbytes(2000)})
        make_version(source, "s", {b"y": rng.randbytes(2000)})


@pytest.mark.parametrize("verb", ["push", "pull"])
@pytest.mark.parametrize("kind", ["sqlite", "dir", "segment"])
def test_killed_before_any_write(tmp_path: Path, rng: random.Random, kind: str, verb: str) -> None:
    here = place(tmp_path, "sqlite", "here")
    fill(here, rng)
    for write in range(1, 200):
        there = place(tmp_path, kind, f"there{write}")
        repo, remote = (here, there) if verb == "push" else (there, here)
        struck = killed(["--repo", repo, verb, remote], write)
        with Repository.open(here) as source:
            with Repository.open(there, create=True) as target:
                for version in [one for root in target.roots() for one in target.versions(root)]:
                    check_same(source, target, str(version))
                transfer(source, target)
            with Repository.open(there) as target:
                check_same(source, target)
                assert verify(target).sound
        if not struck:
            break
    assert 5 < write < 199


def test_what_was_published_before_a_kill_is_not_sent_again(tmp_path: Path, rng: random.Random) -> None:
    here, there = place(tmp_path, "sqlite", "here"), place(tmp_path, "dir", "there")
    with Repository.open(here, create=True) as source:
        make_version(source, "r", {b"large": rng.randbytes(20 << 20)})
    repo = ["--repo", here]
    for write in range(4, 12):  # somewhere behind the first run, of 8 MiB
        assert killed([*repo, "push", there], write)
        left = told(*repo, "push", there, "--dry-run")["sent_bytes"]
        if left < 20 << 20:
            break
    assert (8 << 20) < left < (13 << 20)
    assert told(*repo, "push", there)["sent_bytes"] <= left
    with Repository.open(here) as source, Repository.open(there) as target:
        check_same(source, target)


@pytest.mark.parametrize("kind", ["sqlite", "dir", "segment"])
def test_pushes_into_one_place_at_the_same_time(tmp_path: Path, rng: random.Random, kind: str) -> None:
    """Two of the same, one of something else."""
    urls = [place(tmp_path, "sqlite", f"here{number}") for number in range(3)]
    fill(urls[0], rng)
    with Repository.open(urls[0]) as source:
        with Repository.open(urls[1], create=True) as copy:
            transfer(source, copy)
        with Repository.open(urls[2], create=True) as other:
            transfer(source, other, ["r"], root="other")
            make_version(other, "more", {b"m": rng.randbytes(100_000)})
    there = place(tmp_path, kind, "there")
    running = [
        subprocess.Popen([*SPRAYDRY, "--repo", url, "push", there, "--json"], stdout=subprocess.PIPE, text=True)
        for url in urls
    ]
    done = [json.loads(process.communicate(timeout=600)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sorted(done[0]["versions"] + done[1]["versions"]) == ["r@v1", "r@v2", "s@v1"]
    with Repository.open(there) as target:
        for url in urls:
            with Repository.open(url) as source:
                check_same(source, target)
        assert verify(target).sound
