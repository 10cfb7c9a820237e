"""Answers that come at once reach who asked, although pynetdicom's own thread reads the same queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider

from pacs_node.dicom import client
from pacs_node.dicom.checkpoint import Checkpoint
from pacs_node.dicom.client import Conversation, Peer, Unreachable
from tests.unit.dicom.peers import Listening

SLOW_SECONDS = 0.005


@pytest.fixture(autouse=True)
def asker_slow_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks comes to wait for the answer when it has long been there."""
    send = DIMSEServiceProvider.send_msg

    def slow(self: DIMSEServiceProvider, *given: object) -> None:
        send(self, *given)  # type: ignore[arg-type]
        time.sleep(4 * SLOW_SECONDS)

    monkeypatch.setattr(DIMSEServiceProvider, "send_msg", slow)


@pytest.fixture
def listening(listen: Callable[..., Listening]) -> Listening:
    return listen()


def echoes(listening: Listening) -> list[int]:
    """The statuses of twenty C-ECHOs of one association."""
    peer = Peer(
        ae_title="PULMOLINK", host="127.0.0.1", port=listening.port, calling_ae_title="ASKS", timeout_seconds=1.0
    )
    with Conversation(peer, []) as conversation:
        return [conversation.echo() for _ in range(20)]


def test_an_answer_is_not_taken_by_a_thread_that_is_slow_to_move_on(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Checkpoint.wait

    def slow(self: Checkpoint, timeout: float | None = None) -> bool:
        passed = wait(self, timeout)
        time.sleep(SLOW_SECONDS)
        return passed

    monkeypatch.setattr(Checkpoint, "wait", slow)
    assert echoes(listening) == [0] * 20


def test_the_librarys_own_event_lets_such_a_thread_take_it(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails once pynetdicom has mended this: then `pacs_node.dicom.checkpoint` can go."""

    class Slow(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            passed = super().wait(timeout)
            time.sleep(SLOW_SECONDS)
            return passed

    def hold(association: Association) -> None:
        event = Slow()
        event.set()
        association._reactor_checkpoint = event

    monkeypatch.setattr(client, "hold_firmly", hold)
    with pytest.raises(Unreachable):
        echoes(listening)


def test_an_association_that_has_ended_holds_nobody_up(listening: Listening) -> None:
    peer = Peer(
        ae_title="PULMOLINK", host="127.0.0.1", port=listening.port, calling_ae_title="ASKS", timeout_seconds=5.0
    )
    with Conversation(peer, []) as conversation:
        association = conversation._open()
        assert isinstance(association._reactor_checkpoint, Checkpoint)
        association.abort()
        association.join(5.0)
        began = time.monotonic()
        Checkpoint(association).clear()
        assert time.monotonic() - began < 1.0
