"""A repository on several stores, as its user has it: made, filled, one of them taken away, brought back, drained."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from spraydry.actions.verify import verify
from spraydry.errors import NotARepository, StoreUnavailable
from spraydry.repository.repository import Repository
from spraydry.stores.base import open_store
from tests.ingest.trees import differences
from tests.repositories import Run, caller, filled_source, machine, stores
from tests.repositories import check as check_at


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine keeps its catalogs and queues; the repository is to be `dir:a`."""
    machine(tmp_path, monkeypatch)
    monkeypatch.setenv("SPRAYDRY_REPO", f"dir:{tmp_path}/a")
    return tmp_path


@pytest.fixture
def spraydry(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


@pytest.fixture
def source(home: Path) -> Path:
    return filled_source(home)


def opened(home: Path, url: str = "") -> Repository:
    return Repository.open(url or f"dir:{home}/a")


def check(home: Path, source: Path, url: str = "") -> None:
    check_at(url or f"dir:{home}/a", source)


def test_one_store_taken_away_and_brought_back(home: Path, spraydry: Run, source: Path) -> None:
    _, out, _ = spraydry("init", f"dir:{home}/b", f"segment:{home}/c", "--copies", "2")
    assert "main (dir:" in out and "each frame on 2 of them" in out
    spraydry("ingest", source)
    (home / "b").rename(home / "gone")
    check(home, source)
    for number in range(20):  # some of their frames would go to b
        (source / f"more-{number}.bin").write_bytes(random.randbytes(50_000))
        _, _, err = spraydry("ingest", source)
    check(home, source)
    shown = stores(spraydry)
    assert "no repository" in str(shown["b"]["trouble"]) and shown["b"]["waiting"]
    waiting = f"b does not answer, and missed {shown['b']['waiting']} values, which it gets from the first command"
    assert waiting in err and "no repository" in err
    (home / "gone").rename(home / "b")
    _, out, _ = spraydry("heal")
    assert stores(spraydry)["b"]["waiting"] == 0
    assert "answer" not in spraydry("ingest", source)[2]
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


def test_the_owner_lost_with_what_only_it_had(
    home: Path, spraydry: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its newest records and half of the frames: each machine that knew of them goes on with what is left."""
    (source / "large.bin").write_bytes(random.randbytes(16 << 20))
    spraydry("init", f"dir:{home}/b", f"dir:{home}/c")
    spraydry("ingest", source)
    (home / "b").rename(home / "away")
    spraydry("ingest", source, "--as", "not-on-b")
    (home / "c").rename(home / "elsewhere")
    spraydry("ingest", source, "--as", "only-on-main")
    (home / "away").rename(home / "b")
    shutil.copytree(home / "XDG_CACHE_HOME", home / "other-machine")
    lost_bytes = sum(path.stat().st_size for path in frames_of(home / "a"))
    shutil.rmtree(home / "a")
    monkeypatch.setenv("SPRAYDRY_REPO", f"dir:{home}/b")
    _, out, err = spraydry("log", "source")  # what is there can be read, and it is said that it may not be all
    assert "source@v1" in out and "not-on-b" not in out and "main, which owns the log, does not answer" in err
    _, _, err = spraydry("store", "promote", "b", "--lost", code=7)
    assert "c does not answer" in err and "may have versions that b lacks" in err
    (home / "elsewhere").rename(home / "c")
    spraydry("store", "promote", "b", "--lost")
    _, out, _ = spraydry("log", "source")
    assert "not-on-b" in out and "only-on-main" not in out  # c had it
    spraydry("store", "remove", "main", "--lost")
    for folder in ("XDG_CACHE_HOME", "other-machine"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / folder))
        (source / folder).write_text("so that it is another version")
        _, out, err = spraydry("ingest", source, "--json")
        stored_bytes = json.loads(out)["stored_bytes"]
        assert not err and (stored_bytes > lost_bytes * 0.9) == (folder == "XDG_CACHE_HOME"), (stored_bytes, lost_bytes)
        with opened(home, f"dir:{home}/b") as repository:  # what lay on main only was stored anew
            assert differences(repository, repository.log.find("source"), source) == []
            found = verify(repository)
            assert not found.damaged_frames and {one.version for one in found.damage} <= {"source@v1"}


@pytest.mark.parametrize("removed", [True, False])
def test_a_lost_owner_that_is_found_again(home: Path, spraydry: Run, source: Path, removed: bool) -> None:
    """What was committed since counts, and its own newest record is no part of the log; its frames are there again."""
    (source / "large.bin").write_bytes(random.randbytes(5 << 20))
    spraydry("init", f"dir:{home}/b", f"dir:{home}/c")
    spraydry("ingest", source)
    (home / "b").rename(home / "away")
    (home / "c").rename(home / "away-too")
    spraydry("ingest", source, "--as", "only-on-a")  # slot 2
    spraydry("ingest", source, "--as", "this-too")  # slot 3
    spraydry("ingest", source, "--as", "and-this")  # slot 4
    (home / "away").rename(home / "b")
    (home / "away-too").rename(home / "c")
    (home / "a").rename(home / "lost")
    url = ("--repo", f"dir:{home}/b")
    spraydry("store", "promote", "b", "--lost", *url)
    if removed:
        spraydry("store", "remove", "main", "--lost", *url)
    (source / "new").write_text("new")
    spraydry("ingest", source, *url)  # slot 2, again
    (home / "lost").rename(home / "a")
    if removed:
        spraydry("store", "add", f"dir:{home}/a", "--name", "main", *url)
    names = {record.name: record.read_bytes() for record in (home / "b" / "log").iterdir()}
    spraydry("ingest", source, "--root", "other", *url)
    for one in "abc":
        held = {record.name: record.read_bytes() for record in (home / one / "log").iterdir()}
        assert names.items() <= held.items() and len(held) == len(names) + 1 == 3
    check(home, source, *url[1:])
    spraydry("store", "promote", "main", *url)
    check(home, source)
    spraydry("restore", "source@v1", home / "first")
    assert not (home / "first" / "new").exists() and (home / "first" / "large.bin").exists()


def test_the_owner_and_another_lost(home: Path, spraydry: Run, source: Path) -> None:
    spraydry("init", f"dir:{home}/b", f"dir:{home}/c", "--copies", "3")
    spraydry("ingest", source)
    shutil.rmtree(home / "a")
    shutil.rmtree(home / "c")
    url = ("--repo", f"dir:{home}/b")
    spraydry("store", "promote", "b", "--lost", *url, code=7)
    spraydry("store", "remove", "c", *url, code=7)
    spraydry("store", "remove", "c", "--lost", *url)
    spraydry("store", "promote", "b", "--lost", *url)
    spraydry("store", "remove", "main", "--lost", *url)
    spraydry("ingest", source, "--as", "more", *url)
    check(home, source, f"dir:{home}/b")


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
    (source / "large.bin").write_bytes(random.randbytes(25 << 20))  # so many frames that some come to either store
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
    (source / "large.bin").write_bytes(random.randbytes(5 << 20))
    spraydry("ingest", source)
    spraydry("store", "add", f"dir:{home}/b", "--cache", f"dir:{home}/cache")
    spraydry("store", "set", "main", "--weight", "0")
    spraydry("ingest", source, "--root", "other", "--chunker", "fixed:size=64K")
    spraydry("restore", "other:large.bin", home / f"out-{random.randbytes(4).hex()}")  # the cache has it all
    frame = max(frames_of(home / "b"), key=lambda path: path.stat().st_size)
    whole = frame.read_bytes()
    assert frame.name in {path.name for path in frames_of(home / "cache")}
    frame.unlink()
    if fault != "gone":
        frame.write_bytes(whole[:-100] if fault == "cut" else whole[:-1] + bytes([whole[-1] ^ 1]))
    spraydry("restore", "other:large.bin", home / f"out-{random.randbytes(4).hex()}")
    _, out, _ = spraydry("verify", "--json", code=6)
    assert [one["frame"] for one in json.loads(out)["damaged_frames"]] == [frame.name]
    frame.write_bytes(whole)
    spraydry("verify")
    spraydry("store", "weight", "main", "1")
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


def test_a_cache_inside_what_is_ingested(home: Path, spraydry: Run, source: Path) -> None:
    spraydry("ingest", source)
    spraydry("store", "add", f"dir:{home}/b", "--cache", f"dir:{source}/sub/cache")
    spraydry("store", "set", "main", "--cache", f"{source}/cache.sqlite")
    spraydry("ingest", source, "--root", "other")
    spraydry("ingest", source, "--root", "other")
    _, out, _ = spraydry("ls", "-R", "other")
    assert "sub" in out and "cache" not in out


def test_options_of_a_store(home: Path, spraydry: Run, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spraydry("ingest", source)
    spraydry("store", "add", f"dir:{home}/b", "--up", "5M")
    _, out, _ = spraydry("store", "set", "b", "--weight", "3", "--up", "none", "--cache", f"dir:{home}/k", "--dry-run")
    assert "weight 3 (before: 1)" in out and "dry run" in out and not (home / "k").exists()
    assert stores(spraydry)["b"]["weight"] == 1
    monkeypatch.chdir(home)  # a cache's folder is meant from here, wherever the next command runs
    _, out, _ = spraydry(
        "store", "set", "b", "--weight", "3", "--up", "none", "--cache", "dir:k", "--cache-size", "90M"
    )
    assert out.count("\n") == 1 and f"cache dir:{home}/k, up to 90M (before: none)" in out
    shown = stores(spraydry)["b"]
    assert (shown["weight"], shown["up"], shown["cache"]) == (3.0, None, f"dir:{home}/k (90M)")
    (source / "large.bin").write_bytes(random.randbytes(9 << 20))
    spraydry("ingest", source)
    assert frames_of(home / "k")
    _, out, _ = spraydry("store", "set", "b", "--cache", "none", "--name", "bb", "--latency-ms", "1", "--json")
    entry = json.loads(out)["store"][1]
    assert (entry["name"], entry["cache"], entry["latency_ms"], entry["weight"]) == ("bb", "", 1.0, 3.0)
    (home / "b").rename(home / "moved")
    spraydry("store", "set", "bb", "--url", f"dir:{home}/a", code=2)
    spraydry("store", "set", "bb", "--url", f"dir:{home}/nowhere", code=2)
    spraydry("store", "set", "bb", "--url", f"dir:{home}/moved")
    spraydry("store", "set", "main", "--name", "first")
    assert stores(spraydry)["first"]["owner"]
    _, out, _ = spraydry("store", "set", "first", "--name", "first")
    assert "nothing was to be changed" in out
    check(home, source)


def test_a_cache_that_cannot_be_had_is_done_without(home: Path, spraydry: Run, source: Path) -> None:
    spraydry("ingest", source)
    spraydry("store", "set", "main", "--cache", f"dir:{home}/cache")
    shutil.rmtree(home / "cache")
    (home / "cache").write_text("no folder")
    check(home, source)
    _, _, err = spraydry("store", "list")
    assert "the cache of main is not used" in err
    spraydry("store", "set", "main", "--cache", "none")
    _, _, err = spraydry("store", "list")
    assert not err


def test_dry_runs_say_what_the_runs_do(home: Path, spraydry: Run, source: Path) -> None:
    (source / "large.bin").write_bytes(random.randbytes(5 << 20))
    spraydry("init", f"dir:{home}/b", f"dir:{home}/c")
    spraydry("ingest", source)
    for change in (("copies", "2"), ("set", "b", "--weight", "4"), ("copies", "1")):
        spraydry("store", *change)
        for verb in (("heal",), ("store", "rebalance")):
            before = [frames_of(home / name) for name in "abc"]
            planned = json.loads(spraydry(*verb, "--dry-run", "--json")[1])
            assert [frames_of(home / name) for name in "abc"] == before
            done = json.loads(spraydry(*verb, "--json")[1])
            numbers = ("checked", "copied", "copied_bytes", "removed", "removed_bytes", "replaced")
            assert [planned[key] for key in numbers] == [done[key] for key in numbers], (change, verb)
    planned = json.loads(spraydry("store", "drain", "b", "--dry-run", "--json")[1])
    assert frames_of(home / "b") and stores(spraydry)["b"]["weight"] == 4
    done = json.loads(spraydry("store", "drain", "b", "--json")[1])
    assert (planned["copied"], planned["removed"]) == (done["copied"], done["removed"]) and done["removed"]
    spraydry("store", "remove", "b", "--dry-run")
    spraydry("store", "promote", "c", "--dry-run")
    assert stores(spraydry)["main"]["owner"] and "b" in stores(spraydry)
    check(home, source)


def test_copies_that_rot(home: Path, spraydry: Run, source: Path) -> None:
    """One of two copies has another bit, in the same size: it is found, told, and replaced."""
    spraydry("init", f"dir:{home}/b", f"dir:{home}/c", "--copies", "2")
    spraydry("ingest", source)
    while not all(frames_of(home / store) for store in "abc"):  # where frames go hangs on their salts
        (source / f"{random.random()}").write_bytes(random.randbytes(3000))
        spraydry("ingest", source)
    whole: dict[Path, bytes] = {}
    for store in "abc":
        path = frames_of(home / store)[0]
        if path.name not in {known.name for known in whole}:
            whole[path] = path.read_bytes()

    def rot() -> None:
        for path, value in whole.items():
            path.write_bytes(value[:-1] + bytes([value[-1] ^ 1]))

    assert len(whole) >= 2
    rot()
    _, out, err = spraydry("verify", code=6)
    assert "there is damage" in out and err.count("is damaged, others are sound: `spraydry heal --read`") == len(whole)
    rot()  # again: verify walks trees, and whoever reads a damaged copy writes it back
    found = json.loads(spraydry("verify", "--json", code=6)[1])
    assert found["bad_copies"] and not found["damaged_frames"] and not found["damage"]
    rot()
    assert json.loads(spraydry("heal", "--read", "--json")[1])["replaced"] == len(whole)
    assert all(path.read_bytes() == value for path, value in whole.items())
    spraydry("verify")
    (home / "c").rename(home / "away")
    _, out, err = spraydry("verify")
    assert "all is whole" in out and "c does not answer, what lies there was not looked at" in err


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
    for words, why in (
        (("add", f"dir:{home}/b/in", "--name", "x"), "lies inside the store b"),
        (("add", f"dir:{home}"), "not empty"),
        (("add", f"dir:{home}/d", "--weight", "-1"), "a weight is a number from 0"),
        (("add", f"dir:{home}/d", "--name", "b"), "there is a store b already"),
        (("add", f"dir:{home}/d", "--cache", f"dir:{home}/a"), "is the place of the store main"),
        (("add", f"dir:{home}/d", "--cache", f"dir:{home}/d/k"), "lies inside the store"),
        (("add", f"dir:{home}/d", "--cache", "s3://x"), "on this machine"),
        (("set", "b"), "say what to change"),
        (("set", "b", "--down", "0"), "must be above 0"),
        (("set", "b", "--cache-size", "1G"), "no cache"),
        (("set", "b", "--name", "main"), "already"),
        (("copies",), "say how many"),
        (("copies", "3"), "need as many stores"),
        (("copies", "--of", "Tree=1"), "not a class"),
        (("remove", "main"), "promote"),
        (("remove", "zz"), "there are: main, b"),
        (("promote", "b", "--lost"), "leave --lost away"),
    ):
        _, _, err = spraydry("store", *words, code=2)
        assert why in err and err.count("\n") == 1, (words, err)
    assert not (home / "d").exists()
    spraydry("store", "set", "b", "--weight", "0")
    for last in (("set", "main", "--weight", "0"), ("drain", "main")):
        assert "no other store takes frames" in spraydry("store", *last, code=2)[2]
    spraydry("store", "remove", "b")
    assert "only store" in spraydry("store", "remove", "main", code=2)[2]
    check(home, source)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('owner = "main"', "owner =", "line 3"),
        ('owner = "main"', 'owner = "zz"', "no store 'zz'"),
        ("copies = 1", "copies = 0", "1 to 100"),
        ("copies = 1", "cpoies = 1", "unknown field `cpoies`"),
        ('name = "b"', 'name = "main"', "two stores have the name"),
    ],
)
def test_a_list_of_stores_edited_wrongly(home: Path, spraydry: Run, source: Path, old: str, new: str, why: str) -> None:
    spraydry("init", f"dir:{home}/b")
    spraydry("ingest", source)
    text = home / "a" / "config" / "stores"
    assert old in text.read_text()
    text.write_text(text.read_text().replace(old, new))
    _, _, err = spraydry("store", "list", code=6)
    assert why in err and "mend it by hand" in err and err.count("\n") == 1
    check(home, source, f"dir:{home}/b")
    spraydry("store", "set", "b", "--weight", "2", "--repo", f"dir:{home}/b")  # writes it anew everywhere
    assert stores(spraydry)["b"]["weight"] == 2


def test_init_names_what_is_wrong(home: Path, spraydry: Run) -> None:
    wrong: tuple[str, ...]
    for wrong, why in (
        (("--copies", "2"), "name more of them"),
        (("--copies", "0"), "at least one"),
        ((f"dir:{home}/b", f"dir:{home}/x/../b"), "are the same"),
        ((f"dir:{home}/a",), "are the same"),
    ):
        _, _, err = spraydry("init", *wrong, code=2)
        assert why in err and not (home / "a").exists()
    _, _, err = spraydry("init", f"dir:{home}/b", "gopher://x", code=2)
    assert "gopher" in err and "is there without it (main, b)" in err
    assert set(stores(spraydry)) == {"main", "b"}


def test_init_ends_what_was_only_begun(home: Path, spraydry: Run, source: Path) -> None:
    open_store(f"dir:{home}/a", create=True).close()
    (home / "mine").mkdir()
    (home / "mine" / "note").write_text("mine")
    assert "not empty" in spraydry("init", "--repo", f"dir:{home}/mine", code=NotARepository.exit_code)[2]
    spraydry("init")
    spraydry("ingest", source)
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
