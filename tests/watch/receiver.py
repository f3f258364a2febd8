"""A real webhook receiver on loopback, which fails and dawdles when it is told to."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Keeps what it was sent.

    Attributes:
        got: (headers with lower-case names, body) of each request that came whole.
        plan: What to do with the next requests, one each; afterwards all are taken (204):
            a status, (status, headers), "reset", "slow" (no answer), "drip" (a byte at a time),
            "garbage", "close" (200 and the connection closed without a word), "huge".
        connections: How many were opened.
    """

    def __init__(self):
        self.got = []
        self.plan = []
        self.connections = 0
        self.released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                receiver.connections += 1
                super().setup()

            def do_POST(self):
                receiver.receive(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def receive(self, request):
        length = int(request.headers["content-length"])
        body = request.rfile.read(length)
        self.got.append((request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        act = self.plan.pop(0) if self.plan else 204
        if isinstance(act, int):
            act = (act, {})
        if isinstance(act, tuple):
            status, headers = act
            request.send_response(status)
            for name, value in headers.items():
                request.send_header(name, value)
            request.send_header("content-length", "0")
            request.end_headers()
            return
        getattr(self, act)(request)

    def reset(self, request):
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._end(request)

    def slow(self, request):
        self.released.wait(60)
        self._end(request)

    def drip(self, request):
        try:
            for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10_000:
                request.wfile.write(bytes([byte]))
                if self.released.wait(0.02):
                    break
        except OSError:
            pass
        self._end(request)

    def garbage(self, request):
        request.wfile.write(b"\x00\xff this is not HTTP\r\n\r\n")
        self._end(request)

    def close(self, request):
        request.send_response(200)
        request.send_header("content-length", "0")
        request.end_headers()
        self._end(request)

    def huge(self, request):
        request.send_response(200)
        request.send_header("content-length", str(10**9))
        request.end_headers()
        try:
            for _ in range(20):
                request.wfile.write(b"x" * 65536)
        except OSError:
            pass
        self._end(request)

    def _end(self, request):
        request.close_connection = True
        with suppress(OSError):
            request.connection.close()

    def stop(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
