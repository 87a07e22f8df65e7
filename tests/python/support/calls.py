"""Each call of the client against a real daemon. Run once with numpy and once without."""

import array
import pathlib
import struct
import tempfile
import unittest

from . import LINE, Daemon
from .client import ClientCase

import gradd  # noqa: E402, isort: skip

DROPOUT = {
    "inputs": {"x": {"shape": [3]}},
    "layers": [{"op": "dropout", "p": 0.5}, {"op": "linear", "out_features": 2, "name": "out"}],
    "seed": 3,
}


def lists(values):
    return values.tolist() if hasattr(values, "tolist") else values


class Calls(ClientCase):
    def test_models(self):
        client = self.client
        made = client.create({**LINE, "name": "other"})
        self.assertEqual((made["name"], made["version"], made["seed"]), ("other", 0, 1))
        self.assertEqual([model["name"] for model in client.models()], ["line", "other"])
        self.assertEqual(client.describe("other"), made)
        patched = client.patch("other", {"optimizer": {"momentum": 0.5}})
        self.assertEqual(patched["specification"]["optimizer"], {"op": "sgd", "lr": 0.5, "momentum": 0.5})
        self.refused(409, "name-taken", client.create, LINE)
        self.assertEqual(client.delete("other")["deleted"], "other")
        self.refused(404, "not-found", client.describe, "other")

    def test_forward(self):
        answer = self.client.forward("line", {"x": [[1, 2], [3, 4]]}, outputs=["x", "0"], seed=5)
        self.assertEqual(lists(answer["outputs"]["0"]), [[5.0], [11.0]])
        self.assertEqual(lists(answer["outputs"]["x"]), [[1.0, 2.0], [3.0, 4.0]])
        self.assertEqual((answer["model"], answer["version"], answer["seed"]), ("line", 1, 5))
        answer = self.client.forward("line", {"x": [[0.1, 0.2]]}, dtype="BF16")
        self.assertEqual(lists(answer["outputs"]["0"]), [[0.5]])

    def test_a_model_sent_along(self):
        parameters = {"0.weight": [[1, 2]], "0.bias": [0]}
        answer = self.client.forward(LINE, {"x": [[3, 4]]}, parameters=parameters)
        self.assertEqual(lists(answer["outputs"]["0"]), [[11.0]])
        self.assertNotIn("model", answer)
        answer = self.client.backward(LINE, {"x": [[3, 4]]}, parameters=parameters, upstream={"0": [[2]]})
        self.assertEqual(lists(answer["gradients"]["0.weight"]), [[6.0, 8.0]])

    def test_what_may_be_sent(self):
        rows = [array.array("f", [1, 2]), array.array("d", [1, 2]), array.array("q", [1, 2])]
        rows += [array.array("h", [1, 2]), (1, 2), [1.0, 2]]
        rows.append(gradd.Tensor("F16", (2,), struct.pack("<2e", 1, 2)))
        rows.append(gradd.bfloat16([1, 2]))
        for row in rows:
            with self.subTest(row=row):
                name = {**LINE, "layers": [{"op": "reshape", "shape": [1]}], "inputs": {"x": {"shape": []}}}
                answer = self.client.forward(name, {"x": row})
                self.assertEqual(lists(answer["outputs"]["0"]), [[1.0], [2.0]])

    def test_what_may_not_be_sent(self):
        for wrong in (
            [[1, 2], [3]],
            [[1, 2], 3],
            "ab",
            [["a", "b"]],
            [[1, None]],
            gradd.Tensor("F32", (2,), b"1234"),
        ):
            with self.subTest(wrong=wrong), self.assertRaises((TypeError, ValueError)):
                self.client.forward("line", {"x": wrong})

    def test_backward(self):
        inputs, targets = {"x": [[1, 2], [3, 4]]}, {"y": [[4], [12]]}
        returns = ["parameters", "inputs", "nodes", "outputs"]
        answer = self.client.backward("line", inputs, targets=targets, returns=returns)
        self.assertEqual((answer["loss"], answer["losses"], answer["normalizers"]), (1.0, [1.0], [2.0]))
        self.assertEqual(answer["samples"], 2)
        self.assertEqual(lists(answer["gradients"]["0.weight"]), [[-2.0, -2.0]])
        self.assertEqual(lists(answer["gradients"]["0.bias"]), [0.0])
        self.assertEqual(lists(answer["input_gradients"]["x"]), [[1.0, 2.0], [-1.0, -2.0]])
        self.assertEqual(lists(answer["node_gradients"]["0"]), [[1.0], [-1.0]])
        self.assertEqual(lists(answer["outputs"]["0"]), [[5.0], [11.0]])

    def test_shards_add_up(self):
        spec = {**DROPOUT, "loss": {"op": "mse"}}
        x, y = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[1.0, 2.0], [3.0, 4.0]]
        whole = self.client.backward(spec, {"x": x}, targets={"y": y}, seed=7)
        count = whole["normalizers"][0]
        halves = [
            self.client.backward(
                spec, {"x": x[i : i + 1]}, targets={"y": y[i : i + 1]}, seed=7, first_row=i, normalizer=count
            )
            for i in range(2)
        ]
        for i in range(2):
            total = sum(lists(half["gradients"]["out.bias"])[i] for half in halves)
            self.assertAlmostEqual(total, lists(whole["gradients"]["out.bias"])[i], places=5)

    def test_apply(self):
        inputs, targets = {"x": [[1, 2], [3, 4]]}, {"y": [[4], [12]]}
        answer = self.client.backward("line", inputs, targets=targets, apply=True)
        self.assertEqual((answer["version"], answer["applied_version"]), (1, 2))
        self.assertNotIn("gradients", answer)
        pulled = self.client.parameters("line")
        self.assertEqual(lists(pulled["parameters"]["0.weight"]), [[2.0, 3.0]])
        answer = self.client.backward("line", {"x": [[1, 2]]}, targets={"y": [[7]]}, apply={"lr": 0.0})
        self.assertEqual(answer["applied_version"], 3)
        self.assertEqual(lists(self.client.parameters("line")["parameters"]["0.weight"]), [[2.0, 3.0]])

    def test_accumulate_and_step(self):
        def contribute(x, y, accumulate):
            return self.client.backward("line", {"x": x}, targets={"y": y}, accumulate=accumulate)

        answer = contribute([[1, 2]], [[4]], True)  # gradient 2 · (1, 2)
        self.assertEqual(answer["accumulated"], {"contributions": 1, "scale": 1.0})
        answer = contribute([[3, 4]], [[12]], {"scale": 3})  # -2 · (3, 4)
        self.assertEqual(answer["accumulated"], {"contributions": 2, "scale": 4.0})
        answer = self.client.step("line", mean=True, lr=1)
        self.assertEqual((answer["applied_version"], answer["contributions"]), (2, 2))
        pulled = self.client.parameters("line")["parameters"]
        self.assertEqual(lists(pulled["0.weight"]), [[5.0, 7.0]])
        self.refused(409, "nothing-accumulated", self.client.step, "line")

    def test_a_loss_that_is_not_finite(self):
        answer = self.client.backward("line", {"x": [[1e38, 2e38]]}, targets={"y": [[0]]})
        self.assertEqual((answer["loss"], answer["losses"]), (float("inf"), [float("inf")]))
        self.refused(
            422,
            "not-finite",
            self.client.backward,
            "line",
            {"x": [[1e38, 2e38]]},
            targets={"y": [[0]]},
            apply=True,
        )

    def test_contexts(self):
        kept = self.client.forward("line", {"x": [[1, 2]]}, retain=True)
        context = kept["context"]
        self.client.set_parameters("line", {"0.weight": [[5, 5]]}, partial=True)
        self.assertEqual([c["context"] for c in self.client.contexts()], [context])
        self.assertEqual(self.client.context(context)["version"], 1)
        answer = self.client.backward(context=context, upstream={"0": [[1]]}, returns=["inputs"], retain=True)
        self.assertEqual(lists(answer["input_gradients"]["x"]), [[1.0, 2.0]])  # of the version it saw
        self.assertEqual(answer["version"], 1)
        self.client.backward(context=context, upstream={"0": [[1]]})
        problem = self.refused(404, "not-found", self.client.delete_context, context)
        self.assertEqual(problem.attempts, 1)
        context = self.client.forward("line", {"x": [[1, 2]]}, retain=True)["context"]
        self.assertEqual(self.client.delete_context(context), {"deleted": context})
        self.assertEqual(self.client.contexts(), [])

    def test_parameters(self):
        pulled = self.client.parameters("line", dtype="F64")
        self.assertEqual(pulled["version"], 1)
        self.assertEqual(lists(pulled["parameters"]["0.weight"]), [[1.0, 2.0]])
        answer = self.client.set_parameters("line", {"0.bias": [3]}, partial=True)
        self.assertEqual(answer["applied_version"], 2)
        self.assertEqual(lists(self.client.parameters("line")["parameters"]["0.bias"]), [3.0])
        answer = self.client.set_parameters("line", pulled["parameters"])
        self.assertEqual(lists(self.client.parameters("line")["parameters"]["0.bias"]), [0.0])
        problem = self.refused(422, "invalid-value", self.client.set_parameters, "line", {"0.bias": [3]})
        self.assertEqual(problem.pointer, "/parameters/0.weight")

    def test_the_optimizers_state(self):
        self.client.patch("line", {"optimizer": {"momentum": 0.5}})
        self.client.backward("line", {"x": [[1, 2]]}, targets={"y": [[4]]}, apply=True)
        kept = self.client.optimizer("line")
        self.assertEqual((kept["op"], kept["steps"]), ("sgd", 1))
        self.assertEqual(lists(kept["state"]["momentum_buffer.0.weight"]), [[2.0, 4.0]])
        state = {"momentum_buffer.0.weight": [[0, 1]], "momentum_buffer.0.bias": [0]}
        self.assertEqual(self.client.set_optimizer("line", state, steps=9, op="sgd")["steps"], 9)
        self.assertEqual(
            lists(self.client.optimizer("line")["state"]["momentum_buffer.0.weight"]), [[0.0, 1.0]]
        )

    def test_integers_and_all_types_of_answers(self):
        spec = {
            "inputs": {"ids": {"shape": [2], "dtype": "I64"}},
            "layers": [{"op": "embedding", "num_embeddings": 3, "embedding_dim": 2}],
            "seed": 1,
        }
        parameters = {"0.weight": [[0, 1], [2, 3], [4, 5]]}
        for dtype in ("F64", "F32", "F16", "BF16"):
            with self.subTest(dtype=dtype):
                answer = self.client.forward(spec, {"ids": [[2, 0]]}, parameters=parameters, dtype=dtype)
                self.assertEqual(lists(answer["outputs"]["0"]), [[[4.0, 5.0], [0.0, 1.0]]])

    def test_a_problem(self):
        problem = self.refused(422, "shape-mismatch", self.client.forward, "line", {"x": [[1, 2, 3]]})
        self.assertEqual(problem.pointer, "/inputs/x")
        self.assertEqual((problem.expected, problem.actual), ([None, 2], [1, 3]))
        self.assertIn("expected [null, 2], actual [1, 3]", str(problem))

    def test_the_service(self):
        self.assertIn("linear", [op["op"] for op in self.client.ops()["operators"]])
        self.assertEqual(self.client.health()["status"], "ok")
        self.assertEqual(self.client.ready()["status"], "ready")

    def test_a_token(self):
        with Daemon(token="secret") as daemon:
            with gradd.Client(daemon.url, "secret") as client:
                self.assertEqual(client.models(), [])
            with gradd.Client(daemon.url) as client:
                self.refused(401, "unauthorized", client.models)
                self.assertEqual(client.health()["status"], "ok")

    def test_a_unix_socket(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "socket"
            with Daemon(listen=f"unix:{path}"), gradd.Client(f"unix:{path}") as client:
                client.create(LINE)
                self.assertEqual(client.describe("line")["version"], 0)

    def test_a_body_beyond_the_limit(self):
        with Daemon("--max-body", "4K") as daemon, gradd.Client(daemon.url) as client:
            client.create(LINE)
            self.refused(413, "too-large", client.forward, "line", {"x": [[1.0, 2.0]] * 1000})
            self.refused(413, "too-large", client.forward, "line", {"x": [[1.0, 2.0]] * 200000})
            self.assertEqual(client.forward("line", {"x": [[1, 2]]})["version"], 0)

    def test_addresses(self):
        for wrong in ("", "localhost:8080", "http://", "unix:", "http://h:1/?q"):
            with self.subTest(url=wrong), self.assertRaises(ValueError):
                gradd.Client(wrong)


class Files(unittest.TestCase):
    TENSORS = {"a": [[1.5, 2.0], [3.0, 4.0]], "b": [True, False], "c": [1, 2, 3], "d": 7.0}

    def test_there_and_back(self):
        data = gradd.pack(self.TENSORS, {"epoch": "3"})
        tensors, metadata = gradd.unpack(data)
        self.assertEqual({name: lists(value) for name, value in tensors.items()}, self.TENSORS)
        self.assertEqual(metadata, {"epoch": "3"})
        self.assertEqual((8 + struct.unpack_from("<Q", data)[0]) % 8, 0)

    def test_empty_ones(self):
        for values in ([], [[], []]):
            self.assertEqual(lists(gradd.unpack(gradd.pack({"a": values}))[0]["a"]), values)
        self.assertEqual(gradd.unpack(gradd.pack({})), ({}, {}))

    def test_every_type(self):
        for dtype, code, values in (
            ("F64", "d", [0.1, -2.5]),
            ("F32", "f", [0.5, -2.5]),
            ("F16", "e", [0.5, -2.5]),
            ("I64", "q", [1 << 40, -1]),
            ("I32", "i", [1 << 20, -1]),
            ("U8", "B", [0, 255]),
            ("BOOL", "?", [True, False]),
        ):
            with self.subTest(dtype=dtype):
                tensor = gradd.Tensor(dtype, (2,), struct.pack(f"<2{code}", *values))
                self.assertEqual(lists(gradd.unpack(gradd.pack({"a": tensor}))[0]["a"]), values)

    def test_bfloat16_is_rounded_to_nearest_even(self):
        one = 1 + 2**-7
        cases = {
            1.0: 1.0,
            1 + 2**-8: 1.0,
            one: one,
            one + 2**-8: 1 + 2**-6,
            1 + 2**-8 + 2**-20: one,
            -3.0: -3.0,
        }
        for value, rounded in cases.items():
            with self.subTest(value=value):
                data = gradd.pack({"a": gradd.bfloat16([value])})
                self.assertEqual(lists(gradd.unpack(data)[0]["a"]), [rounded])
        special = lists(
            gradd.unpack(gradd.pack({"a": gradd.bfloat16([float("nan"), -float("inf"), 3.4e38])}))[0]["a"]
        )
        self.assertNotEqual(special[0], special[0])
        self.assertEqual(special[1:], [-float("inf"), float("inf")])

    def test_what_is_no_file(self):
        good = gradd.pack(self.TENSORS)
        header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9]}}'
        wrong = [b"", b"1234567", good[:20], good[:-1], struct.pack("<Q", len(header)) + header + bytes(9)]
        for data in [*wrong, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 1 << 60) + b"{}"]:
            with self.subTest(data=data), self.assertRaises(ValueError):
                gradd.unpack(data)
