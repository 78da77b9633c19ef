"""The server's process: it starts, answers, and ends."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import urlopen

from tests.web.serving import serving


def test_it_answers_and_ends(tmp_path: Path) -> None:
    with serving(tmp_path, SPRAYDRY_REPO=str(tmp_path / "repository.sqlite")) as server:
        with urlopen(f"{server.url}/healthz") as answer:
            assert json.load(answer) == {"status": "ok"}
        assert server.end() == 0
