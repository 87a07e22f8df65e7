"""The Python client and where things are: https, a store behind the service, copies and pickles of the client."""

import copy
import os
import pathlib
import pickle
import shutil
import subprocess
import tempfile
import unittest

from support import LINE, Daemon, main

import gradd  # isort: skip


def openssl(folder, *args):
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)


def certificate(folder, name, usage):
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(folder, "req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    (folder / f"{name}.ext").write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)


class Https(Folder):
    def setUp(self):
        super().setUp()
        root = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        openssl(self.folder, "req", *root, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
        certificate(self.folder, "server", "serverAuth")
        certificate(self.folder, "client", "clientAuth")

    def at(self, name):
        return str(self.folder / name)

    def test_with_a_ca_and_a_certificate(self):
        flags = ("--tls-cert", self.at("server.pem"), "--tls-key", self.at("server.key"))
        pair = (self.at("client.pem"), self.at("client.key"))
        both = self.folder / "both.pem"
        both.write_text("".join(pathlib.Path(name).read_text() for name in pair))
        with Daemon(*flags, "--tls-client-ca", self.at("ca.pem")) as daemon:
            for shown in (pair, str(both)):
                with gradd.Client(daemon.url, ca=self.at("ca.pem"), certificate=shown) as client:
                    client.create({**LINE, "name": "line-1"})
                    for _ in range(3):
                        answer = client.backward(
                            "line-1", {"x": [[1, 2]] * 9000}, targets={"y": [[1]] * 9000}, apply=True
                        )
                    self.assertEqual(answer["applied_version"], 3)
                    self.assertEqual(len(client._pool._idle), 1, "the connection is not kept")
                    client.delete("line-1")
            with gradd.Client(daemon.url, certificate=pair) as client, self.assertRaises(ConnectionError) as caught:
                client.ready()
            self.assertIn("in 1 attempt", str(caught.exception), "a certificate is no better the next time")
            self.assertIn(daemon.url, str(caught.exception))
            with gradd.Client(daemon.url, ca=self.at("ca.pem")) as client, self.assertRaises(gradd.GraddError) as no:
                client.models()
            self.assertEqual(no.exception.status, 403)

    def test_files_that_are_none(self):
        with self.assertRaisesRegex(ValueError, "^ca='nowhere.pem'"):
            gradd.Client("https://127.0.0.1", ca="nowhere.pem")
        with self.assertRaisesRegex(ValueError, "^certificate="):
            gradd.Client("https://127.0.0.1", certificate=("nowhere.pem", "nowhere.key"))
        for named in ({"ca": self.at("ca.pem")}, {"certificate": self.at("client.pem")}):
            with self.subTest(named=named), self.assertRaisesRegex(ValueError, "https"):
                gradd.Client("http://127.0.0.1", **named)


class Stored(Folder):
    def test_wait_and_restore(self):
        with Daemon("--data", str(self.folder / "data")) as daemon, gradd.Client(daemon.url) as client:
            client.create({**LINE, "durability": "journal"})
            batch = {"inputs": {"x": [[1, 2]]}, "targets": {"y": [[1]]}}
            self.assertEqual(client.backward("line", **batch, apply=True, wait="durable")["durable_version"], 1)
            client.backward("line", **batch, accumulate=True)
            self.assertEqual(client.step("line", wait="durable")["durable_version"], 2)
            pulled = client.parameters("line")
            answer = client.set_parameters("line", pulled["parameters"], wait="durable")
            self.assertEqual(answer["durable_version"], 3)
            self.assertEqual(client.blend("line", "line", 0.5, wait="durable")["durable_version"], 4)
            place = {"incarnation": pulled["incarnation"], "version": 4}
            pushed = client.push("line", {"0.bias": [1]}, **place, wait="durable")
            self.assertEqual(pushed["durable_version"], 5)
            state = client.optimizer("line")
            client.set_optimizer("line", state.get("state", {}), steps=state["steps"], wait="durable")
            client.patch("line", {"durability": "snapshot"})
            client.backward("line", **batch, apply=True, wait="durable")
            newest = client.describe("line")["snapshots"][-1]
            client.backward("line", **batch, apply=True)
            version = newest["version"] if isinstance(newest, dict) else newest
            self.assertEqual(client.restore("line", version)["version"], version)
            self.assertEqual(client.restore("line")["version"], version)
            with self.assertRaises(gradd.GraddError):
                client.restore("line", 12345)


class Copies(unittest.TestCase):
    def test_copies_and_pickles(self):
        with Daemon(token="the-secret-of-this-test-which-is-long-enough") as daemon:
            client = gradd.Client(daemon.url, "the-secret-of-this-test-which-is-long-enough", retries=2)
            client.create(LINE)
            self.assertEqual(copy.deepcopy({"c": client})["c"].describe("line")["version"], 0)
            data = pickle.dumps(client)
            self.assertNotIn(b"the-secret", data)
            os.environ.pop("GRADD_TOKEN", None)
            with self.assertRaises(gradd.GraddError) as caught:
                pickle.loads(data).models()
            self.assertEqual(caught.exception.status, 401)
            os.environ["GRADD_TOKEN"] = "the-secret-of-this-test-which-is-long-enough"
            self.addCleanup(os.environ.pop, "GRADD_TOKEN")
            loaded = pickle.loads(data)
            self.assertEqual(loaded.describe("line")["version"], 0)
            self.assertEqual(loaded._retries, 2)
            self.assertEqual(copy.copy(client).describe("line")["version"], 0)


if __name__ == "__main__":
    main()
