"""`forget`: a path taken out of every version of a root."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from spraydry.actions import forget as forgetting
from spraydry.actions.forget import Forgotten, forget
from spraydry.actions.remove import bring_back
from spraydry.actions.tag import tag
from spraydry.actions.verify import verify
from spraydry.errors import PathNotFound, RootNotFound, UsageError
from spraydry.format.entry import FILE
from spraydry.format.links import group_of
from spraydry.repository.repository import Repository
from tests.life.child import killed
from tests.repositories import Run, caller
from tests.small_versions import read_all
from tests.versions import make_version, plain_entry

SECRET = {b"key": b"secret", b"more": b"secrets"}


def names(repository: Repository, root: str = "r") -> list[str]:
    repository.refresh()
    return [version.name for version in repository.log.versions(root)]


def newest(repository: Repository, root: str = "r") -> dict[str, bytes]:
    return read_all(repository, root)


def pairs(done: Forgotten) -> list[tuple[list[str], list[str]]]:
    return [([version.name for version in one.old], [*one.new]) for one in done.rewritten]


@pytest.fixture
def three(repository: Repository) -> Repository:
    make_version(repository, "r", {b"a": b"1", b"in": {b"secret": SECRET}})
    make_version(repository, "r", {b"a": b"2", b"in": {b"secret": SECRET, b"x": b"x"}})
    make_version(repository, "r", {b"a": b"3", b"in": {b"secret": {b"key": b"other"}}})
    return repository


def test_every_version_is_made_without_it(three: Repository) -> None:
    old = [version.record for version in three.log.versions("r")]
    done = forget(three, "r:in/secret")
    assert pairs(done) == [(["v1"], ["v1-1"]), (["v2"], ["v2-1"]), (["v3"], ["v3-1"])]
    assert [(one.gone.files, one.gone.size) for one in done.rewritten] == [(2, 13), (2, 13), (1, 5)]
    assert (done.newest, done.untouched) == (None, 0)
    assert names(three) == ["v1", "v2", "v3", "v1-1", "v2-1", "v3-1"]
    assert newest(three) == {"a": b"3"}
    assert read_all(three, "r@v2-1") == {"a": b"2", "in/x": b"x"}
    assert read_all(three, "r@v2") == {
        "a": b"2",
        "in/x": b"x",
        "in/secret/key": b"secret",
        "in/secret/more": b"secrets",
    }
    assert [version.record.made_ns for version in three.log.versions("r")[3:]] == [record.made_ns for record in old]
    assert verify(three).sound


def test_the_old_ones_are_pruned(three: Repository) -> None:
    tag(three, "r@v2", "best")
    done = forget(three, "r:in/secret", prune=True)
    assert done.pruned and pairs(done)[1] == (["v2", "best"], ["v2-1", "best-1"])
    assert names(three) == ["v1-1", "v2-1", "best-1", "v3-1"]
    assert read_all(three, "r@best-1") == read_all(three, "r@v2-1")
    with pytest.raises(PathNotFound, match="no version of 'r' holds 'in/secret'"):
        forget(three, "r:in/secret", prune=True)
    bring_back(three, ["r@v1"])
    assert newest(three) == {"a": b"3"}


def test_pruning_later(three: Repository) -> None:
    tag(three, "r@v1", "first")
    forget(three, "r:in/secret")
    before = names(three)
    again = forget(three, "r:in/secret")
    assert names(three) == before and pairs(again)[0] == (["v1", "first"], ["v1-1", "first-1"])
    done = forget(three, "r:in/secret", prune=True)
    assert pairs(done) == pairs(again)
    assert names(three) == ["v1-1", "first-1", "v2-1", "v3-1"]
    assert newest(three) == {"a": b"3"}


def test_versions_that_do_not_hold_it_stay(repository: Repository) -> None:
    make_version(repository, "r", {b"a": b"1"})
    make_version(repository, "r", {b"a": b"2", b"s": b"secret"})
    make_version(repository, "r", {b"a": b"3"})
    done = forget(repository, "r:s", prune=True)
    assert (pairs(done), done.newest, done.untouched) == ([(["v2"], ["v2-1"])], "v3-1", 2)
    assert names(repository) == ["v1", "v3", "v2-1", "v3-1"]
    assert newest(repository) == {"a": b"3"}
    assert repository.log.find("r", "v3-1").record.made_ns == repository.log.find("r", "v3").record.made_ns


def test_equal_results_are_one_version(repository: Repository) -> None:
    make_version(repository, "r", {b"a": b"1", b"s": b"one"})
    make_version(repository, "r", {b"a": b"1", b"s": b"two"})
    done = forget(repository, "r:s")
    assert pairs(done) == [(["v1"], ["v1-1"]), (["v2"], ["v2-1"])]
    assert repository.log.find("r", "v1-1").made_in == repository.log.find("r", "v2-1").made_in
    assert newest(repository) == {"a": b"1"}
    slots = repository.log.head[0]
    forget(repository, "r:s")
    assert repository.log.head[0] == slots


def test_a_path_after_another(three: Repository) -> None:
    forget(three, "r:in/secret")
    done = forget(three, "r:a", prune=True)
    assert names(three) == ["v1-2", "v1-3", "v2-2", "v2-3", "v3-2", "v3-3"]
    assert len(done.rewritten) == 6
    assert newest(three) == {}
    assert newest(three, "r@v1-3") == {} and "in/secret/key" in newest(three, "r@v1-2")


def test_what_was_forgotten_does_not_come_back(three: Repository) -> None:
    """The old versions, which were not pruned, hold the second path; what is newest does not, and stays newest."""
    forget(three, "r:in/secret")
    before = read_all(three, "r")
    done = forget(three, "r:in/secret/key")
    assert pairs(done)[2] == (["v3"], ["v3-2"]) and done.newest == "v3-3"
    assert newest(three) == before
    slots = three.log.head[0]
    forget(three, "r:in/secret/key")
    assert three.log.head[0] == slots


def test_a_path_above_one_that_was_forgotten(three: Repository) -> None:
    """What comes in the place of an old version equals what comes in the place of what had come there."""
    forget(three, "r:in/secret/key")
    done = forget(three, "r:in/secret")
    assert (["v3"], ["v3-2"]) in pairs(done) and (["v3-1"], ["v3-3"]) in pairs(done)
    assert "in/secret/key" not in newest(three)


def test_names_of_equal_results_keep_their_places(repository: Repository) -> None:
    """v2-1 is a second name of v1-1; what stands for that later has the place of each, and what was forgotten and not
    pruned does not come back with a name."""
    for secret in (b"one", b"two"):
        make_version(repository, "r", {b"a": b"1", b"s": secret, b"d": {b"x": b"2", b"y": b"3"}, b"e": b"4"})
    forget(repository, "r:s", prune=True)
    forget(repository, "r:d/x")
    forget(repository, "r:d")
    assert newest(repository) == {"a": b"1", "e": b"4"}
    forget(repository, "r:e", prune=True)
    assert newest(repository) == {"a": b"1"}
    assert all("e" not in read_all(repository, f"r@{name}") for name in names(repository))


@pytest.mark.parametrize("after", range(1, 10))
def test_interrupted_and_run_again(three: Repository, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    make_version(three, "r", {b"a": b"4"})
    tag(three, "r@v1", "first")
    append, count = three.log.append, 0

    def failing(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == after:
            raise KeyboardInterrupt
        return append(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(three.log, "append", failing)
        with pytest.raises(KeyboardInterrupt):
            forget(three, "r:in/secret", prune=True)
    forget(three, "r:in/secret", prune=True)
    assert sorted(names(three)) == ["first-1", "v1-1", "v2-1", "v3-1", "v4", "v4-1"]
    assert newest(three) == {"a": b"4"}
    assert verify(three).sound


@pytest.mark.parametrize("scheme", ["", "dir:"])
def test_killed_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """Whatever is there then is whole, and the same command ends with what it would have made."""
    base, url = tmp_path / "base", scheme + str(tmp_path / "r")
    with Repository.open(scheme + str(base), create=True) as repository:
        make_version(repository, "r", {b"a": b"1", b"s": SECRET})
        make_version(repository, "r", {b"a": b"2", b"s": {b"key": b"2"}})
        tag(repository, "r@v1", "first")
        make_version(repository, "r", {b"a": b"3"})
    was_killed, write, middle = True, 0, set()
    while was_killed:
        write += 1
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{write}"))  # its catalog knows of no other try
        if scheme:
            shutil.rmtree(tmp_path / "r", ignore_errors=True)
            shutil.copytree(base, tmp_path / "r")
        else:
            shutil.copy(base, tmp_path / "r")
        was_killed = killed(["--repo", url, "forget", "r:s", "--prune"], write)
        with Repository.open(url) as repository:
            found = verify(repository)
            assert not (found.damage or found.damaged_frames or found.other)
            middle.add(tuple(names(repository)))
            try:
                forget(repository, "r:s", prune=True)
            except PathNotFound:
                pass
            assert set(names(repository)) == {"v1-1", "first-1", "v2-1", "v3", "v3-1"}
            assert newest(repository) == {"a": b"3"}
            assert read_all(repository, "r@first-1") == {"a": b"1"}
    assert len(middle) > 2 + (scheme == "dir:") * 4


def test_a_version_that_comes_meanwhile(three: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    came = False
    made = forgetting._Forgetting.proposals

    def proposals(*arguments: Any) -> Any:
        nonlocal came
        found = made(*arguments)
        if not came:
            came = True
            make_version(three, "r", {b"a": b"4", b"in": {b"secret": b"again", b"y": b"y"}})
        return found

    monkeypatch.setattr(forgetting._Forgetting, "proposals", proposals)
    forget(three, "r:in/secret", prune=True)
    assert names(three) == ["v1-1", "v2-1", "v3-1", "v4-1"]
    assert newest(three) == {"a": b"4", "in/y": b"y"}


def test_hardlinks_into_it(repository: Repository) -> None:
    linked = plain_entry(b"", FILE, None, 0, group=group_of(b"a"))
    make_version(repository, "r", {b"a": linked, b"b": linked, b"s": {b"c": linked}})
    make_version(repository, "r", {b"a": linked, b"s": {b"c": linked}})
    forget(repository, "r:s", prune=True)
    (group,) = repository.links(repository.log.find("r", "v1-1").record.links).groups()
    assert (group.count, group.first) == (2, b"a")
    assert repository.log.find("r", "v2-1").record.links is None
    assert repository.resolve("r:a").entry.group is None
    assert verify(repository).sound


def test_a_dry_run(three: Repository) -> None:
    tag(three, "r@v1", "first")
    head = three.log.head
    dry = forget(three, "r:in/secret", prune=True, dry_run=True)
    assert three.log.head == head
    assert pairs(dry) == pairs(forget(three, "r:in/secret"))
    assert pairs(dry) == pairs(forget(three, "r:in/secret", dry_run=True))


def test_bad_input(three: Repository) -> None:
    for address, error in (
        ("r", UsageError), ("r@v1", UsageError), ("r@v1:a", UsageError), ("r:", UsageError), ("q:a", RootNotFound),
        ("r:no", PathNotFound), ("r:a/b", PathNotFound), ("r:../a", UsageError),
    ):  # fmt: skip
        with pytest.raises(error):
            forget(three, address)


def test_the_command_line(
    repository_path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRAYDRY_REPO", repository_path)
    with Repository.open(repository_path, create=True) as repository:
        make_version(repository, "r", {b"a": b"1", b"s": SECRET})
        make_version(repository, "r", {b"a": b"2"})
    spraydry: Run = caller(capsys)
    _, out, _ = spraydry("forget", "r:s", "--dry-run")
    assert out.splitlines() == [
        "s would be taken out of 1 version of r; 1 other does not hold it",
        "  v1 -> v1-1: without 2 files, 13 B",
        "the old versions would stay until --prune removes them",
    ]
    _, out, _ = spraydry("forget", "r:s")
    assert out.splitlines() == [
        "s is taken out of 1 version of r; 1 other does not hold it",
        "  v1 -> v1-1: without 2 files, 13 B",
        "the newest version did not hold it, and stays the newest as v2-1",
        "the old versions stay until it is run again with --prune; their bytes go with `spraydry gc`",
    ]
    _, out, _ = spraydry("forget", "r:s", "--prune", "--json")
    assert json.loads(out)["versions"] == [{"old": ["v1"], "new": ["v1-1"], "files": 2, "bytes": 13}]
    spraydry("forget", "r:s", "--prune", code=4)
    spraydry("forget", "r", code=2)
