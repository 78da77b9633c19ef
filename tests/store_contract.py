"""What every store must do. A backend's test file subclasses StoreContract and says how to make one:

    class TestDirectory(StoreContract):
        @pytest.fixture
        def place(self, tmp_path): return Place(f"directory:{tmp_path}/store")

The tests open stores only through `place`, so each of them also tests `open_store` with the backend's URLs.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from spraydry.errors import CorruptData, StoreError, StoreNotFound, StoreReadOnly, UsageError, ValueNotFound
from spraydry.stores.base import NAMESPACES, Store, Stored, open_store

KEYS = tuple(f"{number:02d}" for number in range(12))
LARGE = random.Random(1).randbytes(5 << 20)


@dataclass(frozen=True)
class Place:
    """Where a test's store lies: the `url` of one not there yet, and what the backend promises beyond the contract."""

    url: str
    atomic_batches: bool = False
    persistent: bool = True

    def open(self, *, create: bool = False, read_only: bool = False) -> Store:
        return open_store(self.url, create=create, read_only=read_only)


def size_of(store: Store, namespace: str, name: str) -> int | None:
    """The length of a value; None if there is none."""
    found = store.info(namespace, name)
    assert found is None or (found.name, found.deleted) == (name, False)
    return None if found is None else found.size


class StoreContract:
    """The tests; `place` comes from the subclass."""

    @pytest.fixture
    def store(self, place: Place) -> Iterator[Store]:
        opened = place.open(create=True)
        yield opened
        opened.close()

    # -- values

    def test_what_is_put_is_there(self, store: Store) -> None:
        for value in (b"", b"x", b"\0" * 100, LARGE):
            store.put("frames", "a", value)
            assert store.get("frames", "a") == value
            assert size_of(store, "frames", "a") == len(value)
        assert isinstance(store.get("frames", "a"), bytes)

    def test_ranges(self, store: Store) -> None:
        value = bytes(range(200))
        store.put("frames", "a", value)
        for start, length in (
            (0, None),
            (0, 0),
            (0, 5),
            (7, 9),
            (199, 1),
            (199, 50),
            (200, 1),
            (500, 3),
            (50, None),
            (500, None),
        ):
            assert store.get("frames", "a", start, length) == value[start : None if length is None else start + length]
        for start, length in ((-1, None), (-1, 1), (-1, 7), (-20, 5), (-20, 0), (-200, 3), (-200, None), (-201, None)):
            assert store.get("frames", "a", start, length) == value[start:][:length]
        assert store.get("frames", "a", -500, 7) == value[:7]
        for start, length in ((0, -1), (7, -3), (-5, -3)):
            with pytest.raises(ValueError, match="not a range"):
                store.get("frames", "a", start, length)
        store.put("frames", "large", LARGE)
        assert store.get("frames", "large", 4 << 20, 1000) == LARGE[4 << 20 :][:1000]
        assert store.get("frames", "large", -100, 10) == LARGE[-100:-90]
        store.put("frames", "empty", b"")
        assert [store.get("frames", "empty", start) for start in (0, 1, -1)] == [b"", b"", b""]

    def test_get_many(self, store: Store) -> None:
        store.put_many("frames", ((name, name.encode() * 10) for name in KEYS))
        names = ["05", "missing", "00", "05", *reversed(KEYS)]
        found = list(store.get_many("frames", iter(names)))
        assert found == [(name, None if name == "missing" else name.encode() * 10) for name in names]
        assert list(store.get_many("frames", [])) == []

    def test_stat(self, store: Store) -> None:
        empty = store.stat()
        assert (empty.values, empty.bytes) == (0, 0)
        store.put("frames", "a", b"x" * 100)
        store.put("log", "1", b"y")
        store.soft_delete("log", ["1"])
        full = store.stat()
        assert (full.values, full.bytes) == (2, 101)
        assert full.free_bytes is None or full.free_bytes > 0

    # -- moving and bringing back

    def test_move(self, store: Store) -> None:
        store.put_many("frames", [("a", b"one"), ("b", b"two"), ("c", b"three")])
        store.move("frames", "a", "frames", "b")
        store.move("frames", "c", "hoards", "a")
        store.move("frames", "b", "frames", "b")
        assert [stored.name for stored in store.list("frames")] == ["b"]
        assert (store.get("frames", "b"), store.get("hoards", "a")) == (b"one", b"three")
        for namespace, name in (("frames", "a"), ("log", "a")):
            with pytest.raises(ValueNotFound):
                store.move(namespace, name, "frames", "z")
        for to_namespace, to in (("frames", "../z"), ("elsewhere", "z"), ("frames", "")):
            with pytest.raises(ValueError, match="not a key"):
                store.move("frames", "b", to_namespace, to)
        assert [stored.name for stored in store.list("frames")] == ["b"]

    def test_soft_deletion(self, store: Store) -> None:
        store.put_many("frames", ((name, b"x" * place) for place, name in enumerate(KEYS)))
        store.soft_delete("frames", iter(["03", "missing", "05", "07"]))
        kept = [name for name in KEYS if name not in ("03", "05", "07")]
        assert [stored.name for stored in store.list("frames")] == kept
        assert store.info("frames", "03") is None
        with pytest.raises(ValueNotFound):
            store.get("frames", "03")
        shown = list(store.list_all("frames"))
        assert [stored.name for stored in shown] == list(KEYS)
        assert {stored.name for stored in shown if stored.deleted} == {"03", "05", "07"}
        assert [stored.size for stored in shown] == list(range(12))
        assert [stored.name for stored in store.list_all("frames", "05")] == list(KEYS[6:])
        assert store.create("frames", "05", b"new")  # the name is free
        assert [tuple(stored) for stored in store.list_all("frames", "04")][:2] == [("05", 3, False), ("05", 5, True)]
        assert store.undelete("frames", ["03", "05", "missing", "00"]) == ["03"]
        assert (store.get("frames", "03"), store.get("frames", "05")) == (b"xxx", b"new")
        store.purge("frames", ["07"])
        assert store.undelete("frames", ["07"]) == []
        store.soft_delete("frames", ["05"])  # a second time: the newer one is kept
        assert store.undelete("frames", ["05"]) == ["05"] and store.get("frames", "05") == b"new"
        store.delete("frames", ["03"])
        assert [stored for stored in store.list_all("frames") if stored.deleted] == []
        for ask in (store.soft_delete, store.undelete, store.purge):
            with pytest.raises(ValueError, match="not a namespace"):
                ask("frames~", ["03"])

    def test_destroy(self, place: Place) -> None:
        store = place.open(create=True)
        store.put("frames", "a", LARGE)
        store.soft_delete("frames", ["a"])
        store.put("log", "1", b"x")
        store.destroy()
        with pytest.raises(StoreError):
            store.get("log", "1")
        with pytest.raises(StoreNotFound):
            place.open()
        again = place.open(create=True)
        assert again.stat().values == 0
        again.close()

    def test_traits(self, store: Store) -> None:
        assert store.traits.concurrency >= 1 and store.traits.round_trip_s >= 0 and store.traits.atomic_create

    def test_what_is_not_there(self, store: Store) -> None:
        store.put("frames", "a", b"x")
        for namespace, name in (("frames", "b"), ("index", "a"), ("frames", "a.")):
            with pytest.raises(ValueNotFound):
                store.get(namespace, name)
            with pytest.raises(ValueNotFound):
                store.get(namespace, name, 1, 2)
            assert store.info(namespace, name) is None
            assert list(store.list(namespace, "zzz")) == []

    def test_put_many_replaces(self, store: Store) -> None:
        store.put_many("index", ((name, b"old") for name in KEYS))
        store.put_many("index", [("00", b"new"), ("05", b""), ("00", b"newest")])
        assert store.get("index", "00") == b"newest"
        assert store.get("index", "05") == b""
        assert store.get("index", "01") == b"old"
        store.put_many("index", [])

    def test_any_buffer_is_a_value(self, store: Store) -> None:
        held = bytearray(b"before")
        store.put("frames", "a", held)
        store.put("frames", "b", memoryview(held)[1:3])
        assert store.create("frames", "c", memoryview(held))
        held[:] = b"behind"
        assert [store.get("frames", name) for name in "abc"] == [b"before", b"ef", b"before"]

    def test_create_only_if_absent(self, store: Store) -> None:
        assert store.create("log", "1", b"first")
        for value in (b"second", b"first", b""):
            assert not store.create("log", "1", value)
        assert store.get("log", "1") == b"first"
        assert store.create("log", "2", b"") and not store.create("log", "2", b"")
        store.put("log", "3", b"put")
        assert not store.create("log", "3", b"x")
        store.delete("log", ["1"])
        assert store.create("log", "1", b"again")

    @pytest.mark.parametrize("value", [None, b"", b"same"], ids=["own", "empty", "same"])
    def test_of_racing_creators_one_wins(self, store: Store, value: bytes | None) -> None:
        ready = threading.Barrier(16)

        def race(thread: int) -> list[int]:
            ready.wait()
            order = list(range(20))
            random.Random(thread).shuffle(order)
            mine = b"%d" % thread if value is None else value
            return [key for key in order if store.create("log", f"{key:04d}", mine)]

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(race, range(16)))
        assert sorted(key for keys in won for key in keys) == list(range(20))
        for thread, keys in enumerate(won):
            for key in keys:
                assert store.get("log", f"{key:04d}") == (b"%d" % thread if value is None else value)

    def test_racing_stores_share_one_place(self, place: Place) -> None:
        stores = [place.open(create=True) for _ in range(8)]

        def race(store: Store) -> int:
            return sum(store.create("log", f"{key:04d}", b"x") for key in range(20))

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(race, stores))
        for store in stores:
            store.close()
        assert sum(won) == 20

    def test_delete(self, store: Store) -> None:
        store.put_many("frames", ((name, b"x") for name in KEYS))
        store.put("index", "00", b"x")
        store.delete("frames", (name for name in ("00", "missing", "03", "00")))
        store.delete("frames", [])
        assert [stored.name for stored in store.list("frames")] == [n for n in KEYS if n not in ("00", "03")]
        assert store.get("index", "00") == b"x"
        with pytest.raises(ValueNotFound):
            store.get("frames", "00")

    # -- listing

    def test_list_order_and_sizes(self, store: Store) -> None:
        names = ["a", "a.b", "a-b", "a0", "aa", "b", "0", "10", "9", "_", "z" * 200]
        store.put_many("hoards", ((name, b"x" * place) for place, name in enumerate(names)))
        expected = sorted(Stored(name, place) for place, name in enumerate(names))
        assert list(store.list("hoards")) == expected
        for after in ("", "a", "a.", "aa", "zz", "~", "A", "9"):
            assert list(store.list("hoards", after)) == [stored for stored in expected if stored.name > after]
        assert all(list(store.list(namespace)) == [] for namespace in NAMESPACES if namespace != "hoards")

    @pytest.mark.parametrize("count", [999, 1000, 1001, 2500])
    def test_list_beyond_a_page(self, store: Store, count: int) -> None:
        names = [f"{number:05d}" for number in range(count)]
        store.put_many("frames", ((name, b"x") for name in reversed(names)))
        assert [stored.name for stored in store.list("frames")] == names
        assert [stored.name for stored in store.list("frames", names[700])] == names[701:]

    def test_listing_while_deleting(self, store: Store) -> None:
        names = [f"{number:05d}" for number in range(2500)]
        store.put_many("frames", ((name, b"x") for name in names))
        seen = []
        for stored in store.list("frames"):
            seen.append(stored.name)
            if len(seen) % 100 == 0:
                store.delete("frames", seen[-100:])
        assert seen == names and list(store.list("frames")) == []

    # -- keys and modes

    @pytest.mark.parametrize(
        ("namespace", "name"),
        [
            ("frames", name)
            for name in ("", "A", "a/b", "..", ".", ".a", "-a", "a\n", "a\0", "ü", "a b", "n" * 201, "../a", "%2e")
        ]
        + [(namespace, "a") for namespace in ("", "Frames", "frames/", "other", "..", "frames\0")],
    )
    def test_keys_no_store_takes(self, store: Store, namespace: str, name: str) -> None:
        asks: list[Callable[[], object]] = [
            lambda: store.get(namespace, name),
            lambda: store.put(namespace, name, b""),
            lambda: store.create(namespace, name, b""),
            lambda: store.delete(namespace, [name]),
            lambda: store.info(namespace, name),
        ]
        for ask in asks:
            with pytest.raises(ValueError, match="not a key"):
                ask()
        if namespace not in NAMESPACES:
            with pytest.raises(ValueError, match="not a namespace"):
                list(store.list(namespace))

    def test_read_only(self, place: Place) -> None:
        with pytest.raises(StoreNotFound):
            place.open(read_only=True)
        with pytest.raises(StoreNotFound):
            place.open()
        writer = place.open(create=True)
        writer.put("frames", "a", b"x")
        reader = place.open(read_only=True)
        assert reader.read_only and not writer.read_only
        assert reader.get("frames", "a") == b"x"
        writer.put("frames", "b", b"y")
        assert [stored.name for stored in reader.list("frames")] == ["a", "b"]
        asks: list[Callable[[], object]] = [
            lambda: reader.put("frames", "c", b""),
            lambda: reader.put_many("frames", [("c", b"")]),
            lambda: reader.create("frames", "c", b""),
            lambda: reader.delete("frames", ["a"]),
            lambda: reader.soft_delete("frames", ["a"]),
            lambda: reader.move("frames", "a", "frames", "b"),
            reader.destroy,
        ]
        for ask in asks:
            with pytest.raises(StoreReadOnly):
                ask()
        reader.flush()
        reader.close()
        assert [stored.name for stored in writer.list("frames")] == ["a", "b"]
        writer.close()

    def test_reopening_keeps(self, place: Place) -> None:
        store = place.open(create=True)
        store.put("frames", "a", LARGE)
        with store.batch():
            store.put("index", "b", b"y")
            assert store.create("log", "1", b"z")
        store.flush()
        store.close()
        for create in (False, True):
            again = place.open(create=create)
            assert again.get("frames", "a") == LARGE
            assert (again.get("index", "b"), again.get("log", "1")) == (b"y", b"z")
            again.close()

    def test_closed(self, place: Place) -> None:
        store = place.open(create=True)
        store.put("frames", "a", b"x")
        store.close()
        store.close()
        asks: list[Callable[[], object]] = [
            lambda: store.get("frames", "a"),
            lambda: store.put("frames", "a", b""),
            lambda: store.create("frames", "b", b""),
            lambda: store.delete("frames", ["a"]),
            lambda: list(store.list("frames")),
            lambda: store.info("frames", "a"),
            lambda: store.move("frames", "a", "frames", "b"),
            store.stat,
        ]
        for ask in asks:
            with pytest.raises(StoreError):
                ask()

    def test_unknown_scheme(self) -> None:
        for url in ("gopher:x", "base:x", "no-such+scheme://host/x"):
            with pytest.raises(UsageError):
                open_store(url)

    # -- batches and threads

    def test_batches_see_themselves_and_nest(self, store: Store) -> None:
        with store.batch():
            store.put("frames", "a", b"x")
            assert store.get("frames", "a") == b"x"
            with store.batch():
                assert store.create("frames", "b", b"y")
                assert not store.create("frames", "b", b"z")
            assert [stored.name for stored in store.list("frames")] == ["a", "b"]
            assert size_of(store, "frames", "b") == 1
            store.delete("frames", ["a"])
        assert [stored.name for stored in store.list("frames")] == ["b"]

    def test_a_batch_that_fails(self, place: Place, store: Store) -> None:
        store.put("frames", "before", b"x")
        with pytest.raises(ZeroDivisionError), store.batch():
            store.put("frames", "inside", b"x")
            store.delete("frames", ["before"])
            with suppress(KeyError), store.batch():
                raise KeyError
            raise ZeroDivisionError
        if place.atomic_batches:
            assert [stored.name for stored in store.list("frames")] == ["before"]
        store.put("frames", "after", b"x")
        assert store.get("frames", "after") == b"x"

        def values() -> Iterator[tuple[str, bytes]]:
            yield "one", b"x"
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.put_many("frames", values())
        assert size_of(store, "frames", "one") in ((None,) if place.atomic_batches else (None, 1))

    def test_readers_and_writers_in_threads(self, store: Store) -> None:
        """Values are whole: what is read is what some writer put."""
        sizes = (10, 100_000, 3)
        store.put_many("frames", ((name, b"0" * 10) for name in KEYS))
        done = threading.Event()

        def write(thread: int) -> None:
            rng = random.Random(thread)
            for _ in range(30):
                byte = b"%d" % rng.randrange(10)
                with store.batch():
                    store.put_many("frames", [(rng.choice(KEYS), byte * sizes[int(byte) % 3])])

        def read(thread: int) -> int:
            rng = random.Random(thread)
            for count in itertools.count(1):
                value = store.get("frames", rng.choice(KEYS))
                assert value == value[:1] * sizes[int(value[:1]) % 3] or value == b"0" * 10
                assert [stored.name for stored in store.list("frames")] == list(KEYS)
                if done.is_set():  # looked at last: who begins when all was written reads once
                    return count
            raise AssertionError

        with ThreadPoolExecutor(8) as pool:
            readers = [pool.submit(read, thread) for thread in range(4)]
            writers = [pool.submit(write, thread) for thread in range(4)]
            try:
                for writer in writers:
                    writer.result(300)
            finally:
                done.set()
            assert all(reader.result() for reader in readers)

    # -- against a dict

    def test_behaves_like_a_dict(self, place: Place) -> None:
        run_state_machine_as_test(
            lambda: Model(place), settings=settings(max_examples=8, stateful_step_count=20, deadline=None)
        )


class Model(RuleBasedStateMachine):
    """A store and a dict that get the same calls."""

    namespaces = st.sampled_from(("frames", "log"))
    names = st.sampled_from(KEYS[:6])
    values = st.binary(max_size=50)

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.store = place.open(create=True)
        self.model: dict[tuple[str, str], bytes] = {}
        self.trash: dict[tuple[str, str], bytes] = {}

    @initialize()
    def empty(self) -> None:
        for namespace in NAMESPACES:
            self.store.delete(namespace, [stored.name for stored in self.store.list(namespace)])
            self.store.purge(namespace, [stored.name for stored in self.store.list_all(namespace)])

    @rule(namespace=namespaces, values=st.lists(st.tuples(names, values), max_size=4))
    def put_many(self, namespace: str, values: list[tuple[str, bytes]]) -> None:
        self.store.put_many(namespace, values)
        self.model |= {(namespace, name): value for name, value in values}

    @rule(namespace=namespaces, name=names, value=values)
    def create(self, namespace: str, name: str, value: bytes) -> None:
        assert self.store.create(namespace, name, value) == ((namespace, name) not in self.model)
        self.model.setdefault((namespace, name), value)

    @rule(namespace=namespaces, gone=st.lists(names, max_size=4))
    def delete(self, namespace: str, gone: list[str]) -> None:
        self.store.delete(namespace, gone)
        for name in gone:
            self.model.pop((namespace, name), None)

    @rule(namespace=namespaces, name=names, to=names)
    def move(self, namespace: str, name: str, to: str) -> None:
        if (namespace, name) in self.model:
            self.store.move(namespace, name, namespace, to)
            self.model[namespace, to] = self.model.pop((namespace, name))

    @rule(namespace=namespaces, gone=st.lists(names, max_size=3))
    def soft_delete(self, namespace: str, gone: list[str]) -> None:
        self.store.soft_delete(namespace, gone)
        for name in gone:
            if (namespace, name) in self.model:
                self.trash[namespace, name] = self.model.pop((namespace, name))

    @rule(namespace=namespaces, back=st.lists(names, max_size=3))
    def undelete(self, namespace: str, back: list[str]) -> None:
        expected = []
        for name in back:
            if (namespace, name) not in self.model and (namespace, name) in self.trash:
                self.model[namespace, name] = self.trash.pop((namespace, name))
                expected.append(name)
        assert self.store.undelete(namespace, back) == expected

    @rule(namespace=namespaces, name=names, start=st.integers(0, 60), length=st.none() | st.integers(0, 60))
    def get(self, namespace: str, name: str, start: int, length: int | None) -> None:
        value = self.model.get((namespace, name))
        if value is None:
            with pytest.raises(ValueNotFound):
                self.store.get(namespace, name, start, length)
        else:
            stop = None if length is None else start + length
            assert self.store.get(namespace, name, start, length) == value[start:stop]

    @rule(values=st.lists(st.tuples(names, values), max_size=3), fails=st.booleans())
    def batch(self, values: list[tuple[str, bytes]], fails: bool) -> None:
        if fails and not self.place.atomic_batches:
            return
        try:
            with self.store.batch():
                self.store.put_many("frames", values)
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        self.model |= {("frames", name): value for name, value in values}

    @rule()
    def reopen(self) -> None:
        self.store.flush()
        self.store.close()
        self.store = self.place.open()

    @invariant()
    def same(self) -> None:
        for namespace in ("frames", "log"):
            expected = sorted(
                Stored(name, len(value)) for (space, name), value in self.model.items() if space == namespace
            )
            assert list(self.store.list(namespace)) == expected
            gone = [stored for stored in self.store.list_all(namespace) if stored.deleted]
            assert [(stored.name, stored.size) for stored in gone] == sorted(
                (name, len(value)) for (space, name), value in self.trash.items() if space == namespace
            )
            for name in KEYS[:6]:
                value = self.model.get((namespace, name))
                assert size_of(self.store, namespace, name) == (None if value is None else len(value))

    def teardown(self) -> None:
        self.store.close()


def only_our_errors(ask: Callable[[], object]) -> Exception | None:
    """Call it; the error of the hierarchy it raises. Anything else gets out and fails the test."""
    try:
        ask()
    except (StoreError, CorruptData) as error:
        return error
    return None
