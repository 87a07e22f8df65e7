"""The Python client when requests and answers are lost, and when the service asks it to wait."""

import unittest
from unittest import mock

from support import LINE, Daemon, main
from support.proxy import CUT_ANSWER, LOSE_ANSWER, LOSE_REQUEST, SERVE_TWICE, Proxy, Refuse

import gradd

INPUTS, TARGETS = {"x": [[1, 2]]}, {"y": [[4]]}


class Retries(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()
        cls.addClassCleanup(cls.daemon.stop)
        cls.proxy = Proxy(cls.daemon.url)
        cls.addClassCleanup(cls.proxy.stop)

    def setUp(self):
        self.waits = []
        patch = mock.patch("gradd._requests.time.sleep", self.waits.append)  # so that no test takes a client's patience
        patch.start()
        self.addCleanup(patch.stop)
        self.client = gradd.Client(self.proxy.url, retries=3, backoff=0.1, max_wait=5.0)
        self.addCleanup(self.client.close)
        self.proxy.reset()
        for model in self.client.models():
            self.client.delete(model["name"])
        self.client.create(LINE)
        self.proxy.reset()

    def keys(self):
        return [headers.get("Idempotency-Key") for _, _, headers, _ in self.proxy.seen]

    def version(self):
        with gradd.Client(self.daemon.url) as client:
            return client.describe("line")["version"]

    def refused(self, slug, call, *args, **named):
        with self.assertRaises(gradd.GraddError) as caught:
            call(*args, **named)
        self.assertEqual(caught.exception.slug, slug)
        return caught.exception

    def apply(self, **named):
        return self.client.backward("line", INPUTS, targets=TARGETS, apply=True, **named)

    def test_a_change_has_a_key_of_its_own(self):
        for _ in range(2):
            self.apply()
        self.client.forward("line", INPUTS)
        self.client.backward("line", INPUTS, targets=TARGETS)
        first, second, *others = self.keys()
        self.assertTrue(first and second and first != second)
        self.assertEqual(others, [None, None])

    def test_lost_before_the_service_heard_of_it(self):
        self.proxy.reset(LOSE_REQUEST, LOSE_REQUEST)
        answer = self.apply()
        self.assertEqual(answer["applied_version"], 1)
        self.assertNotIn("replayed", answer)
        self.assertEqual(len(self.proxy.seen), 3)
        self.assertEqual(len(set(self.keys())), 1)
        self.assertEqual(len({body for _, _, _, body in self.proxy.seen}), 1)

    def test_lost_after_the_service_did_it(self):
        for fault in (LOSE_ANSWER, CUT_ANSWER):
            with self.subTest(fault=fault):
                before = self.version()
                self.proxy.reset(fault, fault)
                answer = self.apply()
                self.assertIs(answer["replayed"], True)
                self.assertEqual(answer["applied_version"], before + 1)
                self.assertEqual(self.version(), before + 1)
                self.assertEqual(len(self.proxy.seen), 3)

    def test_every_change_has_one_effect_however_often_its_answer_is_lost(self):
        client, model = self.client, "line"
        gradient = {"0.weight": [[1, 1]]}
        incarnation = client.describe(model)["incarnation"]
        client.create({**LINE, "name": "other"})
        context = client.forward(model, INPUTS, retain=True)["context"]
        changes = [  # and by how many the version goes up
            (0, lambda: client.create({**LINE, "name": "third"})),
            (0, lambda: client.patch(model, {"optimizer": {"momentum": 0.5}})),
            (1, lambda: client.set_parameters(model, {"0.bias": [1]}, partial=True)),
            (1, lambda: client.blend(model, "other", 0.5)),
            (1, lambda: client.push(model, gradient, incarnation=incarnation, version=0)),
            (0, lambda: client.push(model, gradient, incarnation=incarnation, version=0, accumulate=True)),
            (0, lambda: client.backward(model, INPUTS, targets=TARGETS, accumulate=True)),
            (1, lambda: client.step(model)),
            (0, lambda: client.push(model, gradient, incarnation=incarnation, version=0, accumulate=True)),
            (0, lambda: client.clear_gradients(model)),
            (0, lambda: client.set_optimizer(model, client.optimizer(model)["state"], steps=5)),
            (0, lambda: client.delete_context(context)),
            (0, lambda: client.delete("third")),
        ]
        accumulated = []
        for number, (more, change) in enumerate(changes):
            with self.subTest(change=number):
                before = self.version()
                faults = [LOSE_ANSWER, LOSE_ANSWER]
                self.proxy.reset(*([None] if number == 10 else []), *faults)  # its first request is a pull
                self.assertIs(change()["replayed"], True)
                self.assertEqual(self.version(), before + more)
            accumulated.append(client.describe(model)["accumulated"])
        self.assertEqual(accumulated, [0, 0, 0, 0, 0, 1, 2, 0, 1, 0, 0, 0, 0])
        self.assertEqual(client.optimizer(model)["steps"], 5)
        self.assertEqual([m["name"] for m in client.models()], ["line", "other"])

    def test_a_replay_repeats_the_scalars(self):
        answer = self.apply(returns=["inputs"], key="mine")
        again = self.apply(returns=["inputs"], key="mine")
        self.assertEqual(again.pop("replayed"), True)
        del answer["input_gradients"]
        self.assertEqual(again, answer)
        self.refused("key-reused", self.client.step, "line", key="mine")

    def test_served_twice_it_has_one_effect(self):
        for _ in range(3):
            self.proxy.reset(SERVE_TWICE)
            self.apply()
        self.assertEqual(self.version(), 3)

    def test_waits_as_long_as_it_is_asked_to(self):
        passing = [
            Refuse(503, "busy", "2"),
            Refuse(429, "too-many-requests", "3"),
            Refuse(409, "in-flight", "1"),
        ]
        self.proxy.reset(*passing)
        self.assertEqual(self.apply()["applied_version"], 1)
        self.assertEqual(len(set(self.keys())), 1)
        self.assertEqual(len(self.waits), 3)
        for wait, asked in zip(self.waits, (2, 3, 1)):
            self.assertTrue(asked <= wait <= 5)

    def test_the_wait_grows_and_is_bounded(self):
        client = gradd.Client(self.proxy.url, retries=9, backoff=1.0, max_wait=5.0)
        self.addCleanup(client.close)
        self.proxy.reset(*[Refuse(503)] * 9)
        with mock.patch("gradd._requests.random.uniform", lambda low, high: high):
            client.models()
        self.assertEqual(self.waits, [1, 2, 4, 5, 5, 5, 5, 5, 5])

    def test_a_wait_that_is_too_long_is_the_callers_to_take(self):
        self.proxy.reset(Refuse(503, "busy", "3600"))
        self.assertEqual(self.refused("busy", self.client.models).attempts, 1)
        self.assertEqual(self.waits, [])

    def test_a_date_to_wait_for(self):
        self.proxy.reset(Refuse(503, "busy", "Fri, 01 Jan 2021 00:00:00 GMT"), Refuse(503, "busy", "soon"))
        self.client.models()
        self.proxy.reset(Refuse(503, "busy", "Fri, 01 Jan 2100 00:00:00 GMT"))
        self.refused("busy", self.client.models)

    def test_gives_up(self):
        self.proxy.reset(*[Refuse(503)] * 4)
        problem = self.refused("busy", self.client.models)
        self.assertEqual((problem.status, problem.attempts), (503, 4))
        self.proxy.reset(*[LOSE_REQUEST] * 4)
        with self.assertRaises(ConnectionError):
            self.client.models()
        self.assertEqual(len(self.proxy.seen), 4)

    def test_other_errors_are_not_repeated(self):
        for fault in (
            Refuse(500, "internal"),
            Refuse(409, "in-use"),
            Refuse(412, "stale"),
            Refuse(301, "moved"),
        ):
            self.proxy.reset(fault)
            self.assertEqual(self.refused(fault.slug, self.apply).attempts, 1)

    def test_an_answer_that_is_no_problem_document(self):
        with mock.patch("json.dumps", lambda document: "<html>"):
            self.proxy.reset(Refuse(502))
            problem = self.refused("", self.client.models)
        self.assertEqual((problem.status, problem.detail), (502, "<html>"))

    def test_nobody_listens(self):
        with self.assertRaises(ConnectionError):
            gradd.Client("http://127.0.0.1:1", retries=1).models()
        with self.assertRaises(ConnectionError):
            gradd.Client("unix:/nowhere", retries=1).models()

    def test_silence_is_a_lost_answer(self):
        real = self.proxy.server.RequestHandlerClass.pass_on
        silent = [True]

        def once(handler, body):
            if silent and silent.pop():
                handler.close_connection = True
                handler.connection.settimeout(20)
                handler.rfile.read(1)  # until the client has hung up
            return real(handler, body)

        with mock.patch.object(self.proxy.server.RequestHandlerClass, "pass_on", once):
            client = gradd.Client(self.proxy.url, timeout=0.2, retries=2)
            self.addCleanup(client.close)
            self.assertEqual(len(client.models()), 1)
        self.assertEqual(len(self.proxy.seen), 2)

    def test_connections_that_the_service_closed_meanwhile(self):
        with Daemon("--idle-timeout", "1") as daemon, gradd.Client(daemon.url, retries=0) as client:
            client.models()
            connection = client._pool._idle[0]
            connection.sock.settimeout(60)
            self.assertEqual(connection.sock.recv(1), b"")  # until the daemon has hung up
            self.assertEqual(client.models(), [])


if __name__ == "__main__":
    main()
