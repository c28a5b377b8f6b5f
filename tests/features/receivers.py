"""A webhook and a mail server of this machine, which keep what they are given."""

import json
import socketserver
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def serving(server):
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Hook(BaseHTTPRequestHandler):
    """Keeps (headers, JSON) of each request; answers with the first of `statuses`, else 200."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.came.append((dict(self.headers), json.loads(body)))
        self.server.hold()
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


def webhook():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.came, server.statuses, server.hold = [], [], lambda: None
    return serving(server)


class Mail(socketserver.StreamRequestHandler):
    """As little of SMTP (RFC 5321) as a mail needs to arrive."""

    def handle(self):
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            match line.split(":")[0].split(" ")[0].upper():
                case "DATA":
                    self.say("354 go on")
                    self.server.came.append(message_from_bytes(self.read(), policy=policy.default))
                    self.say("250 kept")
                case "QUIT":
                    self.say("221 bye")
                    return
                case _:
                    self.say("250 well")

    def say(self, text):
        self.wfile.write(f"{text}\r\n".encode())

    def read(self):
        lines = iter(self.rfile.readline, b".\r\n")
        return b"".join(line.removeprefix(b".") for line in lines)


def mailbox():
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
    server.daemon_threads = True
    server.came = []
    return serving(server)
