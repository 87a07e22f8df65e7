"""Remote modules that are copied, pickled, saved and loaded; and tensors of PyTorch that the client is given."""

import copy
import io
import pathlib
import pickle
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

import torch  # noqa: E402
from support import Daemon, main  # noqa: E402

import gradd.torch  # noqa: E402

BODY = {
    "name": "body",
    "seed": 1,
    "inputs": {"h": {"shape": [6]}},
    "layers": [{"op": "linear", "out_features": 4}],
    "loss": {"op": "mse"},
    "optimizer": {"op": "sgd", "lr": 0.1},
}


class Case(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.stop)
        self.client = gradd.Client(self.daemon.url, retries=0)
        self.addCleanup(self.client.close)
        self.client.create(BODY)


class Copies(Case):
    def train(self, module):
        module(torch.ones(2, 6)).sum().backward()

    def test_each_kind_of_copy_is_the_same_remote_model(self):
        remote = gradd.torch.RemoteModule(self.client, "body", apply=True)
        pending = remote(torch.ones(2, 6))  # its tape is the original's to let go
        saved = io.BytesIO()
        torch.save(torch.nn.Sequential(torch.nn.Linear(6, 6), remote), saved)
        saved.seek(0)
        copies = [copy.deepcopy(remote), copy.copy(remote), pickle.loads(pickle.dumps(remote))]
        copies.append(torch.load(saved, weights_only=False))
        for number, module in enumerate(copies, 1):
            self.train(module)
            self.assertEqual(self.client.describe("body")["version"], number)
        del copies, module
        pending.sum().backward()
        self.assertEqual(self.client.describe("body")["version"], 5)

    def test_a_copy_lets_go_of_no_tape_of_the_original(self):
        remote = gradd.torch.RemoteModule(self.client, "body", apply=True)
        remote(torch.ones(2, 6))  # dropped at once: the tape waits for the next call
        twin = copy.deepcopy(remote)
        self.assertEqual((len(remote._dropped), len(twin._dropped)), (1, 0))

    def test_a_state_dict_tells_where_the_weights_are(self):
        remote = gradd.torch.RemoteModule(self.client, "body", apply=True)
        self.train(remote)
        incarnation = self.client.describe("body")["incarnation"]
        model = torch.nn.Sequential(torch.nn.Linear(6, 6), remote)
        state = model.state_dict()
        place = {"service": self.daemon.url, "model": "body", "incarnation": incarnation, "version": 1}
        self.assertEqual(state["1._extra_state"], place)
        saved = io.BytesIO()
        torch.save(state, saved)
        saved.seek(0)
        model.load_state_dict(torch.load(saved, weights_only=True))
        self.client.create({**BODY, "name": "other"})
        other = torch.nn.Sequential(torch.nn.Linear(6, 6), gradd.torch.RemoteModule(self.client, "other"))
        with self.assertRaisesRegex(RuntimeError, "'body'.*'other'"):
            other.load_state_dict(state)


class Tensors(Case):
    def test_bfloat16_is_sent_as_it_is(self):
        values = torch.tensor([[1.5, -2.25, 3.0, 0.0, 1e30, 7.0]]).to(torch.bfloat16)
        answer = self.client.forward("body", {"h": values}, outputs=["h"])
        self.assertEqual(answer["outputs"]["h"].tolist(), values.to(torch.float32).tolist())
        strided = torch.arange(12.0).reshape(6, 2).to(torch.bfloat16).T
        answer = self.client.forward("body", {"h": strided}, outputs=["h"])
        self.assertEqual(answer["outputs"]["h"].tolist(), strided.tolist())
        self.assertEqual(gradd.unpack(gradd.pack({"a": strided}))[0]["a"].tolist(), strided.tolist())

    def test_one_that_requires_grad_is_refused_by_name(self):
        wanted = torch.ones(1, 6, requires_grad=True)
        with self.assertRaisesRegex(TypeError, r"^inputs\['h'\]: .*requires grad.*RemoteModule"):
            self.client.forward("body", {"h": wanted})
        target = torch.ones(1, 4, dtype=torch.bfloat16, requires_grad=True)
        with self.assertRaisesRegex(TypeError, r"^targets\['y'\]: "):
            self.client.backward("body", {"h": torch.ones(1, 6)}, targets={"y": target})
        with self.assertRaisesRegex(TypeError, r"^inputs\['h'\]: .*complex64"):
            self.client.forward("body", {"h": torch.ones(1, 6, dtype=torch.complex64)})
        self.client.forward("body", {"h": wanted.detach()})


if __name__ == "__main__":
    main()
