"""Handing off to the nginx in front: it sends plain files out of a folder, told by X-Accel-Redirect which."""

from __future__ import annotations

import threading

from starlette.types import Scope

from spraydry.format.entry import Entry
from spraydry.repository.repository import Repository
from spraydry.web.plain.folder import PlainFolder
from spraydry.web.plain.handoff import Handoff, Headers
from spraydry.web.served import Served

LOCATION = "/.plain/"  # which nginx's settings have as `internal`, an alias of the folder


class Nginx(Handoff):
    """Only for requests in which nginx says that it is there, by `X-Sendfile-Type: X-Accel-Redirect`: whoever comes
    here another way would get an empty answer. Ranges are nginx's then; conditions were looked at before."""

    def __init__(self, folder: PlainFolder) -> None:
        super().__init__()
        self._folder = folder

    @property
    def status(self) -> int:
        return 200

    def takes(self, scope: Scope, entry: Entry, media_type: bytes) -> str | None:
        digest = entry.file_digest
        if digest is None or entry.size > self._folder.limit_bytes // 2:
            return None
        if (b"x-sendfile-type", b"X-Accel-Redirect") not in scope["headers"]:
            return None
        return digest.hex()

    async def there(self, served: Served, name: str, size: int) -> Headers | None:
        if not self._folder.use(name, size):
            return None
        return [(b"x-accel-redirect", f"{LOCATION}{self._folder.place(name)}".encode())]

    def bring(self, repository: Repository, name: str, entry: Entry, media_type: bytes, ended: threading.Event) -> bool:
        return self._folder.bring(repository, name, entry, ended)
