"""Real servers for tests, on loopback: what scripts/serving/NAME runs, one of each for a whole test module."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from benchmark import servers

_CACHE_HOME = os.environ.get("XDG_CACHE_HOME")  # of whoever runs the tests: what was unpacked lies there


class Server(servers.Server):
    """A server as tests use it."""

    @property
    def port(self) -> int:
        """Where it listens, of the servers that keep their port."""
        return int((self.folder / "port").read_text())

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give this process the environment of a client."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)


def serving(name: str, *arguments: str) -> Callable[[pytest.TempPathFactory], Iterator[Server]]:
    """A fixture: the server for all tests of a module."""

    @pytest.fixture(scope="module")
    def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        with server_or_skip(name, tmp_path_factory.mktemp(name), *arguments) as started:
            yield started

    return running


@contextmanager
def server_or_skip(name: str, folder: Path, *arguments: str) -> Iterator[Server]:
    """A server of its own in `folder`, until the end of the block; the test is skipped, loudly, where its programs
    cannot be had. What else keeps it from starting fails."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    errors = folder / "start.err"
    with ExitStack() as stack:
        log = stack.enter_context(errors.open("wb"))
        try:
            with pytest.MonkeyPatch.context() as patch:
                if _CACHE_HOME is None:
                    patch.delenv("XDG_CACHE_HOME", raising=False)
                else:
                    patch.setenv("XDG_CACHE_HOME", _CACHE_HOME)
                running = stack.enter_context(servers.server(name, folder, log, *arguments))
        except servers.ServerError as error:
            if re.search(f"{name}: there is no |cannot be fetched", str(error)):
                pytest.skip(f"NOT TESTED: {error}")
            error.add_note(errors.read_text(errors="replace")[-2000:])
            raise
        yield Server(*running)
