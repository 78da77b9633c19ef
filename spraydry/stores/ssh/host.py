"""Which server and folder an sftp: URL means, and how ~/.ssh/config says to reach it."""

from __future__ import annotations

import getpass
import os
import re
import shlex
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from spraydry.errors import UsageError

try:
    import paramiko  # type: ignore[import-untyped]
except ImportError:
    raise UsageError("sftp: needs paramiko: pip install 'spraydry[sftp]'") from None

CONFIG_VARIABLE = "SPRAYDRY_SSH_CONFIG"
_URL = re.compile(
    r"(?:(?P<user>[^@/:]+)(?P<password>:[^@/]*)?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*)(?::(?P<port>[0-9]{1,5}))?(?P<path>/.*)"
)


class Host(NamedTuple):
    """Whom to connect to, as ~/.ssh/config has it."""

    name: str
    port: int
    user: str
    keys: tuple[str, ...]
    known_hosts: tuple[str, ...]
    only_keys: bool

    def __str__(self) -> str:
        return f"{self.user}@{self.name}" + (f":{self.port}" if self.port != 22 else "")

    @property
    def ssh_arguments(self) -> str:
        """What to type behind `ssh` to reach it."""
        config = os.environ.get(CONFIG_VARIABLE)
        before = f"-F {shlex.quote(config)} " if config else ""
        return before + (f"-p {self.port} " if self.port != 22 else "") + f"{self.user}@{self.name}"


def find_host(alias: str, port: int | None, user: str | None) -> Host:
    """What ~/.ssh/config (or the file $SPRAYDRY_SSH_CONFIG names) says of a host; `port` and `user` are above that.

    Raises UsageError for a file that cannot be used, and where it asks for a proxy.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    path = named or os.path.expanduser("~/.ssh/config")
    try:
        found = paramiko.SSHConfig.from_path(path).lookup(alias)
    except FileNotFoundError:
        if named:
            raise UsageError(f"${CONFIG_VARIABLE} names {named}, which is not there") from None
        found = {}
    except (OSError, UnicodeDecodeError, paramiko.SSHException, ImportError) as error:
        raise UsageError(f"{path} cannot be used: {error}") from None
    for proxy in ("proxycommand", "proxyjump"):
        if found.get(proxy, "none") != "none":
            raise UsageError(f"{path}: sftp: cannot go through a {proxy}: forward a port with `ssh -L` and name that")
    try:
        port = port or int(found.get("port", 22))
    except ValueError:
        raise UsageError(f"{path}: {found['port']} is not a port") from None
    return Host(
        name=found.get("hostname", alias),
        port=port,
        user=user or found.get("user") or getpass.getuser(),
        keys=tuple(key for key in map(os.path.expanduser, found.get("identityfile", ())) if os.path.isfile(key)),
        known_hosts=_files(found.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"))
        + _files(found.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")),
        only_keys=found.get("identitiesonly", "no") == "yes",
    )


def _files(text: str) -> tuple[str, ...]:
    """A path, or several with blanks between them."""
    if os.path.isfile(os.path.expanduser(text)):
        return (os.path.expanduser(text),)
    try:
        return tuple(map(os.path.expanduser, shlex.split(text)))
    except ValueError:
        return (text,)


def find_folder(rest: str) -> tuple[Host, bytes]:
    """What `[USER@]HOST[:PORT]/PATH` means: an absolute path, or `/~/PATH` for one relative to the home folder.

    Raises UsageError for what cannot be meant, also as `find_host` does.
    """
    match = _URL.fullmatch(rest)
    if match is None:
        raise UsageError(f"sftp://{rest} cannot be meant: write sftp://USER@HOST/PATH")
    if match["password"] is not None:
        raise UsageError("sftp: no password may stand in a URL: use a key (`ssh-copy-id` puts it on the server)")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 1 << 16:
        raise UsageError(f"sftp: {port} is not a port")
    folder = b"/".join(part for part in unquote_to_bytes(match["path"]).split(b"/") if part not in (b"", b"."))
    home = folder == b"~" or folder.startswith(b"~/")
    folder = folder[2:] if home else b"/" + folder
    if folder in (b"", b"/") or b".." in folder.split(b"/") or b"\0" in folder:
        raise UsageError(f"sftp://{rest}: name a folder for the repository")
    user = unquote_to_bytes(match["user"]).decode("utf-8", "replace") if match["user"] else None
    return find_host(match["host"].strip("[]"), port, user), folder
