"""doctor looks at the running service without being a stranger to it: that would be an alarm each time it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from structlog.testing import capture_logs

from pacs_node.commands import doctor
from pacs_node.settings import Settings
from tests.unit.dicom.peers import Listening

Listen = Callable[..., Listening]
CART = {"ae_title": "CART1", "host": "10.0.0.5"}


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status":"ok"}')

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web_port() -> Iterator[int]:
    """A port that answers as /healthz of the service does."""
    server = HTTPServer(("127.0.0.1", 0), _Healthy)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def test_raises_no_alarm_where_sources_are_configured(listen: Listen, web_port: int) -> None:
    node = listen(sources=[CART], web={"port": web_port})
    with capture_logs() as said:
        assert "running service" in doctor._dicom_port(node.settings)
        node.server.stop(5.0)
    assert node.counts() == {}
    assert [line for line in said if line.get("log_level") != "info"] == []


def test_speaks_to_a_service_that_knows_it(listen: Listen, web_port: int) -> None:
    own = {"ae_title": "PULMOLINK", "host": "127.0.0.1"}
    for sources in ([], [own]):
        node = listen(sources=sources, web={"port": web_port})
        assert "answered by the running service" in doctor._dicom_port(node.settings)
        assert node.counts() == {("accepted", ""): 1}


def test_has_no_alarm_for_a_certificate_that_it_does_not_show(listen: Listen, web_port: int) -> None:
    own = {"ae_title": "PULMOLINK", "host": "127.0.0.1", "certificate": "CN=cart1"}
    node = listen(sources=[CART], web={"port": web_port})
    wants = node.settings.model_copy(update={"sources": Settings.model_validate({"sources": [own]}).sources})
    assert "running service" in doctor._dicom_port(wants)
    assert node.counts() == {}
