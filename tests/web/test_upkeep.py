"""What servers do while nobody asks: stores that were away get what they missed, and one server of several heals."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from spraydry.actions.ingest import ingest
from spraydry.cli import run
from spraydry.format import frame as frames
from spraydry.repository.leases import heeded, hold
from spraydry.repository.repository import Repository
from spraydry.web.served import Served
from spraydry.web.upkeep import Upkeep
from tests.web.asking import ask
from tests.web.serving import serving


@pytest.fixture
def mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository on three stores, each of which has everything."""
    for name, place in (("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache"), ("XDG_DATA_HOME", "data")):
        monkeypatch.setenv(name, str(tmp_path / place))
    url = f"dir:{tmp_path}/a"
    monkeypatch.setenv("SPRAYDRY_REPO", url)
    assert run(["init", f"dir:{tmp_path}/b", f"dir:{tmp_path}/c", "--copies", "3"]) == 0
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"content")
    with Repository.open(url) as repository:
        ingest(repository, [str(tmp_path / "source")], root="files")
    return url


def _frames(store: Path) -> set[str]:
    return {path.name for path in store.glob("frames/**/*") if path.is_file()}


def _until(seen, what: str, seconds: float = 300.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_store_that_was_away_gets_what_it_missed(tmp_path: Path, mirrored: str) -> None:
    (tmp_path / "b").rename(tmp_path / "away")
    with serving(tmp_path / "run", SPRAYDRY_REPO=mirrored) as server:
        assert ask(server.port, "GET", "/files@v1/file").body == b"content", "it serves without"
        made = frames.encode([random.randbytes(3000)], "other")
        assert ask(server.port, "PUT", f"/v1/values/frames/{made.name.hex()}", made.stored).status == 201
        assert b'store="b"} 0.0' in ask(server.port, "GET", "/metrics").body
        (tmp_path / "away").rename(tmp_path / "b")
        _until(lambda: made.name.hex() in _frames(tmp_path / "b"), "it was not delivered")
        _until(lambda: b'store="b"} 1.0' in ask(server.port, "GET", "/metrics").body, "it counts as away")


def test_what_a_store_lost_is_healed(tmp_path: Path, mirrored: str) -> None:
    held = _frames(tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "frames")
    (tmp_path / "c" / "frames").mkdir()
    with serving(tmp_path / "run", "--heal-every", "0.0005", SPRAYDRY_REPO=mirrored) as server:
        _until(lambda: _frames(tmp_path / "c") == held, "it was not healed")
        assert server.end() == 0


def test_one_server_of_several_heals(tmp_path: Path, mirrored: str) -> None:
    async def main() -> None:
        with Repository.open(mirrored) as repository, Repository.open(mirrored) as other:
            upkeep = Upkeep([Served(repository)], lambda: False, 3600.0)
            with hold(other, "healing by a server elsewhere", at_once=True):
                assert not upkeep._heal(repository), "another one is at it"
                assert [held.what for held in heeded(other).values()] == ["healing by a server elsewhere"]
            shutil.rmtree(tmp_path / "c" / "frames")
            (tmp_path / "c" / "frames").mkdir()
            assert upkeep._heal(repository)
            assert _frames(tmp_path / "c") == _frames(tmp_path / "a")
            assert not heeded(other)
            assert 3000 < upkeep._rest_s(repository) <= 3600
            upkeep.stop()
            with pytest.raises(Exception, match="ends"):
                upkeep._heal(repository)

    import trio

    trio.run(main)
