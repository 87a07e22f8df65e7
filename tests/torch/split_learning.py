"""Split learning with PyTorch: the divided model has the weights of the undivided one."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from support import main  # noqa: E402
from support.examples import run  # noqa: E402


class SplitLearning(unittest.TestCase):
    def test_divided_is_undivided(self):
        self.assertIn("after 100 steps", run("split_learning/split_torch.py"))


if __name__ == "__main__":
    main()
