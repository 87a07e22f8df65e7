"""A model of the service as a layer of a PyTorch model: it must be as if it were a local one."""

import gc
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

import torch  # noqa: E402
from support import Daemon, main  # noqa: E402
from support.proxy import LOSE_ANSWER, Proxy  # noqa: E402

import gradd.torch  # noqa: E402

BODY = {
    "name": "body",
    "seed": 1,
    "inputs": {"h": {"shape": [6]}},
    "layers": [{"op": "linear", "out_features": 5}, {"op": "tanh"}, {"op": "linear", "out_features": 4}],
    "optimizer": {"op": "sgd", "lr": 0.1, "momentum": 0.9},
}


def local_twin(client, model="body"):
    twin = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4))
    pulled = client.parameters(model)["parameters"]
    twin.load_state_dict({name: torch.from_numpy(value) for name, value in pulled.items()})
    return twin


class RemoteModule(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()
        cls.addClassCleanup(cls.daemon.stop)
        cls.client = gradd.Client(cls.daemon.url, retries=0)
        cls.addClassCleanup(cls.client.close)

    def setUp(self):
        gc.collect()
        for model in self.client.models():
            self.client.delete(model["name"])
        self.client.create(BODY)
        torch.manual_seed(7)

    def assert_close(self, actual, expected, tolerance=1e-5):
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)

    def test_forward_and_the_gradient_of_what_was_sent(self):
        remote, twin = gradd.torch.RemoteModule(self.client, "body"), local_twin(self.client)
        x = torch.randn(8, 6, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        weights = torch.randn(8, 4)
        (remote(x) * weights).sum().backward()
        (twin(y) * weights).sum().backward()
        self.assert_close(remote(x), twin(y))
        self.assert_close(x.grad, y.grad)
        self.assertEqual(self.client.describe("body")["version"], 0)

    def test_split_training_is_undivided_training(self):
        remote = gradd.torch.RemoteModule(self.client, "body", apply=True)
        stem, head = torch.nn.Linear(3, 6), torch.nn.Linear(4, 2)
        twin = local_twin(self.client)
        whole = torch.nn.Sequential(torch.nn.Linear(3, 6), twin, torch.nn.Linear(4, 2))
        whole[0].load_state_dict(stem.state_dict())
        whole[2].load_state_dict(head.state_dict())
        split = torch.nn.Sequential(stem, remote, head)
        batches = [(torch.randn(16, 3), torch.randint(2, (16,))) for _ in range(100)]
        for model in (split, whole):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            for x, y in batches:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        pulled = self.client.parameters("body")
        self.assertEqual(pulled["version"], 100)
        for name, value in twin.state_dict().items():
            self.assert_close(torch.from_numpy(pulled["parameters"][name]), value, 1e-4)
        self.assert_close(stem.weight, whole[0].weight, 1e-4)
        self.assert_close(head.weight, whole[2].weight, 1e-4)

    def test_dropout_is_replayed_by_its_seed(self):
        layers = [{"op": "dropout", "p": 0.5, "name": "drop"}, *BODY["layers"]]
        layers[1]["name"], layers[2]["name"], layers[3]["name"] = "0", "1", "2"
        self.client.create({**BODY, "name": "dropped", "layers": layers})
        remote, twin = gradd.torch.RemoteModule(self.client, "dropped"), local_twin(self.client, "dropped")
        x = torch.randn(8, 6, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        output = remote(x)
        output.sum().backward()
        seed = remote.last_forward["seed"]
        ones = {"h": torch.ones(8, 6).numpy()}
        replay = self.client.forward("dropped", ones, mode="train", seed=seed, outputs=["drop"])
        mask = torch.from_numpy(replay["outputs"]["drop"])
        self.assertEqual(set(mask.flatten().tolist()), {0.0, 2.0})
        expected = twin(y * mask)
        expected.sum().backward()
        self.assert_close(output, expected)
        self.assert_close(x.grad, y.grad)
        torch.manual_seed(1)
        first = remote(x.detach())
        torch.manual_seed(1)
        self.assertTrue(torch.equal(first, remote(x.detach())))
        self.assertFalse(torch.equal(first, remote(x.detach())))
        remote.eval()
        self.assert_close(remote(x), twin(x))

    def test_it_may_be_the_first_layer(self):
        remote = gradd.torch.RemoteModule(self.client, "body", apply={"lr": 0.5})
        before = local_twin(self.client)
        x = torch.randn(4, 6)
        remote(x).sum().backward()
        before(x).sum().backward()
        self.assertEqual(remote.last_backward["applied_version"], 1)
        after = self.client.parameters("body")["parameters"]["2.bias"]
        self.assert_close(torch.from_numpy(after), before[2].bias - 0.5 * before[2].bias.grad)

    def test_accumulate(self):
        remote = gradd.torch.RemoteModule(self.client, "body", accumulate={"scale": 2})
        for _ in range(3):
            remote(torch.randn(4, 6)).sum().backward()
        self.assertEqual(remote.last_backward["accumulated"], {"contributions": 3, "scale": 6.0})
        self.assertEqual(self.client.step("body", mean=True)["contributions"], 3)

    def test_tapes_are_let_go(self):
        remote = gradd.torch.RemoteModule(self.client, "body", apply=True)
        with torch.no_grad():
            remote(torch.randn(4, 6))
        self.assertEqual(self.client.contexts(), [])
        output = remote(torch.randn(4, 6))
        self.assertEqual(len(self.client.contexts()), 1)
        output.sum().backward(retain_graph=True)
        self.assertEqual(self.client.contexts(), [])
        with self.assertRaisesRegex(RuntimeError, "retain_graph=True"):
            output.sum().backward()
        output = remote(torch.randn(4, 6))
        del output  # never went backward
        gc.collect()
        remote.release()
        self.assertEqual(self.client.contexts(), [])
        output = remote(torch.randn(4, 6))
        self.client.delete_context(self.client.contexts()[0]["context"])
        with self.assertRaises(gradd.GraddError):
            output.sum().backward()
        del output
        gc.collect()
        remote.release()

    def test_several_backwards_of_one_tape(self):
        remote = gradd.torch.RemoteModule(self.client, "body", retain_graph=True)
        x = torch.randn(4, 6, requires_grad=True)
        output = remote(x)
        output[:, 0].sum().backward(retain_graph=True)
        first = x.grad.clone()
        output[:, 0].sum().backward()
        self.assertTrue(torch.equal(x.grad, 2 * first))
        self.assertEqual(len(self.client.contexts()), 1)
        del output
        gc.collect()
        remote.release()
        self.assertEqual(self.client.contexts(), [])

    def test_inputs_and_outputs(self):
        self.client.create(
            {
                "name": "graph",
                "seed": 1,
                "inputs": {"ids": {"shape": [], "dtype": "I64"}, "b": {"shape": [2]}},
                "layers": [
                    {
                        "op": "embedding",
                        "num_embeddings": 3,
                        "embedding_dim": 2,
                        "inputs": ["ids"],
                        "name": "e",
                    },
                    {"op": "mul", "inputs": ["e", "b"], "name": "product"},
                    {"op": "tanh", "inputs": ["b"], "name": "other"},
                ],
                "outputs": ["product", "other"],
            }
        )
        table = torch.from_numpy(self.client.parameters("graph")["parameters"]["e.weight"])
        remote = gradd.torch.RemoteModule(self.client, "graph")
        ids, b = torch.tensor([2, 0]), torch.randn(2, 2, requires_grad=True)
        product, other = remote(ids, b)
        self.assert_close(product, table[ids] * b)
        self.assert_close(other, b.tanh())
        product.sum().backward()  # nothing comes back through the other
        self.assert_close(b.grad, table[ids])
        with self.assertRaises(TypeError):
            remote(ids)

    def test_types(self):
        remote = gradd.torch.RemoteModule(self.client, "body")
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            with self.subTest(dtype=dtype):
                x = torch.ones(2, 6, dtype=dtype, requires_grad=True)
                output = remote(x)
                self.assertEqual(output.dtype, dtype)
                output.sum().backward()
                self.assertEqual(x.grad.dtype, dtype)
                self.assert_close(output.float(), local_twin(self.client)(torch.ones(2, 6)), 1e-2)
        with self.assertRaises(TypeError):
            remote(torch.ones(2, 6, dtype=torch.complex64))

    def test_a_lost_answer_costs_neither_gradient_nor_update(self):
        proxy = Proxy(self.daemon.url)
        self.addCleanup(proxy.stop)
        client = gradd.Client(proxy.url, backoff=0.001)
        self.addCleanup(client.close)
        remote, twin = gradd.torch.RemoteModule(client, "body", apply=True), local_twin(client)
        x = torch.randn(4, 6, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        proxy.reset(LOSE_ANSWER, None, LOSE_ANSWER)  # of forward, none of its retry, of backward
        remote(x).sum().backward()
        twin(y).sum().backward()
        self.assertIs(remote.last_backward["replayed"], True)
        self.assertTrue(
            remote.last_backward["applied_version"] == self.client.describe("body")["version"] == 1
        )
        self.assert_close(x.grad, y.grad)


if __name__ == "__main__":
    main()
