"""How much was uploaded with each token: a file beside that of the tokens, to which several servers add."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from spraydry.errors import SprayDryError

_MAX_BYTES = 64 << 20


def place(tokens: Path) -> Path:
    """Where the usage of the tokens in a file is kept."""
    return tokens.with_name(tokens.name + ".used")


def read(tokens: Path) -> dict[str, int]:
    """Bytes by the names of tokens; nothing where none were counted yet."""
    try:
        return _decoded(place(tokens).read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SprayDryError(f"cannot read {place(tokens)}: {error.strerror}") from None


def change(tokens: Path, added: Mapping[str, int], forget: str = "") -> dict[str, int]:
    """Add bytes to what was counted, and forget one token; what is counted then. Raises SprayDryError."""
    try:
        descriptor = os.open(place(tokens), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            used = _decoded(file.read(_MAX_BYTES))
            used.pop(forget, None)
            for name, number in added.items():
                used[name] = used.get(name, 0) + number
            text = msgspec.json.encode(used)
            file.seek(0)
            file.write(text)
            file.truncate()
    except OSError as error:
        raise SprayDryError(f"cannot write {place(tokens)}: {error.strerror}") from None
    return used


def _decoded(text: bytes) -> dict[str, int]:
    """What a file says; one that was cut short by a crash counts from nothing."""
    try:
        return msgspec.json.decode(text, type=dict[str, int])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
