"""A spread over memory stores passes the conformance suite with any number of copies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from spraydry.format.digest import digest
from spraydry.stores.base import Store, open_store
from spraydry.stores.over.member import Member
from spraydry.stores.over.placement import Copies
from spraydry.stores.over.spread import Spread
from tests.store_contract import Place, StoreContract


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
