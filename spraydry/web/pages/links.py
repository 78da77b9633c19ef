"""Where pages link to: addresses of everything a repository holds, with names as percent-encoded bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import quote, quote_plus, unquote_to_bytes

from spraydry.repository.versions import Version

_SAFE = "/!$&'()*,=~"  # beside letters, digits and _.-~: what means nothing at those places


def encoded(path: bytes) -> str:
    """A path as a part of an address."""
    return quote(path, safe=_SAFE)


def decoded(text: str | bytes) -> bytes:
    """The inverse of `encoded`, also of what people typed."""
    return unquote_to_bytes(text)


def below_of(path: bytes, name: bytes) -> bytes:
    """The path of `name` below `path`, either of which may be empty."""
    return b"/".join(part for part in (path, name) if part)


def query(**parts: str | bytes | int | bool | None) -> str:
    """`?a=b&c=d` of what is neither None, False nor empty; bytes are paths, encoded twice."""
    given = []
    for name, value in parts.items():
        if value is None or value is False or value in ("", b""):
            continue
        text = encoded(value) if isinstance(value, bytes) else "1" if value is True else str(value)
        given.append(f"{name.rstrip('_')}={quote_plus(text)}")
    return f"?{'&'.join(given)}" if given else ""


@dataclass(frozen=True)
class Links:
    """The addresses below a repository's prefix. Pure."""

    prefix: str

    def home(self) -> str:
        return f"{self.prefix}/"

    def static(self, name: str) -> str:
        """A file of our own, which changes its address with what is in it."""
        return f"{self.prefix}/-/static/{name}?{_mark(name)}"

    def root(self, root: str, **parts: str | int | None) -> str:
        return f"{self.prefix}/-/roots/{root}{query(**parts)}"

    def file(self, version: Version | str, path: bytes = b"", **parts: str | bytes | int | bool | None) -> str:
        """The bytes of a file."""
        return f"{self.prefix}/{version}{'/' if path else ''}{encoded(path)}{query(**parts)}"

    def folder(self, version: Version | str, path: bytes = b"", **parts: str | bytes | int | bool | None) -> str:
        """The listing of a directory."""
        return f"{self.prefix}/{version}/{encoded(path)}{'/' if path else ''}{query(**parts)}"

    def view(self, version: Version | str, path: bytes = b"", **parts: str | bytes | int | bool | None) -> str:
        """What a file looks like."""
        return f"{self.prefix}/-/view/{version}{'/' if path else ''}{encoded(path)}{query(**parts)}"

    def history(self, root: str, path: bytes = b"") -> str:
        return f"{self.prefix}/-/history/{root}{'/' if path else ''}{encoded(path)}"

    def space(self, version: Version | str, path: bytes = b"", **parts: str | bytes | int | bool | None) -> str:
        return f"{self.prefix}/-/space/{version}{'/' if path else ''}{encoded(path)}{query(**parts)}"

    def hoard(self, hoard: str, key: str = "", **parts: str | bytes | None) -> str:
        """The keys of a hoard, or what is known of one of them."""
        return f"{self.prefix}/-/hoards/{hoard}{'/' if key else ''}{encoded(key.encode())}{query(**parts)}"

    def key(self, hoard: str, key: str) -> str:
        """The bytes of the file that a key names."""
        return f"{self.prefix}/hoards/{hoard}/{encoded(key.encode())}"

    def compare(self, **parts: str | bytes | int | bool | None) -> str:
        return f"{self.prefix}/-/compare{query(**parts)}"

    def search(self, **parts: str | bytes | int | bool | None) -> str:
        return f"{self.prefix}/-/search{query(**parts)}"

    def go(self) -> str:
        return f"{self.prefix}/-/go"

    def savings(self) -> str:
        return f"{self.prefix}/-/savings"

    def stores(self) -> str:
        return f"{self.prefix}/-/stores"


_marks: dict[str, str] = {}


def _mark(name: str) -> str:
    if name not in _marks:
        _marks[name] = hashlib.sha256((files("spraydry.web.pages") / "static" / name).read_bytes()).hexdigest()[:12]
    return _marks[name]
