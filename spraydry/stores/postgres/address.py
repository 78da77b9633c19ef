"""Where a URL of a PostgreSQL database leads."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from spraydry.errors import UsageError
from spraydry.stores.postgres.connections import ANSWER_WITHIN_S

_CONNECT_WITHIN_S = 20
_URL = re.compile(
    r"(?:(?P<user>[^@/:?]*)(?P<password>:[^@/?]*)?@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/@:?,\[\]]*)(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/(?P<database>[^/?]*))?(?:\?(?P<query>.*))?"
)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def parsed(rest: str, scheme: str) -> tuple[dict[str, Any], str]:
    """libpq's options, and the name of the schema. Raises UsageError."""
    match = _URL.fullmatch(rest)
    if match is None:
        raise UsageError(f"{scheme}: cannot be meant: write {scheme}://USER@HOST/DATABASE")
    if match["password"] is not None or re.search("(^|&)(ssl)?pass", match["query"] or ""):
        raise UsageError(f"{scheme}: no password may stand in a URL: put it into ~/.pgpass or $PGPASSWORD")
    schema = "spraydry"
    for word in filter(None, (match["query"] or "").split("&")):
        key, _, schema = word.partition("=")
        if key != "schema" or not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
            raise UsageError(f"{scheme}: {word!r} cannot be meant: only ?schema=NAME, lower-case letters, digits and _")
    given = {
        "host": unquote(match["host"]).strip("[]"),
        "port": match["port"],
        "user": unquote(match["user"] or ""),
        "dbname": unquote(match["database"] or ""),
    }
    if "\0" in "".join(filter(None, given.values())):
        raise UsageError(f"{scheme}: cannot be meant: it holds a NUL")
    options: dict[str, Any] = {key: value for key, value in given.items() if value}
    options |= {"connect_timeout": _CONNECT_WITHIN_S, "tcp_user_timeout": int(ANSWER_WITHIN_S * 1000)}
    options |= {"keepalives_idle": 30, "client_encoding": "utf8", "application_name": "spraydry"}
    return options, schema
