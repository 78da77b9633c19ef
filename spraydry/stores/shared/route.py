"""The way to a web server: straight or by the proxy the environment names, with TLS where the address says https."""

from __future__ import annotations

import http.client
import ssl
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from spraydry.errors import UsageError

_PROXY_PORT = 80


class _Proxy(NamedTuple):
    """Who forwards what is asked, and the headers by which it lets us."""

    host: str
    port: int
    headers: dict[str, str]


class Route:
    """How one server is reached. Threads may share it: each gets connections to itself."""

    def __init__(self, server: SplitResult) -> None:
        """`server` is an address that has a host. Raises UsageError for a proxy that cannot be used."""
        assert server.hostname is not None
        self._host, self._port = server.hostname, server.port
        self._tls = ssl.create_default_context() if server.scheme == "https" else None
        self._proxy = None
        if not proxy_bypass(server.netloc) and (proxy := getproxies().get(server.scheme)):
            self._proxy = _proxy(f"{server.scheme}_proxy", proxy)
        forwards = self._proxy is not None and self._tls is None
        self.before = f"{server.scheme}://{server.netloc}" if forwards else ""  # what to ask for begins with this
        self.headers = self._proxy.headers if self._proxy is not None and forwards else {}

    @property
    def by(self) -> str:
        """For messages: by whom it leads."""
        return f" by the proxy {self._proxy.host}:{self._proxy.port}" if self._proxy else ""

    def connection(self, timeout_s: float) -> http.client.HTTPConnection:
        """A new connection, made at its first request; `timeout_s` is for making it, and for each wait after that."""
        host, port = (self._proxy.host, self._proxy.port) if self._proxy else (self._host, self._port)
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        made = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)
        if self._proxy is not None:
            made.set_tunnel(self._host, self._port, self._proxy.headers)
        return made


def _proxy(variable: str, url: str) -> _Proxy:
    """What an environment variable says of a proxy. Its password is in no message."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or _PROXY_PORT
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "http":
        raise UsageError(f"${variable} names no proxy that can be used: write http://HOST:PORT, or use $no_proxy")
    if parts.username is None:
        return _Proxy(host, port, {})
    known = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return _Proxy(host, port, {"Proxy-Authorization": f"Basic {b64encode(known).decode()}"})
