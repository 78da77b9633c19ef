"""Repositories: reading with damage and without, opening, rebuilding, copying, caches, threads."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest
import zstandard

from spraydry.errors import (
    ChunkCorrupt,
    ChunkNotFound,
    CorruptData,
    DictionaryMissing,
    FormatTooNew,
    NotARepository,
    SprayDryError,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    ValueNotFound,
)
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.frame import Dictionary
from spraydry.format.run import Row, encode_run
from spraydry.format.version import AnyRecord, DictionariesRecord
from spraydry.repository.cache import FrameCache
from spraydry.repository.frames import frame_info
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer
from spraydry.stores.base import open_store

Chunks = dict[bytes, bytes]


def chunks(count: int, seed: int = 1, size: int = 3000) -> Chunks:
    """Chunks by name; half of them shrink."""
    rng = random.Random(seed)
    made = (rng.randbytes(rng.randrange(1, size)) if n % 2 else b"%d %d " % (seed, n) * 300 for n in range(count))
    return {digest(plain): plain for plain in made}


def write(repository: Repository, wanted: Chunks, frame_class: str = "other", target_bytes: int = 20_000) -> None:
    with Writer(repository, target_bytes=target_bytes, threads=2) as writer:
        for name, plain in wanted.items():
            writer.add(name, plain, frame_class)
        writer.finish()


def put_frame(repository: Repository, plains: Sequence[bytes], dictionary: Dictionary | None = None) -> frames.Encoded:
    """One frame of exactly these chunks, indexed, also where they are known."""
    made = frames.encode(plains, "other", 3, dictionary)
    rows, at = [], 0
    for plain in plains:
        rows.append(Row(digest(plain), 0, at, len(plain)))
        at += len(plain)
    info = frame_info(made.name, made.header, len(made.stored))
    run = encode_run([info], rows)
    with repository.batch():
        repository.store.put("frames", made.name.hex(), made.stored)
        repository.store.put("index", digest(run).hex(), run)
        repository.catalog.add_run(digest(run).hex(), [info], rows, verified=True)
    return made


def damage(repository: Repository, made: frames.Encoded, at: int = -1) -> None:
    changed = bytearray(made.stored)
    changed[at] ^= 1
    repository.store.put("frames", made.name.hex(), bytes(changed))


def read_all(repository: Repository, wanted: Chunks) -> bool:
    return all(repository.read_chunk(name) == plain for name, plain in wanted.items())


@pytest.fixture(params=["sqlite", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{tmp_path}/repository" if request.param == "sqlite" else f"memory:{tmp_path}"


# -- writing and reading


def test_what_is_written_is_read(url: str) -> None:
    wanted = chunks(500)
    with Repository.open(url, create=True) as repository:
        write(repository, wanted)
        assert read_all(repository, wanted)
    for read_only in (False, True):
        with Repository.open(url, read_only=read_only) as repository:
            assert repository.read_only == read_only
            assert read_all(repository, wanted)
            with pytest.raises(ChunkNotFound, match=r"in no frame of .*: `spraydry repair` tells"):
                repository.read_chunk(digest(b"missing"))


def test_a_reader_sees_what_is_written_meanwhile(url: str) -> None:
    first, second = chunks(50), chunks(50, seed=2)
    with Repository.open(url, create=True) as writer, Repository.open(url, read_only=True) as reader:
        write(writer, first)
        assert read_all(reader, first)
        write(writer, second)
        assert read_all(reader, second)


def test_what_is_known_is_not_stored_again(repository: Repository) -> None:
    wanted = chunks(300)
    write(repository, wanted)
    stored = [value.name for value in repository.store.list("frames")]
    write(repository, wanted)
    assert [value.name for value in repository.store.list("frames")] == stored


def test_frames_of_many_tiny_chunks(repository: Repository) -> None:
    wanted = {digest(b"%d" % number): b"%d" % number for number in range(10_000)}
    write(repository, wanted, target_bytes=frames.MAX_PLAIN_BYTES)
    assert read_all(repository, wanted)
    assert all(
        len(repository.decode_frame(info.name)[1]) <= frames.MAX_CHUNKS for _, info in repository.catalog.frames()
    )


def test_threads_read_together(url: str) -> None:
    wanted = chunks(400)
    with Repository.open(url, create=True, cache_bytes=50_000) as repository:
        write(repository, wanted)

        def read(thread: int) -> int:
            rng = random.Random(thread)
            for _ in range(400):
                name = rng.choice(list(wanted))
                assert repository.read_chunk(name) == wanted[name]
            return thread

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(read, range(8))) == list(range(8))


# -- damage


@pytest.mark.parametrize("how", ["damaged", "gone", "cut", "foreign"])
def test_another_frame_is_taken(url: str, how: str) -> None:
    plains = [b"the chunk " * 100, b"beside it"]
    name = digest(plains[0])
    with Repository.open(url, create=True, cache_bytes=0) as repository:
        older = put_frame(repository, plains)
        newer = put_frame(repository, plains)
        assert [place.frame for place in repository.catalog.chunks.locate(name)] == [newer.name, older.name]
        for broken in (newer, older):
            match how:
                case "damaged":
                    damage(repository, broken)
                case "gone":
                    repository.store.delete("frames", [broken.name.hex()])
                case "cut":
                    repository.store.put("frames", broken.name.hex(), broken.stored[:-5])
                case _:
                    other = frames.encode([b"something else", b"altogether"], "other")
                    repository.store.put("frames", broken.name.hex(), other.stored)
            if broken is newer:
                assert repository.read_chunk(name) == plains[0]
        with pytest.raises(ChunkCorrupt) as caught:
            repository.read_chunk(name)
        assert all(part.hex() in str(caught.value) for part in (name, older.name, newer.name))
        assert "\n" not in str(caught.value)


def test_damage_hits_only_what_is_damaged(repository: Repository) -> None:
    plains = [random.randbytes(1000) for _ in range(10)]
    made = put_frame(repository, plains)
    damage(repository, made)
    for plain in plains[:-1]:
        assert repository.read_chunk(digest(plain)) == plain
    with pytest.raises(ChunkCorrupt):
        repository.read_chunk(digest(plains[-1]))


def test_a_frame_that_comes_back_later_is_found(url: str) -> None:
    wanted = chunks(5)
    with Repository.open(url, create=True) as writer, Repository.open(url, create=True) as reader:
        made = put_frame(writer, list(wanted.values()))
        writer.store.delete("frames", [made.name.hex()])
        with pytest.raises(SprayDryError):
            reader.read_chunk(next(iter(wanted)))
        put_frame(writer, list(wanted.values()))
        assert read_all(reader, wanted)


def test_a_store_that_does_not_answer_is_not_damage(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = chunks(5)
    write(repository, wanted)

    def get(*_: object) -> bytes:
        raise StoreUnavailable("try again")

    with monkeypatch.context() as patch:
        patch.setattr(repository.store, "get", get)
        with pytest.raises(StoreUnavailable) as caught:
            repository.read_chunk(next(iter(wanted)))
        assert caught.value.retryable
    assert read_all(repository, wanted)


def test_dictionaries(repository: Repository) -> None:
    rng = random.Random(1)
    words = [rng.randbytes(5).hex().encode() for _ in range(100)]
    samples = [b" ".join(rng.choices(words, k=60)) for _ in range(300)]
    dictionary = Dictionary.of(zstandard.train_dictionary(2000, samples).as_bytes())
    repository.store.put("dictionaries", dictionary.digest.hex(), dictionary.plain)
    made = put_frame(repository, samples[:3], dictionary)
    assert made.header.dictionary == dictionary.digest
    assert repository.read_chunk(digest(samples[0])) == samples[0]
    path = repository.url
    for broken in (None, dictionary.plain[:-1]):
        with Repository.open(path) as again:
            again.store.delete("dictionaries", [dictionary.digest.hex()])
            if broken is not None:
                again.store.put("dictionaries", dictionary.digest.hex(), broken)
            with pytest.raises(DictionaryMissing):
                again.decode_frame(made.name)
            with pytest.raises(ChunkCorrupt, match=f"dictionary {dictionary.digest.hex()}"):
                again.read_chunk(digest(samples[0]))
            again.store.put("dictionaries", dictionary.digest.hex(), dictionary.plain)
            assert again.read_chunk(digest(samples[0])) == samples[0]


# -- caches


def test_frame_cache_bounds() -> None:
    cache = FrameCache(100_000)
    views = []
    for number in range(200):
        plain = bytes([number]) * 10_000
        cache.add(b"frame %d" % number, plain, [(b"chunk %d.%d" % (number, n), n * 100, 100) for n in range(3)], True)
        assert cache._held <= 100_000
        views.append(cache.get(b"chunk %d.1" % number))
    assert len(cache._frames) == 9 and len(cache._chunks) == 27
    assert cache.get(b"chunk 5.1") is None and cache.get(b"chunk 199.1") is not None
    assert [bytes(view) for view in views if view] == [bytes([number]) * 100 for number in range(200)]
    cache.get(b"chunk 191.0")
    cache.add(b"new", bytes(10_000), [(b"new", 0, 1)], True)
    assert cache.get(b"chunk 191.0") is not None and cache.get(b"chunk 192.0") is None  # least recently used first
    cache.add(b"huge", bytes(200_000), [(b"huge", 0, 1)], True)
    assert cache.get(b"huge") is None and len(cache._frames) == 9
    view = cache.get(b"new")
    assert view is not None and view.readonly


def test_one_chunk_in_two_cached_frames() -> None:
    cache = FrameCache(2700)
    cache.add(b"old", b"x" * 1000, [(b"both", 0, 10)], True)
    cache.add(b"new", b"x" * 1000, [(b"both", 5, 10)], True)
    cache.add(b"third", b"y" * 1000, [(b"other", 0, 10)], True)
    assert b"old" not in cache._frames and cache.get(b"both") is not None


def test_cache_under_threads() -> None:
    cache = FrameCache(20_000)
    stop = threading.Event()

    def fill(thread: int) -> None:
        rng = random.Random(thread)
        while not stop.is_set():
            number = rng.randrange(50)
            cache.add(b"%d" % number, bytes([number]) * 3000, [(b"c%d" % number, 0, 3000)], True)

    def look(thread: int) -> None:
        rng = random.Random(thread)
        for _ in range(20_000):
            number = rng.randrange(50)
            found = cache.get(b"c%d" % number)
            assert found is None or found[0] == number
        stop.set()

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(look if thread < 2 else fill, thread) for thread in range(6)]:
            done.result(600)
    assert cache._held <= 20_000 and cache._held == sum(held for _, _, held in cache._frames.values())


# -- opening


def test_opening_what_is_not_one(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreNotFound):
        Repository.open(url)
    store = open_store(url, create=True)
    with pytest.raises(NotARepository):
        Repository.open(url)
    # A store that lost its config is not silently made anew, whatever is left in it.
    for namespace in ("log", "frames", "index", "dictionaries"):
        store.put(namespace, "a", b"x")
        for create in (False, True):
            with pytest.raises(NotARepository):
                Repository.open(url, create=create)
        store.delete(namespace, ["a"])
    Repository.open(url, create=True).close()
    config = store.get("config", "config")
    for changed, kind in (
        (b"", CorruptData),
        (config[:-1], CorruptData),
        (config[:20] + bytes([config[20] ^ 1]) + config[21:], CorruptData),
        (sealed(b"\x91\x05"), FormatTooNew),
        (sealed(b"\xa1\xff"), FormatTooNew),
        (sealed(config[:-32].replace(b"spraydry\x01", b"spraydry\x02")), FormatTooNew),
        (sealed(config[:-32].replace(b"spraydry\x01", b"sprayers\x01")), NotARepository),
        (sealed(config[:-32].replace(b"spraydry\x01", b"spraydry\xcc\x01")), CorruptData),
    ):
        store.put("config", "config", changed)
        with pytest.raises(kind):
            Repository.open(url, create=True)
    store.put("config", "config", config)
    Repository.open(url).close()
    store.close()


def sealed(plain: bytes) -> bytes:
    return plain + digest(plain)


def test_each_repository_has_its_own_id(tmp_path: Path) -> None:
    ids = set()
    for number in range(3):
        with Repository.open(f"{tmp_path}/{number}", create=True) as made:
            ids |= {made.config.repository, made.config.store}
    assert len(ids) == 6


def adopt(previous: bytes, now_ns: int) -> AnyRecord:
    return DictionariesRecord(format=1, previous=previous, made_ns=now_ns, made_by="test", adopted=())


def test_a_log_cut_short_is_noticed(repository: Repository) -> None:
    for _ in range(3):
        repository.log.append(adopt)
        repository.remember_head()
    last = repository.store.get("log", "000000000003")
    path = repository.url
    repository.store.delete("log", ["000000000003"])
    with pytest.raises(CorruptData, match="cut short"):
        Repository.open(path)
    with pytest.raises(CorruptData, match="cut short"):
        repository.refresh()
    repository.store.put("log", "000000000003", last)
    repository.refresh()
    repository.store.delete("log", ["000000000003"])
    repository.log.append(lambda previous, now_ns: adopt(previous, 5))
    with pytest.raises(CorruptData, match="cut short or replaced"):
        Repository.open(path)


def test_a_read_only_repository_is_not_written(repository_path: str) -> None:
    Repository.open(repository_path, create=True).close()
    with Repository.open(repository_path, read_only=True) as repository:
        with pytest.raises(StoreReadOnly):
            write(repository, chunks(1))
        with pytest.raises(StoreReadOnly):
            repository.log.append(adopt)


def test_damaged_runs_do_not_stop_the_rest(tmp_path: Path) -> None:
    url = f"memory:{tmp_path}"
    first, second = chunks(20), chunks(20, seed=2)
    with Repository.open(url, create=True) as repository:
        write(repository, first)
        (damaged,) = [value.name for value in repository.store.list("index")]
        write(repository, second)
        run = repository.store.get("index", damaged)
        for changed in (run[:-1], b"", run[:40] + bytes((run[40] ^ 1,)) + run[41:]):
            repository.store.put("index", damaged, changed)
            with Repository.open(url) as again:
                assert set(again.damaged_runs) == {damaged}
                assert read_all(again, second)
                with pytest.raises(ChunkNotFound):
                    again.read_chunk(next(iter(first)))
                again.rebuild_catalog()
                assert read_all(again, first)
        garbage = b"not a run at all"
        repository.store.put("index", digest(garbage).hex(), garbage)
        with Repository.open(url) as again:
            assert digest(garbage).hex() in again.damaged_runs


# -- rebuilding and copying


def answers(repository: Repository, wanted: Chunks) -> tuple[object, ...]:
    catalog = repository.catalog
    return (
        {name: set(catalog.chunks.locate(name)) for name in wanted},
        catalog.chunks.known(list(wanted)),
        sorted((info.name, info) for _, info in catalog.frames()),
        catalog.chunks.rows_count(),
        catalog.usage(),
    )


def test_rebuilding_gives_the_same_answers(url: str) -> None:
    wanted = chunks(300)
    with Repository.open(url, create=True) as repository:
        write(repository, wanted)
        write(repository, chunks(100, seed=2))
        put_frame(repository, list(wanted.values())[:5])
        before = answers(repository, wanted)
        repository.log.append(adopt)
        assert repository.rebuild_catalog() == len(list(repository.store.list("frames")))
        assert answers(repository, wanted) == before
        assert repository.catalog.state("head") is not None
        assert repository.catalog.runs() >= {value.name for value in repository.store.list("index")}
        repository.refresh()
        assert answers(repository, wanted) == before


def test_rebuilding_from_frames_alone(repository: Repository) -> None:
    """Frames whose run was never written are used again, so that an interrupted ingest loses nothing."""
    wanted = chunks(100)
    write(repository, wanted)
    before = answers(repository, wanted)
    repository.store.delete("index", [value.name for value in repository.store.list("index")])
    repository.rebuild_catalog()
    assert answers(repository, wanted) == before


def test_rebuilding_trusts_only_what_it_decoded(repository: Repository) -> None:
    good, bad = put_frame(repository, [b"good " * 100]), put_frame(repository, [b"bad " * 100, b"more " * 100])
    gone = put_frame(repository, [b"gone " * 100])
    damage(repository, bad)
    repository.store.delete("frames", [gone.name.hex()])
    repository.store.put("frames", "00" * 32, b"junk")
    repository.store.put("frames", "not-a-digest", b"junk")
    assert repository.rebuild_catalog() == 1
    names = [digest(plain) for plain in (b"good " * 100, b"bad " * 100, b"more " * 100, b"gone " * 100)]
    assert repository.catalog.chunks.known(names) == {names[0]}
    assert repository.read_chunk(names[0]) == b"good " * 100
    with pytest.raises(ChunkCorrupt, match=bad.name.hex()):
        repository.read_chunk(names[1])
    with pytest.raises(ChunkCorrupt, match=f"{gone.name.hex()} is gone"):
        repository.read_chunk(names[3])
    assert good.name in {info.name for _, info in repository.catalog.frames()}


def test_copies_open(repository_path: str, tmp_path: Path) -> None:
    wanted = chunks(200)
    with Repository.open(repository_path, create=True) as repository:
        write(repository, wanted)
        repository.log.append(adopt)
        repository.remember_head()
        before = answers(repository, wanted)
        raw = apsw.Connection(repository_path)
        raw.execute("VACUUM INTO ?", (f"{tmp_path}/vacuumed",))
        raw.close()
    assert os.listdir(os.path.dirname(repository_path)).count("repository.sqlite-wal") == 0
    shutil.copy(repository_path, tmp_path / "copy")
    for copy in ("copy", "vacuumed"):
        for read_only in (True, False):
            with Repository.open(f"{tmp_path}/{copy}", read_only=read_only) as opened:
                assert read_all(opened, wanted) and answers(opened, wanted) == before
                assert opened.log.head[0] == 1
        with Repository.open(f"{tmp_path}/{copy}") as opened:
            write(opened, chunks(10, seed=9))


def test_every_byte_of_a_frame_flipped(repository: Repository) -> None:
    plains = [b"def f(x):\n    return x\n" * 20, b"short"]
    made = put_frame(repository, plains)
    names = [digest(plain) for plain in plains]
    failed = 0
    for at in range(len(made.stored)):
        damage(repository, made, at)
        repository._frames = FrameCache(1 << 20)
        for name, plain in zip(names, plains, strict=True):
            try:
                assert repository.read_chunk(name) == plain
            except (ChunkCorrupt, ValueNotFound):
                failed += 1
    assert failed > len(made.stored) // 2


def test_a_cached_frame_is_compared_when_its_digests_are_claimed() -> None:
    cache = FrameCache(20_000)
    right, wrong = b"r" * 100, b"w" * 100
    claims = [(digest(right), 0, 100), (digest(wrong), 100, 100)]
    cache.add(b"frame", right + wrong, claims, False)
    assert cache.get(digest(right)) == right and cache.get(digest(wrong)) == wrong
    cache.drop(b"frame")
    assert cache.get(digest(right)) is None
    cache.add(b"frame", right + b"flipped".ljust(100), claims, False)
    assert cache.get(digest(right)) == right
    assert cache.get(digest(wrong)) is None
    assert cache.get(digest(right)) is None and not cache._frames  # nothing of such a frame is served any more


def test_a_frame_that_comes_back_while_a_chunk_is_looked_up() -> None:
    cache = FrameCache(20_000)
    right = b"r" * 100

    class Interrupted(dict[bytes, Any]):
        def get(self, name: bytes, default: Any = None) -> Any:
            found = super().get(name, default)
            if found and len(cache._frames) == 1:
                dict.clear(self)
                cache._frames.clear()
                cache.add(b"frame", b"w" * 100, [(name, 0, 100)], False)  # damaged since
            return found

    cache._chunks = Interrupted()
    cache.add(b"frame", right, [(digest(right), 0, 100)], True)
    assert cache.get(digest(right)) == right  # what was verified, not what lies there now


def test_a_frame_that_changes_between_two_readings(repository_path: str, rng: random.Random) -> None:
    chunks = [rng.randbytes(50_000) for _ in range(8)]
    names = [digest(chunk) for chunk in chunks]
    with Repository.open(repository_path, create=True) as repository, Writer(repository) as writer:
        for name, chunk in zip(names, chunks, strict=True):
            writer.add(name, chunk, "other")
        writer.finish()
    with Repository.open(repository_path, cache_bytes=1 << 20) as repository:
        assert [bytes(repository.read_chunk(name)) for name in names] == chunks
        (stored,) = repository.store.list("frames")
        value = bytearray(repository.store.get("frames", stored.name))
        value[-1] ^= 1  # in the last chunk, stored raw
        repository.store.put("frames", stored.name, bytes(value))
        repository._frames.drop(bytes.fromhex(stored.name))
        assert bytes(repository.read_chunk(names[0])) == chunks[0]
        with pytest.raises(ChunkCorrupt):
            repository.read_chunk(names[-1])
        assert bytes(repository.read_chunk(names[1])) == chunks[1]


def test_few_chunks_of_a_frame_are_verified_alone_then_all(
    repository_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plains = [b"%d" % number * 50 for number in range(40)]
    names = [digest(plain) for plain in plains]
    with Repository.open(repository_path, create=True) as repository, Writer(repository, threads=1) as writer:
        for name, plain in zip(names, plains, strict=True):
            writer.add(name, plain, "other")
        writer.finish()
    with Repository.open(repository_path) as repository:
        loaded: list[bytes] = []
        load = repository._load
        monkeypatch.setattr(repository, "_load", lambda frame, name: loaded.append(frame) or load(frame, name))
        gets: list[str] = []
        get = repository.store.get
        monkeypatch.setattr(repository.store, "get", lambda space, name: gets.append(name) or get(space, name))
        for name, plain in zip(names[:8], plains, strict=False):
            assert repository.read_single(name) == plain
        assert not loaded and len(gets) == 1 and repository.peek_chunk(names[0]) is None
        for name, plain in zip(names, plains, strict=True):
            assert repository.read_single(name) == plain
        assert len(loaded) == 1 and len(gets) == 2 and not repository._singles
        with pytest.raises(ChunkNotFound):
            repository.read_single(digest(b"nowhere"))


def test_a_single_chunk_that_is_not_what_its_name_says_is_never_given(repository: Repository) -> None:
    plains = [b"%d" % number * 50 for number in range(4)]
    with Writer(repository, threads=1) as writer:
        for plain in plains:
            writer.add(digest(plain), plain, "other")
        writer.finish()
    name = digest(plains[1])
    (place,) = repository.catalog.chunks.locate(name)
    lies = place._replace(offset=place.offset + 1)
    locate = repository.catalog.chunks.locate
    repository.catalog.chunks.locate = lambda wanted: [lies] if wanted == name else locate(wanted)  # type: ignore[method-assign]
    assert repository.read_single(name) == plains[1]
    repository._singles[place.frame] = bytes(200), 0
    assert repository.read_single(digest(plains[2])) == plains[2]
