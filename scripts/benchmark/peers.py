"""spraydry and its peers: how each one keeps a tree and shows it again.

Every one ingests the same folder at the same path, and mounts with its own defaults in the foreground. All that is
compressed is compressed with zstd, level 3 where there is a choice.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from benchmark import system
from benchmark.peer import Peer, PeerError
from benchmark.system import run


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
