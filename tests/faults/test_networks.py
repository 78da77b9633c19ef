"""What networks do while a repository works on a server: slow, hanging, throttled, cut off, altered on the way."""

from __future__ import annotations

import gc
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from spraydry.cli import run
from spraydry.stores.over.retry import Retry
from tests.faultproxy import Fault, Proxy, http_answer, proxy
from tests.faults.conftest import NewMachine
from tests.faults.machines import Machine, check_whole
from tests.remote_store import impatient
from tests.servers import Server

remote = pytest.mark.parametrize("backend", ["s3", "sftp", "postgresql"], indirect=True)
MIDDLE = 300_000  # bytes on a connection: in the middle of a frame that is put, or got


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """What was given up complains of nothing when Python finds it (a warning there is an error)."""
    yield
    gc.collect()


@pytest.fixture
def network(backend: str, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """In front of the backend's server."""
    name = {"s3": "ceph", "sftp": "sshd", "postgresql": "postgresql"}[backend]
    running: Server = request.getfixturevalue(name)
    at = urlsplit(running.environment["AWS_ENDPOINT_URL"] if backend == "s3" else running.url)
    assert at.hostname and at.port
    with proxy(at.hostname, at.port) as between:
        yield between


@pytest.fixture
def machine(backend: str, network: Proxy, new_machine: NewMachine, request: pytest.FixtureRequest) -> Machine:
    """One that reaches the repository through the network; there is one version of the root `source`."""
    direct = new_machine()
    direct.run("init")
    if backend == "s3":
        return new_machine(AWS_ENDPOINT_URL=f"http://{network.address}")
    running: Server = request.getfixturevalue("sshd" if backend == "sftp" else backend)
    port, old = network.address.rpartition(":")[2], str(urlsplit(running.url).port)
    url = direct.url.replace(f":{old}/", f":{port}/")
    if backend == "postgresql":
        password = (running.folder / "pgpass").read_text().strip().rpartition(":")[2]
        return new_machine(url, PGPASSWORD=password)
    known = running.folder / "known_hosts"
    with known.open("a") as file:
        file.write(f"[127.0.0.1]:{port} {known.read_text().splitlines()[0].split(' ', 1)[1]}\n")
    return new_machine(url)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Files of a frame each, about."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}").write_bytes(random.Random(number).randbytes(1 << 20))
    return folder


Attempt = Callable[..., tuple[int, str]]
Call = Callable[..., str]


@pytest.fixture
def attempt(machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Runs a command on the machine, in this process: its exit code, and all that it told.

    Trying again is as in life, only that less time passes.
    """
    monkeypatch.setattr(Retry.__init__, "__defaults__", (4, 60.0, 0.01, 0.1, 1))

    def attempted(*arguments: str | Path) -> tuple[int, str]:
        with machine.entered():
            code = run([str(argument) for argument in arguments])
        return code, "".join(capsys.readouterr())

    return attempted


@pytest.fixture
def call(attempt: Attempt) -> Call:
    """The same for a command that must end with `code`; unless that is 0, with one line."""

    def told(*arguments: str | Path, code: int = 0) -> str:
        found, text = attempt(*arguments)
        assert found == code, (arguments, found, text)
        if code:
            assert text.count("\n") == 1 and text.startswith("spraydry: ") and len(text) < 500, text
        return text

    return told


def until_it_stalls(call: Call, network: Proxy, fault: Fault, *arguments: str | Path) -> str:
    """What a command tells that fails because the network stalled: on a busy machine it may lose patience before."""
    for answer_s in (2, 10, 60):
        network.struck, network.fault = 0, fault
        with impatient(answer_s):
            told = call(*arguments, code=7)
        network.fault = None
        if network.struck:
            return told
    raise AssertionError(f"the network never stalled: {told}")


@remote
def test_a_slow_network(call: Call, network: Proxy, new_machine: NewMachine, source: Path, tmp_path: Path) -> None:
    network.fault = Fault(delay_s=0.002)
    call("ingest", source)
    call("restore", "source", tmp_path / "restored")
    assert network.struck > 100
    assert contents(tmp_path / "restored") == contents(source)
    check_whole(new_machine(), {"source@v1": source})


@remote
def test_a_network_that_hangs(
    call: Call, network: Proxy, new_machine: NewMachine, source: Path, tmp_path: Path
) -> None:
    told = until_it_stalls(call, network, Fault(stall=MIDDLE), "ingest", source)
    assert "answer" in told or "was lost" in told
    call("ingest", source)
    until_it_stalls(
        call, network, Fault(stall=MIDDLE // 2), "restore", "source:0", tmp_path / "restored", "--overwrite"
    )
    call("restore", "source", tmp_path / "restored", "--overwrite")
    assert contents(tmp_path / "restored") == contents(source)
    check_whole(new_machine(), {"source@v1": source})


@remote
def test_a_server_that_takes_nothing_any_more(
    call: Call, network: Proxy, new_machine: NewMachine, source: Path
) -> None:
    """More is to be sent than what lies between here and there can hold."""
    for number in range(3, 16):
        (source / f"{number}").write_bytes(random.Random(number).randbytes(1 << 20))
    until_it_stalls(call, network, Fault(stall=MIDDLE), "ingest", source)
    call("ingest", source)
    check_whole(new_machine(), {"source@v1": source})


@remote
def test_connections_lost_in_the_middle_of_a_put(
    call: Call, backend: str, network: Proxy, new_machine: NewMachine, source: Path
) -> None:
    network.fault = Fault(cut_request=MIDDLE, times=2)
    if backend == "postgresql":  # what was in the transaction is gone
        assert "was lost" in call("ingest", source, code=7)
        network.fault = None
    call("ingest", source)  # nobody notices
    assert network.struck in (1, 2)
    before = copied(source)
    (source / "more").write_bytes(random.Random(4).randbytes(1 << 20))
    network.fault = Fault(cut_request=MIDDLE)
    told = call("ingest", source, code=7)
    assert "was lost" in told or "broke off" in told
    check_whole(new_machine(), {"source@v1": before})
    network.fault = None
    call("ingest", source)
    check_whole(new_machine(), {"source@v1": before, "source@v2": source})


@remote
def test_connections_lost_in_the_middle_of_a_get(call: Call, network: Proxy, source: Path, tmp_path: Path) -> None:
    call("ingest", source)
    network.fault = Fault(cut_answer=MIDDLE, times=2)
    call("restore", "source", tmp_path / "first")
    assert network.struck == 2 and contents(tmp_path / "first") == contents(source)


@pytest.mark.parametrize("backend", ["s3"], indirect=True)
@pytest.mark.parametrize("status", ["503 Slow Down", "429 Too Many Requests"])
def test_a_throttled_repository(
    call: Call, network: Proxy, new_machine: NewMachine, source: Path, tmp_path: Path, status: str
) -> None:
    answer = http_answer(status, "<Error><Code>SlowDown</Code></Error>")
    network.fault = Fault(answer=answer, answer_to=b"PUT", times=12)
    call("ingest", source)
    assert network.struck == 12
    network.fault = Fault(answer=answer, answer_to=b"GET", times=3)
    call("restore", "source", tmp_path / "restored")
    assert contents(tmp_path / "restored") == contents(source)
    before = copied(source)
    (source / "more").write_bytes(b"more")
    network.fault = Fault(answer=answer, answer_to=b"PUT")
    assert status[:3] in call("ingest", source, code=7)
    network.fault = None
    call("ingest", source)
    check_whole(new_machine(), {"source@v1": before, "source@v2": source})


@remote
def test_bytes_altered_on_their_way_back(
    call: Call, attempt: Attempt, network: Proxy, source: Path, tmp_path: Path
) -> None:
    """What comes out is right, or nothing does; SSH knows it before us, and the connection ends."""
    call("ingest", source)
    for number, place in enumerate((MIDDLE, 600_000, 900_000)):
        network.struck, restored = 0, tmp_path / f"restored-{number}"
        network.fault = Fault(flip_answer=place, times=2)
        code, told = attempt("restore", "source", restored)
        assert network.struck
        if code == 0:
            assert contents(restored) == contents(source)
        else:
            assert code == 6 and "cannot be read" in told, told
            assert contents(restored).items() < contents(source).items()
    network.fault = None
    call("restore", "source", tmp_path / "at last")
    assert contents(tmp_path / "at last") == contents(source)


def contents(folder: Path) -> dict[str, bytes]:
    """What the files of a folder hold."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def copied(folder: Path) -> Path:
    """The same folder as it is now, with all its times."""
    return shutil.copytree(folder, folder.parent / "before")
