"""Many small files are read by processes of their own: the result is the same, whatever becomes of these."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spraydry.actions.ingest import Ingested, ingest, processes
from spraydry.actions.ingest.processes import Processes
from spraydry.repository.repository import Repository
from tests.ingest.trees import differences, held_by_this_process, version_of


@pytest.fixture
def source(tmp_path: Path, rng: random.Random) -> Path:
    source = tmp_path / "many"
    for number in range(300):
        folder = source / f"d{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.py").write_bytes(rng.randbytes(rng.choice((0, 1, 5000, 16384, 16385, 70_000))))
    (source / "limit").write_bytes(rng.randbytes(256 << 10))
    (source / "larger").write_bytes(rng.randbytes((256 << 10) + 1))
    (source / "zeros").write_bytes(bytes(200_000))
    (source / "holes").write_bytes(rng.randbytes(65536) + bytes(65536) + rng.randbytes(20_000))
    os.setxattr(source / "holes", "user.large", rng.randbytes(3000))
    (source / "\udcff\udcfe").write_bytes(b"a name that is not UTF-8")
    os.link(source / "holes", source / "again")
    return source


def taken(repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Ingested:
    with monkeypatch.context() as patch:
        patch.setattr(processes, "_FROM_FILES", 0)
        for name, value in changes.items():
            patch.setattr(processes, name, value)
        return ingest(repository, [str(source)], root="r", threads=2)


def test_same_as_without(repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent = []
    submit = Processes.submit

    def noted(self: Processes, task: Any) -> Any:
        sent.append(submit(self, task))
        return sent[-1]

    monkeypatch.setattr(Processes, "submit", noted)
    result = taken(repository, source, monkeypatch)
    assert sum(one is not None for one in sent) >= 3
    assert differences(repository, version_of(result), source) == []
    assert result.problems == []
    with Repository.open(str(tmp_path / "other.sqlite"), create=True) as other:
        without = ingest(other, [str(source)], root="r")
        assert version_of(without).record.entry == version_of(result).record.entry
        assert without.new_bytes == result.new_bytes


@pytest.mark.parametrize(
    "start",
    [
        "raise SystemExit(1)",
        "import os, struct; os.read(0, 8); os.write(1, struct.pack('<II', 0, 0)); os.read(0, 8)",
        "import os; os.read(0, 8); os.kill(os.getpid(), 9)",
    ],
)
def test_processes_that_end(repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    result = taken(repository, source, monkeypatch, _START=start)
    assert differences(repository, version_of(result), source) == []
    assert result.problems == []


def test_no_processes_to_be_had(repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.sys, "executable", "/nonexistent/python")
    result = taken(repository, source, monkeypatch)
    assert differences(repository, version_of(result), source) == []


def test_requests_and_answers_too_long_for_a_slot(
    repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = taken(repository, source, monkeypatch, _TEXT_BYTES=100)
    assert differences(repository, version_of(result), source) == []


def _removed(path: Path) -> None:
    path.unlink()


def _replaced(path: Path) -> None:
    (path.parent / "new").write_bytes(b"another inode")
    (path.parent / "new").rename(path)


def _grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x" * 3_000_000)


def _made_a_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize("change", [_removed, _replaced, _grown, _made_a_symlink])
def test_files_that_change_after_the_scan(
    repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    """They are read, or reported, by who started the processes, as without these."""
    path = source / "d1" / "8.py"
    times = path.parent.stat()
    read_all = processes.read_all

    def late(*arguments: Any) -> Any:
        change(path)
        return read_all(*arguments)

    monkeypatch.setattr(sys.modules["spraydry.actions.ingest.ingest"], "read_all", late)
    result = taken(repository, source, monkeypatch)
    gone = change in (_removed, _made_a_symlink)
    assert [name for name, _ in result.problems] == ([os.fsencode(path)] if gone else [])
    if change is _made_a_symlink:
        path.unlink()
    os.utime(path.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert differences(repository, version_of(result), source) == []


def test_nothing_stays_behind(repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken(repository, source, monkeypatch)
    before = held_by_this_process(repository)
    (source / "more").mkdir()
    for number in range(50):
        (source / "more" / str(number)).write_bytes(b"%d" % number)
    taken(repository, source, monkeypatch)
    assert not held_by_this_process(repository) - before
