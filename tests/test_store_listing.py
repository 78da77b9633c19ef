"""Listings of stores: what is encoded comes back, and nothing else is taken for one."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.errors import CorruptData, FormatTooNew, StoreUnavailable
from spraydry.format.digest import digest
from spraydry.stores.base import Store, Stored, open_store
from spraydry.stores.memory import MemoryStore
from spraydry.stores.shared.listing import LISTED, MAX_BYTES, Listing, decode, encode, listing_of, write_listing
from spraydry.stores.shared.nesting import is_nest, nested

NAMES = st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,9}", fullmatch=True)
VALUES = st.fixed_dictionaries(
    {namespace: st.dictionaries(NAMES, st.integers(0, 10**18 - 1), max_size=5) for namespace in LISTED}
)
DEPTHS = st.dictionaries(
    st.sampled_from(("frames", "log")), st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), max_size=2
)


def signed(text: bytes) -> bytes:
    return text + b"digest " + digest(text).hex().encode() + b"\n"


@given(VALUES, DEPTHS)
def test_what_is_encoded_comes_back(values: dict[str, dict[str, int]], depths: dict[str, tuple[int, ...]]) -> None:
    value = encode(Listing(values, depths))
    found = decode(value)
    assert (found.values, found.depths) == (values, depths)
    assert [list(names) for names in found.values.values()] == [sorted(values[namespace]) for namespace in LISTED]
    assert found.depths_of("index") == (0,)


def test_bytes() -> None:
    """What FORMAT.md says."""
    store = open_store("memory:")
    store.put("log", "000000000001", b"x" * 7)
    store.put("config", "config", b"x")
    store.put("frames", "f", b"x")
    text = b"spraydry listing 1\ndepths frames 1 0\nvalue log 000000000001 7\nvalue config config 1\n"
    assert listing_of(store, {"frames": (1, 0)}) == signed(text)


class Machine:
    """One of two that share a store: its `flush`, halted wherever it lists or writes until it is let on."""

    def __init__(self, store: Store, name: str, place: list[bytes]) -> None:
        self.store, self.name, self.place = store, name, place
        self.committed: list[str] = []

    def steps(self) -> Iterator[None]:
        for number in range(3):
            self.committed.append(f"{self.name}{number}")
            self.store.put("log", self.committed[-1], b"x")
            yield
            yield from self.flush()

    def flush(self) -> Iterator[None]:
        """`write_listing` in a thread, which goes a step for each that is drawn."""
        turn, halted = threading.Semaphore(0), threading.Semaphore(0)

        def halt() -> None:
            halted.release()
            turn.acquire()

        class Halting(MemoryStore):
            def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
                found = list(machine.store.list(namespace, after))
                if namespace == "config":  # the last
                    halt()
                return iter(found)

        machine = self

        def write(value: bytes) -> None:
            self.place[:] = [value]
            halt()

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(write_listing, Halting(), write)
            running.add_done_callback(lambda _: halted.release())
            halted.acquire()
            while not running.done():
                yield
                turn.release()
                halted.acquire()
            running.result()


@pytest.mark.parametrize("seed", range(40))
def test_two_machines_that_commit_at_the_same_time(seed: int) -> None:
    """However their steps mix, the listing holds in the end what both committed."""
    rng = random.Random(seed)
    store, place = MemoryStore(), [b""]
    machines = [Machine(store, name, place) for name in "ab"]
    going = [machine.steps() for machine in machines]
    while going:
        one = rng.choice(going)
        if next(one, "ended") == "ended":
            going.remove(one)
    assert sorted(decode(place[0]).values["log"]) == [f"{name}{number}" for name in "ab" for number in range(3)]


def test_a_store_that_never_lists_the_same() -> None:
    class Growing(MemoryStore):
        def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
            self.put("log", secrets.token_hex(8), b"")
            return super().list(namespace, after)

    with pytest.raises(StoreUnavailable, match="never as it was written"):
        write_listing(Growing(), lambda value: None)


def test_any_change_is_noticed() -> None:
    whole = encode(Listing({"log": {"000000000001": 10}, "config": {"config": 5}}, {"frames": (1, 0, 2, 3)}))
    for length in range(len(whole)):
        with pytest.raises(CorruptData):
            decode(whole[:length])
    rng = random.Random(1)
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.randrange(8)
        with pytest.raises((CorruptData, FormatTooNew)) as caught:
            decode(bytes(changed))
        assert "\n" not in str(caught.value)
    for more in (whole + b"\n", whole + whole, b"\n" + whole):
        with pytest.raises(CorruptData):
            decode(more)


@pytest.mark.parametrize(
    "line",
    [
        b"value log ../x 1",
        b"value log A 1",
        b"value log a -1",
        b"value log a 01",
        b"value log a 1e3",
        b"value log a " + b"9" * 19,
        b"value log a " + "\u0661".encode(),
        b"value log a",
        b"value frames a 1",
        b"value  a 1",
        b"value log a 1\nvalue log a 1",
        b"value log a 1\nvalue log a 2",
        b"value log b 1\nvalue log a 1",
        b"value config a 1\nvalue log a 1",
        b"value log a 1\ndepths frames 1",
        b"depths frames",
        b"depths frames 4",
        b"depths frames 11",
        b"depths frames -1",
        b"depths frames \xc2\xb2",
        b"depths elsewhere 1",
        b"depths .. 1",
        b"depths frames 1\ndepths frames 1",
        b"else",
        b"",
        b"\xff",
        b"value log a 1\r",
    ],
)
def test_lines_that_are_none(line: bytes) -> None:
    """The digest is right: whoever serves a store can make one."""
    with pytest.raises(CorruptData):
        decode(signed(b"spraydry listing 1\n" + line + b"\n"))


def test_other_files_and_newer_ones() -> None:
    for value in (b"", b"<html>", b"spraydry listing", b"x" * (MAX_BYTES + 1), b"\0" * 100):
        with pytest.raises(CorruptData):
            decode(value)
    with pytest.raises(FormatTooNew):
        decode(signed(b"spraydry listing 3\nmore\n"))


def test_nesting() -> None:
    assert nested("abcde", 0) == ()
    assert nested("abcde", 1) == ("ab=",)
    assert nested("abcde", 3) == ("ab=", "cd=")
    assert nested("a", 3) == ()
    assert nested("ab", 1) == ("ab=",)
    assert all(map(is_nest, nested("abcdef", 3)))
    assert not any(map(is_nest, ("ab", "a=", "abc=", "abc")))
