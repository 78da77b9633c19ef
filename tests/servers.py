"""Real servers for tests, on loopback: what scripts/serving/NAME runs, one of each for a whole test module."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from benchmark import servers

Server = servers.Server


@contextmanager
def server_or_skip(name: str, folder: Path, *arguments: str) -> Iterator[Server]:
    """A server of its own in `folder`, until the end of the block; the test is skipped, loudly, where its programs
    cannot be had. What else keeps it from starting fails."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    errors = folder / "start.err"
    with ExitStack() as stack:
        log = stack.enter_context(errors.open("wb"))
        try:
            running = stack.enter_context(servers.server(name, folder, log, *arguments))
        except servers.ServerError as error:
            if re.search(f"{name}: there is no |cannot be fetched", str(error)):
                pytest.skip(f"NOT TESTED: {error}")
            error.add_note(errors.read_text(errors="replace")[-2000:])
            raise
        yield running
