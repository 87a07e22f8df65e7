"""The examples in Python, on the digits: small enough for seconds. `make test-fleet` runs them in full."""

import pathlib
import tempfile
import unittest
import xml.etree.ElementTree

from support import main
from support.examples import run

DIGITS = ("--data", "digits")


class ParameterServer(unittest.TestCase):
    program = "parameter_server/train.py"

    def test_all_modes_learn_and_are_drawn(self):
        with tempfile.TemporaryDirectory() as folder:
            chart = pathlib.Path(folder, "chart.svg")
            said = run(self.program, *DIGITS, "--epochs", "20", "--reach", "0.92", "--chart", str(chart))
            for mode in ("one", "async", "pull", "sync"):
                self.assertIn(f"{mode:6} accuracy 0.9", said)
            root = xml.etree.ElementTree.fromstring(chart.read_text())
            lines = root.findall("{http://www.w3.org/2000/svg}polyline")
            self.assertEqual(len(lines), 2 * 4)

    def test_four_in_rounds_are_one(self):
        said = run(self.program, *DIGITS, "--compare")
        self.assertIn("after 200 steps", said)
        self.assertIn("has the same bytes", said)

    def test_faults(self):
        said = run(self.program, *DIGITS, "--kill", "--epochs", "60", "--pause", "1", "--reach", "0.92")
        self.assertEqual(said.count("a worker was killed at version"), 2)

    def test_what_is_not_reached_is_told(self):
        chart = ("--chart", "/dev/null")
        said = run(self.program, *DIGITS, "--modes", "one", "--epochs", "1", "--reach", "1.1", *chart, status=1)
        self.assertIn("below 1.1: one", said)


class SplitLearning(unittest.TestCase):
    def test_labels_that_stay_with_the_client(self):
        self.assertIn("contexts that are left: 0", run("split_learning/split.py"))

    def test_labels_that_the_service_is_told(self):
        self.assertIn("contexts that are left: 0", run("split_learning/split.py", "--labels", "service"))

    def test_what_is_not_reached_is_told(self):
        run("split_learning/split.py", "--steps", "1", "--more", "0", status=1)


class Federated(unittest.TestCase):
    def test_together_and_the_same_again(self):
        with tempfile.TemporaryDirectory() as folder:
            files = [pathlib.Path(folder, name) for name in ("first", "second")]
            for file in files:
                run("federated/federated.py", "--rounds", "40", "--reach", "0.9", "--save", str(file))
            self.assertEqual(files[0].read_bytes(), files[1].read_bytes())

    def test_what_is_not_reached_is_told(self):
        run("federated/federated.py", "--rounds", "1", status=1)


class Control(unittest.TestCase):
    def test_the_pole_stays_up(self):
        run("control/actor_critic.py", "--reach", "120")

    def test_what_is_not_reached_is_told(self):
        run("control/actor_critic.py", "--updates", "1", status=1)


if __name__ == "__main__":
    main()
