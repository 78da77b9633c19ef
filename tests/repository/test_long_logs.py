"""Long logs: what a checkpoint makes up for is not decoded, and all else is as when every record is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.errors import CorruptData, StoreUnavailable
from spraydry.format import frame as frames
from spraydry.format import version
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, FILE, Entry, Subtree
from spraydry.format.version import (
    AnyRecord,
    CheckpointRecord,
    CollectRecord,
    CondemnRecord,
    HoardRecord,
    RemovalRecord,
    RevokeRecord,
    VersionRecord,
    decode_record,
    encode_record,
    hoard_head,
)
from spraydry.repository import hoards, packs, slots
from spraydry.repository.hoards import Hoards, Puts
from spraydry.repository.log import Log
from spraydry.repository.slots import slot_name
from spraydry.stores.base import Store, Stored, Traits, open_store
from spraydry.stores.memory import MemoryStore

HOARDS = ("a", "b", "c")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "SLOTS", 10)


def put(log: Log, hoard: str, *changes: tuple[str, int | None], cleared: bool = False, made_ns: int = 5) -> int:
    """Let keys name files of so many bytes, or nothing; the slot."""
    told = tuple((key, None if size is None else file(size)) for key, size in sorted(changes))
    return append(log, lambda head: HoardRecord(**head, hoard=hoard, cleared=cleared, changes=told), made_ns)


def append(log: Log, make: Callable[[dict[str, object]], AnyRecord], made_ns: int = 5) -> int:
    def record(previous: bytes, _: int) -> AnyRecord:
        return make({"format": 1, "previous": previous, "made_ns": made_ns, "made_by": "test"})

    return log.append(record)[0]


def file(size: int) -> Entry:
    return Entry(b"", FILE, 0o644, 0, 0, 1, 0, size, digest(b"%d" % size) if size else None, (), None)


def folder(size: int) -> Entry:
    return Entry(b"", DIRECTORY, 0, 0, 0, 0, 0, 0, Subtree(digest(b"%d" % size), 1, 1, size, 1), (), None)


def checkpoint(log: Log, hoard: str, upto: int, size: int = 1) -> int:
    return append(log, lambda head: CheckpointRecord(**head, hoard=hoard, upto=upto, entry=folder(size)))


def version_of(name: str, head: dict[str, object]) -> VersionRecord:
    return VersionRecord(
        **head,
        root="root",
        name=name,
        entry=folder(1),
        links=None,
        spec="fixed:size=64K",
        users=(),
        groups=(),
        incomplete=False,
        new_bytes=0,
        stored_bytes=0,
    )


def filled(rng: random.Random, count: int) -> MemoryStore:
    """A store with a log of about so many records of many kinds, and its packs."""
    store = MemoryStore()
    log = Log(store)
    made: dict[str, list[int]] = {"version": [], "condemn": [], "removal": []}
    for number in range(count):
        hoard = rng.choice(HOARDS)
        kind = rng.randrange(40)
        changes = {f"key {rng.randrange(30)}": rng.choice([None, number]) for _ in range(rng.choice([1, 1, 1, 3]))}
        view = log.hoards.view(hoard)
        if kind == 0 and hoard in log.hoards.names():
            checkpoint(log, hoard, rng.randint(max(view.upto, 1), log.head[0]), number)
        elif kind == 1:
            put(log, hoard, *(changes.items() if rng.randrange(2) else ()), cleared=True)
        elif kind == 2:
            made["version"].append(append(log, lambda head, n=number: version_of(f"v{n}", head)))
        elif kind == 3 and made["version"]:
            slot = rng.choice(made["version"])
            made["removal"].append(append(log, lambda head, s=slot: RemovalRecord(**head, slot=s)))
        elif kind == 4:
            gone = tuple(sorted(digest(b"%d" % rng.randrange(9)) for _ in range(2)))
            if gone[0] < gone[1]:
                made["condemn"].append(append(log, lambda head, g=gone: CondemnRecord(**head, frames=g)))
        elif kind == 5 and made["removal"]:
            slot = made["removal"].pop()
            append(log, lambda head, s=slot: RevokeRecord(**head, slot=s))
        elif kind == 6 and made["condemn"]:
            slot, taken = made["condemn"].pop(), rng.randrange(2)
            append(log, lambda head, s=slot, t=taken: (RevokeRecord if t else CollectRecord)(**head, slot=s))
        else:
            put(log, hoard, *changes.items(), made_ns=rng.randrange(1 << 63))
    log.pack(count)
    return store


def told(log: Log) -> dict[str, object]:
    """All that a log says."""
    return {
        "digests": log.digests,
        "records": log.records,
        "views": {name: log.hoards.view(name) for name in HOARDS},
        "hoards": log.hoards.names(),
        "latest_ns": log.latest_ns,
        "puts": {name: log.puts(name) for name in HOARDS},
        "condemned": (log.condemned, list(log.sentences()), log.ever_condemned()),
        "versions": [log.versions(root) for root in log.roots()],
        "removed": list(log.removed()),
    }


def opened(store: Store) -> Log:
    log = Log(store)
    log.read()
    return log


def slowly(store: MemoryStore) -> Log:
    """The log, each record decoded as it comes."""
    log = Log(store)
    log._take_slots(len(list(store.list("log"))))
    return log


def repacked(store: MemoryStore) -> None:
    """Replace the packs by what the log has now."""
    for name in [stored.name for stored in store.list("hoards")]:
        pack = packs.packs_of([name])[0]
        values = [store.get("log", slot_name(slot)) for slot in range(pack.first, pack.last + 1)]
        store.put("hoards", name, frames.encode(values, "log", salt=bytes(16)).stored)


def chained(store: MemoryStore, plains: Sequence[bytes]) -> None:
    """Make these records the log, each following the one before, and packs of them."""
    previous = bytes(32)
    for slot, plain in enumerate(plains, 1):
        plain = plain[:5] + previous + plain[37:]
        previous = digest(plain)
        store.put("log", slot_name(slot), plain + previous)
    repacked(store)


def plains_of(store: MemoryStore) -> list[bytes]:
    return [value[:-32] for _, value in store.get_many("log", [stored.name for stored in store.list("log")]) if value]


@pytest.mark.parametrize("seed", range(12))
def test_packs_say_what_slots_do(seed: int) -> None:
    store = filled(random.Random(seed), 400)
    assert told(opened(store)) == told(slowly(store))


@pytest.mark.parametrize("most", [1, 7])
def test_what_waits_is_bounded(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(random.Random(20), 300)
    expected = told(slowly(store))
    waiting = 0
    later = Hoards.take_later

    def noted(self: Hoards, slot: int, hoard: str, value: bytes) -> Puts | None:
        nonlocal waiting
        kept = later(self, slot, hoard, value)
        waiting = max([waiting, *(len(state.waiting) for state in self._states.values())])
        return kept

    monkeypatch.setattr(Hoards, "take_later", noted)
    monkeypatch.setattr(hoards, "_MOST_WAITING", most)
    assert told(opened(store)) == expected and waiting == most
    monkeypatch.setattr(hoards, "_MOST_WAITING", 1000)
    monkeypatch.setattr(hoards, "_MOST_WAITING_BYTES", most * 80)  # none is shorter
    waiting = 0
    assert told(opened(store)) == expected and 0 < waiting <= most


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The slots of hoards' records that were decoded as they waited."""
    seen: list[int] = []

    def counted(value: bytes, slot: int) -> tuple[AnyRecord, bytes]:
        seen.append(slot)
        return decode_record(value, slot)

    monkeypatch.setattr(hoards, "decode_record", counted)
    yield seen


def long_hoard() -> MemoryStore:
    """40 puts into a hoard, a checkpoint of slot 35 in slot 41, then 9 more, all in packs."""
    store = MemoryStore()
    log = Log(store)
    for number in range(1, 41):
        put(log, "a", (f"key {number}", number))
    checkpoint(log, "a", 35)
    for number in range(42, 51):
        put(log, "a", (f"key {number}", number))
    log.pack(9)
    return store


def test_only_what_came_after_the_checkpoint_is_decoded(decoded: list[int]) -> None:
    log = opened(long_hoard())
    assert decoded == [*range(36, 41), *range(42, 51)]
    view = log.hoards.view("a")
    assert view.upto == 35 and [change.slot for change in view.changes.values()] == decoded


def test_a_removal_among_puts_is_never_passed_over() -> None:
    """Also one that says so in the very last slot of a pack, before the checkpoint."""
    store = MemoryStore()
    log = Log(store)
    append(log, lambda head: version_of("v1", head))
    condemned = digest(b"frame")
    for number in range(2, 60):
        if number in (10, 20, 31):
            kind = {
                10: lambda head: CondemnRecord(**head, frames=(condemned,)),
                20: lambda head: RemovalRecord(**head, slot=1),
                31: lambda head: CollectRecord(**head, slot=10),
            }[number]
            append(log, kind)
        else:
            put(log, "a", (f"key {number}", number))
    checkpoint(log, "a", 59)
    log.pack(9)
    log = opened(store)
    assert log.roots() == [] and log.condemned == {condemned} and next(log.sentences())[2]
    assert log.hoards.view("a").changes == {}


def spoilt(plain: bytes) -> bytes:
    """A record with the right front that no writer makes: its changes are no array of pairs."""
    record = decode_record(plain + digest(plain), 1)[0]
    assert isinstance(record, HoardRecord)
    key = record.changes[0][0].encode()
    return plain.replace(key, key[:-1] + b"\x01")


@pytest.mark.parametrize("slot", [38, 45, 50])
def test_a_record_that_cannot_be_ends_the_log_as_without_packs(slot: int) -> None:
    store = long_hoard()
    plains = plains_of(store)
    plains[slot - 1] = spoilt(plains[slot - 1])
    chained(store, plains)
    with pytest.raises(CorruptData, match=f"log slot {slot} holds a record that cannot be"):
        slowly(store)
    log = Log(store)
    for _ in range(2):
        with pytest.raises(CorruptData, match=f"log slot {slot} holds a record that cannot be"):
            log.read()
        assert len(log.digests) == slot - 1  # what comes before it is there
        assert {change.slot for change in log.hoards.view("a").changes.values()} <= set(range(1, slot))


def test_a_pack_that_says_otherwise_than_the_log_of_what_a_checkpoint_covers(decoded: list[int]) -> None:
    """A change of keys below the checkpoint changes the digests of all that follows, so that it is noticed."""
    store = long_hoard()
    before = told(slowly(store))
    false = MemoryStore()
    plains = plains_of(store)
    plains[4] = plains[4].replace(b"key 5", b"key x")
    for name in [stored.name for stored in store.list("hoards")]:
        false.put("hoards", name, b"")
    chained(false, plains)
    for stored in list(false.list("hoards")):
        store.put("hoards", stored.name, false.get("hoards", stored.name))
    log = opened(store)
    assert told(log) == before and log.pack(9) == 5  # they are written anew
    decoded.clear()
    assert told(opened(store)) == before and len(decoded) == 14


def test_swapped_truncated_and_stale_packs() -> None:
    store = long_hoard()
    before = told(slowly(store))
    names = [stored.name for stored in store.list("hoards")]
    good = {name: store.get("hoards", name) for name in names}
    for at in range(5):
        other = good[names[(at + 1) % 5]]
        for bad in (other, good[names[at]][:-1], b"", good[names[at]] + b"x"):
            store.put("hoards", names[at], bad)
            assert told(opened(store)) == before
        store.delete("hoards", [names[at]])
        assert told(opened(store)) == before
        store.put("hoards", names[at], good[names[at]])


def test_a_log_cut_below_its_packs_is_read_as_far_as_it_goes() -> None:
    store = long_hoard()
    for slot in range(44, 51):
        store.delete("log", [slot_name(slot)])
    log = opened(store)
    assert told(log) == told(slowly(store)) and log.head[0] == 43


def test_a_log_that_was_replaced_under_a_reader_is_read_anew() -> None:
    store = long_hoard()
    log = opened(store)
    plains = plains_of(store)
    chained(store, [plains[0].replace(b"key 1", b"key y"), *plains[1:]])
    assert log.read() == 50 and told(log) == told(slowly(store))


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), KeyboardInterrupt()])
def test_a_reading_that_broke_off_among_packs_is_made_up_for(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = long_hoard()
    read = packs.read

    def breaks(*arguments: object) -> Iterator[tuple[packs.Pack, list[bytes]]]:
        for count, found in enumerate(read(*arguments)):  # type: ignore[arg-type]
            if count == 3:
                raise error
            yield found

    def interrupted(self: Hoards) -> None:
        if any(state.waiting for state in self._states.values()):
            raise error

    log = Log(store)
    with monkeypatch.context() as patch:
        if isinstance(error, StoreUnavailable):
            patch.setattr(packs, "read", breaks)
        else:  # where all was read, before it is heeded
            patch.setattr(Hoards, "settle", interrupted)
        with pytest.raises(type(error)):
            log.read()
    if isinstance(error, KeyboardInterrupt):
        assert len(log.digests) == 50 and log.hoards.view("a").changes == {}
    else:
        assert len(log.digests) == 30 and len(log.hoards.view("a").changes) == 30
    assert log.follow() == 50 and told(log) == told(slowly(store))


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(0, (1 << 64) - 1),
    st.text(max_size=40),
    st.booleans(),
    st.integers(0, 5),
)
def test_the_front_of_a_record_is_what_decoding_it_says(
    previous: bytes, made_ns: int, made_by: str, cleared: bool, count: int
) -> None:
    changes = tuple((f"key {number}", file(number)) for number in range(count)) or ((("k", None),) * (not cleared))
    record = HoardRecord(
        format=1, previous=previous, made_ns=made_ns, made_by=made_by, hoard="a", cleared=cleared, changes=changes
    )
    value = encode_record(record)
    head = hoard_head(value)
    if cleared:
        assert head is None
    else:
        assert head is not None
        assert (head.previous, head.made_ns, head.made_by, head.hoard) == (previous, made_ns, made_by, "a")


@given(st.data())
def test_damaged_records_have_no_front(data: st.DataObject) -> None:
    record = HoardRecord(
        format=1, previous=bytes(32), made_ns=5, made_by="test", hoard="a", cleared=False, changes=(("k", file(5)),)
    )
    value = encode_record(record)
    at = data.draw(st.integers(0, len(value) - 1))
    bad = value[:at] + bytes([value[at] ^ 1 << data.draw(st.integers(0, 7))]) + value[at + 1 :]
    assert hoard_head(bad) is None and hoard_head(value[:at]) is None


def test_records_of_other_kinds_and_formats_have_no_front() -> None:
    head = {"format": 1, "previous": bytes(32), "made_ns": 5, "made_by": "test"}
    others = [
        version_of("v1", head),
        CheckpointRecord(**head, hoard="a", upto=1, entry=folder(1)),
        RemovalRecord(**head, slot=1),
    ]
    assert all(hoard_head(encode_record(record)) is None for record in others)
    put = HoardRecord(**head, hoard="a", cleared=False, changes=(("k", None),))
    newer = encode_record(version.msgspec.structs.replace(put, format=2))
    assert hoard_head(encode_record(put)) is not None and hoard_head(newer) is None


# -- stores that read all names to list those behind one


class Flat(MemoryStore):
    """Counts the listings of the log."""

    traits = Traits(lists_all=True)

    def __init__(self) -> None:
        super().__init__()
        self.listed = 0

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        self.listed += namespace == "log"
        return super().list(namespace, after)


def test_commits_list_the_log_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Flat()
    monkeypatch.setattr(slots, "_READS_A_LISTING", 20)
    log, other = Log(store), Log(store)
    for number in range(1, 101):
        assert put(other if number % 3 else log, "a", (f"key {number}", number)) == number
    assert 5 <= store.listed <= 12 and log.read() == 100
    assert told(log) == told(slowly(store)) == told(opened(store))


def test_much_that_came_meanwhile_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Flat()
    log, other = Log(store), Log(store)
    put(log, "a", ("first", 1))
    for number in range(2, 90):
        put(other, "a", (f"key {number}", number))
    other.pack(8)
    assert put(log, "a", ("last", 1)) == 90 and told(log) == told(slowly(store))


def lost(store: Store, first: int, last: int) -> dict[str, bytes]:
    """Take slots from the log; what was in them."""
    gone = {slot_name(slot): store.get("log", slot_name(slot)) for slot in range(first, last + 1)}
    store.delete("log", gone)
    return gone


@pytest.mark.parametrize(("gone", "left"), [(1, 1), (7, 1), (20, 5), (32, 1), (60, 70), (400, 500)])
def test_slots_that_are_lost_are_not_taken_for_the_end(gone: int, left: int) -> None:
    store = Flat()
    log, other = Log(store), Log(store)
    put(log, "a", ("first", 1))
    for number in range(gone + left):
        put(other, "a", (f"key {number}", number))
    values = lost(store, 2, gone + 1)
    listed = store.listed
    for _ in range(2):
        with pytest.raises(CorruptData, match="log slot 2 is missing, though 0"):
            put(log, "a", ("more", 1))
    assert store.listed > listed and store.info("log", slot_name(2)) is None
    for name, value in values.items():
        store.put("log", name, value)
    assert put(log, "a", ("more", 1)) == gone + left + 2


def test_a_gap_that_only_a_listing_shows_is_met_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Flat()
    monkeypatch.setattr(slots, "_READS_A_LISTING", 5)
    log, other = Log(store), Log(store)
    put(log, "a", ("first", 1))
    for number in range(45):
        put(other, "a", (f"key {number}", number))
    lost(store, 2, 45)  # what is left is none that is asked for
    with pytest.raises(CorruptData, match="log slot 2 is missing"):
        for _ in range(5):
            log.read()


def test_a_log_that_was_cut_or_replaced_is_noticed_without_a_listing() -> None:
    store = Flat()
    log, other = Log(store), Log(store)
    for number in range(1, 8):
        put(other, "a", (f"key {number}", number))
    assert log.read() == 7
    gone = lost(store, 5, 7)
    assert log.read() == 4 and told(log) == told(slowly(store))
    for name, value in gone.items():
        store.put("log", name, value)
    assert log.read() == 7
    chained(store, [plain.replace(b"key 3", b"key y") for plain in plains_of(store)])
    assert log.read() == 7 and told(log) == told(slowly(store))


def test_a_folder_with_packs_is_opened_with_one_listing(tmp_path: Path) -> None:
    store = open_store(f"dir:{tmp_path / 'store'}", create=True)
    made = filled(random.Random(3), 120)
    for namespace in ("log", "hoards"):
        store.put_many(namespace, [(one.name, made.get(namespace, one.name)) for one in made.list(namespace)])
    count = len(list(store.list("log")))
    flat = Flat()
    for namespace in ("log", "hoards"):
        for one in store.list(namespace):
            flat.put(namespace, one.name, store.get(namespace, one.name))
    assert store.traits.lists_all and told(opened(store)) == told(opened(flat)) == told(slowly(made))
    assert flat.listed == 1
    log = opened(store)
    store.create("log", slot_name(count + 2), b"?")
    with pytest.raises(CorruptData, match=f"log slot {count + 1} is missing"):
        put(log, "a", ("more", 1))
    store.close()
