"""The OpenAPI description of files by path."""

from __future__ import annotations

from spraydry.web.openapi import Described, binary, in_header, in_path, in_query, operation

_NAME = "[A-Za-z0-9_][A-Za-z0-9._-]{0,199}"
_VERSION = in_path("address", f"^{_NAME}@{_NAME}$", "ROOT@VERSION; the version `latest` is the newest")
_PATH = in_path(
    "path",
    "^[^/.%\\x00-\\x1f\\x7f-\\x9f][^/\\x00-\\x1f\\x7f-\\x9f]{0,59}$",
    "the path of a file or folder in parts between slashes, which need not be escaped; of a folder it ends with one",
)
_RANGE = in_header("Range", {"type": "string"}, "ranges of bytes")
_IF_NONE = in_header("If-None-Match", {"type": "string"}, "not if it has one of these tags, a file's digest each")
_ARCHIVE = in_query("archive", {"type": "string", "enum": ["tar", "zip"]}, "a folder with all below it, as one file")
_DOWNLOAD = in_query("download", {"type": "string"}, "to be saved, not shown")
_GIVEN = {200: binary("*/*"), 206: binary("*/*"), 304: None, 307: None, 412: None, 416: None}


def described() -> Described:
    """The paths of files."""
    return Described(
        {
            "/{address}/{path}": {
                "get": operation(
                    "A file's bytes; a folder's entries as JSON, for browsers a page, or all below it as tar or zip",
                    parameters=(_VERSION, _PATH, _ARCHIVE, _DOWNLOAD, _RANGE, _IF_NONE),
                    answers=_GIVEN,
                    fails=(404,),
                    name="getPath",
                )
            }
        }
    )
