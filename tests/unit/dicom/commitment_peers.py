"""A modality that asks for storage commitment and takes the reports, by pynetdicom; its every answer is a test's."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association

from pacs_node.flow.commitment import Request, request_data_set
from pacs_node.flow.sop_classes import COMPUTED_RADIOGRAPHY, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from storage.records import SopReference
from tests.integration.rig import eventually, free_port

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def named(*uids: str, sop_class: str = COMPUTED_RADIOGRAPHY) -> tuple[SopReference, ...]:
    return tuple(SopReference(sop_class, uid) for uid in uids)


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A report that a modality took."""

    event_type: int
    transaction_uid: str
    committed: tuple[str, ...]  # SOP Instance UIDs
    failed: dict[str, int]
    on_own_call: bool  # on the association that the modality opened
    calling_ae: str
    roles: tuple[bool, bool] | None  # what the caller proposed: SCU, SCP


@dataclass
class Modality:
    """See the module."""

    node_port: int
    ae_title: str = "MODALITY"
    port: int = field(default_factory=free_port)
    heard: list[Heard] = field(default_factory=list)
    answer: Callable[[Heard], int] = field(default=lambda _: 0x0000)
    tls: ssl.SSLContext | None = None  # for the associations that it takes
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def source(self) -> dict[str, object]:
        """This modality as an entry of [[sources]]."""
        return {"ae_title": self.ae_title, "host": "127.0.0.1", "commitment_port": self.port}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take reports on associations of the node's."""
        ae = AE(ae_title=self.ae_title)
        ae.add_supported_context(STORAGE_COMMITMENT, SYNTAXES, scu_role=False, scp_role=True)
        server = ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)],
            ssl_context=self.tls,
        )
        try:
            yield
        finally:
            server.shutdown()  # type: ignore[union-attr]

    @contextmanager
    def calling(self, syntaxes: Sequence[str] = SYNTAXES) -> Iterator[Association]:
        """An association with the node, released at the end."""
        ae = AE(ae_title=self.ae_title)
        ae.add_requested_context(STORAGE_COMMITMENT, list(syntaxes))
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
        association = ae.associate(
            "127.0.0.1",
            self.node_port,
            ae_title="PULMOLINK",
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)],
        )
        assert association.is_established
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def ask(self, transaction_uid: str, references: Sequence[SopReference]) -> int:
        """Ask on an association of its own, released at once; the status."""
        with self.calling() as association:
            return ask(association, transaction_uid, references)

    def hears(self, number: int = 1, seconds: float = 10) -> Heard:
        """The last of so many reports."""
        eventually(lambda: len(self.heard) >= number, seconds, f"report {number} comes")
        assert len(self.heard) == number
        return self.heard[-1]

    def _take(self, event: evt.Event) -> tuple[int, None]:
        information = event.event_information
        failed = information.get("FailedSOPSequence", None) or ()
        committed = information.get("ReferencedSOPSequence", None) or ()
        role = event.assoc.requestor.role_selection.get(STORAGE_COMMITMENT) if event.assoc.is_acceptor else None
        heard = Heard(
            event_type=event.event_type,
            transaction_uid=information.TransactionUID,
            committed=tuple(item.ReferencedSOPInstanceUID for item in committed),
            failed={item.ReferencedSOPInstanceUID: item.FailureReason for item in failed},
            on_own_call=event.assoc.is_requestor,
            calling_ae=event.assoc.requestor.ae_title,
            roles=None if role is None else (bool(role.scu_role), bool(role.scp_role)),
        )
        with self._lock:
            self.heard.append(heard)
        return self.answer(heard), None


def ask(
    association: Association,
    transaction_uid: str,
    references: Sequence[SopReference],
    *,
    action: int = 1,
    instance: str = STORAGE_COMMITMENT_INSTANCE,
    information: Dataset | None = None,
) -> int:
    """N-ACTION; the status."""
    if information is None:
        information = request_data_set(Request(transaction_uid=transaction_uid, references=tuple(references)))
    answer, _ = association.send_n_action(information, action, STORAGE_COMMITMENT, instance)
    return int(answer.Status)
