"""push, pull, clone and bundle from the command line: what they say, their exit codes, and what they leave."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from spraydry.actions.transfer import transfer
from spraydry.actions.transfer.send import Sender
from spraydry.errors import NotARepository, StoreUnavailable
from spraydry.repository.leases import heeded
from spraydry.repository.repository import Repository
from spraydry.stores.base import open_store
from tests.repositories import Run, caller, check, filled_source
from tests.transfer.reading import check_same, place
from tests.versions import make_version


@pytest.fixture
def spray(capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


@pytest.fixture
def tree(tmp_path: Path, spray: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source that was ingested, twice; its repository is the usual one."""
    monkeypatch.setenv("SPRAYDRY_REPO", str(tmp_path / "here.sqlite"))
    monkeypatch.chdir(tmp_path)
    made = filled_source(tmp_path, 200_000)
    spray("ingest", made)
    (made / "more").write_text("more")
    spray("ingest", made)
    return made


def told(spray: Run, *words: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(spray(*words, "--json")[1])
    return found


@pytest.mark.parametrize("scheme", ["", "sqlite:", "dir:", "segment:"])
def test_a_push_to_where_there_is_no_folder(spray: Run, tree: Path, scheme: str) -> None:
    for more in ((), ("--dry-run",)):
        err = spray("push", f"{scheme}usbb/there", *more, code=2)[2]
        assert f"there is no folder {tree.parent}/usbb for {scheme}usbb/there" in err and "mkdir -p" in err
    assert not os.path.exists("usbb")
    os.mkdir("usbb")
    foretold, done = (spray("push", f"{scheme}usbb/there", *more)[2] for more in (("--dry-run",), ()))
    assert f"there was no repository at {scheme}usbb/there: a new one would be made" in foretold
    assert f"there was no repository at {scheme}usbb/there: a new one is made" in done
    assert "no repository" not in spray("push", f"{scheme}usbb/there")[2]


def test_a_push_to_what_was_only_begun(spray: Run, tree: Path) -> None:
    open_store("dir:begun", create=True).close()
    spray("push", "dir:begun", "--dry-run", code=NotARepository.exit_code)
    assert spray("push", "dir:begun")[1].startswith("sent: source@v1\n")


def test_a_bundle_for_a_folder_that_is_not_there(spray: Run, tree: Path) -> None:
    assert "there is no folder" in spray("bundle", "usbb/b", "source", code=2)[2]
    assert not os.path.exists("usbb")


def test_push(spray: Run, tree: Path) -> None:
    assert spray("push", "there.sqlite", "--dry-run")[1].startswith("would be sent: source@v1\n")
    assert not os.path.exists("there.sqlite")
    spray("push", "there.sqlite", "nothing", code=4)
    assert not os.path.exists("there.sqlite")
    assert spray("push", "there.sqlite", "source@v1")[1].startswith("sent: source@v1\n1 version, ")
    assert told(spray, "push", "there.sqlite")["versions"] == ["source@v2"]
    assert spray("push", "there.sqlite")[1] == "nothing is missing\n2 versions there already\n"
    check("there.sqlite", tree)
    spray("rm", "source@v1", "--repo", "there.sqlite")
    assert "1 version removed there, and not sent again" in spray("push", "there.sqlite")[1]


def test_pull(spray: Run, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRAYDRY_REPO", "dir:there")
    assert spray("pull", "here.sqlite", "--dry-run")[1].startswith("would be fetched: source@v1\n")
    assert not os.path.exists("there")
    assert spray("pull", "here.sqlite", "source", "--root", "mine")[1].startswith("fetched: mine@v1\n")
    assert told(spray, "pull", "here.sqlite")["sent_bytes"] == 0
    assert "no lazy clone" in spray("pull", code=2)[2]
    assert "--lazy is for" in spray("pull", "here.sqlite", "--lazy", code=2)[2]
    assert "not a size" in spray("pull", "here.sqlite", "--limit", "fast", code=2)[2]
    assert "nothing through" in spray("pull", "here.sqlite", "--limit", "0", code=2)[2]
    check("dir:there", tree)


def test_what_is_there_with_other_content(spray: Run, tree: Path) -> None:
    (tree / "more").write_text("other")
    spray("ingest", tree, "--repo", "third.sqlite")
    for words in ([], ["--dry-run"]):
        _, _, err = spray("push", "third.sqlite", *words, code=5)
        assert err.startswith("spraydry: source@v1 is there with other content") and "--root NEW" in err
    assert spray("push", "third.sqlite", "source", "--root", "other")[1].startswith("sent: other@v1\n")


def test_clone(spray: Run, tree: Path) -> None:
    for words in ([], ["--lazy"]):
        dry = told(spray, "clone", "here.sqlite", "dir:copy", "--dry-run", *words)
        assert dry["dry_run"] and not os.path.exists("copy")
        assert "would be fetched: source@v1\n" in spray("clone", "here.sqlite", "dir:copy", "--dry-run", *words)[1]
        done = told(spray, "clone", "here.sqlite", f"tried{len(words)}.sqlite", *words)
        assert done["sent_bytes"] == dry["sent_bytes"] > 0
    assert "2 versions" in spray("clone", "here.sqlite", "dir:copy")[1]
    check("dir:copy", tree)
    assert "there is a repository at dir:copy already" in spray("clone", "here.sqlite", "dir:copy", code=2)[2]
    assert "when it is read" in spray("clone", "--lazy", "here.sqlite", "lazy.sqlite", "source@v2")[1]
    assert "lazy clone of:" in spray("info", "--repo", "lazy.sqlite")[1]
    assert told(spray, "info", "--repo", "lazy.sqlite")["frames_here"] < 5
    assert "are only at the origin" in spray("verify", "--repo", "lazy.sqlite")[1]
    assert spray("cat", "source:more", "--repo", "lazy.sqlite")[1] == "more"
    assert "that versions lacked" in spray("pull", "origin", "source@v2", "--repo", "lazy.sqlite", "--dry-run")[1]
    out, err = spray("pull", "--repo", "lazy.sqlite")[1:]
    assert out.startswith("fetched: source@v1\n") and "though source@v2 is newer" in err
    assert told(spray, "info", "--repo", "lazy.sqlite")["origin"] is None
    with Repository.open("here.sqlite") as here, Repository.open("lazy.sqlite") as clone:
        check_same(here, clone)
    assert spray("clone", "nowhere.sqlite", "new.sqlite", code=4)
    assert not os.path.exists("new.sqlite")
    os.rename("copy", "unplugged")
    spray("clone", "here.sqlite", "dir:copy", "--dry-run")
    err = spray("ingest", tree, "--repo", "dir:copy", code=StoreUnavailable.exit_code)[2]
    assert "is its disk mounted?" in err and not os.path.exists("copy"), "what was known of the place still is"


def test_bundle(spray: Run, tree: Path) -> None:
    assert "would hold 2 versions" in spray("bundle", "all.bundle", "source", "--dry-run")[1]
    assert not os.path.exists("all.bundle")
    assert "all.bundle holds 2 versions" in spray("bundle", "all.bundle", "source")[1]
    assert "there already" in spray("bundle", "all.bundle", "source", code=2)[2]
    assert "it builds on source@v1" in spray("bundle", "news.bundle", "source@v2", "--since", "source@v1")[1]
    assert "has all of that" in spray("bundle", "for.bundle", "source", "--for", "all.bundle", code=2)[2]
    assert spray("ls", "source", "--repo", "all.bundle")[1]
    assert "builds on source@v1" in spray("ls", "source", "--repo", "news.bundle")[2]
    assert told(spray, "info", "--repo", "news.bundle")["builds_on"] == ["source@v1"]
    assert "is a bundle" in spray("ingest", tree, "--repo", "all.bundle", code=7)[2]
    assert "builds on source@v1, which is not in" in spray("pull", "news.bundle", "--repo", "there.sqlite", code=4)[2]
    spray("pull", "all.bundle", "--repo", "there.sqlite")
    check("there.sqlite", tree)


@pytest.mark.parametrize("kind", ["sqlite", "dir"])
def test_leases_are_held_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    held: list[str] = []
    send = Sender.send

    def look(sender: Sender, item: int) -> None:
        for url in (here, there):
            with Repository.open(url) as looking:
                held.extend(f"{lease.what} {lease.pins}" for lease in heeded(looking).values())
        send(sender, item)

    here, there = place(tmp_path, kind, "here"), place(tmp_path, kind, "there")
    with Repository.open(here, create=True) as source, Repository.open(there, create=True) as target:
        make_version(source, "a", {b"x": b"x" * 100})
        make_version(source, "b", {b"x": b"y" * 100})
        monkeypatch.setattr(Sender, "send", look)
        transfer(source, target, ["b"])
        assert held == ["a transfer (2,)"]
        assert not heeded(source) and not heeded(target)
