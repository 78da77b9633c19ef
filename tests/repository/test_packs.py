"""Log packs: made while committing, read instead of slots, and never believed against the log."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import spraydry
from spraydry.actions.collect import gc
from spraydry.errors import CorruptData, StoreUnavailable
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.version import DictionariesRecord, decode_record, encode_record
from spraydry.repository import packs
from spraydry.repository.log import Log
from spraydry.repository.repository import Repository
from spraydry.repository.slots import slot_name
from spraydry.stores.base import Store, open_store
from spraydry.stores.memory import MemoryStore
from spraydry.stores.shared.listing import decode, encode, listing_of


class Counting(MemoryStore):
    """Counts the values of the log that are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        self.asked += namespace == "log"
        return super().get(namespace, name, start, length)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "SLOTS", 10)


def fill(store: Store, count: int, after: int = 0, previous: bytes = bytes(32), by: str = "test") -> bytes:
    """Put records into the slots behind `after`, one following the other; the last digest."""
    for slot in range(after + 1, after + count + 1):
        record = DictionariesRecord(format=1, previous=previous, made_ns=slot, made_by=f"{by} {slot}", adopted=())
        value = encode_record(record)
        store.put("log", slot_name(slot), value)
        previous = value[-32:]
    return previous


def packed(store: Store, count: int) -> Log:
    """The log of a store with so many slots, and all packs that are due."""
    fill(store, count)
    log = Log(store)
    log.read()
    log.pack(1000)
    return log


def names(store: Store) -> list[str]:
    return [stored.name for stored in store.list("hoards")]


def reread(store: Store) -> Log:
    log = Log(store)
    log.read()
    return log


def values_of(store: Store, first: int, last: int) -> list[bytes]:
    return [store.get("log", slot_name(slot)) for slot in range(first, last + 1)]


def frame_of(values: list[bytes]) -> bytes:
    return frames.encode(values, "log", salt=bytes(16)).stored


def test_a_long_log_is_read_from_packs(small: None) -> None:
    store = Counting()
    log = packed(store, 57)
    assert names(store) == [f"log-{at + 1:012d}-{at + 10:012d}" for at in range(0, 50, 10)]
    store.asked = 0
    again = reread(store)
    assert again.digests == log.digests and again.records == log.records
    assert store.asked == 1 + 7  # the slot in which the packs end, and those behind


def test_a_short_log_has_none(small: None) -> None:
    store = Counting()
    assert packed(store, 9).pack(10) == 0 and names(store) == []
    fill(store, 1, 9, reread(store).head[1])
    log = reread(store)
    assert log.pack(10) == 1 and log.pack(10) == 0


def test_writers_make_the_same_pack(small: None) -> None:
    one, other = MemoryStore(), MemoryStore()
    packed(one, 20)
    packed(other, 20)
    assert names(one) == names(other)
    assert all(one.get("hoards", name) == other.get("hoards", name) for name in names(one))


def test_one_at_a_time_goes_on_where_the_last_ended(small: None) -> None:
    store = MemoryStore()
    fill(store, 40)
    for count in range(1, 5):
        assert reread(store).pack(1) == 1 and len(names(store)) == count
    assert reread(store).pack(1) == 0


@pytest.mark.parametrize("hurt", ["missing", "cut", "flipped", "empty", "noise", "short", "dictionary"])
def test_a_damaged_pack_is_passed_over_and_made_anew(small: None, hurt: str) -> None:
    store = Counting()
    before = packed(store, 50)
    name = names(store)[2]
    good = store.get("hoards", name)
    bad = {
        "missing": b"",
        "cut": good[:-1],
        "flipped": good[:-40] + bytes([good[-40] ^ 1]) + good[-39:],
        "empty": b"",
        "noise": b"\xff" * 100,
        "short": frame_of(values_of(store, 21, 29)),
        "dictionary": good[:60] + b"\xc4\x20" + good[62:],
    }[hurt]
    store.put("hoards", name, bad)
    if hurt == "missing":
        store.delete("hoards", [name])
    store.asked = 0
    log = reread(store)
    assert log.digests == before.digests and store.asked <= 1 + 10 + 1
    if hurt != "missing":
        assert log.pack(9) == 1 and store.get("hoards", name) == good


def test_a_flipped_bit_anywhere_changes_nothing_that_is_read(small: None) -> None:
    store = MemoryStore()
    before = packed(store, 30)
    name = names(store)[1]
    good = store.get("hoards", name)
    for at in range(0, len(good), 7):
        store.put("hoards", name, good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :])
        assert reread(store).digests == before.digests


@pytest.mark.parametrize("forged", [(2,), (4,), (0, 1, 2, 3, 4), (2, 3, 4)])
def test_forged_packs_are_noticed(small: None, forged: tuple[int, ...]) -> None:
    """Records that are sound and follow each other, but are not those of the log."""
    store, false = MemoryStore(), MemoryStore()
    before = packed(store, 50)
    first = forged[0] * 10
    previous = decode_record(store.get("log", slot_name(first + 1)), first + 1)[0].previous
    fill(false, 50 - first, first, previous, "forged")
    for place in forged:
        values = values_of(false, place * 10 + 1, place * 10 + 10)
        store.put("hoards", names(store)[place], frame_of(values))
    log = reread(store)
    assert log.digests == before.digests and log.records == before.records
    assert log.pack(9) == 5 and reread(store).digests == before.digests


def test_packs_of_what_is_not_there_are_passed_over(small: None) -> None:
    store, longer = MemoryStore(), MemoryStore()
    fill(longer, 60)
    for slot in range(1, 36):
        store.put("log", slot_name(slot), longer.get("log", slot_name(slot)))
    packed(longer, 60)
    for name in names(longer):
        store.put("hoards", name, longer.get("hoards", name))
    assert reread(store).digests == reread(longer).digests[:35]


def test_names_that_are_no_packs(small: None) -> None:
    store = MemoryStore()
    before = packed(store, 30)
    for name in ("log-", "log-1-2", "log-000000000020-000000000011", "log-000000000001-000000900000", "log-x", "zzz"):
        store.put("hoards", name, b"?")
    store.put("hoards", "log-000000000005-000000000014", store.get("hoards", names(store)[2]))
    assert reread(store).digests == before.digests


def test_a_record_of_a_newer_kind_in_a_pack_does_not_end_the_log(small: None) -> None:
    store = MemoryStore()
    before = packed(store, 30)
    values = values_of(store, 11, 20)
    plain = b"\x92\x7f\x01"
    values[3] = plain + digest(plain)
    store.put("hoards", names(store)[1], frame_of(values))
    assert reread(store).digests == before.digests


def test_a_slot_damaged_in_the_log_is_read_from_its_pack_and_never_packed(small: None) -> None:
    store = MemoryStore()
    before = packed(store, 30)
    store.put("log", slot_name(15), b"?")
    assert reread(store).digests == before.digests
    store.delete("hoards", names(store))
    with pytest.raises(CorruptData, match="slot 15 is damaged"):
        reread(store)
    assert before._packed == 30
    before._packed = 10
    assert before.pack(5) == 0 and names(store) == []


def test_where_packs_cannot_be_listed_slots_are_read(small: None) -> None:
    class Silent(MemoryStore):
        def list(self, namespace, after=""):  # type: ignore[no-untyped-def]
            if namespace == "hoards":
                raise StoreUnavailable("no")
            return super().list(namespace, after)

    store = Silent()
    fill(store, 50)
    assert len(reread(store).digests) == 50


def test_a_record_longer_than_a_pack_stays_in_its_slot(small: None) -> None:
    store = Counting()
    previous = fill(store, 4)
    long = "x" * (frames.MAX_PLAIN_BYTES + 1)
    value = encode_record(DictionariesRecord(format=1, previous=previous, made_ns=1, made_by=long, adopted=()))
    store.put("log", slot_name(5), value)
    fill(store, 45, 5, value[-32:])
    before = reread(store)
    assert before.pack(99) == 5
    assert packs.listed(store) == [(1, 4), (6, 14), (15, 24), (25, 34), (35, 44)]
    store.asked = 0
    log = reread(store)
    assert log.digests == before.digests and store.asked == 1 + 1 + 6
    assert log.pack(99) == 0


def test_the_listing_for_web_servers_leaves_out_what_is_packed(small: None, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = open_store(f"dir:{folder}", create=True)
    before = packed(store, 45)
    store.flush()
    found = decode((folder / "listing").read_bytes())
    assert list(found.values["log"]) == [slot_name(slot) for slot in range(40, 46)]
    assert list(found.values["hoards"]) == names(store)
    with served(folder) as url:
        web = open_store(url)
        assert reread(web).digests == before.digests
        name = names(store)[2]
        (folder / "hoards" / name).write_bytes(b"?")
        assert reread(web).digests == before.digests  # the slots are there, though not listed
        web.close()
    for name in names(store):
        store.delete("hoards", [name])
    store.put("hoards", "log-000000000001-999999999999", b"?")
    store.flush()
    assert len(decode((folder / "listing").read_bytes()).values["log"]) == 45
    store.close()


def test_a_listing_with_packs_is_of_a_newer_format(small: None) -> None:
    store = MemoryStore()
    packed(store, 9)
    assert listing_of(store).startswith(b"spraydry listing 1\n")
    packed(store, 25)
    value = listing_of(store)
    assert value.startswith(b"spraydry listing 2\n") and encode(decode(value)) == value
    text = value.replace(b"listing 2", b"listing 1").rpartition(b"digest ")[0]
    with pytest.raises(CorruptData):
        decode(text + b"digest " + digest(text).hex().encode() + b"\n")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_commits_write_packs_and_make_up_for_killed_ones(
    small: None, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(times: int) -> None:
        for _ in range(times):
            spraydry.put(repository, "root", "file", io.BytesIO(random.randbytes(20)))

    def killed(*_: object) -> None:
        raise StoreUnavailable("gone")

    put(12)
    assert len(names(repository.store)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(packs, "write", killed)
        put(20)
    assert len(names(repository.store)) == 1 and repository.log.head[0] == 32
    put(2)
    assert len(names(repository.store)) == 3
    repository.store.delete("hoards", names(repository.store))
    with Repository.open(repository.url) as other:
        assert other.log.digests == repository.log.digests
        gc(other)
        assert len(names(other.store)) == other.log.head[0] // 10 == 3
