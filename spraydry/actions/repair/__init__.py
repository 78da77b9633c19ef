"""Repair: what is lost is had from elsewhere; where nothing has it, a version without exactly that takes its place."""

from spraydry.actions.repair.repair import Repaired, Without, repair

__all__ = ["Repaired", "Without", "repair"]
