"""The command line: options, errors, exit codes, and what the verbs that look in print."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclopts import App

import spraydry
from spraydry import cli, errors
from spraydry.actions.progress import Done
from spraydry.actions.verify import Damage, Verified
from spraydry.commands import session, terminal
from spraydry.commands.progress import Progress
from spraydry.format.entry import CHARACTER, FIFO, FILE
from spraydry.repository.repository import Repository
from tests.ingest.trees import command, needs
from tests.versions import make_version, plain_entry

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def spray(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, repository_path: str) -> Run:
    """Run a command line on the test's repository: exit code, output, errors."""
    monkeypatch.setenv("SPRAYDRY_REPO", repository_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(arguments)
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def filled(repository_path: str) -> str:
    with Repository.open(repository_path, create=True) as repository:
        tree = {
            b"d": {b"f.txt": b"text\n", b"new\nline \x1b[31m": b"1", b"\xff\\": b"2"},
            b"link": "d/f.txt",
            b"pipe": plain_entry(b"", FIFO, None, 0),
            b"null": plain_entry(b"", CHARACTER, 1 << 32 | 3, 0, mode=0o6666),
            b"x": plain_entry(b"", FILE, None, 0, xattrs=((b"user.a", b"\0"),), mtime_s=-(1 << 40), uid=77),
        }
        make_version(repository, "r", tree)
        make_version(repository, "r", {**tree, b"more": b"m" * 5000})
    return repository_path


# -- options and errors


def _told(place: str) -> str:
    """What the source of a verb says for its help: its function's docstring, or the help of a group of verbs."""
    module, _, name = place.partition(":")
    found = getattr(importlib.import_module(module), name)
    return (found.help if isinstance(found, App) else inspect.getdoc(found)) or ""


def test_help_lists_every_verb_with_its_first_line(spray: Run) -> None:
    code, out, err = spray("--help")
    assert code == 0 and err == ""
    for verb, place in cli.verbs().items():
        first = _told(place).splitlines()[0]
        assert verb in out and first.split()[0] in out
        assert spray(verb, "--help")[0] == 0


@pytest.mark.parametrize("verb", cli.verbs())
def test_help_of_a_verb_fits_and_has_examples(spray: Run, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = spray(verb, "--help")[1].splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"Usage: spraydry {verb} ")
    examples = [line for line in lines[lines.index("For example:") :] if line.startswith(f"    spraydry {verb}")]
    assert examples
    prose = _told(cli.verbs()[verb]).partition("\n\n")[2].partition("Parameters\n")[0].splitlines()
    assert set(prose) <= set(lines), "a line was broken again"
    assert not [line for line in lines if line.startswith("│ --json  ") and line.rstrip("│ ").endswith("--json")]


def test_help_of_options_fills_its_lines(spray: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = spray("token", "add", "--help")[1]
    lines = [line.strip("│ ") for line in out.splitlines()]
    assert "as 20G. What is deleted gives nothing back, for what" in lines
    assert "is stored once may be of many: a token that has used" in lines


def test_help_documents_every_exit_code(spray: Run) -> None:
    out = spray("--help")[1]
    kinds = [errors.SprayDryError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    for code in {0, 130, 141, *(kind.exit_code for kind in kinds)}:
        assert f"\n  {code:3}  " in out
    told = out[out.index("Exit codes:") :]
    assert "`" not in told  # what they say is for who types, not for who programs
    assert ". " not in told


def test_version(spray: Run) -> None:
    assert spray("--version")[:2] == (0, f"spraydry {spraydry.__version__}\n")


def test_no_verb_shows_the_help(spray: Run) -> None:
    assert spray() == spray("--help")


def test_one_verb_imports_no_other() -> None:
    code = (
        "import sys; from spraydry.cli import run; run(['log', '--repo', '/missing'])\n"
        "print([n for n in sys.modules if n.startswith('spraydry.commands.')"
        " or n in ('rich', 'rich.console', 'trio', 'pyfuse3', 'pathspec')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert loaded == {"spraydry.commands.log", "spraydry.commands.session", "spraydry.commands.terminal"}


def test_options_before_and_after_the_verb(filled: str, spray: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPRAYDRY_REPO")
    for arguments in (
        ["--repo", filled, "ls", "r"],
        [f"--repo={filled}", "ls", "r"],
        ["ls", "--repo", filled, "r"],
        ["ls", "r", "--debug", f"--repo={filled}"],
        ["ls", f"--repo={filled}", "--", "r"],
    ):
        assert spray(*arguments)[0] == 0, arguments
    code, _, err = spray("ls", "--", "--repo")  # behind it everything is an argument
    assert code == 4 and "no repository" in err


@pytest.mark.parametrize("verb", cli.verbs())
def test_every_verb_takes_the_options_of_every_verb(tmp_path: Path, spray: Run, verb: str) -> None:
    place = str(tmp_path / "none")
    assert spray(verb, "a", "--nonsense", "--repo", place)[0] != 0
    assert session.options.repo == place


def test_ingest_from_standard_input_with_options_around(tmp_path: Path, spray: Run) -> None:
    empty = subprocess.run(["tar", "c", "-T", "/dev/null"], capture_output=True, check=True).stdout
    for arguments in (["-", "--root", "a"], ["--root=b", "-"], ["--root", "c", "--", "-"]):
        done = command("--repo", tmp_path / "r", "ingest", *arguments, input=empty)
        assert done.returncode == 0, done
    assert command("ingest", "-", "--root=d", "--repo", tmp_path / "r", input=empty).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["ls", "--colour"], ["ls", "a", "b"], ["restore", "a"], ["--repo"], ["ls", "--json=maybe"]],
)
def test_usage_errors(filled: str, spray: Run, arguments: list[str]) -> None:
    code, out, err = spray(*arguments)
    assert (code, out) == (2, "") and err.startswith("spraydry: ") and err.count("\n") == 1


def test_usage_errors_name_the_help_that_helps(spray: Run) -> None:
    assert spray("ls", "--foo")[2].startswith("spraydry: Unknown option: --foo. (`spraydry ls --help`")
    assert "too many arguments: b c (`spraydry ls --help`" in spray("ls", "a", "b", "c")[2]
    assert "(`spraydry --help`" in spray("frobnicate")[2]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.StoreFull("no room is left"), 8, "spraydry: no room is left\n"),
        (OSError(28, "No space left on device", "/x"), 8, "spraydry: /x: no room is left"),
        (PermissionError(13, "Permission denied", b"/\xff\x1b"), 1, "spraydry: /\\xff\\x1b: Permission denied\n"),
        (KeyboardInterrupt(), 130, "spraydry: interrupted\n"),
        (MemoryError(), 1, "spraydry: out of memory\n"),
        (ZeroDivisionError("two\nlines"), 1, "spraydry: unexpected ZeroDivisionError: two lines; run it again"),
        (SystemExit(5), 5, ""),
    ],
)
def test_what_errors_become(
    filled: str, spray: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Repository, "open", fails)
    got, out, err = spray("ls")
    assert (got, out) == (code, "") and err.startswith(said) and "Traceback" not in err
    if said:
        got, out, err = spray("ls", "--debug")
        assert got == code and "Traceback" in err and err.splitlines()[-1].startswith("spraydry: ")


def test_closed_pipe_is_quiet(filled: str) -> None:
    with Repository.open(filled) as repository:
        make_version(repository, "many", {b"%05d" % number: b"" for number in range(20_000)})
    quoted = f"{sys.executable} -c 'from spraydry.cli import main; main()' ls many --repo {filled} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", quoted + "; echo ${PIPESTATUS[0]}"], capture_output=True, text=True, check=True
    )
    assert done.stderr == "" and done.stdout.splitlines()[1] == "141"


def test_output_that_cannot_be_written(filled: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from spraydry.cli import main; main()", "ls", "r", "--repo", filled],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 8 and done.stderr.count(b"\n") == 1


def test_any_name_prints_in_any_locale(filled: str) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}
    with Repository.open(filled) as repository:
        make_version(repository, "u", {"é".encode(): b""})
    done = command("ls", "u", "--repo", filled, env=environment)
    assert done.returncode == 0 and done.stdout.endswith(b"\\xe9\n")


# -- what verbs print


def test_ls_of_roots(filled: str, spray: Run) -> None:
    assert [line.split()[:3] for line in spray("ls")[1].splitlines()] == [
        ["root", "newest", "versions"],
        ["r", "v2", "2"],
    ]
    (root,) = json.loads(spray("ls", "--json")[1])
    assert (root["root"], root["newest"], root["versions"], root["files"]) == ("r", "v2", 2, 5)


def test_ls_of_nothing(repository: Repository, spray: Run) -> None:
    code, out, err = spray("ls")
    assert (code, out) == (0, "") and "spraydry ingest" in err
    assert json.loads(spray("ls", "--json")[1]) == []


def test_ls_of_a_directory(filled: str, spray: Run) -> None:
    lines = spray("ls", "r")[1].splitlines()
    assert [line.split()[-1] for line in lines] == ["d", "d/f.txt", "more", "null", "pipe", "x"]
    assert lines[1].startswith("lrwxrwxrwx root     0") and lines[1].endswith("link -> d/f.txt")
    assert lines[3].startswith("crwSrwSrw-") and " 1, 3 " in lines[3]
    assert " 77 " in lines[5] and spray("ls", "r:d/f.txt")[1].endswith(" f.txt\n")
    inner = [line.split(None, 6)[-1] for line in spray("ls", "r:d")[1].splitlines()]
    assert inner == ["f.txt", "new\\x0aline \\x1b[31m", "\\xff\\\\"]
    deep = spray("ls", "-R", "r@v1")[1]
    assert deep.count("\n") == 8 and " d/f.txt\n" in deep and deep == spray("ls", "--recursive", "r@v1")[1]


def test_ls_json_gives_names_back(filled: str, spray: Run) -> None:
    listed = json.loads(spray("ls", "r:d", "--json")[1])
    assert [os.fsencode(one["path"]) for one in listed] == [b"f.txt", b"new\nline \x1b[31m", b"\xff\\"]
    assert listed[0]["kind"] == "file" and listed[0]["mode"] == "0644" and listed[0]["mtime_ns"] == 123_456_789


@needs("b3sum")
def test_digests_are_what_b3sum_prints_and_checks(spray: Run, repository: Repository, tmp_path: Path) -> None:
    names = [b"a", b"two words", b"new\nline", b"back\\slash", "ü".encode(), b"\r", b"-x", b"d/in"]
    files = {name: name * 40_000 for name in names[:-1]}
    make_version(repository, "r", {**files, b"d": {b"in": b""}, b"link": "a"})
    assert spray("restore", "r", str(tmp_path / "out"))[0] == 0
    done = subprocess.run(
        ["b3sum", "--", *map(os.fsdecode, names)], cwd=tmp_path / "out", capture_output=True, check=True
    )
    code, _, err = spray("ls", "--digests", "r")
    assert (code, err) == (0, "")
    printed = command("ls", "--digests", "r", "--repo", repository.url).stdout
    assert sorted(printed.splitlines()) == sorted(done.stdout.splitlines())
    (tmp_path / "sums").write_bytes(printed)
    checked = subprocess.run(
        ["b3sum", "--check", str(tmp_path / "sums")], cwd=tmp_path / "out", capture_output=True, check=False
    )
    assert checked.returncode == 0, checked


def test_log(filled: str, spray: Run) -> None:
    lines = spray("log", "r")[1].splitlines()
    assert lines[0].split() == ["version", "made", "files", "size", "new", "stored"]
    assert [line.split()[0] for line in lines[1:]] == ["r@v1", "r@v2"]
    assert spray("log")[1].splitlines() == lines
    second = json.loads(spray("log", "--json")[1])[1]
    assert (second["version"], second["files"], second["also"], second["incomplete"]) == ("r@v2", 5, [], False)
    assert second["new_bytes"] > 5000 and second["bytes"] == 5007


def test_cat(filled: str, spray: Run) -> None:
    assert command("cat", "r:d/f.txt", "r@v2:more", "--repo", filled).stdout == b"text\n" + b"m" * 5000
    code, out, err = spray("cat", "r:link")
    assert (code, out) == (2, "") and "not a regular file" in err
    assert spray("cat")[0] == 2


def test_stat(filled: str, spray: Run) -> None:
    out = spray("stat", "r:x")[1]
    assert "digest:    af1349b9f5f9a1a6" in out and "xattr:     user.a = \\x00" in out and "uid" not in out
    assert "target:    d/f.txt" in spray("stat", "r:link")[1] and "device:    1, 3" in spray("stat", "r:null")[1]
    assert "holds:     5 files, 9 entries in all" in spray("stat", "r")[1]
    assert spray("tag", "r", "nice")[0] == 0
    assert "version:   r@v2, nice" in spray("stat", "r")[1] and " by test\n" in spray("stat", "r@nice")[1]
    found = json.loads(spray("stat", "r:x", "--json")[1])
    assert (found["names"], found["made_by"], found["incomplete"]) == (["v2", "nice"], "test", False)
    assert found["xattrs"] == [["user.a", "\0"]] and found["mtime_s"] == -(1 << 40) and found["version"] == "r@v2"


def test_rm_and_undelete(filled: str, spray: Run) -> None:
    assert "would remove r@v2" in spray("rm", "--dry-run", "r@v2")[1]
    assert "r@v2" in spray("log")[1]
    code, out, _ = spray("rm", "r@v2")
    assert code == 0 and "spraydry undelete r@v2" in out
    assert "r@v2" not in spray("log")[1] and spray("ls", "r@v2")[0] == 4
    assert [line.split()[0] for line in spray("log", "--removed", "r")[1].splitlines()] == ["version", "r@v2"]
    assert "would bring back r@v2" in spray("undelete", "--dry-run", "r@v2")[1]
    (told,) = json.loads(spray("undelete", "r@v2", "--json")[1])
    assert told == {"version": "r@v2", "also": [], "dry_run": False}
    assert "r@v2" in spray("log")[1]


def test_restore(filled: str, spray: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert spray("restore", "r:d", str(out), "--dry-run")[1] == "would restore 3 files, 0 directories, 7 B\n"
    assert not out.exists()
    assert spray("restore", "r:d", str(out))[1].startswith("restored 3 files, 0 directories, 7 B in ")
    code, _, err = spray("restore", "r:d", str(out))
    assert code == 2 and "--overwrite" in err
    told = json.loads(spray("restore", "r:d", str(out), "--overwrite", "--json")[1])
    assert (told["files"], told["replaced"], told["problems"]) == (3, 3, [])


def test_restore_that_is_not_complete(filled: str, spray: Run, tmp_path: Path) -> None:
    (tmp_path / "out/f.txt/full").mkdir(parents=True)
    code, out, err = spray("restore", "r:d", str(tmp_path / "out"), "--overwrite")
    assert code == 3 and "restored 2 files" in out and "d/f.txt: a directory" in err


def test_info(filled: str, spray: Run) -> None:
    out = spray("info")[1]
    assert "1 root, 2 versions" in out and "class" in out
    found = json.loads(spray("info", "--json")[1])
    assert found["url"] == filled and found["versions"] == 2 and found["stored_bytes"] <= found["file_bytes"]
    assert {one["frame_class"] for one in found["classes"]} == {"other", "tree"}


def test_verify(filled: str, spray: Run) -> None:
    assert spray("verify")[1].startswith("all is whole: checked ")
    assert spray("verify", "--sample", "50%")[1].startswith("all is whole: checked ")
    assert spray("verify", "--sample", "half")[0] == 2
    code, out, _ = spray("verify", "--rebuild", "--json")
    assert code == 0 and json.loads(out)["sound"] and json.loads(out)["rebuilt"] > 0


def test_verify_tells_a_path_once(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    damage = [Damage("r@v1", path, f"chunk {'ab' * 32} is in no frame") for path in (b"a", b"a", b"b")]
    monkeypatch.setattr("spraydry.commands.session.open_repository", lambda **_: contextlib.nullcontext())
    monkeypatch.setattr("spraydry.actions.verify.verify", lambda *_, **__: Verified(False, damage=damage))
    assert cli.run(["verify"]) == 6
    out, err = capfd.readouterr()
    assert err.splitlines() == [
        "spraydry: r@v1:a: chunk abababababab is in no frame, and 1 more",
        "spraydry: r@v1:b: chunk abababababab is in no frame",
    ]
    assert "2 paths lost bytes" in out


def test_completion_completes_every_verb_and_its_options(tmp_path: Path) -> None:
    place = tmp_path / "completion"
    environment = {**os.environ, "HOME": str(tmp_path)}  # it adds a line to .bashrc
    done = command("--install-completion", "--shell", "bash", "--output", str(place), env=environment)
    assert done.returncode == 0 and str(place) in (tmp_path / ".bashrc").read_text()
    script = """
        source "$1"
        function=$(complete -p spraydry | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        complete_it() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); $function; echo "${COMPREPLY[*]}"; }
        complete_it spraydry ""
        complete_it spraydry --repo x rm --keep-
        complete_it spraydry export r out --format ""
        complete_it spraydry store ""
    """
    told = subprocess.run(["bash", "-c", script, "bash", place], capture_output=True, text=True, check=True)
    verbs, keeps, formats, inner = (set(line.split()) for line in told.stdout.splitlines())
    assert verbs >= set(cli.verbs())
    assert {"--keep-last", "--keep-daily", "--keep-tag"} <= keeps and "--all" not in keeps
    assert formats == {"erofs", "squashfs", "tar", "zip"} and {"add", "list"} <= inner


# -- the terminal


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain name.txt", "plain name.txt"),
        ("größe 日本".encode(), "größe 日本"),
        (b"\x1b[31m\x07\x7f", "\\x1b[31m\\x07\\x7f"),
        (b"a\nb\rc\td", "a\\x0ab\\x0dc\\x09d"),
        (b"\xff\xc3\x28", "\\xff\\xc3("),
        ("\u202egnp.exe\u2028\u200b\ufeff".encode(), "\\u202egnp.exe\\u2028\\u200b\\ufeff"),
        (b"back\\slash \\x41", "back\\\\slash \\\\x41"),
        ("\U000e0041".encode(), "\\U000e0041"),
        ("\u0085".encode(), "\\x85"),
    ],
)
def test_printable(name: bytes, shown: str) -> None:
    assert terminal.printable(name) == shown


def test_sizes_and_times() -> None:
    assert [terminal.size(count) for count in (0, 1023, 1024, 1536, 1 << 20, 5 << 40, 1023 * 1024)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 TiB", "1.0 MiB"
    ]  # fmt: skip
    assert [terminal.duration(s) for s in (0.015, 0.0999, 12.4)] == ["15 ms", "0.1 s", "12 s"]
    assert [terminal.duration(s) for s in (200, 7500)] == ["3 min 20 s", "2 h 5 min"]
    assert terminal.moment(1 << 61) == f"@{1 << 61}"
    assert terminal.moment(-(1 << 40), 5, exact=True) and terminal.plural(1, "file") == "1 file"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("spraydry.commands.progress.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("spraydry.commands.progress._LINE_EVERY_S", 5.0)
    shown = {}
    for kind, stream, quiet in (
        ("bar", Terminal(), False),
        ("lines", io.StringIO(), False),
        ("json", Terminal(), True),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        clock[0] = 100.0
        with Progress(quiet=quiet) as progress:
            for step in range(12):
                clock[0] += 1.0
                progress(Done("reading", step, step << 20, 24, 24 << 20))
            progress.note("something happened")
        shown[kind] = stream.getvalue()
    assert "of 24.0 MiB" in shown["bar"] and "left" in shown["bar"] and "something happened" in shown["bar"]
    lines = shown["lines"].splitlines()
    assert len(lines) == 3 and lines[0].startswith("spraydry: reading: 4 of 24 files, 4.0 MiB of 24.0 MiB, ")
    assert lines[1].endswith(" left)") and shown["json"] == "spraydry: something happened\n"


def test_the_time_left_is_shown_on_narrow_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("spraydry.commands.progress.time.monotonic", lambda: clock[0])
    for columns, shown, not_shown in (
        (120, "93,948 of 94,302 files, 574.0 MiB of 576.0 MiB, 57.4 MiB/s (35 ms left)", "…"),
        (80, "93,948 of 94,302 files, 574.0 MiB of 576.0 MiB (35 ms left)", "/s"),
        (60, "restoring: 574.0 MiB of 576.0 MiB (35 ms left)", "files"),
    ):
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("COLUMNS", str(columns))
        with Progress() as progress:
            progress(Done("restoring", 0, 0, 94_302, 576 << 20))
            stream.truncate(0)
            clock[0] += 10.0
            progress(Done("restoring", 93_948, 574 << 20, 94_302, 576 << 20))
        drawn = stream.getvalue()
        assert shown in drawn and not_shown not in drawn, columns


@pytest.mark.parametrize(
    ("done", "text"),
    [
        (Done("sampling"), "sampling"),
        (Done("marking", 3, 0, 14, counted="versions"), "marking: 3 of 14 versions"),
        (Done("checking versions", 9, 2048, counted="entries"), "checking versions: 9 entries, 2.0 KiB"),
        (Done("deleting", 0, 0, None, 2048), "deleting: 0 B of 2.0 KiB"),
    ],
)
def test_progress_names_what_it_counts_and_nothing_else(monkeypatch: pytest.MonkeyPatch, done: Done, text: str) -> None:
    clock, stream = [100.0], io.StringIO()
    monkeypatch.setattr("spraydry.commands.progress.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("spraydry.commands.progress._LINE_EVERY_S", 5.0)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress() as progress:
        clock[0] += 6.0
        progress(done)
    assert stream.getvalue() == f"spraydry: {text}\n"


def test_short_work_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress() as progress:
        for step in range(1000):
            progress(Done("reading", step))
    assert stream.getvalue() == ""


def test_table_on_a_terminal_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "40")
    terminal.table(("name", "size"), [("[bold]x" * 10, "1 B")], right=(1,))
    assert all(len(line) < 80 for line in stream.getvalue().splitlines())
    assert "[bold]" in stream.getvalue() and shutil.which("true")


def test_a_table_too_wide_for_a_terminal_is_paragraphs(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "30")
    terminal.table(("version", "made", "size", ""), [("r@v1", "2026-11-22 03:21:30", "1.0 MiB", "")], right=(2,))
    assert stream.getvalue().splitlines() == ["version  r@v1", "made     2026-11-22 03:21:30", "size     1.0 MiB", ""]


def test_digests_on_a_terminal_are_escaped(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.run(["ls", "--digests", "r:d", "--repo", filled]) == 0
    assert r"\x1b[31m" in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_help_that_nobody_reads_on() -> None:
    quoted = f"{sys.executable} -c 'from spraydry.cli import main; main()' --help | head -n 0; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", quoted], capture_output=True, text=True, check=True)
    assert (done.stderr, done.stdout) == ("", "141\n")


def test_an_empty_name_of_a_repository_is_not_the_default(spray: Run) -> None:
    code, _, err = spray("ls", "--repo", "")
    assert code == 2 and err.startswith("spraydry: --repo names nothing")
