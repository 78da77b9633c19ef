"""A fresh place for a repository on each backend; one server of a kind for all tests of a process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.machines import Machine
from tests.servers import Server, server_or_skip

BACKENDS = ("sqlite", "dir", "segment", "s3", "sftp", "postgresql")
_SERVERS = {"s3": "ceph", "sftp": "sshd", "postgresql": "postgresql"}
_fresh = itertools.count()


def _server(name: str, folders: pytest.TempPathFactory) -> Iterator[Server]:
    with server_or_skip(name, folders.mktemp(name)) as running:
        yield running


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _server("ceph", tmp_path_factory)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _server("sshd", tmp_path_factory)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _server("postgresql", tmp_path_factory)


NewMachine = Callable[..., Machine]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn."""
    name: str = request.param
    return name


@pytest.fixture
def new_machine(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> NewMachine:
    """Makes machines that know nothing but where the test's repository is; nothing is there yet."""
    number = next(_fresh)
    environment: dict[str, str] = {}
    if backend in _SERVERS:
        running: Server = request.getfixturevalue(_SERVERS[backend])
        environment = running.environment
        url = f"{running.url}?schema=r{number}" if backend == "postgresql" else f"{running.url}/r{number}/store"
    else:
        url = f"{backend}:{tmp_path / 'repository'}"
    machines = itertools.count()

    def make(at: str = url, **settings: str) -> Machine:
        return Machine(tmp_path / f"machine-{next(machines)}", at, {**environment, **settings})

    return make
