"""The sftp store passes the conformance suite on OpenSSH's sshd, and stands what can happen to a connection."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import paramiko
import pytest
from cryptography.exceptions import InvalidTag

from spraydry.errors import (
    CorruptData,
    NotARepository,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    UsageError,
    ValueNotFound,
)
from spraydry.stores.base import Store, open_store
from spraydry.stores.sftp import SftpStore
from spraydry.stores.ssh import protocol, writing
from spraydry.stores.ssh.channel import SftpChannel
from spraydry.stores.ssh.folder import RemoteFolder
from spraydry.stores.ssh.reading import read_file
from tests.faultproxy import Fault, proxy
from tests.remote_store import LARGE, check_repository, impatient, kill_writers, one_line, opened
from tests.servers import Server, server_or_skip, serving
from tests.store_contract import Place, StoreContract

_fresh = itertools.count()
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root to mount file systems")


sshd = serving("sshd")
store = opened


@pytest.fixture
def url(sshd: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a test's store goes; nothing is there yet."""
    sshd.enter(monkeypatch)
    return f"{sshd.url}/{next(_fresh)}/store"


def folder_of(url: str) -> Path:
    return Path("/" + url.removeprefix("sftp://").split("/", 1)[1])


def at_port(url: str, running: Server, port: int) -> str:
    """The URL by way of a proxy, whose host key is told to be the server's."""
    known = running.folder / "known_hosts"
    key = known.read_text().split("\n", 1)[0].split(" ", 1)[1]
    with known.open("a") as file:
        file.write(f"[127.0.0.1]:{port} {key}\n")
    return url.replace(f":{running.port}/", f":{port}/")


def sessions(running: Server) -> list[int]:
    """The processes of sshd that serve somebody."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"sshd: "):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (Path("/proc") / str(parent) / "cmdline").read_bytes()
                if str(running.folder).encode() in command and b"[listener]" in command:
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


def tell_sessions(running: Server, what: signal.Signals) -> None:
    """Send a signal to the processes that serve somebody, of which there must be some."""
    found = sessions(running)
    assert found
    for process in found:
        with suppress(ProcessLookupError):  # it served a test before, and ends by itself
            os.kill(process, what)


class TestSftp(StoreContract):
    @pytest.fixture
    def place(self, url: str) -> Place:
        return Place(url)


plain = serving("sshd", "-P", "hardlink,fsync,statvfs,limits")


class TestSftpWithoutExtensions(StoreContract):
    """A server that can no more than replace a file by renaming."""

    @pytest.fixture
    def place(self, plain: Server, monkeypatch: pytest.MonkeyPatch) -> Place:
        plain.enter(monkeypatch)
        return Place(f"{plain.url}/{next(_fresh)}/store")

    def test_traits(self, store: Store) -> None:
        assert not store.traits.atomic_create and store.stat().free_bytes is None


def test_without_posix_rename_it_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server_or_skip("sshd", tmp_path / "sshd") as running:
        running.enter(monkeypatch)
        store = open_store(running.url + "/store", create=True)
        store.put("frames", "abc", LARGE)
        store.close()
    with server_or_skip("sshd", tmp_path / "sshd", "-P", "posix-rename") as running:
        one_line(StoreReadOnly, "posix-rename", lambda: open_store(running.url + "/store"))
        store = open_store(running.url + "/store", read_only=True)
        assert store.get("frames", "abc") == LARGE
        store.close()


# -- what lies there


def test_layout(store: Store, url: str) -> None:
    store.put_many("frames", [("abcd", b"x"), ("a", b"y")])
    store.put("log", "1", b"z")
    store.soft_delete("frames", ["abcd"])
    folder = folder_of(url)
    found = {str(path.relative_to(folder)): oct(path.stat().st_mode & 0o777) for path in folder.rglob("*")}
    assert found == {
        "frames": "0o700", "frames/a": "0o600", "frames/ab=": "0o700", "frames~": "0o700", "frames~/ab=": "0o700",
        "frames~/ab=/abcd": "0o600", "log": "0o700", "log/1": "0o600", "tmp": "0o700",
    }  # fmt: skip


def test_a_dir_store_is_read_where_it_is_nested_alike(url: str) -> None:
    folder = folder_of(url)
    local = open_store(f"dir:{folder}", create=True)
    local.put("frames", "abcdef", b"x")
    far = open_store(url)
    assert far.get("frames", "abcdef") == b"x"
    far.put("frames", "bcdefa", b"y")
    far.close()
    assert [stored.name for stored in local.list("frames")] == ["abcdef", "bcdefa"]
    local.close()
    (folder / "layout").write_text("spraydry dir 1\nframes 2\n")
    with pytest.raises(StoreError, match="frames 1"):
        open_store(url)


def test_what_is_not_ours_is_passed_over(store: Store, url: str) -> None:
    store.put_many("frames", [("abcd", b"x"), ("abce", b"y")])
    folder = folder_of(url)
    (folder / "frames/ab=/Other").write_bytes(b"?")
    (folder / "frames/ab=/zz").write_bytes(b"in the wrong place")
    (folder / "frames/ab=/abcf").symlink_to("/etc/passwd")
    (folder / "frames/ab=/abcg").mkdir()
    (folder / "frames" / "ü").write_bytes(b"?")
    (folder / "frames/ba=").write_bytes(b"a file where a folder would be")
    (folder / "frames/ab=/abcz\n").write_bytes(b"?")
    assert [stored.name for stored in store.list("frames")] == ["abcd", "abce"]
    assert store.info("frames", "abcf") is None and store.info("frames", "abcg") is None
    with pytest.raises(ValueNotFound):
        store.get("frames", "abcg")
    store.destroy()
    assert (folder / "frames/ab=/Other").read_bytes() == b"?"


def test_an_impossible_size(store: Store, url: str) -> None:
    store.put("frames", "abcd", b"x")
    os.truncate(folder_of(url) / "frames/ab=/abcd", 1 << 40)
    one_line(CorruptData, "abcd has 1099511627776 bytes", lambda: store.get("frames", "abcd"))
    assert store.create("frames", "other", b"x")


def test_a_folder_that_went_is_not_made_anew(store: Store, url: str) -> None:
    store.put("frames", "abcd", b"x")
    shutil.rmtree(folder_of(url))
    for ask in (
        lambda: store.put("frames", "abcd", b"x"),
        lambda: store.create("log", "1", b"x"),
        lambda: store.put("index", "abcd", b"x"),
    ):
        one_line(StoreNotFound, "is gone: is its disk mounted", ask)
    assert not folder_of(url).exists()


def test_temporary_files_of_killed_writers_go_after_a_day(url: str) -> None:
    open_store(url, create=True).close()
    old, young = folder_of(url) / "tmp" / "old", folder_of(url) / "tmp" / "young"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (1, old.stat().st_mtime - 90_000))
    store = open_store(url)
    store.flush()
    assert store.stat().values == 0
    store.close()
    assert os.listdir(folder_of(url) / "tmp") == ["young"]


def test_nothing_is_left_behind(url: str) -> None:
    store = open_store(url, create=True)
    store.put_many("frames", ((f"{number:04x}", b"x") for number in range(200)))
    assert [store.create("log", name, b"x") for name in ("1", "1", "2")] == [True, False, True]
    store.close()
    assert os.listdir(folder_of(url) / "tmp") == []


def test_a_name_that_comes_again_waits_for_the_first(store: Store) -> None:
    values = [b"%d" % number * 100_000 for number in range(40)]
    for _ in range(3):
        store.put_many("frames", [("again", value) for value in values])
        assert store.get("frames", "again") == values[-1]


def test_a_whole_repository(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_repository(url, tmp_path, monkeypatch)


# -- handles that are foreseen


def test_a_value_is_read_in_one_round_trip(store: SftpStore, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {f"{size:08}": LARGE[:size] for size in (0, 1, 1000, 700_000, 1_200_000, 1_305_600)}
    store.put_many("frames", values.items())
    asked = []
    ask = SftpChannel.ask
    monkeypatch.setattr(SftpChannel, "ask", lambda self, requests: asked.append(1) or ask(self, requests))
    for name, value in values.items():
        assert store.get("frames", name) == value
        assert store.get("frames", name, 700, 1000) == value[700:1700]
    assert len(asked) == 2 * len(values)
    with pytest.raises(ValueNotFound):
        store.get("frames", "missing")
    assert len(asked) == 2 * len(values) + 1
    store.put("frames", "larger", LARGE)
    assert store.get("frames", "larger") == LARGE and store.get("frames", "larger", -9) == LARGE[-9:]


def test_a_handle_that_was_not_foreseen(store: SftpStore) -> None:
    """Bytes of another file must not be taken for those that were asked for."""
    store.put_many("frames", [("right", b"right"), ("wrong", b"wrong")])
    with store._channels.channel() as channel:
        (other,) = channel.ask([protocol.open_file(store._folder.file("frames", "wrong"), protocol.READ)])
        channel._closed_last = other.handle()
        assert channel.next_handle == other.handle()
        for _ in range(3):
            assert read_file(store._folder, channel, store._folder.file("frames", "right")) == b"right"
            assert channel.next_handle is None
    with store._channels.channel() as channel:
        channel.tell([protocol.close(b"none")])
        assert channel.next_handle is None  # until it is known that all is closed


@pytest.mark.parametrize("times", [1, 100])
def test_a_value_replaced_while_it_is_opened(
    store: SftpStore, url: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    store.put_many("frames", [("a", b"short"), ("b", b"other")])
    (path,) = (folder_of(url) / "frames").rglob("a")
    ask = SftpChannel.ask
    lengths = iter(range(100, 100 + times))

    def replaced(self: SftpChannel, requests: Iterable[protocol.Request]) -> list[protocol.Reply]:
        opening, *others = requests
        replies = ask(self, [opening])
        if replies[0].status == protocol.OK and (length := next(lengths, None)):  # after the opening, before the look
            (path.parent / "new").write_bytes(b"x" * length)
            (path.parent / "new").replace(path)
        return [*replies, *ask(self, others)]

    monkeypatch.setattr(SftpChannel, "ask", replaced)
    if times == 1:
        assert dict(store.get_many("frames", ["a", "b"])) == {"a": b"x" * 100, "b": b"other"}
    else:
        one_line(StoreUnavailable, "frames/", lambda: list(store.get_many("frames", ["a", "b"])))


# -- connections that break


def test_what_the_thread_of_a_connection_meets(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """paramiko hands it on to who opens a channel, a moment before it says that the connection has ended."""

    def altered(*_: object) -> None:
        raise InvalidTag

    with monkeypatch.context() as patch:
        patch.setattr(paramiko.Channel, "invoke_subsystem", altered)
        assert one_line(StoreUnavailable, "InvalidTag", lambda: open_store(url, create=True)).retryable
    open_store(url, create=True).close()


def test_the_server_goes_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server_or_skip("sshd", tmp_path / "sshd") as running:
        running.enter(monkeypatch)
        store = open_store(running.url + "/store", create=True)
        store.put("frames", "abcd", LARGE)
    for ask in (
        lambda: store.get("frames", "abcd"),
        lambda: store.put("frames", "abce", b"x"),
        lambda: list(store.list("frames")),
    ):
        assert one_line(StoreUnavailable, "127.0.0.1", ask).retryable
    with server_or_skip("sshd", tmp_path / "sshd"):
        assert store.get("frames", "abcd") == LARGE
        store.put("frames", "abce", b"x")
        assert [stored.name for stored in store.list("frames")] == ["abcd", "abce"]
        store.close()


def test_a_lost_session_is_made_anew(store: Store, sshd: Server) -> None:
    store.put("frames", "abcd", LARGE)
    tell_sessions(sshd, signal.SIGKILL)
    assert store.get("frames", "abcd") == LARGE  # safe to do again: it was


def test_a_session_killed_in_the_middle_of_a_put(store: Store, sshd: Server) -> None:
    store.put("frames", "abcd", b"before")

    def values() -> Iterator[tuple[str, bytes]]:
        for number in range(30):
            if number == 10:
                tell_sessions(sshd, signal.SIGKILL)
            yield f"abc{number:03d}", LARGE

    one_line(StoreUnavailable, "lost|reached", lambda: store.put_many("frames", values()))
    for stored in store.list("frames"):
        assert store.get("frames", stored.name) == (b"before" if stored.name == "abcd" else LARGE)


def cut_puts(url: str, running: Server) -> tuple[int, int]:
    """Cut connections after more and more bytes of a put, and look what is there; how many puts failed, and worked."""
    failed = worked = 0
    with proxy("127.0.0.1", running.port) as network, ExitStack() as stack:
        through = at_port(url, running, int(network.address.rpartition(":")[2]))
        writer = stack.enter_context(closing(open_store(through, create=True)))
        reader = stack.enter_context(closing(open_store(url)))
        old, new = b"old" * 400_000, b"new" * 800_000
        for place, cut in enumerate([1, 100, 2000, *range(200_000, 2_400_000, 300_000)]):
            reader.put("frames", f"old{place}", old)
            network.fault = Fault(cut_request=cut, times=1)
            try:
                writer.put("frames", f"old{place}", new)
                worked += 1
            except StoreUnavailable as error:
                assert error.retryable and "\n" not in str(error)
                failed += 1
            network.fault = Fault(cut_request=cut, times=1)
            try:
                won = writer.create("log", str(place), new)
            except StoreUnavailable:
                won = None
            network.fault = None
            assert reader.get("frames", f"old{place}") in (old, new)
            found = reader.info("log", str(place))
            assert found is None or reader.get("log", str(place)) == new
            assert won is None or (won and found is not None)
            writer.put("frames", f"old{place}", new)  # the next call has a new connection
            assert reader.get("frames", f"old{place}") == new
    return failed, worked


def test_a_connection_cut_in_the_middle_of_a_put(url: str, sshd: Server) -> None:
    failed, _ = cut_puts(url, sshd)
    assert failed >= 5


def test_the_control_of_cut_puts(url: str, sshd: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing in place must be caught."""
    monkeypatch.setattr(writing, "put", put_in_place)
    with pytest.raises(AssertionError):
        cut_puts(url, sshd)


def put_in_place(folder: RemoteFolder, channel: SftpChannel, group: list[writing.Part]) -> None:
    """What `put` must not do."""
    for part in group:
        makes, _ = writing._enter_folders(folder, [part.path])
        *_, opened = channel.ask([*makes, protocol.open_file(part.path, protocol.WRITE | protocol.CREATE)])
        channel.ask(writing._writes(channel, opened.handle(), part.value))


def test_a_server_that_hangs(store: SftpStore, sshd: Server) -> None:
    store.put("frames", "abcd", b"x")
    try:
        tell_sessions(sshd, signal.SIGSTOP)
        for channel in store._channels._idle:
            channel._channel.settimeout(0.5)
        with impatient(0.5):
            assert one_line(StoreUnavailable, "does not answer", lambda: store.get("frames", "abcd")).retryable
    finally:
        tell_sessions(sshd, signal.SIGCONT)
    assert store.get("frames", "abcd") == b"x"


def test_killed_writers(url: str) -> None:
    assert kill_writers(url, 8) > 20


def test_the_control_of_killed_writers(url: str) -> None:
    broken = "import tests.test_store_sftp as t\nt.writing.put = t.put_in_place"
    with pytest.raises(AssertionError, match="in part"):
        kill_writers(url, 30, broken)


def test_of_creators_in_several_processes_one_wins(url: str) -> None:
    creator = (
        "import sys; from spraydry.stores.base import open_store; store = open_store(sys.argv[1], create=True)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(*(key for key in range(60) if store.create('log', f'{key:04d}', sys.argv[2].encode() * 50_000)))"
    )
    creators = [
        subprocess.Popen(
            [sys.executable, "-c", creator, url, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    for each in creators:
        assert each.stdout and each.stdout.readline() == "ready\n"
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda each: each.communicate("\n", 600)[0].split(), creators))
    assert sorted(int(key) for keys in told for key in keys) == list(range(60))
    store = open_store(url)
    for number, keys in enumerate(told):
        for key in keys:
            assert store.get("log", f"{int(key):04d}") == b"%d" % number * 50_000
    store.close()


# -- mistakes


def test_bad_urls(url: str) -> None:
    for bad, says in (
        ("sftp://user:secret@host/x", "no password"),
        ("sftp://user:@host/x", "no password"),
        ("sftp://host", "cannot be meant"),
        ("sftp://host/", "name a folder"),
        ("sftp://host/~", "name a folder"),
        ("sftp://host/a/../b", "name a folder"),
        ("sftp://host/a%00b", "name a folder"),
        ("sftp://-oProxyCommand=x/x", "cannot be meant"),
        ("sftp://host:99999/x", "99999 is not a port"),
        ("sftp:", "cannot be meant"),
    ):
        error = one_line(UsageError, says, lambda bad=bad: open_store(bad, create=True))  # type: ignore[misc]
        assert "secret" not in str(error)


def test_a_path_in_the_home_folder(url: str) -> None:
    name = f"spraydry-test-{os.getpid()}"
    host = url.removeprefix("sftp://").split("/")[0]
    store = open_store(f"sftp://{host}/~/{name}", create=True)
    try:
        store.put("frames", "abcd", b"x")
        assert (Path(os.path.expanduser("~")) / name / "frames/ab=/abcd").read_bytes() == b"x"
    finally:
        store.destroy()
    assert not (Path(os.path.expanduser("~")) / name).exists()


def configured(running: Server, monkeypatch: pytest.MonkeyPatch, **other: str) -> None:
    """Another ssh_config, with some lines changed."""
    lines = Path(running.environment["SPRAYDRY_SSH_CONFIG"]).read_text().splitlines()
    changed = [line for line in lines if line.split()[0].lower() not in other]
    path = running.folder / f"config-{next(_fresh)}"
    path.write_text("\n".join([*changed, *(f"    {key} {value}" for key, value in other.items())]) + "\n")
    monkeypatch.setenv("SPRAYDRY_SSH_CONFIG", str(path))


def test_who_is_not_let_in(url: str, sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, passphrase in (("other", ""), ("locked", "secret")):
        key = str(tmp_path / name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", key], check=True)
        configured(sshd, monkeypatch, identityfile=key)
        one_line(StoreError, r"lets none of your keys in: try `ssh .*`ssh-add`", lambda: open_store(url, create=True))
    configured(sshd, monkeypatch, identityfile=str(tmp_path / "missing"))
    one_line(StoreError, "lets none of your keys in", lambda: open_store(url, create=True))


def test_host_keys(url: str, sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = tmp_path / "known"
    configured(sshd, monkeypatch, userknownhostsfile=str(known))
    error = one_line(StoreError, r"not known \(SHA256:.*run `ssh -F ", lambda: open_store(url, create=True))
    assert not isinstance(error, StoreUnavailable)
    assert not known.exists()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    other = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    known.write_text(f"[127.0.0.1]:{sshd.port} {other}\n")
    error = one_line(StoreError, "not the one in known_hosts.*ssh-keygen -R", lambda: open_store(url, create=True))
    assert not isinstance(error, StoreUnavailable)
    shutil.copy(sshd.folder / "known_hosts", known)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True)  # hashed names
    open_store(url, create=True).close()


def test_the_configuration(url: str, sshd: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(sshd, monkeypatch, host="nas", hostname="127.0.0.1", port=str(sshd.port), user="root")
    user = sshd.url.removeprefix("sftp://").split("@")[0]
    configured(sshd, monkeypatch, host="nas", hostname="127.0.0.1", port=str(sshd.port), user=user)
    config = Path(os.environ["SPRAYDRY_SSH_CONFIG"])
    lines = config.read_text().splitlines()
    config.write_text("\n".join(sorted(lines, key=lambda line: not line.strip().startswith("host "))) + "\n")
    open_store(f"sftp://nas{folder_of(url)}", create=True).close()
    configured(sshd, monkeypatch, proxyjump="elsewhere")
    one_line(UsageError, "cannot go through a proxyjump", lambda: open_store(url))
    monkeypatch.setenv("SPRAYDRY_SSH_CONFIG", "/nowhere")
    one_line(UsageError, "names /nowhere", lambda: open_store(url))


def test_places_that_cannot_be(url: str, sshd: Server) -> None:
    one_line(StoreNotFound, "there is no repository at sftp://", lambda: open_store(url))
    folder = folder_of(url).parent
    folder.mkdir()
    (folder / "file").write_bytes(b"x")
    one_line(NotARepository, "is not a folder", lambda: open_store(url[: -len("store")] + "file", create=True))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = url.replace(f":{sshd.port}/", f":{unused.getsockname()[1]}/")
        assert one_line(StoreUnavailable, "cannot be reached: Connection refused", lambda: open_store(refused))
    no_host = url.replace("127.0.0.1", "no-such-host.invalid")
    one_line(StoreUnavailable, "not known to the resolver", lambda: open_store(no_host))
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            client, _ = other.accept()
            client.sendall(b"220 mail\r\n")
            client.close()

        answering = pool.submit(answer)
        mail = url.replace(f":{sshd.port}/", f":{other.getsockname()[1]}/")
        one_line(StoreUnavailable, "cannot be reached", lambda: open_store(mail))
        answering.result()


@root_only
@pytest.mark.root
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, point = tmp_path / "image", tmp_path / "sshd" / "files"
    point.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(16 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], capture_output=True)
    if (
        made.returncode
        or subprocess.run(["mount", "-o", "loop", str(image), str(point)], capture_output=True).returncode
    ):
        pytest.skip("NOT TESTED: this machine does not let root mount a file system from a file")
    try:
        with server_or_skip("sshd", tmp_path / "sshd") as running:
            running.enter(monkeypatch)
            fill_up(running.url + "/store")
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


def fill_up(url: str) -> None:
    store = open_store(url, create=True)
    value = LARGE[:700_000]
    kept: list[str] = []

    def fill() -> None:
        for number in range(100):
            store.put("frames", f"{number:04d}", value)
            kept.append(f"{number:04d}")

    error = one_line(StoreFull, "no room is left at sftp://", fill)
    assert error.exit_code == 8 and len(kept) > 5
    one_line(StoreFull, "no room is left", lambda: store.put_many("frames", ((f"m{n}", value) for n in range(9))))
    one_line(StoreFull, "no room is left", lambda: store.create("log", "1", value))
    assert store.info("log", "1") is None
    for stored in store.list("frames"):
        assert store.get("frames", stored.name) == value
    assert {stored.name for stored in store.list("frames")} >= set(kept)
    assert os.listdir(folder_of(url) / "tmp") == []
    store.delete("frames", kept[:3])
    store.put("frames", "again", value)
    assert store.stat().free_bytes is not None
    store.close()
