"""`spraydry frame`."""

from __future__ import annotations


def frame(digest: str, /, *, info: bool = False, json: bool = False) -> None:
    """Write a frame to standard output as it is stored, verified.

    A frame is what lies in a store: chunks, compressed together.
    `spraydry chunk --where` says which one holds a chunk.

    For example:
        spraydry frame 90ab12cd > frame
        spraydry frame 90ab12cd --info

    Parameters
    ----------
    digest
        Its name, a BLAKE3 digest in hex, or the first digits of it, at least 6.
    info
        Tell instead what its header says, and which chunks are in it.
    json
        Tell that as one JSON document.
    """
    from spraydry.actions.digests import describe_frame, find_frame, stored_frame
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository

    if not info and not json:
        terminal.refuse_terminal("a frame's bytes", f"spraydry frame {digest} > FILE, or --info")
    with open_repository() as repository:
        name = find_frame(repository, digest)
        if not info and not json:
            terminal.raw(stored_frame(repository, name))
            return
        told = describe_frame(repository, name)
    if json:
        terminal.print_json(told)
        return
    for title, value in (
        ("frame", told.frame),
        ("class", told.frame_class),
        ("codec", f"{told.codec}, level {told.level}"),
        ("dictionary", told.dictionary or "none"),
        ("stored", f"{terminal.plural(told.stored_bytes, 'byte')}, {told.header_bytes:,} of them headers"),
        ("plain", f"{terminal.plural(told.plain_bytes, 'byte')} in {terminal.plural(len(told.chunks), 'chunk')}"),
    ):
        terminal.line(f"{title + ':':<12}{value}")
    terminal.table(
        ("chunk", "offset", "length"),
        ((held.digest, f"{held.offset:,}", f"{held.length:,}") for held in told.chunks),
        right=(1, 2),
    )
