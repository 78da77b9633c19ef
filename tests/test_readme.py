"""Every command line and program in the README, run in order as a new user would."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import server_or_skip

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.M | re.S)


def environment_of(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
    }


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
    environment = environment_of(home)
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


def test_several_stores_one_taken_away(tmp_path: Path) -> None:
    for folder in ("photos", "trip"):  # so many frames that each store is to hold some of each folder
        (tmp_path / folder).mkdir()
        for number in range(20):
            pixels = random.Random(f"{folder} {number}").randbytes(300_000)
            (tmp_path / folder / f"{number}.jpg").write_bytes(pixels)
    (script,) = blocks("sh several")
    with server_or_skip("ceph", tmp_path / "ceph") as running:
        done = subprocess.run(
            ["bash", "-euc", script],
            env=environment_of(tmp_path) | running.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is whole" in done.stdout and "photos@v2 is there" in done.stdout
    assert re.search(r"delivered +[0-9]", done.stdout), done.stdout


def test_the_two_commands_are_there() -> None:
    for name in ("quickstart", "test"):
        assert f"scripts/{name}" in README.read_text()
        assert os.access(README.parent / "scripts" / name, os.X_OK)
