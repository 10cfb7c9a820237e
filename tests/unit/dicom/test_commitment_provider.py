"""Modalities ask us for storage commitment, and are told: on their association, on ours, after a restart (PS3.4 J)."""

from __future__ import annotations

import ssl
import struct
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, build_role
from pynetdicom.association import Association
from pynetdicom.dsutils import encode

from pacs_node.dicom import association as association_module
from pacs_node.dicom import rates
from pacs_node.dicom.commands import N_ACTION_RQ, N_EVENT_REPORT_RQ, read_command, response
from pacs_node.dicom.pdata import ITEM, command_pdus, data_pdus
from pacs_node.dicom.wire import ABORT, P_DATA
from pacs_node.flow.commitment import Request, request_data_set
from pacs_node.flow.commitment_answer import Answerer
from pacs_node.flow.sop_classes import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, TWELVE_LEAD_ECG
from storage.records import RequestState
from tests.benchmarks.replay import VERIFICATION, Line, command
from tests.certificates import Authority
from tests.integration.rig import eventually, free_port
from tests.unit.dicom.commitment_peers import Modality, ask, named
from tests.unit.dicom.peers import IMPLICIT, Listening, film, stored

Listen = Callable[..., Listening]
STOP = threading.Event()  # never set
SOON = {"same_association_seconds": 0.1}


def store(node: Listening, *uids: str) -> None:
    line = node.associate()
    for uid in uids:
        line.socket.sendall(stored(film(uid)))
        assert line.status() == 0
    line.release()


def modality_of(listen: Listen, **commitment: object) -> tuple[Listening, Modality]:
    """A node, and a modality that may send there and is also allowed to as "REPLAY"."""
    modality = Modality(node_port=free_port())
    node = listen(
        node={"port": modality.node_port},
        sources=[modality.source, {"ae_title": "REPLAY", "host": "127.0.0.1"}],
        commitment={**SOON, **commitment},
        delivery={"timeout_seconds": 5, "first_retry_seconds": 0.2},
    )
    return node, modality


def answer(node: Listening, *, later: timedelta = timedelta()) -> int:
    """Do what the answering thread of a worker does."""
    return Answerer(node.store, node.objects, node.settings, lambda: datetime.now(UTC) + later).answer_due(STOP)


def states(node: Listening) -> dict[RequestState, int]:
    return node.store.count_requests()


class TestOnTheSameAssociation:
    def test_a_modality_that_waits_is_told_there(self, listen: Listen) -> None:
        node, modality = modality_of(listen)
        store(node, "1.2.3", "1.2.4")
        with modality.calling() as association:
            assert ask(association, "2.25.1", named("1.2.3", "1.2.4")) == 0
            heard = modality.hears()
            eventually(lambda: states(node) == {RequestState.ANSWERED: 1}, 5, "the confirmation is noted")
        assert (heard.event_type, heard.transaction_uid, heard.failed) == (1, "2.25.1", {})
        assert set(heard.committed) == {"1.2.3", "1.2.4"}
        assert heard.on_own_call
        assert answer(node) == 0

    def test_what_is_not_kept_is_named_with_its_reason(self, listen: Listen) -> None:
        node, modality = modality_of(listen)
        store(node, "1.2.3", "1.2.4", "1.2.5", "1.2.6")
        gone = {row.instance.sop_instance_uid: row for row in node.store.instances()}
        node.store.close_windows(datetime.now(UTC), timedelta(days=7))
        assert node.store.mark_purged(gone["1.2.4"].instance_id, datetime.now(UTC))  # as retention does
        node.objects.path(gone["1.2.5"].instance.sha256).unlink()
        with modality.calling() as association:
            asked = (*named("1.2.3", "1.2.4", "1.2.5", "9.9"), *named("1.2.6", sop_class=TWELVE_LEAD_ECG))
            assert ask(association, "2.25.1", asked) == 0
            heard = modality.hears()
        assert heard.event_type == 2
        assert heard.committed == ("1.2.3",)
        assert heard.failed == {"1.2.4": 0x0112, "1.2.5": 0x0112, "9.9": 0x0112, "1.2.6": 0x0119}

    def test_other_requests_on_the_association_are_served_meanwhile(self, listen: Listen) -> None:
        node, modality = modality_of(listen, same_association_seconds=0.5)
        store(node, "1.2.3")
        with modality.calling() as association:
            assert ask(association, "2.25.1", named("1.2.3")) == 0
            assert ask(association, "2.25.2", named("1.2.3")) == 0
            modality.hears(2)
            assert ask(association, "2.25.3", named("1.2.3")) == 0
            modality.hears(3)
        assert [heard.transaction_uid for heard in modality.heard] == ["2.25.1", "2.25.2", "2.25.3"]

    def test_implicit_little_endian_is_spoken_too(self, listen: Listen) -> None:
        """Some speak nothing else: it is DICOM's default."""
        node, modality = modality_of(listen)
        store(node, "1.2.3")
        with modality.calling([ImplicitVRLittleEndian]) as association:
            assert ask(association, "2.25.1", named("1.2.3")) == 0
            assert modality.hears().committed == ("1.2.3",)

    def test_a_peer_without_a_port_is_told_only_there(self, listen: Listen) -> None:
        node = listen(commitment=SOON)
        modality = Modality(node_port=node.port)
        store(node, "1.2.3")
        assert modality.ask("2.25.1", named("1.2.3")) == 0
        eventually(lambda: answer(node), 5, "the request is due")
        (waiting,) = node.store.unanswered_requests(10)
        assert (waiting.state, waiting.last_error) == (
            RequestState.PENDING,
            "no commitment_port is configured for this source",
        )
        with modality.calling() as association:
            assert ask(association, "2.25.1", named("1.2.3")) == 0
            assert modality.hears().committed == ("1.2.3",)


class TestOnAnotherAssociation:
    def test_over_tls_to_a_source_of_our_authority_and_to_no_other(self, listen: Listen, tmp_path: Path) -> None:
        ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs", "Another authority")
        own = ours.issue("node")
        modality = Modality(node_port=free_port())
        node = listen(
            node={"port": modality.node_port},
            sources=[{**modality.source, "commitment_tls": True}, {"ae_title": "REPLAY", "host": "127.0.0.1"}],
            tls={"certificate": str(own.certificate), "key": str(own.key), "client_ca": str(ours.file)},
            commitment=SOON,
            delivery={"timeout_seconds": 5, "first_retry_seconds": 0.01},
        )
        store(node, "1.2.3")
        assert modality.ask("2.25.1", named("1.2.3")) == 0
        for authority, listened in ((theirs, 0), (ours, 1)):
            files = authority.issue("modality")
            modality.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            modality.tls.load_cert_chain(files.certificate, files.key)
            modality.tls.load_verify_locations(ours.file)
            modality.tls.verify_mode = ssl.CERT_REQUIRED  # ours is shown and checked
            with modality.listening():
                eventually(lambda: answer(node, later=timedelta(hours=1)), 5, "the request is due")
            assert len(modality.heard) == listened
        assert states(node) == {RequestState.ANSWERED: 1}

    def test_a_modality_that_hangs_up_is_called_back(self, listen: Listen) -> None:
        node, modality = modality_of(listen)
        store(node, "1.2.3")
        with modality.listening():
            assert modality.ask("2.25.1", named("1.2.3")) == 0
            eventually(lambda: answer(node), 5, "the report is due")
            heard = modality.hears()
        assert (heard.committed, heard.on_own_call, heard.calling_ae) == (("1.2.3",), False, "PULMOLINK")
        assert heard.roles == (False, True)  # PS3.4 J.2.1: we call, and are the SCP
        assert states(node) == {RequestState.ANSWERED: 1}

    def test_several_requests_are_answered_over_one_association(self, listen: Listen) -> None:
        node, modality = modality_of(listen)
        store(node, "1.2.3")
        with modality.listening():
            for number in range(3):
                assert modality.ask(f"2.25.{number}", named("1.2.3")) == 0
            eventually(lambda: len(node.store.unanswered_requests(10)) == 3, 5, "all are written")
            time.sleep(0.2)  # the associations end
            assert answer(node) == 3
            modality.hears(3)

    def test_a_modality_that_is_away_is_tried_again_and_others_do_not_wait_for_it(self, listen: Listen) -> None:
        away, here = Modality(node_port=free_port(), ae_title="AWAY"), Modality(node_port=0, ae_title="HERE")
        here.node_port = away.node_port
        node = listen(
            node={"port": away.node_port},
            sources=[away.source, here.source],
            commitment=SOON,
            delivery={"timeout_seconds": 2, "first_retry_seconds": 60},
        )
        for number in range(3):
            assert away.ask(f"2.25.1{number}", named("1.2.3")) == 0
        with here.listening():
            assert here.ask("2.25.20", named("1.2.3")) == 0
            eventually(lambda: node.store.claim_request(datetime.now(UTC), datetime.now(UTC)), 5, "all are due")
            time.sleep(0.2)
            assert answer(node) == 1  # one try for all three
            assert answer(node) == 1
            here.hears()
        with away.listening():
            assert answer(node, later=timedelta(seconds=61)) == 3
            away.hears(3)
        assert states(node) == {RequestState.ANSWERED: 4}

    def test_nobody_is_told_for_ever(self, listen: Listen) -> None:
        node, modality = modality_of(listen, give_up_days=2)
        assert modality.ask("2.25.1", named("1.2.3")) == 0
        eventually(lambda: answer(node), 5, "the report is due")
        assert states(node) == {RequestState.PENDING: 1}
        assert answer(node, later=timedelta(days=2, seconds=1)) == 1
        assert states(node) == {RequestState.GIVEN_UP: 1}

    @pytest.mark.parametrize(("status", "state"), [(0x0110, RequestState.PENDING), (0x0115, RequestState.GIVEN_UP)])
    def test_a_report_that_is_refused_is_repeated_only_if_that_may_help(
        self, listen: Listen, status: int, state: RequestState
    ) -> None:
        node, modality = modality_of(listen)
        modality.answer = lambda _: status
        with modality.listening():
            assert modality.ask("2.25.1", named("1.2.3")) == 0
            eventually(lambda: answer(node), 5, "the report is due")
        (request,) = node.store.unanswered_requests(10)
        assert request.state is state
        assert f"0x{status:04X}" in request.last_error

    def test_what_was_asked_before_a_restart_is_answered_after_it(self, listen: Listen) -> None:
        """The process that wrote the request down dies without a word: its claim ends by time."""
        node, modality = modality_of(listen, same_association_seconds=3600)
        store(node, "1.2.3")
        with modality.listening():
            now = datetime.now(UTC)
            node.store.add_request(
                "2.25.1", "MODALITY", "127.0.0.1", named("1.2.3"), due_at=now + timedelta(seconds=9), now=now
            )
            assert answer(node) == 0
            assert answer(node, later=timedelta(seconds=10)) == 1
            assert modality.hears().committed == ("1.2.3",)


class TestTransactions:
    def test_the_same_request_once_more_is_answered_once_more(self, listen: Listen) -> None:
        """Its first answer, or our response, may have been lost."""
        node, modality = modality_of(listen)
        store(node, "1.2.3")
        with modality.calling() as association:
            for number in (1, 2):
                assert ask(association, "2.25.1", named("1.2.3")) == 0
                assert modality.hears(number).committed == ("1.2.3",)
        assert sum(states(node).values()) == 1

    def test_a_transaction_uid_in_use_for_other_objects_fails_them_all(self, listen: Listen) -> None:
        node, modality = modality_of(listen)
        store(node, "1.2.3", "1.2.4")
        with modality.calling() as association:
            assert ask(association, "2.25.1", named("1.2.3")) == 0
            modality.hears(1)
            assert ask(association, "2.25.1", named("1.2.4")) == 0
            heard = modality.hears(2)
        assert (heard.event_type, heard.committed, heard.failed) == (2, (), {"1.2.4": 0x0131})


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"action": 2}, 0x0123),
            ({"instance": "1.2.840.10008.1.20.1.9"}, 0x0112),
        ],
    )
    def test_what_the_standard_does_not_know_is_refused(
        self, listen: Listen, changes: dict[str, object], status: int
    ) -> None:
        node, modality = modality_of(listen)
        information = Dataset()
        information.TransactionUID = "2.25.1"
        with modality.calling() as association:
            assert ask(association, "2.25.1", named("1.2.3"), **changes) == status  # type: ignore[arg-type]
            assert ask(association, "2.25.1", (), information=information) == 0x0115
            no_uid = request_data_set(Request(transaction_uid="", references=named("1.2.3")))
            assert ask(association, "", (), information=no_uid) == 0x0115
            assert ask(association, "no uid", named("1.2.3")) == 0x0115
            assert ask(association, "2.25.1", named("../../1.2.3")) == 0x0115
        assert states(node) == {}

    def test_a_message_beyond_the_bounds_is_answered_resource_limitation(self, listen: Listen) -> None:
        node = listen(limits={"commitment_bytes": 4096, "commitment_references": 20})
        modality = Modality(node_port=node.port)
        with modality.calling() as association:
            assert ask(association, "2.25.1", named(*(f"1.2.{n}" for n in range(20)))) == 0
            assert ask(association, "2.25.2", named(*(f"1.2.{n}" for n in range(21)))) == 0x0213
            assert ask(association, "2.25.3", named(*(f"1.2.{n}" for n in range(2000)))) == 0x0213
        assert sum(states(node).values()) == 1

    def test_a_source_with_too_many_unanswered_requests_is_answered_resource_limitation(self, listen: Listen) -> None:
        node = listen(
            limits={"commitment_pending": 2},
            sources=[{"ae_title": title, "host": "127.0.0.1"} for title in ("MODALITY", "OTHER")],
            commitment={"same_association_seconds": 3600},
        )
        with Modality(node_port=node.port).calling() as association:
            statuses = [ask(association, f"2.25.{number}", named("1.2.3")) for number in range(1, 4)]
        assert statuses == [0, 0, 0x0213]
        assert Modality(node_port=node.port, ae_title="OTHER").ask("2.25.9", named("1.2.3")) == 0
        assert states(node) == {RequestState.PENDING: 3}
        assert [node.store.pending_requests(title) for title in ("MODALITY", "OTHER", "NOBODY")] == [2, 1, 0]

    def test_requests_far_beyond_the_rate_are_answered_resource_limitation(
        self, listen: Listen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rates, "LONGEST_WAIT_SECONDS", 0.0)
        node = listen(limits={"objects_per_second": 0.01})
        with Modality(node_port=node.port).calling() as association:
            statuses = [ask(association, f"2.25.{number}", named("1.2.3")) for number in range(1, 4)]
        assert statuses == [0, 0x0213, 0x0213]
        assert sum(states(node).values()) == 1

    def test_without_room_nothing_is_written_down(self, listen: Listen) -> None:
        node = listen(limits={"free_disk_bytes": 2**62})
        assert Modality(node_port=node.port).ask("2.25.1", named("1.2.3")) == 0x0213
        assert states(node) == {}


class TestOddPeers:
    CONTEXTS = ((VERIFICATION, IMPLICIT), (STORAGE_COMMITMENT, IMPLICIT))

    def test_an_action_without_a_data_set_is_an_invalid_argument(self, listen: Listen) -> None:
        line = listen().associate(self.CONTEXTS)
        line.socket.sendall(command_pdus(3, command(N_ACTION_RQ, 1, STORAGE_COMMITMENT), 16384))
        assert line.status() == 0x0115
        assert line.echo() == 0
        line.release()

    def test_an_answer_to_a_report_that_was_not_sent_ends_the_association(self, listen: Listen) -> None:
        line = listen().associate(self.CONTEXTS)
        line.socket.sendall(command_pdus(3, self._answer(1, with_data=False), 16384))
        assert line.pdu()[0] == ABORT
        line.close()

    @pytest.mark.parametrize("with_data", [False, True])
    def test_an_answer_may_carry_a_data_set(self, listen: Listen, with_data: bool) -> None:
        node = listen(commitment=SOON)
        line = self._asked(node)
        line.socket.sendall(command_pdus(3, self._answer(1, with_data=with_data), 16384))
        if with_data:
            line.socket.sendall(data_pdus(3, bytes(8), 16384))
        assert line.echo() == 0
        assert states(node) == {RequestState.ANSWERED: 1}
        line.release()

    def test_an_answers_data_set_is_measured_by_itself(self, listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(association_module, "SURPLUS_BYTES", 0)
        line = self._asked(listen(commitment=SOON, limits={"object_bytes": 1024}))
        line.socket.sendall(command_pdus(3, self._answer(1, with_data=True), 16384) + data_pdus(3, bytes(1024), 16384))
        assert line.echo() == 0
        line.release()

    def test_a_peer_that_never_answers_the_report_is_told_again_later(self, listen: Listen) -> None:
        node = listen(commitment=SOON, limits={"network_timeout_seconds": 1})
        line = self._asked(node)
        assert line.pdu()[0] == ABORT
        line.close()
        eventually(lambda: node.store.claim_request(datetime.now(UTC), datetime.now(UTC)), 5, "it is due again")

    def test_a_release_that_crosses_the_report_is_answered_and_the_report_is_due_again(self, listen: Listen) -> None:
        node = listen(commitment=SOON)
        line = self._asked(node)
        line.release()
        eventually(lambda: node.store.claim_request(datetime.now(UTC), datetime.now(UTC)), 5, "it is due again")

    def _asked(self, node: Listening) -> Line:
        """An association on which the report has come, and its answer has not."""
        line = node.associate(self.CONTEXTS)
        request = request_data_set(Request(transaction_uid="2.25.1", references=named("1.2.3")))
        data = encode(request, is_implicit_vr=True, is_little_endian=True)
        assert data is not None
        asked = self._with_data(command(N_ACTION_RQ, 1, STORAGE_COMMITMENT))
        asked += struct.pack("<HHI", 0, 0x1001, 22) + STORAGE_COMMITMENT_INSTANCE.encode()
        asked += struct.pack("<HHIH", 0, 0x1008, 2, 1)
        line.socket.sendall(command_pdus(3, asked, 16384) + data_pdus(3, data, 16384))
        assert line.status() == 0
        kind, body = line.pdu()
        assert kind == P_DATA
        assert read_command(body[ITEM.size :]).field == N_EVENT_REPORT_RQ
        assert line.pdu()[0] == P_DATA
        return line

    def _answer(self, message_id: int, *, with_data: bool) -> bytes:
        said = read_command(command(N_EVENT_REPORT_RQ, message_id, STORAGE_COMMITMENT))
        made = response(said, 0)
        return self._with_data(made) if with_data else made

    @staticmethod
    def _with_data(made: bytes) -> bytes:
        """The command set with its Command Data Set Type saying that a data set follows."""
        at = made.index(struct.pack("<HHI", 0, 0x0800, 2)) + 8
        return made[:at] + b"\x01\x00" + made[at + 2 :]


class TestRoles:
    """PS3.4 J.2.1, PS3.7 D.3.3.4."""

    def test_a_destination_may_report_as_scp_although_it_calls(self, listen: Listen) -> None:
        association = self._associate(listen(), build_role(STORAGE_COMMITMENT, scu_role=False, scp_role=True))
        (context,) = association.accepted_contexts
        assert (context.as_scu, context.as_scp) == (False, True)
        association.release()

    def test_both_roles_are_granted(self, listen: Listen) -> None:
        association = self._associate(listen(), build_role(STORAGE_COMMITMENT, scu_role=True, scp_role=True))
        (context,) = association.accepted_contexts
        assert (context.as_scu, context.as_scp) == (True, True)
        association.release()

    def test_without_a_selection_the_caller_is_the_scu(self, listen: Listen) -> None:
        association = self._associate(listen())
        (context,) = association.accepted_contexts
        assert (context.as_scu, context.as_scp) == (True, False)
        association.release()

    @staticmethod
    def _associate(node: Listening, *roles: object) -> Association:
        ae = AE(ae_title="MODALITY")
        ae.add_requested_context(STORAGE_COMMITMENT, ImplicitVRLittleEndian)
        return ae.associate("127.0.0.1", node.port, ae_title="PULMOLINK", ext_neg=list(roles))  # type: ignore[arg-type]


def test_a_data_set_is_cut_into_pdus_that_the_peer_takes() -> None:
    pdus = data_pdus(3, bytes(range(20)), 6 + 8)
    assert len(pdus) == 3 * (6 + 6) + 20
    assert pdus[11] == 0
    assert pdus[-5] == 2  # the last one says so
