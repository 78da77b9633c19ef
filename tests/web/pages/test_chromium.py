"""Every page in a real browser: what it draws can be read, named, and walked through; without errors in any mode."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AUDIT = (Path(__file__).parent / "audit.js").read_text()

UNNAMED = re.compile(r"^\s*- (?:link|button|textbox|searchbox|combobox|radio|checkbox|img|table|navigation):?$", re.M)

PAGES = {
    "roots": "/",
    "root": "/-/roots/photos",
    "time line": "/-/roots/notes",
    "folder": "/photos@v3/",
    "folder of code": "/toolbox@v2/format/",
    "long folder": "/many@v1/",
    "empty folder": "/photos@v3/empty/",
    "empty version": "/bare@v1/",
    "hostile names": "/evil@v1/",
    "pictures": "/photos@v3/2025/?show=pictures",
    "image": "/-/view/photos@v3/2025/evening-01.png",
    "code": "/-/view/toolbox@v1/format/digest.py",
    "binary": "/-/view/toolbox@v3/blob.bin",
    "sound": "/-/view/photos@v3/tone.wav",
    "pdf": "/-/view/photos@v3/leaflet.pdf",
    "symlink": "/-/view/photos@v3/link",
    "history": "/-/history/photos/albums.json",
    "compare": "/-/compare?from=photos@v1&to=photos@v3",
    "same": "/-/compare?from=photos@v1&to=photos@v1",
    "lines side by side": "/-/compare?from=toolbox@v1&to=toolbox@v2&path=format/digest.py",
    "lines below each other": "/-/compare?from=toolbox@v1&to=toolbox@v2&path=format/digest.py&view=unified",
    "images side by side": "/-/compare?from=photos@v1&to=photos@v2&path=2024/sunset-03.png",
    "search": "/-/search",
    "names found": "/-/search?q=sunset-0",
    "lines found": "/-/search?q=import&in=content&root=toolbox",
    "nothing found": "/-/search?q=nothinglikethis",
    "space": "/-/space/toolbox@v3",
    "space, exclusive": "/-/space/photos@v3?by=exclusive",
    "hoard": "/-/hoards/avatars",
    "key": "/-/hoards/avatars/alice.png",
    "deleted key": "/-/hoards/avatars/gone",
    "savings": "/-/savings",
    "stores": "/-/stores",
    "trouble": "/photos@v9/",
}
FAILING = ("trouble", "deleted key")  # whose answers have a status that says so, which Chromium tells
MODES: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 800}},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark", "reduced_motion": "reduce"},
    "phone": {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
    "no script": {"viewport": {"width": 1280, "height": 800}, "java_script_enabled": False},
}


@contextmanager
def page_of(chromium: Browser, **options: Any) -> Iterator[tuple[Page, list[str]]]:
    """A page, and what its console and its scripts complained of."""
    context = chromium.new_context(**options)
    context.set_default_timeout(300_000)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        yield page, said
    finally:
        context.close()


def until(page: Page, seen: Callable[[], bool]) -> None:
    """Wait for what is seen from here: a page's policy forbids Playwright to look from within more than once."""
    deadline = monotonic() + 300
    while not seen():
        assert monotonic() < deadline
        page.wait_for_timeout(20)  # in which events are heard


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "no script"])
def test_pages_can_be_read_and_named(site: str, chromium: Browser, mode: str) -> None:
    wrong = {}
    with page_of(chromium, **MODES[mode]) as (page, said):
        for name, path in PAGES.items():
            page.goto(site + path)
            complaints = page.evaluate(AUDIT)
            if mode == "light":
                complaints += UNNAMED.findall(page.locator("body").aria_snapshot())
            expected = 1 if name in FAILING else 0  # the answer's own status
            if len(said) != expected:
                complaints += said
            said.clear()
            if complaints:
                wrong[name] = complaints
    assert wrong == {}


def test_pages_need_no_script(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["no script"]) as (page, said):
        for name, path in PAGES.items():
            page.goto(site + path)
            assert page.locator("h1").count() == 1, name
            assert page.locator("main").inner_text().strip(), name
            assert not said or name in FAILING, (name, said)
            said.clear()
        # Through the pages as one would: a root, its time line, two versions, a file's lines, another version.
        page.goto(site)
        page.get_by_role("link", name="Time line of photos").click()
        page.get_by_role("radio", name="from v1").check()
        page.get_by_role("button", name="Compare the chosen two").click()
        page.wait_for_url("**/-/compare?**")
        assert page.title().startswith("photos@v1 to photos@v3")
        page.locator(".changes").get_by_role("link", name="albums.json").click()
        page.wait_for_url("**albums.json**")
        assert page.locator(".new", has_text="2025/evening-01.png").count() == 1
        page.locator(".side-head").last.get_by_role("link").click()
        page.get_by_label("Version", exact=True).select_option("v1")
        page.get_by_role("button", name="Go").click()
        page.wait_for_url("**/-/view/photos@v1/albums.json")
        page.get_by_role("searchbox").fill("evening-0")
        page.keyboard.press("Enter")
        page.wait_for_url("**/-/search?**")
        assert page.locator(".hits > li").count() == 6


def test_keys_walk_through_a_folder(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["light"]) as (page, said):
        page.goto(f"{site}/photos@v3/")
        page.keyboard.press("j")
        assert page.evaluate("document.activeElement.textContent").startswith("2024")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("k")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url("**/photos@v3/2025/")
        page.keyboard.press("u")
        page.wait_for_url("**/photos@v3/")
        page.keyboard.press("/")
        page.keyboard.type("j/k")  # keys are letters in a field
        assert page.locator("[data-search]").input_value() == "j/k"
        page.keyboard.press("Escape")
        page.keyboard.press("p")
        page.wait_for_url("**/photos@v2/")
        page.keyboard.press("n")
        page.wait_for_url("**/photos@v3/")
        assert said == []


def test_the_tab_key_reaches_everything_and_shows_where_it_is(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["light"]) as (page, _):
        page.goto(f"{site}/photos@v3/2025/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        until(page, lambda: page.evaluate("document.activeElement.getBoundingClientRect().top >= 0"))
        page.keyboard.press("Enter")
        until(page, lambda: page.evaluate("document.activeElement.id") == "main")
        wanted = page.locator("main a[href], main select, main button").count()
        seen = 0
        for _ in range(wanted):
            page.keyboard.press("Tab")
            told = page.evaluate(
                "[!!document.activeElement.closest('main'), getComputedStyle(document.activeElement).outlineStyle]"
            )
            assert told == [True, "solid"]
            seen += 1
        page.keyboard.press("Tab")
        assert not page.evaluate("!!document.activeElement.closest('main')")
        assert seen == wanted


def test_a_choice_of_a_version_goes_there_at_once(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["light"]) as (page, _):
        page.goto(f"{site}/-/view/notes@v24/diary.txt")
        page.get_by_label("Version", exact=True).select_option("v3")
        page.wait_for_url("**/-/view/notes@v3/diary.txt")
        assert page.locator(".code .l").count() == 3


def test_pictures_are_drawn_and_sound_can_be_played(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["light"]) as (page, said):
        page.goto(f"{site}/-/view/photos@v3/2025/evening-01.png")
        assert page.evaluate("document.querySelector('.picture img').naturalWidth") == 320
        page.goto(f"{site}/-/compare?from=photos@v1&to=photos@v2&path=2024/sunset-03.png")
        assert page.evaluate("[...document.querySelectorAll('main img')].map((e) => e.naturalWidth)") == [240, 240]
        page.goto(f"{site}/-/view/photos@v3/tone.wav")
        until(page, lambda: page.evaluate("document.querySelector('audio').duration > 0.9"))
        page.goto(f"{site}/-/view/toolbox@v1/format/digest.py#L11")
        assert page.evaluate("document.querySelector(':target').textContent").startswith("DIGEST_BYTES")
        assert page.locator(".code .t-k").count() > 5
        assert said == []


def test_the_treemap_leads_further_in(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["light"]) as (page, _):
        page.goto(f"{site}/-/space/toolbox@v3")
        areas = page.evaluate(
            "[...document.querySelectorAll('.treemap rect:not(.inner)')]"
            ".map((e) => e.width.baseVal.value * e.height.baseVal.value)"
        )
        assert 0.9 < sum(areas) / (960 * 480) <= 1
        page.locator(".treemap a", has_text="format/").first.click(position={"x": 12, "y": 12})
        page.wait_for_url("**/-/space/toolbox@v3/format")
        page.get_by_role("link", name="Freed if removed").click()
        until(page, lambda: page.get_by_role("columnheader", name="Exclusive").count() == 1)


def test_few_versions_have_narrow_bars_and_many_have_room(site: str, chromium: Browser) -> None:
    for mode in ("light", "phone"):
        with page_of(chromium, **MODES[mode]) as (page, _said):
            for root in ("photos", "notes"):
                page.goto(f"{site}/-/roots/{root}")
                chart = page.evaluate(
                    "(() => { const of = (e) => e.getBoundingClientRect();"
                    " const chart = document.querySelector('.chart');"
                    " return { widest: Math.max(...[...chart.querySelectorAll('.column')].map((e) => of(e).width)),"
                    " beyond: of(chart.querySelector('svg')).right - of(chart).right }; })()"
                )
                assert chart["widest"] < 48, (mode, root)
                assert chart["beyond"] < 0, (mode, root)


def test_links_and_amounts_on_phones_stay_in_one_piece(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["phone"]) as (page, _said):
        for path in ("/", "/-/roots/photos", "/photos@v3/", "/-/view/toolbox@v1/format/digest.py"):
            page.goto(site + path)
            torn = page.evaluate(
                "[...document.querySelectorAll('.links > *, .facts .muted, .added .delta')]"
                ".filter((e) => e.getClientRects().length > 1 || e.offsetHeight > 60).map((e) => e.textContent)"
            )
            assert torn == [], path


def test_exclusive_sizes_are_seen_on_phones(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["phone"]) as (page, _said):
        page.goto(f"{site}/-/space/photos@v3?by=exclusive")
        assert page.locator(".sizes thead").inner_text().split() == ["Name", "Size", "Stored", "Exclusive"]
        assert page.evaluate("[...document.querySelectorAll('.scroll')].every((e) => e.scrollWidth <= e.clientWidth)")


def test_totals_fit_on_phones(site: str, chromium: Browser) -> None:
    with page_of(chromium, **MODES["phone"]) as (page, _said):
        for pair, others in (("from=photos@v1&to=photos@v3", ["Others"]), ("from=toolbox@v1&to=toolbox@v2", [])):
            page.goto(f"{site}/-/compare?{pair}")
            wide = page.evaluate(
                "[...document.querySelectorAll('.scroll')].map((e) => [e.scrollWidth, e.clientWidth])"
                ".filter(([inner, outer]) => inner > outer)"
            )
            assert wide == [], pair
            assert page.locator(".totals thead").inner_text().split() == ["Files", "Folders", *others, "Size"]
