"""Bringing every frame to as many copies as it should have, or to its place, with the progress of every action."""

from __future__ import annotations

from spraydry.actions.hoard.needs import Needs
from spraydry.actions.progress import Done, Report, unheard
from spraydry.actions.stores import configuration_of, save, with_options
from spraydry.errors import UsageError
from spraydry.repository.repository import Repository
from spraydry.stores.over import heal as spreads
from spraydry.stores.over.indexes import Healed
from spraydry.stores.over.spread import Spread


def heal(
    repository: Repository, progress: Report = unheard, *, every_copy: bool = False, dry_run: bool = False
) -> Healed:
    """Deliver what stores missed, replace damaged and missing copies, empty the drained stores; with `dry_run` only
    count. `every_copy`: read each, to find those that are damaged though their size is right. Raises UsageError for a
    repository on one store, StoreError."""
    spread, needs = _spread(repository), Needs(repository, progress)
    if dry_run:
        return _known(needs, spreads.plan_heal(spread, _told(progress), needs.of))
    return _known(needs, spreads.heal(spread, _told(progress), every_copy, needs.of))


def rebalance(repository: Repository, progress: Report = unheard, *, dry_run: bool = False) -> Healed:
    """As `heal`, and move frames until each store has its share."""
    spread, needs = _spread(repository), Needs(repository, progress)
    work = spreads.plan_rebalance if dry_run else spreads.rebalance
    return _known(needs, work(spread, _told(progress), needs.of))


def drain(repository: Repository, name: str, progress: Report = unheard, *, dry_run: bool = False) -> Healed:
    """Give a store weight 0, and `heal`."""
    configuration, spread = configuration_of(repository), _spread(repository)
    if configuration.entry(name).weight:
        drained = with_options(repository, name, {"weight": 0.0})
        if not dry_run:
            save(repository, drained)
    spread.member(name).weight = 0.0
    return heal(repository, progress, dry_run=dry_run)


def _known(needs: Needs, healed: Healed) -> Healed:
    for hoard, why in needs.unknown.items():
        healed.fail(f"what the hoard {hoard} needs cannot be told, so it may have too few copies: {why}", hoard)
    return healed


def _spread(repository: Repository) -> Spread:
    if repository.opened.spread is None:
        if repository.opened.owner is not None and repository.opened.owner.served:
            raise UsageError(
                f"{repository.url} is served: its stores are healed where they lie, by the server when nobody asks for"
                " anything, or by `spraydry heal` there"
            )
        raise UsageError(
            "the repository lies on one store: `spraydry verify` checks what is there, `spraydry store add` adds one"
        )
    return repository.opened.spread


def _told(progress: Report) -> spreads.Report:
    def report(done: Healed) -> None:
        total = round(done.checked / done.fraction) if done.fraction > 0.001 else None
        progress(Done("looking at copies", done.checked, done.copied_bytes, total, counted="values"))

    return report
