"""A spread over stores passes the conformance suite with any number of copies, and stands members that fail."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from spraydry.errors import CorruptData, StoreFull, StoreUnavailable, UsageError, ValueNotFound
from spraydry.format.digest import digest
from spraydry.stores.base import Store, open_store
from spraydry.stores.memory import MemoryStore
from spraydry.stores.over import member as member_module
from spraydry.stores.over.heal import heal
from spraydry.stores.over.member import Member, Missed, Queue
from spraydry.stores.over.placement import Copies, rank
from spraydry.stores.over.spread import Spread
from tests import faulty_store
from tests.faulty_store import Fault
from tests.spreads import FileQueue, Fleet, error_of, frame, id_of
from tests.store_contract import Place, StoreContract
from tests.virtual_time import VirtualTime


@dataclass(frozen=True)
class SpreadPlace(Place):
    """Three stores of a scheme, under names that begin with `url`."""

    copies: int = 1
    endings: tuple[str, str, str] = ("-a", "-b", "-c")

    def open(self, *, create: bool = False, read_only: bool = False) -> Store:
        members = []
        for name in self.endings:
            store = open_store(self.url + name, create=create, read_only=read_only)
            members.append(Member(name, digest(name.encode())[:16], store))
        return Spread(members, self.endings[0], Copies(self.copies))


class TestSpreadOverMemory(StoreContract):
    @pytest.fixture(params=[1, 2, 3])
    def place(self, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
        return SpreadPlace(f"memory:{tmp_path}", copies=request.param)


class TestSpreadOverSqlite(StoreContract):
    """Batches that belong to a thread, and end together."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return SpreadPlace(f"{tmp_path}/store", atomic_batches=True, copies=2)


# -- where values go


def test_copies_lie_on_the_best_members() -> None:
    fleet = Fleet(5, Copies(2, {"tree": 3, "dictionary": 5}))
    values = [frame(number, "tree" if number % 5 == 0 else "other") for number in range(50)]
    fleet.spread.put_many("frames", values)
    for number, (name, value) in enumerate(values):
        best = [member.name for member in rank(name, fleet.spread.members)]
        assert fleet.holders(name) == set(best[: 3 if number % 5 == 0 else 2])
        assert fleet.spread.get("frames", name) == value
    assert len({frozenset(fleet.holders(name)) for name, _ in values}) > 5, "the control: they are spread"
    plain = b"a dictionary"
    fleet.spread.put("dictionaries", digest(plain).hex(), plain)
    assert fleet.holders(digest(plain).hex(), "dictionaries") == set("abcde")


def test_adding_a_member_moves_nothing() -> None:
    fleet = Fleet(2)
    values = dict(frame(number) for number in range(200))
    fleet.spread.put_many("frames", values.items())
    before = {name: fleet.holders(name) for name in values}
    larger = Fleet(3, stores={**fleet.stores, "c": MemoryStore()})
    for name, value in values.items():
        assert larger.spread.get("frames", name) == value
    assert heal(larger.spread).copied == 0 and larger.spread.repaired == 0
    assert {name: larger.holders(name) for name in values} == before
    new = dict(frame(number) for number in range(200, 500))
    larger.spread.put_many("frames", new.items())
    share = sum(larger.holders(name) == {"c"} for name in new)
    assert 60 < share < 140, "a third, within five standard deviations"


def test_a_drained_member_gets_nothing_and_is_read() -> None:
    fleet = Fleet(3)
    values = dict(frame(number) for number in range(100))
    fleet.spread.put_many("frames", values.items())
    drained = Fleet(3, stores=fleet.stores, weights={"b": 0.0})
    count = len(list(fleet.stores["b"].list("frames")))
    assert count > 10
    new = dict(frame(number) for number in range(100, 200))
    drained.spread.put_many("frames", new.items())
    assert not any("b" in drained.holders(name) for name in new)
    assert all(drained.spread.get("frames", name) == value for name, value in (values | new).items())
    assert len(list(drained.stores["b"].list("frames"))) == count
    healed = heal(drained.spread)
    assert (healed.copied, healed.removed, healed.failed) == (count, count, {})
    assert list(drained.stores["b"].list("frames")) == list(drained.stores["b"].list("index")) == []
    assert all(drained.spread.get("frames", name) == value for name, value in (values | new).items())
    everything = Fleet(3, stores=fleet.stores, weights={"a": 0.0, "b": 0.0, "c": 0.0})
    with pytest.raises(StoreFull, match="being drained"):
        everything.spread.put("frames", *frame(1000))


# -- members that fail while it writes


@pytest.mark.parametrize("copies", [1, 2, 3])
@pytest.mark.parametrize("fault", ["down", "full", "read_only", "disconnect", "lost_answer"])
def test_a_member_that_fails_does_not_stop_writing(fault: Fault, copies: int) -> None:
    fleet = Fleet(3, Copies(copies))
    fleet.faulty["b"].rates[fault] = 1.0
    values = dict(frame(number) for number in range(60))
    for some in (list(values.items())[:30], list(values.items())[30:]):
        fleet.spread.put_many("frames", some)
    assert fleet.faulty["b"].faults[fault] == 1, "then it is left out"
    for name in values:
        assert len(fleet.holders(name) - {"b"}) == min(copies, 2)
    fleet.faulty["b"].heal()
    fleet.clock.pass_time()
    proper = [name for name in values if "b" in [one.name for one in rank(name, fleet.spread.members)[:copies]]]
    assert len(proper) > 10
    fleet.spread.flush()
    assert fleet.spread.waiting == 0
    if copies == 3 or fault not in ("full", "read_only"):
        assert all("b" in fleet.holders(name) for name in proper)
    for name, value in values.items():
        assert all(fleet.stores[one].get("frames", name) == value for one in fleet.holders(name) - {"b"})
    assert all(fleet.spread.get("frames", name) == value for name, value in values.items())


def test_a_full_store_among_several_is_no_reason_to_queue() -> None:
    """So a spread fills up: what the full one would have had lies elsewhere, and nothing waits for it."""
    fleet = Fleet(2)
    fleet.faulty["b"].rates["full"] = 1.0
    for number in range(50):
        fleet.spread.put("frames", *frame(number))
    assert fleet.spread.waiting == 0 and len(list(fleet.stores["a"].list("frames"))) == 50


def test_nothing_takes_it() -> None:
    fleet = Fleet(2, Copies(2))
    for one in fleet.faulty.values():
        one.rates["full"] = 1.0
    with pytest.raises(StoreFull, match=r"no store can take new frames: .*a: no room is left.*"):
        fleet.spread.put("frames", *frame(1))
    with pytest.raises(StoreFull):  # and while they are left out
        fleet.spread.put("frames", *frame(1))
    fleet.faulty["a"].heal()
    fleet.take_down("a")
    fleet.clock.pass_time()
    with pytest.raises(StoreUnavailable, match=r"a: .*cannot be reached.*"):
        fleet.spread.put("frames", *frame(1))
    assert fleet.spread.waiting == 0, "nothing was acknowledged, so nothing is owed"


def test_without_the_owner_nothing_is_committed_but_all_is_read() -> None:
    fleet = Fleet(3, Copies(2))
    assert fleet.spread.create("log", "000000000001", b"first")
    values = dict(frame(number) for number in range(20))
    fleet.spread.put_many("frames", values.items())
    fleet.spread.flush()
    assert fleet.holders("000000000001", "log") == {"a", "b", "c"}
    fleet.take_down("a")
    with pytest.raises(StoreUnavailable, match=r"the store that owns the log does not answer.* a: .*refused"):
        fleet.spread.create("log", "000000000002", b"second")
    assert [stored.name for stored in fleet.spread.list("log")] == ["000000000001"]
    assert fleet.spread.get("log", "000000000001") == b"first"
    assert fleet.holders("000000000002", "log") == set()
    fleet.spread.put("frames", *frame(100))
    assert all(fleet.spread.get("frames", name) == value for name, value in values.items())
    fleet.bring_back("a")
    assert fleet.spread.create("log", "000000000002", b"second")


def test_the_log_reaches_members_that_missed_some() -> None:
    fleet = Fleet(3)
    for slot in range(1, 4):
        assert fleet.spread.create("log", f"{slot:012d}", b"%d" % slot)
    fleet.take_down("c")
    fleet.spread.flush()
    assert fleet.holders(f"{2:012d}", "log") == {"a", "b"}
    assert fleet.spread.create("log", f"{4:012d}", b"4")
    fleet.bring_back("c")
    fleet.spread.flush()
    for slot in range(1, 5):
        assert fleet.stores["c"].get("log", f"{slot:012d}") == b"%d" % slot


# -- what was missed


def test_what_was_missed_is_delivered_in_order() -> None:
    fleet = Fleet(3, Copies(3))
    values = [frame(number) for number in range(600)]
    fleet.spread.put_many("frames", values[:200])
    fleet.take_down("b")
    fleet.spread.put_many("frames", values[200:400])
    gone = [name for name, _ in values[:400:2]]
    fleet.spread.delete("frames", gone)
    fleet.spread.put_many("frames", values[400:])
    plain = b"deleted, then written again"
    dictionary = digest(plain).hex()
    for _ in range(2):
        fleet.spread.delete("dictionaries", [dictionary])
        fleet.spread.put("dictionaries", dictionary, plain)
    assert fleet.spread.waiting == 200 + 200 + 200 + 4
    fleet.bring_back("b")
    done = fleet.spread.deliver()
    assert (done.lost, done.later, fleet.spread.waiting) == (0, 0, 0)
    expected = {name for name, _ in values} - set(gone) | {name for name, _ in values[400:]}
    assert {stored.name for stored in fleet.spread.list("frames")} == expected
    for one in ("a", "b", "c"):
        assert {stored.name for stored in fleet.stores[one].list("frames")} == expected
        assert fleet.stores[one].get("dictionaries", dictionary) == plain
    assert done.gone == len([name for name, _ in values[200:400] if name in gone])


def test_what_cannot_be_had_yet_waits_on() -> None:
    """The only copy of one is on a store that is down now."""
    fleet = Fleet(3, Copies(3))
    fleet.take_down("b")
    fleet.spread.put("frames", *frame(1))
    fleet.take_down("c")
    fleet.clock.pass_time()
    fleet.spread.put("frames", *frame(2))
    fleet.empty("a")  # and 2 is nowhere any more, 1 on c alone
    fleet.spread.put("frames", *frame(3))
    fleet.bring_back("b")
    done = fleet.spread.deliver()
    assert (done.values, done.later) == (1, 2)
    queue = fleet.queues[id_of("b")]
    assert [Missed.decoded(queue.read(index)).name for index in queue.indexes()] == [frame(1)[0], frame(2)[0]]
    fleet.bring_back("c")
    done = fleet.spread.deliver()
    assert fleet.holders(frame(1)[0]) == {"b", "c"} and fleet.spread.waiting == 0 and done.gone == 2


def test_damaged_entries_of_a_queue_stop_nothing() -> None:
    fleet = Fleet(2, Copies(2))
    fleet.take_down("b")
    queue = fleet.queues[id_of("b")]
    fleet.spread.put("frames", *frame(1))
    queue.write(b"\xff", b"", msgspec.msgpack.encode(("put", "frames", "../x")))
    fleet.spread.put("frames", *frame(2))
    fleet.bring_back("b")
    done = fleet.spread.deliver()
    assert (done.values, done.lost, len(queue)) == (2, 3, 0)


_KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
from spraydry.stores.base import open_store
from tests.spreads import *
fleet = Fleet(2, Copies(2), stores={{n: open_store({folder!r} + "/" + n, create=True) for n in "ab"}},
              queues={{id_of(n): FileQueue({folder!r} + "/queue-" + n) for n in "ab"}})
mode = sys.argv[1]
if mode == "write":
    fleet.take_down("b")
    for number in range(40):
        with fleet.spread.batch():
            fleet.spread.put("frames", *frame(number))
        print(number, flush=True)
else:
    real, left = fleet.faulty["b"].inner.put_many, int(mode)
    def put_many(namespace, values):
        global left
        real(namespace, values)
        left -= namespace == "frames"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    fleet.faulty["b"].inner.put_many = put_many
    copying._BATCH_ENTRIES = 7
    fleet.spread.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_member_lost_while_ingesting_and_kills_in_between(tmp_path: Path) -> None:
    """It gets what it missed, though the writer was killed, and then each process that delivered."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    code = "import spraydry.stores.over.copying as copying" + _KILLED.format(here=here, folder=str(tmp_path))
    written = subprocess.run([sys.executable, "-c", code, "write"], stdout=subprocess.PIPE, check=False, cwd=here)
    assert written.returncode == -signal.SIGKILL and written.stdout.split()[-1] == b"39"

    def fleet() -> Fleet:
        queues: dict[bytes, Queue] = {id_of(name): FileQueue(f"{tmp_path}/queue-{name}") for name in "ab"}
        return Fleet(2, Copies(2), stores={n: open_store(f"{tmp_path}/{n}") for n in "ab"}, queues=queues)

    before = 40
    for kill in ("1", "2", "1"):
        now = fleet()
        there = sum("b" in now.holders(frame(number)[0]) for number in range(40))
        assert now.spread.waiting + there >= 40 and now.spread.waiting <= before
        before = now.spread.waiting
        now.spread.close()
        killed = subprocess.run([sys.executable, "-c", code, kill], stdout=subprocess.PIPE, check=False, cwd=here)
        assert killed.returncode == -signal.SIGKILL
    last = fleet()
    assert 0 < last.spread.waiting < 40, "the control: the kills came before the end"
    last.spread.flush()
    assert last.spread.waiting == 0
    for number in range(40):
        name, value = frame(number)
        assert last.stores["b"].get("frames", name) == value
    last.spread.close()


# -- reading


@pytest.fixture
def equally_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are asked in the order of placement, however long they took."""
    monkeypatch.setattr(Member, "distance", property(lambda member: (0, False)))


@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_copy_is_passed_over_and_repaired(cut: bool, equally_near: None) -> None:
    fleet = Fleet(3, Copies(2))
    values = dict(frame(number) for number in range(30))
    fleet.spread.put_many("frames", values.items())
    for name in values:
        fleet.damage(sorted(fleet.holders(name))[0], name, cut=cut)
    assert all(fleet.spread.get("frames", name) == value for name, value in values.items())
    repaired = fleet.spread.repaired
    assert 5 <= repaired <= 25, "those that were asked first"
    healthy = sum(
        fleet.stores[one].get("frames", name) == value for name, value in values.items() for one in fleet.holders(name)
    )
    assert healthy == 30 + repaired
    assert all(fleet.spread.get("frames", name) == value for name, value in values.items())


@pytest.mark.parametrize("fault", ["alter", "truncate"])
def test_a_store_that_always_alters_what_it_gives(fault: Fault, equally_near: None) -> None:
    fleet = Fleet(3, Copies(3))
    values = dict(frame(number) for number in range(20))
    fleet.spread.put_many("frames", values.items())
    for one in ("a", "b"):
        fleet.faulty[one].rates[fault] = 1.0
    for _ in range(3):
        assert all(fleet.spread.get("frames", name) == value for name, value in values.items())
    assert fleet.faulty["a"].calls["put_many"] <= 1 + 20, "each copy is written back once, however often it is read"
    fleet.empty("c")
    for name in values:
        with pytest.raises(CorruptData, match=f"frames/{name} is damaged on [ab], [ab], and no other store has it"):
            fleet.spread.get("frames", name)


def test_a_missing_copy_is_written_back(equally_near: None) -> None:
    fleet = Fleet(3, Copies(2))
    values = dict(frame(number) for number in range(30))
    fleet.spread.put_many("frames", values.items())
    fleet.empty("b")
    assert all(fleet.spread.get("frames", name) == value for name, value in values.items())
    assert fleet.spread.repaired == sum("b" in fleet.holders(name) for name in values) > 3


def test_the_last_copy_damaged_or_out_of_reach() -> None:
    fleet = Fleet(3, Copies(2))
    name, value = frame(1)
    fleet.spread.put("frames", name, value)
    first, second = (member.name for member in rank(name, fleet.spread.members)[:2])
    fleet.damage(first, name)
    fleet.take_down(second)
    with pytest.raises(StoreUnavailable, match=rf"frames/{name} is damaged on {first}, and {second}: .*refused"):
        fleet.spread.get("frames", name)
    fleet.bring_back(second)
    fleet.damage(second, name)
    with pytest.raises(CorruptData, match=rf"frames/{name} is damaged on "):
        fleet.spread.get("frames", name)
    fleet.empty(first)
    fleet.take_down(first)
    with pytest.raises(StoreUnavailable):
        fleet.spread.info("frames", frame(2)[0])  # it may have it
    fleet.bring_back(first)
    assert fleet.spread.info("frames", frame(2)[0]) is None
    with pytest.raises(ValueNotFound):
        fleet.spread.get("frames", frame(2)[0])


def test_a_member_that_failed_is_left_out_for_a_while(equally_near: None) -> None:
    fleet = Fleet(2, Copies(2))
    values = dict(frame(number) for number in range(20))
    fleet.spread.put_many("frames", values.items())
    fleet.take_down("a")
    for name, value in values.items():
        assert fleet.spread.get("frames", name) == value
    assert fleet.faulty["a"].faults["down"] == 1
    assert not fleet.spread.complete and list(fleet.spread.silent) == ["a"]
    assert len(list(fleet.spread.list("frames"))) == 20
    fleet.bring_back("a")
    for name in values:
        fleet.spread.get("frames", name)
    assert fleet.spread.complete and fleet.faulty["a"].calls["get"] > 1


def test_listings_without_a_member_say_so() -> None:
    fleet = Fleet(2)
    values = dict(frame(number) for number in range(40))
    fleet.spread.put_many("frames", values.items())
    assert [stored.name for stored in fleet.spread.list("frames")] == sorted(values) and fleet.spread.complete
    fleet.faulty["b"].next("disconnect")
    found = [stored.name for stored in fleet.spread.list("frames")]
    assert found == sorted(found) and 0 < len(found) < 40 and not fleet.spread.complete
    fleet.take_down("a")
    with pytest.raises(StoreUnavailable, match="no store answers that could list frames"):
        list(fleet.spread.list("frames"))


def test_the_nearest_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualTime()
    monkeypatch.setattr(faulty_store, "time", clock)
    monkeypatch.setattr(member_module, "time", clock)
    fleet = Fleet(3, Copies(3))
    values = dict(frame(number) for number in range(20))
    fleet.spread.put_many("frames", values.items())
    for one in ("a", "b"):
        fleet.faulty[one].rates["slow"] = 1.0
        fleet.faulty[one].delay_s = 0.02
    for _ in range(3):
        for name in values:
            fleet.spread.get("frames", name)
    assert fleet.faulty["c"].calls["get"] > 50
    assert fleet.faulty["a"].calls["get"] + fleet.faulty["b"].calls["get"] <= 4


def test_a_member_that_hangs_is_not_waited_for() -> None:
    fleet = Fleet(2, Copies(2))
    values = dict(frame(number) for number in range(20))
    fleet.spread.put_many("frames", values.items())
    fleet.faulty["a"].rates["hang"] = 1.0
    fleet.spread.member("a").patience_s = 0.2
    assert all(fleet.spread.get("frames", name) == value for name, value in values.items())
    assert fleet.faulty["a"].faults["hang"] == 1, "it was asked once, and then left out"
    assert list(fleet.spread.silent) == ["a"]
    with pytest.raises(StoreUnavailable, match=r"a: .*did not answer within"):
        fleet.spread.get("frames", frame(1000)[0])
    for _ in range(40):  # the threads that wait for it stay few
        fleet.clock.pass_time()
        fleet.spread.member("a").patience_s = 0.001
        fleet.spread.get("frames", next(iter(values)))
    assert 20 < fleet.faulty["a"].faults["hang"] <= 32
    fleet.faulty["a"].heal()
    fleet.clock.pass_time()
    assert all(fleet.spread.get("frames", name) == value for name, value in values.items())


def test_a_member_that_could_not_be_opened() -> None:
    stores = {name: MemoryStore() for name in "ab"}
    whole = Fleet(2, Copies(1), stores=dict(stores))
    values = dict(frame(number) for number in range(20))
    whole.spread.put_many("frames", values.items())
    members = [
        Member("a", id_of("a"), stores["a"]),
        Member("b", id_of("b"), None, error="there is no repository at /mnt/b"),
    ]
    spread = Spread(members, "a", Copies(1), whole.queues)
    assert not spread.complete and spread.silent == {"b": "there is no repository at /mnt/b"}
    for name, value in values.items():
        if "a" in whole.holders(name):
            assert spread.get("frames", name) == value
        else:
            assert "b: there is no repository at /mnt/b" in str(error_of(spread, "frames", name))
            assert isinstance(error_of(spread, "frames", name), StoreUnavailable)
    new = dict(frame(number) for number in range(20, 40))
    spread.put_many("frames", new.items())
    assert spread.waiting > 0
    spread = Spread([members[0], Member("b", id_of("b"), stores["b"])], "a", Copies(1), whole.queues)
    spread.flush()
    assert spread.waiting == 0 and spread.complete
    assert all(spread.get("frames", name) == value for name, value in (values | new).items())


def test_two_members_are_not_the_same() -> None:
    store = MemoryStore()
    for first, second in ((("a", "x"), ("a", "y")), (("a", "x"), ("b", "x"))):
        with pytest.raises(UsageError, match="same name, or lie at the same place"):
            Spread([Member(first[0], id_of(first[1]), store), Member(second[0], id_of(second[1]), store)], "a")
    with pytest.raises(UsageError, match="no store is called 'z'"):
        Spread([Member("a", id_of("a"), store)], "z")


# -- batches


def test_a_member_that_cannot_make_its_batch_durable(tmp_path: Path) -> None:
    """SQLite says so at the end, for all it was given: others have it, and it is brought it later."""
    stores: dict[str, Store] = {name: open_store(f"{tmp_path}/{name}", create=True) for name in "abc"}
    fleet = Fleet(3, Copies(2), stores=stores)
    values = dict(frame(number) for number in range(30))
    failing = stores["b"]
    real = failing.batch

    @contextmanager
    def batch() -> Iterator[object]:
        with suppress(ZeroDivisionError), real():
            yield None
            raise ZeroDivisionError
        raise StoreFull("no room is left")

    failing.batch = batch  # type: ignore[method-assign]
    with fleet.spread.batch():
        fleet.spread.put_many("frames", values.items())
    failing.batch = real  # type: ignore[method-assign]
    lost = [name for name in values if "b" in [one.name for one in rank(name, fleet.spread.members)[:2]]]
    assert all(len(fleet.holders(name)) == 2 - (name in lost) for name in values) and len(lost) > 5
    assert fleet.spread.waiting == len(lost)
    fleet.clock.pass_time()
    fleet.spread.flush()
    assert all("b" in fleet.holders(name) for name in lost)

    single = Fleet(3, Copies(1), stores=stores)
    failing.batch = batch  # type: ignore[method-assign]
    new = dict(frame(number) for number in range(100, 130))
    with pytest.raises(StoreFull), single.spread.batch():
        single.spread.put_many("frames", new.items())
    there = {name: single.holders(name) for name in new}
    assert {"c"} in there.values() and {"a"} not in there.values(), "that of the owner ends last: it was rolled back"
    single.spread.close()


# -- against a dict


@pytest.mark.parametrize("seed", range(6))
def test_members_go_down_and_up_at_random(seed: int) -> None:
    """What was acknowledged is read or said to be out of reach, never wrong, never gone; and when all are back, and
    what they missed was delivered, each value has all its copies: any but one of them may be emptied."""
    rng = random.Random(seed)
    copies = rng.choice((2, 3))
    fleet = Fleet(4, Copies(copies))
    model: dict[str, bytes] = {}
    gone: set[str] = set()
    down: set[str] = set()
    number = seed * 100_000
    for _ in range(250):
        step = rng.random()
        if step < 0.1 and len(down) < 3:
            one = rng.choice([name for name in fleet.stores if name not in down])
            down.add(one)
            fleet.take_down(one)
        elif step < 0.2 and down:
            one = rng.choice(sorted(down))
            down.discard(one)
            fleet.bring_back(one)
        elif step < 0.25:
            fleet.spread.flush()
        elif step < 0.3:
            fleet.spread = fleet.open()  # another process goes on
        elif step < 0.4 and model:
            names = rng.sample(sorted(model), min(2, len(model)))
            fleet.spread.delete("frames", names)
            for name in names:
                del model[name]
            gone.update(names)
        elif step < 0.75:
            values = [frame(number := number + 1) for _ in range(rng.randrange(1, 4))]
            with fleet.spread.batch():
                fleet.spread.put_many("frames", values)
            model.update(values)
        elif model:
            name = rng.choice(sorted(model))
            try:
                assert fleet.spread.get("frames", name) == model[name]
            except StoreUnavailable:
                assert fleet.spread.silent
    for one in sorted(down):
        fleet.bring_back(one)
    fleet.spread.flush()
    assert fleet.spread.waiting == 0 and fleet.spread.missed == 0 and fleet.spread.complete
    assert [stored.name for stored in fleet.spread.list("frames")] == sorted(model)
    assert all(len(fleet.holders(name)) >= copies for name in model)
    assert not any(fleet.holders(name) for name in gone)
    assert len(model) > 20, "the control"
    for one in rng.sample(sorted(fleet.stores), copies - 1):
        fleet.empty(one)
    assert all(fleet.spread.get("frames", name) == value for name, value in model.items())
