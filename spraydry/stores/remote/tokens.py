"""The token for a server: from $SPRAYDRY_TOKEN or a file of tokens by host; for addresses found in a repository, only
from that."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from spraydry.errors import UsageError

VARIABLE = "SPRAYDRY_TOKEN"
_TOKEN = re.compile("[!-~]{1,4096}")
_PORTS = {"http": 80, "https": 443}
_MOST_BYTES = 1 << 20

_withheld: ContextVar[bool] = ContextVar("withheld", default=False)


@contextmanager
def withheld() -> Iterator[None]:
    """Inside, $SPRAYDRY_TOKEN is given to nobody: addresses come from what a repository says, not from who runs this,
    and whoever wrote that must not be sent it."""
    before = _withheld.set(True)
    try:
        yield
    finally:
        _withheld.reset(before)


def tokens_path() -> str:
    """The file of tokens: lines of `HOST[:PORT] TOKEN`."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(base, "spraydry", "tokens")


def token_for(scheme: str, host: str, port: int | None) -> str | None:
    """What to send to that server: its line in the file, else $SPRAYDRY_TOKEN; None for nothing. Raises UsageError for
    a file that others may read, or that says nothing, and for a token that cannot be one; never with a token in it."""
    place = (host.lower(), port or _PORTS[scheme])
    found = _from_file(tokens_path(), scheme).get(place)
    if found is None and not _withheld.get():
        found = os.environ.get(VARIABLE) or None
        if found is not None and not _TOKEN.fullmatch(found):
            raise UsageError(f"${VARIABLE} is no token: it has spaces, or what is no ASCII")
    return found


def where_to_put() -> str:
    """For messages: where a token is taken from."""
    line = f"a line HOST:PORT TOKEN in {tokens_path()}"
    if _withheld.get():
        return f"{line} (${VARIABLE} is not sent where a repository, not its user, says to)"
    return f"${VARIABLE}, or {line}"


def _from_file(path: str, scheme: str) -> dict[tuple[str, int], str]:
    try:
        with open(path, encoding="ascii") as file:
            status = os.fstat(file.fileno())
            if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid not in (os.geteuid(), 0):
                raise UsageError(f"{path} can be read by others: chmod 600 it, and take new tokens if they may have")
            lines = file.read(_MOST_BYTES).splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no ASCII'}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        place = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/@]+)(?::([0-9]{1,5}))?", words[0])
        if place is None or len(words) != 2 or not _TOKEN.fullmatch(words[1]):
            raise UsageError(f"{path}: line {number} is not HOST[:PORT] TOKEN")
        found[place[1].strip("[]").lower(), int(place[2] or _PORTS[scheme])] = words[1]
    return found
