"""The Python client's own errors: each names the argument, or the address. And what it takes that json does not."""

import socket
import unittest

import numpy
from support import LINE, main
from support.client import ClientCase

import gradd  # isort: skip


class Arguments(ClientCase):
    def wrong(self, words, call, *args, kind=TypeError, **named):
        with self.assertRaises(kind) as caught:
            call(*args, **named)
        self.assertRegex(str(caught.exception), words)

    def test_a_tensor_in_place_of_tensors_by_name(self):
        client = self.client
        self.wrong(
            "^targets takes tensors by their names.* list", client.backward, "line", {"x": [[1, 2]]}, targets=[1, 2]
        )
        self.wrong("^inputs takes", client.forward, "line", [[1, 2]])
        self.wrong("^upstream takes", client.backward, "line", {"x": [[1, 2]]}, upstream=[1])
        self.wrong("^parameters takes", client.forward, LINE, {"x": [[1, 2]]}, parameters=numpy.ones(3))
        self.wrong("^parameters takes", client.set_parameters, "line", [1])
        self.wrong("^gradients takes", client.push, "line", [1], incarnation="i", version=0)
        self.wrong("^gradients takes", client.push, "line", [1], incarnation="i", version=0, wire="BF16")
        self.wrong("^state takes", client.set_optimizer, "line", [1], steps=0)
        self.wrong("^tensors takes", gradd.pack, [1])

    def test_what_is_no_tensor(self):
        self.wrong(r"^inputs\['x'\]: ", self.client.forward, "line", {"x": "text"})
        self.wrong(r"^inputs\['x'\]: ", self.client.forward, "line", {"x": [[1, 2], [3]]}, kind=ValueError)
        self.wrong(
            r"^targets\['y'\]: ", self.client.backward, "line", {"x": [[1, 2]]}, targets={"y": numpy.array([1j])}
        )
        self.wrong(r"^parameters\['0.bias'\]: ", self.client.set_parameters, "line", {"0.bias": None})
        push = {"incarnation": "i", "version": 0}
        self.wrong(r"^gradients\['0.bias'\]: ", self.client.push, "line", {"0.bias": "no"}, **push)
        self.wrong(r"^gradients\['0.bias'\]: ", self.client.push, "line", {"0.bias": "no"}, **push, wire="F16")

    def test_a_name_in_place_of_names(self):
        self.wrong("^names takes a list of names", self.client.parameters, "line", "0.weight")
        self.wrong("^outputs takes a list of names", self.client.forward, "line", {"x": [[1, 2]]}, outputs="0")
        self.wrong(
            "^returns takes a list", self.client.backward, "line", {"x": [[1, 2]]}, upstream={}, returns="inputs"
        )
        self.wrong("^returns takes a list", self.client.backward, "line", {"x": [[1, 2]]}, upstream={}, returns=[1])
        self.assertEqual(self.client.parameters("line", [])["parameters"], {})

    def test_numbers_of_numpy_are_numbers(self):
        made = self.client.create(
            {
                "name": "other",
                "inputs": {"x": {"shape": numpy.array([2])}},
                "layers": [{"op": "linear", "out_features": numpy.int64(3)}],
                "optimizer": {"op": "sgd", "lr": numpy.float32(0.5)},
            }
        )
        self.assertEqual(made["specification"]["layers"][0]["out_features"], 3)
        self.client.backward("line", {"x": [[1, 2]]}, targets={"y": [[1]]}, apply={"lr": numpy.float64(0.25)})
        self.wrong("^specification: .*complex", self.client.create, {"name": 1j})
        self.wrong("^changes: ", self.client.patch, "line", {"optimizer": {"lr": float("nan")}}, kind=ValueError)
        self.wrong("^apply: ", self.client.backward, "line", {"x": [[1, 2]]}, apply={"lr": object()})

    def test_names_and_tokens_that_are_none(self):
        self.wrong("^a name is a text, not 3", self.client.describe, 3)
        for token in ("the-secret\n", "the secret", "the-secr\u00e9t"):
            with self.subTest(token=token), self.assertRaises(ValueError) as caught:
                gradd.Client(self.daemon.url, token)
            self.assertRegex(str(caught.exception), "^token: ")
            self.assertNotIn("secr", str(caught.exception))

    def test_nobody_listening(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
            with self.assertRaises(ConnectionError) as caught:
                gradd.Client(url, retries=1, backoff=0.001).ready()
        self.assertRegex(str(caught.exception), f"^{url}: no answer to GET /readyz in 2 attempts: nobody listens")
        with self.assertRaises(ConnectionError) as caught:
            gradd.Client("unix:/nowhere/gradd.sock", retries=0).ready()
        self.assertRegex(str(caught.exception), "^unix:/nowhere/gradd.sock: .* in 1 attempt: nobody listens")

    def test_any_request(self):
        client = self.client
        self.assertEqual(client.request("GET", "/models/line")["version"], 1)
        self.assertIn("gradd_requests_total", client.request("GET", "/metrics"))
        self.assertEqual(client.request("GET", "/models/line/parameters", query={"names": ["0.bias"]})["version"], 1)
        answer = client.request("POST", "/forward", {"model": "line"}, {"inputs": {"x": [[1, 2]]}})
        self.assertEqual(answer["outputs"]["0"].tolist(), [[5.0]])
        patch = {"max_staleness": numpy.int64(3)}
        first = client.request("PATCH", "/models/line", patch, key="once", if_match=client.describe("line"))
        self.assertEqual(first["specification"]["max_staleness"], 3)
        self.assertTrue(
            client.request("PATCH", "/models/line", patch, key="once", if_match=client.describe("line"))["replayed"]
        )
        self.wrong("GET", client.request, "GET", "/models", {}, kind=ValueError)
        self.refused(404, "not-found", client.request, "GET", "/nowhere")


if __name__ == "__main__":
    main()
