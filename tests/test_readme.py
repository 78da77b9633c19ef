"""Every command line and program in the README, run in order as a new user would."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    photos = home / "photos" / "2024"
    photos.mkdir(parents=True)
    pixels = random.Random(2024)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (photos / name).write_bytes(b"\xff\xd8\xff\xe0" + pixels.randbytes(300_000))
    (home / "photos" / "albums.json").write_text('{"dog": ["2024/a.jpg"]}\n' * 200)
    return home


@pytest.mark.fuse
def test_the_tour(home: Path) -> None:
    environment = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
    }
    lines = "".join(blocks("sh")).splitlines()
    assert len([line for line in lines if line.startswith("spraydry ")]) >= 20
    for line in lines:
        done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert (home / "a-copy.jpg").read_bytes() == (home / "photos/2024/a.jpg").read_bytes()
    assert (home / "restored/a.jpg").read_bytes() == (home / "photos/2024/a.jpg").read_bytes()
    (program,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "photos@v2" in done.stdout
    assert "the one with the dog" in done.stdout


def test_the_two_commands_are_there() -> None:
    for name in ("quickstart", "test"):
        assert f"scripts/{name}" in README.read_text()
        assert os.access(README.parent / "scripts" / name, os.X_OK)
