"""What the pages answer: the bytes behind every name, parts of long folders, what may not be seen, what is no page."""

from __future__ import annotations

import http.client
import io
import json
import re
from base64 import b64encode
from contextlib import redirect_stdout
from html import unescape
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from spraydry.repository.repository import Repository
from tests.versions import make_version
from tests.web.impatient import patient
from tests.web.pages.corpus import EVIL_NAMES, MANY

HTML = {"Accept": "text/html,*/*;q=0.8"}


def get(site: str, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    """The status, headers and text of what is at a path, as it is written."""
    connection = http.client.HTTPConnection(urlsplit(site).netloc, timeout=300)
    try:
        connection.request("GET", path, headers={**HTML, **headers})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode(errors="replace")
    finally:
        connection.close()


def rows(html: str) -> list[str]:
    """Where the rows of a listing lead."""
    return [unescape(found) for found in re.findall(r'<a data-row href="([^"]*)"', html)]


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_every_name_has_its_pages(site: str, name: bytes) -> None:
    path = quote(name, safe="")
    for page in (f"/-/view/evil@v1/{path}", f"/-/history/evil/{path}"):
        status, _, html = get(site, page)
        assert status == 200
        assert "<script>window" not in html and "<img src=x" not in html
    assert get(site, f"/evil@v1/{path}")[2] == (b"content of " + name + b"1").decode(errors="replace")
    status, _, html = get(site, f"/-/compare?from=evil@v1&to=evil@v2&path={quote(path)}")
    assert status == 200 and "+1" in html


def test_a_long_folder_comes_in_parts_in_both_directions(site: str) -> None:
    url, seen, pages = "/many@v1/", [], []
    while True:
        _, _, html = get(site, url)
        pages.append(rows(html))
        seen += pages[-1]
        more = re.search(r'rel="next" href="([^"]*after[^"]*)"', html)
        if not more:
            break
        url = unescape(more[1])
    assert seen == [f"/-/view/many@v1/entry-{number:05}.txt" for number in range(MANY)]
    assert len(pages) == -(-MANY // 250)
    back = []
    while before := re.search(r'rel="prev" href="([^"]*before[^"]*)"', html):
        _, _, html = get(site, unescape(before[1]))
        back.append(rows(html))
    assert sum(map(len, back)) == MANY - len(pages[-1])
    assert [row for page in back[::-1] for row in page] == seen[: -len(pages[-1])]
    assert rows(get(site, "/many@v1/?from=entry-01000.txt")[2])[0].endswith("entry-01000.txt")


def test_keys_of_a_hoard_come_in_parts(site: str) -> None:
    _, _, html = get(site, "/-/hoards/avatars")
    first = rows(html)
    more = re.search(r'rel="next" href="([^"]*)"', html)
    assert more
    second = rows(get(site, unescape(more[1]))[2])
    keys = [f"/-/hoards/avatars/2026/{number:03}.txt" for number in range(300)]
    assert [*first, *second] == [*keys, "/-/hoards/avatars/%3Cscript%3Ewindow.owned=1", "/-/hoards/avatars/alice.png"]
    assert rows(get(site, "/-/hoards/avatars?prefix=al")[2]) == ["/-/hoards/avatars/alice.png"]
    status, _, html = get(site, "/-/hoards/avatars/alice.png")
    assert status == 200 and html.count(">put</span>") == 2
    assert get(site, "/-/hoards/avatars/gone")[0] == 404
    assert get(site, "/-/hoards/avatars/never")[0] == 404
    assert get(site, "/-/hoards/nothing")[0] == 404


def test_other_orders_than_by_name(site: str) -> None:
    first = rows(get(site, "/many@v1/?by=size")[2])
    second = rows(get(site, "/many@v1/?by=size&page=2")[2])
    assert first[0].endswith("entry-01000.txt") and len(first) == len(second) == 250
    assert not {*first} & {*second}
    assert rows(get(site, "/photos@v3/?by=size")[2])[0] == "/photos@v3/brittany/"


def test_what_did_not_shrink_is_not_called_smaller(site: str) -> None:
    assert " smaller" in get(site, "/-/view/toolbox@v2/format/digest.py")[2]
    noise = get(site, "/-/view/toolbox@v2/blob.bin")[2]
    assert "Takes about" in noise and "smaller" not in noise


def test_every_page_says_what_browsers_may_do(site: str) -> None:
    for path in ("/", "/photos@v3/", "/-/search?q=x", "/-/nothing", "/photos@v9/"):
        _, headers, html = get(site, path)
        policy = headers["Content-Security-Policy"]
        nonce = re.search(r"script-src 'nonce-([^']{20,})'", policy)
        assert nonce and f'nonce="{nonce[1]}"' in html
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(r"\sstyle=|\son[a-z]+=", re.sub(r"<[^a-z/!][^>]*>", "", re.sub(r">[^<]*<", "><", html)))
        assert not re.search(r'(?:src|href)="https?:', html)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/-/nothing", 404),
        ("/-/roots/nothing", 404),
        ("/-/view/photos@v9/a", 404),
        ("/-/view/photos@v1/no/such", 404),
        ("/-/view/", 404),
        ("/-/history/photos/never", 404),
        ("/-/compare", 400),
        ("/-/compare?from=photos@v1&to=nothing@v1", 404),
        ("/-/compare?from=photos:a:b@@&to=@", 400),
        ("/-/compare?to=photos@v1", 400),
        ("/-/space/photos@v3/nothing", 404),
        ("/-/static/../page.py", 404),
        ("/-/static/%2e%2e%2fpage.py", 404),
        ("/-/go?root=nothing", 404),
        ("/-/search?q=%00", 200),
        ("/-/search?q=**/**/**/x", 200),
        ("/-/search?q=[z-a]*", 200),
        ("/-/search?q=x&path=%ff%fe/../..", 200),
        ("/-/search?" + "a=b&" * 300, 200),
        ("/many@v1/?after=%25ff%2500&page=-1&by=nothing", 200),
        ("/many@v1/?by=time&page=99999999999999", 200),
        ("/-/roots/notes?page=9999", 200),
        ("/nothing/", 404),
    ],
)
def test_what_makes_no_sense(site: str, path: str, status: int) -> None:
    found, headers, html = get(site, path)
    while found in (303, 307):
        found, headers, html = get(site, headers["Location"])
    assert found == status, html
    if status != 200 or "*" in path:
        assert "<h1" in html or "/static/" in path


def test_patterns_and_texts_are_found(site: str) -> None:
    assert rows(get(site, "/-/search?q=*.pdf")[2]) == ["/-/view/photos@v3/leaflet.pdf"]
    assert len(rows(get(site, "/-/search?q=2025/evening-0")[2])) == 6
    found = get(site, "/-/search?q=MAX_PAGE_BYTES&in=content&root=toolbox&words=1&case=1")[2]
    assert "/-/view/toolbox@v3/format/tree_page.py#L" in found and "<mark>" in found
    assert "Nothing fits" in get(site, "/-/search?q=max_page_bytes&in=content&root=toolbox&case=1")[2]
    assert "has no more than one" in unescape(get(site, "/-/search?q=**a**b")[2])


def test_only_what_the_token_gives_is_seen(tmp_path: Path) -> None:
    url = str(tmp_path / "repository.sqlite")
    with Repository.open(url, create=True) as repository:
        make_version(repository, "open", {b"seen.txt": b"to be seen"})
        make_version(repository, "vault", {b"treasure.txt": b"to be hidden"})
        make_version(repository, "names", {b"listed.txt": b"to be listed"})
    tokens = str(tmp_path / "tokens.json")
    command = ["token", "add", "guest", "--tokens", tokens, "--root", "open", "--also", "list:root=names", "--json"]
    made = run_command(*command)
    secret = next(value for key, value in made.items() if key in ("secret", "token"))
    authorization = {"Authorization": "Basic " + b64encode(f"me:{secret}".encode()).decode()}
    with patient(tmp_path, "--tokens", tokens, SPRAYDRY_REPO=url) as server:

        def seen(path: str) -> tuple[int, str]:
            status, _, html = get(server.url, path, **authorization)
            assert "vault" not in html and "treasure" not in html, path
            return status, html

        assert get(server.url, "/")[0] == 401
        status, html = seen("/")
        assert status == 200 and sorted(rows(html)) == ["/names@v1/", "/open@v1/"]
        assert "All versions" not in html  # sums over everything
        assert rows(seen("/-/search?q=txt")[1]) == ["/-/view/names@v1/listed.txt", "/-/view/open@v1/seen.txt"]
        assert rows(seen("/-/search?q=to+be&in=content&root=open")[1]) == ["/-/view/open@v1/seen.txt"]
        assert rows(seen("/-/search?q=to+be&in=content")[1]) == ["/-/view/open@v1/seen.txt"]
        for path in ("/-/roots/vault", "/-/view/vault@v1/treasure.txt", "/vault@v1/", "/-/space/vault@v1"):
            assert seen(path)[0] == 403, path
        for path in ("/-/history/vault/treasure.txt", "/-/compare?from=open@v1&to=vault@v1", "/-/go?root=vault"):
            assert seen(path)[0] == 403, path
        for path in ("/-/savings", "/-/stores", "/-/view/names@v1/listed.txt"):
            assert seen(path)[0] == 403, path
        assert seen("/names@v1/")[0] == 200
        assert seen("/-/view/open@v1/seen.txt")[0] == 200


def test_several_repositories_have_a_page_each(tmp_path: Path) -> None:
    urls = [str(tmp_path / f"{name}.sqlite") for name in ("one", "two")]
    for url in urls:
        with Repository.open(url, create=True) as repository:
            make_version(repository, "r", {b"d": {b"line\nfeed": b"text\n"}})
            make_version(repository, "alone", {b"x": b""})
    with patient(tmp_path, f"first={urls[0]}", f"second={urls[1]}") as server:
        assert rows(get(server.url, "/")[2]) == ["/first/", "/second/"]
        status, _, html = get(server.url, "/second/")
        assert status == 200 and 'href="/second/-/search"' in html
        for path in re.findall(r'(?:href|src|action)="(/[^"]*)"', html):
            assert path.startswith("/second/")
            assert get(server.url, unescape(path))[0] in (200, 303), path
        assert rows(get(server.url, "/second/r@v1/d/")[2]) == ["/second/-/view/r@v1/d/line%0Afeed"]
        assert "text" in get(server.url, "/second/-/view/r@v1/d/line%0Afeed")[2]
        assert get(server.url, "/second/-/go?root=r&path=d")[1]["Location"] == "/second/r@v1/d/"


def test_a_root_that_is_a_file_has_a_page(tmp_path: Path) -> None:
    url = str(tmp_path / "repository.sqlite")
    with Repository.open(url, create=True) as repository:
        make_version(repository, "single", b"dear all\n")  # type: ignore[arg-type]
    with patient(tmp_path, SPRAYDRY_REPO=url) as server:
        status, headers, _ = get(server.url, rows(get(server.url, "/")[2])[0])
        assert (status, headers["Location"]) == (303, "/-/view/single@v1")
        status, _, html = get(server.url, "/-/view/single@v1")
        assert status == 200 and "dear all" in html
        assert get(server.url, "/single@v1")[2] == "dear all\n"


def test_no_address_of_a_store_is_told(tmp_path: Path) -> None:
    url, other = str(tmp_path / "repository.sqlite"), tmp_path / "other"
    Repository.open(url, create=True).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPRAYDRY_REPO", url)
        run_quietly("store", "add", f"dir:{other}", "--name", "second", "--weight", "100")
    with Repository.open(url) as repository:
        make_version(repository, "r", {b"f%d" % at: b"%d" % at * 1000 for at in range(30)})
    with patient(tmp_path, SPRAYDRY_REPO=url) as server:
        html = get(server.url, "/-/stores")[2]
        assert "all is well" in html and "second" in html and str(tmp_path) not in html
    other.rename(tmp_path / "away")
    with patient(tmp_path, SPRAYDRY_REPO=url) as server:
        html = get(server.url, "/-/stores")[2]
        assert "not all is well" in html and str(tmp_path) not in html
        answers = [get(server.url, path) for path in ("/", "/r@v1/", "/-/view/r@v1/f1", "/-/space/r@v1?by=stored")]
        assert any("<h1>Not" in html or "does not answer" in html for _, _, html in answers)
        assert all(str(tmp_path) not in html for _, _, html in answers)


def run_quietly(*arguments: str) -> None:
    """A command line that succeeds."""
    from spraydry.cli import run

    with redirect_stdout(io.StringIO()):
        assert run([*arguments]) == 0


def run_command(*arguments: str) -> dict[str, str]:
    """What a command line prints as JSON."""
    from spraydry.cli import run

    out = io.StringIO()
    with redirect_stdout(out):
        assert run([*arguments]) == 0
    return dict(json.loads(out.getvalue()))
