"""Handing off to an object store: clients are sent to a signed URL of a whole plain file in a bucket."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from datetime import timedelta
from time import monotonic
from typing import Any

from starlette.types import Scope

from spraydry.errors import CorruptData, UsageError
from spraydry.format.digest import hasher
from spraydry.format.entry import Entry
from spraydry.repository.ahead import read_ahead
from spraydry.repository.repository import Repository
from spraydry.stores.shared.cloud_clients import client
from spraydry.stores.shared.cloud_errors import failure, is_missing
from spraydry.web.plain.handoff import Ended, Handoff, Headers
from spraydry.web.served import Served

try:
    import obstore
    from obstore.exceptions import BaseError
except ImportError:
    raise UsageError("s3:, gs: and az: need a library: pip install 'spraydry[s3]'") from None

_SIGNED_FOR = timedelta(hours=1)
_USED_FOR_S = 900.0  # so long a signed URL is given out, and what was there is taken to be there still
_REMEMBERED = 10_000
_PART_BYTES, _PARTS_AT_A_TIME = 8 << 20, 4
_ZEROS = bytes(1 << 20)
# An object store sends no header that keeps these from scripting: they are sent from here.
_CAN_SCRIPT = (b"text/html", b"application/xhtml", b"image/svg", b"application/xml", b"text/xml")


class Cloud(Handoff):
    """Files lie at PREFIX/plain/DIGEST/TYPE, with their type, which the store tells clients; nothing is ever removed:
    a rule of the bucket may do that, for what is gone is brought again."""

    def __init__(self, scheme: str, bucket: str, prefix: str) -> None:
        super().__init__()
        self._scheme, self._bucket = scheme, bucket
        self._prefix = f"{prefix}/plain/" if prefix else "plain/"
        self._client = client(scheme, bucket)
        self._signed: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    @property
    def status(self) -> int:
        return 307

    def takes(self, scope: Scope, entry: Entry, media_type: bytes) -> str | None:
        digest = entry.file_digest
        if digest is None or media_type.startswith(_CAN_SCRIPT):
            return None
        return f"{digest.hex()}/{media_type.partition(b';')[0].decode()}"

    async def there(self, served: Served, name: str, size: int) -> Headers | None:
        url, until_s = self._signed.get(name, (b"", 0.0))
        if monotonic() > until_s:
            found = await served.call(self._sign, name, size)
            if found is None:
                return None
            url = found
            self._signed[name] = (url, monotonic() + _USED_FOR_S)
            if len(self._signed) > _REMEMBERED:
                self._signed.popitem(last=False)
        return [(b"location", url)]

    def _sign(self, name: str, size: int) -> bytes | None:
        path = self._prefix + name
        try:
            if int(obstore.head(self._client, path)["size"]) != size:
                return None
            url: str = obstore.sign(self._client, "GET", path, _SIGNED_FOR)
        except (BaseError, OSError, ValueError) as error:
            if is_missing(error):
                return None
            raise failure(error, self._place, self._scheme, self._bucket) from None
        return url.encode("ascii")

    @property
    def _place(self) -> str:
        return f"{self._scheme}://{self._bucket}/{self._prefix}"

    def bring(self, repository: Repository, name: str, entry: Entry, media_type: bytes, ended: threading.Event) -> bool:
        attributes: Any = {
            "Content-Type": media_type.decode(),
            "Cache-Control": "private, max-age=31536000, immutable",
        }
        troubles: list[BaseException] = []
        try:
            obstore.put(
                self._client,
                self._prefix + name,
                _pieces(repository, name.partition("/")[0], entry, ended, troubles),
                attributes=attributes,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_A_TIME,
            )
        except (BaseError, OSError, ValueError) as error:
            if troubles:
                raise troubles[0] from None
            raise failure(error, self._place, self._scheme, self._bucket) from None
        return True


def _pieces(
    repository: Repository, digest: str, entry: Entry, ended: threading.Event, troubles: list[BaseException]
) -> Iterator[bytes]:
    """The bytes of a file; the last of them only once all are known to be right, so that no wrong ones get a name."""
    held: list[bytes] = []
    held_bytes, whole, size = 0, hasher(), 0
    try:
        for span, chunk in read_ahead(repository, entry):
            if ended.is_set():
                raise Ended
            for start in range(0, span.length, len(_ZEROS)):
                stop = min(start + len(_ZEROS), span.length)
                piece = _ZEROS[: stop - start] if chunk is None else bytes(chunk[start:stop])
                whole.update(piece)
                if held_bytes + len(piece) > _PART_BYTES:
                    yield b"".join(held)
                    held, held_bytes = [], 0
                held.append(piece)
                held_bytes += len(piece)
                size += len(piece)
        if size != entry.size or whole.digest().hex() != digest:
            raise CorruptData(f"a file's chunks do not make up what its digest says: {digest}")
    except Exception as error:
        troubles.append(error)
        raise
    yield b"".join(held)
