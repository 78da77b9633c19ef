"""For tests of repositories on several stores, through the command line: a machine's folders, a caller, a check."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from spraydry.actions.verify import verify
from spraydry.cli import run
from spraydry.repository.repository import Repository
from tests.ingest.trees import differences, fill

Run = Callable[..., tuple[int, str, str]]


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine keeps of repositories lies in `folder` from now on."""
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(folder / name))


def caller(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line and gives its code, output and errors; fails where the code is not `code`."""

    def call(*arguments: str | Path, code: int = 0) -> tuple[int, str, str]:
        found = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert found == code, (arguments, out, err)
        return found, out, err

    return call


def filled_source(folder: Path, large_bytes: int = 0) -> Path:
    """A folder `source` with a tree to ingest, and a file of so many random bytes."""
    source = folder / "source"
    source.mkdir()
    fill(source, random.Random(4), 60)
    if large_bytes:
        (source / "large.bin").write_bytes(random.Random(5).randbytes(large_bytes))
    return source


def stores(spraydry: Run) -> dict[str, dict[str, object]]:
    """What `store list` says of each store, by name."""
    _, out, _ = spraydry("store", "list", "--json")
    return {one["name"]: one for one in json.loads(out)}


def check(url: str, source: Path) -> None:
    """The newest version is what the source holds, and all that is stored is whole."""
    with Repository.open(url) as repository:
        assert differences(repository, repository.log.find("source"), source) == []
        found = verify(repository)
        assert found.sound, found
