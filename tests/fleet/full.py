"""The examples in Python in full: Fashion-MNIST, pauses of ten seconds, the thresholds that they are about."""

import os
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from support import main  # noqa: E402
from support.examples import run  # noqa: E402


class Full(unittest.TestCase):
    def test_parameter_server(self):
        run("parameter_server/train.py", "--chart", os.path.join(os.environ["BUILD"], "parameter_server.svg"))

    def test_parameter_server_compared(self):
        run("parameter_server/train.py", "--compare")

    def test_parameter_server_with_faults(self):
        run("parameter_server/train.py", "--kill")

    def test_split_learning(self):
        run("split_learning/split.py")
        run("split_learning/split.py", "--labels", "service")

    def test_federated(self):
        run("federated/federated.py")

    def test_control(self):
        run("control/actor_critic.py")


if __name__ == "__main__":
    main()
