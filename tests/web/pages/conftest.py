"""One server over one repository for all tests of the pages, and one Chromium that looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spraydry.repository.repository import Repository
from tests.web.impatient import patient
from tests.web.pages.corpus import fill

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server, without a slash at its end."""
    folder = tmp_path_factory.mktemp("site")
    own = {f"XDG_{kind}_HOME": str(folder / kind) for kind in ("CACHE", "DATA", "STATE")}
    url = str(folder / "repository.sqlite")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        with Repository.open(url, create=True) as repository:
            fill(repository, folder / "source")
        with patient(folder, "--read-only", SPRAYDRY_REPO=url, **own) as server:
            yield server.url


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium. Where there is none, what it would have shown is not tested."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"NOT TESTED: there is no {CHROMIUM}, so nothing is known of the pages in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options, timeout=300_000)
        yield browser
        browser.close()
