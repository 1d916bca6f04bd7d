"""Stage mrm: the multifurcation reward model, trained on Safety4M and compared with the guard."""

from saffron.mrm.evaluation import evaluate
from saffron.mrm.training import train

__all__ = ["evaluate", "train"]
