"""The log: order, chain, races, names, removal, tags, revoking, and what must never be committed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from spraydry.errors import CorruptData, RootNotFound, SlotTaken, VersionExists, VersionNotFound
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, Subtree
from spraydry.format.version import (
    AnyRecord,
    CollectRecord,
    CondemnRecord,
    DictionariesRecord,
    DropRecord,
    RemovalRecord,
    RevokeRecord,
    TagRecord,
    VersionRecord,
    encode_record,
)
from spraydry.repository.log import Log
from spraydry.repository.slots import slot_name
from spraydry.stores.base import Store, open_store
from spraydry.stores.memory import MemoryStore
from tests.format.samples import entry

Make = Callable[[bytes, int], AnyRecord]
A, B, C = (digest(letter) for letter in (b"a", b"b", b"c"))


def common(previous: bytes, now_ns: int) -> dict[str, object]:
    return {"format": 1, "previous": previous, "made_ns": now_ns, "made_by": "test"}


def version(root: str, name: str | Callable[[], str]) -> Make:
    return lambda previous, now_ns: VersionRecord(
        **common(previous, now_ns),  # type: ignore[arg-type]
        root=root,
        name=name if isinstance(name, str) else name(),
        entry=entry(b"", DIRECTORY, 0, Subtree(A, 0, 0, 0, 0)),
        links=None,
        spec="fixed:size=64K",
        users=(),
        groups=(),
        incomplete=False,
        new_bytes=0,
        stored_bytes=0,
    )


def record(kind: type[AnyRecord], **fields: object) -> Make:
    return lambda previous, now_ns: kind(**common(previous, now_ns), **fields)  # type: ignore[arg-type]


@pytest.fixture
def store() -> Store:
    return MemoryStore()


@pytest.fixture
def log(store: Store) -> Log:
    return Log(store)


def commit(log: Log, *makes: Make) -> None:
    for make in makes:
        log.append(make)


def names(log: Log, root: str = "photos") -> list[str]:
    return [found.name for found in log.versions(root)]


def reread(store: Store) -> Log:
    log = Log(store)
    log.read()
    return log


def test_versions_in_order(log: Log, store: Store) -> None:
    assert log.head == (0, bytes(32)) and log.roots() == []
    commit(log, version("photos", "v1"), version("music", "v1"), version("photos", "zzz"), version("photos", "aaa"))
    for seen in (log, reread(store)):
        assert names(seen) == ["v1", "zzz", "aaa"]
        assert seen.roots() == ["music", "photos"]
        assert seen.find("photos").name == seen.find("photos", "latest").name == "aaa"
        assert seen.find("photos", "v1").slot == 1
        assert seen.head[0] == 4 and seen.head[1] == digest(store.get("log", slot_name(4))[:-32])
        assert seen.next_name("photos") == "v2" and seen.next_name("new") == "v1"


def test_what_is_not_there_names_what_is_near(log: Log) -> None:
    with pytest.raises(RootNotFound, match="ingest"):
        log.find("photos")
    commit(log, version("photos", "v1"))
    with pytest.raises(RootNotFound, match="photos"):
        log.find("fotos")
    with pytest.raises(VersionNotFound, match="v1"):
        log.find("photos", "v7")


def test_names_are_never_used_twice(log: Log, store: Store) -> None:
    commit(log, version("photos", "v1"), version("photos", "v2"), record(RemovalRecord, slot=2))
    with pytest.raises(VersionExists, match="never used twice"):
        log.check_unused("photos", "v2")
    with pytest.raises(VersionExists):
        log.check_unused("photos", "v1")
    log.check_unused("music", "v1")
    assert log.next_name("photos") == "v3"
    # A caller who forgot to check must not end the log for everybody.
    for make in (version("photos", "v2"), record(TagRecord, root="photos", name="v1", slot=1)):
        with pytest.raises(CorruptData):
            log.append(make)
    assert reread(store).head[0] == 3


def test_removal_and_taking_it_back(log: Log, store: Store) -> None:
    commit(log, version("photos", "v1"), version("photos", "v2"), record(RemovalRecord, slot=2))
    assert names(log) == ["v1"] and log.find("photos").name == "v1"
    with pytest.raises(VersionNotFound, match="any more"):
        log.find("photos", "v2")
    digests = log.digests
    assert log.live_slot(1, digests[0]) and not log.live_slot(2, digests[1]) and not log.live_slot(1, digests[1])
    commit(log, record(RemovalRecord, slot=1))
    assert log.roots() == []
    commit(log, record(RevokeRecord, slot=3))
    assert names(log) == names(reread(store)) == ["v2"]
    commit(log, record(RevokeRecord, slot=4), record(RevokeRecord, slot=3))
    assert names(log) == names(reread(store)) == ["v1", "v2"]


def test_what_two_removals_took_needs_both_taken_back(log: Log, store: Store) -> None:
    commit(log, version("photos", "v1"), record(RemovalRecord, slot=1), record(RemovalRecord, slot=1))
    commit(log, record(RevokeRecord, slot=2))
    assert names(log) == names(reread(store)) == []
    commit(log, record(RevokeRecord, slot=3))
    assert names(log) == names(reread(store)) == ["v1"]


def test_tags(log: Log, store: Store) -> None:
    commit(log, version("photos", "v1"), record(TagRecord, root="photos", name="best", slot=1), version("photos", "v2"))
    best = log.find("photos", "best")
    assert (best.slot, best.made_in, best.record) == (2, 1, log.find("photos", "v1").record)
    assert log.find("photos").name == "v2"
    commit(log, record(RemovalRecord, slot=1))
    assert names(log) == ["best", "v2"] and log.live_slot(1, log.digests[0])
    commit(log, record(TagRecord, root="photos", name="again", slot=2), record(RemovalRecord, slot=2))
    assert names(reread(store)) == ["v2", "again"] and log.find("photos", "again").made_in == 1
    commit(log, record(RemovalRecord, slot=5))
    assert not log.live_slot(1, log.digests[0])


def test_condemned(log: Log, store: Store) -> None:
    first, both = tuple(sorted((A, B))), tuple(sorted((B, C)))
    commit(log, record(CondemnRecord, frames=first), version("photos", "v1"), record(CondemnRecord, frames=both))
    assert log.condemned_since(0) == {A, B, C} and log.condemned_since(1) == {B, C} and not log.condemned_since(3)
    commit(log, record(RevokeRecord, slot=1))
    for seen in (log, reread(store)):
        assert seen.condemned_since(0) == {B, C}, "B is condemned by slot 3 too"
    commit(log, record(RevokeRecord, slot=3))
    assert reread(store).condemned_since(0) == set()


def test_dictionaries(log: Log, store: Store) -> None:
    commit(log, record(DictionariesRecord, adopted=(("json", A), ("python", B))))
    assert reread(store).dictionaries == {"json": A, "python": B}
    commit(log, record(DictionariesRecord, adopted=(("json", C),)))
    assert log.dictionaries == reread(store).dictionaries == {"json": C}


def test_dropped(log: Log, store: Store) -> None:
    first, both = tuple(sorted((A, B))), tuple(sorted((B, C)))
    adopted = record(DictionariesRecord, adopted=(("json", A),))
    commit(log, adopted)
    with pytest.raises(CorruptData, match="in use"):
        log.append(record(DropRecord, dictionaries=first))
    commit(log, record(DictionariesRecord, adopted=()), record(DropRecord, dictionaries=first))
    commit(log, record(DropRecord, dictionaries=both), version("photos", "v1"))
    for seen in (log, reread(store)):
        assert seen.dropped == {A, B, C} and not seen.condemned
        assert seen.given_up_since(2) and seen.given_up_since(3) and not seen.given_up_since(4)
    with pytest.raises(CorruptData, match="given up"):
        log.append(adopted)
    commit(log, record(RevokeRecord, slot=3), record(CollectRecord, slot=4))
    for seen in (log, reread(store)):
        assert seen.dropped == {B, C}, "B is dropped by slot 4 too"
        assert [(slot, collected) for slot, _, collected in seen.drops()] == [(4, True)]
        assert not list(seen.sentences())
    for make in (record(RevokeRecord, slot=4), record(CollectRecord, slot=3)):
        with pytest.raises(CorruptData):
            log.append(make)
    commit(log, adopted)


@pytest.mark.parametrize(
    "make",
    [
        record(RemovalRecord, slot=2),
        record(RemovalRecord, slot=3),
        record(RemovalRecord, slot=99),
        record(TagRecord, root="photos", name="x", slot=2),
        record(TagRecord, root="music", name="x", slot=1),
        record(RevokeRecord, slot=1),
        record(RevokeRecord, slot=3),
        record(CondemnRecord, frames=(B, A) if B > A else (A, B)),
        version("photos", "bad name"),
        version("photos", "latest"),
        lambda previous, now_ns: record(RemovalRecord, slot=1)(A, now_ns),
    ],
)
def test_what_nobody_could_read_is_not_committed(log: Log, store: Store, make: Make) -> None:
    commit(log, version("photos", "v1"), record(DictionariesRecord, adopted=()))
    with pytest.raises(CorruptData):
        log.append(make)
    assert [stored.name for stored in store.list("log")] == [slot_name(1), slot_name(2)]
    commit(log, version("photos", "v2"))
    assert names(reread(store)) == ["v1", "v2"]


@pytest.mark.parametrize("damage", ["gap", "flip", "swap", "foreign", "reordered"])
def test_broken_chains(log: Log, store: Store, damage: str) -> None:
    commit(log, *(version("photos", f"v{number}") for number in range(1, 6)))
    values = [store.get("log", slot_name(slot)) for slot in range(1, 6)]
    match damage:
        case "gap":
            store.delete("log", [slot_name(3)])
        case "flip":
            store.put("log", slot_name(3), values[2][:50] + bytes([values[2][50] ^ 1]) + values[2][51:])
        case "swap":
            store.put_many("log", [(slot_name(3), values[3]), (slot_name(4), values[2])])
        case "foreign":
            store.put("log", slot_name(3), encode_record(version("photos", "other")(A, 0)))
        case _:
            store.put("log", "zzz", b"")
    with pytest.raises(CorruptData):
        reread(store)
    with pytest.raises(CorruptData):
        reread(store).append(version("photos", "v9"))
    assert store.info("log", slot_name(6)) is None


def test_a_rolled_back_append_is_forgotten(tmp_path: object) -> None:
    store = open_store(f"{tmp_path}/store", create=True)
    log = Log(store)
    commit(log, version("photos", "v1"))
    with pytest.raises(ZeroDivisionError), store.batch():
        commit(log, version("photos", "v2"))
        raise ZeroDivisionError  # as a full disk would at the commit
    assert log.read() == 1 and names(log) == ["v1"]
    commit(log, version("photos", "v3"))
    assert names(reread(store)) == ["v1", "v3"]
    store.close()


def test_racing_threads_win_slots_one_each(store: Store) -> None:
    logs = [Log(store) for _ in range(8)]

    def race(thread: int) -> list[int]:
        log = logs[thread]
        return [log.append(version("photos", lambda: log.next_name("photos")))[0] for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        slots = sorted(slot for won in pool.map(race, range(8)) for slot in won)
    assert slots == list(range(1, 81))
    assert names(reread(store)) == [f"v{number}" for number in range(1, 81)]


RACER = """
import sys
from spraydry.repository.log import Log
from spraydry.stores.base import open_store
from tests.repository.test_log import version
store = open_store(sys.argv[1], create=True)
log = Log(store)
sys.stdin.readline()
for _ in range(10):
    log.append(version("photos", lambda: log.next_name("photos")))
store.close()
"""


def test_racing_processes_win_slots_one_each(repository_path: str) -> None:
    open_store(repository_path, create=True).close()
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, repository_path], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write(b"\n")
        racer.stdin.flush()
    assert [racer.communicate(timeout=600)[1].decode() for racer in racers] == [""] * 4
    store = open_store(repository_path)
    assert names(reread(store)) == [f"v{number}" for number in range(1, 41)]
    store.close()


def test_losing_every_time_ends(store: Store) -> None:
    log, other = Log(store), Log(store)

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        commit(other, record(DictionariesRecord, adopted=()))
        return version("photos", "v1")(previous, now_ns)

    with pytest.raises(SlotTaken) as caught:
        log.append(make)
    assert caught.value.retryable
    assert log.read() == 100
