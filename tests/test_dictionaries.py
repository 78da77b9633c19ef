"""Dictionaries: the shipped ones, when a writer takes one into use, and what happens without the one that is needed."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry.actions.dictionaries import dictionaries
from spraydry.errors import CorruptData, DictionaryMissing
from spraydry.format import dictionary as making
from spraydry.format.classes import NAMES
from spraydry.format.digest import digest
from spraydry.format.frame import Dictionary, encode
from spraydry.format.version import DictionariesRecord
from spraydry.repository import dictionaries as choosing
from spraydry.repository.condemned import drop
from spraydry.repository.dictionaries import read_shipped, shipped
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer
from tests.small_versions import document
from tests.store_contract import size_of

FOLDER = Path(__file__).parent.parent / "dictionaries"


def test_shipped_files_are_what_they_say() -> None:
    found = shipped()
    assert {one.frame_class for one in found} == {"python", "json", "markup", "script", "c"} <= set(NAMES)
    assert {path.stem for path in FOLDER.glob("*.dict")} == {one.name for one in found}
    for one in found:
        loaded = one.load()
        assert loaded.digest == one.digest and len(loaded.plain) == one.size <= making.DEFAULT_BYTES
        assert len(one.corpus) > 2 and all("==" in package for package in one.corpus)
        assert dict(one.gain)["8K"] > 0
        told = tomllib.loads(Path(one.path).with_suffix(".toml").read_text())
        assert told["held_out"] and not set(told["held_out"]) & set(told["corpus"])
        assert {"zstd", "k", "d", "f", "level"} <= told["parameters"].keys()


def test_a_damaged_shipped_one_is_not_used(tmp_path: Path) -> None:
    for source in (FOLDER / "json.toml", FOLDER / "json.dict"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (one,) = read_shipped(str(tmp_path))
    content = bytearray((tmp_path / "json.dict").read_bytes())
    content[5000] ^= 1
    (tmp_path / "json.dict").write_bytes(content)
    with pytest.raises(DictionaryMissing, match="cannot be used"):
        one.load()
    (tmp_path / "json.toml").write_text("class = 3")
    with pytest.raises(CorruptData, match="does not describe"):
        read_shipped(str(tmp_path))


@pytest.fixture
def on_offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dictionary]:
    """A small dictionary for documents, shipped in place of the real ones."""
    rng = random.Random(8)
    made = making.train([document(rng) for _ in range(400)], 8 << 10)
    assert made is not None
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "docs.dict").write_bytes(made.plain)
    (folder / "docs.toml").write_text(
        f'class = "json"\ndigest = "{made.digest.hex()}"\nsize = {len(made.plain)}\ncorpus = []\n[gain]\n"8K" = 0.2\n'
    )
    monkeypatch.setattr(choosing, "shipped", lambda: read_shipped(str(folder)))
    yield made


def write(repository: Repository, contents: list[bytes], frame_class: str = "json") -> list[bytes]:
    """Store chunks as one small frame, as a small version does; their names."""
    names = [digest(content) for content in contents]
    with Writer(repository, threads=1) as writer:
        for name, content in zip(names, contents, strict=True):
            writer.add(name, content, frame_class)
        writer.finish()
    return names


def adopted_after(repository: Repository, rng: random.Random, limit: int) -> tuple[int, dict[bytes, bytes]]:
    """Write small frames until the shipped dictionary is in use; how many, and all that was written."""
    written = {}
    for count in range(limit):
        contents = [document(rng) for _ in range(3)]
        written.update(zip(write(repository, contents), contents, strict=True))
        if repository.log.dictionaries:
            return count + 1, written
    return limit, written


def test_a_shipped_one_is_used_when_it_has_paid(
    repository: Repository, on_offer: Dictionary, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, written = adopted_after(repository, rng, 100)
    assert 2 < count < 100, "not before its own size was saved"
    assert repository.log.dictionaries == {"json": on_offer.digest}
    # What the frames before took with and without it differs by about what it takes itself.
    plainly, with_it = (
        sum(len(encode([written[row.digest] for row in rows], "json", 3, one).stored) for rows in frames_of(repository))
        for one in (None, on_offer)
    )
    assert plainly - with_it >= len(on_offer.plain)
    contents = [document(rng)]
    written.update(zip(write(repository, contents), contents, strict=True))
    assert {usage.dictionary for usage in repository.catalog.usage()} == {None, on_offer.digest}

    # Nothing that was installed is needed any more.
    monkeypatch.setattr(choosing, "shipped", tuple)
    with Repository.open(repository.url, read_only=True) as reader:
        assert all(reader.read_chunk(name) == content for name, content in written.items())
        (known,) = [one for one in dictionaries(reader) if one.digest == on_offer.digest]
    assert known.stored and known.adopted == ("json",) and known.frames >= 1 and not known.missing
    assert known.gain is not None and known.gain > 0


def test_of_a_shipped_one_that_was_dropped_another_is_made(
    repository: Repository, on_offer: Dictionary, rng: random.Random
) -> None:
    drop(repository, [on_offer.digest], "test", lambda: None)
    count, written = adopted_after(repository, rng, 100)
    assert 2 < count < 100
    adopted = repository.log.dictionaries["json"]
    made = repository.dictionary(adopted)
    assert adopted != on_offer.digest and made.plain[8:] == on_offer.plain[8:]
    contents = [document(rng)]
    written.update(zip(write(repository, contents), contents, strict=True))
    assert {usage.dictionary for usage in repository.catalog.usage()} == {None, adopted}
    with Repository.open(repository.url, read_only=True) as reader:
        assert all(reader.read_chunk(name) == content for name, content in written.items())


def frames_of(repository: Repository) -> list[list[object]]:
    return [
        repository.decode_frame(info.name)[1]  # type: ignore[misc]
        for _, info in repository.catalog.frames()
        if info.dictionary is None
    ]


def test_it_is_copied_before_a_frame_needs_it(
    repository: Repository, on_offer: Dictionary, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_many = repository.store.put_many
    checked = []

    def watched(namespace: str, values: object) -> None:
        kept = list(values)  # type: ignore[call-overload]
        if namespace == "frames":
            for _, stored in kept:
                if on_offer.digest in stored:
                    checked.append(size_of(repository.store, "dictionaries", on_offer.digest.hex()))
        put_many(namespace, kept)

    monkeypatch.setattr(repository.store, "put_many", watched)
    adopted_after(repository, rng, 100)
    for _ in range(3):
        write(repository, [document(rng)])
    assert checked and set(checked) == {len(on_offer.plain)}


def test_it_is_not_used_where_it_does_not_pay(repository: Repository, on_offer: Dictionary, rng: random.Random) -> None:
    for _ in range(30):
        write(repository, [bytes([rng.getrandbits(8)]) * 50 + rng.randbytes(200) for _ in range(10)])
        write(repository, [rng.randbytes(3000)])
        write(repository, [document(rng)], "text")
    assert not repository.log.dictionaries and list(repository.store.list("dictionaries")) == []


def test_it_is_tried_no_more_after_it_was_given_up(
    repository: Repository, on_offer: Dictionary, rng: random.Random
) -> None:
    adopted_after(repository, rng, 100)
    choosing.adopt(repository, {"json": None}, "train --undo")
    records = len(repository.log.records)
    assert adopted_after(repository, rng, 60)[0] == 60
    assert len(repository.log.records) == records and isinstance(repository.log.records[-1], DictionariesRecord)


def test_without_its_dictionary_a_frame_is_an_error_not_other_bytes(
    repository: Repository, on_offer: Dictionary, rng: random.Random
) -> None:
    adopted_after(repository, rng, 100)
    (name,) = write(repository, [document(rng)])
    (frame,) = {place.frame for place in repository.catalog.chunks.locate(name)}
    key = on_offer.digest.hex()
    other = making.train([document(random.Random(seed)) for seed in range(500)], 8 << 10)
    assert other is not None and other.digest != on_offer.digest
    for damage in (other.plain, on_offer.plain[:-1], on_offer.plain[:-1] + b"?", b"", None):
        if damage is None:
            repository.store.delete("dictionaries", [key])
        else:
            repository.store.put("dictionaries", key, damage)
        with Repository.open(repository.url, read_only=True) as reader:
            with pytest.raises(DictionaryMissing):
                reader.decode_frame(frame)
            with pytest.raises(CorruptData, match=f"dictionary {key} is"):
                reader.read_chunk(name)
            (known,) = [one for one in dictionaries(reader) if one.digest == on_offer.digest]
            assert known.missing if damage is None else known.damaged
    with Repository.open(repository.url) as writing:  # new frames do without it
        (later,) = write(writing, [content := document(rng)])
        assert writing.read_chunk(later) == content
