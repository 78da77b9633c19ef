"""What the options of `spraydry serve` say of handing off."""

from __future__ import annotations

import re

from spraydry.errors import UsageError
from spraydry.format.chunker import parse_bytes
from spraydry.web.plain.folder import PlainFolder
from spraydry.web.plain.handoff import Handoff
from spraydry.web.plain.nginx import Nginx

_CLOUD = re.compile(r"(s3|gs|az)://([A-Za-z0-9][A-Za-z0-9._-]+)(?:/([A-Za-z0-9._=+@/-]*))?")


def handoff_of(accel: str, plain: str) -> Handoff | None:
    """How to hand off: `plain` is DIR:BYTES, for `accel` nginx, or the URL of a place in a bucket; None where both are
    empty. Raises UsageError, StoreError."""
    if accel not in ("", "nginx"):
        raise UsageError(f"--accel knows nginx, not {accel!r}")
    if not plain:
        if accel:
            raise UsageError("--accel nginx needs a folder for plain files: add --plain DIR:BYTES, such as /srv/p:50G")
        return None
    if match := _CLOUD.fullmatch(plain):
        if accel:
            raise UsageError("with --plain in a bucket clients are sent there: leave out --accel")
        from spraydry.web.plain.cloud import Cloud  # its library is not always there

        return Cloud(match[1], match[2], (match[3] or "").strip("/"))
    folder, colon, size = plain.rpartition(":")
    if not (colon and folder) or "://" in plain:
        raise UsageError(
            f"{plain!r} is no place for plain files: write DIR:BYTES, such as /srv/plain:50G, or s3://BUCKET/PREFIX"
        )
    if not accel:
        raise UsageError("plain files in a folder are for a web server in front: add --accel nginx")
    return Nginx(PlainFolder(folder, parse_bytes(size)))
