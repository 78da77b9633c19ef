"""`spraydry dictionaries`."""

from __future__ import annotations


def dictionaries(*, json: bool = False) -> int:
    """List the dictionaries: those stored here, and those that come with spraydry and are tried in new versions.

    One that is used is copied into the repository first, so that no repository
    depends on what is installed. The gain is the part that one saved when it was
    adopted; for a shipped one also, by the size of a frame, what it saved on
    packages it was not made from.

    For example:
        spraydry dictionaries

    Parameters
    ----------
    json
        Print a JSON array, an element for each dictionary.
    """
    from spraydry.actions.dictionaries import dictionaries as known
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository
    from spraydry.errors import DictionaryMissing

    with open_repository() as repository:
        found = known(repository)
    bad = [one for one in found if one.missing or one.damaged]
    if json:
        terminal.print_json_list(
            {
                "digest": one.digest.hex(),
                "classes": one.classes,
                "size": one.size,
                "adopted": one.adopted,
                "stored": one.stored,
                "shipped": one.shipped.name if one.shipped else None,
                "corpus": one.shipped.corpus if one.shipped else None,
                "gain": one.gain,
                "gain_as_shipped": dict(one.shipped.gain) if one.shipped else None,
                "frames": one.frames,
                "plain_bytes": one.plain_bytes,
                "stored_bytes": one.stored_bytes,
                "missing": one.missing,
                "damaged": one.damaged,
            }
            for one in found
        )
    else:
        rows = []
        for one in found:
            state = "MISSING" if one.missing else "DAMAGED" if one.damaged else ""
            where = " ".join(filter(None, (state, "stored" if one.stored else "", "shipped" if one.shipped else "")))
            rows.append(
                (
                    one.digest.hex()[:12],
                    " ".join(one.classes),
                    terminal.size(one.size),
                    where,
                    "yes" if one.adopted else "",
                    f"{one.frames:,}" if one.frames else "",
                    terminal.size(one.plain_bytes) if one.frames else "",
                    terminal.size(one.stored_bytes) if one.frames else "",
                    f"{one.gain:.1%}" if one.gain is not None else "",
                    " ".join(f"{size}:{gain:z.1%}" for size, gain in one.shipped.gain) if one.shipped else "",
                )
            )
        heads = ("dictionary", "class", "size", "where", "adopted", "frames", "plain", "stored", "gain", "as shipped")
        terminal.table(heads, rows, right=(2, 5, 6, 7, 8))
    for one in bad:
        terminal.warn(f"dictionary {one.digest.hex()} is {'gone' if one.missing else 'damaged'}")
    return DictionaryMissing.exit_code if bad else 0
