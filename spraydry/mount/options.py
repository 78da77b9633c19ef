"""What a mount can be told: the options of `spraydry mount`, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass

from spraydry.errors import UsageError
from spraydry.format.chunker import parse_bytes

_MIN_CACHE_BYTES = 8 << 20  # a frame of the largest size must fit, and one being read beside it


@dataclass(frozen=True)
class MountOptions:
    """`cache_bytes` bounds the decoded chunks in memory; `owner` is the (uid, gid) everything is shown to have, None as
    stored; `suid` and `dev` let setuid bits and device nodes take effect; `log` is a file, None the usual one; `engine`
    is fuse, erofs or auto."""

    cache_bytes: int
    allow_other: bool = False
    owner: tuple[int, int] | None = None
    suid: bool = False
    dev: bool = False
    log: str | None = None
    engine: str = "fuse"

    def fuse(self) -> set[str]:
        """The options for libfuse. The kernel checks permissions itself, always: a handler does not."""
        chosen = {"fsname=spraydry", "subtype=spraydry", "ro", "default_permissions"}
        chosen |= {"suid" if self.suid else "nosuid", "dev" if self.dev else "nodev"}
        return chosen | {"allow_other"} if self.allow_other else chosen


def parse(
    *,
    cache: str,
    allow_other: bool = False,
    owner: str | None = None,
    flags: str | None = None,
    log: str | None = None,
    engine: str = "auto",
) -> MountOptions:
    """Read the options as they are written on a command line. Raises UsageError."""
    cache_bytes = parse_bytes(cache)
    if cache_bytes < _MIN_CACHE_BYTES:
        raise UsageError(f"--cache {cache}: at least {_MIN_CACHE_BYTES >> 20}M are needed")
    given = {flag for flag in (flags or "").split(",") if flag}
    if unknown := given - {"suid", "dev", "nosuid", "nodev", "ro"}:
        raise UsageError(f"-o {','.join(sorted(unknown))}: a mount only takes suid and dev")
    if given & {"suid", "dev"} and os.geteuid() != 0:
        raise UsageError("-o suid and -o dev are for root only")
    return MountOptions(
        cache_bytes=cache_bytes,
        allow_other=allow_other,
        owner=None if owner is None else _owner(owner),
        suid="suid" in given,
        dev="dev" in given,
        log=None if log is None else os.path.abspath(log),
        engine=engine,
    )


def _owner(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    try:
        owner = int(uid), int(gid)
    except ValueError:
        owner = -1, -1
    if not all(0 <= number < 0xFFFFFFFF for number in owner):
        raise UsageError(f"--owner {text}: write two numbers, UID:GID, such as {os.getuid()}:{os.getgid()}")
    return owner
