"""What is sent, in which order, and what becomes of it when the destination is silent, full, odd or slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt

from pacs_node.dicom.client import Unreachable
from pacs_node.dicom.primitives import store_request
from pacs_node.flow.deliver import CLASS_OF, Deliverer
from pacs_node.flow.pair import run_again
from pacs_node.flow.part10 import to_part10
from storage.records import Delivery, DeliveryState, Match, MatchState, NewReport, ReportKind
from tests.integration.rig import free_port
from tests.unit.flow.conftest import Node
from tests.unit.flow.headers import encoded, header, identified
from tests.unit.flow.test_pair_by_arrival import send_ecg, send_film
from tests.unit.flow.test_pair_over_time import predict

STOP = threading.Event()  # never set
BREAK = -1  # instead of a status: the association is aborted


class Destination:
    """An archive on loopback whose every answer a test decides by the SOP Instance UID."""

    def __init__(self, port: int, answer: Callable[[str], int] = lambda _: 0) -> None:
        self.port = port
        self.answer = answer
        self.took: list[str] = []

    @contextmanager
    def listening(self) -> Iterator[Destination]:
        ae = AE(ae_title="PACS")
        for sop_class in CLASS_OF.values():
            ae.add_supported_context(sop_class, ExplicitVRLittleEndian)
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        try:
            yield self
        finally:
            server.shutdown()  # type: ignore[union-attr]

    def _store(self, event: evt.Event) -> int:
        uid = store_request(event).sop_instance_uid
        status = self.answer(uid)
        if status == BREAK:
            event.assoc.abort()
            return 0
        if status == 0:
            self.took.append(uid)
        return status


@pytest.fixture
def pacs() -> Destination:
    return Destination(free_port())


@pytest.fixture
def node(make_node: Callable[..., Node], pacs: Destination) -> Node:
    """A node with one destination."""
    entry = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port}
    return make_node(destinations=[entry], delivery={"timeout_seconds": 5}, worker={"lease_seconds": 60})


def deliverer(node: Node, clock: Callable[[], datetime] | None = None) -> Deliverer:
    (destination,) = node.settings.destinations
    return Deliverer(node.store, node.objects, node.settings, destination, clock or node.clock)


def report(node: Node, *kinds: ReportKind) -> Match:
    """Take the due match to REPORTED, with real Part 10 reports named 9.<match>.<0: SR, 1: overlay>."""
    predicted = predict(node)
    match = node.store.claim_match([MatchState.PREDICTED], "worker-1", 60, node.clock())
    assert match is not None
    assert match.match_id == predicted.match_id
    node.store.predecessor_report(match.match_id, ReportKind.SR)
    made = [_made(node, match, kind) for kind in kinds or tuple(ReportKind)]
    assert node.store.save_reports(
        match.match_id, "worker-1", made, {kind: ["pacs"] for kind in ReportKind}, node.clock()
    )
    return match


def _made(node: Node, match: Match, kind: ReportKind) -> NewReport:
    uid = f"9.{match.match_id}.{list(ReportKind).index(kind)}"
    content = to_part10(encoded(identified(header(CLASS_OF[kind.value]), uid)))
    stored = node.objects.put(content)
    return NewReport(
        kind=kind,
        sop_class_uid=CLASS_OF[kind.value],
        sop_instance_uid=uid,
        series_instance_uid=f"{uid}.2",
        study_instance_uid=match.study_instance_uid,
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
    )


def pair(node: Node, number: int) -> None:
    send_film(node, f"1.{number}.1", PatientID=f"P{number}")
    send_ecg(node, f"1.{number}.2", PatientID=f"P{number}")


def again(node: Node, match: Match) -> None:
    """A rerun: a new match in the place of one that was reported."""
    with node.store.transaction() as tx:
        run_again(tx, tx.match(match.match_id), node.clock())


def of(node: Node, uid: str) -> Delivery:
    return next(made for made in node.store.deliveries() if made.sop_instance_uid == uid)


def test_everything_arrives_in_the_order_it_was_made_and_the_match_is_delivered(node: Node, pacs: Destination) -> None:
    pair(node, 1)
    match = report(node)
    with pacs.listening():
        assert deliverer(node).deliver_due(STOP) == 2
        assert deliverer(node).deliver_due(STOP) == 0
    assert pacs.took == ["9.1.0", "9.1.1"]
    assert node.store.match(match.match_id).state is MatchState.DELIVERED


def test_after_an_outage_reports_arrive_in_the_order_they_were_made(node: Node, pacs: Destination) -> None:
    """Those made during it must not come before those that waited."""
    sending = deliverer(node)
    pair(node, 1)
    report(node)
    for _ in range(3):
        with pytest.raises(Unreachable):
            sending.deliver_due(STOP)
        assert sending.deliver_due(STOP) == 0  # left alone for a while
        node.clock.now += timedelta(seconds=16)
    pair(node, 2)
    report(node)
    assert {(made.attempts, made.first_tried_at) for made in node.store.deliveries()} == {(0, None)}
    with pacs.listening():
        assert sending.deliver_due(STOP) == 4
    assert pacs.took == ["9.1.0", "9.1.1", "9.2.0", "9.2.1"]


def test_a_revision_never_comes_before_what_it_replaces(node: Node, pacs: Destination) -> None:
    pair(node, 1)
    first = report(node, ReportKind.SR)
    pacs.answer = lambda _: 0xA700
    with pacs.listening():
        assert deliverer(node).deliver_due(STOP) == 1
        again(node, first)
        report(node, ReportKind.SR)
        pacs.answer = lambda _: 0
        assert deliverer(node).deliver_due(STOP) == 0
        node.clock.now += timedelta(seconds=5)
        assert deliverer(node).deliver_due(STOP) == 2
    assert pacs.took == ["9.1.0", "9.2.0"]


def test_a_report_that_never_left_is_not_sent_after_its_revision(node: Node, pacs: Destination) -> None:
    sending = deliverer(node)
    pair(node, 1)
    first = report(node)
    with pytest.raises(Unreachable):
        sending.deliver_due(STOP)
    again(node, first)
    report(node)
    node.clock.now += timedelta(seconds=16)
    with pacs.listening():
        assert sending.deliver_due(STOP) == 2
    assert pacs.took == ["9.2.0", "9.2.1"]
    assert of(node, "9.1.0").state is DeliveryState.CANCELLED
    assert of(node, "9.1.0").last_error.startswith("superseded:")


def test_an_archive_that_is_full_for_two_days_loses_nothing(node: Node, pacs: Destination) -> None:
    sending = deliverer(node)
    pair(node, 1)
    report(node, ReportKind.SR)
    pacs.answer = lambda _: 0xA700
    with pacs.listening():
        for _ in range(60):
            sending.deliver_due(STOP)
            node.clock.now += timedelta(minutes=48)
        assert of(node, "9.1.0").state is DeliveryState.PENDING
        assert of(node, "9.1.0").attempts > node.settings.delivery.attempts
        assert (of(node, "9.1.0").last_status, of(node, "9.1.0").last_error) == (0xA700, "status 0xA700")
        node.clock.now += timedelta(days=1)
        sending.deliver_due(STOP)
        assert of(node, "9.1.0").state is DeliveryState.FAILED
        # Driven again, it has all its tries and all its time again.
        node.store.redrive(node.clock())
        sending.deliver_due(STOP)
        assert (of(node, "9.1.0").state, of(node, "9.1.0").attempts) == (DeliveryState.PENDING, 1)
        node.clock.now += timedelta(seconds=10)
        pacs.answer = lambda _: 0
        sending.deliver_due(STOP)
    assert pacs.took == ["9.1.0"]


def test_a_refusal_is_final_at_once_and_holds_nothing_back(node: Node, pacs: Destination) -> None:
    pair(node, 1)
    match = report(node)
    pacs.answer = lambda uid: 0xA900 if uid == "9.1.0" else 0
    with pacs.listening():
        assert deliverer(node).deliver_due(STOP) == 2
    assert (of(node, "9.1.0").state, of(node, "9.1.0").last_error) == (DeliveryState.FAILED, "status 0xA900")
    assert pacs.took == ["9.1.1"]
    assert node.store.match(match.match_id).state is MatchState.REPORTED


def test_a_damaged_report_is_never_sent_and_fails_with_the_reason(node: Node, pacs: Destination) -> None:
    for number in (1, 2):
        pair(node, number)
        report(node, ReportKind.SR)
    path = node.objects.path(of(node, "9.1.0").sha256)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pacs.listening():
        assert deliverer(node).deliver_due(STOP) == 2
    assert pacs.took == ["9.2.0"]
    assert of(node, "9.1.0").state is DeliveryState.FAILED
    assert "is damaged" in of(node, "9.1.0").last_error


def test_a_report_whose_object_is_missing_is_counted_named_and_given_up_in_the_end(
    node: Node, pacs: Destination
) -> None:
    """An unmounted volume may come back, so not at once."""
    for number in (1, 2):
        pair(node, number)
        report(node, ReportKind.SR)
    node.objects.path(of(node, "9.1.0").sha256).unlink()
    sending = deliverer(node)
    with pacs.listening():
        assert sending.deliver_due(STOP) == 2
        assert pacs.took == ["9.2.0"]
        waiting = of(node, "9.1.0")
        assert (waiting.state, waiting.attempts) == (DeliveryState.PENDING, 1)
        assert "is not stored" in waiting.last_error
        for _ in range(node.settings.delivery.attempts):
            node.clock.now += timedelta(hours=4)
            sending.deliver_due(STOP)
    assert of(node, "9.1.0").state is DeliveryState.FAILED


def test_a_report_that_breaks_the_association_does_not_hold_back_the_others(node: Node, pacs: Destination) -> None:
    for number in (1, 2, 3):
        pair(node, number)
        report(node, ReportKind.SR)
    pacs.answer = lambda uid: BREAK if uid == "9.1.0" else 0
    sending = deliverer(node)
    with pacs.listening():
        while sending.deliver_due(STOP):
            pass
    assert pacs.took == ["9.2.0", "9.3.0"]
    assert (of(node, "9.1.0").state, of(node, "9.1.0").attempts) == (DeliveryState.PENDING, 1)
    assert of(node, "9.1.0").first_tried_at is not None  # it may be there


def test_what_a_destination_silent_for_weeks_was_due_is_given_up(node: Node, pacs: Destination) -> None:
    sending = deliverer(node)
    pair(node, 1)
    report(node)
    for _ in range(2):
        with pytest.raises(Unreachable):
            sending.deliver_due(STOP)
        node.clock.now += timedelta(days=node.settings.delivery.give_up_days, seconds=1)
    assert {made.state for made in node.store.deliveries()} == {DeliveryState.FAILED}
    node.store.redrive(node.clock())
    with pacs.listening():
        assert sending.deliver_due(STOP) == 2


def test_a_slow_answer_does_not_let_another_worker_send_the_same(make_node: Callable[..., Node]) -> None:
    pacs = Destination(free_port())
    entry = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port}
    node = make_node(destinations=[entry], worker={"lease_seconds": 0.6})
    node.clock.now = datetime.now(UTC) - timedelta(seconds=1)
    pair(node, 1)
    report(node, ReportKind.SR)
    asked = threading.Event()

    def slow(_: str) -> int:
        asked.set()
        time.sleep(1.5)
        return 0

    pacs.answer = slow
    with pacs.listening():
        sending = threading.Thread(target=deliverer(node, lambda: datetime.now(UTC)).deliver_due, args=(STOP,))
        sending.start()
        assert asked.wait(10)
        time.sleep(1.0)
        assert node.store.claim_delivery("pacs", "another", 60, datetime.now(UTC)) is None
        sending.join(10)
    assert pacs.took == ["9.1.0"]
    assert of(node, "9.1.0").state is DeliveryState.DELIVERED
