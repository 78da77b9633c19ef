"""Verify: finds every kind of damage, says what needs what is damaged, and a rebuild makes the catalog anew."""

from __future__ import annotations

import random

import pytest

from spraydry.actions.verify import Sample, Verified, verify
from spraydry.errors import SprayDryError, StoreReadOnly, UsageError
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
    return repository.catalog.chunks.locate(name)[0].frame.hex()


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


def test_samples_go_on_where_the_last_stopped(filled: Repository) -> None:
    whole = sum(1 for _ in filled.store.list("frames"))
    never = whole
    for day in range(1, 6):
        found = verify(filled, sample=Sample(fraction=0.2), now_s=day)
        assert found.sound and found.versions == 0 and 0 < found.frames < whole
        assert found.proofs.never == max(never - found.frames, 0), "none twice before all were looked at"
        assert found.proofs.oldest_s == 1 or found.proofs.never == 0
        never = found.proofs.never
    assert never == 0, "five fifths are all"
    again = verify(filled, sample=Sample(fraction=0.2), now_s=6)
    assert again.proofs.oldest_s is not None and again.proofs.oldest_s >= found.proofs.oldest_s, (
        "the oldest were looked at anew"
    )
    everything = verify(filled, now_s=7)
    assert everything.proofs.oldest_s == 7 and everything.proofs.proved == whole


def test_samples_of_an_amount_and_of_a_time(filled: Repository) -> None:
    sizes = {stored.name: stored.size for stored in filled.store.list("frames")}
    found = verify(filled, sample=Sample(bytes=600_000), now_s=1)
    assert 600_000 <= found.stored_bytes < 600_000 + max(sizes.values())
    assert verify(filled, sample=Sample(seconds=0.0), now_s=2).frames == 1, "at least one"
    assert verify(filled, sample=Sample(seconds=600.0), now_s=3).proofs.oldest_s == 3
    assert verify(filled, sample=Sample(bytes=1), now_s=4).frames == 1
    assert [Sample.parse(text) for text in ("5%", "2G", "30min", "1.5h")] == [
        Sample(fraction=0.05),
        Sample(bytes=2 << 30),
        Sample(seconds=1800),
        Sample(seconds=5400),
    ]
    for wrong in ("0%", "-1%", "150%", "x%", "5 apples", ""):
        with pytest.raises(UsageError):
            Sample.parse(wrong)


def test_what_is_proved_belongs_to_the_catalog(filled: Repository) -> None:
    verify(filled, now_s=1)
    make_version(filled, "more", {b"g": random.Random(99).randbytes(300_000)})
    proofs = filled.catalog.proofs.summary()
    assert proofs.never == proofs.frames - proofs.proved > 0
    first = verify(filled, sample=Sample(bytes=1), now_s=2)
    assert first.proofs.never == proofs.never - 1, "what was never looked at comes first"
    filled.rebuild_catalog()
    assert filled.catalog.proofs.summary().proved == 0


def test_a_clock_that_was_wrong_hides_no_frame(filled: Repository) -> None:
    whole = verify(filled, now_s=1 << 40).frames
    assert verify(filled, sample=Sample(fraction=1.0), now_s=5).frames == whole


def test_read_only_remembers_nothing_and_samples_others(filled: Repository) -> None:
    filled.catalog.database.execute("DROP TABLE proof")  # as an older program made it
    with Repository.open(filled.url, read_only=True) as reader:
        found = [verify(reader, sample=Sample(fraction=0.3), now_s=day) for day in range(8)]
        assert all(one.sound and not one.remembered and one.proofs.proved == 0 for one in found)
        assert len({one.stored_bytes for one in found}) > 1
        assert verify(reader).sound
    with reopened(filled) as repository:
        assert verify(repository, now_s=3).proofs.oldest_s == 3, "an older catalog gets the table"


def test_a_sample_that_finds_damage_says_what_needs_it(filled: Repository) -> None:
    name = frame_of(filled, "r:07.bin")
    filled.store.put("frames", name, b"SDfr")
    with reopened(filled) as repository:
        found = verify(repository, sample=Sample(fraction=1.0), now_s=1)
        assert ("r@v2", b"07.bin") in affected(found)
        again = verify(repository, sample=Sample(bytes=1), now_s=2)
        assert [one.frame for one in again.damaged_frames] == [name], "damage is looked at again until it is mended"


def test_what_is_damaged_is_stored_again_by_the_next_writer(filled: Repository) -> None:
    name = frame_of(filled, "r:07.bin")
    filled.store.put("frames", name, b"SDfr")
    with reopened(filled) as repository:
        assert not verify(repository).sound
        make_version(repository, "again", {b"07.bin": FILES[b"07.bin"]})
        with repository.open_file("r@v1:07.bin") as stream:
            assert stream.read() == FILES[b"07.bin"]


def test_only_what_needs_what_is_lost_is_named(repository: Repository) -> None:
    """Chunks of a damaged frame that still come out right are served, and so their files are not named."""
    files = {b"%02d" % number: random.Random(number).randbytes(3000) for number in range(40)}
    make_version(repository, "r", files)
    place = repository.catalog.chunks.locate(digest(files[b"20"]))[0]
    stored = bytearray(repository.store.get("frames", place.frame.hex()))
    stored[len(stored) // 2] ^= 1
    repository.store.put("frames", place.frame.hex(), bytes(stored))
    with reopened(repository) as damaged:
        found = verify(damaged)
        assert [one.frame for one in found.damaged_frames] == [place.frame.hex()]
        named = {path for _, path in affected(found)}
        unread = set()
        for path, plain in files.items():
            try:
                with damaged.open_file(f"r:{path.decode()}") as stream:
                    assert stream.read() == plain
            except SprayDryError:
                unread.add(path)
        assert named == unread and len(named) == 1


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
        assert not repository.catalog.chunks.locate(digest(b"second version"))
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
