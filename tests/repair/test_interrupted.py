"""A repair that is killed at each of its writes in turn: nothing is worse than before, and the next one ends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spraydry.actions.repair import repair
from spraydry.actions.verify import verify
from spraydry.repository.repository import Repository
from tests.repair.damaged import contents, damage, frames_of, make, small_frames

# Repairs in children forked from a warm interpreter, each killed at its n-th write, before or after that; prints how
# many writes there were.
CHILDREN = """
import json, os, shutil, signal, sys
from spraydry.actions.repair import repair
from spraydry.repository.repository import Repository

def child(url, number, after, source):
    count = 0
    def counted(call):
        def write(*arguments, **options):
            nonlocal count
            count += 1
            if count == number and not after:
                os.kill(os.getpid(), 9)
            done = call(*arguments, **options)
            if count == number:
                os.kill(os.getpid(), 9)
            return done
        return write
    with Repository.open(url) as repository:
        store = repository.store
        for name in ("put_many", "put", "create", "soft_delete", "delete"):
            setattr(store, name, counted(getattr(store, name)))
        repair(repository, write=True, sources=[source])

scheme, made, folder, source = sys.argv[1:]
place = os.path.join(folder, "here")
killed = 0
for after in (False, True):
    for number in range(1, 1000):
        at = f"{place}-{int(after)}-{number}"
        (shutil.copytree if scheme == "dir" else shutil.copyfile)(made, at)
        if (pid := os.fork()) == 0:
            try:
                os.environ["XDG_CACHE_HOME"] = at + ".cache"
                child(f"{scheme}:{at}", number, after, source)
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0, status
            break
        killed += 1
print(json.dumps(killed))
"""


@pytest.fixture(params=["sqlite", "dir"])
def scheme(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def run(scheme: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A damaged repository, of which some is in the original files and some is not; killed copies beside it."""
    small_frames(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    (folder / "originals").mkdir()
    source = folder / "source"
    for place in ("a", "b"):
        (source / place).mkdir(parents=True)
        for number in range(3):
            (source / place / f"f{number}").write_bytes(bytes([number, ord(place)]) * 700)
    shutil.copyfile(source / "b" / "f1", folder / "originals" / "x")
    url = f"{scheme}:{folder}/made"
    make(url, source)
    with Repository.open(url) as repository:
        doomed = [
            frames_of(repository, entry.file_digest)[0]
            for path in ("b/f1", "a/f0")
            if (entry := repository.resolve(f"source:{path}").entry).file_digest
        ]
        for frame in doomed:
            damage(repository, frame, "gone")
    with Repository.open(url) as repository:
        verify(repository)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((os.getcwd(), *sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN, scheme, folder / "made", folder, folder / "originals"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    points: int = json.loads(done.stdout)
    return points


def test_killed_at_each_write(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = run(scheme, tmp_path, monkeypatch)
    assert points >= 8
    left = {b"a/f1", b"a/f2", b"b/f0", b"b/f2"}
    copies = [path for path in tmp_path.glob("here-*") if re.fullmatch(r"here-\d-\d+", path.name)]
    for number, copy in enumerate(sorted(copies)):
        monkeypatch.setenv("XDG_CACHE_HOME", f"{copy}.cache" if number % 2 else f"{copy}.another-machine")
        with Repository.open(f"{scheme}:{copy}") as repository:
            for version in repository.versions("source"):
                found, _ = contents(repository, str(version))
                assert left <= found.keys(), "what could be read can be read"
            done = repair(repository, write=True, sources=[str(tmp_path / "originals")])
            assert [path for without in done.without for path, _ in without.lacks] in ([b"a/f0"], [])
            newest = repository.log.newest("source")
            assert newest is not None and newest.name == "v2" and newest.record.incomplete
            found, unread = contents(repository, "source")
            assert unread == [] and found.keys() == left | {b"", b"a", b"b", b"b/f1"}
            assert found[b"b/f1"] == contents(repository, "source@v1")[0][b"b/f1"]
            after = verify(repository)
            assert {(one.version, one.path) for one in after.damage} == {("source@v1", b"a/f0")}
