"""`spraydry du`."""

from __future__ import annotations

from spraydry.commands import terminal
from spraydry.commands.progress import Progress
from spraydry.commands.session import open_repository


def du(*addresses: str, hoard: list[str] | None = None, json: bool = False) -> None:
    """Tell what versions, paths or hoards take up, and what removing them would free.

    Several are taken as one set: what they share among themselves, and with nothing
    else, is freed only when all of them go. A version is freed with its last name.
    The stored sizes are estimates: content is stored in frames with other content.

    For example:
        spraydry du photos
        spraydry du photos@v1 photos@v2
        spraydry du photos@v3:2019/raw
        spraydry du --hoard avatars

    Parameters
    ----------
    addresses
        ROOT[@VERSION][:PATH]; without a version, the newest.
    hoard
        A hoard, with all its keys; may be given several times.
    json
        Print one JSON document.
    """
    from spraydry.actions.du import du as run

    with open_repository(read_only=True) as repository, Progress(quiet=json) as progress:
        used = run(repository, addresses, hoards=hoard or (), report=progress)
    if json:
        terminal.print_json(
            {
                "files": used.files,
                "apparent_bytes": used.apparent_bytes,
                "plain_bytes": used.plain_bytes,
                "stored_bytes": used.stored_bytes,
                "exclusive_bytes": used.exclusive_bytes,
                "exclusive_stored_bytes": used.exclusive_stored_bytes,
            }
        )
        return
    size, line = terminal.size, terminal.line
    line(f"{terminal.plural(used.files, 'file')}, {size(used.apparent_bytes)}")
    line(f"  stored     {size(used.plain_bytes)} without what is there twice, in about {size(used.stored_bytes)}")
    line(f"  exclusive  {size(used.exclusive_bytes)}, in about {size(used.exclusive_stored_bytes)}")
