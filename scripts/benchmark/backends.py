"""spraydry on each of its stores: how a place is made there, what a client needs, how it goes away again."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import IO, NamedTuple
from urllib.parse import urlsplit

from benchmark import probe, system
from benchmark.peer import PeerError
from benchmark.peers import Spraydry
from benchmark.servers import Server
from benchmark.system import Ran

PROBE = os.path.abspath(probe.__file__)


class Answer(NamedTuple):
    """What a probe measured inside, and what was seen of its process from outside."""

    values: dict[str, float]
    ran: Ran


class Backend(Spraydry):
    """One store. Its repository is another one after each `reset`, its machine (all that spraydry remembers outside
    the repository) another one after each `fresh_machine`."""

    label = ""  # as it is shown
    server: Server | None = None
    python = ""  # the interpreter that `program` runs with

    def __init__(self, folder: str, log: IO[bytes]) -> None:
        super().__init__(folder, log)
        self.machines = 0
        self.url: str | None = None
        self.number = 0

    def missing(self) -> str | None:
        return super().missing() or (None if self.python else f"{self.program} is no Python script")

    def place(self, number: int) -> str:
        """The URL of the repository of that number."""
        raise NotImplementedError

    def words(self, *more: str) -> list[str]:
        assert self.url is not None
        return [self.program, "--repo", self.url, *more]

    def environment(self) -> dict[str, str]:
        return super().environment() | (self.server.environment if self.server else {})

    def reset(self) -> None:
        """A new place for a repository, and nothing left of the one before."""
        self.remove()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.store)
        self.fresh_machine()
        self.number += 1
        self.url = self.place(self.number)

    def fresh_machine(self) -> None:
        """From now on nothing is remembered."""
        shutil.rmtree(self.cache, ignore_errors=True)
        self.machines += 1
        self.cache = os.path.join(self.folder, f"machine-{self.machines}")
        os.makedirs(self.cache)

    def remove(self) -> None:
        """What lies in a server; what lies in files goes with the folder."""
        if self.url is not None and self.server is not None:
            self.probe("destroy", limit=600)
        self.url = None

    def probe(self, *words: object, limit: float) -> Answer:
        """What one of the probes says of the repository, run by spraydry's own Python."""
        assert self.url is not None
        told = os.path.join(self.cache, "told.json")
        since = os.path.getsize(self.log.name)
        command = [self.python, PROBE, told, str(words[0]), self.url, *map(str, words[1:])]
        ran = system.run(command, self.log, env=self.environment(), limit=limit)
        if ran.cut:
            raise PeerError(f"{words[0]} took more than {limit:.0f} s")
        if ran.code:
            raise self._ended(str(words[0]), ran.code, since)
        with open(told) as file:
            return Answer(json.load(file), ran)


class Sqlite(Backend):
    name, label = "sqlite", "sqlite:"

    def place(self, number: int) -> str:
        return f"sqlite:{self.store}/repository.sqlite"


class Dir(Backend):
    name, label = "dir", "dir:"

    def place(self, number: int) -> str:
        return f"dir:{self.store}/repository"


class Segment(Backend):
    name, label = "segment", "segment:"

    def place(self, number: int) -> str:
        return f"segment:{self.store}/repository"


class S3(Backend):
    name, label = "s3", "s3:"

    def place(self, number: int) -> str:
        assert self.server is not None
        return f"{self.server.url}/{self.name}-{number}"


class Sftp(Backend):
    name, label = "sftp", "sftp:"

    def place(self, number: int) -> str:
        assert self.server is not None
        return f"{self.server.url}/{self.name}-{number}/repository"


class Postgresql(Backend):
    name, label = "postgresql", "postgresql:"

    def place(self, number: int) -> str:
        assert self.server is not None
        return f"{self.server.url}?schema=bench_{number}"


class Http(Backend):
    """Reads, through a web server, what `dir:` stored."""

    name, label = "http", "http:"
    store_of = "dir"

    def __init__(self, folder: str, log: IO[bytes]) -> None:
        super().__init__(folder, log)
        self.folder = os.path.join(folder, self.name)
        self.store = os.path.join(self.folder, "store")

    def place(self, number: int) -> str:
        assert self.server is not None
        return f"{self.server.url.rstrip('/')}/repository"

    def remove(self) -> None:
        """It is the other one's."""


class FarS3(S3):
    """The same server, behind a delay."""

    name, label = "s3-far", "s3: far"


class FarSftp(Sftp):
    name, label = "sftp-far", "sftp: far"


LOCAL: list[type[Backend]] = [Sqlite, Dir, Segment]
BACKENDS: list[type[Backend]] = [*LOCAL, S3, Sftp, Postgresql, Http, FarS3, FarSftp]
SERVER_OF = {"s3": "ceph", "sftp": "sshd", "postgresql": "postgresql", "http": "nginx"}
NEAR = {"s3-far": "s3", "sftp-far": "sftp"}  # what is far away, and the same beside it


def address(near: Server) -> tuple[str, int]:
    """Where a server of S3 or SFTP listens."""
    found = urlsplit(near.environment.get("AWS_ENDPOINT_URL", near.url))
    assert found.hostname and found.port
    return found.hostname, found.port


def at_port(near: Server, port: int, folder: str) -> Server:
    """A server of S3 or SFTP, reached at another port; what a client needs for that lies in `folder`."""
    host, own = address(near)
    if "AWS_ENDPOINT_URL" in near.environment:
        return near._replace(environment=near.environment | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"})
    os.makedirs(folder, exist_ok=True)
    for name in ("known_hosts", "ssh_config"):
        with open(os.path.join(near.folder, name)) as file:
            text = file.read()
        text = text.replace(f"[{host}]:{own} ", f"[{host}]:{port} ")
        with open(os.path.join(folder, name), "w") as file:
            file.write(text.replace(os.path.join(near.folder, "known_hosts"), os.path.join(folder, "known_hosts")))
    environment = {"SPRAYDRY_SSH_CONFIG": os.path.join(folder, "ssh_config")}
    return near._replace(url=near.url.replace(f":{own}/", f":{port}/"), environment=environment)


def python_of(program: str) -> str:
    """The Python that runs a script, as its first lines say it; empty where they do not."""
    path = shutil.which(program)
    if path is None:
        return ""
    with open(path, "rb") as file:
        found = re.match(rb"#!(?:/bin/sh\n'''exec' \"?)?(/[^\n\"]*python[0-9.]*)\"?[ \n]", file.read(1000))
    return os.fsdecode(found[1]) if found else ""
