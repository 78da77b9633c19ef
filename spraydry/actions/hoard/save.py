"""Writing what a key names into a file: there whole, or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import BinaryIO

from spraydry.errors import RestoreError, UsageError


def save(stream: BinaryIO, length: int, path: str, *, replace: bool = False) -> None:
    """Write `length` bytes of a stream into a file that is not there yet, or with `replace` in its place. Raises
    UsageError where one is there, RestoreError, and what reading the stream raises; then what was there is there
    still."""
    temporary = os.path.join(os.path.dirname(path), f".spraydry-{secrets.token_hex(8)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            while length and (plain := stream.read(min(length, 1 << 20))):
                file.write(plain)
                length -= len(plain)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    except FileExistsError:
        raise UsageError(f"{path!r} is there already: --force replaces it") from None
    except OSError as error:
        raise RestoreError(f"{path!r} cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            os.unlink(temporary)
