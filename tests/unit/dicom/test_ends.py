"""A connection that ends otherwise than it should: the log names what it was, and the limit that was reached."""

from __future__ import annotations

import re
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from pacs_node.dicom.wire import ABORT, ASSOCIATE_RQ, INVALID_PARAMETER, P_DATA, UNRECOGNIZED_PDU
from tests.integration.rig import eventually
from tests.unit.dicom.peers import Listening, aborted, answer, film, pdu, request, stored

Listen = Callable[..., Listening]


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (bytes.fromhex("16030102000100"), "TLS on the plain port"),
        (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", "HTTP on the plain port"),
        (b"POST / HTTP/1.1\r\n\r\n", "HTTP on the plain port"),
        (b"SSH-2.0-OpenSSH\r\n", "PDU type 0x53"),
    ],
)
def test_what_is_no_dicom_is_called_by_its_name(
    listen: Listen, capsys: pytest.CaptureFixture[str], sent: bytes, told: str
) -> None:
    node = listen()
    with node.connect() as connection:
        connection.sendall(sent)
        assert aborted(answer(connection)) == UNRECOGNIZED_PDU
    eventually(lambda: node.counts() == {("cut", "protocol_error"): 1}, 5, "the cut is counted")
    captured = capsys.readouterr()
    assert told in captured.out + captured.err


@pytest.mark.parametrize(
    ("sent", "limit"),
    [
        (pdu(ASSOCIATE_RQ, b"", length=4097), "limits.association_bytes"),
        (request() + pdu(P_DATA, b"", length=9000), "limits.pdu_bytes"),
    ],
)
def test_a_pdu_beyond_its_bound_is_told_with_its_setting(
    listen: Listen, capsys: pytest.CaptureFixture[str], sent: bytes, limit: str
) -> None:
    node = listen(limits={"association_bytes": 4096, "pdu_bytes": 4096})
    with node.connect() as connection:
        connection.sendall(sent)
        assert aborted(answer(connection)) == INVALID_PARAMETER
    eventually(lambda: node.counts().get(("cut", "protocol_error")), 5, "the cut is counted")
    told = capsys.readouterr()
    assert limit in told.out + told.err


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"association_seconds": 0.3, "pdu_seconds": 9}, "limits.association_seconds"),
        ({"association_seconds": 9, "pdu_seconds": 0.3}, "limits.pdu_seconds"),
    ],
)
@pytest.mark.parametrize("beginning", [request()[:1], request()[:20]])
def test_a_request_that_stops_coming_is_told_with_the_limit_that_was_reached(
    listen: Listen, capsys: pytest.CaptureFixture[str], limits: dict[str, float], named: str, beginning: bytes
) -> None:
    node = listen(limits=limits)
    with node.connect() as connection:
        connection.sendall(beginning)
        assert aborted(answer(connection)) == 0
    eventually(lambda: node.counts() == {("cut", "too_slow"): 1}, 5, "the cut is counted")
    told = capsys.readouterr()
    assert set(re.findall(r"limits\.\w+", told.out + told.err)) == {named}


@pytest.mark.parametrize("drips", [False, True])
def test_a_message_that_outlasts_the_drain_time_is_aborted_and_told_as_it_is_counted(
    listen: Listen, capsys: pytest.CaptureFixture[str], *, drips: bool
) -> None:
    node = listen()
    line = node.associate()
    line.socket.sendall(stored(film(ImageComments="x" * 9000), pdu_bytes=4096)[:6000])
    eventually(lambda: node.files() > 0, 5, "the object is under way")
    stopping = threading.Thread(target=node.server.stop, args=(0.2,))
    stopping.start()
    if drips:
        with suppress(OSError):
            while stopping.is_alive() and not select.select([line.socket], [], [], 0)[0]:
                line.socket.sendall(b"x")
                time.sleep(0.02)
    assert line.pdu()[0] == ABORT
    line.close()
    stopping.join(timeout=10)
    assert not stopping.is_alive()
    assert node.counts() == {("accepted", ""): 1, ("cut", "stopping"): 1}
    captured = capsys.readouterr()
    told = captured.out + captured.err
    assert "limits.drain_seconds" in told
    assert "peer_gone" not in told
    assert node.files() == 0
