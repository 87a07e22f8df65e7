"""The Python client has all that the service has: the endpoints and members of api/request/routes.def."""

import inspect
import json
import re
import unittest

from support import ROOT, main

import gradd  # isort: skip
from gradd import _transport  # isort: skip

# Members that a document may have and no method has, and why.
LEFT_OUT = {
    "POST /models/{}/gradients": {
        "model": "the path names it",
        "loss losses normalizers seed": "the answer of a backward may be pushed as it is; they have no effect",
    },
    "PUT /models/{}/optimizer": {"model incarnation version": "the answer of a GET may be put as it is"},
    "PUT /models/{}/parameters": {
        "incarnation version": "the answer of a GET may be put as it is",
        "parameters": "they travel under their plain names",
    },
}
SAMPLES = {
    "specification": {},
    "changes": {},
    "inputs": {"x": [[1.0]]},
    "targets": {"y": [[1.0]]},
    "upstream": {"0": [[1.0]]},
    "parameters": {"w": [1.0]},
    "gradients": {"w": [1.0]},
    "buffers": {"b": [1.0]},
    "state": {"momentum_buffer.w": [1.0]},
    "outputs": ["0"],
    "returns": ["inputs"],
    "names": ["w"],
    "wire": "F32",
    "if_match": '"i-1"',
}


def routes():
    """The members of each endpoint, by "METHOD PATH"."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "api" / "request" / "routes.def").read_text(), flags=re.DOTALL)
    found = {}
    for row in re.findall(r"API_ROUTE\((.*?)\)\s*(?=API_ROUTE|$)", text, re.DOTALL):
        texts = re.findall(r'"((?:[^"\\]|\\.)*)"', re.sub(r'"\s+"', "", row))
        method, path, _query, _requires, members, _summary = texts
        found[f"{method} {path}"] = set(members.split())
    return found


class Recorder:
    """In a pool's place: remembers what is sent, and gives an answer that all methods can read."""

    prefix = ""

    def __init__(self):
        self.sent = {}

    def exchange(self, method, target, head, body):
        path, _, query = target.partition("?")
        names = [part.partition("=")[0] for part in query.split("&") if part]
        data = b"".join(body)
        if head.get("Content-Type") == "application/safetensors":
            size = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + size])
            names += header.pop("__metadata__", {})
            names += [name.partition("/")[0] for name in header]
        elif data:
            names += json.loads(data)
        self.sent.setdefault(f"{method} {path.replace('/NAME', '/{}')}", set()).update(names)
        accept = head.get("Accept", "")
        reply = {"models": [], "contexts": [], "version": 1, "incarnation": "i"}
        data, encoding = json.dumps(reply).encode(), "application/json"
        if "safetensors" in accept:
            data, encoding = gradd.pack({}), "application/safetensors"
        message = _transport.http.client.HTTPMessage()
        message["Content-Type"] = encoding
        return _transport.Reply(200, message, bytearray(data))


def call_with_everything(method):
    """Each argument given, so that each member is sent."""
    given = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if name in SAMPLES:
            given[name] = SAMPLES[name]
        elif "str" in str(parameter.annotation).split(" | ")[0]:
            given[name] = "NAME"
        else:
            given[name] = 1
    method(**given)


class Parity(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = gradd.Client()
        cls.client._pool = cls.recorder = Recorder()
        apart = ("close", "request")
        for name, method in inspect.getmembers(cls.client, inspect.ismethod):
            if not name.startswith("_") and name not in apart:
                call_with_everything(method)

    def test_each_endpoint_has_a_method(self):
        self.assertGreater(len(routes()), 20)
        self.assertEqual(set(self.recorder.sent) - set(routes()), set())
        self.assertEqual(set(routes()) - set(self.recorder.sent), set())

    def test_each_member_has_an_argument(self):
        free_form = ("POST /models", "PATCH /models/{}")
        for route, members in routes().items():
            if route in free_form:
                continue
            left_out = set(" ".join(LEFT_OUT.get(route, {})).split())
            with self.subTest(route=route):
                self.assertEqual(members - self.recorder.sent[route] - left_out, set())
                self.assertLessEqual(left_out, members, "it is a member no longer")


if __name__ == "__main__":
    main()
