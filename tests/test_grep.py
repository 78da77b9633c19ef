"""spraydry grep: lines as a plain search of every line has them, each content read once, what is printed."""

from __future__ import annotations

import importlib
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spraydry import cli
from spraydry.actions.contents import Wanted
from spraydry.actions.grep import Line, Pattern, grep
from spraydry.actions.grep.literal import literal
from spraydry.errors import PathNotFound, UsageError
from spraydry.format.digest import digest
from spraydry.format.entry import FILE
from spraydry.repository.repository import Repository
from tests.versions import make_version, plain_entry

EVERYTHING = Wanted(lambda path, entry: True)
Told = list[tuple[list[str], list[tuple[int, bytes]]]]


def told(repository: Repository, pattern: bytes, *addresses: str, **options: Any) -> Told:
    found = grep(repository, Pattern(pattern), addresses, wanted=EVERYTHING, **options)
    return [
        ([f"{at.where}:{at.path.decode()}" for at in one.places], [(line.number, line.text) for line in one.lines])
        for one in found
    ]


def test_each_content_once_with_its_places(repository: Repository) -> None:
    make_version(repository, "r", {b"d": {b"a": b"x\nyes\nz\n", b"b": b"no"}, b"c": b"yes"})
    make_version(repository, "r", {b"d": {b"a": b"x\nyes\nz\n", b"b": b"yes!"}, b"c": b"yes", b"e": b""})
    make_version(repository, "q", {b"a": b"x\nyes\nz\n", b"l": "yes"})
    assert told(repository, b"y.s") == [
        (["q@v1:a", "r@v1-v2:d/a"], [(2, b"yes")]),
        (["r@v1-v2:c"], [(1, b"yes")]),
        (["r@v2:d/b"], [(1, b"yes!")]),
    ]
    assert told(repository, b"y.s", "r@v1:d") == [(["r@v1:d/a"], [(2, b"yes")])]
    assert told(repository, b"y.s", "r", only_names=True)[0] == (["r@v1-v2:c"], [])
    assert told(repository, b"nothing") == []
    assert told(repository, b"^", "r:d/b") == [(["r@v1:d/b"], [(1, b"no")]), (["r@v2:d/b"], [(1, b"yes!")])]
    with pytest.raises(PathNotFound):
        told(repository, b"x", "r:none")


def test_every_frame_is_decoded_once_and_every_content_searched_once(
    repository_path: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Repository.open(repository_path, create=True) as repository:
        state = {b"%04d" % number: b"%d yes\n" % number + rng.randbytes(3000).hex().encode() for number in range(1500)}
        for number in range(6):
            state[b"%04d" % rng.randrange(1500)] = b"%d yes\n" % (1000 + number)
            make_version(repository, "r", {b"d%d" % (number // 2): dict(state)})
    searched: list[bytes] = []
    lines = Pattern.lines
    monkeypatch.setattr(Pattern, "lines", lambda self, text, *more: searched.append(text) or lines(self, text, *more))
    with Repository.open(repository_path, cache_bytes=4 << 20) as repository:
        decoded: list[bytes] = []
        load = repository._load
        monkeypatch.setattr(repository, "_load", lambda frame, name: decoded.append(frame) or load(frame, name))
        assert len(told(repository, b"yes$")) == 1505
        assert len(searched) == len(set(searched)) == 1505
        kinds = {info.name: info.frame_class for _, info in repository.catalog.frames()}
        contents = [frame for frame in decoded if kinds[frame] == "other"]
        assert len(contents) == len(set(contents)) > 6


def test_long_files_are_searched_piece_by_piece(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("spraydry.actions.grep.grep"), "WHOLE_BYTES", 100_000)
    text = b"".join(b"line %d\n" % number for number in range(40_000))
    long_line = b"a" * 300_000 + b"needle" + b"b" * 10
    make_version(repository, "r", {b"t": text, b"l": long_line, b"b": bytes(200_000) + b"line 9"})
    found = told(repository, b"line (9|39999)$", "r:t")
    assert found == [(["r@v1:t"], [(10, b"line 9"), (40_000, b"line 39999")])]
    assert [places for places, _ in told(repository, b"needle")] == [["r@v1:l"]]
    for one in grep(repository, Pattern(b"line 9"), ["r:b"], wanted=EVERYTHING):
        assert one.binary and not list(one.lines)
    assert told(repository, b"line", "r:t", only_names=True) == [(["r@v1:t"], [])]


def test_what_cannot_be_read_is_told_beside_the_rest(repository: Repository) -> None:
    gone = plain_entry(b"", FILE, digest(b"gone"), 4)
    make_version(repository, "r", {b"a": b"yes", b"gone": gone, b"z": b"yes!"})
    found = list(grep(repository, Pattern(b"yes"), wanted=EVERYTHING))
    assert [one.problem is None for one in found] == [True, False, True]
    assert "no frame" in (found[1].problem or "")


# -- patterns


def plain(expression: bytes, text: bytes, flags: int = 0) -> list[tuple[int, bytes]]:
    """Every line, searched on its own."""
    lines = text.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [(number, line) for number, line in enumerate(lines, 1) if re.search(expression, line, flags)]


PATTERNS = [
    b"a", b"^a", b"a$", b"^$", b"", b"a.b", b"a*b", b"(a|b)c", b"a|bc", b"[^a]+", b"\\s", b"\\S+\\s*a", b"a\\nb",
    b"\\Aa", b"b\\Z", b"(?<!\\n)b", b"(?!a)b", b"a(?=b)", b"(?s)a.b", b"[^b]*+c", b"(?>a+)b", b"(a)\\1", b"\\ba\\b",
    b"a{2}", b"a{,1}b",
    b"(?P<x>a)(?P=x)", b"ab+c", b"\\.", b"[]a]b",
]  # fmt: skip


@given(st.sampled_from(PATTERNS), st.lists(st.sampled_from([b"a", b"b", b"c", b" ", b"\n", b"."]), max_size=25))
@settings(max_examples=1500)
def test_lines_are_those_that_fit_alone(pattern: bytes, parts: Sequence[bytes]) -> None:
    text = b"".join(parts)
    found = [(line.number, line.text) for line in Pattern(pattern).lines(text)]
    assert found == plain(pattern, text)
    assert Pattern(pattern).fits(text) == bool(found)


@given(st.text("abc.*+?|()[]{}\\ds ^$,1", max_size=10), st.text("abc1 .*\n", max_size=20), st.booleans())
@settings(max_examples=1500)
def test_whatever_fits_holds_the_literal(pattern: str, text: str, ignore_case: bool) -> None:
    try:
        sought = Pattern(pattern.encode(), ignore_case=ignore_case)
    except UsageError:
        return
    found = [(line.number, line.text) for line in sought.lines(text.encode())]
    assert found == plain(pattern.encode(), text.encode(), re.IGNORECASE if ignore_case else 0)


def test_literals_are_found_where_they_help() -> None:
    for pattern, wanted in {
        b"class QuerySet": b"class QuerySet",
        rb"def \w+_view\(": b"_view(",
        b"ab*cde?f": b"cd",
        b"(abc)?de": b"de",
        b"ab|cd": b"",
        b"(?i)abc": b"",
        rb"\x41bc": b"",
        b"[abc]def": b"def",
        b"ab+cd": b"ab",
    }.items():
        assert literal(pattern) == wanted


def test_options_of_patterns() -> None:
    text = b"One\ntone\none.\n.n.\n"

    def fitting(pattern: bytes, **options: bool) -> list[int]:
        return [line.number for line in Pattern(pattern, **options).lines(text)]

    assert fitting(b"one") == [2, 3]
    assert fitting(b"one", ignore_case=True) == [1, 2, 3]
    assert fitting(b"one", words=True) == [3]
    assert fitting(b".n.", fixed=True) == [4]
    assert fitting(b"ONE", ignore_case=True, words=True, fixed=True) == [1, 3]
    assert fitting(b"one\none", fixed=True) == []
    for pattern in (b"(", b"[", b"*", b"a{2,1}", b"(?P<a", b"\\"):
        with pytest.raises(UsageError):
            Pattern(pattern)


@given(st.lists(st.sampled_from([b"x", b"-", b"--"]), max_size=20), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_lines_around(texts: list[bytes], before: int, after: int, ends: bool) -> None:
    text = b"\n".join(texts) + b"\n" * (ends and bool(texts))
    texts = texts if ends or not texts or texts[-1] else texts[:-1]
    fits = [number for number, line in enumerate(texts) if line == b"x"]
    near = {at for number in fits for at in range(number - before, number + after + 1) if 0 <= at < len(texts)}
    wanted = [Line(at + 1, texts[at], at in fits) for at in sorted(near)]
    assert list(Pattern(b"^x$").lines(text, before, after)) == wanted


# -- the command


@pytest.fixture
def spray(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("SPRAYDRY_REPO", repository.url)
    text = b"1\n2\n3 .\n4\n5\n6\n7\n8\n"
    make_version(repository, "r", {b"d": {b"\x1b.py": text}, b"b": b"\0 5"})
    make_version(repository, "r", {b"d": {b"\x1b.py": text}, b"b": b"\0 5", b"copy": text})

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(arguments)
        out = capfd.readouterr()
        return code, out.out, out.err

    return run


def test_what_is_printed(spray: Callable[..., tuple[int, str, str]]) -> None:
    assert spray("grep", "5") == (
        0,
        "Binary file r@v1-v2:b fits\nr@v2:copy:5:5\nr@v1-v2:d/\\x1b.py: the same as r@v2:copy\n",
        "",
    )
    assert spray("grep", "-l", "5", "--include", "*.py")[1] == "r@v1-v2:d/\\x1b.py\n"
    assert spray("grep", "-C", "1", "[27]", "r@v1")[1].splitlines() == [
        "r@v1:d/\\x1b.py-1-1",
        "r@v1:d/\\x1b.py:2:2",
        "r@v1:d/\\x1b.py-3-3 \\udcff\x1b"
        if False
        else spray("grep", "3", "r@v1")[1].rstrip("\n").replace(":3:", "-3-"),
        "--",
        "r@v1:d/\\x1b.py-6-6",
        "r@v1:d/\\x1b.py:7:7",
        "r@v1:d/\\x1b.py-8-8",
    ]
    assert spray("grep", "nothing") == (1, "", "")
    listed = json.loads(spray("grep", "--json", "-A1", "8|7", "r@v2")[1])
    assert [(one["binary"], [line["number"] for line in one["lines"]]) for one in listed] == [(False, [7, 8])]
    assert [place["path"] for place in listed[0]["places"]] == ["copy", "d/\x1b.py"]


def test_what_cannot_be_meant(spray: Callable[..., tuple[int, str, str]]) -> None:
    for arguments in (["("], ["x", "-C", "-1"], [], ["x", "r:.."], ["x", "--include", "[b-a]"]):
        code, out, err = spray("grep", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), arguments


def test_the_code_tells_of_what_could_not_be_read(
    repository: Repository, spray: Callable[..., tuple[int, str, str]]
) -> None:
    make_version(repository, "r", {b"gone": plain_entry(b"", FILE, digest(b"gone"), 4), b"a": b"5"})
    code, out, err = spray("grep", "5", "r@v3")
    assert (code, out) == (6, "r@v3:a:1:5\n") and "r@v3:gone" in err
