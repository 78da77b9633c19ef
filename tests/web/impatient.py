"""`spraydry serve` that waits otherwise: for how many seconds is in the environment (`waits`)."""

from __future__ import annotations

import json
import os
from dataclasses import fields

from spraydry.cli import main
from spraydry.web import serving
from spraydry.web.guard import connection, limits

MODULE = "tests.web.impatient"
_NAME = "IMPATIENT"


def waits(**seconds: float) -> dict[str, str]:
    """The environment for it: the fields of Patience, `body_s` and `grace_s`; what is not named is as ever."""
    return {_NAME: json.dumps(seconds)}


if __name__ == "__main__":
    given = json.loads(os.environ[_NAME])
    limits.BODY_WAIT_S = given.pop("body_s", limits.BODY_WAIT_S)
    serving._GRACE_S = given.pop("grace_s", serving._GRACE_S)
    wanted = tuple(given.pop(field.name, field.default) for field in fields(connection.Patience))
    assert not given, given
    connection.Patience.__init__.__defaults__ = wanted
    main()
