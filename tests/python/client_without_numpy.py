"""The Python client where numpy is not installed: the same calls, with lists."""

import sys
import unittest

sys.modules["numpy"] = None  # as if it were not there

from support import main  # noqa: E402
from support.calls import Calls, Files, gradd  # noqa: E402

__all__ = ["Calls", "Files"]


class Lists(unittest.TestCase):
    def test_tensors_are_lists(self):
        self.assertIs(type(gradd.unpack(gradd.pack({"a": [[1.0]]}))[0]["a"]), list)


if __name__ == "__main__":
    main()
