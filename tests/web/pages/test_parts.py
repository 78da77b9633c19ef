"""What pages are made of: names and times as they are shown, the treemap, colours, patience."""

from __future__ import annotations

import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from spraydry.actions.diff.lines import hunks
from spraydry.actions.progress import Done
from spraydry.web.pages import page, painting
from spraydry.web.pages.compare import rows_of, unified
from spraydry.web.pages.links import Links, decoded, encoded, query
from spraydry.web.pages.page import OutOfTime, Patience
from spraydry.web.pages.painting import Painter
from spraydry.web.pages.shown import ago, exact, line_shown, moment, shown
from spraydry.web.pages.treemap import Box, squarified

_PATHS = st.binary(max_size=40).filter(lambda name: b"\0" not in name)


@given(_PATHS)
def test_no_name_is_markup_or_unseen(name: bytes) -> None:
    html = str(shown(name))
    text = str(Markup(html).striptags()) if b"<" not in name and b"&" not in name else ""
    assert all(character.isprintable() for character in html)
    assert set(re.findall(r"<[^>]*>", html)) <= {'<bdi dir="ltr">', "</bdi>", '<span class="odd">', "</span>"}
    assert text.isprintable()
    assert set(re.findall(r"<[^>]*>", str(line_shown(name)))) <= {'<span class="odd">', "</span>"}


@given(_PATHS)
def test_links_name_the_bytes(name: bytes) -> None:
    assert decoded(encoded(name)) == name
    url = Links("/x").view("r@v", name)
    assert re.fullmatch(r"/x/-/view/r@v[/A-Za-z0-9%!$&'()*,=~._-]*", url)
    made = query(path=name, none=None, no=False, yes=True, from_="a&b=c")
    assert re.fullmatch(r"\?[A-Za-z0-9%&=+._~-]+", made) and "from=a%26b%3Dc" in made and "yes=1" in made


@given(st.integers(-(1 << 62), 1 << 62))
def test_any_time_can_be_shown(seconds: int) -> None:
    assert exact(seconds) and ago(seconds) and "<time" in moment(seconds)


@pytest.mark.parametrize(
    ("away", "text"),
    [(3, "just now"), (70, "1 minute ago"), (7300, "2 hours ago"), (-7300, "in 2 hours"), (400 * 86400, "1 year ago")],
)
def test_how_long_ago(away: int, text: str) -> None:
    assert ago(1_000_000_000, 1_000_000_000 + away) == text


@given(st.lists(st.integers(1, 1 << 40), max_size=60))
def test_areas_fill_the_whole_in_proportion(sizes: list[int]) -> None:
    sizes.sort(reverse=True)
    boxes = squarified(sizes, Box(0, 0, 960, 480))
    assert len(boxes) == len(sizes)
    for size, box in zip(sizes, boxes, strict=True):
        assert box.width * box.height == pytest.approx(960 * 480 * size / sum(sizes), rel=1e-6)
        assert box.x >= -1e-6 and box.x + box.width <= 960 + 1e-6
        assert box.y >= -1e-6 and box.y + box.height <= 480 + 1e-6
    for at, one in enumerate(boxes):
        for other in boxes[:at]:
            across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
            down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
            assert across < 1e-6 or down < 1e-6


_LINES = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=12)


@given(_LINES, _LINES)
def test_rows_have_each_line_with_its_number(old: list[bytes], new: list[bytes]) -> None:
    for hunk in hunks(old, new):
        rows = list(rows_of(hunk))
        for turned in (rows, list(unified(rows))):
            for number, lines, text in ((lambda r: r.old, old, "old_text"), (lambda r: r.new, new, "new_text")):
                told = [(number(row), getattr(row, text)) for row in turned if number(row) is not None]
                assert all(lines[at - 1] == line for at, line in told)
                assert [at for at, _ in told] == sorted(at for at, _ in told)
        assert sum(row.old is not None for row in rows) == hunk.old_length
        assert sum(row.new is not None for row in rows) == hunk.new_length


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a text gets its colours."""
    monkeypatch.setattr(painting, "_START_S", 60.0)
    monkeypatch.setattr(painting, "_SECONDS", 60.0)


def test_code_has_colours_and_stays_the_same_text(patient: None) -> None:
    painter = Painter()
    try:
        lines = ["def f(x):", "\treturn 'a'  # b", "", "class A: pass"]
        language, painted = painter.paint("x.py", b"1", lines) or ("", [])
        assert language == "Python"
        assert ["".join(text for _, text in line) for line in painted] == lines
        assert ("t-k", "def") in painted[0]
        assert painter.paint("x.unknown", b"2", lines) is None
        assert painter.paint("x.py", b"3", ["a" * 5000]) is None
        assert painter.paint("../../\udcff\n.py", b"4", ["x = 1", "\udcff"]) is not None
    finally:
        painter.close()


def test_what_takes_too_long_has_no_colours(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = Painter()
    with monkeypatch.context() as patch:
        patch.setattr(painting, "_START_S", 0.0)
        assert painter.paint("x.py", b"1", ["x = 1"]) is None
        assert painter._process is None  # it was ended
    assert painter.paint("x.py", b"2", ["x = 1"]) is not None  # and the next text has another one
    painter.close()


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(page, "monotonic", lambda: now)
    patience = Patience(10)
    now = 9.9
    patience(Done("working"))
    assert not patience.over() and not patience.ended
    now = 10.0
    with pytest.raises(OutOfTime):
        patience(Done("working"))
    assert patience.ended
    left = Patience(100)
    left.leave()
    assert left.over()


def test_texts_that_take_long_keep_no_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page that waits has a thread, of which everything else needs one, too."""
    begun, going = threading.Event(), threading.Event()

    def asked(self: Painter, question: dict[str, str]) -> None:
        begun.set()
        going.wait()

    monkeypatch.setattr(Painter, "_asked", asked)
    painter = Painter()
    first = threading.Thread(target=painter.paint, args=("x.py", b"1", ["x = 1"]))
    others = [threading.Thread(target=painter.paint, args=("x.py", b"%d" % one, ["x = 1"])) for one in range(2, 10)]
    first.start()
    assert begun.wait(250)
    try:
        for one in others:
            one.start()
        for one in others:
            one.join(250)
        assert first.is_alive() and not any(one.is_alive() for one in others)
    finally:
        going.set()
        first.join()
