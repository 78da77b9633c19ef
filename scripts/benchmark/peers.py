"""spraydry and its peers: how each one keeps a tree and shows it again.

Every one ingests the same folder at the same path, and mounts with its own defaults in the foreground. All that is
compressed is compressed with zstd, level 3 where there is a choice.
"""

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


class Spraydry(Peer):
    name = "spraydry"
    program = "spraydry"
    settings = "spraydry ingest --root bench --as VERSION; spraydry mount --engine fuse -f bench@VERSION"
    mount_options: tuple[str, ...] = ("--engine", "fuse")

    def tool(self) -> str:
        return self.program

    def missing(self) -> str | None:
        return None if shutil.which(self.program) else f"{self.program} is not there: run scripts/setup"

    def version(self) -> str:
        """With the commit, where it runs from a checkout."""
        version, top = super().version(), os.path.dirname(self.program)
        git = ["git", "-C", top or ".", "describe", "--always", "--dirty=, modified"]
        try:
            told = subprocess.run(git, capture_output=True, text=True)
        except OSError:
            return version
        return f"{version} ({told.stdout.strip()})" if told.returncode == 0 else version

    def words(self, *more: str) -> list[str]:
        return [self.program, "--repo", os.path.join(self.store, "repository.sqlite"), *more]

    def ingest_command(self, sources: list[str], version: str) -> list[str]:
        return self.words("ingest", sources[0], "--root", "bench", "--as", version)

    def mount_command(self, version: str) -> list[str]:
        return self.words("mount", "-f", *self.mount_options, f"bench@{version}", self.point)


class SpraydryErofs(Spraydry):
    """The other engine, on the same repository. What it keeps of a first mount lies beside that and goes with it."""

    name = "spraydry-erofs"
    settings = "spraydry mount --engine erofs --allow-other on the same repository"
    mount_options = ("--engine", "erofs", "--allow-other")
    store_of = "spraydry"
    refused: str | None = None

    def cannot_mount(self) -> str | None:
        """Kernels differ in what they can do, and a version of spraydry may not have it: a tiny mount tells."""
        if not system.is_root():
            return "kernel mounts need root"
        if self.refused is None:
            self.refused = self._try()
        return self.refused or None

    def _try(self) -> str:
        """Why it does not mount here, or nothing."""
        folder = os.path.join(self.folder, "tiny")
        tiny, source = type(self)(folder, self.log), os.path.join(folder, "source")
        try:
            tiny.reset()
            os.makedirs(os.path.join(source, "folder"))
            tiny.ingest([source], "v1", 60)
            tiny.mount("v1")
        except (PeerError, OSError) as error:
            return str(error)
        finally:
            tiny.unmount()
            shutil.rmtree(folder, ignore_errors=True)
        return ""


class Borg(Peer):
    name = "borg"
    tools = ("borg",)
    settings = "borg create --compression zstd,3, encryption none; borg mount"

    def environment(self) -> dict[str, str]:
        free = {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
        return super().environment() | free | {"BORG_BASE_DIR": self.cache}

    def initialize(self) -> None:
        run([self.tool(), "init", "-e", "none", self.store], self.log, env=self.environment())

    def ingest_command(self, sources: list[str], version: str) -> list[str]:
        return [self.tool(), "create", "--compression", "zstd,3", f"{self.store}::{version}", "."]

    def mount_command(self, version: str) -> list[str]:
        return [self.tool(), "mount", "-f", f"{self.store}::{version}", self.point]


class Restic(Peer):
    name = "restic"
    tools = ("restic",)
    settings = "restic backup --compression auto (zstd, always encrypted); restic mount"
    version_option = "version"

    def environment(self) -> dict[str, str]:
        mine = {"RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": self.store, "RESTIC_CACHE_DIR": self.cache}
        return super().environment() | mine

    def initialize(self) -> None:
        run([self.tool(), "init", "--repository-version", "2"], self.log, env=self.environment())

    def ingest_command(self, sources: list[str], version: str) -> list[str]:
        return [self.tool(), "backup", "-q", "--compression", "auto", "--tag", version, "."]

    def mount_command(self, version: str) -> list[str]:
        return [self.tool(), "mount", "-q", self.point]

    def root(self, version: str) -> str:
        return os.path.join(self.point, "tags", version, "latest")


class Squashfs(Peer):
    name = "squashfs"
    tools: tuple[str, ...] = ("mksquashfs",)
    settings = "mksquashfs -comp zstd -Xcompression-level 3 -b 128K; the kernel's squashfs on a loop device"
    version_option = "-version"
    image = True
    several_sources = True
    in_kernel = True

    def file(self, version: str) -> str:
        return os.path.join(self.store, f"{version}.squashfs")

    def ingest_command(self, sources: list[str], version: str) -> list[str]:
        options = ["-comp", "zstd", "-Xcompression-level", "3", "-b", "131072", "-noappend", "-no-progress", "-quiet"]
        return [self.tool(), *sources, self.file(version), *options]

    def forget(self, version: str) -> None:
        os.unlink(self.file(version))

    def mount_command(self, version: str) -> list[str]:
        return ["mount", "-t", "squashfs", "-o", "ro,loop", self.file(version), self.point]


class Squashfuse(Squashfs):
    name = "squashfuse"
    tools = ("mksquashfs", "squashfuse_ll")
    settings = "squashfuse_ll on the same image"
    in_kernel = False
    store_of = "squashfs"

    def version(self) -> str:
        return system.version_of(["squashfuse_ll", "--help"])

    def mount_command(self, version: str) -> list[str]:
        return [shutil.which("squashfuse_ll") or "squashfuse_ll", "-f", self.file(version), self.point]


class Erofs(Peer):
    name = "erofs"
    tools = ("mkfs.erofs",)
    settings = "mkfs.erofs -zlz4hc,9 -C65536 (Debian's has no zstd); the kernel's erofs on a loop device"
    image = True
    in_kernel = True

    def version(self) -> str:
        """1.5 knows no --version: it tells which it is, and then how it is used, elsewhere."""
        return system.version_of(["sh", "-c", '"$0" --version 2>/dev/null', self.tool()])

    def file(self, version: str) -> str:
        return os.path.join(self.store, f"{version}.erofs")

    def ingest_command(self, sources: list[str], version: str) -> list[str]:
        return [self.tool(), "-zlz4hc,9", "-C65536", self.file(version), sources[0]]

    def mount_command(self, version: str) -> list[str]:
        return ["mount", "-t", "erofs", "-o", "ro,loop", self.file(version), self.point]


class Casync(Peer):
    name = "casync"
    tools = ("casync",)
    settings = "casync make --chunk-size=65536 (its default, on average), zstd; casync mount"

    def words(self, verb: str, version: str, *more: str) -> list[str]:
        index = os.path.join(self.store, f"{version}.caidx")
        return [self.tool(), verb, f"--store={os.path.join(self.store, 'default.castr')}", *more, index]

    def ingest_command(self, sources: list[str], version: str) -> list[str]:
        return [*self.words("make", version, "--with=fuse", "--chunk-size=65536"), sources[0]]

    def mount_command(self, version: str) -> list[str]:
        return [*self.words("mount", version), self.point]


PEERS: list[type[Peer]] = [Spraydry, SpraydryErofs, Borg, Restic, Squashfs, Squashfuse, Erofs, Casync]


def tools_used() -> dict[str, str]:
    """Versions of what reads the mounts."""
    return {name: system.version_of([name, "--version"]) for name in ("find", "tar", "ls")}


def describe(peers: list[Peer]) -> dict[str, str]:
    return {peer.name: f"{peer.version()}: {peer.settings}" for peer in peers}
