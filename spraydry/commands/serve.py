"""`spraydry serve`."""

from __future__ import annotations


def serve(*repositories: str, listen: str = "127.0.0.1:9876", read_only: bool = False) -> None:
    """Serve repositories over HTTP, until SIGTERM or Ctrl-C.

    Without arguments that of `--repo`, at the server's address itself; several are written
    NAME=URL, each below its name.

    For example:
        spraydry serve
        spraydry serve --listen 127.0.0.1:8080 photos=/srv/photos.sqlite models=s3://bucket/models

    Parameters
    ----------
    repositories
        What to serve: NAME=URL, any number of them.
    listen
        HOST:PORT to listen at (default 127.0.0.1:9876; port 0: any that is free).
    read_only
        Take no uploads.
    """
    from spraydry.commands.session import repository_url
    from spraydry.errors import UsageError
    from spraydry.web import serving

    named = [] if repositories else [("", repository_url())]
    for one in repositories:
        name, _, url = one.partition("=")
        if not (name and url):
            raise UsageError(f"{one!r} does not say what to serve: write NAME=URL")
        named.append((name, url))
    serving.serve(
        named,
        listen,
        lambda address: print(f"serving at {address}; Ctrl-C ends it", flush=True),
        read_only=read_only,
    )
