"""spraydry history: what happened to a path, and how little is read for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spraydry import cli
from spraydry.actions.history import history
from spraydry.actions.remove import remove
from spraydry.errors import PathNotFound, RootNotFound, UsageError
from spraydry.format.digest import digest
from spraydry.format.entry import FILE
from spraydry.format.version import TagRecord
from spraydry.repository.repository import Repository
from tests.versions import make_version, plain_entry

TREES: list[dict[bytes, Any]] = [
    {},
    {b"d": {b"f": b"one"}},
    {b"d": {b"f": b"one", b"other": b"1"}},
    {b"d": {b"f": b"two"}},
    {b"d": {b"f": plain_entry(b"", FILE, digest(b"two"), 3, mode=0o600)}},
    {b"d": b"a file"},
    {b"d": {b"f": b"one"}},
    {b"e": {b"f": b"one"}},
]


@pytest.fixture
def filled(repository: Repository) -> Repository:
    for tree in TREES:
        make_version(repository, "r", tree)
    return repository


def told(repository: Repository, address: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(event.version.name, event.what, event.aspects) for event in history(repository, address)]


def test_a_file(filled: Repository) -> None:
    assert told(filled, "r:d/f") == [
        ("v2", "appeared", ()),
        ("v4", "changed", ("content",)),
        ("v5", "changed", ("mode",)),
        ("v6", "vanished", ()),
        ("v7", "appeared", ()),
        ("v8", "vanished", ()),
    ]
    entries = [event.entry for event in history(filled, "r:d/f")]
    digests = [None if entry is None else entry.file_digest for entry in entries]
    assert digests == [digest(b"one"), digest(b"two"), digest(b"two"), None, digest(b"one"), None]


def test_a_folder_and_the_root(filled: Repository) -> None:
    assert told(filled, "r:d") == [
        ("v2", "appeared", ()),
        ("v3", "changed", ("content",)),
        ("v4", "changed", ("content",)),
        ("v5", "changed", ("content",)),
        ("v6", "changed", ("kind", "mode")),
        ("v7", "changed", ("kind", "mode")),
        ("v8", "vanished", ()),
    ]
    assert [name for name, _, _ in told(filled, "r")] == [f"v{number}" for number in range(1, 9)]


def test_names_and_removed_versions(filled: Repository) -> None:
    filled.log.append(
        lambda previous, now: TagRecord(
            format=1, previous=previous, made_ns=now, made_by="test", root="r", name="good", slot=4
        )
    )
    remove(filled, ["r@v2", "r@v4"])
    assert told(filled, "r:d/f")[:2] == [("v3", "appeared", ()), ("good", "changed", ("content",))]


def test_what_is_not_there(filled: Repository) -> None:
    for address, error in {
        "r:nothing": PathNotFound,
        "none:d": RootNotFound,
        "r@v3:d": UsageError,
        "r:../d": UsageError,
    }.items():
        with pytest.raises(error):
            list(history(filled, address))
    with pytest.raises(PathNotFound, match=r"^no version of 'r' holds 'nothing'$"):
        list(history(filled, "r:nothing"))


def test_reads_nothing_that_is_as_it_was(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    same = {b"x": {b"y": {b"f": b"1"}}}
    for number in range(20):
        make_version(repository, "r", {b"d": same, b"n": b"%d" % number})
    asked: list[bytes] = []
    page = repository.page
    monkeypatch.setattr(repository, "page", lambda name: asked.append(name) or page(name))
    assert told(repository, "r:d/x/y/f") == [("v1", "appeared", ())]
    assert len(asked) == 20 + 3 and len(set(asked)) == len(asked)


def test_what_is_printed(
    filled: Repository, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPRAYDRY_REPO", filled.url)
    monkeypatch.setenv("TZ", "UTC")
    assert cli.run(["history", "r:d/f"]) == 0
    rows = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert [(row[0], *row[3:]) for row in rows[1:3]] == [
        ("r@v2", "appeared", "3", "B", digest(b"one").hex()[:12]),
        ("r@v4", "changed", "3", "B", digest(b"two").hex()[:12], "content"),
    ]
    assert rows[4][3:] == ["vanished", "-", "-"]
    assert cli.run(["history", "--json", "r:d"]) == 0
    events = json.loads(capfd.readouterr().out)
    assert [event["what"] for event in events] == ["appeared", *["changed"] * 5, "vanished"]
    assert events[-1].keys() == events[0].keys() and events[-1]["size"] is None
    assert len(events[0]["digest"]) == 64 and events[6]["digest"] is None
    assert cli.run(["history", "r:none"]) == 4
    assert cli.run(["history", "r@v1:d"]) == 2
