"""`spraydry serve`."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter


def serve(
    *repositories: str,
    listen: Annotated[list[str] | None, Parameter(negative=())] = None,
    tokens: str = "",
    anyone: str = "",
    read_only: bool = False,
    certificate: str = "",
    key: str = "",
    rate: float = 0.0,
    proxy: Annotated[list[str] | None, Parameter(negative=())] = None,
    max_body: str = "",
    quota: str = "",
    connections: int = 10_000,
    heal_every: float = 24.0,
    access_log: str = "",
    accel: Literal["nginx"] | None = None,
    plain: str = "",
) -> None:
    """Serve repositories over HTTP, until SIGTERM or Ctrl-C.

    Without arguments that of `--repo`, at the server's address itself; several are
    written NAME=URL, each below its name. What is named must be there: `init` makes
    a new one. Without tokens only this machine is answered, and may do everything.

    For example:
        spraydry serve
        spraydry serve --listen :8080 photos=/srv/photos.sqlite models=s3://b/models
        spraydry serve --listen 0.0.0.0:9876 --tokens tokens.json
        spraydry serve --listen :443 --certificate c.pem --key k.pem --tokens t.json
        spraydry serve --listen 0.0.0.0:9876 --anyone read,list

    Parameters
    ----------
    repositories
        What to serve: NAME=URL, any number of them.
    listen
        HOST:PORT or unix:PATH to listen at, any number of times (default 127.0.0.1:9876; port 0: any that is free).
    tokens
        The file of tokens that `spraydry token add` made; read again when it changes.
    anyone
        The rights of whoever has no token, of list, read, add, overwrite, delete.
    read_only
        Take no uploads.
    certificate
        A file with the certificate (PEM, with those between): then it is https.
    key
        The file with its key.
    rate
        The most requests a second from one token, or from one address without (default: any number).
    proxy
        The address of a proxy in front, `unix` for one at a unix: address: whoever it names in X-Forwarded-For is
        who asks.
    max_body
        The most bytes that one request may bring, such as 10G.
    quota
        The most bytes the repositories may hold, such as 500G; then nothing more is taken. What is deleted counts
        until `gc` has collected it.
    connections
        The most connections at a time (default 10000).
    heal_every
        After how many hours a repository on several stores is healed, when nobody asks for anything (default 24;
        0: never).
    access_log
        A file for a JSON line about each request; - for standard output.
    accel
        nginx: the nginx in front of this server sends files itself, out of the folder of --plain.
    plain
        Where whole plain files are kept so that others can send them: DIR:BYTES, a folder and the most it may hold,
        such as /srv/plain:50G, for --accel nginx; or s3://BUCKET/PREFIX, to which clients are redirected.
    """
    from pathlib import Path

    from spraydry.commands import terminal
    from spraydry.commands.session import is_default_place, repository_url
    from spraydry.errors import UsageError
    from spraydry.format.chunker import parse_bytes
    from spraydry.web import serving
    from spraydry.web.grant import parse_rights
    from spraydry.web.guard.limits import Limits

    named = [] if repositories else [("", repository_url())]
    for one in repositories:
        name, equals, url = one.partition("=")
        if not (name and url):
            alone = "" if equals else f"; one alone, without a name: spraydry --repo {one} serve"
            raise UsageError(f"{one!r} does not say what to serve: write NAME=URL{alone}")
        serving.check_name(name, [other for other, _ in named])
        named.append((name, url))
    if rate < 0 or heal_every < 0 or connections < 1:
        raise UsageError("--rate is a number of requests a second, --heal-every of hours, --connections of connections")
    settings = serving.Settings(
        listen=tuple(listen or ["127.0.0.1:9876"]),
        read_only=read_only,
        tokens=Path(tokens) if tokens else None,
        anyone=parse_rights(anyone) if anyone else None,
        certificate=Path(certificate) if certificate else None,
        key=Path(key) if key else None,
        limits=Limits(parse_bytes(max_body) if max_body else Limits.body_bytes, rate, frozenset(proxy or ())),
        quota_bytes=parse_bytes(quota) if quota else None,
        connections=connections,
        heal_every_s=heal_every * 3600,
        access_log=access_log,
        accel=accel or "",
        plain=plain,
    )

    def ready(address: str) -> None:
        print(f"serving at {terminal.safe(address)}/; Ctrl-C ends it", flush=True)

    serving.serve(named, settings, ready, create=not repositories and is_default_place())
