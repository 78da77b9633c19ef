"""`spraydry url`."""

from __future__ import annotations


def url(key: str, /, *, server: str = "", expires: str | None = None, tokens: str = "", json: bool = False) -> None:
    """Print a link to the file of a key, for programs that know nothing of spraydry.

    It leads to whatever the key names when it is followed. Where the server wants
    tokens, the link needs none: it is signed, good until it expires, and gives no
    more than the file (until the token that it was made with is revoked).

    With a server as the repository (--repo http://...) that is asked for the link;
    otherwise --server says where `spraydry serve` of this repository, or the web
    server in front of it, can be reached, and --tokens with which file it serves.

    For example:
        spraydry --repo http://files.example.org:9876 url avatars/alice.png
        spraydry url avatars/alice.png --server http://localhost:9876
        spraydry url a/b.pdf --server https://f.org --tokens t.json --expires 1d

    Parameters
    ----------
    key
        HOARD/KEY, or the digest that `spraydry put FILE` printed.
    server
        The address of a server, http://HOST[:PORT][/NAME].
    expires
        For how long a link that is signed is good: 90s, 30m, 12h, 7d (the default).
    tokens
        The file of tokens of that server, whose key signs the link.
    json
        Print a JSON object.
    """
    from spraydry.actions.hoard.address import parse_key
    from spraydry.commands import terminal
    from spraydry.commands.gc import parse_duration
    from spraydry.commands.session import open_hoard
    from spraydry.errors import UsageError

    address = parse_key(key)
    seconds = parse_duration(expires or "7d") / 10**9
    if seconds < 1:
        raise UsageError(f"a link that is good for {expires} is none")
    if tokens and not server:
        raise UsageError("name the server that the link is to lead to: --server http://HOST:PORT")
    with open_hoard(address.hoard) as hoard:
        link = hoard.url(address.key, expires_s=seconds, server=server or None)
    if tokens:
        link = _signed(link, seconds, tokens)
    if expires is not None and "signature=" not in link:
        terminal.warn(
            "this link never expires, for nothing signs it: --tokens names the server's file of tokens, if any"
        )
    if json:
        terminal.print_json({"hoard": address.hoard, "key": address.key, "url": link})
    else:
        terminal.line(link)


def _signed(link: str, seconds: float, tokens: str) -> str:
    import time
    from pathlib import Path
    from urllib.parse import urlsplit

    from spraydry.web.guard import links, tokenfile

    parts = urlsplit(link)
    key = bytes.fromhex(tokenfile.read(Path(tokens)).key)
    path = links.sign(key, parts.path, int(time.time() + seconds))
    return f"{parts.scheme}://{parts.netloc}{path}"
