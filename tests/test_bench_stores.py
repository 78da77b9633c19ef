"""scripts/bench-stores runs on local stores, what is far away is so, and its goals are judged. No time is looked at,
but that of a round trip."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench_runs import interrupt

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmark import backends, servers, storetable, system  # noqa: E402
from benchmark.corpora import Corpus  # noqa: E402
from benchmark.delay import delayed  # noqa: E402
from benchmark.measure import CUT, Options, Outcome  # noqa: E402
from benchmark.peer import PeerError  # noqa: E402
from benchmark.servers import Server, ServerError, server  # noqa: E402
from benchmark.storerounds import CorpusRounds  # noqa: E402
from benchmark.storetable import Results  # noqa: E402

PROGRAM = Path(sys.executable).with_name("spraydry")
LOCAL = {"sqlite", "dir", "segment"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    for number in range(40):
        folder = top / f"folder {number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text(f"line of {number}\n" * (number * 10))
    (top / "large").write_bytes(random.Random(1).randbytes(1_500_000))
    (top / "link").symlink_to("large")
    return top


def words(tree: Path, work: Path, *more: str) -> list[str]:
    options = ["--corpus", str(tree), "--work", str(work), "--spraydry", str(PROGRAM), "--stores", ",".join(LOCAL)]
    sizes = ["--values", "10", "--frames", "300", "--chunks", "2", "--repeat", "2"]
    return [sys.executable, str(SCRIPTS / "bench-stores"), *options, *sizes, "--quick", "--warm-only", *more]


def test_whole_run(tree: Path, tmp_path: Path) -> None:
    work, as_json, as_markdown = tmp_path / "work", tmp_path / "result.json", tmp_path / "result.md"
    ran = subprocess.run(
        words(tree, work, "--json", str(as_json), "--markdown", str(as_markdown)),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr + (work / "log").read_text(errors="replace")

    result = json.loads(as_json.read_text())
    remarks = ["Nothing was measured cold: --warm-only."]
    mounts = system.fuse_opens()
    assert result["remarks"] == remarks if mounts else ["Nothing is mounted: /dev/fuse cannot be opened", *remarks]
    measured = result["corpora"]["tree"]
    assert measured["files"] == 41
    of_mounts = ("mount.", "tar.")
    expected = {one.key for one in storetable.ROUND_METRICS if mounts or not one.key.startswith(of_mounts)}
    assert measured["stores"].keys() == LOCAL
    for store in measured["stores"].values():
        assert store["errors"] == [] and expected <= store["samples"].keys()
        assert len(store["samples"]["ingest.first.rate"]) == len(store["samples"]["restore.rate"]) == 2
    assert len(measured["goals"]) == 6
    values = result["values"]["stores"]
    expected = {one.key for one in storetable.VALUE_METRICS if not one.key.endswith(".cold")}
    assert values.keys() == {"sqlite", "segment"}
    assert all(store["samples"].keys() == expected and store["errors"] == [] for store in values.values())
    frames = result["frames"]["stores"]
    assert frames.keys() == LOCAL
    for store in frames.values():
        assert store["errors"] == [] and store["samples"]["frames.count"] == [300]
        assert {one.key for one in storetable.FRAME_METRICS} <= store["samples"].keys()

    for text in (ran.stdout, as_markdown.read_text()):
        assert "tree: 41 files" in text and "segment:" in text and "Very many frames" in text
        assert "segment: at least as fast as sqlite: append values as large as frames" in text
    assert not (work / "run").exists()
    assert system.mounts_below(str(work)) == []


def test_an_interrupted_run_tells_what_it_has_and_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    interrupt(words(tree, work, "--parts", "frames", "--frames", "2e5"), work)


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    for more, said in (
        (["--stores", "sqlite,ftp"], "not known: ftp"),
        (["--parts", "all"], "not known: all"),
        (["--corpus", str(tmp_path / "none")], "not a folder"),
    ):
        command = [sys.executable, str(SCRIPTS / "bench-stores"), "--work", str(tmp_path / "work"), *more]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 2
        assert said in ran.stderr
    ran = subprocess.run(words(tmp_path, tmp_path / "work", "--frames", "1e12"), capture_output=True, text=True)
    assert ran.returncode == 1 and "GB are free: see --work" in ran.stderr


def test_a_restore_that_lacks_a_file_is_found(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a program that restores all but one file."""
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\ncp -r {tree} "$5" && {{ [ "$6" = whole ] || rm "$5/large"; }}\n')
    program.chmod(0o755)
    monkeypatch.setattr(backends.Spraydry, "program", str(program))
    options = Options(str(tmp_path), 1, 1.0, 60.0, 0.0, (), False, frozenset())
    with open(tmp_path / "log", "wb") as log:
        store = backends.Sqlite(str(tmp_path), log)
        store.reset()
        rounds = CorpusRounds(Corpus("tree", str(tree), str(tree)), [store], options, log)
        with pytest.raises(PeerError, match="what was restored is not what was ingested"):
            rounds._restore(store, Outcome())
        monkeypatch.setattr(store, "words", lambda *more: [str(program), "--repo", "x", *more, "whole"])
        rounds._restore(store, Outcome())


def test_the_python_of_a_program_is_found(tmp_path: Path) -> None:
    assert os.path.realpath(backends.python_of(str(PROGRAM))) == os.path.realpath(sys.executable)
    for text, found in (
        ("#!/bin/sh\n'''exec' \"/a folder/bin/python3.11\" \"$0\" \"$@\"\n' '''\n", "/a folder/bin/python3.11"),
        ("#!/usr/bin/env bash\n", ""),
    ):
        script = tmp_path / "script"
        script.write_text(text)
        script.chmod(0o755)
        assert backends.python_of(str(script)) == found


# --- Servers, and how far away they are


def serving(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A server called `one`, which is a script of that text."""
    monkeypatch.setattr(servers, "SERVING", str(folder))
    (folder / "one").write_text("#!/bin/sh\n" + text)
    (folder / "one").chmod(0o755)


def test_a_server_says_where_it_is_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving(tmp_path, monkeypatch, 'trap "touch $1/ended; exit" TERM; echo A=b=c; echo "READY x://$2"; sleep 60 & wait')
    with open(tmp_path / "log", "wb") as log, server("one", str(tmp_path / "own"), log, "there") as running:
        assert (running.url, running.environment) == ("x://there", {"A": "b=c"})
        os.kill(running.process.pid, 0)
    assert (tmp_path / "own" / "ended").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(running.process.pid, 0)


def test_a_server_that_is_not_there_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving(tmp_path, monkeypatch, 'echo "one: there is no one: install one" >&2; exit 1')
    with open(tmp_path / "log", "wb") as log, pytest.raises(ServerError, match="install one"):
        server("one", str(tmp_path / "own"), log).__enter__()


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""

    def answer(client: socket.socket) -> None:
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while block := client.recv(1 << 20):
                client.sendall(block)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def exchange(port: int, sent: bytes, slow: bool = False) -> tuple[bytes, float]:
    """What comes back of bytes that are sent without waiting, and the seconds it took, connecting included. Who is slow
    begins to read when more has come than is kept on the way."""
    began = time.monotonic()
    with socket.socket() as client:
        if slow:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        if slow:
            time.sleep(0.5)
        got = bytearray()
        while block := client.recv(1 << 20):
            got += block
        sender.join()
    return bytes(got), time.monotonic() - began


def test_what_is_far_away_takes_round_trips(echo: int) -> None:
    """Each answer that is waited for takes one, a new connection one more; none is taken twice."""
    with delayed("127.0.0.1", echo, 100) as port, socket.create_connection(("127.0.0.1", port)) as client:
        times = []
        deadline = time.monotonic() + 60
        while len(times) < 4 or min(times) >= 0.2:  # on a slow machine some take longer
            began = time.monotonic()
            client.sendall(b"sent")
            assert client.recv(10) == b"sent"
            times.append(time.monotonic() - began)
            assert began < deadline, times
    assert times[0] >= 0.2
    assert all(took >= 0.1 for took in times)


def test_any_number_of_bytes_are_on_their_way(echo: int) -> None:
    """16 MB, all at once, by ten connections at a time: as they were, in a few round trips and not one for each."""
    sent = [random.Random(number).randbytes(1_600_000) for number in range(10)]
    with delayed("127.0.0.1", echo, 500) as port:
        answers: dict[int, tuple[bytes, float]] = {}

        def one(number: int) -> None:
            answers[number] = exchange(port, sent[number])

        threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - began
    assert [answers[number][0] for number in range(10)] == sent
    assert all(took >= 1.0 for _, took in answers.values())
    assert took < 10 * 1.0


def test_who_reads_slowly_loses_nothing(echo: int) -> None:
    sent = random.Random(1).randbytes(20_000_000)
    with delayed("127.0.0.1", echo, 20) as port:
        assert exchange(port, sent, slow=True)[0] == sent


def test_the_delayed_server_of_sftp_has_the_same_key(tmp_path: Path) -> None:
    with subprocess.Popen(["true"], text=True) as process:
        pass  # what a server is besides does not matter here
    near = Server("sftp://me@127.0.0.1:5/files", {"SPRAYDRY_SSH_CONFIG": f"{tmp_path}/ssh_config"}, tmp_path, process)
    (tmp_path / "known_hosts").write_text("[127.0.0.1]:5 ssh-ed25519 AAAA\n")
    (tmp_path / "ssh_config").write_text(f'Host 127.0.0.1\n    UserKnownHostsFile "{tmp_path}/known_hosts"\n')
    far = backends.at_port(near, 77, str(tmp_path / "far"))
    assert far.url == "sftp://me@127.0.0.1:77/files" and backends.address(far) == ("127.0.0.1", 77)
    assert (tmp_path / "far" / "known_hosts").read_text() == "[127.0.0.1]:77 ssh-ed25519 AAAA\n"
    assert f'"{tmp_path}/far/known_hosts"' in Path(far.environment["SPRAYDRY_SSH_CONFIG"]).read_text()
    s3 = Server("s3://bucket", {"AWS_ENDPOINT_URL": "http://127.0.0.1:5", "AWS_REGION": "x"}, tmp_path, process)
    far = backends.at_port(s3, 77, str(tmp_path / "far"))
    assert (far.url, backends.address(far)) == ("s3://bucket", ("127.0.0.1", 77))
    assert far.environment["AWS_REGION"] == "x"


# --- Goals


def outcomes_of(**values: dict[str, list[float]]) -> dict[str, Outcome]:
    """Made-up samples of stores; in their names _ stands for -, in those of metrics for a dot."""
    outcomes = {}
    for store, samples in values.items():
        outcome = outcomes[store.replace("_", "-")] = Outcome()
        for key, numbers in samples.items():
            for number in numbers:
                outcome.add(key.replace("_", "."), number)
    return outcomes


def judged(tmp_path: Path, said: str, **values: dict[str, list[float]]) -> str:
    """The verdict on the one goal with these words in its text, without the text."""
    rounds = rounds_of(tmp_path, outcomes_of(**values))
    (found,) = [one for one in storetable.round_verdicts(rounds, Results(20, {})) if said in one.goal]
    return f"{found.word()}: {found.measured}"


def rounds_of(tmp_path: Path, outcomes: dict[str, Outcome]) -> CorpusRounds:
    options = Options(str(tmp_path), 1, 1.0, 1.0, 0.0, (), False, frozenset())
    (tmp_path / "corpus").mkdir(exist_ok=True)
    with open(os.devnull, "wb") as log:
        rounds = CorpusRounds(Corpus("corpus", str(tmp_path / "corpus"), ""), [], options, log)
    rounds.outcomes = outcomes
    return rounds


def test_ratios_are_of_the_same_round(tmp_path: Path) -> None:
    """The machine was twice as fast in the second round, and three times in the third."""
    sqlite, segment = {"ingest_first_rate": [10.0, 20.0, 30.0]}, {"ingest_first_rate": [10.0, 24.0, 18.0]}
    said = "segment: ingests at least"
    assert judged(tmp_path, said, sqlite=sqlite, segment=segment) == "reached: segment 1.00x"
    segment["ingest_first_rate"][0] = 9.5
    assert judged(tmp_path, said, sqlite=sqlite, segment=segment) == "NOT REACHED: segment 0.95x"
    assert judged(tmp_path, said, sqlite={}, segment=segment) == "not measured: segment -"


def test_what_is_far_away_must_keep_half(tmp_path: Path) -> None:
    near = {"s3": {"tar_rate": [100.0]}, "sftp": {"tar_rate": [80.0]}}
    said = "without it: tar"
    assert judged(tmp_path, said, **near, s3_far={"tar_rate": [50.0]}, sftp_far={"tar_rate": [60.0]}) == (
        "reached: s3-far 0.50x; sftp-far 0.75x"
    )
    assert judged(tmp_path, said, **near, s3_far={"tar_rate": [90.0]}, sftp_far={"tar_rate": [39.0]}) == (
        "NOT REACHED: s3-far 0.90x; sftp-far 0.49x"
    )
    assert judged(tmp_path, said, **near, s3_far={"tar_rate": [90.0]}) == "reached: s3-far 0.90x"


def test_memory_counts_by_the_most(tmp_path: Path) -> None:
    peaks = {"ingest_peak": [200.0, 301.0, 100.0]}
    assert judged(tmp_path, "ingest within 300 MB", sqlite={"ingest_peak": [300.0]}) == "reached: sqlite 300 MB"
    assert judged(tmp_path, "ingest within 300 MB", sqlite=peaks) == "NOT REACHED: sqlite 301 MB"


def test_reports(tmp_path: Path) -> None:
    names = {"sqlite": "sqlite:", "s3": "s3:", "s3-far": "s3: far"}
    outcomes = outcomes_of(
        sqlite={"tar_rate": [50.0], "open_fresh_ms": [10.0]}, s3={"tar_rate": [40.0], "open_fresh_ms": [40.0]}
    )
    outcomes["s3-far"] = Outcome()
    outcomes["s3-far"].add("tar.rate", 30.0, CUT)
    outcomes["s3-far"].errors.append("restore: it was too far")
    results = Results(20, names, [rounds_of(tmp_path, outcomes)])
    results.frames = outcomes_of(sqlite={"frames_count": [1e6], "frames_list_s": [1.5]})
    results.values = outcomes_of(sqlite={"value_list": [100.0]}, segment={"value_list": [99.0]})
    results.labels["segment"] = "segment:"
    assert results.errors() == ["s3-far: restore: it was too far"]
    text = storetable.report({"machine": {"CPU": "made of wood"}}, ["A remark."], results, as_markdown=True)
    assert "| tar of a fresh mount, MB/s | 50.0 | 40.0 (0.80x) |" in text
    assert "| open on a fresh machine, ms | 10 | 40 (0.25x) |" in text
    assert "### corpus with 20 ms of latency" in text
    assert "| tar of a fresh mount, MB/s | 40.0 | 30.0~ (0.75x) |" in text
    assert "- s3-far: restore: it was too far" in text and "- A remark." in text
    assert "| list the frames, s | 1.50 |" in text
    assert "| segment: at least as fast as sqlite: list | segment 0.99x | NOT REACHED |" in text
    assert json.loads(json.dumps(storetable.as_json({}, [], results)))["frames"]["stores"]["sqlite"]["errors"] == []
