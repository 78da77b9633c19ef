"""Stores in buckets pass the conformance suite against a real server (Ceph), and stand what networks do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.servers import Server, server
from tests.store_contract import Place, StoreContract

pytest.importorskip("obstore", reason="NOT TESTED: obstore is not installed")
_numbers = count()


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server("ceph", tmp_path_factory.mktemp("ceph")) as running:
        yield running


@pytest.fixture
def url(ceph: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a place in the server's bucket where nothing is yet."""
    for name, value in ceph.environment.items():
        monkeypatch.setenv(name, value)
    return f"{ceph.url}/tests/{next(_numbers)}"


class TestS3(StoreContract):
    @pytest.fixture
    def place(self, url: str) -> Place:
        return Place(url)
