"""Benchmarks as programs: what they leave behind when they are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def interrupt(command: Sequence[str], work: Path) -> None:
    """Run one until its first repository is there and send it SIGTERM: it tells that, and leaves nothing in `work`."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        deadline = time.monotonic() + 300
        while not any("repository.sqlite" in names for _, _, names in os.walk(work / "run")):  # folders come and go
            assert process.poll() is None, "ended before it began"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Interrupted" in output
    assert not (work / "run").exists()
