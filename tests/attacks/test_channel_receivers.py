"""The receiver of a message can lead it nowhere else, and costs the machine no more than one."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rollout.features.delivery.sender import ChannelMessage, send_in_process
from tests.features.receivers import serving, webhook

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket]  # receivers on this machine
PIECE = bytes(2**20)
PIECES = 3 * 2**10


class Elsewhere(BaseHTTPRequestHandler):
    """Leads to another address."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(307)
        self.send_header("Location", self.server.leads_to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Talker(Elsewhere):
    """Answers with three gibibytes, as fast as it can."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(PIECES * len(PIECE)))
        self.end_headers()
        try:
            for _ in range(PIECES):
                self.wfile.write(PIECE)
                self.server.said += 1
        except OSError:
            return


def message(server):
    url = f"json://127.0.0.1:{server.server_address[1]}/hook?+X-Token=hunter2"
    return ChannelMessage(url, "bears: morning report", "# Bears", "7-3fe1c0de", "<p>97 %")


def test_a_receiver_leads_a_report_to_no_other_address():
    """An address was given by who owns the machine; what answers there may be somebody else's."""
    with webhook() as inside, serving(ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)) as hook:
        hook.leads_to = f"http://127.0.0.1:{inside.server_address[1]}/admin"
        error = send_in_process(message(hook))
        assert inside.came == []
    assert "307" in error


@pytest.mark.slow
def test_a_receiver_that_answers_without_end_takes_no_memory_of_the_machine():
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Talker)) as hook:
        hook.said = 0
        error = send_in_process(message(hook))
        assert hook.said < PIECES
    assert error
