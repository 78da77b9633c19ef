"""`spraydry token`: who may what at a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from spraydry.web.grant import Right
    from spraydry.web.guard.tokenfile import Given, Token

token = App(
    name="token",
    help="""Make, list, change and revoke the tokens with which a server is asked.

A token has rights: list, read, add, overwrite, delete. One that can only add
cannot destroy. They are for everything, or for the roots, hoards and namespaces
that are named, with * for any text. Servers that run take changes within two
seconds.

For example:
    spraydry token add laptop --tokens t.json --rights list,read,add
    spraydry token list --tokens t.json
    spraydry token set laptop --tokens t.json --quota 50G
    spraydry token revoke laptop --tokens t.json""",
    help_format="plaintext",
)


@token.command
def add(
    name: str,
    /,
    *,
    tokens: str,
    rights: str = "list,read",
    root: Annotated[list[str] | None, Parameter(negative=())] = None,
    hoard: Annotated[list[str] | None, Parameter(negative=())] = None,
    namespace: Annotated[list[str] | None, Parameter(negative=())] = None,
    repository: Annotated[list[str] | None, Parameter(negative=())] = None,
    also: Annotated[list[str] | None, Parameter(negative=())] = None,
    days: float | None = None,
    quota: str = "",
    json: bool = False,
) -> None:
    """Make a token, and print its secret: the only time that it is shown.

    Without --root, --hoard and --namespace it is for everything there is. To mount,
    pull or push over http://, a token needs rights to the namespaces of the store
    (--namespace '*'): who may read those can read all that lies there.

    For example:
        spraydry token add laptop --tokens t.json --rights list,read,add
        spraydry token add guest --tokens t.json --root 'photos*' --days 7
        spraydry token add cam --tokens t.json --rights add --hoard in --quota 20G
        spraydry token add team --tokens t.json --root 'x*' --also add:hoard=in

    Parameters
    ----------
    name
        What to call it: letters, digits and . _ @ -
    tokens
        The file of tokens; it is made if it is absent.
    rights
        Some of list, read, add, overwrite, delete (default list,read).
    root
        A pattern of the roots it is for.
    hoard
        A pattern of the hoards it is for.
    namespace
        A pattern of the namespaces of the store it is for: frames, index, log, ...
    repository
        A pattern of the names below which a server of several repositories has those it is for.
    also
        RIGHTS:root=PATTERN (or hoard, namespace): other rights to other things.
    days
        After how many days it is no good any more (default: never).
    quota
        How many bytes may be uploaded with it in all, such as 20G. What is deleted gives nothing back, for what is
        stored once may be of many: a token that has used it up is given more by `spraydry token set`.
    json
        Print one JSON document.
    """
    from pathlib import Path

    from spraydry.commands import terminal
    from spraydry.format.chunker import parse_bytes
    from spraydry.web.grant import check_patterns, parse_rights
    from spraydry.web.guard import tokenfile

    repositories = check_patterns(repository or ())
    first = tokenfile.Given(
        _sorted(parse_rights(rights)),
        namespaces=check_patterns(namespace or ()),
        roots=check_patterns(root or ()),
        hoards=check_patterns(hoard or ()),
        repositories=repositories,
    )
    made, secret = tokenfile.add(
        Path(tokens),
        name,
        [first, *(_more(one, repositories) for one in also or ())],
        expires=_days_from_now(days) if days is not None else 0,
        quota_bytes=parse_bytes(quota) if quota else None,
    )
    if json:
        terminal.print_json({"name": made.name, "secret": secret, "expires": made.expires or None})
    else:
        terminal.line(secret)
        terminal.warn(f"this is the secret of {made.name}; it is kept nowhere, so put it where it is needed now")


@token.command(name="list")
def show(*, tokens: str, json: bool = False) -> None:
    """Show the tokens: what they are for, until when, how much came with them.

    For example:
        spraydry token list --tokens t.json

    Parameters
    ----------
    tokens
        The file of tokens.
    json
        Print a JSON array, an element for each token.
    """
    from pathlib import Path

    from spraydry.commands import terminal
    from spraydry.web.guard import tokenfile, usage

    held = tokenfile.read(Path(tokens)).tokens
    used = usage.read(Path(tokens))
    if json:
        terminal.print_json_list(
            {
                "name": one.name,
                "made": one.made,
                "expires": one.expires or None,
                "quota_bytes": one.quota_bytes,
                "uploaded_bytes": used.get(one.name, 0),
                "given": [{key: list(value) for key, value in _fields(given).items() if value} for given in one.given],
            }
            for one in held
        )
        return
    terminal.table(
        ("token", "rights", "made", "good until", "uploaded", "of"),
        [
            (
                one.name,
                "; ".join(map(_told, one.given)),
                terminal.moment(one.made),
                _good_until(one),
                terminal.size(used.get(one.name, 0)),
                _quota(one),
            )
            for one in held
        ],
        right=(4, 5),
    )


@token.command(name="set")
def change(
    name: str,
    /,
    *,
    tokens: str,
    quota: str | None = None,
    days: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Change how much may be uploaded with a token, or until when it is good.

    What is not named stays as it is: its secret, its rights, and what was uploaded
    with it so far, which counts.

    For example:
        spraydry token set cam --tokens t.json --quota 50G
        spraydry token set guest --tokens t.json --days 30 --quota none

    Parameters
    ----------
    name
        The token.
    tokens
        The file of tokens.
    quota
        How many bytes may be uploaded with it in all, with what was before, such as 50G; none: any number.
    days
        After how many days from now it is no good any more; none: never.
    dry_run
        Only tell what would be changed.
    json
        Print one JSON document.
    """
    from pathlib import Path

    import msgspec

    from spraydry.commands import terminal
    from spraydry.errors import UsageError
    from spraydry.format.chunker import parse_bytes
    from spraydry.web.guard import tokenfile, usage

    changes: dict[str, int | None] = {}
    if quota is not None:
        changes["quota_bytes"] = None if quota == "none" else parse_bytes(quota)
    if days is not None:
        changes["expires"] = 0 if days == "none" else _days_from_now(days)
    if not changes:
        raise UsageError(f"say what to change: `spraydry token set {name} --tokens {tokens} --quota 50G`, or --help")
    changed = tokenfile.change(
        Path(tokens), name, lambda before: msgspec.structs.replace(before, **changes), dry_run=dry_run
    )
    uploaded_bytes = usage.read(Path(tokens)).get(name, 0)
    if json:
        terminal.print_json(
            {
                "name": name,
                "expires": changed.expires or None,
                "quota_bytes": changed.quota_bytes,
                "uploaded_bytes": uploaded_bytes,
                "dry_run": dry_run,
            }
        )
    else:
        would = "would be" if dry_run else "is"
        uploaded = f"{terminal.size(uploaded_bytes)} of {_quota(changed)}"
        terminal.line(f"{name} {would} good until {_good_until(changed)}; uploaded so far: {uploaded}")


@token.command
def revoke(name: str, /, *, tokens: str, dry_run: bool = False, json: bool = False) -> None:
    """Take a token away; links that were signed with it are no good any more either.

    For example:
        spraydry token revoke laptop --tokens t.json

    Parameters
    ----------
    name
        The token.
    tokens
        The file of tokens.
    dry_run
        Only tell what would be done.
    json
        Print one JSON document.
    """
    from pathlib import Path

    from spraydry.commands import terminal
    from spraydry.web.guard import tokenfile

    gone = tokenfile.named(Path(tokens), name) if dry_run else tokenfile.revoke(Path(tokens), name)
    if json:
        terminal.print_json({"name": gone.name, "dry_run": dry_run})
    else:
        terminal.line(f"{gone.name} {'would be' if dry_run else 'is'} revoked")


def _more(text: str, repositories: tuple[str, ...]) -> Given:
    """What one --also says. Raises UsageError."""
    from spraydry.errors import UsageError
    from spraydry.web.grant import check_patterns, parse_rights
    from spraydry.web.guard import tokenfile

    rights, colon, rest = text.partition(":")
    kind, equals, pattern = rest.partition("=")
    if not (colon and equals) or kind not in {"root", "hoard", "namespace"}:
        raise UsageError(f"--also {text}: write RIGHTS:root=PATTERN (or hoard, namespace), such as add:hoard=inbox")
    patterns = {f"{kind}s": check_patterns([pattern])}
    return tokenfile.Given(_sorted(parse_rights(rights)), repositories=repositories, **patterns)


def _days_from_now(days: str | float) -> int:
    """That time in seconds since 1970. Raises UsageError."""
    import time
    from contextlib import suppress

    from spraydry.errors import UsageError

    with suppress(ValueError):
        if 0 < float(days) < 100_000:
            return int(time.time() + float(days) * 86400)
    raise UsageError("--days is how many days from now on it is good")


def _good_until(one: Token) -> str:
    import time

    from spraydry.commands import terminal

    if one.expired(time.time()):
        return "expired"
    return terminal.moment(one.expires) if one.expires else "it is revoked"


def _quota(one: Token) -> str:
    from spraydry.commands import terminal

    return "any amount" if one.quota_bytes is None else terminal.size(one.quota_bytes)


def _sorted(rights: frozenset[Right]) -> tuple[Right, ...]:
    from spraydry.web.grant import RIGHTS

    return tuple(right for right in RIGHTS if right in rights)


def _fields(given: Given) -> dict[str, tuple[str, ...]]:
    return {
        "rights": given.rights,
        "namespaces": given.namespaces,
        "roots": given.roots,
        "hoards": given.hoards,
        "repositories": given.repositories,
    }


def _told(given: Given) -> str:
    kinds = (("root", given.roots), ("hoard", given.hoards), ("namespace", given.namespaces))
    named = [f"{kind} {pattern}" for kind, patterns in kinds for pattern in patterns]
    where = f" in {', '.join(given.repositories)}" if given.repositories else ""
    return f"{','.join(given.rights)}: {', '.join(named) or 'everything'}{where}"
