"""One association from its request to its end: the protocol machine of an acceptor (PS3.8 9.2), and DIMSE on top.

Comes in: a `Wire`. Goes out: data sets, fragment by fragment, to a `Reception` made for each C-STORE; responses back
to the peer. C-ECHO, C-STORE and storage commitment's N-ACTION and N-EVENT-REPORT are served; every other request is
answered with the standard's refusal. A commitment report of ours may go out on the association that asked for it.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from pacs_node.dicom import wire
from pacs_node.dicom.audit import clean
from pacs_node.dicom.commands import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_STORE_RQ,
    INVALID_ARGUMENT,
    MISTYPED_ARGUMENT,
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    REQUESTS,
    RESPONSE,
    SOP_CLASS_NOT_SUPPORTED,
    UNRECOGNIZED_OPERATION,
    Command,
    event_report,
    read_command,
    response,
)
from pacs_node.dicom.negotiation import Accepted, Context, Rejected, Undecodable
from pacs_node.dicom.pdata import IS_COMMAND, IS_LAST, command_pdus, data_pdus, fragments
from pacs_node.dicom.primitives import VERIFICATION
from pacs_node.dicom.wire import PeerGone, ProtocolError, Stopping, TooSlow, Wire
from pacs_node.flow.receive import CANNOT_UNDERSTAND, PROCESSING_FAILURE, Receipt
from pacs_node.flow.sop_classes import STORAGE_COMMITMENT
from pacs_node.settings import Limits, Source
from storage.errors import StorageError

log = structlog.get_logger()

SURPLUS_BYTES = 64 * 2**20
"""How much beyond limits.object_bytes is read and dropped, so that the sender gets its status and not an abort."""

THE_MOMENT = "the moment for a report"
"""Names the end of a wait that is no limit: a report of ours is due."""

BY_PROVIDER = 2
"""Source of our aborts: the protocol machine (PS3.8 table 9-26)."""


class Reception(Protocol):
    """Takes one data set as it arrives."""

    def write(self, fragment: memoryview) -> None:
        """The next bytes, valid during the call."""

    def finish(self) -> Receipt:
        """All bytes came: store them and say what to answer."""

    def discard(self) -> None:
        """The rest will not come: leave nothing behind. Harmless after `finish`."""


Open = Callable[[Command, Context, Accepted], Reception]


class Announcement(Protocol):
    """A report that we owe the peer of this association, or of another one (PS3.4 J.3.3).

    Attributes
    ----------
    due : float
        `time.monotonic()` from when it may be sent here. Nothing is sent while a message is under way.
    """

    sop_class_uid: str
    sop_instance_uid: str
    due: float

    def event(self) -> tuple[int, Dataset]:
        """Event Type ID and Event Information; called once, when it is sent."""

    def answered(self, status: int) -> None:
        """The peer's answer."""

    def missed(self) -> None:
        """The association ended without an answer."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """An N-ACTION or N-EVENT-REPORT request of storage commitment, and who says it."""

    command: Command
    transfer_syntax_uid: str  # of its data set
    calling_ae: str
    peer: str  # address
    source: Source


class Desk(Protocol):
    """Takes the messages of storage commitment."""

    def open(self, said: Said, announce: Callable[[Announcement], None]) -> Reception:
        """Take the data set of a request. `announce` may be called until `finish` has returned."""


class Association:
    """Serves one connection.

    Parameters
    ----------
    negotiate
        The answer to the body of an association request.
    open_reception
        Makes the `Reception` of a C-STORE request.
    desk
        Takes storage commitment's requests; None: they are refused.

    Attributes
    ----------
    cut : str
        Why it ended otherwise than by release, the peer's abort or our rejection: a word; "" if it did not.
    """

    def __init__(
        self,
        line: Wire,
        peer: str,
        limits: Limits,
        negotiate: Callable[[bytes], Accepted | Rejected],
        open_reception: Open,
        desk: Desk | None = None,
    ) -> None:
        self._wire = line
        self._peer = peer
        self._limits = limits
        self._negotiate = negotiate
        self._open_reception = open_reception
        self._desk = desk
        self._agreed: Accepted | None = None
        self.cut = ""
        # The message under way, if there is one.
        self._context_id = 0
        self._command_bytes = bytearray()
        self._command: Command | None = None
        self._reception: Reception | None = None
        self._surplus = 0
        self._message_deadline = 0.0
        # Reports that are owed, each with its presentation context; the one sent and not answered yet.
        self._owed: deque[tuple[int, Announcement]] = deque()
        self._announced: Announcement | None = None
        self._message_id = 0

    def serve(self, request_deadline: float) -> None:
        """Negotiate until `request_deadline` (`time.monotonic()`) and serve until the association ends, in any way."""
        try:
            agreed = self._establish(request_deadline)
            if agreed is not None:
                self._agreed = agreed
                self._converse(agreed)
        except PeerGone:
            if self._wire.drained():  # a peer that reads nothing: cut by `StorageServer.stop`
                self._ended("stopping", wire.DRAINED)
            else:
                self._ended("peer_gone", "the peer closed or lost the connection")
        except TooSlow as slow:
            self._abort(0, "too_slow", slow.limit)
        except ProtocolError as wrong:
            calling = wrong.calling_ae if isinstance(wrong, Undecodable) else ""
            self._abort(wrong.reason, "protocol_error", wrong.why, calling)
        except Stopping as stopping:
            self._abort(0, "stopping", stopping.why)
        finally:
            if self._reception is not None:
                self._reception.discard()
            self._miss_reports()

    def _establish(self, deadline: float) -> Accepted | None:
        latest = ("limits.association_seconds", deadline)
        pdu = self._wire.next_pdu(latest, self._limits.pdu_seconds, latest)
        if pdu.kind == wire.ABORT:
            return None
        if pdu.kind != wire.ASSOCIATE_RQ:
            raise ProtocolError(wire.UNEXPECTED_PDU, "the first PDU is no association request")
        answer = self._negotiate(bytes(pdu.body))
        self._wire.send(answer.answer)
        if isinstance(answer, Rejected):
            self._wire.linger()
            return None
        return answer

    def _converse(self, agreed: Accepted) -> None:
        limits = self._limits
        while True:
            self._wire.stop_between_messages()
            idle = ("limits.network_timeout_seconds", time.monotonic() + limits.network_timeout_seconds)
            if self._wire.patient:
                idle = min(idle, ("limits.message_seconds", self._message_deadline), key=lambda wait: wait[1])
            if self._owed and self._announced is None and not self._wire.patient:
                idle = min(idle, (THE_MOMENT, self._owed[0][1].due), key=lambda wait: wait[1])
            try:
                pdu = self._wire.next_pdu(idle, limits.pdu_seconds)
            except TooSlow as slow:
                if slow.limit != THE_MOMENT:
                    raise
                self._report(agreed)
                continue
            if pdu.kind == wire.P_DATA:
                self._take(agreed, pdu.body)
            elif pdu.kind == wire.RELEASE_RQ:
                self._wire.send(wire.HEADER.pack(wire.RELEASE_RP, 4) + bytes(4))
                self._wire.linger()
                return
            elif pdu.kind == wire.ABORT:
                return
            else:
                raise ProtocolError(wire.UNEXPECTED_PDU, f"PDU type {pdu.kind} in an established association")

    def _take(self, agreed: Accepted, body: memoryview) -> None:
        for context_id, control, fragment in fragments(body):
            if not self._wire.patient:
                if context_id not in agreed.contexts:
                    raise ProtocolError(wire.UNEXPECTED_PARAMETER, "a presentation context that was not accepted")
                self._context_id = context_id
                self._message_deadline = time.monotonic() + self._limits.message_seconds
                self._wire.patient = True
            elif context_id != self._context_id:
                raise ProtocolError(wire.UNEXPECTED_PARAMETER, "another presentation context within a message")
            if control & IS_COMMAND:
                self._take_command(agreed, fragment, last=bool(control & IS_LAST))
            else:
                self._take_data(agreed, fragment, last=bool(control & IS_LAST))
        if self._wire.patient and time.monotonic() > self._message_deadline:
            raise TooSlow("limits.message_seconds")

    def _take_command(self, agreed: Accepted, fragment: memoryview, *, last: bool) -> None:
        if self._command is not None:
            raise ProtocolError(wire.UNEXPECTED_PARAMETER, "a command within a data set")
        if len(self._command_bytes) + len(fragment) > self._limits.command_bytes:
            raise ProtocolError(wire.INVALID_PARAMETER, "a command set longer than limits.command_bytes")
        self._command_bytes += fragment
        if not last:
            return
        command = read_command(self._command_bytes)
        self._command_bytes = bytearray()
        if command.field == N_EVENT_REPORT_RQ | RESPONSE:
            self._take_answer(command)
            return
        if not command.has_data_set:
            self._answer(agreed, command, self._without_data_set(agreed, command))
            return
        self._command = command
        self._surplus = 0
        context = agreed.contexts[self._context_id]
        if command.field == C_STORE_RQ and _storable(command, context):
            self._reception = self._open_reception(command, context, agreed)
        elif self._desk is not None and _commits(command, context):
            said = Said(
                command=command,
                transfer_syntax_uid=context.transfer_syntax_uid,
                calling_ae=agreed.calling_ae,
                peer=self._peer,
                source=agreed.source,
            )
            self._reception = self._desk.open(said, partial(self._owe, self._context_id))

    def _take_data(self, agreed: Accepted, fragment: memoryview, *, last: bool) -> None:
        command = self._command
        if command is None:
            raise ProtocolError(wire.UNEXPECTED_PARAMETER, "a data set without a command")
        reception = self._reception
        if reception is not None:
            reception.write(fragment)
        self._surplus += len(fragment)
        if self._surplus > self._limits.object_bytes + SURPLUS_BYTES:
            raise ProtocolError(wire.INVALID_PARAMETER, "a message far beyond limits.object_bytes")
        if not last:
            return
        self._command = self._reception = None
        if command.field == N_EVENT_REPORT_RQ | RESPONSE:  # an Event Reply, of which commitment knows none
            self._wire.patient = False
            return
        if reception is None:
            self._answer(agreed, command, self._refusal(agreed, command))
            return
        try:
            receipt = reception.finish()
        except StorageError as error:  # its words name no patient
            log.error("receive_failed", error=type(error).__name__, detail=str(error), calling_ae=agreed.calling_ae)
            receipt = Receipt(status=PROCESSING_FAILURE, comment="")
        except Exception as error:  # noqa: BLE001 - the outermost loop of a message: answer, never hang
            log.error("receive_failed", error=type(error).__name__, calling_ae=agreed.calling_ae)
            receipt = Receipt(status=PROCESSING_FAILURE, comment="")
        finally:
            reception.discard()
        self._answer(agreed, command, receipt)

    def _without_data_set(self, agreed: Accepted, command: Command) -> Receipt | None:
        context = agreed.contexts[self._context_id]
        if command.field == C_ECHO_RQ and context.sop_class_uid == VERIFICATION:
            return Receipt(status=0x0000, comment="")
        if command.field == C_STORE_RQ and _storable(command, context):
            return Receipt(status=CANNOT_UNDERSTAND, comment="C-STORE without a data set")
        if self._desk is not None and _commits(command, context):
            return Receipt(status=INVALID_ARGUMENT, comment="")  # PS3.7 C.5.2 allows it no comment
        return self._refusal(agreed, command)

    def _refusal(self, agreed: Accepted, command: Command) -> Receipt | None:
        """What the standard answers to a request that is not served here (PS3.7 C); None: nothing."""
        if command.field == C_CANCEL_RQ:
            return None  # has no response; nothing is left to cancel
        if command.field & RESPONSE:
            raise ProtocolError(wire.UNEXPECTED_PARAMETER, "a response that nobody asked for")
        log.warning("request_refused", command=f"0x{command.field:04X}", calling_ae=agreed.calling_ae, peer=self._peer)
        context = agreed.contexts[self._context_id]
        if command.field not in REQUESTS:
            return Receipt(status=UNRECOGNIZED_OPERATION, comment="unknown command")
        if command.sop_class_uid and command.sop_class_uid != context.sop_class_uid:
            return Receipt(status=SOP_CLASS_NOT_SUPPORTED, comment="SOP Class is not that of the context")
        if command.field == C_STORE_RQ:
            status = MISTYPED_ARGUMENT if context.sop_class_uid != VERIFICATION else UNRECOGNIZED_OPERATION
            return Receipt(status=status, comment="no storage SOP Class and Instance UID")
        return Receipt(status=UNRECOGNIZED_OPERATION, comment="only C-ECHO, C-STORE and commitment are served")

    def _owe(self, context_id: int, report: Announcement) -> None:
        """Keep a report for when nothing is under way; of too many the last ones go by another association."""
        if len(self._owed) < self._limits.commitment_pending:
            self._owed.append((context_id, report))
        else:
            report.missed()

    def _report(self, agreed: Accepted) -> None:
        """Send the report that has been owed longest."""
        context_id, report = self._owed.popleft()
        self._announced = report
        event_type, information = report.event()
        implicit = agreed.contexts[context_id].transfer_syntax_uid == ImplicitVRLittleEndian
        data = encode(information, is_implicit_vr=implicit, is_little_endian=True)
        if data is None:
            raise ValueError("a commitment report that cannot be encoded")
        self._message_id = self._message_id % 0xFFFF + 1
        asked = event_report(self._message_id, report.sop_class_uid, report.sop_instance_uid, event_type)
        self._wire.send(
            command_pdus(context_id, asked, agreed.peer_pdu_bytes), data_pdus(context_id, data, agreed.peer_pdu_bytes)
        )

    def _take_answer(self, command: Command) -> None:
        """The peer's response to a report of ours."""
        report = self._announced
        if report is None or command.message_id != self._message_id or command.status is None:
            raise ProtocolError(wire.UNEXPECTED_PARAMETER, "a response that nobody asked for")
        self._announced = None
        report.answered(command.status)
        if command.has_data_set:
            self._command = command
            self._surplus = 0
        else:
            self._wire.patient = False

    def _miss_reports(self) -> None:
        """What is still owed is said on another association."""
        owed = [report for _, report in self._owed]
        if self._announced is not None:
            owed.append(self._announced)
        for report in owed:
            with contextlib.suppress(StorageError):  # it is due later in any case
                report.missed()

    def _answer(self, agreed: Accepted, command: Command, receipt: Receipt | None) -> None:
        self._wire.patient = False
        if receipt is not None:
            encoded = response(command, receipt.status, receipt.comment)
            self._wire.send(command_pdus(self._context_id, encoded, agreed.peer_pdu_bytes))

    def _abort(self, reason: int, event: str, why: str, calling: str = "") -> None:
        try:
            self._wire.send(wire.HEADER.pack(wire.ABORT, 4) + bytes((0, 0, BY_PROVIDER, reason)))
            self._wire.linger()
        except PeerGone:
            pass
        self._ended(event, why, calling)

    def _ended(self, event: str, why: str, calling: str = "") -> None:
        if self._agreed is None and event == "peer_gone":
            log.debug("connection_closed", peer=self._peer)  # a port probe, every few seconds for years
            return
        self.cut = event
        calling = self._agreed.calling_ae if self._agreed else clean(calling)
        log.warning("association_cut", cause=event, reason=why, calling_ae=calling, peer=self._peer)


def _storable(command: Command, context: Context) -> bool:
    """Whether a C-STORE names an instance of its context's SOP Class."""
    return (
        context.sop_class_uid != VERIFICATION
        and command.sop_class_uid == context.sop_class_uid
        and command.sop_instance_uid != ""
    )


def _commits(command: Command, context: Context) -> bool:
    """Whether a request is storage commitment's.

    Roles are not looked at: archives that report on an association of their own often leave their selection out.
    """
    return (
        command.field in {N_ACTION_RQ, N_EVENT_REPORT_RQ}
        and context.sop_class_uid == STORAGE_COMMITMENT
        and command.sop_class_uid == STORAGE_COMMITMENT
    )
