"""Names of versions: tags, rollbacks, removals and what brings them back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from spraydry import cli
from spraydry.actions.commit import Proposal, commit
from spraydry.actions.remove import bring_back, remove, removed
from spraydry.actions.rollback import rollback
from spraydry.actions.tag import tag
from spraydry.errors import RootNotFound, StoreUnavailable, UsageError, VersionExists, VersionNotFound
from spraydry.format.version import CondemnRecord
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository
from tests.ingest.trees import taken
from tests.versions import make_version

Spray = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def spray(capsys: pytest.CaptureFixture[str], repository_path: str) -> Spray:
    def run(*arguments: str) -> tuple[int, str, str]:
        return cli.run([*arguments, "--repo", repository_path]), *capsys.readouterr()

    return run


def listed(repository: Repository, root: str = "r") -> list[str]:
    repository.refresh()
    return [version.name for version in repository.log.versions(root)]


# -- tags


def test_a_tag_names_the_version(repository: Repository) -> None:
    first = make_version(repository, "r", {b"f": b"1"})
    make_version(repository, "r", {b"f": b"2"})
    assert tag(repository, "r@v1", "first") == first
    assert tag(repository, "r", "newest").name == "v2"
    assert tag(repository, "r@first", "again").made_in == first.made_in  # of a tag: of the version it names
    assert repository.log.find("r", "again").record == first.record
    remove(repository, ["r@v1"])
    with repository.open_file("r@again:f") as stream:
        assert stream.read() == b"1"


def test_names_that_cannot_be_given(repository: Repository) -> None:
    make_version(repository, "r", {b"f": b"1"})
    make_version(repository, "s", {b"f": b"1"}, name="there")
    for name in ("", "latest", "a/b", "-x", "a b", "x" * 201, "ü"):
        with pytest.raises(UsageError):
            tag(repository, "r", name)
    with pytest.raises(UsageError):
        tag(repository, "r:f", "x")
    with pytest.raises(VersionExists):
        tag(repository, "r", "v1")
    with pytest.raises(RootNotFound):
        tag(repository, "t", "x")
    tag(repository, "r", "there")  # the names of another root are its own
    remove(repository, ["r@there"])
    with pytest.raises(VersionExists, match="was removed"):
        tag(repository, "r", "there")
    before = repository.log.head
    tag(repository, "r", "dry", dry_run=True)
    assert repository.log.head == before and listed(repository) == ["v1"]


def test_another_was_faster(repository: Repository, repository_path: str) -> None:
    """What was read on opening is no longer so: it is looked at again when the record is made."""
    for number in range(3):
        make_version(repository, "r", {b"f": b"%d" % number})
    with Repository.open(repository_path) as other:
        tag(other, "r@v1", "taken")
        remove(other, ["r@v2"])
        assert repository.log.head[0] == 3
        with pytest.raises(VersionExists):
            tag(repository, "r@v3", "taken")
    with Repository.open(repository_path) as late, Repository.open(repository_path) as other:
        remove(other, ["r@v1"])
        with pytest.raises(VersionNotFound):
            tag(late, "r@v1", "x")
        assert remove(late, ["r@taken"])[0].other_names == []
    assert listed(repository) == ["v3"]


# -- rollbacks


def test_a_rollback_is_equal_in_everything(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"a")
    os.link(source / "a", source / "b")
    taken(repository, source, chunker="fixed:size=64K")
    (source / "c").write_bytes(b"c")
    taken(repository, source, chunker="fixed:size=128K")
    old = repository.log.find("r", "v1").record
    held = repository.catalog.frames_count()
    done = rollback(repository, "r@v1")
    assert done.new and done.version is not None and done.version.name == "v3"
    record = done.version.record
    for field in ("entry", "links", "spec", "users", "groups", "incomplete"):
        assert getattr(record, field) == getattr(old, field), field
    assert record.made_by.endswith(" rollback") and (record.new_bytes, record.stored_bytes) == (0, 0)
    assert repository.catalog.frames_count() == held
    assert repository.log.newest("r") == done.version
    with repository.open_file("r:b") as stream:
        assert stream.read() == b"a"
    # An ingest goes on from it: by the old chunker, and equal trees make no version.
    (source / "c").unlink()
    os.utime(source, ns=(0, record.entry.mtime_s * 10**9 + record.entry.mtime_ns))
    assert not taken(repository, source).new


def test_an_incomplete_version_stays_incomplete(repository: Repository) -> None:
    make_version(repository, "r", {b"f": b"1"})
    first = repository.log.find("r").record
    lacking = Proposal("r", None, first.entry, None, first.spec, (), (), "test", incomplete=True)
    commit(repository, lacking, repository.log.head[0])
    make_version(repository, "r", {b"f": b"3"})
    done = rollback(repository, "r@v2")
    assert done.version is not None and done.version.record.incomplete


def test_a_rollback_to_what_is_newest(repository: Repository) -> None:
    make_version(repository, "r", {b"f": b"1"})
    make_version(repository, "r", {b"f": b"2"})
    make_version(repository, "r", {b"f": b"1"})
    before = repository.log.head
    done = rollback(repository, "r@v1")
    assert not done.new and done.version is not None and done.version.name == "v3" and repository.log.head == before
    named = rollback(repository, "r@v1", name="as-before")
    assert not named.new and named.named and listed(repository)[-1] == "as-before"
    assert rollback(repository, "r@v2", name="two").version == repository.log.find("r", "two")
    for dry in (rollback(repository, "r@v1", dry_run=True), rollback(repository, "r@v1", name="x", dry_run=True)):
        assert dry.new and dry.version is None
    same = rollback(repository, "r@v2", dry_run=True)
    assert not same.new and same.version is not None and same.version.name == "two"
    with pytest.raises(VersionExists):
        rollback(repository, "r@v1", name="two", dry_run=True)
    for address in ("r", "r@v1:f", "r:f"):
        with pytest.raises(UsageError, match="ROOT@VERSION"):
            rollback(repository, address)
    with pytest.raises(VersionNotFound):
        rollback(repository, "r@v9")


def test_a_rollback_to_what_is_collected_meanwhile(repository: Repository, repository_path: str) -> None:
    make_version(repository, "r", {b"f": b"1" * 999})
    make_version(repository, "r", {b"f": b"2" * 999})
    with Repository.open(repository_path) as late:
        chunk = repository.resolve("r@v1:f").entry.content
        assert isinstance(chunk, bytes)
        frame = repository.catalog.chunks.locate(chunk)[0].frame
        remove(repository, ["r@v1"])
        repository.log.append(
            lambda previous, now_ns: CondemnRecord(
                format=RECORD_FORMAT, previous=previous, made_ns=now_ns, made_by="test", frames=(frame,)
            )
        )
        repository.catalog.forget_frames([frame])
        with pytest.raises(StoreUnavailable, match="run it again"):
            rollback(late, "r@v1")
    assert listed(repository) == ["v2"]


# -- removals


def test_all_or_none(repository: Repository) -> None:
    for number in range(4):
        make_version(repository, "r", {b"f": b"%d" % number})
    tag(repository, "r@v2", "two")
    before = repository.log.head
    with pytest.raises(VersionNotFound):
        remove(repository, ["r@v1", "r@v9"])
    assert repository.log.head == before
    done = remove(repository, ["r@v2", "r@latest", "r@v2", "r@v4"], dry_run=True)
    assert repository.log.head == before
    assert remove(repository, ["r@v2", "r@latest", "r@v2", "r@v4"]) == done
    assert [(one.version.name, one.other_names) for one in done] == [("v2", ["two"]), ("v4", [])]
    assert remove(repository, ["r@two", "r@v3"])[0].other_names == []
    assert listed(repository) == ["v1"]
    before = repository.log.head
    with pytest.raises(VersionNotFound, match="was not removed"):
        bring_back(repository, ["r@v2", "r@v1"])
    assert repository.log.head == before
    assert [one.version.name for one in bring_back(repository, ["r@v2", "r@v2", "r@v4"], dry_run=True)] == ["v2", "v4"]
    assert repository.log.head == before
    bring_back(repository, ["r@v2", "r@v2", "r@v4"])
    assert listed(repository) == ["v1", "v2", "v4"]
    assert [past.version.name for past in removed(repository)] == ["v3", "two"]
    with pytest.raises(RootNotFound):
        removed(repository, "never")


def test_removed_and_brought_back_again_and_again(repository: Repository) -> None:
    make_version(repository, "r", {b"f": b"1"})
    for _ in range(3):
        remove(repository, ["r@v1"])
        assert listed(repository) == []
        (past,) = removed(repository, "r")
        assert past.removed_ns == repository.log.records[-1].made_ns
        bring_back(repository, ["r@v1"])
        assert listed(repository) == ["v1"] and removed(repository) == []
    with Repository.open(repository.url) as other:
        assert listed(other) == ["v1"]


def test_what_the_commands_print(repository: Repository, spray: Spray) -> None:
    make_version(repository, "r", {b"f": b"1"})
    make_version(repository, "r", {b"f": b"22"})
    assert spray("tag", "r@v1", "one", "--dry-run")[1] == "r@v1 would be r@one, too\n"
    assert spray("tag", "r@v1", "one")[1] == "r@v1 is r@one, too\n"
    assert json.loads(spray("tag", "r", "two", "--json")[1])["version"] == "r@v2"
    assert spray("rollback", "r@v1", "--dry-run")[1].startswith("a new version of r would be made, equal to r@v1: 1 f")
    assert spray("rollback", "r@one")[1] == "r@v3 is there, equal to r@one: 1 file, 1 B\n"
    told = json.loads(spray("rollback", "r@one", "--json")[1])
    assert (told["version"], told["new"], told["from"]) == ("v3", False, "r@one")
    assert "is another name of that" in spray("rollback", "r@v1", "--as", "again")[1]
    assert "also one" in spray("log", "r")[1]
    assert "it stays as one" in spray("rm", "r@v1")[1]
    assert spray("rm", "r@one")[0] == 0
    assert [one["name"] for one in json.loads(spray("log", "--removed", "--json")[1])] == ["v1", "one"]
    assert spray("undelete", "r@v1", "r@one")[1].splitlines() == [
        "brought back r@v1: 1 file, 1 B",
        "brought back r@one: 1 file, 1 B",
    ]
    for wrong in (["tag", "r"], ["tag", "r@v1", "two"], ["rollback", "r"], ["undelete"], ["undelete", "r"]):
        code, out, err = spray(*wrong)
        assert code in (2, 5) and out == "" and err.count("\n") == 1, wrong
