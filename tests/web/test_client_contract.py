"""What every store must do, over the wire; and what a real server refuses of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import pytest

from spraydry.errors import (
    SlotTaken,
    SprayDryError,
    StoreError,
    StoreReadOnly,
    UploadRefused,
    UsageError,
    ValueNotFound,
)
from spraydry.repository.repository import Repository
from spraydry.stores.base import Store, open_store
from tests.store_contract import Place, StoreContract
from tests.versions import make_version
from tests.web.serving import serving

_REPOSITORIES = 80


@dataclass(frozen=True)
class Emptied(Place):
    """A served repository, without its config when it is opened for the first time."""

    def open(self, *, create: bool = False, read_only: bool = False) -> Store:
        store = super().open(create=create, read_only=read_only)
        if create and not any(True for namespace in ("frames", "log") for _ in store.list(namespace)):
            store.delete("config", ["config"])
        return store


@pytest.fixture(scope="class")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[str]]:
    """Addresses of repositories nobody has used yet."""
    names = [f"r{number}" for number in range(_REPOSITORIES)]
    with serving(
        tmp_path_factory.mktemp("served"), *(f"{name}=memory:" for name in names), module="tests.web.open_gate"
    ) as server:
        yield iter([f"{server.url}/{name}" for name in names])


class TestRemote(StoreContract):
    """The whole contract, with a server that takes anything: the wire, and the client. What is left out is what a
    server does not give to clients: making and destroying a store, which is done where it lies."""

    @pytest.fixture
    def place(self, places: Iterator[str]) -> Place:
        return Emptied(next(places))

    def test_destroy(self, place: Place) -> None:
        store = place.open(create=True)
        with pytest.raises(StoreReadOnly, match="removed where it lies"):
            store.destroy()
        store.close()

    def test_read_only(self, place: Place) -> None:
        writer = place.open(create=True)
        writer.put("frames", "a", b"x")
        reader = place.open(read_only=True)
        assert reader.read_only and not writer.read_only and reader.get("frames", "a") == b"x"
        for ask in (
            lambda: reader.put("frames", "c", b""),
            lambda: reader.create("frames", "c", b""),
            lambda: reader.delete("frames", ["a"]),
            lambda: reader.soft_delete("frames", ["a"]),
            lambda: reader.move("frames", "a", "frames", "b"),
        ):
            with pytest.raises(StoreReadOnly):
                ask()
        reader.close()
        writer.close()


# -- what a real server refuses, and why


@dataclass(frozen=True)
class Served:
    """A store as a client has it, and the same where it lies."""

    store: Store
    behind: Store


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("real")
    url = f"dir:{folder}/store"
    with Repository.open(url, create=True) as repository:
        make_version(repository, "r", {b"a": b"one", b"b": random.Random(1).randbytes(300_000)})
        behind = repository.store
        with serving(folder, SPRAYDRY_REPO=url) as server:
            store = open_store(server.url)
            yield Served(store, behind)
            store.close()


def _all(store: Store) -> dict[tuple[str, str], bytes]:
    return {
        (namespace, stored.name): store.get(namespace, stored.name)
        for namespace in ("frames", "index", "log", "dictionaries", "config")
        for stored in store.list(namespace)
    }


def test_all_is_read_as_it_is(served: Served) -> None:
    assert _all(served.store) == _all(served.behind)
    for namespace in ("frames", "index", "log"):
        names = [stored.name for stored in served.behind.list(namespace)]
        assert dict(served.store.get_many(namespace, names)) == dict(served.behind.get_many(namespace, names))
        assert list(served.store.list_all(namespace)) == list(served.behind.list_all(namespace))


@pytest.mark.parametrize(
    ("namespace", "name", "value"),
    [
        ("frames", "a", b"x"),  # whatever is not named by the digest of its bytes
        ("frames", "ab" * 32, b"x"),
        ("index", "ab" * 32, b"x"),
        ("dictionaries", "ab" * 32, b"x"),
        ("log", "000000000001", b"x"),  # a slot is created, never replaced
        ("log", "000000000007", b"x"),
        ("config", "stores", b"x"),  # where stores are is told to the server alone
        ("config", "origin", b"x"),
        ("config", "config", b"x"),
        ("leases", "mine", b"x"),  # what is no lease
    ],
)
def test_what_is_not_taken(served: Served, namespace: str, name: str, value: bytes) -> None:
    before = _all(served.behind)
    for ask in (
        lambda: served.store.put(namespace, name, value),
        lambda: served.store.put_many(namespace, [(name, value), ("0" * 64, value)]),
        lambda: served.store.create(namespace, name, value),
    ):
        try:
            answered = ask()
        except (UploadRefused, SlotTaken, UsageError, StoreError) as error:
            assert "\n" not in str(error) and len(str(error)) < 400
        else:
            assert answered is False
    assert _all(served.behind) == before


def test_what_is_not_deleted(served: Served) -> None:
    """What is still named by a version: only what the log has given up is."""
    before = _all(served.behind)
    for namespace in ("frames", "log", "config"):
        names = [stored.name for stored in served.behind.list(namespace)]
        for ask in (served.store.delete, served.store.soft_delete):
            with pytest.raises(SprayDryError):
                ask(namespace, names)
    assert _all(served.behind) == before
    served.store.delete("frames", ["0" * 64])  # it is not there


def test_stores_are_not_shown(served: Served) -> None:
    served.behind.put("config", "stores", b"secret")
    try:
        assert [stored.name for stored in served.store.list("config")] == ["config"]
        assert served.store.info("config", "stores") is None
        with pytest.raises(ValueNotFound):
            served.store.get("config", "stores")
        assert dict(served.store.get_many("config", ["stores", "config"]))["stores"] is None
        with suppress(SprayDryError):
            served.store.delete("config", ["stores"])
        assert served.behind.get("config", "stores") == b"secret"
    finally:
        served.behind.delete("config", ["stores"])


def test_threads(served: Served) -> None:
    names = [stored.name for stored in served.behind.list("frames")]

    def read(_: int) -> list[bytes]:
        return [served.store.get("frames", name) for name in names]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(read, range(32)))
    assert all(one == [served.behind.get("frames", name) for name in names] for one in found)
