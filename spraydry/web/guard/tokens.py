"""The tokens a server knows: from the secret in a request to its token, following the file as it changes."""

from __future__ import annotations

import hmac
import logging
import time
from pathlib import Path

from spraydry.errors import NotFound, SprayDryError
from spraydry.format.digest import digest
from spraydry.web.guard import tokenfile
from spraydry.web.guard.tokenfile import Token, TokenFile

_LOOK_EVERY_S = 1.0
_FRONT = 8  # bytes of a digest by which a token is looked up; the rest is compared in constant time

log = logging.getLogger(__name__)


class Tokens:
    """The tokens of a file, read again at most a second after it changed. For one thread; does not block for long.

    A file that is gone gives no tokens; one that cannot be read or parsed at the moment leaves them as they were, and
    the log says so. Raises SprayDryError when it is made and the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = self._marked()
        self._looked = time.monotonic()
        self._take(tokenfile.read(path))

    @property
    def key(self) -> bytes:
        """What signs links."""
        self._look()
        return self._key

    def find(self, secret: bytes) -> Token | None:
        """The token with that secret, unless it has expired."""
        self._look()
        name = digest(secret)
        known = self._by_digest.get(name[:_FRONT])
        if known is None or not hmac.compare_digest(known[0], name) or known[1].expired(time.time()):
            return None
        return known[1]

    def named(self, name: str) -> Token | None:
        """The token of that name, unless it has expired."""
        self._look()
        token = self._by_name.get(name)
        return None if token is None or token.expired(time.time()) else token

    @property
    def generation(self) -> int:
        """Rises when the file was read anew."""
        self._look()
        return self._generation

    _generation = 0

    def _take(self, held: TokenFile) -> None:
        self._key = bytes.fromhex(held.key)
        self._by_digest = {bytes.fromhex(one.secret)[:_FRONT]: (bytes.fromhex(one.secret), one) for one in held.tokens}
        self._by_name = {token.name: token for token in held.tokens}
        self._generation += 1

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        if (mark := self._marked()) == self._mark:
            return
        self._mark = mark
        try:
            self._take(tokenfile.read(self._path))
        except NotFound:
            log.warning("%s is gone: no token is good any more", self._path)
            self._take(TokenFile(1, self._key.hex()))
        except SprayDryError as error:
            log.warning("the tokens stay as they were: %s", error)

    def _marked(self) -> tuple[int, ...]:
        """What changes when the file does."""
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
