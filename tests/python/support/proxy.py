"""A proxy between a client and its daemon that does to each request what it is told."""

import collections
import contextlib
import http.client
import http.server
import json
import threading
import urllib.parse

# What may befall a request. None: it is passed on, and so is its answer.
LOSE_REQUEST = "lose the request"  # the connection ends before the daemon hears of it
LOSE_ANSWER = "lose the answer"  # the daemon has served it, and the connection ends
CUT_ANSWER = "cut the answer"  # half of the answer comes
SERVE_TWICE = "serve twice"  # the daemon gets it twice, and its second answer is passed on


class Refuse:
    """An answer of the proxy's own."""

    def __init__(self, status: int, slug: str = "busy", retry_after: str = "") -> None:
        self.status, self.slug, self.retry_after = status, slug, retry_after


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy.seen.append((self.command, self.path, dict(self.headers), body))
        fault = proxy.faults.popleft() if proxy.faults else None
        if fault == LOSE_REQUEST:
            self.close_connection = True
            return
        if isinstance(fault, Refuse):
            self.refuse(fault)
            return
        status, headers, data = self.pass_on(body)
        if fault == SERVE_TWICE:
            status, headers, data = self.pass_on(body)
        proxy.served.append((status, headers, data))
        if fault == LOSE_ANSWER:
            self.close_connection = True
            return
        self.answer(status, headers, data[: len(data) // 2] if fault == CUT_ANSWER else data, len(data))
        self.close_connection = self.close_connection or fault == CUT_ANSWER

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def pass_on(self, body: bytes) -> tuple:
        connection = http.client.HTTPConnection(self.server.proxy.address, timeout=60)
        connection.request(self.command, self.path, body or None, dict(self.headers))
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, dict(response.getheaders()), data

    def refuse(self, fault: Refuse) -> None:
        problem = {
            "type": f"urn:gradd:problem:{fault.slug}",
            "status": fault.status,
            "detail": "by the proxy",
        }
        headers = {"Content-Type": "application/problem+json"}
        if fault.retry_after:
            headers["Retry-After"] = fault.retry_after
        data = json.dumps(problem).encode()
        self.answer(fault.status, headers, data, len(data))

    def answer(self, status: int, headers: dict, data: bytes, size: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "date", "server"):
                self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(size))
        with contextlib.suppress(ConnectionError):  # a client that no longer waits has closed its end
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


class Proxy:
    def __init__(self, url: str) -> None:
        self.address = urllib.parse.urlsplit(url).netloc
        self.faults = collections.deque()  # what befalls the next requests
        self.seen = []  # method, path, headers and body of each request
        self.served = []  # status, headers and body of the daemon's answers
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.proxy = self
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def reset(self, *faults: object) -> None:
        self.faults.clear()
        self.faults.extend(faults)
        self.seen.clear()
        self.served.clear()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
