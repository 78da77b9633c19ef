"""Each kind of damage, and each place what is lost can be had from; and what is made where nothing has it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from spraydry.actions.collect import gc
from spraydry.actions.ingest import ingest
from spraydry.actions.repair import repair
from spraydry.actions.verify import verify
from spraydry.errors import StoreReadOnly, UsageError
from spraydry.format.entry import Subtree
from spraydry.repository.condemned import drop
from spraydry.repository.repository import Repository
from tests.repair.damaged import KINDS, chunk_of, contents, damage, fill, frames_of, make, small_frames
from tests.versions import make_version

HOW = ("flipped", "cut", "gone")
FROM_FILES = ("content", "linked content", "part", "manifest", "attributes")


def cases(kinds: Sequence[str]) -> list[tuple[str, str, str]]:
    """Each kind damaged in each way in one file, and each once in a folder."""
    everything = [("sqlite", kind, how) for kind in kinds for how in HOW]
    return everything + [("dir", kind, HOW[number % 3]) for number, kind in enumerate(kinds)]


def each(kinds: Sequence[str] = KINDS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("url", "kind", "how"), cases(kinds), indirect=["url"])


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A folder with a source, a repository of it on each of two stores, and another one ingested by itself. Not on a
    disk: ext4 takes no attributes that are too large for an entry."""
    folder = Path(tempfile.mkdtemp(prefix="spraydry-repair-", dir="/dev/shm"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        small_frames(monkeypatch)
        fill(folder / "source")
        for name in ("here", "other"):
            for scheme in ("sqlite", "dir"):
                make(f"{scheme}:{folder}/{name}.{scheme}", folder / "source")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "dir"])
def url(request: pytest.FixtureRequest, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of a repository, which this machine knows."""
    small_frames(monkeypatch)
    scheme: str = request.param
    shutil.copytree(made / "cache", tmp_path / "cache") if scheme == "dir" else None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = shutil.copytree if scheme == "dir" else shutil.copyfile
    copy(made / f"here.{scheme}", tmp_path / f"here.{scheme}")
    return f"{scheme}:{tmp_path}/here.{scheme}"


def other(made: Path, url: str) -> str:
    scheme = url.partition(":")[0]
    return f"{scheme}:{made}/other.{scheme}"


def break_some(url: str, *some: tuple[str, str]) -> None:
    """Damage all frames that hold a chunk of some kind, each in its way."""
    with Repository.open(url) as repository:
        doomed = [(frames_of(repository, chunk_of(repository, kind)), how) for kind, how in some]
        for frames, how in doomed:
            for frame in frames:
                damage(repository, frame, how)


def whole(url: str) -> object:
    with Repository.open(url) as repository:
        found, unread = contents(repository, "source@v1")
        assert not unread
        return found


def check_sound(url: str) -> None:
    with Repository.open(url) as repository:
        found = verify(repository)
        assert found.sound, found


@each()
def test_had_from_another_repository(url: str, made: Path, kind: str, how: str) -> None:
    before = whole(url)
    break_some(url, (kind, how))
    with Repository.open(url) as repository:
        plan = repair(repository, remotes=[other(made, url)])
        assert not plan.written and plan.whole and plan.damaged_frames and not plan.without
    with Repository.open(url) as repository:
        assert not verify(repository).sound, "a plan changes nothing"
        done = repair(repository, write=True, remotes=[other(made, url)])
        assert done.whole and not done.without and done.condemned == len(done.damaged_frames)
        # A plan has the same numbers, but for what damaged frames still gave.
        assert (plan.had, plan.condemned, plan.kept, plan.lost_chunks) == (done.had, done.condemned, 0, 0)
    assert whole(url) == before
    check_sound(url)
    with Repository.open(url) as repository:
        again = repair(repository, write=True)
        assert again.sound and not again.condemned


@each(FROM_FILES)
def test_had_from_the_original_files(url: str, made: Path, kind: str, how: str) -> None:
    before = whole(url)
    break_some(url, (kind, how))
    moved = made / "found again"  # under other names and times
    if not moved.exists():
        moved.mkdir()
        for number, path in enumerate(sorted((made / "source").rglob("*"))):
            if path.is_file() and "many" not in path.parts:
                shutil.copyfile(path, moved / f"{number}.recovered")
                for name in os.listxattr(path):
                    os.setxattr(moved / f"{number}.recovered", name, os.getxattr(path, name))
    with Repository.open(url) as repository:
        plain, plan = repair(repository), repair(repository, sources=[str(moved)])
        done = repair(repository, write=True, sources=[str(moved)])
        # What lay in the same frame, and is a page of a tree, is in no file.
        lost = {one.path for one in done.damage}
    if not lost:
        assert whole(url) == before
        check_sound(url)
    assert plan.had == done.had and ("the original files" in done.had or not plain.lost_chunks)
    assert not lost or kind in ("manifest", "attributes")


@each()
def test_without_exactly_what_is_lost(url: str, made: Path, kind: str, how: str) -> None:
    """The new version reads whole, holds everything the old one still gives, and names what it lacks."""
    before = whole(url)
    assert isinstance(before, dict)
    break_some(url, (kind, how))
    with Repository.open(url) as repository:
        left, _ = contents(repository, "source@v1")
        plan = repair(repository)
        assert plan.written is False and repository.log.newest("source").name == "v1"  # type: ignore[union-attr]
    with Repository.open(url) as repository:
        done = repair(repository, write=True)
        if kind == "links":  # which come out again when they are counted
            assert "the folders themselves" in done.had and done.whole and done.condemned and plan.had == done.had
            assert not done.without and contents(repository, "source@v1") == (before, []) and verify(repository).sound
            return
        assert [str(one.of) for one in done.without] == ["source@v1"] == [str(one.of) for one in plan.without]
        (without,) = done.without
        assert without.made is not None and without.lacks == plan.without[0].lacks
        assert without.made.name == "v2" and without.made.record.incomplete == bool(without.lacks)
    with Repository.open(url) as repository:
        now, gone = contents(repository, "source@v2")
        assert not gone, "all of the new version can be read"
        told = {path for path, _ in without.lacks}
        for path, shown in before.items():
            if path == b"":
                continue
            if path in now:
                assert now[path] == shown or path in told, path
            else:
                folders = [path.rsplit(b"/", up)[0] + b"/" for up in range(1, path.count(b"/") + 1)]
                assert path in told or told & {*folders, b"/"}, path
                assert path not in left, "what could be read is there"
        assert kind in ("links", "attributes") or len(now) < len(before)
        lines = dict(repository.resolve("source@v2").entry.xattrs).get(b"user.spraydry.lacks", b"")  # type: ignore[arg-type]
        assert set(filter(None, lines.split(b"\n"))) == told
        found = verify(repository)
        assert {one.version for one in found.damage} <= {"source@v1"}
        # What was lost is still wanted by v1: where it turns up, all is well again.
        healed = repair(repository, write=True, remotes=[other(made, url)])
        assert healed.whole and not healed.without
        assert contents(repository, "source@v1") == (before, [])
    check_sound(url)


def test_a_copy_of_the_repository_gives_its_frames(url: str, made: Path) -> None:
    before = whole(url)
    break_some(url, *zip(KINDS, HOW * 3, strict=False))
    scheme = url.partition(":")[0]
    with Repository.open(url) as repository:
        copy = f"{scheme}:{made}/here.{scheme}"
        plan = repair(repository, remotes=[copy])
        done = repair(repository, write=True, remotes=[copy])
        assert plan.had == done.had and done.whole and not done.condemned and not done.without
    assert whole(url) == before
    check_sound(url)


def test_damaged_again(url: str, made: Path) -> None:
    """What was condemned is no place where something lies: the frame that took its place is all there is."""
    before = whole(url)
    break_some(url, ("content", "flipped"))
    with Repository.open(url) as repository:
        assert repair(repository, write=True, remotes=[other(made, url)]).condemned == 1
        (frame,) = set(frames_of(repository, chunk_of(repository, "content"))) - {
            name.hex() for name in repository.log.condemned_since(0)
        }
        damage(repository, frame, "gone")
    with Repository.open(url) as repository:
        assert {one.path for one in verify(repository).damage} == {b"a/b/f3"}
        done = repair(repository, write=True)
        assert done.kept == 1 and [path for path, _ in done.without[0].lacks] == [b"a/b/f3"]
        assert repair(repository, write=True, remotes=[other(made, url)]).whole
        gc(repository, grace_ns=0)
    assert whole(url) == before
    check_sound(url)


@pytest.mark.parametrize("what", ["version", "drop"])
def test_others_commit_meanwhile(url: str, made: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Another writer makes a version while a repair runs, or gives a dictionary up, which what was stored may use: it
    gives nothing up."""
    break_some(url, ("content", "gone"))
    mend = sys.modules["spraydry.actions.repair.repair"]._mend

    def while_another_writes(repository: Repository, *arguments: object) -> object:
        with Repository.open(url) as another:
            if what == "version":
                make_version(another, "another", {b"a": b"plain"})
            else:
                drop(another, [bytes(32)], "test", lambda: None)
        return mend(repository, *arguments)

    monkeypatch.setattr(sys.modules["spraydry.actions.repair.repair"], "_mend", while_another_writes)
    with Repository.open(url) as repository:
        done = repair(repository, write=True, remotes=[other(made, url)])
        assert done.condemned == 0 and "another writer committed" in done.left_alone[0]
    monkeypatch.undo()


def test_originals_ingested_again_mend_old_versions(url: str, made: Path) -> None:
    """What a verify found damaged is not counted on: the next ingest stores it again, pages of folders, too."""
    before = whole(url)
    break_some(url, ("tree page", "gone"), ("content", "cut"))
    with Repository.open(url) as repository:
        assert not verify(repository).sound
        ingest(repository, [str(made / "source")], root="source")
        assert contents(repository, "source@v1") == (before, [])


def test_read_only_and_wrong_arguments(url: str, tmp_path: Path) -> None:
    with Repository.open(url, read_only=True) as repository, pytest.raises(StoreReadOnly):
        repair(repository, write=True)
    with Repository.open(url) as repository, pytest.raises(UsageError):  # though nothing is to be repaired
        repair(repository, sources=[str(tmp_path / "nowhere")])
    break_some(url, ("content", "gone"))
    with Repository.open(url, read_only=True) as repository:
        assert [str(one.of) for one in repair(repository).without] == ["source@v1"]


def test_a_lost_run_is_written_again(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = whole(url)
    with Repository.open(url) as repository:
        runs = [stored.name for stored in repository.store.list("index")]
        repository.store.put("index", runs[0], b"no run")
        repository.store.delete("index", runs[1:])
        repository.catalog.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    with Repository.open(url) as repository:
        done = repair(repository, write=True)
        assert done.index.named > 10 and len(done.index.damaged) == 1 and not done.without and done.whole
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a third machine"))
    with Repository.open(url) as repository:
        repository.reindex()
        assert not repository.damaged_runs
    assert whole(url) == before
    check_sound(url)


def test_what_is_not_understood_stays(url: str) -> None:
    with Repository.open(url) as repository:
        repository.store.put("frames", "ab" * 32, b"of another program")
        repository.store.put("frames", "readme.txt", b"hello")
        done = repair(repository, write=True)
        assert len(done.left_alone) == 2 and not done.without and not done.condemned
        assert repository.store.get("frames", "readme.txt") == b"hello"
        assert repository.store.get("frames", "ab" * 32) == b"of another program"


def test_a_folder_of_which_one_page_is_lost_keeps_the_others(url: str) -> None:
    break_some(url, ("leaf of many", "gone"))
    with Repository.open(url) as repository:
        done = repair(repository, write=True)
        many = repository.resolve("source:many").entry.content
        assert isinstance(many, Subtree) and 100 < many.files < 904
        assert b"many/" in [path for path, _ in done.without[0].lacks]


def test_a_version_of_which_nothing_can_be_read(url: str, made: Path) -> None:
    """No empty version takes its place; the original folder, ingested again, brings it back."""
    before = whole(url)
    with Repository.open(url) as repository:
        top = repository.log.find("source", "v1").record.entry.content
        assert isinstance(top, Subtree)
        for frame in frames_of(repository, top.digest):
            damage(repository, frame, "gone")
    with Repository.open(url) as repository:
        done = repair(repository, write=True)
        assert done.without[0].entry is None and not done.whole and done.kept == 1 and not done.condemned
        assert [version.name for version in repository.versions("source")] == ["v1"]
        ingest(repository, [str(made / "source")], root="source")
        assert repair(repository, write=True).whole
    assert whole(url) == before
    check_sound(url)
