"""What tests of the Python client have in common."""

import unittest

from . import LINE, Daemon

import gradd  # noqa: E402, isort: skip


class ClientCase(unittest.TestCase):
    """One daemon and one client for all tests of a class; before each there is the model "line" alone, at version 1."""

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()
        cls.addClassCleanup(cls.daemon.stop)
        cls.client = gradd.Client(cls.daemon.url, retries=0)  # which would hide what is wrong
        cls.addClassCleanup(cls.client.close)

    def setUp(self):
        for model in self.client.models():
            self.client.delete(model["name"])
        self.client.create(LINE)
        self.client.set_parameters("line", {"0.weight": [[1, 2]], "0.bias": [0]})

    def refused(self, status, slug, call, *args, **named):
        with self.assertRaises(gradd.GraddError) as caught:
            call(*args, **named)
        self.assertEqual((caught.exception.status, caught.exception.slug), (status, slug))
        return caught.exception
