"""The OpenAPI description of `/v1/`."""

from __future__ import annotations

from collections.abc import Sequence

from spraydry.stores.base import NAMESPACES
from spraydry.stores.remote import wire
from spraydry.web.keyvalue.shown import MOST_BYTES
from spraydry.web.keyvalue.trees import Directory, Roots
from spraydry.web.openapi import Described, binary, in_header, in_path, in_query, message, operation

_NAMESPACE = in_path("namespace", "^[a-z]+$", "one of the namespaces of a store", enum=list(NAMESPACES))
_NAME = in_path("name", "^[a-z0-9_][a-z0-9._-]{0,199}$", "the name of a value")
_DIGEST = in_path("digest", "^[0-9a-f]{64}$", "the BLAKE3 of the plain bytes, in hex")
_ADDRESS = in_path(
    "address", "^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(@[A-Za-z0-9_][A-Za-z0-9._-]{0,99})?$", "ROOT or ROOT@VERSION"
)
_PATH = in_path("path", "^[^/]", "a path in it, each name escaped byte by byte; slashes are not")
_LIMIT = in_query("limit", {"type": "integer", "minimum": 1, "maximum": wire.MOST_LISTED}, "how many at most")
_AFTER = in_query("after", {"type": "string"}, "what comes behind this name")
_DELETED = in_query("deleted", {"enum": ["true", "false"]}, "those deleted softly, not the others")
_RANGE = in_header("Range", {"type": "string"}, "one range of bytes")
_HAS = in_header("If-None-Match", {"type": "string"}, "the entity tag of what the client has")
_CREATE = in_header("If-None-Match", {"enum": ["*"]}, "store it only where there is none")
_READ = (404, 412, 416)
_KEPT = {200: binary(), 206: binary(), 304: None}


def described() -> Described:
    """The paths of key/value by digest."""
    paths: dict[str, dict[str, object]] = {
        "/v1/": {"get": operation("What this repository is", answers={200: message(wire.Greeting)}, name="greet")},
        "/v1/stat": {"get": operation("How much it holds", answers={200: message(wire.Fill)}, name="stat")},
        "/v1/roots": {"get": operation("Roots and versions", answers={200: message(Roots)}, name="roots")},
        "/v1/trees/{address}": {
            "get": operation(
                "The root of a version, and what is in it",
                parameters=(_ADDRESS, _AFTER, _LIMIT),
                answers={200: message(Directory)},
                fails=(404,),
                name="tree",
            )
        },
        "/v1/trees/{address}/{path}": {
            "get": operation(
                "An entry of a version, and what is in it",
                parameters=(_ADDRESS, _PATH, _AFTER, _LIMIT),
                answers={200: message(Directory)},
                fails=(404,),
                name="entry",
            )
        },
        "/v1/values/{namespace}": {
            "get": operation(
                "A page of names",
                parameters=(_NAMESPACE, _AFTER, _LIMIT, _DELETED),
                answers={200: message(wire.Listing)},
                name="list",
            )
        },
        "/v1/values/{namespace}/{name}": {
            "get": _getting("A value", (_NAMESPACE, _NAME), "get"),
            "head": operation(
                "How long a value is",
                parameters=(_NAMESPACE, _NAME, _HAS),
                answers={200: None, 304: None},
                fails=_READ,
                name="head",
            ),
            "put": operation(
                "Store a value, which is verified first",
                parameters=(_NAMESPACE, _NAME, _CREATE),
                body=binary(),
                answers={201: None},
                fails=(409, 412, 413, 422, 507),
                name="put",
            ),
            "delete": operation(
                "Delete a value",
                parameters=(_NAMESPACE, _NAME),
                answers={204: None},
                fails=(422,),
                name="delete",
            ),
        },
        "/v1/chunks/{digest}": {"get": _getting("The plain bytes of a chunk", (_DIGEST,), "chunk")},
        "/v1/batch/get": _posting("Values", wire.Names, 200, binary(wire.VALUES_TYPE), "getMany"),
        "/v1/batch/has": _posting("Sizes of values", wire.Names, 200, message(wire.Sizes), "has"),
        "/v1/batch/chunks": _posting("Chunks", wire.Chunks, 200, binary(wire.VALUES_TYPE), "chunks"),
        "/v1/batch/put": {
            "post": operation(
                "Store values, all of them or none",
                parameters=(
                    {**in_query("namespace", {"enum": sorted(MOST_BYTES)}, "where they belong"), "required": True},
                ),
                body=binary(),
                answers={204: None},
                fails=(409, 413, 422, 507),
                name="putMany",
            )
        },
        "/v1/batch/undelete": _posting("Bring values back", wire.Names, 200, message(wire.Back), "undelete"),
        **{
            f"/v1/batch/{verb}": _posting(what, wire.Names, 204, None, name)
            for verb, what, name in (
                ("delete", "Delete values", "deleteMany"),
                ("soft-delete", "Delete values so that they can be brought back", "softDelete"),
                ("purge", "Delete for good what was deleted softly", "purge"),
            )
        },
    }
    messages = (wire.Greeting, wire.Fill, wire.Listing, wire.Names, wire.Chunks, wire.Sizes, wire.Back)
    return Described(paths, (*messages, Roots, Directory))


def _getting(summary: str, where: Sequence[dict[str, object]], name: str) -> dict[str, object]:
    return operation(summary, parameters=(*where, _RANGE, _HAS), answers=_KEPT, fails=_READ, name=name)


def _posting(summary: str, body: type, status: int, content: dict[str, object] | None, name: str) -> dict[str, object]:
    asked = operation(summary, body=message(body), answers={status: content}, fails=(413, 422, 507), name=name)
    return {"post": asked}
