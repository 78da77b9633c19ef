"""`spraydry get`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def get(
    what: str,
    file: str | None = None,
    /,
    *,
    range: Annotated[str | None, Parameter(name="--range")] = None,
    force: bool = False,
) -> None:
    """Write the file under a key, each byte verified.

    For example:
        spraydry get avatars/alice.png > me.png
        spraydry get avatars/alice.png me.png --force
        spraydry get videos/long.mp4 --range 0-999

    Parameters
    ----------
    what
        HOARD/KEY, or the digest that `spraydry put FILE` printed.
    file
        Where to, a file that is not there yet, or a folder; standard output by default.
    range
        Which bytes, counted from 0: 500-999, 500- (to the end), -500 (the last 500).
    force
        Replace FILE if it is there.
    """
    import os
    import sys

    from spraydry.actions.hoard import save
    from spraydry.actions.hoard.address import parse_key
    from spraydry.commands import terminal
    from spraydry.commands.session import open_hoard
    from spraydry.errors import KeyNotFound

    address = parse_key(what)
    with open_hoard(address.hoard) as hoard:
        kept = hoard.find(address.key)
        if kept is None:
            raise KeyNotFound(f"{address} is not there: `spraydry keys {address.hoard}` lists what is")
        start, stop = _span(range, kept.size)
        if file is not None and os.path.isdir(file):
            file = os.path.join(file, address.key.rpartition("/")[2])
        with hoard.open(kept, ahead=stop - start > _AHEAD_BYTES) as stream:
            stream.seek(start)
            if file is None or file == "-":
                left = stop - start
                while left and (plain := stream.read1(min(left, 1 << 20))):
                    sys.stdout.buffer.write(plain)
                    left -= len(plain)
                sys.stdout.buffer.flush()
                return
            save(stream, stop - start, file, replace=force)
        terminal.line(f"{terminal.printable(os.fsencode(file))}: {terminal.size(stop - start)}")


_AHEAD_BYTES = 1 << 20


def _span(text: str | None, size: int) -> tuple[int, int]:
    """The bytes that a range names, of so many: from the first to behind the last. Raises UsageError."""
    import re

    from spraydry.errors import UsageError

    if text is None:
        return 0, size
    found = re.fullmatch(r"([0-9]*)-([0-9]*)", text)
    if found is None or not any(found.groups()):
        raise UsageError(f"{text!r} is no range: write 500-999, 500- or -500")
    first, last = found.groups()
    if not first:
        return max(size - int(last), 0), size
    start, stop = int(first), min(int(last) + 1 if last else size, size)
    if start >= max(size, 1) or (last and int(last) < start):
        raise UsageError(f"the range {text} is not in a file of {size:,} bytes")
    return start, stop
