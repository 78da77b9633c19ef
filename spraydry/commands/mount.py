"""`spraydry mount`."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter


def mount(
    address: str,
    directory: str | None = None,
    /,
    *,
    foreground: Annotated[bool, Parameter(name=["--foreground", "-f"])] = False,
    cache: str = "256M",
    allow_other: bool = False,
    owner: str | None = None,
    options: Annotated[str | None, Parameter(name=["--options", "-o"])] = None,
    engine: Literal["auto", "fuse", "erofs"] = "auto",
    log: str | None = None,
) -> None:
    """Mount a version, or every version, as a read-only file system.

    `spraydry mount ROOT[@VERSION][:PATH] DIR` mounts one version, or a directory
    in it; `spraydry mount EXPRESSION DIR` what an expression gives, as in `spraydry
    compose`, without storing it. `spraydry mount DIR` shows every root as a folder
    and every version as a folder in it, with `latest` in each root; versions made
    later appear by themselves. It returns when the mount answers; a daemon in the
    background serves it until `spraydry umount DIR`.

    For example:
        spraydry mount photos@v3 /mnt/x
        spraydry mount photos:2024 ~/before --cache 256M
        spraydry mount 'base@v3 + models:weights -> opt/weights - secret' /mnt/x
        spraydry mount ~/everything

    Parameters
    ----------
    address
        What to mount: ROOT, ROOT@VERSION, ROOT@VERSION:PATH or an expression; without it, everything. What names
        something as an address is one, whatever signs are in it.
    directory
        Where to mount it: an empty directory.
    foreground
        Stay in front, log to the terminal, end with Ctrl-C.
    cache
        How many bytes of decoded chunks to keep in memory (default 256M).
    allow_other
        Let other users see the mount; files still have their owners and permissions.
    owner
        Show everything as owned by UID:GID.
    options
        suid, dev or suid,dev: let setuid bits and device nodes take effect. For root only.
    engine
        fuse: for everyone. erofs: for root, on Linux 6.12 or newer; the kernel itself knows all names and attributes,
        from an image made once per version, and asks the daemon for contents only. auto (default): erofs where the
        image is there or made at once, otherwise fuse while the image is made for the next time.
    log
        The daemon's log file (default: spraydry/mount.log in the XDG state directory).
    """
    from spraydry.commands.session import repository_url
    from spraydry.mount import daemon
    from spraydry.mount.options import parse

    named, point = (None, address) if directory is None else (address, directory)
    chosen = parse(cache=cache, allow_other=allow_other, owner=owner, flags=options, log=log, engine=engine)
    if foreground:
        daemon.serve_in_front(
            repository_url(),
            named,
            point,
            chosen,
            lambda engine: print(f"mounted on {point}, engine {engine}; Ctrl-C unmounts", flush=True),
        )
    else:
        print(f"mounted on {point}, engine {daemon.mount(repository_url(), named, point, chosen)}")
