"""spraydry diff: what is told of two versions, against a plain model; patches that patch(1) takes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spraydry import cli
from spraydry.actions.compare import aspects
from spraydry.actions.diff import diff, patch, sides, summed
from spraydry.actions.diff.lines import Block, hunks, matching
from spraydry.errors import PathNotFound, RootNotFound, UsageError, VersionNotFound
from spraydry.format.digest import digest
from spraydry.format.entry import BLOCK, FIFO, FILE, Entry, Runs
from spraydry.repository.repository import Repository
from tests.versions import make_version, plain_entry

Told = list[tuple[str, bytes, bytes | None, tuple[str, ...]]]


def told(repository: Repository, *addresses: str) -> Told:
    changes = diff(repository, *sides(repository, addresses))
    return [(change.what, change.path, change.was, change.aspects) for change in changes]


def two(repository: Repository, old: Mapping[bytes, Any], new: Mapping[bytes, Any]) -> Told:
    make_version(repository, "r", old)
    make_version(repository, "r", new)
    return told(repository, "r@v1", "r@v2")


def test_every_path_also_inside_what_came_and_went(repository: Repository) -> None:
    found = two(
        repository,
        {b"gone": {b"deep": {b"f": b"1"}}, b"same": {b"f": b"2"}, b"f": b"3", b"l": "to"},
        {b"new": {b"deep": {b"f": b"4"}}, b"same": {b"f": b"2"}, b"f": b"5", b"l": "from"},
    )
    assert found == [
        ("changed", b"f", None, ("content",)),
        ("removed", b"gone", None, ()),
        ("removed", b"gone/deep", None, ()),
        ("removed", b"gone/deep/f", None, ()),
        ("changed", b"l", None, ("content",)),
        ("added", b"new", None, ()),
        ("added", b"new/deep", None, ()),
        ("added", b"new/deep/f", None, ()),
    ]


def test_each_aspect_is_told_apart(repository: Repository) -> None:
    one = plain_entry(b"", FILE, digest(b"text"), 4, xattrs=((b"user.a", b"1"),))
    changes: dict[bytes, dict[str, Any]] = {
        b"mode": {"mode": 0o4755},
        b"owner": {"uid": 7},
        b"group": {"gid": 7},
        b"seconds": {"mtime_s": 5},
        b"ns": {"mtime_ns": 5},
        b"xattrs": {"xattrs": ((b"user.a", b"2"),)},
        b"links": {"group": bytes(16)},
        b"content": {"content": digest(b"TEXT")},
        b"kind": {"kind": FIFO, "content": None, "size": 0},
        b"all": {"content": digest(b"T"), "size": 1, "mode": 0, "uid": 1, "mtime_s": 0, "xattrs": ()},
    }
    fields = ("name", "kind", "mode", "uid", "gid", "mtime_s", "mtime_ns", "size", "content", "xattrs", "group")
    values = {name: getattr(one, name) for name in fields}
    new = {name: Entry(**{**values, **change}) for name, change in changes.items()}
    found = {path: differs for _, path, _, differs in two(repository, dict.fromkeys(changes, one), new)}
    assert found == {
        b"mode": ("mode",),
        b"owner": ("owner",),
        b"group": ("owner",),
        b"seconds": ("mtime",),
        b"ns": ("mtime",),
        b"xattrs": ("xattrs",),
        b"links": ("links",),
        b"content": ("content",),
        b"kind": ("kind",),
        b"all": ("content", "mode", "owner", "mtime", "xattrs"),
    }


def test_a_file_cut_otherwise_has_the_same_content() -> None:
    one = plain_entry(b"f", FILE, digest(b"text"), 4)
    assert aspects(one, plain_entry(b"f", FILE, Runs(digest(b"text"), bytes(32), 4), 4)) == ()
    assert aspects(one, plain_entry(b"f", FILE, Runs(None, bytes(32), 4), 4)) == ("content",)
    assert aspects(plain_entry(b"f", BLOCK, 5, 0), plain_entry(b"f", BLOCK, 6, 0)) == ("content",)


def test_a_directory_is_told_only_for_itself(repository: Repository) -> None:
    make_version(repository, "r", {b"d": {b"f": b"1"}})
    make_version(repository, "r", {b"d": {b"f": b"2"}}, mode=0o700)
    assert told(repository, "r@v1", "r@v2") == [
        ("changed", b"", None, ("mode",)),
        ("changed", b"d/f", None, ("content",)),
    ]


def test_kinds_that_changed_with_what_was_below(repository: Repository) -> None:
    found = two(repository, {b"a": {b"f": b"1"}, b"b": b"2"}, {b"a": b"3", b"b": {b"g": b"4"}})
    assert found == [
        ("changed", b"a", None, ("kind", "mode")),
        ("removed", b"a/f", None, ()),
        ("changed", b"b", None, ("kind", "mode")),
        ("added", b"b/g", None, ()),
    ]


def test_renamed_where_the_content_went(repository: Repository) -> None:
    moved = plain_entry(b"", FILE, digest(b"m"), 1, mode=0o600)
    found = two(
        repository,
        {
            b"old": {b"x": b"one", b"y": b"two", b"z": b"two"},
            b"m": b"m",
            b"empty": b"",
            b"kept": b"kept",
            b"t": b"three",
        },
        {
            b"new": {b"x": b"one", b"zz": b"two", b"z": b"two"},
            b"n": moved,
            b"void": b"",
            b"kept": b"kept",
            b"copy": b"kept",
        },
    )
    assert found == [
        ("added", b"copy", None, ()),  # what it is a copy of is still there
        ("removed", b"empty", None, ()),
        ("renamed", b"n", b"m", ("mode",)),
        ("added", b"new", None, ()),
        ("renamed", b"new/x", b"old/x", ()),
        ("renamed", b"new/z", b"old/z", ()),  # its name tells which of the two it was
        ("renamed", b"new/zz", b"old/y", ()),
        ("removed", b"old", None, ()),
        ("removed", b"t", None, ()),
        ("added", b"void", None, ()),
    ]


def test_renamed_in_its_folder_rather_than_from_another(repository: Repository) -> None:
    found = two(repository, {b"a": {b"1": b"x"}, b"z": {b"old": b"x"}}, {b"a": {}, b"z": {b"new": b"x"}})
    assert found == [("removed", b"a/1", None, ()), ("renamed", b"z/new", b"z/old", ())]


def test_more_copies_than_there_were_and_fewer(repository: Repository) -> None:
    found = two(repository, {b"a": b"1", b"b": b"2", b"c": b"2"}, {b"p": b"1", b"q": b"1", b"r": b"2"})
    assert found == [
        ("removed", b"c", None, ()),
        ("renamed", b"p", b"a", ()),
        ("added", b"q", None, ()),
        ("renamed", b"r", b"b", ()),
    ]


contents = st.sampled_from([b"1", b"2", b"3", b""])
names = st.sampled_from([b"a", b"b", b"c", b"d"])
trees = st.dictionaries(names, contents | st.dictionaries(names, contents, max_size=3), max_size=4)


def _files(tree: Mapping[bytes, Any], above: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    for name, value in tree.items():
        if isinstance(value, bytes):
            yield above + name, value
        else:
            yield from _files(value, above + name + b"/")


@given(trees, trees)
@settings(max_examples=40)
def test_what_is_told_makes_the_new_of_the_old(tmp_path_factory: pytest.TempPathFactory, old: Any, new: Any) -> None:
    path = tmp_path_factory.mktemp("made") / "r.sqlite"
    with Repository.open(str(path), create=True) as repository:
        make_version(repository, "r", old)
        make_version(repository, "r", new)
        changes = list(diff(repository, *sides(repository, ["r@v1", "r@v2"])))
    before, after = dict(_files(old)), dict(_files(new))
    made = dict(before)
    moved = [change for change in changes if change.what == "renamed"]
    assert len({change.was for change in moved}) == len(moved)
    for change in moved:
        assert change.was is not None and before[change.was] == after[change.path] != b""
        del made[change.was]
    for change in changes:
        if change.before is not None and change.before.kind == FILE and change.what != "renamed":
            del made[change.path]
    for change in changes:
        if change.after is not None and change.after.kind == FILE:
            assert change.path not in made
            made[change.path] = after[change.path]
    assert made == after
    went = {after[change.path] for change in changes if change.what == "added" and change.path in after} - {b""}
    assert not went & {before[change.path] for change in changes if change.what == "removed" and change.path in before}
    summary = summed(changes)
    added = [one for one in changes if one.what == "added" and one.after is not None and one.after.kind == FILE]
    assert (summary.added.files, summary.renamed.files) == (len(added), len(moved))


# -- what addresses name


def test_one_version_or_root_alone(repository: Repository) -> None:
    make_version(repository, "r", {b"f": b"1"})
    with pytest.raises(VersionNotFound, match="only version"):
        sides(repository, ["r"])
    make_version(repository, "r", {b"f": b"2", b"d": {b"g": b"1"}})
    make_version(repository, "r", {b"f": b"3", b"d": {b"g": b"1"}})
    assert [str(side) for side in sides(repository, ["r"])] == ["r@v2", "r@v3"]
    assert [str(side) for side in sides(repository, ["r@v1"])] == ["r@v1", "r@v3"]
    assert [str(side) for side in sides(repository, ["r@v1:f"])] == ["r@v1:f", "r@v3:f"]
    assert [str(side) for side in sides(repository, ["r@v1", "r@v2", ":/d/./g"])] == ["r@v1:d/g", "r@v2:d/g"]
    assert told(repository, "r@v1", "r@v2", ":d") == [("added", b"", None, ()), ("added", b"g", None, ())]
    assert told(repository, "r@v2", "r@v1", ":d/g") == [("removed", b"g", None, ())]
    assert told(repository, "r@v1:f", "r@v2:d/g") == []
    assert told(repository, "r@v2:f", "r@v3:f") == [("changed", b"f", None, ("content",))]


def test_addresses_that_name_nothing(repository: Repository) -> None:
    make_version(repository, "r", {b"f": b"1"})
    make_version(repository, "r", {b"f": b"2"})
    for addresses, error in {
        (): UsageError,
        ("r", "r", "r"): UsageError,
        ("r", "r", "r", ":f"): UsageError,
        (":f",): UsageError,
        ("r:f", "r@v1", ":f"): UsageError,
        ("r", ":.."): UsageError,
        ("nothing",): RootNotFound,
        ("r@v9", "r"): VersionNotFound,
        ("r@v1", "r@v2", ":none"): PathNotFound,
        ("r:none", "r"): PathNotFound,
        ("r@v1:none", "r@v2:f"): PathNotFound,
    }.items():
        with pytest.raises(error):
            sides(repository, addresses)


# -- lines


lines = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"d\n", b"e\n"]), max_size=30)


@given(lines, lines)
def test_blocks_are_what_is_common(old: list[bytes], new: list[bytes]) -> None:
    at = to = 0
    for block in matching(old, new):
        assert block.length > 0 and block.old >= at and block.new >= to
        assert old[block.old : block.old + block.length] == new[block.new : block.new + block.length]
        at, to = block.old + block.length, block.new + block.length
    assert matching(old, old) == ([Block(0, 0, len(old))] if old else [])


@given(lines, lines, st.integers(0, 4))
def test_hunks_make_the_new_of_the_old(old: list[bytes], new: list[bytes], context: int) -> None:
    made, at = [], 0
    for hunk in hunks(old, new, context):
        assert hunk.old >= at
        made += old[at : hunk.old]
        assert len(made) == hunk.new
        assert [line[1:] for line in hunk.lines if line[:1] != b"+"] == old[hunk.old : hunk.old + hunk.old_length]
        fresh = [line[1:] for line in hunk.lines if line[:1] != b"-"]
        assert len(fresh) == hunk.new_length
        made += fresh
        at = hunk.old + hunk.old_length
    assert made + old[at:] == new


def test_little_is_shown_of_a_little_change() -> None:
    old = [b"%d\n" % number for number in range(20_000)]
    new = [*old[:5000], b"new\n", *old[5000:9000], *old[9001:]]
    shown = list(hunks(old, new))
    assert [[line for line in hunk.lines if line[:1] != b" "] for hunk in shown] == [[b"+new\n"], [b"-9000\n"]]
    assert all(len(hunk.lines) == 7 for hunk in shown)
    turned = [b"{\n", b"x\n", b"}\n"] * 3
    assert sum(block.length for block in matching(turned, [*turned[:3], b"y\n", *turned[3:]])) == 9


def test_lines_that_are_all_alike_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in comparisons, not in seconds."""
    compared = 0

    class Line(bytes):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

        __hash__ = bytes.__hash__

    rng = random.Random(1)
    old = [Line(rng.choice([b"a", b"b", b"c"])) for _ in range(4000)]
    new = [Line(rng.choice([b"a", b"b", b"c"])) for _ in range(4000)]
    matching(old, new)
    assert compared < 200_000


# -- patches


def patch_of(repository: Repository, *addresses: str) -> bytes:
    changes = diff(repository, *sides(repository, addresses))
    return b"".join(line for change in changes for line in patch(repository, change))


@pytest.mark.skipif(shutil.which("patch") is None, reason="NO patch(1), so patches are not applied here")
def test_patch_takes_what_is_printed(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    def some(count: int, end: bytes = b"\n") -> bytes:
        return b"\n".join(b"line %d" % rng.randrange(40) for _ in range(count)) + end

    old: dict[bytes, Any] = {
        b"f%02d" % number: some(rng.randrange(1, 60), rng.choice([b"\n", b""])) for number in range(20)
    }
    old |= {b"d": {b"gone": some(5)}, b"one": b"1", b"crlf": b"a\r\nb\rc\n\x0c\n"}
    odd = [b"a b", b"tab\there", b"new\n+++ line", b'quo"te', b"back\\slash", b"\xff", b"end "]
    old |= {name: b"%d\n" % number for number, name in enumerate(odd)}
    new: dict[bytes, Any] = dict(old)
    for name in [*old][:20]:
        text = old[name].split(b"\n")
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(3)] = [b"new %d" % rng.randrange(9)] * rng.randrange(3)
        new[name] = b"\n".join(text)
    new |= {b"d": {b"come": some(3, b"")}, b"one": b"1\n", b"crlf": b"a\r\nB\rc\n\x0c\n"}
    new |= {name: b"new %d\n" % number for number, name in enumerate(odd)}
    make_version(repository, "r", old)
    make_version(repository, "r", new)
    for name, value in [*_files(old)]:
        (tmp_path / "files" / os.fsdecode(name)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / os.fsdecode(name)).write_bytes(value)
    told = patch_of(repository, "r@v1", "r@v2")
    done = subprocess.run(
        ["patch", "-p1", "--binary", "-E"], cwd=tmp_path / "files", input=told, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout
    found = {
        os.fsencode(path.relative_to(tmp_path / "files")): path
        for path in (tmp_path / "files").rglob("*")
        if path.is_file()
    }
    assert {name: path.read_bytes() for name, path in found.items()} == {
        name: value for name, value in _files(new) if value
    }


def test_what_a_patch_says_of_what_is_no_text(repository: Repository) -> None:
    make_version(repository, "r", {b"b": b"\0", b"l": "to", b"m": b"moved", b"e": b"", b"mode": b"x", b"h": b"1"})
    new = {b"b": b"\1", b"l": "from", b"n": b"moved", b"v": b"", b"big": b"x\n" * 3_000_000, b"h": bytes(70_000) + b"1"}
    make_version(repository, "r", {**new, b"mode": plain_entry(b"", FILE, digest(b"x"), 1, mode=0o700)})
    assert patch_of(repository, "r@v1", "r@v2").decode().splitlines() == [
        "Binary files a/b and b/b differ",
        "Large files /dev/null and b/big differ",
        "Empty file removed a/e",
        "Binary files a/h and b/h differ",
        "-symlink l -> to",
        "+symlink l -> from",
        "rename from m",
        "rename to n",
        "Empty file added b/v",
    ]
    assert patch_of(repository, "r@v1:h", "r@v1:m").decode().splitlines()[:2] == [
        "--- a/m",
        "+++ b/m",
    ]


# -- the command


@pytest.fixture
def spray(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, repository: Repository
) -> Callable[..., Any]:
    monkeypatch.setenv("SPRAYDRY_REPO", repository.url)
    make_version(repository, "r", {b"d": {b"f": b"1", b"\x1b[31m": b"2"}, b"x": b"text\n", b"y": b"old"})
    make_version(repository, "r", {b"d": {b"f": b"11", b"\x1b[31m": b"22"}, b"n": {b"x": b"text\n"}})

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(arguments)
        return code, *capfd.readouterr()

    return run


def test_what_is_printed(spray: Callable[..., tuple[int, str, str]]) -> None:
    assert spray("diff", "r") == (
        0,
        "changed  d/\\x1b[31m  content\nchanged  d/f  content\nadded    n/\nrenamed  x -> n/x\nremoved  y  3 B\n",
        "",
    )
    code, out, _ = spray("diff", "r@v1", "--tree")
    assert (code, out) == (
        0,
        "  d/\n  ~ \\x1b[31m  content\n  ~ f  content\n+ n/\n  > x  <- x\n- y  3 B\n",
    )
    code, out, _ = spray("diff", "--totals", "r")
    assert code == 0 and [line.split() for line in out.splitlines()][1:] == [
        ["added", "0", "1", "0", "0", "B"],
        ["removed", "1", "0", "0", "3", "B"],
        ["renamed", "1", "0", "0", "5", "B"],
        ["changed", "2", "0", "0", "4", "B", "+2", "B"],
        ["attributes", "only", "0", "0", "0", "0", "B"],
    ]
    assert json.loads(spray("diff", "--totals", "--json", "r")[1])["renamed"]["files"] == 1
    listed = json.loads(spray("diff", "--json", "r")[1])
    assert [one["what"] for one in listed] == ["changed", "changed", "added", "renamed", "removed"]
    assert listed[3]["was"] == "x" and listed[4]["after"] is None and listed[4]["before"]["size"] == 3
    assert "+11\n" in spray("diff", "--patch", "r")[1]
    code, out, err = spray("diff", "r", "r")
    assert (code, out) == (0, "") and "are the same" in err


def test_what_cannot_be_meant_is_one_line(spray: Callable[..., tuple[int, str, str]]) -> None:
    for arguments in (["diff"], ["diff", "r", "--tree", "--patch"], ["diff", "--json", "--tree", "r"]):
        code, out, err = spray(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
    assert spray("diff", "r", "nothing")[0] == 4
