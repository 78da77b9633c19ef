"""Leases that clients hold: who does not know a lease cannot change it."""

from __future__ import annotations

import re

import msgspec

from spraydry.errors import UploadRefused, ValueNotFound
from spraydry.format.digest import DIGEST_BYTES
from spraydry.repository.leases import Held
from spraydry.repository.repository import Repository

_ID = re.compile(r"[0-9a-f]{16}")
_LIST = re.compile(r"[0-9a-f]{16}\.[0-9]{8}")
_decoder = msgspec.msgpack.Decoder(Held)

# A lease's id is 64 random bits that its holder knows. Only who may delete leases is shown those of others, so knowing
# one is the right to go on with it and to end it; taking its name for another holder is refused all the same.


def check_lease(repository: Repository, name: str, value: bytes) -> None:
    """Raises UploadRefused unless that is a lease that may be written under that name: a new one, or the next
    heartbeat of the one that is there; or a list of frames of one."""
    if _LIST.fullmatch(name):
        if not value or len(value) % DIGEST_BYTES:
            raise UploadRefused(f"{name} was not stored: it is no list of frames")
        return
    if not _ID.fullmatch(name):
        raise UploadRefused(f"{name} was not stored: it cannot name a lease")
    try:
        held = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise UploadRefused(f"{name} was not stored: it is no lease") from None
    if held.format != 1 or len(held.host) != DIGEST_BYTES or msgspec.msgpack.encode(held) != value:
        raise UploadRefused(f"{name} was not stored: it is no lease")
    try:
        before = _decoder.decode(repository.store.get("leases", name))
    except (ValueNotFound, msgspec.MsgspecError, UnicodeDecodeError):
        return
    if (before.host, before.pid, before.started) != (held.host, held.pid, held.started) or held.beat < before.beat:
        raise UploadRefused(f"{name} was not stored: somebody else holds that lease")


def is_lease(name: str) -> bool:
    """Whether a lease may have that name, so that the lists of one may be asked for by it."""
    return _ID.fullmatch(name) is not None
