"""Command lines, in this process or in one that is killed at a chosen write to its store."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from spraydry import cli
from spraydry.stores.dir import DirStore
from spraydry.stores.segment import SegmentStore
from spraydry.stores.sqlite import SqliteStore

_STORES = (DirStore, SegmentStore, SqliteStore)
_WRITES = ("create", "delete", "put_many")


class Failed(AssertionError):
    """A command line ended with another exit code than it should; `code` and `text` say how."""

    def __init__(self, arguments: Sequence[str], code: int, text: str) -> None:
        super().__init__(f"spraydry {' '.join(arguments)}: {code}: {text}")
        self.code = code
        self.text = text


def run(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    """What a command line prints. Raises Failed."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.run(arguments)
    if code not in codes:
        raise Failed(arguments, code, out.getvalue() + err.getvalue())
    return out.getvalue()


def told(*arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
    """What it says with --json."""
    return json.loads(run(*arguments, "--json", codes=codes))


def _child(arguments: Sequence[str], environment: Mapping[str, str], writes: int) -> None:
    os.environ.clear()
    os.environ.update(environment)
    left = writes

    def trapped(call: Any) -> Any:
        def write(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return write

    for store in _STORES:
        for name in _WRITES:
            setattr(store, name, trapped(getattr(store, name)))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        os._exit(cli.run(arguments))


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.life.child"])


def killed(arguments: Sequence[str], writes: int, codes: tuple[int, ...] = (0,)) -> bool:
    """Run a command line in a process that is killed before its so-and-so-manieth write to a store; whether it got so
    far. Raises Failed where it failed before."""
    process = _context.Process(target=_child, args=(arguments, dict(os.environ), writes))
    process.start()
    process.join(600)
    assert process.exitcode is not None, f"spraydry {' '.join(arguments)} hangs"
    if process.exitcode not in (*codes, -signal.SIGKILL):
        raise Failed(arguments, process.exitcode, "in a child")
    return process.exitcode == -signal.SIGKILL
