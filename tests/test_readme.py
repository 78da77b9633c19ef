"""Every command line and program in the README, run in order as a new user would."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spraydry
from spraydry.actions.verify import verify
from tests.servers import server_or_skip
from tests.web.serving import kept_port

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
        done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert (home / "a-copy.jpg").read_bytes() == (home / "photos/2024/a.jpg").read_bytes()
    assert (home / "restored/a.jpg").read_bytes() == (home / "photos/2024/a.jpg").read_bytes()
    (program,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
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
            timeout=3000,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is whole" in done.stdout and "photos@v2 is there" in done.stdout
    assert re.search(r"delivered +[0-9]", done.stdout), done.stdout


@pytest.mark.fuse
def test_working_with_versions(tmp_path: Path) -> None:
    site = tmp_path / "site"
    held = {
        "index.html": b"<h1>Hello</h1>\n",
        "notes.txt": b"say hello to the neighbour\n",
        "secret/key": b"xyzzy\n",
        "css/site.css": b"h1 { color: teal }\n",
        "img/logo.png": b"\x89PNG\r\n\x1a\n" + random.Random(5).randbytes(200_000),
    }
    for name, content in held.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(content)
    script = "".join(blocks("sh versions"))
    command = ["bash", "-euo", "pipefail", "-xc", script]
    done = subprocess.run(command, env=environment_of(tmp_path), capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = re.findall(r"^    \$ (spraydry (?:diff|grep|compose) .*)\n((?:    [^$].*\n)+)", README.read_text(), re.M)
    assert len(shown) == 3
    for line, output in shown[:2]:
        assert line in script
        assert re.sub("^    ", "", output, flags=re.M) in done.stdout, line
    line, output = shown[2]
    wrong = subprocess.run(
        ["bash", "-c", line], env=environment_of(tmp_path), capture_output=True, text=True, timeout=300
    )
    assert wrong.returncode and wrong.stderr.startswith("spraydry: there is no root 'sight'")
    assert wrong.stderr.splitlines()[1:] == [told[4:] for told in output.splitlines()[1:]]
    with spraydry.open(str(tmp_path / ".local/share/spraydry/repository.sqlite")) as repository:
        assert repository.resolve("copy").entry.content == repository.resolve("web").entry.content
        for root in ("site", "web"):
            for version in repository.versions(root):
                assert not any(b"secret" in found.path for found in repository.walk(str(version)))
        assert verify(repository).sound


def served(name: str, home: Path, port: int) -> str:
    """The blocks of that name as one script, for a port that is its own."""
    script = "".join(blocks(f"sh {name}")).replace(":9876", f":{port}")
    script = script.replace("spraydry serve ", f"spraydry serve --listen 127.0.0.1:{port} ")
    (program,) = blocks(f"python {name}") or [""]
    (home / "program.py").write_text(program.replace(":9876", f":{port}"))
    return f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"


def run_script(script: str, home: Path) -> str:
    """What a script prints, and what it does beside that; it must succeed, line by line."""
    command = ["bash", "-euo", "pipefail", "-xc", script]
    done = subprocess.run(command, env=environment_of(home), cwd=home, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.fuse
def test_serving_it(tmp_path: Path) -> None:
    (tmp_path / "photos/2024").mkdir(parents=True)
    (tmp_path / "photos/2024/a.jpg").write_bytes(random.Random(6).randbytes(300_000))
    with kept_port() as port:
        said = run_script(served("serve", tmp_path, port), tmp_path)
    assert "2024/a.jpg" in said or "a.jpg" in said
    assert "photos@v1" in said and "Refused" in said
    told = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    assert {"guest", "laptop"} <= {each["token"] for each in told} and all("sd_" not in str(each) for each in told)


def test_hoards(tmp_path: Path) -> None:
    (tmp_path / "me.png").write_bytes(b"\x89PNG\r\n\x1a\n" + random.Random(7).randbytes(300_000))
    with kept_port() as port:
        said = run_script(served("hoards", tmp_path, port) + f"{sys.executable} program.py\n", tmp_path)
    assert "['2026/bob.png', '2026/dave.png', 'alice.png'] http://127.0.0.1:" in said


def test_the_two_commands_are_there() -> None:
    for name in ("quickstart", "test"):
        assert f"scripts/{name}" in README.read_text()
        assert os.access(README.parent / "scripts" / name, os.X_OK)
