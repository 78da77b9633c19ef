"""Training: what is sampled, what is adopted, what it costs, and going back."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry.actions.ingest import ingest
from spraydry.actions.train import samples, train, undo
from spraydry.actions.train.samples import HeldOut, Lot, Source, held_out_frames, read_samples, stored_samples
from spraydry.cli import run
from spraydry.errors import RootNotFound, UsageError
from spraydry.format import dictionary as dictionaries
from spraydry.format.chunker import DEFAULT_SPEC, parse_spec
from spraydry.format.digest import digest
from spraydry.format.version import DictionariesRecord
from spraydry.repository.repository import Repository
from tests.small_versions import document, read_all, small_versions
from tests.store_contract import size_of


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository of many small versions, and the folder it was made from."""
    base = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch, Repository.open(str(base / "repository"), create=True) as made:
        patch.setenv("XDG_CACHE_HOME", str(base / "cache"))
        small_versions(made, base / "small", random.Random(1), 60)
    return base


@pytest.fixture
def small(built: Path, tmp_path: Path) -> Iterator[Repository]:
    shutil.copytree(built / "small", tmp_path / "small")
    with Repository.open(str(shutil.copy(built / "repository", tmp_path / "copy"))) as opened:
        yield opened


def test_what_pays_is_adopted_and_used(small: Repository, tmp_path: Path, rng: random.Random) -> None:
    result = train(small, size_bytes=32 << 10)
    by_class = {gain.frame_class: gain for gain in result.gains}
    gain = by_class["json"]
    assert gain.pays and gain.candidate == "trained" and gain.cost_bytes > 0
    assert gain.after_bytes < gain.before_bytes == gain.plainly_bytes
    # The saving is told after the dictionary itself was counted.
    assert 0 < gain.saving_bytes <= gain.stored_bytes * (1 - gain.after_bytes / gain.before_bytes)
    assert small.log.dictionaries["json"] == gain.dictionary
    assert size_of(small.store, "dictionaries", small.log.dictionaries["json"].hex()) == gain.cost_bytes

    path = tmp_path / "small" / "later.json"
    path.write_bytes(content := document(rng))
    ingest(small, [str(tmp_path / "small")], root="small")
    assert any(usage.dictionary == gain.dictionary for usage in small.catalog.usage())
    with Repository.open(small.url, read_only=True) as again:
        assert read_all(again)["later.json"] == content


def test_what_does_not_pay_is_refused(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    folder = tmp_path / "noise"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number}.json").write_bytes(rng.randbytes(9000))
        # Compressible, but nothing in common: a dictionary finds nothing to say.
        (folder / f"{number}.txt").write_bytes(b"".join(bytes([rng.getrandbits(8)]) * 40 for _ in range(200)))
    ingest(repository, [str(folder)], root="noise")
    result = train(repository, size_bytes=8 << 10)
    assert result.slot is None and not repository.log.dictionaries
    assert {gain.frame_class: gain.pays for gain in result.gains if gain.frame_class != "tree"} == {
        "json": False,
        "text": False,
    }
    assert list(repository.store.list("dictionaries")) == []


def test_a_dry_run_changes_nothing_and_is_repeatable(small: Repository) -> None:
    head = small.log.head
    first, second = (train(small, size_bytes=32 << 10, dry_run=True) for _ in range(2))
    assert first == second and first.slot is None
    assert small.log.head == head and list(small.store.list("dictionaries")) == []
    real = train(small, size_bytes=32 << 10)
    assert real.gains == first.gains and real.slot is not None


def overlap(repository: Repository, held_out: dict[str, HeldOut], exclude: dict[str, HeldOut]) -> int:
    """How many chunks of the samples drawn are in held-out frames."""
    lots: dict[str, Lot[Source]] = {name: Lot(1 << 20) for name in ("json", "tree")}
    stored_samples(repository, ["small"], lots, exclude)
    common = 0
    for name, lot in lots.items():
        none = HeldOut((), frozenset())
        drawn = read_samples(repository, lot, exclude.get(name, none))
        assert len(drawn) > 10 or name == "tree"
        chunker = parse_spec(DEFAULT_SPEC)
        for plain in drawn:
            assert chunker.cut(plain) == [len(plain)]
            common += digest(plain) in held_out[name].names
    return common


def test_held_out_and_samples_are_disjoint(small: Repository) -> None:
    held_out = held_out_frames(small, {"json": 64 << 10, "tree": 64 << 10})
    assert len(held_out["json"].names) > 10
    assert overlap(small, held_out, held_out) == 0
    # The same check finds what a sampling that does not care would draw.
    assert overlap(small, held_out, {}) > 10


def test_outside_files_are_split_by_file(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    for number in range(400):
        (folder / f"{number}.json").write_bytes(document(rng))
    lots: dict[str, Lot[Source]] = {"json": Lot(1 << 20)}
    apart: dict[str, Lot[Source]] = {"json": Lot(1 << 20)}
    totals: dict[str, int] = {}
    assert samples.folder_samples(str(folder), lots, apart, totals) == 400
    drawn, held = ({one.path for one in lot.items()} for lot in (lots["json"], apart["json"]))
    assert not drawn & held and len(drawn) + len(held) == 400 and 50 < len(held) < 150

    result = train(repository, folders=[str(folder)], size_bytes=16 << 10)
    (gain,) = result.gains
    assert gain.frame_class == "json" and gain.stored_bytes > 0 and gain.sampled_bytes > 0
    # Together in one frame, as an ingest of the folder would put them, they need no dictionary.
    assert not gain.pays and result.slot is None


def test_samples_from_outside_for_what_is_stored(small: Repository, tmp_path: Path, rng: random.Random) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    for number in range(400):
        (folder / f"{number}.json").write_bytes(document(rng))
    result = train(small, folders=[str(folder)], size_bytes=32 << 10)
    gain = next(gain for gain in result.gains if gain.frame_class == "json")
    assert gain.pays and gain.candidate == "trained"


def test_a_dictionary_is_stored_before_anything_names_it(small: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    create = small.store.create
    seen = []

    def watched(namespace: str, name: str, value: bytes) -> bool:
        assert namespace == "log"
        seen.append([stored.name for stored in small.store.list("dictionaries")])
        return create(namespace, name, value)

    monkeypatch.setattr(small.store, "create", watched)
    result = train(small, size_bytes=32 << 10)
    assert len(seen) == 1
    assert {gain.dictionary.hex() for gain in result.gains if gain.pays and gain.dictionary} <= set(seen[0])


def test_undo_goes_back(small: Repository) -> None:
    with pytest.raises(UsageError, match="nothing to undo"):
        undo(small)
    train(small, size_bytes=32 << 10)
    first = dict(small.log.dictionaries)
    assert first
    assert undo(small)[1] == {} == small.log.dictionaries
    assert undo(small)[1] == first == small.log.dictionaries
    assert sum(isinstance(record, DictionariesRecord) for record in small.log.records) == 3


def test_training_again_keeps_what_is_in_use(small: Repository) -> None:
    train(small, size_bytes=32 << 10)
    before = dict(small.log.dictionaries)
    again = train(small, size_bytes=32 << 10)
    gain = next(gain for gain in again.gains if gain.frame_class == "json")
    assert gain.before_bytes < gain.plainly_bytes and not gain.pays
    assert again.slot is None and small.log.dictionaries == before


def test_bad_input(small: Repository, tmp_path: Path) -> None:
    for wrong in (1, 1 << 30):
        with pytest.raises(UsageError, match="a dictionary has"):
            train(small, size_bytes=wrong)
    with pytest.raises(UsageError, match="memory"):
        train(small, memory_bytes=1000)
    with pytest.raises(UsageError, match="no directory"):
        train(small, folders=[str(tmp_path / "none")])
    with pytest.raises(RootNotFound):
        train(small, ["smal"])


def test_training_is_deterministic_and_wants_enough(rng: random.Random) -> None:
    documents = [document(rng) for _ in range(300)]
    first, second = dictionaries.train(documents, 16 << 10), dictionaries.train(documents, 16 << 10)
    assert first is not None and second is not None and first.digest == second.digest
    assert len(first.plain) <= 16 << 10
    assert dictionaries.train(documents[:5], 16 << 10) is None
    assert dictionaries.train([b"x"] * 100, 16 << 10) is None


def test_the_verbs(small: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    small.close()

    def spraydry(*arguments: str, code: int = 0) -> str:
        assert run(["--repo", small.url, *arguments]) == code
        return capsys.readouterr().out

    assert "would be adopted" in spraydry("train", "--size", "16K", "--dry-run")
    assert [one["stored"] for one in json.loads(spraydry("dictionaries", "--json"))] == [False] * 5
    told = spraydry("train", "--size", "16K")
    assert "json" in told and "adopted" in told and "spraydry train --undo" in told
    listed = json.loads(spraydry("dictionaries", "--json"))
    assert listed[0]["adopted"] == ["json"] and listed[0]["stored"] and listed[0]["gain"] > 0
    saved = json.loads(spraydry("recompress", "--json", "--budget", "100M"))
    assert saved["complete"] and saved["saved_bytes"] > 0 and saved["new_frames"] < saved["old_frames"]
    assert "nothing got smaller" in spraydry("recompress")
    assert "in use again: none" in spraydry("train", "--undo")
    spraydry("train", "--undo", "--dry-run", code=2)
    spraydry("train", "--size", "12Q", code=2)
    spraydry("recompress", "--level", "99", code=2)
    spraydry("recompress", "--budget", "12Q", code=2)
    spraydry("train", "nothing-of-that-name", code=4)
