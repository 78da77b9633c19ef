"""The file of tokens: who has which rights, with the digests of the secrets, and the key that signs links."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import msgspec

from spraydry.errors import NotFound, SprayDryError, UsageError
from spraydry.format.digest import digest
from spraydry.web.grant import Right, Rule
from spraydry.web.guard import usage

_FORMAT = 1
_SECRET_BYTES = 32
_MAX_BYTES = 64 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,99}")


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rule as it is written: rights, and the patterns of what they are for."""

    rights: tuple[Right, ...]
    namespaces: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    hoards: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()

    def rule(self) -> Rule:
        """The rule that it says."""
        return Rule(frozenset(self.rights), self.namespaces, self.roots, self.hoards, self.repositories)


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A token without its secret: of that only the digest is kept, in hex. Times are seconds since 1970, `expires` 0
    for never; `quota_bytes` is how much may be uploaded with it in all, None for any amount."""

    name: str
    secret: str
    given: tuple[Given, ...]
    made: int
    expires: int = 0
    quota_bytes: int | None = None

    def expired(self, now: float) -> bool:
        """Whether it is over."""
        return 0 < self.expires <= now


class TokenFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds; `key` (hex) signs links."""

    format: int
    key: str
    tokens: tuple[Token, ...] = ()


def read(path: Path) -> TokenFile:
    """The tokens in a file. Raises SprayDryError where it cannot be read or trusted, NotFound where it is absent."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SprayDryError(f"{path} is no file of tokens")
            if status.st_mode & 0o077:
                raise SprayDryError(f"{path} can be read or written by others: `chmod 600 {path}`")
            text = file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise NotFound(f"there is no {path}: `spraydry token add NAME --tokens {path}` makes it") from None
    except OSError as error:
        raise SprayDryError(f"cannot read the tokens in {path}: {error.strerror}") from None
    try:
        held = msgspec.json.decode(text, type=TokenFile)
        if held.format > _FORMAT:
            raise SprayDryError(f"{path} was written by a newer spraydry: install a current one")
        if len(bytes.fromhex(held.key)) < _SECRET_BYTES or any(len(bytes.fromhex(t.secret)) != 32 for t in held.tokens):
            raise ValueError("a key or digest is too short")
        if len({token.name for token in held.tokens}) < len(held.tokens):
            raise ValueError("two tokens have one name")
        for token in held.tokens:
            check_name(token.name)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, UsageError) as error:
        raise SprayDryError(f"{path} is no file of tokens: {error}") from None
    return held


def add(
    path: Path, name: str, given: Sequence[Given], *, expires: int = 0, quota_bytes: int | None = None
) -> tuple[Token, str]:
    """A new token, and its secret, which is kept nowhere. The file is made where there is none. Raises UsageError,
    SprayDryError."""
    check_name(name)
    secret = "sd_" + secrets.token_urlsafe(_SECRET_BYTES)
    token = Token(name, digest(secret.encode()).hex(), tuple(given), int(time.time()), expires, quota_bytes)
    with _changing(path):
        try:
            held = read(path)
        except NotFound:
            held = TokenFile(_FORMAT, secrets.token_hex(_SECRET_BYTES))
        if any(one.name == name for one in held.tokens):
            raise UsageError(f"there is a token {name}: take another name, or `spraydry token revoke {name}` first")
        _write(path, msgspec.structs.replace(held, tokens=(*held.tokens, token)))
        if usage.place(path).exists():
            usage.change(path, {}, forget=name)  # of one that had the name before
    return token, secret


def change(path: Path, name: str, changed: Callable[[Token], Token], *, dry_run: bool = False) -> Token:
    """Let a token be as `changed` makes it, with the secret it has; servers heed that as they do a new one. What it is
    then, or with `dry_run` would be. Raises NotFound, SprayDryError, and what `changed` does."""
    with nullcontext() if dry_run else _changing(path):
        held, before = read(path), named(path, name)
        after = changed(before)
        if not dry_run:
            tokens = tuple(after if one == before else one for one in held.tokens)
            _write(path, msgspec.structs.replace(held, tokens=tokens))
    return after


def revoke(path: Path, name: str) -> Token:
    """Take a token away; servers heed that within a second or two. Raises NotFound, SprayDryError."""
    with _changing(path):
        held = read(path)
        gone = named(path, name)
        _write(path, msgspec.structs.replace(held, tokens=tuple(one for one in held.tokens if one != gone)))
    return gone


def named(path: Path, name: str) -> Token:
    """The token of that name. Raises NotFound, SprayDryError."""
    found = next((token for token in read(path).tokens if token.name == name), None)
    if found is None:
        raise NotFound(f"no token is called {name!r}: `spraydry token list --tokens {path}` shows them")
    return found


def check_name(name: str) -> None:
    """Raises UsageError for what cannot be a token's name."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a token's name: take letters, digits and . _ @ -, at most 100")


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Inside, no other process changes the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SprayDryError(f"cannot write {path}: {error.strerror}") from None
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield None
    finally:
        os.close(folder)


def _write(path: Path, held: TokenFile) -> None:
    """Replace the file at once: a server reads either the old one or the new one."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(held), indent=1) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SprayDryError(f"cannot write {path}: {error.strerror}") from None
