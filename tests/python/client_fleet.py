"""Many workers and one model, through the Python client: pulls, pushes, conditions, rounds, threads."""

import multiprocessing
import threading
import unittest.mock

import numpy
from support import LINE, main
from support.client import ClientCase

import gradd

INPUTS, TARGETS = {"x": [[1, 2], [3, 4]]}, {"y": [[4], [12]]}


def sync(workers, **settings):
    return {**LINE, "aggregation": {"mode": "sync", "workers": workers, "timeout_ms": 30000, **settings}}


def models_of_a_forked_worker(client, queue):
    queue.put([model["name"] for model in client.models()])


class Fleet(ClientCase):
    def weight(self, model="line"):
        return self.client.parameters(model)["parameters"]["0.weight"].tolist()

    def run_all(self, calls):
        """Each in a thread of its own; their answers, or what they raised."""
        answers = [None] * len(calls)

        def run(i):
            try:
                answers[i] = calls[i]()
            except Exception as problem:
                answers[i] = problem

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def test_a_pull_of_a_known_version_carries_no_tensors(self):
        statuses, real = [], self.client._pool.exchange

        def exchange(*request):
            reply = real(*request)
            statuses.append((reply.status, len(reply.data) > 0))
            return reply

        with unittest.mock.patch.object(self.client._pool, "exchange", exchange):
            first = self.client.parameters("line")
            first["parameters"]["0.weight"][:] = 9  # the caller's own
            again = self.client.parameters("line")
            self.assertEqual(again["parameters"]["0.weight"].tolist(), [[1.0, 2.0]])
            self.assertEqual((again["version"], again["incarnation"]), (1, first["incarnation"]))
            self.client.parameters("line", dtype="F16")
            self.client.parameters("line", ["0.bias"])
            self.assertEqual(list(self.client.parameters("line", ["0.bias"])["parameters"]), ["0.bias"])
        self.assertEqual(statuses, [(200, True), (304, False), (200, True), (200, True), (304, False)])
        self.client.set_parameters("line", {"0.weight": [[5, 6]]}, partial=True)
        self.assertEqual(self.weight(), [[5.0, 6.0]])
        self.client.delete("line")
        self.refused(404, "not-found", self.client.parameters, "line")

    def test_the_cache_is_bounded(self):
        with gradd.Client(self.daemon.url, cached_pulls=2) as client:
            for dtype in ("F64", "F32", "F16", "BF16"):
                client.parameters("line", dtype=dtype)
            self.assertEqual(len(client._pulls), 2)
        with gradd.Client(self.daemon.url, cached_pulls=0) as client:
            client.parameters("line")
            self.assertEqual(len(client._pulls), 0)

    def test_push(self):
        pulled = self.client.parameters("line")
        told = {"incarnation": pulled["incarnation"], "version": pulled["version"]}
        gradient = {"0.weight": numpy.array([[2, 4]], "f4")}
        answer = self.client.push("line", gradient, samples=2, worker="w1", **told)
        self.assertEqual((answer["version"], answer["applied_version"], answer["staleness"]), (1, 2, 0))
        self.assertEqual(self.weight(), [[0.0, 0.0]])
        for wire in ("F64", "F32", "F16", "BF16"):
            answer = self.client.push("line", gradient, wire=wire, apply={"lr": -0.25 + 0.5}, **told)
        self.assertEqual(answer["staleness"], 4)
        self.assertEqual(self.weight(), [[-2.0, -4.0]])
        self.refused(412, "stale", self.client.push, "line", gradient, max_staleness=3, **told)
        told["incarnation"] = "elsewhere"
        self.refused(412, "stale", self.client.push, "line", gradient, **told)

    def test_statistics_go_with_the_gradient(self):
        layers = [{"op": "batch_norm", "name": "bn", "momentum": None}]
        self.client.create({"name": "norm", "inputs": {"x": {"shape": [1]}}, "layers": layers,
                            "optimizer": {"op": "sgd", "lr": 1}})
        computed = self.client.backward("norm", {"x": [[1], [3]]}, upstream={"bn": [[0], [0]]})
        self.assertEqual(computed["buffers"]["bn.num_batches_tracked"].dtype, numpy.int64)
        told = {name: computed[name] for name in ("incarnation", "version", "samples")}
        self.client.push("norm", computed["gradients"], buffers=computed["buffers"], **told)
        pulled = self.client.parameters("norm")["parameters"]
        self.assertEqual(pulled["bn.running_var"].tolist(), [2.0])
        self.assertEqual(pulled["bn.num_batches_tracked"].shape, ())
        self.client.set_parameters("norm", pulled)
        self.assertEqual(self.client.parameters("norm")["parameters"]["bn.num_batches_tracked"].tolist(), 1)

    def test_a_gradient_sent_back_is_a_step(self):
        computed = self.client.backward("line", INPUTS, targets=TARGETS)
        told = {name: computed[name] for name in ("incarnation", "version", "samples")}
        self.client.push("line", computed["gradients"], **told)
        self.client.create({**LINE, "name": "same"})
        self.client.set_parameters("same", {"0.weight": [[1, 2]], "0.bias": [0]})
        self.client.backward("same", INPUTS, targets=TARGETS, apply=True)
        self.assertEqual(self.weight(), self.weight("same"))

    def test_the_buffer(self):
        self.refused(409, "nothing-accumulated", self.client.gradients, "line")
        told = {"incarnation": self.client.describe("line")["incarnation"], "version": 1}
        self.client.push("line", {"0.bias": [3]}, accumulate={"scale": 2}, **told)
        answer = self.client.push("line", {"0.weight": [[1, 1]]}, accumulate=True, **told)
        self.assertEqual(answer["accumulated"], {"contributions": 2, "scale": 3.0})
        held = self.client.gradients("line", dtype="F64")
        self.assertEqual((held["contributions"], held["scale"], held["oldest_version"]), (2, 3.0, 1))
        self.assertEqual(held["gradients"]["0.bias"].tolist(), [6.0])
        self.assertEqual(held["gradients"]["0.bias"].dtype, numpy.float64)
        self.assertEqual(self.client.clear_gradients("line")["cleared"], 2)
        self.refused(409, "nothing-accumulated", self.client.gradients, "line")

    def test_an_optimizers_state_comes_back(self):
        told = {"incarnation": self.client.describe("line")["incarnation"], "version": 1}
        self.client.patch("line", {"optimizer": {"momentum": 0.5, "dampening": 0.5}})
        self.client.push("line", {"0.bias": [3]}, **told)
        kept = self.client.optimizer("line")
        self.assertEqual(kept["steps"], {"0.weight": 0, "0.bias": 1})
        self.assertEqual(kept["fresh"], ["momentum_buffer.0.weight"])
        self.client.set_optimizer("line", kept["state"], steps=7)
        other = self.client.optimizer("line")
        self.assertEqual((other["steps"], "fresh" in other), (7, False))
        self.client.set_optimizer("line", kept["state"], steps=kept["steps"], fresh=kept["fresh"])
        again = self.client.optimizer("line")
        self.assertEqual((again["steps"], again["fresh"]), (kept["steps"], kept["fresh"]))
        self.assertEqual(again["state"]["momentum_buffer.0.bias"].tolist(), [3.0])

    def test_blend(self):
        self.client.create({**LINE, "name": "target"})
        self.client.set_parameters("target", {"0.weight": [[3, 6]], "0.bias": [0]})
        answer = self.client.blend("target", "line", 0.5)
        self.assertEqual((answer["from_version"], answer["applied_version"]), (1, 2))
        self.assertEqual(self.weight("target"), [[2.0, 4.0]])

    def test_if_match(self):
        pulled = self.client.parameters("line")
        set_bias = {"0.bias": [1]}
        made = self.client.set_parameters("line", set_bias, partial=True, if_match=pulled)
        self.assertEqual(made["applied_version"], 2)
        for stale in (pulled, gradd.etag(pulled)):
            self.refused(
                412, "stale", self.client.set_parameters, "line", set_bias, partial=True, if_match=stale
            )
        self.refused(412, "stale", self.client.delete, "line", if_match=pulled)
        self.client.patch("line", {"max_staleness": 3}, if_match=made)
        self.assertEqual(self.client.delete("line", if_match="*")["deleted"], "line")

    def test_max_staleness(self):
        kept = self.client.forward("line", INPUTS, retain=True)
        for _ in range(2):
            self.client.set_parameters("line", {"0.bias": [1]}, partial=True)
        late = {"context": kept["context"], "targets": TARGETS, "apply": True, "retain": True}
        self.refused(412, "stale", self.client.backward, **late, max_staleness=1)
        self.assertEqual(self.client.backward(**late, max_staleness=2)["applied_version"], 4)

    def test_a_round(self):
        self.client.create({**sync(2), "name": "round"})
        self.client.set_parameters("round", {"0.weight": [[1, 2]], "0.bias": [0]})
        halves = [({"x": [[1, 2]]}, {"y": [[4]]}, "a"), ({"x": [[3, 4]]}, {"y": [[12]]}, "b")]
        answers = self.run_all(
            [
                lambda x=x, y=y, w=w: self.client.backward("round", x, targets=y, worker=w, apply=True)
                for x, y, w in halves
            ]
        )
        for answer in answers:
            self.assertEqual(answer["applied_version"], 2)
            self.assertEqual(answer["round"], {"contributions": 2, "samples": 2})
        self.client.backward("line", INPUTS, targets=TARGETS, apply=True)
        self.assertEqual(self.weight("round"), self.weight())
        self.refused(409, "not-in-a-round", self.client.step, "round")

    def test_a_round_without_its_quorum(self):
        self.client.create({**sync(2, timeout_ms=100), "name": "round"})
        call = {"targets": TARGETS, "apply": True, "worker": "a"}
        self.refused(409, "round-failed", self.client.backward, "round", INPUTS, **call)
        self.assertEqual(self.client.describe("round")["version"], 0)

    def test_threads_share_a_client(self):
        def work(worker):
            for i in range(25):
                pulled = self.client.parameters("line")
                told = {"incarnation": pulled["incarnation"], "version": pulled["version"]}
                self.client.push("line", {"0.bias": [0]}, worker=worker, **told)
                x = float(len(worker) + i)
                answer = self.client.forward("line", {"x": [[x, 0]]})
                if answer["outputs"]["0"].tolist() != [[x]]:
                    return f"another's answer: {answer}"
            return "done"

        workers = [lambda name="w" * (i + 1): work(name) for i in range(8)]
        self.assertEqual(self.run_all(workers), ["done"] * 8)
        self.assertEqual(self.client.describe("line")["version"], 201)
        self.assertLessEqual(len(self.client._pool._idle), 9)

    def test_a_forked_worker_leaves_its_parents_connections_alone(self):
        fork = multiprocessing.get_context("fork")
        queue = fork.Queue()
        self.client.models()
        held = self.client._pool._idle[-1]
        workers = [
            fork.Process(target=models_of_a_forked_worker, args=(self.client, queue)) for _ in range(4)
        ]
        for worker in workers:
            worker.start()
        self.assertEqual([queue.get(timeout=60) for _ in workers], [["line"]] * 4)
        for worker in workers:
            worker.join()
            self.assertEqual(worker.exitcode, 0)
        self.assertIs(self.client._pool._idle[-1], held)
        self.assertEqual(len(self.client.models()), 1)


if __name__ == "__main__":
    main()
