"""The verbs of hoards, as typed: put, get, delete, keys, undelete, gc."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from spraydry.format.digest import digest
from spraydry.web.guard import tokenfile
from spraydry.web.guard.tokenfile import Given
from tests.repositories import Run, caller


@pytest.fixture
def spraydry(capsysbinary: pytest.CaptureFixture[bytes], repository_path: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SPRAYDRY_REPO", repository_path)
    return caller(capsysbinary)  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "a.txt").write_bytes(b"hello\n")
    (folder / "b.bin").write_bytes(bytes(range(256)) * 3000)
    return folder


def test_put_get_keys_delete(spraydry: Run, files: Path) -> None:
    assert spraydry("put", "a.txt", "notes/today")[1] == b"notes/today: 6 B\n"
    spraydry("put", "a.txt", "b.bin", "notes/2026/")
    assert spraydry("keys", "notes")[1] == b"2026/a.txt\n2026/b.bin\ntoday\n"
    assert spraydry("keys", "notes", "2026/b")[1] == b"2026/b.bin\n"
    listed = json.loads(spraydry("keys", "notes", "today", "--json")[1])
    assert (listed[0]["size"], listed[0]["digest"]) == (6, digest(b"hello\n").hex())
    assert spraydry("get", "notes/today")[1] == b"hello\n"
    for text, start, stop in (("5-9", 5, 10), ("767990-", 767_990, 768_000), ("-3", 767_997, 768_000)):
        out = spraydry("get", "notes/2026/b.bin", "--range", text)[1]
        assert out == (bytes(range(256)) * 3000)[start:stop]
    assert spraydry("put", "no\nsuch", "notes/x", code=4)[2] == b"spraydry: no\\x0asuch: no such file\n"
    for wrong in ("x", "-", "9-5", "768000-", "1-2-3", "-1-"):
        spraydry("get", "notes/2026/b.bin", f"--range={wrong}", code=2)
    spraydry("get", "notes/2026/b.bin", "c.bin")
    assert Path("c.bin").read_bytes() == Path("b.bin").read_bytes()
    assert b"--force" in spraydry("get", "notes/today", "c.bin", code=2)[2]
    assert Path("c.bin").stat().st_size == 768_000
    spraydry("get", "notes/today", "c.bin", "--force")
    assert Path("c.bin").read_bytes() == b"hello\n" and len(list(files.iterdir())) == 3
    assert b"would delete" in spraydry("delete", "notes/today", "--dry-run")[1]
    spraydry("delete", "notes/today", "notes/nothing", code=4)
    spraydry("delete", "notes/today", "notes/2026/a.txt")
    assert spraydry("keys", "notes")[1] == b"2026/b.bin\n"
    assert b"is not there" in spraydry("get", "notes/today", code=4)[2]
    spraydry("undelete", "notes/today")
    assert spraydry("get", "notes/today")[1] == b"hello\n"
    assert spraydry("keys", "notes", "--history", "today")[1].count(b"\n") == 4
    assert b"2 keys" in spraydry("delete", "--all", "notes")[1]
    assert spraydry("keys", "notes")[1] == spraydry("keys")[1] == b""


def test_undelete_gives_back_what_was_overwritten(spraydry: Run, files: Path) -> None:
    spraydry("put", "a.txt", "notes/x")
    spraydry("put", "b.bin", "notes/x")
    spraydry("gc")
    spraydry("undelete", "notes/x", "--dry-run")
    spraydry("undelete", "notes/x")
    assert spraydry("get", "notes/x")[1] == b"hello\n"
    spraydry("gc", "--grace", "0", "--below", "100%")
    assert spraydry("get", "notes/x")[1] == b"hello\n"
    assert b"cannot be brought back" in spraydry("undelete", "notes/x", code=4)[2]
    spraydry("verify")


def test_put_without_a_key(spraydry: Run, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = spraydry("put", "b.bin")[1].decode().strip()
    assert name == digest(Path("b.bin").read_bytes()).hex()
    assert spraydry("get", name)[1] == Path("b.bin").read_bytes()
    spraydry("gc", "--grace", "0")
    assert spraydry("get", f"digests/{name}")[1] == Path("b.bin").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    spraydry("put", "-", "notes/piped")
    assert spraydry("get", "notes/piped")[1] == b"from a pipe"
    spraydry("delete", name)
    spraydry("get", name, code=4)


def test_what_cannot_be_is_told(spraydry: Run, files: Path) -> None:
    spraydry("put", "a.txt", "notes/x")
    assert b"no such file" in spraydry("put", "nothing", "notes/y", code=4)[2].lower()
    assert b"cannot name a hoard" in spraydry("put", "a.txt", "no tes/x", code=2)[2]
    assert b"notes/" in spraydry("put", "a.txt", "b.bin", "notes/x", code=2)[2]
    assert b"control characters" in spraydry("put", "a.txt", "notes/\x1b[2J", code=2)[2]
    assert b"is there already" in spraydry("put", "a.txt", "notes/x", "--new", code=5)[2]
    assert b"no hoard" in spraydry("keys", "nothing", code=4)[2]
    spraydry("delete", code=2)
    spraydry("put", code=2)


def test_a_link_that_nothing_signs_says_that_it_never_expires(spraydry: Run, files: Path) -> None:
    spraydry("put", "a.txt", "notes/today")
    words = ("url", "notes/today", "--server", "http://h")
    assert spraydry(*words)[1:] == (b"http://h/hoards/notes/today\n", b"")
    _, out, err = spraydry(*words, "--expires", "1d")
    assert out == b"http://h/hoards/notes/today\n" and b"never expires" in err and b"--tokens" in err
    tokenfile.add(files / "t.json", "one", [Given(("read",))])
    _, out, err = spraydry(*words, "--expires", "1d", "--tokens", "t.json")
    assert b"signature=" in out and err == b""


def test_what_is_written_a_little_wrong(spraydry: Run, files: Path) -> None:
    spraydry("put", "a.txt", "b.bin", "notes/2026/")
    assert b"`spraydry ingest` folders" in spraydry("put", ".", "notes/x", code=2)[2]
    assert b"write `spraydry keys notes 2026/`" in spraydry("keys", "notes/2026/", code=2)[2]
    assert b"write `spraydry keys notes PREFIX`" in spraydry("keys", "notes/", code=2)[2]
    assert b"spraydry --repo x.sqlite serve" in spraydry("serve", "x.sqlite", code=2)[2]
