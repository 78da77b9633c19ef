"""spraydry find: each content once with all its places, as a plain model has it; patterns, conditions."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spraydry import cli
from spraydry.actions.contents import scopes
from spraydry.actions.find import Query, condition, expression, find, glob
from spraydry.errors import PathNotFound, RootNotFound, UsageError, VersionNotFound
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, FILE, SYMLINK, Entry
from spraydry.repository.repository import Repository
from tests.versions import make_version, plain_entry

Found = list[tuple[bytes | None, list[str]]]


def found(repository: Repository, pattern: bytes | None, *addresses: str, **conditions: Any) -> Found:
    return [
        (match.entry.file_digest, [f"{place.where}:{place.path.decode()}" for place in match.places])
        for match in find(repository, Query(pattern, **conditions), addresses)
    ]


def test_each_content_once_with_all_its_places(repository: Repository) -> None:
    for tree in (
        {b"d": {b"a.txt": b"1", b"b.txt": b"2"}, b"n": b"n"},
        {b"d": {b"a.txt": b"1", b"b.txt": b"3"}, b"e": {b"a.txt": b"1"}, b"n": b"n"},
        {b"d": {b"a.txt": b"1", b"b.txt": b"2"}, b"n": b"n"},
        {b"d": {b"a.txt": b"1", b"b.txt": b"2"}, b"n": b"n!"},
    ):
        make_version(repository, "r", tree)
    make_version(repository, "q", {b"z.txt": b"1"})
    assert found(repository, b"*.txt") == [
        (digest(b"1"), ["q@v1:z.txt", "r@v1-v4:d/a.txt", "r@v2:e/a.txt"]),
        (digest(b"2"), ["r@v1,v3-v4:d/b.txt"]),
        (digest(b"3"), ["r@v2:d/b.txt"]),
    ]
    assert found(repository, b"*.txt", "r@v2:d", "r@v3:d") == [
        (digest(b"1"), ["r@v2-v3:d/a.txt"]),
        (digest(b"3"), ["r@v2:d/b.txt"]),
        (digest(b"2"), ["r@v3:d/b.txt"]),
    ]
    assert found(repository, b"*.txt", "r@v2:e/a.txt", "r:e") == [(digest(b"1"), ["r@v2:e/a.txt"])]
    assert found(repository, None, "r:n") == [(digest(b"n"), ["r@v1-v3:n"]), (digest(b"n!"), ["r@v4:n"])]


names = st.sampled_from([b"a", b"b", b"c"])
contents = st.sampled_from([b"1", b"2", b""])
trees = st.dictionaries(names, contents | st.dictionaries(names, contents, max_size=3), max_size=3)


def _files(tree: Mapping[bytes, Any], above: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    for name, value in tree.items():
        if isinstance(value, bytes):
            yield above + name, value
        else:
            yield from _files(value, above + name + b"/")


@given(st.lists(trees, min_size=1, max_size=5))
@settings(max_examples=30)
def test_agrees_with_a_walk_of_every_version(tmp_path_factory: pytest.TempPathFactory, versions: list[Any]) -> None:
    wanted: dict[tuple[bytes, bytes], set[int]] = {}
    with Repository.open(str(tmp_path_factory.mktemp("made") / "r.sqlite"), create=True) as repository:
        for number, tree in enumerate(versions, 1):
            make_version(repository, "r", tree)
            for path, content in _files(tree):
                if path.rpartition(b"/")[2] != b"c":
                    wanted.setdefault((digest(content), path), set()).add(number)
        told: dict[tuple[bytes, bytes], set[int]] = {}
        for match in find(repository, Query(b"[ab]")):
            assert match.entry.file_digest not in {name for name, _ in told}, "each content once"
            for place in match.places:
                numbers = [range(int(low[1:]), int(high[1:]) + 1) for low, high in place.versions]
                assert match.entry.file_digest is not None
                told[match.entry.file_digest, place.path] = {number for part in numbers for number in part}
                assert sum(map(len, numbers)) == len(told[match.entry.file_digest, place.path])
    assert told == wanted


def test_goes_through_what_differs_only(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    same = {b"%03d" % number: {b"f": b"%d" % number} for number in range(50)}
    for number in range(10):
        make_version(repository, "r", {b"same": same, b"n": b"n%d" % number})
    asked: list[bytes] = []
    page = repository.page
    monkeypatch.setattr(repository, "page", lambda name: asked.append(name) or page(name))
    assert len(found(repository, b"*")) == 60
    assert len(asked) < 51 + 10 + 10 + 5


def test_conditions() -> None:
    file = plain_entry(b"a.txt", FILE, digest(b"x"), 100, mtime_s=1000)

    def fits(entry: Entry = file, path: bytes = b"d/a.txt", **conditions: Any) -> bool:
        return condition(Query(**conditions)).fits(path, entry)

    assert (
        fits() and fits(pattern=b"*.txt") and fits(pattern=b"d/*") and fits(pattern=b"/d/*") and fits(pattern=b"**/a*")
    )
    assert not fits(pattern=b"d*") and not fits(pattern=b"*.TXT") and fits(pattern=b"*.TXT", ignore_case=True)
    assert fits(pattern=b"d.a", regex=True) and not fits(pattern=b"^a", regex=True)
    assert fits(least_bytes=100, most_bytes=100) and not fits(least_bytes=101) and not fits(most_bytes=99)
    assert fits(newer_s=1000) and not fits(newer_s=1001) and fits(older_s=1001) and not fits(older_s=1000)
    link = plain_entry(b"l", SYMLINK, b"to", 2)
    assert fits(link) and fits(link, kinds=frozenset([SYMLINK])) and not fits(link, kinds=frozenset([FILE]))
    assert not fits(plain_entry(b"d", DIRECTORY, None, 0)) and not fits(kinds=frozenset([DIRECTORY]))


def test_globs() -> None:
    for pattern, fitting, others in (
        (b"*.txt", [b".txt", b"a.txt"], [b"d/a.txt", b"atxt", b"a.txt\n"]),
        (b"a?c", [b"abc", b"a\nc"], [b"a/c", b"ac"]),
        (b"[!a-c]x", [b"dx", b"-x"], [b"bx", b"/x"]),
        (b"[]x]", [b"]", b"x"], [b"[]"]),
        (b"[^a]", [b"b", b"^"], [b"a"]),
        (b"[[&&~~||a]", [b"[", b"&", b"~", b"|", b"a"], [b"b"]),
        (b"[a", [b"[a"], [b"a"]),
        (b"\\*\\", [b"*\\"], [b"a"]),
        (b"d/**", [b"d/a", b"d/a/b"], [b"d", b"e/d/a"]),
        (b"**/a", [b"a", b"d/a", b"d/e/a"], [b"da", b"a/b"]),
        (b"d/**/a", [b"d/a", b"d/e/a", b"d/e/f/a"], [b"da", b"d/ea"]),
        (b"\xff(+", [b"\xff(+"], [b"\xff"]),
    ):
        compiled = expression(glob(pattern))
        assert all(compiled.fullmatch(text) for text in fitting), pattern
        assert not any(compiled.fullmatch(text) for text in others), pattern


@given(st.text("ab*?[]!-^x", max_size=8), st.text("ab*[]-^!x", max_size=6))
@settings(max_examples=300)
def test_globs_of_names_are_those_of_fnmatch(pattern: str, name: str) -> None:
    if "**" in pattern or "[^" in pattern:
        return  # ** is ours, and fnmatch takes ^ for itself
    try:
        wanted = fnmatch.fnmatchcase(name, pattern)
        fits = expression(glob(pattern.encode())).fullmatch(name.encode())
    except UsageError:
        return  # a range that goes down
    assert (fits is not None) == wanted


def test_what_cannot_be_looked_for(repository: Repository) -> None:
    make_version(repository, "r", {b"d": {b"f": b"1"}})
    make_version(repository, "r", {b"f": b"1"})
    assert [scope.path for scope in scopes(repository, ["r:d"])] == [b"d"]
    for address, error in {
        "none": RootNotFound,
        "r@v9": VersionNotFound,
        "r:e": PathNotFound,
        "r@v2:d": PathNotFound,
        "r:..": UsageError,
    }.items():
        with pytest.raises(error):
            found(repository, None, address)
    with pytest.raises(UsageError, match="position 1"):
        found(repository, b"a(", regex=True)


@pytest.fixture
def spray(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("SPRAYDRY_REPO", repository.url)
    monkeypatch.setenv("TZ", "UTC")
    make_version(repository, "r", {b"d": {b"f\x1b": b"1" * 2000}, b"l": "d"})
    make_version(repository, "r", {b"d": {b"f\x1b": b"1" * 2000}, b"l": "e", b"g": b"1" * 2000})
    make_version(repository, "one", plain_entry(b"", FILE, digest(b"alone"), 5))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(arguments)
        return code, *capfd.readouterr()

    return run


def test_what_is_printed(spray: Callable[..., tuple[int, str, str]]) -> None:
    ones, alone = (digest(text).hex()[:12] for text in (b"1" * 2000, b"alone"))
    assert spray("find", "*") == (
        0,
        f"{alone}         5 B  one@v1\n"
        f"{ones}     2.0 KiB  r@v1-v2:d/f\\x1b\n"
        f"                          r@v2:g\n"
        f"-                symlink  r@v1:l\n"
        f"-                symlink  r@v2:l\n",
        "",
    )
    assert spray("find", "on?")[1].split()[-1] == "one@v1"
    assert spray("find", "*", "--type", "d", "r@v1")[1].split()[1:3] == ["directory", "r@v1"]
    listed = json.loads(spray("find", "*", "r", "--json", "--type", "f")[1])
    assert [one["places"] for one in listed] == [
        [
            {"root": "r", "path": "d/f\x1b", "versions": [["v1", "v2"]]},
            {"root": "r", "path": "g", "versions": [["v2", "v2"]]},
        ]
    ]
    assert spray("find", "*", "--size", "+2K")[1] == "" and spray("find", "*", "--size", "2000")[1].count("\n") == 2
    assert spray("find", "*", "--size", "-5")[1].count("\n") == 3
    assert spray("find", "*", "--newer", "2030-01-01")[:2] == (0, "")
    assert spray("find", "*", "--older", "2030-01-01")[1].count("\n") == 5


def test_what_cannot_be_meant(spray: Callable[..., tuple[int, str, str]]) -> None:
    for more in (
        ["--size", "x"],
        ["--size", "+-1"],
        ["--size", ""],
        ["--type", "q"],
        ["--type", ""],
        ["--newer", "then"],
    ):
        code, out, err = spray("find", "*", *more)
        assert (code, out, err.count("\n")) == (2, "", 1), more
    assert spray("find", "(", "--regex")[0] == 2
    assert spray("find")[0] == 2
