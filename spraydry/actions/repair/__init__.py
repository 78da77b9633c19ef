"""Repair: what is lost is had from elsewhere; where nothing has it, a version without exactly that takes its place."""

from spraydry.actions.repair.repair import Repaired, Without, repair
from spraydry.actions.repair.slots import MendedLog, mend_log

__all__ = ["MendedLog", "Repaired", "Without", "mend_log", "repair"]
