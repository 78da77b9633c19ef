"""The postgresql store passes the conformance suite on a real server, and stands what can happen to a connection."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.servers import Server, server
from tests.store_contract import Place, StoreContract

_fresh = itertools.count()


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server("postgresql", tmp_path_factory.mktemp("postgresql")) as running:
        yield running


@pytest.fixture
def url(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a test's store goes; nothing is there yet."""
    for name, value in postgresql.environment.items():
        monkeypatch.setenv(name, value)
    return f"{postgresql.url}?schema=s{next(_fresh)}"


class TestPostgresql(StoreContract):
    @pytest.fixture
    def place(self, url: str) -> Place:
        return Place(url, atomic_batches=True)
