"""Repairs of repositories on several stores, with lost dictionaries, and with other repositories that fail."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from spraydry.actions.remove import remove
from spraydry.actions.repair import repair
from spraydry.actions.train import train
from spraydry.actions.verify import verify
from spraydry.errors import StoreNotFound, StoreUnavailable
from spraydry.format.digest import digest
from spraydry.repository.repository import Repository
from tests.repair.damaged import damage
from tests.repositories import Run, caller, check, filled_source, machine
from tests.small_versions import read_all, small_versions
from tests.versions import make_version


@pytest.fixture
def spraydry(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    machine(tmp_path, monkeypatch)
    monkeypatch.setenv("SPRAYDRY_REPO", f"dir:{tmp_path}/a")
    return caller(capsys)


def broken(folder: Path, url: str) -> list[Path]:
    """Damage every third frame with files that lies there, and let every seventh vanish, in the order they came."""
    with Repository.open(url) as repository:
        names = [info.name.hex() for _, info in repository.catalog.frames() if info.frame_class != "tree"]
    there = {path.name: path for path in (folder / "frames").rglob("*") if path.is_file()}
    frames = [there[name] for name in names if name in there]
    for path in frames[::3]:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    for path in frames[1::7]:
        path.unlink()
    return frames


def test_replicas(tmp_path: Path, spraydry: Run) -> None:
    source = filled_source(tmp_path, 3 << 20)
    spraydry("init", f"dir:{tmp_path}/b", "--copies", "2")
    spraydry("ingest", source)
    assert len(broken(tmp_path / "b", f"dir:{tmp_path}/a")) >= 4
    _, out, _ = spraydry("repair")
    assert "copies on b, from other stores" in out or "copy on b, from other stores" in out
    _, out, _ = spraydry("repair", "--write")
    assert "from other stores" in out and "without" not in out
    check(f"dir:{tmp_path}/a", source)
    spraydry("verify")


def test_a_store_that_does_not_answer(tmp_path: Path, spraydry: Run) -> None:
    """What only it has would be taken for lost."""
    source = filled_source(tmp_path, 3 << 20)
    spraydry("init", f"dir:{tmp_path}/b", "--copies", "1")
    spraydry("ingest", source)
    (tmp_path / "b").rename(tmp_path / "gone")
    for more in ((), ("--write",)):
        _, _, err = spraydry("repair", *more, code=StoreUnavailable.exit_code)
        assert "b does not answer" in err
    (tmp_path / "gone").rename(tmp_path / "b")
    assert spraydry("log", "source")[1].count("source@") == 1
    check(f"dir:{tmp_path}/a", source)


def test_the_command_line(tmp_path: Path, spraydry: Run) -> None:
    source = filled_source(tmp_path)
    spraydry("ingest", source)
    _, out, _ = spraydry("repair")
    assert out.startswith("nothing is to be repaired: looked at ")
    shutil.copytree(tmp_path / "a", tmp_path / "backup")
    broken(tmp_path / "a", f"dir:{tmp_path}/a")
    spraydry("verify", code=6)
    _, out, err = spraydry("repair", "--known", code=6)
    assert "source would get a new version: source@v1 without" in out and "nothing was changed" in out
    _, out, _ = spraydry("repair", "--known", "--from", f"dir:{tmp_path}/backup")
    assert f"from dir:{tmp_path}/backup" in out
    _, out, _ = spraydry("repair", "--json", "--write", "--from", f"dir:{tmp_path}/backup")
    told = json.loads(out)
    assert told["written"] and told["whole"] and told["had"] and told["without"] == []
    check(f"dir:{tmp_path}/a", source)
    broken(tmp_path / "a", f"dir:{tmp_path}/a")
    _, out, err = spraydry("repair", "--write", code=6)
    assert "source@v2 is there: source@v1 without" in out
    assert "incomplete" in spraydry("log", "source")[1]
    _, _, err = spraydry("repair", "--from", f"dir:{tmp_path}/nowhere", code=StoreNotFound.exit_code)
    assert "nowhere" in err


@pytest.fixture
def trained(repository: Repository, tmp_path: Path) -> Repository:
    """Frames that need a dictionary which was trained here."""
    (tmp_path / "small").mkdir()
    small_versions(repository, tmp_path / "small", random.Random(1), 12, 8)
    train(repository, ["small"])
    small_versions(repository, tmp_path / "small", random.Random(2), 3, 8)
    assert any(usage.dictionary for usage in repository.catalog.usage())
    repository.store.flush()
    return repository


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_a_lost_dictionary(trained: Repository, tmp_path: Path, how: str) -> None:
    before = read_all(trained)
    url = trained.url
    shutil.copyfile(url, tmp_path / "backup.sqlite")
    (name,) = {usage.dictionary.hex() for usage in trained.catalog.usage() if usage.dictionary}
    plain = trained.store.get("dictionaries", name)
    trained.store.delete("dictionaries", [name])
    if how == "flipped":
        trained.store.put("dictionaries", name, bytes([plain[0] ^ 1]) + plain[1:])
    with Repository.open(url) as repository:
        alone = repair(repository)
        assert alone.without and any(name in text for text in alone.left_alone)
    with Repository.open(url) as repository:
        plan = repair(repository, remotes=[str(tmp_path / "backup.sqlite")])
        assert list(plan.dictionaries) == [name] and not plan.without
    with Repository.open(url) as repository:
        done = repair(repository, write=True, remotes=[str(tmp_path / "backup.sqlite")])
        assert list(done.dictionaries) == [name] and done.whole and not done.condemned
    with Repository.open(url) as repository:
        assert repository.store.get("dictionaries", name) == plain
        assert read_all(repository) == before and verify(repository).sound


FILES = {b"%d" % number: random.Random(number).randbytes(3000) for number in range(5)}


def frame_of_a_file(repository: Repository) -> str:
    return repository.catalog.chunks.locate(digest(FILES[b"3"]))[0].frame.hex()


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_another_repository_that_has_lost_it_too(repository: Repository, tmp_path: Path, how: str) -> None:
    make_version(repository, "r", FILES)
    repository.store.flush()
    shutil.copyfile(repository.url, tmp_path / "copy.sqlite")
    for url in (repository.url, str(tmp_path / "copy.sqlite")):
        with Repository.open(url) as one:
            damage(one, frame_of_a_file(one), how)
    with Repository.open(repository.url) as one:
        done = repair(one, write=True, remotes=[str(tmp_path / "copy.sqlite")])
        lost = {path for path, _ in done.without[0].lacks}
        assert done.kept == 1 and not done.whole and (lost == set(FILES) if how == "gone" else len(lost) == 1)
        found = verify(one)
        assert {one.path for one in found.damage} == lost


def test_what_removed_versions_need_is_kept_too(repository: Repository) -> None:
    """A removal may be taken back: what a damaged frame still gives is stored again though no version needs it now."""
    make_version(repository, "r", FILES)
    make_version(repository, "r", {b"another": b"small"})
    frame = frame_of_a_file(repository)
    remove(repository, ["r@v1"])
    damage(repository, frame, "flipped")
    with Repository.open(repository.url) as one:
        done = repair(one, write=True)
        assert done.condemned == 1 and done.whole
        condemned = one.log.condemned_since(0)
        stored = [plain for plain in FILES.values() if one.catalog.chunks.known([digest(plain)])]
        assert bytes.fromhex(frame) in condemned and len(stored) == len(FILES) - 1


def test_a_damaged_log(tmp_path: Path, spraydry: Run) -> None:
    """It is nowhere but in its slots: those of a copy are taken where the records around them say they are the ones."""
    source = filled_source(tmp_path)
    for number in range(4):
        (source / "more").write_bytes(b"%d" % number)
        spraydry("ingest", source)
    shutil.copytree(tmp_path / "a", tmp_path / "backup")
    slots = sorted((tmp_path / "a" / "log").rglob("0*"))
    before = [slot.read_bytes() for slot in slots]
    slots[1].write_bytes(b"?" + before[1][1:])
    slots[2].unlink()
    slots[3].write_bytes(b"?" + before[3][1:])
    for more in ((), ("--write",)):
        _, _, err = spraydry("repair", *more, code=6)
        assert "log slots 2, 3, 4 are lost" in err
    copy = f"dir:{tmp_path}/backup"
    _, _, err = spraydry("repair", "--from", copy, code=6)
    assert "log slots 2, 3, 4 are damaged, and can be had" in err and not slots[2].exists()
    (tmp_path / "backup" / "log" / slots[1].name).write_bytes(before[0])  # a record that is not the one
    _, _, err = spraydry("repair", "--from", copy, "--write", code=6)
    assert "log slot 2 is lost" in err
    (tmp_path / "backup" / "log" / slots[1].name).write_bytes(before[1])
    _, out, _ = spraydry("repair", "--from", copy, "--write")
    assert "log slot 2 is mended" in out and [slot.read_bytes() for slot in slots] == before
    check(f"dir:{tmp_path}/a", source)
