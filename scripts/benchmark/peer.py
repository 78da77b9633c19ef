"""What every peer can be asked: to ingest a folder, to mount a version of it, to go away again."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import IO

from benchmark import system
from benchmark.system import Ran, run


class PeerError(Exception):
    """A peer did not do what it was asked."""


class Peer:
    name = ""
    tools: tuple[str, ...] = ()
    settings = ""
    version_option = "--version"
    image = False  # one image per version: nothing is shared between two ingests
    several_sources = False  # an image can hold several trees
    in_kernel = False
    mount_limit = 90.0  # seconds
    store_of: str | None = None  # reads what this other peer stored, and ingests nothing itself

    def __init__(self, folder: str, log: IO[bytes]) -> None:
        self.folder = os.path.join(folder, self.store_of or self.name)
        self.store = os.path.join(self.folder, "store")
        self.cache = os.path.join(self.folder, "cache")
        self.point = os.path.join(folder, "mounts", self.name)
        self.log = log
        self.daemon: subprocess.Popen[bytes] | None = None

    def tool(self) -> str:
        return shutil.which(self.tools[0]) or self.tools[0]

    def missing(self) -> str | None:
        """Why this peer cannot run here, if so."""
        for tool in self.tools:
            if not shutil.which(tool):
                return f"{tool} is not installed"
        return None

    def cannot_mount(self) -> str | None:
        """Why it cannot be mounted here, if so."""
        if self.in_kernel:
            return None if system.is_root() else "kernel mounts need root"
        if not system.fuse_opens():
            return "/dev/fuse cannot be opened"
        return None

    def version(self) -> str:
        return system.version_of([self.tool(), self.version_option])

    def environment(self) -> dict[str, str]:
        """All that a peer remembers lies beside its store, and goes with it."""
        return {"XDG_CACHE_HOME": self.cache, "XDG_DATA_HOME": self.cache, "XDG_STATE_HOME": self.cache}

    # --- Ingest

    def reset(self) -> None:
        """An empty store, and nothing remembered."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.store)
        os.makedirs(self.cache)
        self.initialize()

    def initialize(self) -> None:
        pass

    def ingest_command(self, sources: list[str], version: str) -> list[str]:
        raise NotImplementedError

    def ingest(self, sources: list[str], version: str, limit: float) -> Ran:
        """Several sources only for images, which have to hold all versions that one keeps."""
        command = self.ingest_command(sources, version)
        since = os.path.getsize(self.log.name)
        ran = run(command, self.log, cwd=sources[0], env=self.environment(), limit=limit)
        if ran.cut:
            raise PeerError(f"ingest took more than {limit:.0f} s")
        if ran.code:
            raise self._ended("ingest", ran.code, since)
        return ran

    def forget(self, version: str) -> None:
        """An image that was only made to see how large it is."""

    # --- Mount

    def mount_command(self, version: str) -> list[str]:
        raise NotImplementedError

    def root(self, version: str) -> str:
        """Where the tree is, once mounted."""
        return self.point

    def mount(self, version: str) -> float:
        """Seconds to the end of the first `ls`."""
        os.makedirs(self.point, exist_ok=True)
        since, began = os.path.getsize(self.log.name), time.monotonic()
        if self.in_kernel:
            ran = run(self.mount_command(version), self.log)
            if ran.code:
                raise self._ended("mount", ran.code, since)
        else:
            self.daemon = system.start(self.mount_command(version), self.log, env=self.environment())
            while not system.mounts_below(self.point):
                if self.daemon.poll() is not None:
                    raise self._ended("mount", self.daemon.returncode, since)
                if time.monotonic() - began > self.mount_limit:
                    raise PeerError(f"not mounted after {self.mount_limit:.0f} s")
                time.sleep(0.002)
        left = max(5.0, self.mount_limit - (time.monotonic() - began))
        try:  # by another process, which can be left when the mount hangs
            listed = subprocess.run(["ls", self.root(version) + "/"], capture_output=True, timeout=left)
        except subprocess.TimeoutExpired:
            raise PeerError("the first ls hangs") from None
        if listed.returncode or not listed.stdout:
            raise PeerError(
                f"the first ls failed: {listed.stderr.decode(errors='replace').strip() or 'nothing is there'}"
            )
        return time.monotonic() - began

    def _ended(self, what: str, code: int, since: int) -> PeerError:
        """With the last that it said."""
        words = system.last_words(self.log, since)
        return PeerError(f"{what} ended with {code}" + (f": {words}" if words else ""))

    def unmount(self) -> None:
        system.unmount(self.point)
        if self.daemon:
            system.end(self.daemon, 10)
            self.daemon = None

    def daemon_cpu(self) -> float:
        return system.cpu_seconds(self.daemon.pid) if self.daemon else 0.0

    def daemon_peak(self) -> float:
        """MB, the peak so far of each process of the daemon, summed."""
        return system.memory(system.descendants(self.daemon.pid), "VmHWM") if self.daemon else 0.0
