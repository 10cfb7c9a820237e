"""Destinations are asked to commit, and only their word makes a delivery, and a match, COMMITTED (PS3.4 J)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from click.testing import CliRunner
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from pacs_node.cli import root
from pacs_node.commands.doctor import _destination, _Fault
from pacs_node.dicom.client import Unreachable
from pacs_node.dicom.primitives import VERIFICATION, store_request
from pacs_node.dicom.server import StorageServer
from pacs_node.flow.commitment import Report
from pacs_node.flow.commitment_desk import CommitmentDesk
from pacs_node.flow.deliver import CLASS_OF, Deliverer
from pacs_node.flow.sop_classes import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from pacs_node.settings import Source
from storage.records import DeliveryState, MatchState, SopReference
from tests.integration.rig import free_port
from tests.unit.flow.conftest import Node
from tests.unit.flow.test_deliver import STOP, again, of, pair, report

HERE, ELSEWHERE, NOWHERE = "on the association that asked", "on its own", "not at all"


class Archive:
    """An archive on loopback that commits, or not, as a test says."""

    def __init__(self, node_port: int) -> None:
        self.port = free_port()
        self.node_port = node_port
        self.reports = HERE
        self.takes = True  # negotiates storage commitment
        self.action_status = 0x0000
        self.fails: dict[str, int] = {}  # SOP Instance UID: reason
        self.leaves_out: set[str] = set()
        self.got: list[str] = []
        self.asked: list[Report] = []  # what it would report
        self.answers: list[int] = []  # the statuses that its reports got
        self._threads: list[threading.Thread] = []

    @contextmanager
    def listening(self) -> Iterator[Archive]:
        ae = AE(ae_title="PACS")
        ae.add_supported_context(VERIFICATION)
        for sop_class in CLASS_OF.values():
            ae.add_supported_context(sop_class, ExplicitVRLittleEndian)
        if self.takes:
            ae.add_supported_context(STORAGE_COMMITMENT)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._asked)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            for thread in self._threads:
                thread.join(10)
            server.shutdown()  # type: ignore[union-attr]

    def _store(self, event: evt.Event) -> int:
        self.got.append(store_request(event).sop_instance_uid)
        return 0x0000

    def _asked(self, event: evt.Event) -> tuple[int, None]:
        information = event.action_information
        references = [
            SopReference(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
            for item in information.ReferencedSOPSequence
            if item.ReferencedSOPInstanceUID not in self.leaves_out
        ]
        made = Report(
            transaction_uid=information.TransactionUID,
            committed=tuple(each for each in references if each.sop_instance_uid not in self.fails),
            failed={
                each: self.fails[each.sop_instance_uid] for each in references if each.sop_instance_uid in self.fails
            },
        )
        self.asked.append(made)
        if self.action_status == 0 and self.reports == HERE:
            self._in_background(lambda: self._say(event.assoc, made))
        elif self.action_status == 0 and self.reports == ELSEWHERE:
            self._in_background(lambda: self.call(made))
        return self.action_status, None

    def call(self, made: Report, *, role: bool = True) -> None:
        """Report on an association of its own."""
        ae = AE(ae_title="PACS")
        ae.add_requested_context(STORAGE_COMMITMENT)
        roles = [build_role(STORAGE_COMMITMENT, scu_role=False, scp_role=True)] if role else []
        association = ae.associate("127.0.0.1", self.node_port, ae_title="PULMOLINK", ext_neg=roles)  # type: ignore[arg-type]
        assert association.is_established
        self._say(association, made)
        association.release()

    def _say(self, association: object, made: Report) -> None:
        time.sleep(0.05)  # the response to the N-ACTION goes first
        answer, _ = association.send_n_event_report(  # type: ignore[attr-defined]
            made.data_set(), made.event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
        self.answers.append(int(answer.Status))

    def _in_background(self, work: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()


@pytest.fixture
def archive() -> Archive:
    return Archive(free_port())


@pytest.fixture
def node(make_node: Callable[..., Node], archive: Archive) -> Iterator[Node]:
    """A node with one destination that it asks, and its receiver."""
    entry = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": archive.port, "commitment": True}
    node = make_node(
        node={"port": archive.node_port},
        destinations=[entry],
        delivery={"timeout_seconds": 5},
        commitment={"attempts": 3, "answer_seconds": 600, "wait_seconds": 10},
    )
    desk = CommitmentDesk(node.store, node.objects, node.settings, node.clock)
    server = StorageServer(node.settings, node.receiver.open, desk=desk)
    server.start()
    yield node
    server.stop(0.0)


def deliver(node: Node, archive: Archive) -> int:
    """What the destination's thread does in one round; it waits for a report only where one comes."""
    commitment = node.settings.commitment
    if archive.reports != HERE:
        commitment = commitment.model_copy(update={"wait_seconds": 0.0})
    settings = node.settings.model_copy(update={"commitment": commitment})
    (destination,) = settings.destinations
    return Deliverer(node.store, node.objects, settings, destination, node.clock).deliver_due(STOP)


def states(node: Node) -> set[DeliveryState]:
    return {made.state for made in node.store.deliveries()}


@pytest.mark.parametrize("where", [HERE, ELSEWHERE])
def test_a_positive_report_commits_deliveries_and_match(node: Node, archive: Archive, where: str) -> None:
    pair(node, 1)
    match = report(node)
    archive.reports = where
    with archive.listening():
        deliver(node, archive)
    assert archive.answers == [0]
    assert {each.sop_instance_uid for each in archive.asked[0].committed} == {"9.1.0", "9.1.1"}
    assert states(node) == {DeliveryState.COMMITTED}
    assert node.store.match(match.match_id).state is MatchState.COMMITTED
    assert of(node, "9.1.0").committed_at == node.clock()
    assert node.store.count_wanted() == {}


def test_the_word_success_to_a_c_store_is_not_a_commitment(node: Node, archive: Archive) -> None:
    pair(node, 1)
    match = report(node)
    archive.reports = NOWHERE
    with archive.listening():
        deliver(node, archive)
        assert deliver(node, archive) == 0
    assert states(node) == {DeliveryState.DELIVERED}
    assert node.store.match(match.match_id).state is MatchState.DELIVERED
    assert node.store.count_wanted() == {"pacs": 2}


def test_without_an_answer_it_is_asked_anew_under_another_transaction_and_failed_in_the_end(
    node: Node, archive: Archive
) -> None:
    pair(node, 1)
    match = report(node)
    archive.reports = NOWHERE
    with archive.listening():
        for _ in range(6):
            deliver(node, archive)
            node.clock.now += timedelta(seconds=2401)
    assert len({made.transaction_uid for made in archive.asked}) == len(archive.asked) == 3
    assert archive.got == ["9.1.0", "9.1.1"]
    assert states(node) == {DeliveryState.FAILED}
    assert of(node, "9.1.0").last_error == "no commitment after 3 questions: no answer"
    assert node.store.match(match.match_id).state is MatchState.REPORTED


def test_an_answer_that_comes_after_the_next_question_counts(node: Node, archive: Archive) -> None:
    pair(node, 1)
    match = report(node)
    archive.reports = NOWHERE
    with archive.listening():
        deliver(node, archive)
        node.clock.now += timedelta(seconds=601)
        deliver(node, archive)
        first, second = archive.asked
        archive.call(first)
        assert node.store.match(match.match_id).state is MatchState.COMMITTED
        archive.call(second)
    assert archive.answers == [0, 0]
    assert states(node) == {DeliveryState.COMMITTED}


def test_what_is_refused_is_sent_again_as_the_same_bytes_and_asked_anew(node: Node, archive: Archive) -> None:
    pair(node, 1)
    match = report(node)
    archive.fails = {"9.1.1": 0x0112}
    with archive.listening():
        deliver(node, archive)
        assert of(node, "9.1.0").state is DeliveryState.COMMITTED
        lost = of(node, "9.1.1")
        assert (lost.state, lost.last_error) == (DeliveryState.PENDING, "commitment refused, reason 0x0112")
        assert node.store.match(match.match_id).state is MatchState.REPORTED
        archive.fails = {}
        node.clock.now += timedelta(seconds=6)
        deliver(node, archive)
    assert archive.got == ["9.1.0", "9.1.1", "9.1.1"]
    assert [len(made.committed) for made in archive.asked] == [1, 1]
    assert archive.asked[0].transaction_uid != archive.asked[1].transaction_uid
    assert node.store.match(match.match_id).state is MatchState.COMMITTED


def test_what_is_refused_again_and_again_fails_with_the_reason(node: Node, archive: Archive) -> None:
    pair(node, 1)
    match = report(node)
    archive.fails = {"9.1.0": 0x0110, "9.1.1": 0x0110}
    with archive.listening():
        for _ in range(5):
            deliver(node, archive)
            node.clock.now += timedelta(seconds=6)
        assert (len(archive.asked), len(archive.got)) == (3, 6)
        assert of(node, "9.1.0").last_error == "commitment refused, reason 0x0110"
        assert states(node) == {DeliveryState.FAILED}
        assert node.store.match(match.match_id).state is MatchState.REPORTED
        # `deliver --failed` starts from the beginning.
        archive.fails = {}
        assert node.store.redrive(node.clock()) == 2
        deliver(node, archive)
    assert node.store.match(match.match_id).state is MatchState.COMMITTED


def test_what_a_report_leaves_out_is_asked_about_again(node: Node, archive: Archive) -> None:
    pair(node, 1)
    report(node)
    archive.leaves_out = {"9.1.1"}
    with archive.listening():
        deliver(node, archive)
        assert of(node, "9.1.1").state is DeliveryState.DELIVERED
        archive.leaves_out = set()
        node.clock.now += timedelta(seconds=601)
        deliver(node, archive)
    assert [len(made.committed) for made in archive.asked] == [1, 1]
    assert states(node) == {DeliveryState.COMMITTED}


def test_a_report_on_a_transaction_nobody_began_changes_nothing_and_is_not_confirmed(
    node: Node, archive: Archive
) -> None:
    pair(node, 1)
    report(node)
    archive.reports = NOWHERE
    with archive.listening():
        deliver(node, archive)
    (asked,) = archive.asked
    archive.call(Report(transaction_uid="2.25.99", committed=asked.committed, failed={}))
    assert archive.answers == [0x0115]
    assert states(node) == {DeliveryState.DELIVERED}


def test_a_report_about_other_objects_or_classes_commits_nothing(node: Node, archive: Archive) -> None:
    pair(node, 1)
    report(node)
    archive.reports = NOWHERE
    with archive.listening():
        deliver(node, archive)
    (asked,) = archive.asked
    others = tuple(SopReference("1.2.840.10008.5.1.4.1.1.2", each.sop_instance_uid) for each in asked.committed)
    archive.call(Report(transaction_uid=asked.transaction_uid, committed=others, failed={}))
    archive.call(Report(transaction_uid=asked.transaction_uid, committed=(SopReference("1.2", "1.3"),), failed={}))
    assert states(node) == {DeliveryState.DELIVERED}


def test_a_report_that_repeats_itself_is_confirmed_and_changes_nothing(node: Node, archive: Archive) -> None:
    pair(node, 1)
    match = report(node)
    with archive.listening():
        deliver(node, archive)
    (asked,) = archive.asked
    archive.call(asked)
    archive.call(
        Report(transaction_uid=asked.transaction_uid, committed=(), failed=dict.fromkeys(asked.committed, 0x0112))
    )
    assert archive.answers == [0, 0, 0]
    assert node.store.match(match.match_id).state is MatchState.COMMITTED


def test_an_archive_that_leaves_role_selection_out_is_heard(node: Node, archive: Archive) -> None:
    pair(node, 1)
    report(node)
    archive.reports = NOWHERE
    with archive.listening():
        deliver(node, archive)
    archive.call(archive.asked[0], role=False)
    assert states(node) == {DeliveryState.COMMITTED}


def test_an_archive_that_refuses_the_question_keeps_what_it_was_sent(node: Node, archive: Archive) -> None:
    pair(node, 1)
    report(node)
    archive.action_status = 0x0110
    with archive.listening():
        deliver(node, archive)
        (waiting, _) = node.store.wanted_commitments(1)
        assert (waiting.attempts, waiting.last_error) == (1, "status 0x0110 to N-ACTION")
        assert states(node) == {DeliveryState.DELIVERED}
        assert node.store.next_questions() == {"pacs": waiting.due_at}
        archive.action_status = 0
        node.clock.now += timedelta(seconds=601)
        deliver(node, archive)
    assert states(node) == {DeliveryState.COMMITTED}


def test_an_archive_without_storage_commitment_is_named(node: Node, archive: Archive) -> None:
    pair(node, 1)
    report(node)
    archive.takes = False
    with archive.listening():
        for _ in range(5):
            deliver(node, archive)
            node.clock.now += timedelta(seconds=2401)
    assert archive.got == ["9.1.0", "9.1.1"]
    assert of(node, "9.1.0").state is DeliveryState.FAILED
    assert of(node, "9.1.0").last_error.endswith("3 questions: storage commitment is not accepted")


def test_an_archive_that_is_away_when_it_is_to_be_asked_costs_no_question(node: Node, archive: Archive) -> None:
    pair(node, 1)
    report(node)
    archive.reports = NOWHERE
    with archive.listening():
        deliver(node, archive)
    for _ in range(8):
        node.clock.now += timedelta(seconds=1801)
        with pytest.raises(Unreachable):
            deliver(node, archive)
        assert deliver(node, archive) == 0
    archive.reports = HERE
    node.clock.now += timedelta(seconds=1801)
    with archive.listening():
        deliver(node, archive)
    assert len(archive.asked) == 2
    assert states(node) == {DeliveryState.COMMITTED}


def test_a_destination_that_is_not_asked_any_more_keeps_no_match_waiting(
    node: Node, archive: Archive, make_node: Callable[..., Node]
) -> None:
    pair(node, 1)
    match = report(node)
    archive.reports = NOWHERE
    with archive.listening():
        deliver(node, archive)
    node.store.withdraw_commitments("another", node.clock())
    assert node.store.count_wanted() == {"pacs": 2}
    assert node.store.withdraw_commitments("pacs", node.clock()) == 2
    assert node.store.match(match.match_id).state is MatchState.DELIVERED
    archive.call(archive.asked[0])  # it commits after all
    assert node.store.match(match.match_id).state is MatchState.COMMITTED


def test_a_superseded_match_stays_superseded_when_its_reports_are_committed(node: Node, archive: Archive) -> None:
    pair(node, 1)
    match = report(node)
    archive.reports = NOWHERE
    with archive.listening():
        deliver(node, archive)
    again(node, match)
    archive.call(archive.asked[0])
    assert node.store.match(match.match_id).state is MatchState.SUPERSEDED
    assert states(node) == {DeliveryState.COMMITTED}


def test_status_says_when_an_archive_is_asked_again(node: Node, archive: Archive) -> None:
    pair(node, 1)
    report(node)
    archive.action_status = 0x0110
    with archive.listening():
        deliver(node, archive)
    storage = {"DATABASE": node.settings.storage.database, "OBJECTS": str(node.objects.root)}
    variables = {f"PULMOLINK_STORAGE_{key}": value for key, value in storage.items()} | {"COLUMNS": "200"}
    due_at = node.store.wanted_commitments(1)[0].due_at
    printed = CliRunner().invoke(root, ["status"], env=variables).stdout
    assert f"pacs: 2 reports not committed to; asked about {due_at:%Y-%m-%dT%H:%M} UTC" in printed


def test_what_was_settled_long_ago_is_forgotten_and_what_is_awaited_is_not(node: Node, archive: Archive) -> None:
    for number in (1, 2):
        pair(node, number)
        report(node)
    archive.leaves_out = {"9.2.1"}
    with archive.listening():
        deliver(node, archive)
    later = node.clock() + timedelta(seconds=1)
    assert node.store.forget_questions(node.clock()) == 0
    assert node.store.forget_questions(later) == 0  # one object of the question is awaited
    archive.leaves_out = set()
    archive.call(
        Report(
            transaction_uid=archive.asked[0].transaction_uid,
            committed=(SopReference(CLASS_OF["overlay"], "9.2.1"),),
            failed={},
        )
    )
    assert node.store.forget_questions(later) == 4


def test_doctor_says_what_would_keep_commitment_from_working(node: Node, archive: Archive) -> None:
    (destination,) = node.settings.destinations
    with archive.listening():
        assert _destination(destination, node.settings).endswith(", commits")
        stranger = Source(ae_title="ANOTHER", host="127.0.0.1")
        settings = node.settings.model_copy(update={"sources": (stranger,)})
        with pytest.raises(_Fault, match="its reports would be rejected"):
            _destination(destination, settings)
    archive.takes = False
    with archive.listening(), pytest.raises(_Fault, match="does not accept storage commitment"):
        _destination(destination, node.settings)
