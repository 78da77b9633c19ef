"""`spraydry chunk`."""

from __future__ import annotations


def chunk(digest: str, /, *, where: bool = False, json: bool = False) -> None:
    """Write the plain bytes of a chunk to standard output, verified.

    A chunk is a piece of a file, a whole file that is small, or a page of a
    directory or of a list of chunks. `spraydry stat --chunks` lists those of a
    file.

    For example:
        spraydry chunk 5c1e8b00 > piece
        spraydry chunk 5c1e8b00 --where

    Parameters
    ----------
    digest
        Its BLAKE3 digest in hex, or the first digits of it, at least 6.
    where
        Tell instead which frames hold it, the one it is read from first.
    json
        Tell that as one JSON document.
    """
    from spraydry.actions.digests import find_chunk
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository

    if not where and not json:
        terminal.refuse_terminal("a chunk's bytes", f"spraydry chunk {digest} > FILE, or --where")
    with open_repository() as repository:
        name = find_chunk(repository, digest)
        if not where and not json:
            terminal.raw(repository.read_chunk(name))
            return
        found = repository.catalog.chunks.locate(name)
    if json:
        terminal.print_json(
            {
                "chunk": name.hex(),
                "length": found[0].length,
                "frames": [{"frame": place.frame.hex(), "offset": place.offset} for place in found],
            }
        )
        return
    terminal.line(f"chunk {name.hex()}: {terminal.plural(found[0].length, 'byte')}")
    terminal.table(("frame", "offset"), ((place.frame.hex(), f"{place.offset:,}") for place in found), right=(1,))
