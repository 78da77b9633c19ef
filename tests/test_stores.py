"""A repository on several stores, as its user has it: made, filled, one of them taken away, brought back, drained."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from spraydry.actions.verify import verify
from spraydry.cli import run
from spraydry.errors import StoreUnavailable
from spraydry.repository.repository import Repository
from tests.ingest.trees import differences, fill

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine keeps its catalogs and queues; the repository is to be `dir:a`."""
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("SPRAYDRY_REPO", f"dir:{tmp_path}/a")
    return tmp_path


@pytest.fixture
def spraydry(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str | Path, code: int = 0) -> tuple[int, str, str]:
        found = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert found == code, (arguments, out, err)
        return found, out, err

    return call


@pytest.fixture
def source(home: Path) -> Path:
    import random

    folder = home / "source"
    folder.mkdir()
    fill(folder, random.Random(4), 60)
    return folder


def opened(home: Path, url: str = "") -> Repository:
    return Repository.open(url or f"dir:{home}/a")


def stores(spraydry: Run) -> dict[str, dict[str, object]]:
    _, out, _ = spraydry("store", "list", "--json")
    return {one["name"]: one for one in json.loads(out)}


def check(home: Path, source: Path, url: str = "") -> None:
    """The newest version is what the source holds, and all that is stored is whole."""
    with opened(home, url) as repository:
        assert differences(repository, repository.log.find("source"), source) == []
        assert verify(repository).sound


def test_one_store_taken_away_and_brought_back(home: Path, spraydry: Run, source: Path) -> None:
    _, out, _ = spraydry("init", f"dir:{home}/b", f"segment:{home}/c", "--copies", "2")
    assert "main (dir:" in out and "each frame on 2 of them" in out
    spraydry("ingest", source)
    (home / "b").rename(home / "gone")
    check(home, source)
    for number in range(20):  # some of their frames would go to b
        (source / f"more-{number}.bin").write_bytes(os.urandom(50_000))
        spraydry("ingest", source)
    check(home, source)
    shown = stores(spraydry)
    assert "no repository" in str(shown["b"]["trouble"]) and shown["b"]["waiting"]
    (home / "gone").rename(home / "b")
    _, out, _ = spraydry("heal")
    assert stores(spraydry)["b"]["waiting"] == 0
    shutil.rmtree(home / "c")
    check(home, source)  # what lay on c lies on a or b
    _, _, err = spraydry("heal", code=7)
    assert "c does not answer" in err


def test_the_owner_lost_and_another_promoted(home: Path, spraydry: Run, source: Path) -> None:
    spraydry("init", f"dir:{home}/b", "--copies", "2")
    spraydry("ingest", source)
    spraydry("ingest", source, "--as", "kept")
    shutil.rmtree(home / "a")
    other = f"dir:{home}/b"
    check(home, source, other)
    _, _, err = spraydry("ingest", source, "--as", "more", "--repo", other, code=7)
    assert "main" in err
    _, _, err = spraydry("store", "promote", "b", "--repo", other, code=7)
    assert "--lost" in err
    spraydry("store", "promote", "b", "--lost", "--repo", other)
    spraydry("store", "remove", "main", "--lost", "--repo", other)
    spraydry("store", "copies", "1", "--repo", other)
    spraydry("ingest", source, "--as", "more", "--repo", other)
    check(home, source, other)
    _, out, _ = spraydry("log", "source", "--repo", other)
    assert "kept" in out and "more" in out


def test_adding_draining_and_removing(home: Path, spraydry: Run, source: Path) -> None:
    spraydry("ingest", source)
    frames = sorted(path.name for path in (home / "a" / "frames").rglob("*") if path.is_file())
    spraydry("store", "add", f"segment:{home}/new", "--weight", "3")
    assert sorted(path.name for path in (home / "a" / "frames").rglob("*") if path.is_file()) == frames
    spraydry("store", "drain", "main")
    assert not [path for path in (home / "a" / "frames").rglob("*") if path.is_file()]
    check(home, source)
    _, _, err = spraydry("store", "remove", "main", code=2)
    assert "owns the log" in err
    spraydry("store", "promote", "new")
    spraydry("store", "remove", "main")
    shutil.rmtree(home / "a")
    check(home, source, f"segment:{home}/new")


def test_a_member_with_what_it_lacks(home: Path, spraydry: Run, source: Path) -> None:
    (source / "large.bin").write_bytes(os.urandom(10 << 20))
    spraydry("init", f"dir:{home}/b")
    spraydry("ingest", source)
    with opened(home) as repository:
        lying = {path.name for path in (home / "b" / "frames").rglob("*") if path.is_file()}
        assert lying and len(lying) < repository.catalog.frames_count()
    shutil.rmtree(home / "a")
    shutil.rmtree(home / "XDG_CACHE_HOME", ignore_errors=True)
    away = "may be on main, which does not answer"
    with opened(home, f"dir:{home}/b") as repository, pytest.raises(StoreUnavailable, match=away):
        repository.open_file("source:large.bin").read()


def frames_of(store: Path) -> list[Path]:
    return sorted(path for path in (store / "frames").rglob("*") if path.is_file())


@pytest.mark.parametrize("fault", ["cut", "altered", "gone"])
def test_verify_and_heal_look_behind_a_cache(home: Path, spraydry: Run, source: Path, fault: str) -> None:
    (source / "large.bin").write_bytes(os.urandom(5 << 20))
    spraydry("ingest", source)
    spraydry("store", "add", f"dir:{home}/b", "--cache", f"dir:{home}/cache")
    spraydry("store", "set", "main", "--weight", "0")
    spraydry("ingest", source, "--root", "other", "--chunker", "fixed:size=64K")
    spraydry("restore", "other:large.bin", home / f"out-{os.urandom(4).hex()}")  # the cache has it all
    frame = max(frames_of(home / "b"), key=lambda path: path.stat().st_size)
    whole = frame.read_bytes()
    assert frame.name in {path.name for path in frames_of(home / "cache")}
    frame.unlink()
    if fault != "gone":
        frame.write_bytes(whole[:-100] if fault == "cut" else whole[:-1] + bytes([whole[-1] ^ 1]))
    spraydry("restore", "other:large.bin", home / f"out-{os.urandom(4).hex()}")
    _, out, _ = spraydry("verify", "--json", code=6)
    assert [one["frame"] for one in json.loads(out)["damaged_frames"]] == [frame.name]
    frame.write_bytes(whole)
    spraydry("verify")
    spraydry("store", "set", "main", "--weight", "1")
    spraydry("store", "copies", "2")
    spraydry("heal")
    assert (home / "a" / frame.relative_to(home / "b")).read_bytes() == whole
    if fault != "altered":  # heal reads what is of another size, or about to be the only copy
        if fault == "gone":
            frame.unlink()
        else:
            frame.write_bytes(whole[:-100])
        _, out, _ = spraydry("heal", "--json")
        done = json.loads(out)
        assert (done["replaced"], done["copied"]) == ((1, 0) if fault == "cut" else (0, 1))
    else:
        frame.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        spraydry("store", "set", "main", "--weight", "0")
        spraydry("heal")
        assert not frames_of(home / "a")
    assert frame.read_bytes() == whole
    spraydry("verify")


def test_what_cannot_be(home: Path, spraydry: Run, source: Path) -> None:
    spraydry("init", "--copies", "2", code=2)
    spraydry("ingest", source)
    _, _, err = spraydry("init", code=2)
    assert "already" in err
    _, _, err = spraydry("heal", code=2)
    assert "one store" in err
    spraydry("ingest", source, "--repo", f"dir:{home}/other")
    _, _, err = spraydry("store", "add", f"dir:{home}/other", code=2)
    assert "another repository" in err
    _, _, err = spraydry("store", "add", f"dir:{home}/a", code=2)
    assert "already" in err
    _, _, err = spraydry("store", "set", "mian", "--weight", "1", code=2)
    assert "main" in err
    spraydry("store", "add", f"dir:{home}/b")
    for wrong in (("set", "b", "--weight", "-1"), ("copies", "0"), ("copies", "--of", "tree"), ("promote", "main")):
        spraydry("store", *wrong, code=2)
    spraydry("store", "add", "gopher://x", code=2)
    check(home, source)


def test_an_unmounted_disk_is_no_new_repository(home: Path, spraydry: Run, source: Path) -> None:
    spraydry("ingest", source)
    (home / "a").rename(home / "elsewhere")
    for _ in ("gone", "empty"):
        _, _, err = spraydry("ingest", source, code=7)
        assert "is its disk mounted?" in err
        (home / "a").mkdir(exist_ok=True)
        assert not os.listdir(home / "a")
    (home / "a").rmdir()
    (home / "elsewhere").rename(home / "a")
    check(home, source)
    shutil.rmtree(home / "a")
    spraydry("init")
    spraydry("ingest", source)
    check(home, source)


def test_the_catalog_anew(home: Path, spraydry: Run, source: Path) -> None:
    spraydry("ingest", source)
    shutil.rmtree(home / "XDG_CACHE_HOME")
    check(home, source)
    for how in ((), ("--from-frames",)):
        _, out, _ = spraydry("catalog", "rebuild", *how, "--json")
        assert json.loads(out)["chunks"] > 10
        check(home, source)
    for path in (home / "a" / "index").iterdir():
        path.unlink()
    spraydry("catalog", "rebuild", "--from-frames")
    check(home, source)
    _, out, _ = spraydry("ingest", source, "--root", "again", "--json")
    assert json.loads(out)["stored_bytes"] < 2000  # deduplicated against what was verified


def test_another_machine_deduplicates_once_it_verified(
    home: Path, spraydry: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spraydry("ingest", source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "elsewhere"))
    _, out, _ = spraydry("ingest", source, "--root", "again", "--json")
    assert json.loads(out)["stored_bytes"] < 2000
    frame = next(path for path in (home / "a" / "frames").rglob("*") if path.is_file())
    damaged = bytearray(frame.read_bytes())
    damaged[-1] ^= 1
    frame.write_bytes(damaged)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "third"))
    _, out, _ = spraydry("ingest", source, "--root", "third", "--json")
    assert json.loads(out)["stored_bytes"] > 2000  # what the damaged frame holds is stored again
    with opened(home) as repository:
        assert differences(repository, repository.log.find("third"), source) == []
