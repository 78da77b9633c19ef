"""Verify: finds every kind of damage, says what needs what is damaged, and a rebuild makes the catalog anew."""

from __future__ import annotations

import random

import pytest

from spraydry.actions.verify import Verified, verify
from spraydry.errors import StoreReadOnly, UsageError
from spraydry.format.digest import digest
from spraydry.format.entry import FILE, Runs
from spraydry.repository.repository import Repository
from spraydry.repository.stream import spans
from tests.versions import make_version, plain_entry

FILES = {b"%02d.bin" % number: random.Random(number).randbytes(200_000) for number in range(12)}


@pytest.fixture
def filled(repository: Repository) -> Repository:
    make_version(repository, "r", {**FILES, b"d": {b"e": {b"f": b"deep", b"hole": bytes(300_000) + b"x"}}})
    make_version(repository, "r", {**FILES, b"new": b"second version", b"d": {b"e": {b"f": b"deep"}}})
    make_version(repository, "other", {b"f": b"other"})
    return repository


def frame_of(repository: Repository, address: str) -> str:
    """The name of the frame that holds the first chunk of a file."""
    following = spans(repository.resolve(address).entry, repository.read_chunk)
    name = next(span.chunk for span in following if span.chunk is not None)
    return repository.catalog.locate(name)[0].frame.hex()


def reopened(repository: Repository) -> Repository:
    return Repository.open(repository.url)


def affected(found: Verified) -> list[tuple[str, bytes]]:
    return [(one.version, one.path) for one in found.damage]


def test_all_is_whole(filled: Repository) -> None:
    found = verify(filled)
    assert found.sound and found.versions == 3 and found.chunks > 40
    assert found.frames == sum(1 for _ in filled.store.list("frames"))
    assert found.plain_bytes > 12 * 200_000


def test_empty_repository(repository: Repository) -> None:
    assert verify(repository).sound


def test_works_read_only(filled: Repository) -> None:
    with Repository.open(filled.url, read_only=True) as reader:
        assert verify(reader).sound
        with pytest.raises(StoreReadOnly):
            reader.rebuild_catalog()


@pytest.mark.parametrize("kind", ["flipped", "gone", "replaced", "cut"])
def test_damaged_frame(filled: Repository, kind: str) -> None:
    name = frame_of(filled, "r:07.bin")
    stored = bytearray(filled.store.get("frames", name))
    if kind == "gone":
        filled.store.delete("frames", [name])
    else:
        stored[len(stored) // 2] ^= 4
        other = filled.store.get("frames", frame_of(filled, "r:d/e/f"))
        filled.store.put("frames", name, {"flipped": bytes(stored), "cut": bytes(stored[:-9]), "replaced": other}[kind])
    with reopened(filled) as repository:
        found = verify(repository)
    assert [one.frame for one in found.damaged_frames] == [name]
    paths = {path for _, path in affected(found)}
    assert b"07.bin" in paths and b"d/e/f" not in paths and not paths & {b"new", b"f"}
    assert {version for version, path in affected(found) if path == b"07.bin"} == {"r@v1", "r@v2"}
    assert all(name in one.reason for one in found.damage)


def test_a_second_copy_in_another_frame_is_enough(filled: Repository) -> None:
    from spraydry.repository.writer import Writer

    name = frame_of(filled, "r:new")
    with Writer(filled, threads=1) as writer:
        writer.add(digest(b"second version"), b"second version", "other", known=False)
        writer.finish()
    filled.store.delete("frames", [name])
    with reopened(filled) as repository:
        assert b"new" not in {path for _, path in affected(verify(repository))}
        assert repository.open_file("r:new").read() == b"second version"


def test_damaged_tree_page_names_its_directory(filled: Repository) -> None:
    with reopened(filled) as repository:
        page = repository.resolve("r@v1:d/e").entry.content.digest  # type: ignore[union-attr]
        repository.catalog.database.execute("DELETE FROM chunk_0 WHERE digest = ?", (page,))
    with reopened(filled) as repository:
        found = verify(repository)
        assert affected(found) == [("r@v1", b"d/e")] and not found.damaged_frames
        assert found.unindexed == 1
        repository.rebuild_catalog()
    with reopened(filled) as repository:
        assert verify(repository).sound


def test_file_digest_that_is_wrong(filled: Repository) -> None:
    good = filled.resolve("r:00.bin").entry
    assert isinstance(good.content, Runs)
    runs = Runs(digest(b"another"), good.content.manifest, good.content.filled)
    make_version(filled, "wrong", {b"x": plain_entry(b"", FILE, runs, good.size)})
    found = verify(filled)
    assert affected(found) == [("wrong@v1", b"x")] and "digest" in found.damage[0].reason


def test_sample(filled: Repository) -> None:
    whole = verify(filled)
    counts = [verify(filled, sample=0.5, seed=seed) for seed in range(8)]
    assert all(one.sound and one.versions == 0 for one in counts)
    assert len({one.frames for one in counts}) > 1 and all(one.frames < whole.frames for one in counts[:1])
    assert verify(filled, sample=0.5, seed=3) == verify(filled, sample=0.5, seed=3)
    assert verify(filled, sample=1.0).frames == whole.frames
    for wrong in (0.0, -1.0, 1.5):
        with pytest.raises(UsageError):
            verify(filled, sample=wrong)


def test_a_sample_that_finds_damage_says_what_needs_it(filled: Repository) -> None:
    name = frame_of(filled, "r:07.bin")
    filled.store.put("frames", name, b"SDfr")
    with reopened(filled) as repository:
        found = verify(repository, sample=1.0)
    assert ("r@v2", b"07.bin") in affected(found)


def test_other_damage(filled: Repository) -> None:
    run = next(filled.store.list("index")).name
    filled.store.put("index", run, b"no run")
    filled.store.put("dictionaries", "0" * 64, b"no dictionary")
    filled.store.put("frames", "not-a-frame", b"x")
    with reopened(filled) as repository:
        found = verify(repository)
    assert len(found.other) == 2 and [one.reason for one in found.damaged_frames] == ["that is no frame's name"]


def test_rebuilt_from_nothing(filled: Repository) -> None:
    before = {found.path: found.entry for found in filled.walk("r")}
    with reopened(filled) as repository:
        repository.catalog.clear()
        assert not repository.catalog.locate(digest(b"second version"))
        assert repository.rebuild_catalog() == sum(1 for _ in repository.store.list("frames"))
        assert verify(repository).sound
        assert {found.path: found.entry for found in repository.walk("r")} == before


def test_damaged_links_list(filled: Repository) -> None:
    """The links list of a version is among what is checked."""
    linked = plain_entry(b"", FILE, digest(b"deep"), 4, group=b"g" * 16)
    version = make_version(filled, "links", {b"a": linked, b"b": linked})
    assert version.record.links is not None and verify(filled).sound
    filled.catalog.database.execute("DELETE FROM chunk_0 WHERE digest = ?", (version.record.links,))
    with reopened(filled) as repository:
        assert affected(verify(repository)) == [("links@v1", b"")]
