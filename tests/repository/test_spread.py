"""A repository on a spread: versions, index runs split by member, merges, members alone, heal and rebalance."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from spraydry.errors import ChunkCorrupt, ChunkNotFound, SprayDryError, StoreUnavailable
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.run import decode_run
from spraydry.repository import runs
from spraydry.repository.catalog import Catalog
from spraydry.repository.dictionaries import keep, shipped
from spraydry.repository.opening import Config, Opened
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs
from spraydry.stores.base import Store, open_store
from spraydry.stores.database.database import Database
from spraydry.stores.memory import MemoryStore
from spraydry.stores.over.copying import copy_to
from spraydry.stores.over.heal import heal, rebalance
from spraydry.stores.over.placement import Copies, rank
from tests.spreads import Fleet, frame
from tests.versions import make_version

Opener = Callable[[Store], Repository]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Opens a repository on a store, each time with a new catalog."""
    made: list[Repository] = []

    def of(store: Store) -> Repository:
        catalog = Catalog(Database(f"{tmp_path}/catalog-{len(made)}", "", create=True))
        config = Config("spraydry", 1, bytes(16), bytes(16), 1)
        repository = Repository(Opened(store, config, None), catalog, "here", 1 << 20)
        made.append(repository)
        return repository

    yield of
    for repository in made:
        repository.catalog.close()


_noise = random.Random()


@pytest.fixture(autouse=True)
def the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames have the same names in each run, and so go to the same members."""
    _noise.seed(20260101)
    monkeypatch.setattr(frames, "os", SimpleNamespace(urandom=_noise.randbytes))


def tree(seed: int) -> dict[bytes, bytes]:
    """Files of some KB, no two alike, and not compressible: each version makes frames of its own."""
    return {b"%d-%d" % (seed, number): _noise.randbytes(3000) for number in range(4)}


def contents(repository: Repository, root: str = "photos") -> dict[bytes, bytes]:
    """All files of the newest version."""
    found = {}
    for one in repository.walk(root):
        if one.path:
            with repository.open_file(one) as stream:
                found[os.path.basename(one.path)] = stream.read()
    return found


def index_of(store: Store) -> set[str]:
    """The frames that a member's own index names."""
    named: set[str] = set()
    for stored in store.list("index"):
        named.update(info.name.hex() for info in decode_run(store.get("index", stored.name))[0])
    return named


def frames_of(store: Store) -> set[str]:
    return {stored.name for stored in store.list("frames")}


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_each_member_names_its_own_frames(opened: Opener, copies: int) -> None:
    fleet = Fleet(3, Copies(copies))
    repository = opened(fleet.spread)
    trees = [tree(number) for number in range(8)]
    for files in trees:
        make_version(repository, "photos", files)
    for store in fleet.stores.values():
        assert index_of(store) == frames_of(store) != set()
    total = len(list(fleet.spread.list("frames")))
    assert sum(len(frames_of(store)) for store in fleet.stores.values()) == copies * total
    other = opened(fleet.open())
    assert contents(other) == trees[-1] and other.damaged_runs == {}
    for number, files in enumerate(trees, 1):
        assert contents(other, f"photos@v{number}") == files


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_merging_runs_keeps_every_row(opened: Opener, copies: int) -> None:
    fleet = Fleet(3, Copies(copies))
    repository = opened(fleet.spread)
    trees = [tree(number) for number in range(12)]
    before = after = 0
    for files in trees:
        make_version(repository, "photos", files)
        repository.refresh()
        before = len(list(fleet.spread.list("index")))
        merge_runs(repository)
        repository.refresh()
        after = min(before, len(list(fleet.spread.list("index"))))
        for store in fleet.stores.values():
            assert index_of(store) == frames_of(store)
    assert after < 8
    other = opened(fleet.open())
    for number, files in enumerate(trees, 1):
        assert contents(other, f"photos@v{number}") == files


def test_a_run_that_merging_leaves_as_it_was_survives(opened: Opener) -> None:
    """Each of nine members has one run: merged and split again they are the same, and are then deleted by name."""
    stores: dict[str, Store] = {name: MemoryStore() for name in "abcdefghi"}
    fleet = Fleet(9, Copies(1), stores=stores)
    repository = opened(fleet.spread)
    number = 0
    while any(not frames_of(store) for store in stores.values()):
        make_version(repository, "photos", tree(number := number + 1))
    repository.refresh()
    for _ in range(3):
        runs.replace_runs(repository, [stored.name for stored in fleet.spread.list("index")], frozenset())
        repository.refresh()
        assert all(index_of(store) == frames_of(store) for store in stores.values())
    assert len(list(fleet.spread.list("index"))) == 9, "the control: one run for each"
    gone = sorted(frames_of(stores["a"]))
    runs.replace_runs(
        repository, [stored.name for stored in fleet.spread.list("index")], {bytes.fromhex(name) for name in gone}
    )
    assert index_of(stores["a"]) == set(), "what is really to go goes"
    assert all(index_of(store) == frames_of(store) for name, store in stores.items() if name != "a")


@pytest.mark.parametrize("owner_is_sqlite", [False, True])
def test_a_member_lost_in_an_ingest_and_back(opened: Opener, tmp_path: Path, owner_is_sqlite: bool) -> None:
    stores: dict[str, Store] = {}
    if owner_is_sqlite:
        stores = {name: open_store(f"{tmp_path}/{name}", create=True) for name in "abc"}
    fleet = Fleet(3, Copies(2), stores=stores)
    repository = opened(fleet.spread)
    trees = [tree(number) for number in range(10)]
    for number, files in enumerate(trees):
        if number == 3:
            fleet.take_down("b")
        if number == 7:
            fleet.bring_back("b")
        make_version(repository, "photos", files)
        merge_runs(repository)
        fleet.spread.flush()
    assert fleet.spread.waiting == 0 and fleet.spread.missed == 0
    proper = {
        stored.name
        for stored in fleet.spread.list("frames")
        if "b" in [member.name for member in rank(stored.name, fleet.spread.members)[:2]]
    }
    assert proper <= frames_of(fleet.stores["b"]) and proper
    assert frames_of(fleet.stores["b"]) <= index_of(fleet.stores["b"]), "with the frames it was brought the rows"
    for lost in ("a", "c"):  # any one of the others may be lost
        fleet.take_down(lost)
        other = opened(fleet.open())
        for number, files in enumerate(trees, 1):
            assert contents(other, f"photos@v{number}") == files
        fleet.bring_back(lost)
    fleet.spread.close()


def test_a_new_dictionary_while_a_member_is_down(opened: Opener) -> None:
    """Whether it is stored cannot be known then; it is stored again."""
    fleet = Fleet(3, Copies(1, {"dictionary": 3}))
    repository = opened(fleet.spread)
    fleet.take_down("b")
    dictionary = shipped()[0].load()
    keep(repository, dictionary)
    assert fleet.holders(dictionary.digest.hex(), "dictionaries") == {"a", "c"}
    fleet.bring_back("b")
    fleet.spread.flush()
    assert fleet.holders(dictionary.digest.hex(), "dictionaries") == {"a", "b", "c"}


def test_a_member_alone(opened: Opener) -> None:
    """It opens, knows every version, gives what it has, and says of the rest that it is not there."""
    fleet = Fleet(3, Copies(1, {"tree": 3, "dictionary": 3}))
    repository = opened(fleet.spread)
    trees = [tree(number) for number in range(40)]  # so many that no member is without any (salts are random)
    for files in trees:
        make_version(repository, "photos", files)
    fleet.spread.flush()
    for name, store in fleet.stores.items():
        alone = opened(store)
        assert len(alone.versions("photos")) == 40
        had = lacked = 0
        for number, files in enumerate(trees, 1):
            for one in alone.walk(f"photos@v{number}"):
                if one.path:
                    try:
                        with alone.open_file(one) as stream:
                            assert stream.read() == files[os.path.basename(one.path)]
                        had += 1
                    except ChunkNotFound as error:
                        assert "is in no frame of here" in str(error)
                        lacked += 1
        assert had and lacked and had + lacked == 160, name
        assert {info.name.hex() for _, info in alone.catalog.frames()} == frames_of(store)


def test_wrong_bytes_are_never_served(opened: Opener) -> None:
    fleet = Fleet(2, Copies(1))
    repository = opened(fleet.spread)
    files = tree(1)
    make_version(repository, "photos", files)
    for name, store in fleet.stores.items():
        for stored in list(store.list("frames")):
            fleet.damage(name, stored.name)
    with pytest.raises(ChunkCorrupt, match=r"frame [0-9a-f]{64}: frames/[0-9a-f]{64} is damaged on [ab], and no other"):
        contents(opened(fleet.open()))
    fleet.take_down("b")
    with pytest.raises((StoreUnavailable, ChunkCorrupt, ChunkNotFound)):
        contents(opened(fleet.open()))


def test_only_the_owner_stops_commits(opened: Opener) -> None:
    fleet = Fleet(3, Copies(2))
    repository = opened(fleet.spread)
    files = tree(1)
    make_version(repository, "photos", files)
    fleet.spread.flush()
    for name in ("b", "c"):
        fleet.take_down(name)
        files = tree(2)
        make_version(repository, "photos", files)
        fleet.bring_back(name)
        fleet.spread.flush()
    fleet.take_down("a")
    with pytest.raises(StoreUnavailable, match="the store that owns the log does not answer"):
        make_version(repository, "photos", tree(3))
    reader = opened(fleet.open())
    assert len(reader.versions("photos")) == 3 and contents(reader) == files


# -- heal


@pytest.mark.parametrize("copies", [2, 3])
def test_heal_after_one_member_was_emptied(opened: Opener, copies: int) -> None:
    fleet = Fleet(4, Copies(copies, {"tree": 3}))
    repository = opened(fleet.spread)
    trees = [tree(number) for number in range(10)]
    for files in trees:
        make_version(repository, "photos", files)
    lost = frames_of(fleet.stores["c"])
    assert lost
    fleet.empty("c")
    shown = []
    healed = heal(fleet.spread, lambda now: shown.append(now.checked))
    assert (healed.copied, healed.failed, healed.fraction) == (len(lost), {}, 1.0) and shown
    assert frames_of(fleet.stores["c"]) == index_of(fleet.stores["c"]) == lost
    again = heal(fleet.spread)
    assert (again.copied, again.removed, again.replaced, again.indexed) == (0, 0, 0, 0)
    for one in ("a", "b", "d")[: copies - 1]:
        fleet.take_down(one)
    other = opened(fleet.open()) if copies == 2 else None
    if other is not None:
        assert all(contents(other, f"photos@v{number}") == files for number, files in enumerate(trees, 1))


def test_heal_makes_good_what_is_damaged(opened: Opener) -> None:
    fleet = Fleet(3, Copies(2))
    repository = opened(fleet.spread)
    files = tree(1)
    for _ in range(6):
        make_version(repository, "photos", files := tree(1))
    cut = sorted(frames_of(fleet.stores["a"]))[:3]
    for name in cut:
        fleet.damage("a", name, cut=True)
    damaged = [stored.name for stored in fleet.stores["b"].list("index")]
    for name in damaged:
        fleet.damage("b", name, "index")
    single = frame(77)
    only = rank(single[0], fleet.spread.members)[0].name
    fleet.stores[only].put("frames", *single)
    fleet.damage(only, single[0])
    healed = heal(fleet.spread)
    assert healed.replaced >= len(cut) + len(damaged) and healed.indexed == len(frames_of(fleet.stores["b"]))
    assert any(reason.startswith("is damaged on") and count == 1 for reason, (count, _) in healed.failed.items())
    assert all(digest(fleet.stores["a"].get("frames", name)).hex() == name for name in cut)
    for store in fleet.stores.values():
        assert frames_of(store) - {single[0]} == index_of(store)
    assert contents(opened(fleet.open())) == files


def test_heal_while_a_member_is_down_says_so(opened: Opener) -> None:
    fleet = Fleet(3, Copies(3))
    repository = opened(fleet.spread)
    make_version(repository, "photos", tree(1))
    fleet.take_down("b")
    fleet.empty("c")
    healed = heal(fleet.spread)
    assert any("b" in reason and "refused" in reason for reason in healed.failed)
    assert frames_of(fleet.stores["c"]) == frames_of(fleet.stores["a"]) != set()


def test_draining_and_removing_a_member(opened: Opener) -> None:
    fleet = Fleet(3, Copies(2))
    repository = opened(fleet.spread)
    trees = [tree(number) for number in range(10)]
    for files in trees:
        make_version(repository, "photos", files)
    fleet.spread.flush()
    drained = Fleet(3, Copies(2), stores=fleet.stores, weights={"b": 0.0})
    victim = sorted(frames_of(fleet.stores["a"]) & frames_of(fleet.stores["b"]))[0]
    fleet.damage("a", victim)  # the other copy is damaged: the one that is to go is the last
    healed = heal(drained.spread)
    assert healed.failed == {} and healed.removed > 0 and healed.replaced == 1
    assert frames_of(fleet.stores["b"]) == index_of(fleet.stores["b"]) == set()
    without = Fleet(2, Copies(2), stores={name: fleet.stores[name] for name in "ac"})
    other = opened(without.spread)
    for number, files in enumerate(trees, 1):
        assert contents(other, f"photos@v{number}") == files


def test_rebalance_gives_a_new_member_its_share(opened: Opener) -> None:
    fleet = Fleet(2, Copies(1, {"tree": 2}))
    repository = opened(fleet.spread)
    trees = [tree(number) for number in range(20)]
    for files in trees:
        make_version(repository, "photos", files)
    larger = Fleet(3, Copies(1, {"tree": 2}), stores={**fleet.stores, "c": MemoryStore()})
    names = {stored.name for stored in larger.spread.list("frames")}
    healed = rebalance(larger.spread)
    assert healed.failed == {} and healed.copied == healed.removed > 0
    for name in names:
        holders = larger.holders(name)
        copies = len(holders)
        assert copies in (1, 2)
        assert holders == {member.name for member in rank(name, larger.spread.members)[:copies]}
    assert frames_of(larger.stores["c"]) <= index_of(larger.stores["c"])
    other = opened(larger.open())
    for number, files in enumerate(trees, 1):
        assert contents(other, f"photos@v{number}") == files
    again = rebalance(larger.spread)
    assert (again.copied, again.removed) == (0, 0)


def test_heal_is_right_about_classes_no_index_names(opened: Opener) -> None:
    """The number of copies is by class; where no run says the class, because a frame cannot be decoded, its header
    does."""
    fleet = Fleet(3, Copies(1, {"tree": 3}))
    dictionary = shipped()[0].load()
    with_it = frames.encode([b"# the quick brown fox " * 300], "tree", 3, dictionary)
    assert with_it.header.dictionary == dictionary.digest
    for name, value in (frame(1), (with_it.name.hex(), with_it.stored)):
        for store in fleet.stores.values():
            store.put("frames", name, value)
    healed = rebalance(fleet.spread)
    assert fleet.holders(with_it.name.hex()) == {"a", "b", "c"}
    assert len(fleet.holders(frame(1)[0])) == 1 and healed.removed == 2
    [(reason, (count, example))] = healed.failed.items()
    assert f"dictionary {dictionary.digest.hex()}" in reason and (count, example) == (3, with_it.name.hex())


@pytest.mark.parametrize("damaged", ["a", "c"])
def test_a_surplus_copy_goes_only_when_those_that_stay_are_sound(damaged: str) -> None:
    fleet = Fleet(3, Copies(2), weights={"b": 0.0})
    name, value = frame(1)
    for member in fleet.spread.members:
        copy_to(member, "frames", [(name, value)], fleet.spread.reader)
    fleet.damage(damaged, name)
    healed = heal(fleet.spread)
    assert (healed.replaced, healed.removed) == (1, 1)
    assert all(fleet.stores[one].get("frames", name) == value for one in ("a", "c"))


@pytest.mark.parametrize("copies", [1, 2])
def test_a_member_that_takes_frames_and_fails_before_their_run(opened: Opener, copies: int) -> None:
    fleet = Fleet(3, Copies(copies))
    repository = opened(fleet.spread)
    inner = fleet.faulty["b"].inner
    real = inner.put_many

    def put_many(namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        if namespace == "index":
            raise StoreUnavailable("the connection was lost")
        real(namespace, values)

    inner.put_many = put_many  # type: ignore[method-assign]
    trees = [tree(number) for number in range(8)]
    for files in trees:
        make_version(repository, "photos", files)
        fleet.clock.pass_time()
    inner.put_many = real  # type: ignore[method-assign]
    unnamed = frames_of(fleet.stores["b"]) - index_of(fleet.stores["b"])
    assert unnamed
    elsewhere = opened(fleet.open())  # the rows are somewhere all the same
    for number, files in enumerate(trees, 1):
        assert contents(elsewhere, f"photos@v{number}") == files
    fleet.clock.pass_time()
    fleet.spread.flush()
    assert fleet.spread.waiting == 0
    assert frames_of(fleet.stores["b"]) <= index_of(fleet.stores["b"])


def test_every_error_is_ours(opened: Opener) -> None:
    fleet = Fleet(2, Copies(1))
    repository = opened(fleet.spread)
    make_version(repository, "photos", tree(1))
    for name in ("a", "b"):
        fleet.take_down(name)
    fleet.clock.pass_time()
    asks: list[Callable[[], object]] = [
        lambda: contents(opened(fleet.open())),
        lambda: make_version(repository, "photos", tree(2)),
        lambda: list(fleet.spread.list("index")),
        lambda: fleet.spread.delete("frames", [frame(1)[0]]),
        fleet.spread.stat,
        fleet.spread.destroy,
    ]
    for ask in asks:
        with pytest.raises(SprayDryError) as raised:
            ask()
        assert "\n" not in str(raised.value)
    assert fleet.spread.stats() == {"a": None, "b": None}
    fleet.spread.flush()
    assert set(heal(fleet.spread).failed) != set()
