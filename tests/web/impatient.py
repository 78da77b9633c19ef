"""`spraydry serve` that waits for less or more than it does, or may have less: the environment says so (`waits`)."""

from __future__ import annotations

import json
import os
import resource
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path

from spraydry.cli import main
from spraydry.web import serving as process
from spraydry.web.guard import connection, limits
from spraydry.web.pages import page, painting, routes
from spraydry.web.plain import handoff
from tests.web.serving import Running, serving

MODULE = "tests.web.impatient"
_NAME = "IMPATIENT"


def waits(**numbers: float) -> dict[str, str]:
    """The environment for it: the fields of Patience, `body_s`, `grace_s`, `paint_s` for a text to get its colours,
    `page_s` for any page, `handoff_s` for a file to be where it is handed off from; and `files`, how many it may have
    open when it starts. What is not named is as ever."""
    return {_NAME: json.dumps(numbers)}


def patient(folder: Path, *arguments: str, **environment: str) -> AbstractContextManager[Running]:
    """A server that gives pages, colours and what it hands off the time they take, however slow this machine is."""
    long = waits(paint_s=120.0, page_s=280.0, handoff_s=280.0)
    return serving(folder, *arguments, module=MODULE, **environment, **long)


if __name__ == "__main__":
    given = json.loads(os.environ[_NAME])
    limits.BODY_WAIT_S = given.pop("body_s", limits.BODY_WAIT_S)
    process._GRACE_S = given.pop("grace_s", process._GRACE_S)
    handoff._WAIT_S = given.pop("handoff_s", handoff._WAIT_S)
    if paint_s := given.pop("paint_s", None):
        painting._START_S = painting._SECONDS = painting._WAIT_S = paint_s
    if page_s := given.pop("page_s", None):
        page.QUICK_S = routes.QUICK_S = page.answered.__kwdefaults__["seconds"] = page_s
        routes.SEARCH_S = routes.SPACE_S = 2 * page_s
    if files := given.pop("files", None):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    wanted = tuple(given.pop(field.name, field.default) for field in fields(connection.Patience))
    assert not given, given
    connection.Patience.__init__.__defaults__ = wanted
    main()
