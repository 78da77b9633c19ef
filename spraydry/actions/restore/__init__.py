"""Restore: what an address names is put into a directory, with every attribute, verified."""

from spraydry.actions.restore.plan import Plan, plan
from spraydry.actions.restore.restore import Problem, Restored, restore

__all__ = ["Plan", "Problem", "Restored", "plan", "restore"]
