"""The command line: finds the verbs, hands them the common options, turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError

import spraydry
from spraydry import errors
from spraydry.commands import NOT_VERBS, session, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

INTERRUPTED = 130
PIPE_CLOSED = 141

_HELP = """\
Keeps versions of directory trees, deduplicated and compressed, and mounts any of them read-only.

In short:
    spraydry ingest ~/photos           # photos@v1, then v2, v3, ...
    spraydry mount photos@v3 /mnt/x    # ordinary ls, cp, grep, tar
    spraydry ls --digests photos       # or look in without a mount

What one names is written ROOT[@VERSION][:PATH] in every verb, such as
photos@v3:2024/a.jpg; without a version it is the newest.
`spraydry VERB --help` tells more about a verb."""

_OPTIONS = Group("Options of every verb", sort_key=9)


def main() -> None:
    """The entry point of the `spraydry` command."""
    for place in ("stdout", "stderr"):
        stream = getattr(sys, place)
        if stream is None:  # it was closed by whoever started us
            setattr(sys, place, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # whatever a name holds, it can be printed
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code; everything is caught and told."""
    session.options = session.Options()
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BaseException as error:
        return _told(error)


def _dispatch(arguments: Sequence[str]) -> int:
    head, tail = list(arguments), []
    if "--" in head:  # what follows it belongs to the verb, even if it looks like an option of every verb
        at = head.index("--")
        head, tail = head[:at], head[at:]
    if "-" in head:  # standard input: an argument, which would be taken for an option
        head, tail = [token for token in head if token != "-"], ["--", "-", *tail[1:]]
    app = build()

    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        repo: Annotated[str | None, Parameter(group=_OPTIONS)] = None,
        debug: Annotated[bool, Parameter(group=_OPTIONS)] = False,
        stats: Annotated[bool, Parameter(group=_OPTIONS)] = False,
    ) -> int | None:
        """Run a verb.

        Parameters
        ----------
        repo
            The repository: a path (a SQLite file) or URL; by default $SPRAYDRY_REPO, else one in the XDG data folder.
            A server that goes away meanwhile is waited for $SPRAYDRY_WAIT_S seconds (default: 30).
        debug
            Show where in the program an error came from.
        stats
            Tell at the end what the stores were asked, how often, how much and how long.
        """
        session.options.repo, session.options.debug, session.options.stats = repo, debug, stats
        try:
            code: int | None = app([*tokens, *tail])
        finally:
            session.tell_stats()
        return code

    app.meta.default(launch)
    app.meta.suppress_keyboard_interrupt = False
    if not _names_verb(head):
        app.help_epilogue = _epilogue()
        app.resolved_commands()  # imports them: the list of verbs shows the first line of each one's help
    return app.meta(head) or 0


def verbs() -> dict[str, str]:
    """Each verb and the place of its function, found by looking at the folder, importing nothing."""
    import pkgutil

    import spraydry.commands

    names = [found.name for found in pkgutil.iter_modules(spraydry.commands.__path__) if found.name not in NOT_VERBS]
    return {name.strip("_").replace("_", "-"): f"spraydry.commands.{name}:{name}" for name in names}


def build() -> App:
    """The application with its verbs, none of them imported yet."""
    app = App(
        name="spraydry",
        version=f"spraydry {spraydry.__version__}",
        version_flags=("--version",),
        help=_HELP,
        help_format="plaintext",
        default_parameter=Parameter(negative=(), show_default=False),
        group_commands=Group("Verbs", sort_key=0),
        help_formatter=_HelpTables(),
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app.register_install_completion_command()
    for flag in ("--help", "--version", "--install-completion"):
        app[flag].group = (_OPTIONS,)
    for name, place in verbs().items():
        app.command(place, name=name)
    return app


class _HelpTables:
    """Draws help as it is drawn by default, but for texts in tables that are broken to the width of the source: these
    are broken once, to that of the table. What it takes is imported when help is drawn."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        from cyclopts.help import DefaultFormatter
        from rich.text import Text

        for entry in panel.entries:
            text = getattr(entry.description, "primary_renderable", None)
            if isinstance(text, Text):
                text.plain = " ".join(text.plain.split("\n"))
        DefaultFormatter()(console, options, panel)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: object) -> None:
        from cyclopts.help import DefaultFormatter

        DefaultFormatter().render_usage(console, options, usage)


def _names_verb(arguments: Sequence[str]) -> bool:
    known = verbs()
    return any(argument in known for argument in arguments)


def _epilogue() -> str:
    """The exit codes, as the classes that carry them tell: the first of each code in the hierarchy."""
    told = {
        0: "Done.",
        1: "Any other error.",
        INTERRUPTED: "Interrupted by Ctrl-C.",
        PIPE_CLOSED: "The reader of the output went away.",
    }
    kinds = errors.SprayDryError.__subclasses__()
    for kind in kinds:
        kinds += kind.__subclasses__()
        told.setdefault(kind.exit_code, (kind.__doc__ or "").split(":")[0].split(",")[0].rstrip(".") + ".")
    return "\n".join(["Exit codes:", *(f"  {code:3}  {text}" for code, text in sorted(told.items()))])


def _told(error: BaseException) -> int:
    """Print what went wrong in one line, and for an expression where; the exit code it has."""
    if isinstance(error, SystemExit):
        if isinstance(error.__context__, BrokenPipeError):  # what draws the help ends the process by itself
            return PIPE_CLOSED
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has seen enough; the interpreter must not fail again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    if session.options.debug:
        import traceback

        traceback.print_exception(error)
    code, text = _meaning(error)
    try:
        terminal.warn(" ".join(text.split()))
        if isinstance(error, errors.ExpressionError) and error.expression:
            terminal.point(error.expression, error.place)
    except OSError:
        pass  # nobody can be told
    return code


def _meaning(error: BaseException) -> tuple[int, str]:
    """The exit code and the line for an error."""
    if isinstance(error, errors.SprayDryError):
        return error.exit_code, str(error)
    if isinstance(error, CycloptsError):
        chain = [name for name in error.command_chain or () if name != "spraydry"]
        verb = "".join(f"{name} " for name in chain) if chain and chain[0] in verbs() else ""
        text = str(error)
        if isinstance(error, UnusedCliTokensError):
            text = f"too many arguments: {' '.join(error.unused_tokens or ())}"
        return errors.UsageError.exit_code, f"{text} (`spraydry {verb}--help` shows how it is written)"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, str(error) or "interrupted"
    if isinstance(error, MemoryError):
        return 1, "out of memory"
    if isinstance(error, OSError) and error.strerror:
        place = (
            f"{terminal.printable(os.fsencode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        )
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return errors.StoreFull.exit_code, f"{place}no room is left: free some space and run the command again"
        return 1, f"{place}{error.strerror}"
    hint = "" if session.options.debug else "; run it again with --debug to see where"
    return 1, f"unexpected {type(error).__name__}: {error}{hint}"
