"""NeMo Evaluator's own evaluation of a suite's tasks, in an environment of its own."""

from harness.nel.asking import FOLDER, Server, Told, evaluate, examine
from harness.nel.environment import find_nel

__all__ = ["FOLDER", "Server", "Told", "evaluate", "examine", "find_nel"]
