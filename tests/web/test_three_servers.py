"""Three servers over stores that mirror each other, under load, while they are killed, restarted and cut off: no call
fails, and nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spraydry.actions.verify import verify
from spraydry.cli import run
from spraydry.repository.repository import Repository
from tests.faultproxy import Fault, proxy
from tests.ingest.trees import taken, version_of
from tests.servers import server_or_skip
from tests.web.serving import Running, kept_port, serving

_PATIENCE_S = 300.0
_FILES = 12


class Site:
    """A machine with a server: it is killed and comes back at the same address."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self._stack = ExitStack()
        self.port = self._stack.enter_context(kept_port())
        self._running: Running | None = None

    def start(self) -> None:
        homes = {name: str(self._folder / name) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME")}
        self._running = self._stack.enter_context(
            serving(self._folder, listen=f"127.0.0.1:{self.port}", SPRAYDRY_REPO=self._url, **homes)
        )

    def kill(self) -> None:
        assert self._running is not None
        self._running.kill()

    def close(self) -> None:
        self._stack.close()


@dataclass
class Load:
    """Clients that work until they are told to end; `done` counts what each has done."""

    url: str
    folder: Path
    ended: threading.Event = field(default_factory=threading.Event)
    done: dict[str, int] = field(default_factory=dict)
    acknowledged: dict[str, dict[str, bytes]] = field(default_factory=dict)  # by version: its files

    def ingest(self, root: str) -> None:
        """Commits one version after another."""
        rng = random.Random(root)
        source = self.folder / root
        source.mkdir()
        with Repository.open(self.url) as repository:
            while not self.ended.is_set():
                files = {f"{number}": rng.randbytes(rng.randrange(60_000)) for number in range(_FILES)}
                for name, value in files.items():
                    (source / name).write_bytes(value)
                made = version_of(taken(repository, source, root=root))
                self.acknowledged[f"{root}@{made.name}"] = files
                self._count(root)

    def read(self, name: str) -> None:
        """Reads back versions that were acknowledged, of others, too, with a repository opened anew each time."""
        rng = random.Random(name)
        while not self.ended.is_set():
            if not self.acknowledged:
                time.sleep(0.01)
                continue
            version, files = rng.choice(sorted(self.acknowledged.items()))
            with Repository.open(self.url, read_only=True, cache_bytes=1 << 20) as repository:
                for file, value in files.items():
                    with repository.open_file(f"{version}:{file}") as stream:
                        assert stream.read() == value, f"{version}:{file} is not what was put there"
            self._count(name)

    def look(self, point: Path, files: dict[str, bytes]) -> None:
        """Reads a mount, and drops what the kernel keeps of it."""
        while not self.ended.is_set():
            for file, value in files.items():
                with open(point / file, "rb") as stream:
                    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    assert stream.read() == value, f"{file} of the mount is not what was put there"
            self._count("mount")

    def _count(self, name: str) -> None:
        self.done[name] = self.done.get(name, 0) + 1

    def goes_on(self, clients: list[str], working: Callable[[], None]) -> None:
        """Wait until each client has done something, begun and ended after this was called."""
        before = dict(self.done)
        until_s = time.monotonic() + _PATIENCE_S
        while any(self.done.get(name, 0) < before.get(name, 0) + 2 for name in clients):
            working()
            assert time.monotonic() < until_s, f"it came to a halt: {before} {self.done}"
            time.sleep(0.02)


@contextmanager
def mounted(url: str, root: str, point: Path, home: Path) -> Iterator[None]:
    """A kernel mount by a process of its own, as on another machine, with less memory than it reads each time."""
    environment = {**os.environ, "SPRAYDRY_REPO": url, "XDG_RUNTIME_DIR": str(home / "run")}
    environment |= {name: str(home / name) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME")}
    (home / "run").mkdir(parents=True, mode=0o700)
    point.mkdir()
    spraydry = [sys.executable, "-c", "from spraydry.cli import main; main()"]
    subprocess.run(
        [*spraydry, "mount", root, str(point), "--engine", "fuse", "--cache", "8M"], env=environment, check=True
    )
    try:
        yield
    finally:
        subprocess.run([*spraydry, "umount", "--lazy", str(point)], env=environment, check=True)


@pytest.fixture(params=["dir", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A repository on three stores with two copies of each frame; the log is on the first."""
    with ExitStack() as stack:
        owner = f"dir:{tmp_path}/a"
        if request.param == "postgresql":
            server = stack.enter_context(server_or_skip("postgresql", tmp_path / "postgresql"))
            stack.enter_context(pytest.MonkeyPatch.context()).setenv(
                "PGPASSWORD", (server.folder / "pgpass").read_text().strip().rpartition(":")[2]
            )
            owner = f"{server.url}?schema=mirrored"
        assert run(["--repo", owner, "init", f"dir:{tmp_path}/b", f"dir:{tmp_path}/c", "--copies", "2"]) == 0
        yield owner


@pytest.mark.slow
@pytest.mark.fuse
def test_three_servers(url: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        sites = [Site(tmp_path / f"site{number}", url) for number in range(3)]
        for site in sites:
            stack.callback(site.close)
            site.start()
        between = stack.enter_context(proxy("127.0.0.1", sites[1].port))
        servers = f"http://127.0.0.1:{sites[0].port},{between.address},127.0.0.1:{sites[2].port}"
        load = Load(servers, tmp_path)
        pool = stack.enter_context(ThreadPoolExecutor(8))
        stack.callback(load.ended.set)

        files = {f"{number}": random.Random(number).randbytes(1_000_000) for number in range(_FILES)}
        (tmp_path / "fixed").mkdir()
        for name, value in files.items():
            (tmp_path / "fixed" / name).write_bytes(value)
        with Repository.open(servers) as repository:
            taken(repository, tmp_path / "fixed", root="fixed")
        stack.enter_context(mounted(servers, "fixed", tmp_path / "mnt", tmp_path / "home"))

        clients = ["one", "two", "reader", "mount"]
        working = [pool.submit(load.ingest, root) for root in ("one", "two")]
        working += [pool.submit(load.read, "reader"), pool.submit(load.look, tmp_path / "mnt", files)]

        def none_failed() -> None:
            for each in working:
                if each.done():
                    each.result()

        def goes_on() -> None:
            load.goes_on(clients, none_failed)

        goes_on()
        sites[0].kill()
        goes_on()
        between.fault = Fault(stall=0)
        goes_on()  # by the third alone
        sites[0].start()
        sites[2].kill()
        goes_on()  # by the first alone, which was away
        between.fault = None
        sites[2].start()
        goes_on()
        sites[1].kill()
        goes_on()
        load.ended.set()
        wait(working, return_when=FIRST_EXCEPTION)
        for each in working:
            each.result()
        assert between.struck, "nothing was cut off"

    with Repository.open(url) as repository:
        for version, made in load.acknowledged.items():
            for name, value in made.items():
                with repository.open_file(f"{version}:{name}") as stream:
                    assert stream.read() == value
        for root in ("one", "two"):
            names = {f"{root}@{version.name}" for version in repository.versions(root)}
            assert names == {version for version in load.acknowledged if version.startswith(f"{root}@")}
        found = verify(repository)
        assert found.sound and not found.silent, found
