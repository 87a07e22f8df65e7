"""The configurations of examples/proxies, as they stand but for paths and ports: real proxies in front of a real daemon."""

import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from support import LINE, ROOT, Daemon, die_with_parent, free_port, main  # noqa: E402

import gradd  # noqa: E402

NAME = "gradd.example"
resolve = socket.getaddrinfo


def here(host, *args, **named):
    """Whoever asks for the name gets this machine: so Host and the certificate's name are those of the page."""
    return resolve("127.0.0.1" if host == NAME else host, *args, **named)


class Front:
    """What is to be the same behind each proxy."""

    config = ""
    unix = False

    def command(self, path):
        raise NotImplementedError

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.folder.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.folder)
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        names = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
        files = ["-keyout", f"{NAME}.key", "-out", f"{NAME}.pem"]
        subprocess.run(
            ["openssl", "req", "-x509", *curve, *names, *files], cwd=self.folder, check=True, capture_output=True
        )
        both = (self.folder / f"{NAME}.pem").read_text() + (self.folder / f"{NAME}.key").read_text()
        (self.folder / f"{NAME}.both.pem").write_text(both)
        patch = unittest.mock.patch("socket.getaddrinfo", here)
        patch.start()
        self.addCleanup(patch.stop)
        self.port = free_port()
        flags = ["--allowed-hosts", NAME]
        if self.unix:
            self.daemon = Daemon(*flags, "--socket-mode", "666", listen=f"unix:{self.folder}/gradd.sock")
        else:
            self.daemon = Daemon(*flags)
        self.addCleanup(self.stop_daemon)
        self.start_proxy()
        self.client = gradd.Client(f"https://{NAME}:{self.port}", ca=str(self.folder / f"{NAME}.pem"), retries=0)
        self.addCleanup(self.client.close)
        self.wait(lambda: self.client.ready()["status"] == "ready")

    def stop_daemon(self):
        if self.daemon:
            self.daemon.stop()
            self.daemon = None

    def start_proxy(self):
        text = (ROOT / "examples" / "proxies" / self.config).read_text()
        for old, new in (
            ("/etc/gradd/", f"{self.folder}/"),
            ("/run/gradd/", f"{self.folder}/"),
            ("/run/nginx-gradd.pid", f"{self.folder}/pid"),
            ("8443", str(self.port)),
            ("127.0.0.1:8080", self.daemon.url.removeprefix("http://")),
        ):
            text = text.replace(old, new)
        path = self.folder / self.config
        path.write_text(text)
        log = open(self.folder / "log", "w+")
        self.addCleanup(log.close)
        environment = {**os.environ, "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
        proxy = subprocess.Popen(
            self.command(path), stdout=log, stderr=log, cwd=self.folder, env=environment, preexec_fn=die_with_parent
        )

        def stop():
            proxy.send_signal(signal.SIGTERM)
            proxy.wait(30)

        self.addCleanup(stop)

    def wait(self, holds):
        """Until it is so: the deadline is for what never comes."""
        deadline = time.monotonic() + 60
        while True:
            try:
                if holds():
                    return
            except (ConnectionError, gradd.GraddError) as error:
                last = error
            if time.monotonic() > deadline:
                self.fail(f"{last}\n{(self.folder / 'log').read_text()}")
            time.sleep(0.05)

    def test_a_model_is_trained_through_it(self):
        client = self.client
        client.create({**LINE, "optimizer": {"op": "sgd", "lr": 0.02}})
        batch = {"inputs": {"x": [[1, 2], [3, 4]]}, "targets": {"y": [[5], [11]]}}
        for _ in range(100):
            answer = client.backward("line", **batch, apply=True)
        self.assertEqual(answer["applied_version"], 100)
        self.assertLess(answer["loss"], 0.01)
        pulled = client.parameters("line")
        self.assertEqual(client.parameters("line")["version"], 100, "a 304 comes through")
        client.push("line", {"0.bias": [0.0]}, incarnation=pulled["incarnation"], version=100, if_match=pulled)
        with self.assertRaises(gradd.GraddError) as caught:
            client.set_parameters("line", pulled["parameters"], if_match=pulled)
        self.assertEqual((caught.exception.status, caught.exception.slug), (412, "stale"))

    def test_a_large_body_and_a_large_answer(self):
        layers = [{"op": "linear", "out_features": 1024}]
        self.client.create({"name": "wide", "inputs": {"x": {"shape": [1024]}}, "layers": layers})
        rows = gradd.Tensor("F32", (4096, 1024), bytes(4096 * 1024 * 4))
        outputs = self.client.forward("wide", {"x": rows})["outputs"]["0"]
        self.assertEqual(outputs.shape, (4096, 1024))

    def test_a_body_in_chunks(self):
        context = ssl.create_default_context(cafile=str(self.folder / f"{NAME}.pem"))
        body = json.dumps({**LINE, "name": "chunked"}).encode()
        head = f"POST /models HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        with socket.create_connection(("127.0.0.1", self.port)) as plain:
            with context.wrap_socket(plain, server_hostname=NAME) as sock:
                sock.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
                for at in range(0, len(body), 50):
                    part = body[at : at + 50]
                    sock.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                sock.sendall(b"0\r\n\r\n")
                answer = b""
                while part := sock.recv(65536):
                    answer += part
        self.assertIn(b" 201 ", answer.splitlines()[0])

    def test_a_daemon_that_is_gone_is_a_passing_error(self):
        self.stop_daemon()

        def gone():
            try:
                self.client.ready()
            except gradd.GraddError as error:
                return error.status in (502, 503)

        self.wait(gone)


class Nginx(Front, unittest.TestCase):
    config = "nginx.conf"
    unix = True

    def command(self, path):
        return ["nginx", "-c", str(path), "-p", str(self.folder), "-g", "daemon off;"]


class HAProxy(Front, unittest.TestCase):
    config = "haproxy.cfg"

    def command(self, path):
        return ["haproxy", "-db", "-f", str(path)]


class Caddy(Front, unittest.TestCase):
    config = "Caddyfile"

    def command(self, path):
        return ["caddy", "run", "--adapter", "caddyfile", "--config", str(path)]


if __name__ == "__main__":
    main()
