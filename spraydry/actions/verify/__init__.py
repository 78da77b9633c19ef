"""Verify: every frame decodes to what its name and the catalog say, every version has all it needs."""

from spraydry.actions.verify.frames import DamagedFrame
from spraydry.actions.verify.sample import Sample
from spraydry.actions.verify.trees import Damage
from spraydry.actions.verify.verify import Verified, verify

__all__ = ["Damage", "DamagedFrame", "Sample", "Verified", "verify"]
