"""`spraydry serve` that waits for less or more than it does: how many seconds is in the environment (`waits`)."""

from __future__ import annotations

import json
import os
from dataclasses import fields

from spraydry.cli import main
from spraydry.web import serving
from spraydry.web.guard import connection, limits
from spraydry.web.pages import painting

MODULE = "tests.web.impatient"
_NAME = "IMPATIENT"


def waits(**seconds: float) -> dict[str, str]:
    """The environment for it: the fields of Patience, `body_s`, `grace_s`, and `paint_s` for a text to get its colours;
    what is not named is as ever."""
    return {_NAME: json.dumps(seconds)}


if __name__ == "__main__":
    given = json.loads(os.environ[_NAME])
    limits.BODY_WAIT_S = given.pop("body_s", limits.BODY_WAIT_S)
    serving._GRACE_S = given.pop("grace_s", serving._GRACE_S)
    if paint_s := given.pop("paint_s", None):
        painting._START_S = painting._SECONDS = paint_s
    wanted = tuple(given.pop(field.name, field.default) for field in fields(connection.Patience))
    assert not given, given
    connection.Patience.__init__.__defaults__ = wanted
    main()
