"""What is answered on one association, request by request (PS3.7, PS3.8)."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest
from pynetdicom import AE
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation, UserIdentityNegotiation
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]

from pacs_node.dicom.commands import C_STORE_RQ, read_command, response
from pacs_node.dicom.pdata import command_pdus
from pacs_node.dicom.server import PortTaken, StorageServer
from pacs_node.dicom.wire import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    INVALID_PARAMETER,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    UNEXPECTED_PARAMETER,
    UNEXPECTED_PDU,
    UNRECOGNIZED_PDU,
    ProtocolError,
)
from pacs_node.flow.sop_classes import COMPUTED_RADIOGRAPHY
from pacs_node.settings import Settings
from tests.benchmarks.replay import command
from tests.integration.rig import eventually
from tests.unit.dicom.peers import (
    CONTEXTS,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Listening,
    aborted,
    answer,
    film,
    pdu,
    pdv,
    request,
    stored,
)

Listen = Callable[..., Listening]


class TestRequests:
    def test_c_echo_succeeds(self, listen: Listen) -> None:
        listen().serves()

    def test_c_store_succeeds_once_and_is_found_in_the_rows(self, listen: Listen) -> None:
        node = listen()
        line = node.associate()
        line.socket.sendall(stored(film()))
        assert line.status() == 0
        line.release()
        (row,) = node.store.instances()
        assert row.instance.calling_ae == "REPLAY"
        assert node.objects.get(row.instance.sha256) == film()

    def test_a_data_set_in_fragments_of_one_byte_is_the_same_data_set(self, listen: Listen) -> None:
        node = listen()
        line = node.associate()
        line.socket.sendall(stored(film(), pdu_bytes=7))
        assert line.status() == 0
        line.release()
        assert node.objects.get(node.store.instances()[0].instance.sha256) == film()

    def test_several_fragments_in_one_pdu_and_two_messages_in_one_segment_are_taken(self, listen: Listen) -> None:
        node = listen()
        line = node.associate()
        content = film()
        data = content[content.index(b"\x08\x00\x05\x00") if b"\x08\x00\x05\x00" in content else 0 :]
        assert data
        line.socket.sendall(stored(film("1.2.3"), message_id=1) + stored(film("1.2.4"), message_id=2))
        assert (line.status(), line.status()) == (0, 0)
        line.release()
        assert len(node.store.instances()) == 2

    @pytest.mark.parametrize("field", [0x0020, 0x0021, 0x0010, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150, 0x0666])
    @pytest.mark.parametrize("with_data", [True, False])
    def test_what_is_not_served_is_answered_as_unrecognised(self, listen: Listen, field: int, with_data: bool) -> None:
        node = listen()
        line = node.associate()
        asked = bytearray(command(field, 7, VERIFICATION))
        if with_data:
            at = bytes(asked).index(struct.pack("<HHI", 0, 0x0800, 2)) + 8
            asked[at : at + 2] = b"\x01\x00"
        line.socket.sendall(command_pdus(1, bytes(asked), 16384))
        if with_data:
            line.socket.sendall(pdu(P_DATA, pdv(1, 2, b"\x08\x00\x60\x00\x00\x00\x00\x00")))
        assert line.status() == 0x0211
        assert line.echo() == 0
        line.release()

    def test_a_c_cancel_has_no_answer_and_does_no_harm(self, listen: Listen) -> None:
        line = listen().associate()
        cancel = bytearray(command(0x0FFF, 7, ""))
        at = bytes(cancel).index(struct.pack("<HHI", 0, 0x0110, 2))
        cancel[at + 2 : at + 4] = b"\x20\x01"  # MessageIDBeingRespondedTo
        line.socket.sendall(command_pdus(1, bytes(cancel), 16384))
        assert line.echo() == 0
        line.release()

    def test_a_c_store_of_another_sop_class_than_its_context_is_refused(self, listen: Listen) -> None:
        node = listen()
        line = node.associate()
        line.socket.sendall(command_pdus(3, command(C_STORE_RQ, 1, "1.2.840.10008.5.1.4.1.1.2", "1.2"), 16384))
        line.socket.sendall(pdu(P_DATA, pdv(3, 2, bytes(8))))
        assert line.status() == 0x0122
        assert line.echo() == 0
        line.release()
        assert node.files() == 0

    def test_a_c_store_without_an_instance_uid_is_refused(self, listen: Listen) -> None:
        line = listen().associate()
        line.socket.sendall(command_pdus(3, command(C_STORE_RQ, 1, COMPUTED_RADIOGRAPHY, ""), 16384))
        line.socket.sendall(pdu(P_DATA, pdv(3, 2, bytes(8))))
        assert line.status() == 0x0212
        line.release()

    def test_an_object_beyond_the_limit_is_answered_out_of_resources_and_leaves_nothing(self, listen: Listen) -> None:
        node = listen(limits={"object_bytes": 2048})
        line = node.associate()
        line.socket.sendall(stored(film(ImageComments="x" * 4000)))
        assert line.status() == 0xA700
        assert line.echo() == 0
        line.release()
        assert node.files() == 0

    def test_a_connection_lost_within_an_object_leaves_nothing(self, listen: Listen) -> None:
        node = listen()
        line = node.associate()
        line.socket.sendall(stored(film(ImageComments="x" * 9000))[:6000])
        time.sleep(0.1)
        line.close()
        deadline = time.monotonic() + 5
        while node.server.counts()[0] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert node.files() == 0
        assert node.store.instances() == ()

    @pytest.mark.parametrize("uid", ["../../../etc/passwd", "1.2/../3", "A" * 64, "1.2\\3", "1..2", "0" * 300])
    def test_a_uid_that_is_none_never_makes_a_path(self, listen: Listen, uid: str) -> None:
        node = listen()
        line = node.associate()
        line.socket.sendall(stored(film(uid)))
        assert line.status() in {0, 0xA900, 0xC000}
        line.release()
        names = {path.name for path in node.objects.root.rglob("*") if path.is_file()} - {"lock"}
        assert all(len(name) == 64 for name in names)

    def test_the_same_instance_from_ten_senders_at_once_is_one_row(self, listen: Listen) -> None:
        node = listen()
        statuses: list[int] = []
        gate = threading.Barrier(10)

        def send() -> None:
            line = node.associate()
            for number in range(5):
                gate.wait()
                line.socket.sendall(stored(film(f"1.2.{number}")))
                statuses.append(line.status())
            line.release()

        threads = [threading.Thread(target=send) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0] * 50
        assert len(node.store.instances()) == 5
        assert node.files() == 5


class TestNegotiation:
    def test_every_context_is_answered_with_its_own_result(self, listen: Listen) -> None:
        node = listen()
        ae = AE(ae_title="PYNET")
        ae.add_requested_context(Verification)
        ae.add_requested_context(COMPUTED_RADIOGRAPHY, [IMPLICIT, EXPLICIT])
        ae.add_requested_context(CTImageStorage)
        association = ae.associate("127.0.0.1", node.port)
        assert association.is_established
        assert {str(context.abstract_syntax) for context in association.accepted_contexts} == {
            VERIFICATION,
            COMPUTED_RADIOGRAPHY,
        }
        (refused,) = association.rejected_contexts
        assert refused.result == 3  # abstract syntax not supported
        assert association.acceptor.maximum_length == Settings().limits.pdu_bytes
        association.release()
        assert association.is_released

    def test_user_identity_and_role_selection_are_understood(self, listen: Listen) -> None:
        identity = UserIdentityNegotiation()
        identity.user_identity_type, identity.primary_field = 2, b"user"
        identity.secondary_field, identity.positive_response_requested = b"secret", True
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = COMPUTED_RADIOGRAPHY, True, True
        ae = AE(ae_title="PYNET")
        ae.add_requested_context(COMPUTED_RADIOGRAPHY)
        association = ae.associate("127.0.0.1", listen().port, ext_neg=[identity, role])
        assert association.is_established
        assert [context.as_scu for context in association.accepted_contexts] == [True]
        association.release()

    @pytest.mark.parametrize("calling", [b"REPLAY".ljust(16, b"\0"), b"REPLAY\0".ljust(16)])
    @pytest.mark.parametrize("called", [b"PULMOLINK".ljust(16, b"\0"), b"PULMOLINK".ljust(16)])
    def test_titles_padded_with_nul_are_taken_and_sent_back_as_they_came(
        self, listen: Listen, calling: bytes, called: bytes
    ) -> None:
        source = {"ae_title": "REPLAY", "host": "127.0.0.1"}
        node = listen(node={"require_called_ae_title": True}, sources=[source])
        asked = bytearray(request())
        asked[10:42] = called + calling
        with node.connect() as connection:
            connection.sendall(asked)
            told = connection.recv(65536)
        assert told[0] == ASSOCIATE_AC
        assert told[10:42] == called + calling

    @pytest.mark.parametrize("name", [b"V1\0", b"A" * 20, b"V\xd61", b"\0", b""])
    def test_an_implementation_version_name_of_any_form_is_taken(self, listen: Listen, name: bytes) -> None:
        asked = request()
        at = asked.index(b"\x50\x00", 74)
        item = struct.pack(">BxH", 0x55, len(name)) + name
        body = asked[6:at] + struct.pack(">BxH", 0x50, len(asked) - at - 4 + len(item)) + asked[at + 4 :] + item
        with listen().connect() as connection:
            connection.sendall(pdu(ASSOCIATE_RQ, body))
            assert connection.recv(65536)[0] == ASSOCIATE_AC

    @pytest.mark.parametrize("syntaxes", [b"", struct.pack(">BxH", 0x40, 0)])
    def test_a_context_without_a_transfer_syntax_is_refused_alone(self, listen: Listen, syntaxes: bytes) -> None:
        inner = bytes((5, 0, 0, 0)) + struct.pack(">BxH", 0x30, len(VERIFICATION)) + VERIFICATION.encode() + syntaxes
        asked = request()
        at = asked.index(b"\x50\x00", 74)
        body = asked[6:at] + struct.pack(">BxH", 0x20, len(inner)) + inner + asked[at:]
        with listen().connect() as connection:
            connection.sendall(pdu(ASSOCIATE_RQ, body))
            told = connection.recv(65536)
        assert told[0] == ASSOCIATE_AC
        at = told.index(b"\x21\x00", 74)
        results = {}
        while told[at : at + 2] == b"\x21\x00":
            results[told[at + 4]] = told[at + 6]
            at += 4 + int.from_bytes(told[at + 2 : at + 4], "big")
        assert results == {1: 0, 3: 0, 5: 4}  # transfer syntaxes not supported

    def test_who_sent_a_request_that_cannot_be_read_is_told(
        self, listen: Listen, capsys: pytest.CaptureFixture[str]
    ) -> None:
        node = listen()
        with node.connect() as connection:
            connection.sendall(request(()))
            assert aborted(answer(connection)) == INVALID_PARAMETER
        eventually(lambda: node.counts() == {("cut", "protocol_error"): 1}, 5, "counted once")
        captured = capsys.readouterr()
        audit, cut = (line for line in (captured.out + captured.err).splitlines() if "REPLAY" in line)
        assert "association_aborted" in audit
        assert "association_cut" in cut

    def test_items_that_nobody_knows_are_skipped(self, listen: Listen) -> None:
        """PS3.8 9.3.1: a receiver ignores variable items of a type it does not recognise."""
        node = listen()
        asked = request()
        body = asked[6:] + b"\x77\x00\x00\x04wxyz"
        with node.connect() as connection:
            connection.sendall(pdu(1, body))
            assert connection.recv(1)[0] == ASSOCIATE_AC

    def rejection(self, node: Listening, asked: bytes) -> tuple[int, ...]:
        with node.connect() as connection:
            connection.sendall(asked)
            told = answer(connection)
        assert told[0] == ASSOCIATE_RJ
        return tuple(told[7:10])

    def test_another_protocol_version_is_rejected(self, listen: Listen) -> None:
        asked = bytearray(request())
        asked[6:8] = b"\x00\x02"
        assert self.rejection(listen(), bytes(asked)) == (1, 2, 2)

    def test_another_application_context_is_rejected(self, listen: Listen) -> None:
        asked = request().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9")
        assert self.rejection(listen(), asked) == (1, 1, 2)

    def test_another_called_ae_title_is_rejected_where_ours_is_required(self, listen: Listen) -> None:
        node = listen(node={"ae_title": "OTHER", "require_called_ae_title": True})
        assert self.rejection(node, request()) == (1, 1, 7)

    @pytest.mark.parametrize(
        ("source", "accepted"),
        [
            ({"ae_title": "REPLAY", "host": "127.0.0.1"}, True),
            ({"ae_title": "REPLAY", "host": "127.0.0.0/8"}, True),
            ({"ae_title": "REPLAY", "host": "localhost"}, True),
            ({"ae_title": "REPLAY", "host": "10.0.0.0/8"}, False),
            ({"ae_title": "REPLAY", "host": "no-such-host.invalid"}, False),
            ({"ae_title": "ANOTHER", "host": "127.0.0.1"}, False),
        ],
    )
    def test_only_configured_sources_may_speak(self, listen: Listen, source: dict[str, str], accepted: bool) -> None:
        node = listen(sources=[source])
        if accepted:
            node.serves()
        else:
            assert self.rejection(node, request()) == (1, 1, 3)

    def test_more_contexts_than_allowed_are_rejected(self, listen: Listen) -> None:
        node = listen(limits={"presentation_contexts": 3})
        assert self.rejection(node, request([*CONTEXTS, *CONTEXTS])) == (1, 3, 2)

    def test_a_hundred_and_twenty_eight_contexts_are_answered(self, listen: Listen) -> None:
        line = listen().associate([(COMPUTED_RADIOGRAPHY, EXPLICIT)] * 128)
        line.release()

    def test_more_user_information_than_allowed_is_rejected(self, listen: Listen) -> None:
        node = listen(limits={"user_information_bytes": 256})
        asked = request()
        item = b"\x58\x00" + struct.pack(">H", 400) + b"\x02\x00" + struct.pack(">H", 394) + b"x" * 394 + b"\0\0"
        at = asked.index(b"\x50\x00", 74)
        old = int.from_bytes(asked[at + 2 : at + 4], "big")
        user = b"\x50\x00" + struct.pack(">H", old + len(item)) + asked[at + 4 :] + item
        assert self.rejection(node, pdu(1, asked[6:at] + user)) == (1, 3, 2)

    def test_an_association_too_many_is_rejected_as_congested_and_taken_later(self, listen: Listen) -> None:
        node = listen(limits={"associations": 1})
        first = node.associate()
        assert self.rejection(node, request()) == (2, 3, 2)
        first.release()
        time.sleep(0.1)
        node.serves()


class TestBrokenProtocol:
    """Each ends in an A-ABORT of the provider with the reason of PS3.8 table 9-26."""

    def reason(self, listen: Listen, told: bytes, *, established: bool = True) -> int | None:
        node = listen()
        with node.connect() as connection:
            connection.sendall(request() + told if established else told)
            reason = aborted(answer(connection))
        node.serves()
        return reason

    @pytest.mark.parametrize("kind", [0, 8, 0x16, 0x47, 0xFF])
    def test_an_unknown_pdu(self, listen: Listen, kind: int) -> None:
        assert self.reason(listen, pdu(kind, bytes(4))) == UNRECOGNIZED_PDU
        assert self.reason(listen, pdu(kind, bytes(4)), established=False) == UNRECOGNIZED_PDU

    @pytest.mark.parametrize("kind", [P_DATA, RELEASE_RQ, RELEASE_RP, ASSOCIATE_AC])
    def test_anything_before_the_association(self, listen: Listen, kind: int) -> None:
        assert self.reason(listen, pdu(kind, bytes(4)), established=False) == UNEXPECTED_PDU

    def test_a_second_association_request(self, listen: Listen) -> None:
        assert self.reason(listen, request()) == UNEXPECTED_PDU

    @pytest.mark.parametrize("length", [0xFFFFFFFF, 2**31, 2**20])
    @pytest.mark.parametrize("established", [True, False])
    def test_a_length_that_is_never_sent(self, listen: Listen, length: int, established: bool) -> None:
        told = pdu(P_DATA if established else 1, bytes(64), length=length)
        assert self.reason(listen, told, established=established) == INVALID_PARAMETER

    @pytest.mark.parametrize(
        "body",
        [b"", bytes(5), pdv(1, 3, b"", length=1), pdv(1, 3, b"", length=0xFFFFFFFF), pdv(1, 3, b"x", length=9)],
    )
    def test_presentation_data_values_that_do_not_add_up(self, listen: Listen, body: bytes) -> None:
        assert self.reason(listen, pdu(P_DATA, body)) == INVALID_PARAMETER

    def test_a_context_that_was_not_accepted(self, listen: Listen) -> None:
        assert self.reason(listen, command_pdus(9, command(0x30, 1, VERIFICATION), 0)) == UNEXPECTED_PARAMETER

    def test_a_data_set_without_a_command(self, listen: Listen) -> None:
        assert self.reason(listen, pdu(P_DATA, pdv(3, 2, b"xx"))) == UNEXPECTED_PARAMETER

    def test_a_command_within_a_data_set(self, listen: Listen) -> None:
        begun = stored(film())[: -len(film()) // 2]
        whole = command_pdus(3, command(C_STORE_RQ, 1, COMPUTED_RADIOGRAPHY, "1.2"), 0)
        assert begun
        assert self.reason(listen, whole + whole) == UNEXPECTED_PARAMETER

    def test_another_context_within_a_message(self, listen: Listen) -> None:
        whole = command_pdus(3, command(C_STORE_RQ, 1, COMPUTED_RADIOGRAPHY, "1.2"), 0)
        assert self.reason(listen, whole + pdu(P_DATA, pdv(1, 2, b"xx"))) == UNEXPECTED_PARAMETER

    def test_a_response_that_nobody_asked_for(self, listen: Listen) -> None:
        asked = read_command(command(0x30, 1, VERIFICATION))
        assert self.reason(listen, command_pdus(1, response(asked, 0), 0)) == UNEXPECTED_PARAMETER

    def test_a_command_set_that_never_ends(self, listen: Listen) -> None:
        endless = pdu(P_DATA, pdv(1, 1, bytes(4096))) * 6
        assert self.reason(listen, endless) == INVALID_PARAMETER

    @pytest.mark.parametrize("data", [b"\0" * 7, b"\x08\0\x05\0\0\0\0\0", struct.pack("<HHI", 0, 2, 0xFFFFFFFF), b""])
    def test_a_command_set_that_is_none(self, data: bytes) -> None:
        with pytest.raises(ProtocolError):
            read_command(data)

    def test_a_peers_abort_ends_the_association_quietly(self, listen: Listen) -> None:
        node = listen()
        with node.connect() as connection:
            connection.sendall(request() + pdu(ABORT, bytes(4)))
            assert answer(connection)[0] == ASSOCIATE_AC
        node.serves()


class TestTheServer:
    def test_a_port_taken_is_said_at_start(self, listen: Listen) -> None:
        node = listen()
        settings = Settings.model_validate({"node": {"port": node.port}})
        with pytest.raises(PortTaken, match=f"127.0.0.1:{node.port}.*node.port"):
            StorageServer(settings, lambda _origin: pytest.fail("nothing is received")).start()

    def test_stopping_lets_a_message_end_and_aborts_what_idles(self, listen: Listen) -> None:
        node = listen()
        busy, idle = node.associate(), node.associate()
        whole = stored(film(ImageComments="x" * 9000))
        busy.socket.sendall(whole[:6000])
        time.sleep(0.2)
        stopping = threading.Thread(target=node.server.stop, args=(10.0,))
        stopping.start()
        assert idle.pdu()[0] == ABORT
        busy.socket.sendall(whole[6000:])
        assert busy.status() == 0
        assert busy.pdu()[0] == ABORT
        for line in (busy, idle):
            line.close()
        stopping.join(timeout=10)
        assert not stopping.is_alive()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", node.port), timeout=1)

    def test_stopping_ends_a_busy_association_between_two_messages(self, listen: Listen) -> None:
        """A sender that never pauses would otherwise send until it is cut in the middle of an object."""
        node = listen()
        busy = node.associate()
        answered = 0
        stopping = threading.Thread(target=node.server.stop, args=(60.0,))
        deadline = time.monotonic() + 10
        for number in range(100_000):
            assert time.monotonic() < deadline, "still taken"
            busy.socket.sendall(stored(film(f"1.2.{number}")))
            kind, _ = busy.pdu()
            if kind != P_DATA:
                break
            answered += 1
            if number == 5:
                stopping.start()
        assert kind == ABORT
        busy.close()
        stopping.join(timeout=10)
        assert not stopping.is_alive()
        assert len(node.store.instances(limit=100_000)) == answered
        assert node.counts()["cut", "stopping"] == 1

    def test_a_message_that_takes_too_long_names_its_own_limit(
        self, listen: Listen, capsys: pytest.CaptureFixture[str]
    ) -> None:
        node = listen(limits={"message_seconds": 0.2})
        line = node.associate()
        whole = stored(film())
        line.socket.sendall(whole[: 6 + int.from_bytes(whole[2:6], "big")])  # the command, and then silence
        assert line.pdu()[0] == ABORT
        line.close()
        eventually(lambda: node.server.counts() == (0, 0), 5, "the association is forgotten")
        captured = capsys.readouterr()
        told = captured.out + captured.err
        assert "limits.message_seconds" in told
        assert "limits.network_timeout_seconds" not in told

    def test_a_hundred_associations_at_once_are_served(self, listen: Listen) -> None:
        node = listen()
        lines = [node.associate() for _ in range(100)]
        assert [line.echo() for line in lines] == [0] * 100
        for line in lines:
            line.release()
