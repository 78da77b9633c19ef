"""Push, pull and lazy clones over sftp and S3, with networks that fail."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from spraydry.repository.repository import Repository
from tests.faultproxy import Fault
from tests.ingest.trees import differences
from tests.repositories import Run, caller, check, filled_source, machine
from tests.test_stores_remote import Remote, ceph, remote, source, spraydry, sshd

__all__ = ["ceph", "remote", "source", "spraydry", "sshd"]


def test_there_and_back(remote: Remote, spraydry: Run, source: Path, tmp_path: Path) -> None:
    here, back, lazy, there = (str(tmp_path / f"{name}.sqlite") for name in ("here", "back", "lazy", "none"))
    there = remote.place()
    spraydry("--repo", here, "ingest", source)
    assert "would be sent: source@v1" in spraydry("--repo", here, "push", there, "--dry-run")[1]
    assert spraydry("--repo", there, "info", code=4)[0] == 4  # nothing was made
    assert "sent: source@v1" in spraydry("--repo", here, "push", there, "--limit", "100M")[1]
    check(there, source)
    assert "nothing is missing" in spraydry("--repo", here, "push", there)[1]
    (source / "more").write_text("more")
    spraydry("--repo", here, "ingest", source)
    told = json.loads(spraydry("--repo", here, "push", there, "--json")[1])
    assert told["versions"] == ["source@v2"] and told["sent_bytes"] < 20_000
    spraydry("--repo", back, "pull", there)
    check(back, source)
    spraydry("clone", "--lazy", there, lazy)
    with Repository.open(lazy) as clone:
        held = sum(stored.size for stored in clone.store.list("frames"))
        assert held < 100_000
        assert differences(clone, clone.log.find("source"), source) == []
    spraydry("--repo", lazy, "pull")
    check(lazy, source)


def test_a_remote_that_goes_away(remote: Remote, spraydry: Run, source: Path, tmp_path: Path) -> None:
    here, back, there = str(tmp_path / "here.sqlite"), str(tmp_path / "back.sqlite"), remote.place()
    spraydry("--repo", here, "ingest", source)
    (source / "large2.bin").write_bytes(random.Random(7).randbytes(40 << 20))
    spraydry("--repo", here, "ingest", source)
    remote.network.after(36 << 20, Fault(cut_request=0))
    _, _, err = spraydry("--repo", here, "push", there, code=7)
    made, failed = err.splitlines()
    assert made.endswith("a new one is made") and failed.startswith("spraydry: ")
    remote.network.fault = None
    told = json.loads(spraydry("--repo", here, "push", there, "--json")[1])
    assert told["existing"] == ["source@v1"] and told["sent_bytes"] < 40 << 20
    check(there, source)
    remote.network.after(40 << 20, Fault(cut_answer=0))
    _, _, err = spraydry("--repo", back, "pull", there, code=7)
    assert err.startswith("spraydry: ") and err.count("\n") == 1
    remote.network.fault = None
    told = json.loads(spraydry("--repo", back, "pull", there, "--json")[1])
    assert told["sent_bytes"] < 50 << 20
    check(back, source)


def test_from_a_web_server(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch)
    spray, tree = caller(capsys), filled_source(tmp_path, 3 << 20)
    spray("--repo", f"dir:{tmp_path}/served/repository", "ingest", tree)
    words = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path / "served"), "0"]
    with subprocess.Popen(
        [sys.executable, "-u", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as serving:
        try:
            assert serving.stdout is not None
            port = serving.stdout.readline().split(" port ")[1].split()[0]
            url = f"http://127.0.0.1:{port}/repository"
            here, lazy = str(tmp_path / "here.sqlite"), f"dir:{tmp_path}/lazy"
            spray("--repo", here, "pull", url)
            check(here, tree)
            spray("clone", "--lazy", url, lazy)
            with Repository.open(lazy) as clone:
                assert differences(clone, clone.log.find("source"), tree) == []
            (tree / "more").write_text("more")
            spray("--repo", here, "ingest", tree)
            assert "cannot be written" in spray("--repo", here, "push", url, code=7)[2]
        finally:
            serving.kill()
