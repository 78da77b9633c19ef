"""The OpenAPI description of what is served: each part of the server says its own paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import spraydry
from spraydry.stores.remote.wire import Failure
from spraydry.web.resource import Resource

PATH = "/v1/openapi.json"
BINARY = "application/octet-stream"
JSON = "application/json"
_SCHEMAS = "#/components/schemas/{name}"

# What any request may be told, beside what its path says.
_ALWAYS = (400, 401, 403, 405, 408, 429, 502, 503)
_MEANINGS = {
    200: "as asked",
    201: "stored",
    204: "done",
    206: "the range that was asked for",
    304: "the client has it",
    307: "it is to be had at Location",
    400: "the request cannot be meant",
    401: "a token is needed, or this one is not known",
    403: "the token does not give the right to that",
    404: "it is not here",
    405: "not that way: or the server is read-only",
    408: "the body came too slowly",
    409: "somebody else was faster, or the name was used before",
    412: "it is there already, or another one by now",
    413: "too large, or too many at a time",
    416: "nothing of that range is there",
    422: "not taken: it is not what its name, the index or the log say",
    429: "too many requests: see Retry-After",
    502: "what lies in the store is damaged",
    503: "not now: see Retry-After",
    507: "no room is left",
}

Content = Mapping[str, object]


@dataclass(frozen=True)
class Described:
    """The paths of one part of the server, as OpenAPI 3.1 has them, relative to the address of the repository, and the
    messages they name."""

    paths: Mapping[str, Mapping[str, object]]
    messages: Sequence[type] = field(default=())


def operation(
    summary: str,
    *,
    answers: Mapping[int, Content | None],
    parameters: Sequence[Content] = (),
    body: Content | None = None,
    fails: Sequence[int] = (),
    name: str,
) -> dict[str, object]:
    """One method of a path: `answers` by status with their content (None: no body), and the statuses with which it
    `fails` beside those that any request may meet; `name` is its operationId."""
    told: dict[str, object] = {
        "operationId": name,
        "summary": summary,
        "responses": {
            **{str(status): _response(status, content) for status, content in answers.items()},
            **{str(status): _failure(status) for status in sorted({*fails, *_ALWAYS} - answers.keys())},
        },
    }
    if parameters:
        told["parameters"] = list(parameters)
    if body is not None:
        told["requestBody"] = {"required": True, "content": body}
    return told


def in_path(name: str, pattern: str, what: str, **schema: object) -> dict[str, object]:
    """A part of a path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": what,
        "schema": {"type": "string", "pattern": pattern, **schema},
    }


def in_query(name: str, schema: Content, what: str) -> dict[str, object]:
    """A parameter behind the question mark, which may be left out."""
    return {"name": name, "in": "query", "required": False, "description": what, "schema": schema}


def in_header(name: str, schema: Content, what: str) -> dict[str, object]:
    """A header, which may be left out."""
    return {"name": name, "in": "header", "required": False, "description": what, "schema": schema}


def message(kind: type) -> dict[str, object]:
    """The content of a body or an answer that is a message."""
    return {JSON: {"schema": {"$ref": _SCHEMAS.format(name=kind.__name__)}}}


def binary(media_type: str = BINARY) -> dict[str, object]:
    """The content of a body or an answer that is bytes."""
    return {media_type: {"schema": {"type": "string", "format": "binary"}}}


def document(prefix: str, parts: Sequence[Described]) -> dict[str, object]:
    """The whole description of one repository, whose paths begin with `prefix`."""
    kinds = {kind: None for part in parts for kind in (*part.messages, Failure)}
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_SCHEMAS)
    itself = operation("This description", answers={200: {JSON: {"schema": {"type": "object"}}}}, name="describe")
    paths = {PATH: {"get": itself}, **{path: item for part in parts for path, item in part.paths.items()}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "spraydry", "version": spraydry.__version__, "summary": "A repository over HTTP"},
        "servers": [{"url": prefix or "/"}],
        "security": [{}, {"token": []}],
        "paths": {path: _with_head(item) for path, item in paths.items()},
        "components": {
            "schemas": _plain(schemas),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def routes(prefix: str, parts: Sequence[Described]) -> list[Route]:
    """The route of the description."""
    text = msgspec.json.encode(document(prefix, parts))

    async def describe(_: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        return Response(text, headers=headers, media_type=JSON)

    return [Resource(PATH, GET=describe)]


def _with_head(item: Mapping[str, object]) -> Mapping[str, object]:
    """What is got can be asked about, too."""
    got = item.get("get")
    if not isinstance(got, dict) or "head" in item:
        return item
    responses = {
        status: {key: value for key, value in told.items() if key != "content"}
        for status, told in got["responses"].items()
    }
    head = {**got, "operationId": f"{got['operationId']}Head", "responses": responses}
    return {**item, "head": head}


def _plain(schema: object) -> object:
    """A schema in which arrays of unlike values say of each only that it is one of them: few tools know prefixItems."""
    if isinstance(schema, list):
        return list(map(_plain, schema))
    if not isinstance(schema, dict):
        return schema
    made = {key: _plain(value) for key, value in schema.items()}
    kinds = made.pop("prefixItems", None)
    if isinstance(kinds, list):
        made["items"] = {"anyOf": [kind for at, kind in enumerate(kinds) if kind not in kinds[:at]]}
    return made


def _response(status: int, content: Content | None) -> dict[str, object]:
    told: dict[str, object] = {"description": _MEANINGS[status]}
    return told if content is None else {**told, "content": content}


def _failure(status: int) -> dict[str, object]:
    return _response(status, message(Failure))
