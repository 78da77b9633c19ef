"""Training: dictionaries that shrink what is stored, adopted where a part that was held out proves it."""

from spraydry.actions.train.train import Trained, train, undo

__all__ = ["Trained", "train", "undo"]
