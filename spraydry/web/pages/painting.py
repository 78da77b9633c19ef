"""Colours for code: Pygments in a process of its own, which is ended where a hostile text makes it take too long."""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from time import monotonic
from typing import Any

MOST_BYTES = 256 << 10
_MOST_LINE_CHARACTERS = 4000
_SECONDS = 3.0
_START_S = 10.0
_WAIT_S = 1.0
_HELD = 32

Painted = list[list[tuple[str, str]]]  # lines of (class, text)

# The token types that have a colour; what is below one of them has that of it.
CLASSES = {
    "Comment": "t-c",
    "Keyword": "t-k",
    "String": "t-s",
    "Number": "t-n",
    "Name.Function": "t-f",
    "Name.Class": "t-f",
    "Name.Tag": "t-k",
    "Name.Attribute": "t-a",
    "Name.Decorator": "t-a",
    "Name.Builtin": "t-b",
    "Name.Constant": "t-n",
    "Operator.Word": "t-k",
    "Generic.Heading": "t-f",
    "Generic.Inserted": "t-s",
    "Generic.Deleted": "t-d",
    "Generic.Strong": "t-f",
}


class Painter:
    """Paints one text at a time. Blocks; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._done: OrderedDict[tuple[bytes, str], tuple[str, Painted] | None] = OrderedDict()

    def paint(self, name: str, key: bytes, lines: Sequence[str]) -> tuple[str, Painted] | None:
        """The language of a text, told from its file's name, and its lines in colours; None where there is no such
        language, or it would take too long. `key` names the content, so that it is painted once."""
        if max(map(len, lines), default=0) > _MOST_LINE_CHARACTERS or sum(map(len, lines)) > MOST_BYTES:
            return None
        if not self._lock.acquire(timeout=_WAIT_S):
            return None  # others have texts that take long: threads that wait would be missed elsewhere
        try:
            if (key, name) in self._done:
                self._done.move_to_end((key, name))
                return self._done[key, name]
            answer = self._asked({"name": name, "text": "\n".join(lines)})
            found = None
            if answer and "lines" in answer and len(answer["lines"]) >= len(lines):
                found = str(answer["language"]), [[(c, t) for c, t in line] for line in answer["lines"][: len(lines)]]
                if any("".join(t for _, t in one) != text for one, text in zip(found[1], lines, strict=True)):
                    found = None  # a lexer that leaves something out shows another text than there is
            self._done[key, name] = found
            if len(self._done) > _HELD:
                self._done.popitem(last=False)
            return found
        finally:
            self._lock.release()

    def _asked(self, question: dict[str, str]) -> dict[str, Any] | None:
        started = self._process is None
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from spraydry.web.pages.painting import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            line = _line_within(process.stdout.fileno(), _START_S if started else _SECONDS)
            if line:
                return dict(json.loads(line))
        except (OSError, ValueError):
            pass
        self.close()
        return None

    def close(self) -> None:
        """End the process; the next text begins a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _line_within(descriptor: int, seconds: float) -> bytes:
    """A line that is read within so many seconds; nothing where none is."""
    end = monotonic() + seconds
    line = bytearray()
    while not line.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(0.0, end - monotonic()))[0]:
            return b""
        part = os.read(descriptor, 1 << 16)
        if not part:
            return b""
        line += part
    return bytes(line)


def serve() -> None:
    """The process: a question a line, an answer a line, until nobody asks any more."""
    import resource
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then closes the pipe
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    for question in sys.stdin.buffer:
        asked = json.loads(question)
        signal.alarm(math.ceil(_SECONDS) + 2)  # ends the process, should nobody be there any more to do it
        try:
            answer = _painted(asked["name"], asked["text"])
        except Exception as error:  # whatever a lexer does not bear, the text is shown without colours
            answer = {"error": repr(error)}
        signal.alarm(0)
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def _painted(name: str, text: str) -> dict[str, object]:
    from pygments.lexers import get_lexer_for_filename
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_for_filename(name, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return {}
    if lexer.name == "Text only":
        return {}
    lines: list[list[tuple[str, str]]] = [[]]
    for kind, piece in lexer.get_tokens(text):
        style = _class_of(str(kind)[6:])
        first, *others = piece.split("\n")
        for place, part in enumerate((first, *others)):
            if place:
                lines.append([])
            if part:
                if lines[-1] and lines[-1][-1][0] == style:
                    lines[-1][-1] = style, lines[-1][-1][1] + part
                else:
                    lines[-1].append((style, part))
    return {"language": lexer.name, "lines": lines}


def _class_of(kind: str) -> str:
    parts = kind.removeprefix("Literal.").split(".")
    for end in range(len(parts), 0, -1):
        if style := CLASSES.get(".".join(parts[:end])):
            return style
    return ""
