"""Sources of an ingest that are in the repository already."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spraydry.actions.ingest import ingest
from spraydry.actions.verify import verify
from spraydry.errors import PathNotFound, RootNotFound, UsageError, VersionNotFound
from spraydry.repository.repository import Repository
from tests.ingest.trees import differences
from tests.repositories import caller
from tests.small_versions import read_all
from tests.versions import make_version


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "in").mkdir(parents=True)
    (folder / "a").write_bytes(b"a")
    os.link(folder / "a", folder / "in" / "b")
    return folder


def names_of_one_inode(repository: Repository, address: str) -> list[list[bytes]]:
    """The hardlinked files, by group, as the entries and the links list tell them alike."""
    groups: dict[bytes, list[bytes]] = {}
    for one in repository.walk(address):
        if one.entry.group is not None:
            groups.setdefault(one.entry.group, []).append(one.path)
    links = repository.links(repository.log.find(address).record.links)
    assert {group.group: (group.count, group.first) for group in links.groups()} == {
        group: (len(paths), paths[0]) for group, paths in groups.items()
    }
    return sorted(groups.values())


def test_beside_folders(repository: Repository, source: Path) -> None:
    make_version(repository, "models", {b"weights": {b"w1": b"1", b"w2": b"2"}, b"note": b"n"})
    make_version(repository, "other", {b"x": b"x"})
    sources = [str(source), "root:models@v1:weights", b"root:other", "root:models:note"]
    done = ingest(repository, sources, root="r")
    held = {
        "source/a": b"a",
        "source/in/b": b"a",
        "weights/w1": b"1",
        "weights/w2": b"2",
        "other/x": b"x",
        "note": b"n",
    }
    assert read_all(repository, "r") == held
    assert done.files - done.unchanged_files == 6 - 4  # of the folder alone anything is read
    assert names_of_one_inode(repository, "r") == [[b"source/a", b"source/in/b"]]
    assert repository.resolve("r:weights").entry.content == repository.resolve("models:weights").entry.content
    assert verify(repository).sound
    again = ingest(repository, sources, root="r")
    assert (again.new, again.files, again.new_bytes) == (False, done.files, 0)
    (source / "a").unlink()
    make_version(repository, "other", {b"x": b"y"})
    assert ingest(repository, sources, root="r").new
    assert names_of_one_inode(repository, "r") == []
    assert read_all(repository, "r") == {name: held[name] for name in held if name != "source/a"} | {"other/x": b"y"}


def test_the_same_hardlinks_twice(repository: Repository, source: Path) -> None:
    ingest(repository, [str(source)])
    done = ingest(repository, [str(source), "root:source:in", "root:source@v1:a"], root="r")
    assert names_of_one_inode(repository, "r") == [[b"source/a", b"source/in/b"]]
    assert done.new and verify(repository).sound


def test_a_root_that_has_the_ids_of_a_folder(repository: Repository, tmp_path: Path, source: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    source.rename(above / "source")
    ingest(repository, [str(above)], root="above")  # its group has the id that `source/a` gives
    ingest(repository, [str(above / "source"), "root:above"], root="r")
    assert names_of_one_inode(repository, "r") == [
        [b"above/source/a", b"above/source/in/b"],
        [b"source/a", b"source/in/b"],
    ]
    assert differences(repository, repository.log.find("above"), above) == []
    assert verify(repository).sound


def test_alone(repository: Repository) -> None:
    version = make_version(repository, "models", {b"weights": {b"w1": b"1"}, b"note": b"n"})
    done = ingest(repository, ["root:models"], root="copy")
    assert done.version is not None and done.version.record.entry == version.record.entry
    ingest(repository, ["root:models:note"], root="file")
    assert read_all(repository, "file") == {"note": b"n"}
    ingest(repository, ["root:models:weights", "root:models@v1"], root="two")
    assert read_all(repository, "two") == {"weights/w1": b"1", "models/weights/w1": b"1", "models/note": b"n"}
    assert verify(repository).sound


def test_a_dry_run(repository: Repository, source: Path) -> None:
    make_version(repository, "models", {b"w": b"1"})
    before = repository.log.head, [one.name for one in repository.store.list("frames")]
    assert ingest(repository, [str(source), "root:models"], root="r", dry_run=True).new
    assert (repository.log.head, [one.name for one in repository.store.list("frames")]) == before
    ingest(repository, [str(source), "root:models"], root="r")
    assert not ingest(repository, [str(source), "root:models"], root="r", dry_run=True).new


def test_bad_input(repository: Repository, source: Path) -> None:
    make_version(repository, "source", {b"w": b"1"})
    for sources, root, error in (
        ([str(source), "root:source"], "r", UsageError),  # two are called so
        (["root:source", "root:source@v1"], "r", UsageError),
        (["root:source"], None, UsageError),
        ([str(source), "root:source:w"], None, UsageError),
        (["root:"], "r", UsageError),
        (["root:q"], "r", RootNotFound),
        (["root:source@v9"], "r", VersionNotFound),
        (["root:source:q"], "r", PathNotFound),
    ):
        with pytest.raises(error):
            ingest(repository, sources, root=root)


def test_a_file_that_is_called_like_one(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root:file").write_bytes(b"f")
    monkeypatch.chdir(tmp_path)
    ingest(repository, ["./root:file"], root="r")
    assert read_all(repository, "r") == {"root:file": b"f"}


def test_the_command_line(
    repository_path: str, source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRAYDRY_REPO", repository_path)
    spraydry = caller(capsys)
    spraydry("ingest", source)
    _, out, _ = spraydry("ingest", "root:source@v1:in", "root:source@v1:a", "--root", "new")
    assert out.startswith("new@v1 is there\n  2 files, 2 B")
    _, _, err = spraydry("ingest", "root:source", code=2)
    assert "--root NAME" in err
