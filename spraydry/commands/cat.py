"""`spraydry cat`."""

from __future__ import annotations


def cat(*addresses: str) -> None:
    """Write the bytes of files to standard output, each chunk verified.

    For example:
        spraydry cat photos@v3:2024/a.jpg > a.jpg

    Parameters
    ----------
    addresses
        ROOT[@VERSION]:PATH of regular files.
    """
    import sys

    from spraydry.commands.session import open_repository
    from spraydry.errors import UsageError

    if not addresses:
        raise UsageError("name a file: spraydry cat ROOT[@VERSION]:PATH")
    with open_repository() as repository:
        for address in addresses:
            with repository.open_file(address, ahead=True) as stream:
                while plain := stream.read1(1 << 20):
                    sys.stdout.buffer.write(plain)
    sys.stdout.buffer.flush()
