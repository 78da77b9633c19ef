"""What is ingested: one source or several, what is left out, and how the root gets its name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry.actions.ingest import ingest
from spraydry.errors import PathNotFound, UsageError
from spraydry.repository.repository import Repository
from tests.ingest.trees import age, command, differences, entry_at, names_in, needs_root, read_back, taken, version_of


def tree(folder: Path, *paths: str) -> Path:
    for path in paths:
        place = folder / path
        if path.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(path)
    return folder


# -- one, several


def test_one_directory_is_the_root_itself(repository: Repository, tmp_path: Path) -> None:
    result = taken(repository, tree(tmp_path / "photos", "a", "sub/b"), root=None)
    assert result.root == "photos"
    assert names_in(repository, result) == {"a", "sub", "sub/b"}


def test_a_trailing_slash_or_dot_changes_nothing(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tree(tmp_path / "photos", "a")
    monkeypatch.chdir(source)
    assert ingest(repository, [str(source) + "/"]).root == "photos"
    assert ingest(repository, ["."]).root == "photos"
    assert not ingest(repository, ["../photos/./"]).new


def test_a_symlink_to_a_directory_is_followed_as_a_source(repository: Repository, tmp_path: Path) -> None:
    source = tree(tmp_path / "photos", "a")
    (tmp_path / "link").symlink_to(source)
    result = taken(repository, tmp_path / "link", root=None)
    assert result.root == "link" and names_in(repository, result) == {"a"}


def test_several_sources_stand_under_their_names(repository: Repository, tmp_path: Path) -> None:
    one = tree(tmp_path / "x/one", "a", "same")
    two = tree(tmp_path / "y/two", "b", "same")
    single = tree(tmp_path / "z", "file") / "file"
    (tmp_path / "x/one/same").write_text("equal")
    (tmp_path / "y/two/same").write_text("equal")
    os.link(one / "a", two / "linked")
    result = taken(repository, two, single, one)
    assert names_in(repository, result) == {
        "file",
        "one",
        "one/a",
        "one/same",
        "two",
        "two/b",
        "two/linked",
        "two/same",
    }
    assert read_back(repository, result, "file") == b"file"
    assert entry_at(repository, result, "one/a").group == entry_at(repository, result, "two/linked").group is not None
    age()
    assert not taken(repository, single, one, two).new  # their order says nothing
    assert taken(repository, two, single, one).read_files == 0


def test_unchanged_sources_are_not_read_again(repository: Repository, tmp_path: Path) -> None:
    sources = [tree(tmp_path / "one", "a/b/c"), tree(tmp_path / "two", "a/b/c")]
    age()
    taken(repository, *sources)
    (tmp_path / "two/a/b/d").write_text("new")
    result = taken(repository, *sources)
    assert result.read_files == 1
    assert names_in(repository, result) >= {"one/a/b/c", "two/a/b/c", "two/a/b/d"}


def test_a_file_becomes_its_single_entry(repository: Repository, tmp_path: Path) -> None:
    source = tree(tmp_path, "report.txt") / "report.txt"
    result = taken(repository, source, root=None)
    assert result.root == "report.txt"
    assert names_in(repository, result) == {"report.txt"}
    assert read_back(repository, result, "report.txt") == b"report.txt"
    assert not taken(repository, source, root=None).new


def test_equal_base_names_are_refused(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two sources are called 'same'"):
        taken(repository, tree(tmp_path / "x/same", "a"), tree(tmp_path / "y/same", "b"))
    assert repository.roots() == []


def test_the_top_of_the_file_system_has_no_name_to_stand_under(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        taken(repository, b"/", tree(tmp_path / "x", "a"))


@pytest.mark.parametrize("name", ["gone", "file/below", "dangling"])
def test_a_source_that_is_not_there(repository: Repository, tmp_path: Path, name: str) -> None:
    tree(tmp_path, "file")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(PathNotFound, match="cannot be ingested"):
        taken(repository, tmp_path / name)


# -- root names


@pytest.mark.parametrize("name", ["-dash", ".dot", "latest", "a b", "ü", "a:b", "a@b", "\udcff", "n" * 201])
def test_a_folder_whose_name_does_not_fit_asks_for_root(repository: Repository, tmp_path: Path, name: str) -> None:
    source = tree(tmp_path / name, "a")
    with pytest.raises(UsageError, match="--root"):
        taken(repository, source, root=None)
    assert taken(repository, source, root="fits").root == "fits"
    with pytest.raises(UsageError):
        taken(repository, source, root=name)


def test_several_sources_ask_for_root(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--root"):
        taken(repository, tree(tmp_path / "x", "a"), tree(tmp_path / "y", "b"), root=None)


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "_", "9", "v1", "n" * 200])
def test_names_that_fit(repository: Repository, tmp_path: Path, name: str) -> None:
    assert taken(repository, tree(tmp_path / name, "a"), root=None).root == name


# -- what is left out


def test_exclude(repository: Repository, tmp_path: Path) -> None:
    source = tree(
        tmp_path / "s", "a.tmp", "a.txt", "build/x", "sub/build/y", "sub/b.tmp", "top", "sub/top", "k/deep/er/z", "k/z"
    )
    result = taken(repository, source, exclude=["*.tmp", "build/", "/top", "k/**/z"])
    assert names_in(repository, result) == {"a.txt", "sub", "sub/top", "k", "k/deep", "k/deep/er"}
    age()
    assert not taken(repository, source, exclude=["*.tmp", "build/", "/top", "k/**/z"]).new
    # Other patterns, the same directory: nothing stays from before.
    assert "sub/b.tmp" in names_in(repository, taken(repository, source, exclude=["build/"]))
    assert names_in(repository, taken(repository, source, exclude=["*", "!a.txt"])) == {"a.txt"}


def test_ignore_files(repository: Repository, tmp_path: Path) -> None:
    source = tree(
        tmp_path / "s",
        "a.log",
        "keep.log",
        "sub/b.log",
        "sub/keep.log",
        "sub/c.bin",
        "sub/deep/c.bin",
        "c.bin",
        "n/x",
        "m/x",
    )
    (source / ".spraydryignore").write_bytes(b"# a comment\n*.log\n!keep.log\n\n/n/*\nm\n\xff\n")
    (source / "sub/.spraydryignore").write_text("/c.bin\n!b.log\nkeep.log\n")
    result = taken(repository, source)
    assert names_in(repository, result) == {
        ".spraydryignore",
        "keep.log",
        "c.bin",
        "n",
        "sub",
        "sub/.spraydryignore",
        "sub/b.log",
        "sub/deep",
        "sub/deep/c.bin",
    }
    age()
    assert not taken(repository, source).new
    (source / "sub/.spraydryignore").write_text("")
    assert "sub/c.bin" in names_in(repository, taken(repository, source))
    (source / ".spraydryignore").unlink()
    assert {"m/x", "a.log", "n/x"} <= names_in(repository, taken(repository, source))


def test_exclude_has_the_last_word(repository: Repository, tmp_path: Path) -> None:
    """As with git: patterns from the command line come before those of files."""
    source = tree(tmp_path / "s", "a.tmp", "b.tmp", "c.txt")
    (source / ".spraydryignore").write_text("!*.tmp\nc.txt\n")
    assert names_in(repository, taken(repository, source, exclude=["*.tmp", "!c.txt"])) == {".spraydryignore", "c.txt"}


def test_an_ignore_file_that_is_none(repository: Repository, tmp_path: Path) -> None:
    source = tree(tmp_path / "s", "a", "x/b", "y/c")
    (source / ".spraydryignore").mkdir()
    os.mkfifo(source / "x/.spraydryignore")
    (source / "y/.spraydryignore").symlink_to("/etc/passwd")
    result = ingest(repository, [str(source)])
    assert result.version is not None
    assert {"a", "x/b", "y/c"} <= names_in(repository, result)
    assert {path for path, _ in result.problems} <= {
        os.fsencode(source / place) for place in (".spraydryignore", "x/.spraydryignore", "y/.spraydryignore")
    }


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """A directory with another file system on it."""
    source = tree(tmp_path / "s", "here", "other/")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", source / "other"], capture_output=True)
    if done.returncode:
        pytest.skip(f"CANNOT MOUNT a tmpfs, so not tested here: {done.stderr.decode().strip()}")
    try:
        tree(source / "other", "there", "below/x")
        yield source
    finally:
        subprocess.run(["umount", source / "other"], check=True)


@pytest.mark.root
@needs_root
def test_one_file_system(repository: Repository, other_file_system: Path) -> None:
    result = taken(repository, other_file_system, one_file_system=True)
    assert names_in(repository, result) == {"here", "other"}
    assert result.left_out == [(os.fsencode(other_file_system / "other"), "another file system")]
    age()
    assert not taken(repository, other_file_system, one_file_system=True).new
    whole = taken(repository, other_file_system)
    assert differences(repository, version_of(whole), other_file_system) == []
    assert names_in(repository, taken(repository, other_file_system, one_file_system=True)) == {"here", "other"}


def test_its_own_files_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tree(tmp_path / "s", "a", "store/b", ".cache/c")
    monkeypatch.setenv("XDG_CACHE_HOME", str(source / ".cache"))
    with Repository.open(str(source / "store/r.sqlite"), create=True) as repository:
        for _ in range(2):
            result = ingest(repository, [str(source)])
            assert result.problems == []
            assert names_in(repository, result) == {"a", "store", "store/b", ".cache", ".cache/c"}
        said = {os.fsdecode(path): why for path, why in result.left_out}
        assert str(source / "store/r.sqlite") in said and str(source / ".cache/spraydry") in said
        assert set(said.values()) == {"spraydry's own"}
    done = command("--repo", source / "store/r.sqlite", "ingest", source)
    assert done.returncode == 0
    assert b"left out: " in done.stdout and b"r.sqlite" in done.stdout


@pytest.mark.fuse
def test_mounts_are_left_out(repository: Repository, repository_path: str, tmp_path: Path) -> None:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"NO /dev/fuse, so not tested here: {error}")
    source = tree(tmp_path / "s", "a", "m/")
    taken(repository, source)
    mounted = command("--repo", repository_path, "mount", "r", source / "m")
    assert mounted.returncode == 0, mounted.stderr
    try:
        assert os.listdir(source / "m") != []
        result = taken(repository, source, exclude=["nothing"])
        assert result.left_out == [(os.fsencode(source / "m"), "a spraydry mount")]
        assert not any(name.startswith("m/") for name in names_in(repository, result))
    finally:
        assert command("umount", source / "m").returncode == 0
