"""The sftp store passes the conformance suite on OpenSSH's sshd, and stands what can happen to a connection."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.servers import Server, server
from tests.store_contract import Place, StoreContract

_fresh = itertools.count()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server("sshd", tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def url(sshd: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a test's store goes; nothing is there yet."""
    for name, value in sshd.environment.items():
        monkeypatch.setenv(name, value)
    return f"{sshd.url}/{next(_fresh)}/store"


class TestSftp(StoreContract):
    @pytest.fixture
    def place(self, url: str) -> Place:
        return Place(url)
