"""`spraydry rm`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spraydry.actions.remove import Removed
    from spraydry.actions.thin import Decided


def rm(
    *versions: str,
    keep_last: int | None = None,
    keep_daily: int | None = None,
    keep_weekly: int | None = None,
    keep_monthly: int | None = None,
    keep_yearly: int | None = None,
    keep_tag: Annotated[list[str] | None, Parameter(negative=())] = None,
    all_: Annotated[bool, Parameter(name="--all")] = False,
    force: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Remove versions, or names of them: one by one, all, or what rules do not keep.

    The bytes stay until `spraydry gc` collects them, and until then
    `spraydry undelete` brings a version back. Its name is never used again. All
    that are named are removed, or none.

    The rules count the versions of each root by itself, newest first, and add up:
    what any of them keeps is kept, everything else goes, under all its names. A
    version belongs to the day, ISO week, month and year in which it was made, by
    the local clock; the newest of each is the one that is kept. Those without a
    version do not count. Rules that would keep nothing need --force.

    For example:
        spraydry rm photos@v2 photos@v3
        spraydry rm photos --keep-last 5 --keep-daily 7 --keep-monthly 12 --dry-run
        spraydry rm photos papers --keep-yearly 10 --keep-tag 'release-*'
        spraydry rm photos --all

    Parameters
    ----------
    versions
        ROOT@VERSION; with rules or --all, ROOT.
    keep_last
        Keep the so many newest versions.
    keep_daily
        Keep the newest version of each of the last so many days that have one.
    keep_weekly
        Likewise of weeks, which begin on Monday.
    keep_monthly
        Likewise of months.
    keep_yearly
        Likewise of years.
    keep_tag
        Keep versions with this name, or with names like this shell pattern; may be given several times.
    all_
        Remove all versions of the roots.
    force
        Let rules remove every version of a root.
    dry_run
        Only tell what would be done.
    json
        Print a JSON array, an element for each version.
    """
    from spraydry.actions.remove import remove
    from spraydry.actions.retention import Rules
    from spraydry.actions.thin import thin
    from spraydry.commands.session import open_repository
    from spraydry.errors import UsageError

    numbers = {
        "last": keep_last, "daily": keep_daily, "weekly": keep_weekly, "monthly": keep_monthly, "yearly": keep_yearly
    }  # fmt: skip
    given = {word: number for word, number in numbers.items() if number is not None}
    for word, number in given.items():
        if number < 0:
            raise UsageError(f"--keep-{word} {number}: at least 0")
    ruled = bool(given or keep_tag)
    if not versions:
        raise UsageError("name a version: spraydry rm ROOT@VERSION")
    if ruled and all_:
        raise UsageError("--all keeps nothing: write either rules or --all")
    if ruled or all_:
        for one in versions:
            if "@" in one or ":" in one:
                raise UsageError(f"{one!r} is no root: rules and --all go over all versions of a ROOT")
        rules = Rules(**given, tags=tuple(keep_tag or ()))
        with open_repository(read_only=dry_run) as repository:
            decided = thin(repository, versions, rules, force=force or all_, dry_run=dry_run)
        _tell_decided(decided, dry_run, json)
        return
    for one in versions:
        if "@" not in one and ":" not in one:
            raise UsageError(
                f"{one!r} names a root, not a version: write {one}@VERSION, or rules such as --keep-last 5, or --all"
            )
    with open_repository(read_only=dry_run) as repository:
        removed = remove(repository, versions, dry_run=dry_run)
    _tell_removed(removed, dry_run, json)


def _tell_removed(removed: Sequence[Removed], dry_run: bool, json: bool) -> None:
    from spraydry.commands import terminal

    if json:
        terminal.print_json_list(
            {
                "version": str(one.version),
                "names": [one.version.name],
                "removed": True,
                "kept_by": [],
                "stays_as": one.other_names,
                "dry_run": dry_run,
            }
            for one in removed
        )
        return
    for one in removed:
        totals = one.version.record.entry.totals
        stays = f"; it stays as {', '.join(one.other_names)}" if one.other_names else ""
        terminal.line(
            f"{'would remove' if dry_run else 'removed'} {one.version}:"
            f" {terminal.plural(totals.files, 'file')}, {terminal.size(totals.size)}{stays}"
        )
    _tell_way_back([str(one.version) for one in removed], dry_run)


def _tell_decided(decided: Sequence[Decided], dry_run: bool, json: bool) -> None:
    from spraydry.commands import terminal

    if json:
        terminal.print_json_list(
            {
                "version": str(one.names[0]),
                "names": [name.name for name in one.names],
                "removed": not one.kept_by,
                "kept_by": one.kept_by,
                "stays_as": [],
                "dry_run": dry_run,
            }
            for one in decided
        )
        return
    terminal.table(
        ("version", "made", "", "kept by"),
        (
            (
                str(one.names[0]) + "".join(f", {name.name}" for name in one.names[1:]),
                terminal.moment(one.names[0].record.made_ns // 10**9),
                "stays" if one.kept_by else "would go" if dry_run else "removed",
                ", ".join(one.kept_by),
            )
            for one in decided
        ),
    )
    going = [one for one in decided if not one.kept_by]
    stay = terminal.plural(len(decided) - len(going), "stays", "stay")
    would = "would be " if dry_run else ""
    terminal.line(f"{terminal.plural(len(going), 'version')} {would}removed, {stay}")
    _tell_way_back([str(name) for one in going for name in one.names], dry_run)


def _tell_way_back(names: Sequence[str], dry_run: bool) -> None:
    from spraydry.commands import terminal

    if names and not dry_run:
        shown = " ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        terminal.line(f"until they are collected they can be brought back: spraydry undelete {shown}")
