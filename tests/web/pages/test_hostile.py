"""A repository that means harm: whatever it holds, in a browser it does nothing, and is seen for what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import pytest

from tests.web.pages.corpus import EVIL_NAMES
from tests.web.pages.test_chromium import MODES, page_of, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OWNED = "/-/owned"  # where each script, form and refresh in the repository would go

PAGES = (
    "/evil@v1/",
    "/evil@v1/?show=pictures",
    "/evil@v1/%3Cb%3Efolder/",
    "/-/view/evil@v1/%3Cb%3Efolder/%3Ci%3Einner.py",
    "/-/view/evil@v1/evil.svg",
    "/-/view/evil@v1/evil.html",
    "/-/view/evil@v1/README.md",
    "/-/view/evil@v1/picture.png",
    "/-/view/evil@v1/script-link",
    "/-/history/evil/evil.svg",
    "/-/space/evil@v2",
    "/-/hoards/avatars?prefix=%3Cscript%3E",
    "/-/hoards/avatars/%3Cscript%3Ewindow.owned=1",
    "/-/search?q=owned",
    "/-/search?q=owned&in=content",
    "/-/search?q=%3Cscript%3Ewindow.owned%3D1%3C/script%3E",
    "/-/search?q=%22%3E%3Cimg+src%3Dx+onerror%3Dwindow.owned%3D1%3E&in=content&path=%3Cscript%3E&include=%22%3E",
    "/-/compare?from=evil@v1&to=evil@v2",
    "/-/compare?from=evil@v1&to=evil@v2&path=evil.svg",
    "/-/compare?from=evil@v1&to=evil@v2&path=evil.html",
    "/%3Cscript%3Ewindow.owned=1%3C%2Fscript%3E@v1/",
    "/-/roots/%3Cscript%3Ewindow.owned=1%3C%2Fscript%3E",
)
RAW = ("evil.html", "evil.svg", "evil.xhtml", "evil.xml", "evil.js", "README.md", "picture.png")


def test_nothing_in_our_pages_is_run(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["light"]) as (page, _):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(urlsplit(request.url).path))
        page.on("dialog", lambda dialog: asked.append(OWNED))
        for path in PAGES:
            page.goto(site + path)
            assert page.evaluate("window.owned") is None, path
            assert page.title() != "owned", path
            assert page.locator("main :is(script, iframe, object, embed, meta, link, i, b, [onerror])").count() == 0
            assert page.evaluate("[...document.links].every((a) => a.protocol === 'http:')"), path
        assert OWNED not in asked


@pytest.mark.parametrize("name", RAW)
def test_nothing_in_a_file_is_run(site: str, chromium: Browser, name: str) -> None:
    with page_of(chromium, **MODES["light"]) as (page, _):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(urlsplit(request.url).path))
        answer = page.goto(f"{site}/-/view/evil@v1/{name}")
        assert answer is not None and answer.ok
        asked.clear()
        with page.expect_event("request"):
            page.get_by_role("link", name="Open as it is").or_(page.get_by_role("link", name="Download")).last.click()
        page.wait_for_timeout(200)
        page.goto(f"{site}/evil@v1/{name}", wait_until="load")
        if name == "evil.html":
            page.wait_for_timeout(1300)  # its refresh comes after a second
            page.evaluate("document.querySelector('button').click()")  # its form
            page.evaluate("document.querySelector('a').click()")
            page.wait_for_timeout(200)
            assert page.title() == "innocent"
            assert page.evaluate("self.origin") == "null"  # a stranger to the pages
        assert page.evaluate("window.owned") is None
        assert page.title() != "owned"
        assert page.url == f"{site}/evil@v1/{name}"
        assert OWNED not in asked


def test_a_frame_of_another_page_shows_nothing_of_ours(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["light"]) as (page, said):
        page.set_content(f"<iframe src='{site}/'></iframe>", wait_until="load")
        until(page, lambda: any("frame-ancestors" in text for text in said))
        assert page.frames[1].url.startswith("chrome-error:")


def test_even_what_got_into_a_page_could_not_run(site: str, chromium: Browser) -> None:
    """The policy alone, were escaping to fail: neither inline scripts nor files of the repository are scripts."""
    with page_of(chromium, **MODES["light"]) as (page, said):
        page.goto(f"{site}/evil@v1/")
        for markup in (
            "<img src=x onerror='window.owned=1'>",
            "<iframe srcdoc='<script>parent.owned=1</script>'></iframe>",
            "<form action='https://example.invalid/'><button id=send>send</button></form>",
            "<style>body { display: none }</style>",
            "<base href='https://example.invalid/'>",
        ):
            page.evaluate("(markup) => document.querySelector('main').insertAdjacentHTML('beforeend', markup)", markup)
        page.evaluate(
            "() => document.querySelector('main').insertAdjacentHTML('beforeend',"
            " '<a id=js href=\"javascript:window.owned=1\">x</a>')"
        )
        page.evaluate("() => { document.getElementById('js').click(); document.getElementById('send').click(); }")
        until(page, lambda: len([text for text in said if "Content Security Policy" in text]) >= 4)
        page.wait_for_timeout(200)
        assert page.evaluate("window.owned") is None
        assert page.evaluate("getComputedStyle(document.body).display") == "block"
        assert page.url.startswith(site)


def test_each_name_is_seen_and_leads_to_its_file(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["light"]) as (page, _):
        page.goto(f"{site}/evil@v1/")
        links = page.evaluate(
            "[...document.querySelectorAll('[data-row]')].map((a) => [a.getAttribute('href'), a.innerText.trim()])"
        )
        shown = dict(links)
        for name in EVIL_NAMES:
            href = f"/-/view/evil@v1/{quote(name, safe='!$&()*,=~' + chr(39))}"
            assert href in shown, name
            text = shown[href]
            assert text and all(c.isprintable() for c in text), (name, text)
        assert "\\u202e" in shown["/-/view/evil@v1/evil%E2%80%AEgpj.exe"]
        assert shown["/-/view/evil@v1/%20blank%20"] == "\\x20blank\\x20"
        for href, _ in [link for link in links if link[0].startswith("/-/view/")][::3]:
            page.goto(site + href)
            assert page.locator("h1").inner_text().strip()
