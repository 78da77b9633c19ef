"""The OpenAPI description of `/v1/hoards/`."""

from __future__ import annotations

from spraydry.stores.remote import hoards as wire
from spraydry.web.openapi import Described, binary, in_header, in_path, in_query, message, operation

_HOARD = in_path("hoard", "^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$", "the name of a hoard")
_KEY = in_path(
    "key",
    "^[^/.%\\x00-\\x1f\\x7f-\\x9f][^/\\x00-\\x1f\\x7f-\\x9f]{0,59}$",
    "a key: 1 to 255 bytes of UTF-8 in parts between slashes, which need not be escaped; none is empty, . or ..",
)
_TRANSACTION = in_path("transaction", "^[0-9a-f]{32}$", "the name of a transaction")
_WITHIN = in_header(wire.TRANSACTION, {"type": "string", "pattern": "^[0-9a-f]{32}$"}, "the transaction it is part of")
_IF_MATCH = in_header("If-Match", {"type": "string"}, "only if the key names what has one of these tags")
_IF_NONE = in_header("If-None-Match", {"type": "string"}, "not if the key names what has one of these tags; * is any")
_RANGE = in_header("Range", {"type": "string"}, "ranges of bytes")
_NEWEST = in_header("Cache-Control", {"type": "string"}, "no-cache: nothing from before the request")
_LIMIT = in_query("limit", {"type": "integer", "minimum": 1, "maximum": wire.MOST_KEYS}, "how many at most")
_START = in_query("start", {"type": "integer", "minimum": 0, "maximum": 10**18}, "from the one that holds this byte")
_PREFIX = in_query("prefix", {"type": "string", "maxLength": 255}, "those that begin so")
_AFTER = in_query("after", {"type": "string", "maxLength": 255}, "those that come behind this one")
_FILE = binary()
_GIVEN = {200: binary("*/*"), 206: binary("*/*"), 304: None, 412: None, 416: None}


def described() -> Described:
    """The paths of hoards. That of a new transaction is not among them: its answer stays open (see FORMAT.md)."""
    hoard, begun = "/v1/hoards/{hoard}", "/v1/hoards/{hoard}/transactions/{transaction}"
    paths: dict[str, dict[str, object]] = {
        "/v1/hoards": {"get": operation("The hoards", answers={200: message(wire.Hoards)}, name="hoards")},
        hoard: {
            "get": operation(
                "How many keys a hoard has",
                parameters=(_HOARD, _NEWEST),
                answers={200: message(wire.Counted)},
                fails=(404,),
                name="countKeys",
            )
        },
        f"{hoard}/keys": {
            "get": operation(
                "A page of keys",
                parameters=(_HOARD, _PREFIX, _AFTER, _LIMIT, _NEWEST, _WITHIN),
                answers={200: message(wire.Files)},
                fails=(404,),
                name="listKeys",
            )
        },
        f"{hoard}/keys/{{key}}": {
            "get": operation(
                "The file of a key",
                parameters=(_HOARD, _KEY, _RANGE, _IF_NONE, _NEWEST, _WITHIN),
                answers=_GIVEN,
                fails=(404,),
                name="getKey",
            ),
            "put": operation(
                "Let a key name the file that is the body",
                parameters=(_HOARD, _KEY, _IF_MATCH, _IF_NONE, _WITHIN),
                body=_FILE,
                answers={200: message(wire.File), 201: message(wire.File)},
                fails=(404, 409, 412, 413, 507),
                name="putKey",
            ),
            "delete": operation(
                "Let a key name nothing",
                parameters=(_HOARD, _KEY, _IF_MATCH, _IF_NONE, _WITHIN),
                answers={204: None},
                fails=(404, 409, 412, 507),
                name="deleteKey",
            ),
        },
        f"{hoard}/spans/{{key}}": {
            "get": operation(
                "The chunks and holes of the file of a key",
                parameters=(_HOARD, _KEY, _START, _NEWEST, _WITHIN),
                answers={200: message(wire.Spans)},
                fails=(404,),
                name="keySpans",
            )
        },
        f"{hoard}/history/{{key}}": {
            "get": operation(
                "What happened to a key",
                parameters=(_HOARD, _KEY),
                answers={200: message(wire.History)},
                fails=(404,),
                name="keyHistory",
            )
        },
        f"{hoard}/undelete/{{key}}": {
            "post": operation(
                "Let a key name what it did before it was deleted or overwritten",
                parameters=(_HOARD, _KEY),
                body=message(wire.Undelete),
                answers={200: message(wire.File)},
                fails=(404, 409, 413, 507),
                name="undeleteKey",
            )
        },
        f"{hoard}/url/{{key}}": {
            "post": operation(
                f"A link to the file of a key that needs no token, for up to {wire.MOST_EXPIRES_S // 86400} days",
                parameters=(_HOARD, _KEY),
                body=message(wire.Wanted),
                answers={200: message(wire.Link)},
                fails=(404, 413),
                name="linkKey",
            )
        },
        f"{hoard}/has": {
            "post": operation(
                "What several keys name",
                parameters=(_HOARD, _NEWEST),
                body=message(wire.Keys),
                answers={200: message(wire.Found)},
                fails=(404, 413),
                name="findKeys",
            )
        },
        f"{hoard}/batch": {
            "post": operation(
                "Many files, one after another as FORMAT.md says, each for its key to name",
                parameters=(_HOARD,),
                body=binary(),
                answers={200: message(wire.Put)},
                fails=(404, 409, 413, 422, 507),
                name="putKeys",
            )
        },
        "/v1/files": {
            "put": operation(
                "Keep the body under its digest",
                body=_FILE,
                answers={200: message(wire.File)},
                fails=(409, 413, 507),
                name="putFile",
            )
        },
        "/v1/files/{key}": {
            "get": operation(
                "What was kept under its digest",
                parameters=(in_path("key", "^[0-9a-f]{64}$", "the BLAKE3 of its bytes, in hex"), _RANGE, _IF_NONE),
                answers=_GIVEN,
                fails=(404,),
                name="getFile",
            )
        },
    }
    for how, what in (("prepare", "Make it durable"), ("commit", "Make its changes be"), ("abort", "Give it up")):
        paths[f"{begun}/{how}"] = {
            "post": operation(
                f"{what}: of a transaction that POST to {hoard}/transactions began",
                parameters=(_HOARD, _TRANSACTION),
                answers={200: message(wire.Ended)},
                fails=(404, 409, 412, 507),
                name=f"{how}Transaction",
            )
        }
    for operations in paths.values():
        for one in operations.values():
            if isinstance(one, dict) and one.get("requestBody", {}).get("content") is _FILE:
                one["requestBody"]["required"] = False  # a file may be empty
    told = (wire.Hoards, wire.Counted, wire.File, wire.Files, wire.Keys, wire.Found, wire.Spans, wire.History, wire.Put)
    return Described(paths, (*told, wire.Undelete, wire.Wanted, wire.Link, wire.Ended))
