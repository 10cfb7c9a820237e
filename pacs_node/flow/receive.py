"""Take one object in: store its bytes, say what it is, pair it, and only then answer.

Comes in: an encoded data set from the network, a folder or a person. Goes out: a `Receipt` with the DIMSE
status. A success means that bytes, row and pairing are on disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import structlog

from ecg_ingest.channels import Elements
from pacs_node.flow.acquired import acquired
from pacs_node.flow.classify import classify, is_unreadable, text
from pacs_node.flow.pair import DISPUTED, DISPUTED_CODE, PairingRules, dispute, lock_of, pair_arrival
from pacs_node.flow.part10 import DataSetBytes, HeaderUnreadable
from pacs_node.flow.reception import Origin, Reception
from pacs_node.settings import Settings
from storage.errors import StorageBusy, StorageFull
from storage.objects import ObjectStore
from storage.records import Disposition, Instance, Kind, Patient, StoredInstance
from storage.store import Store
from storage.transaction import Transaction

log = structlog.get_logger()

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110

BLOCKING = frozenset({Disposition.ACCEPTED, Disposition.IGNORED})
"""A first object so disposed stands; what was held or found unusable may be sent again, corrected."""

SAME_UID = "same_uid_other_bytes"
UNDECODED = "\ufffd"
"""What stands for bytes that are no characters; different bytes become this one sign."""
ID_LENGTH = 64
NAME_LENGTH = 3 * 64 + 2  # PS3.5 6.2, PN: three groups
UID_LENGTH = 64
"""PS3.5 9.1; longer values are cut in the row, the stored bytes keep them."""


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """An object on its way in. The UIDs are those of the C-STORE command or the file meta information."""

    parts: DataSetBytes
    calling_ae: str
    ecg_documents: bool = False  # the sender sends ECGs only


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the sender is told, and what was kept."""

    status: int
    comment: str  # at most 64 characters, nothing of the patient
    kind: Kind | None = None
    disposition: Disposition | None = None
    reason: str = ""
    duplicate: bool = False
    number: int | None = None  # of the object in `held` and `show`; None where nothing was stored


class Receiver:
    """Receives objects into one store. May be called from several threads."""

    def __init__(self, store: Store, objects: ObjectStore, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._objects = objects
        self._settings = settings
        self._clock = clock
        self._rules = PairingRules.of(settings)

    def open(self, origin: Origin) -> Reception:
        """A place for one object that comes in fragments; its `finish` receives it."""
        return Reception(origin, self._objects, self._settings, self.receive)

    def receive(self, incoming: Incoming | Reception) -> Receipt:
        """Store, classify and pair one object; never raises for what the object contains.

        Raises
        ------
        StorageError
            Neither full, nor busy, nor well: the folder or the database cannot be used.
        """
        if isinstance(incoming, Reception):
            return self._receive(incoming)
        reception = self.open(
            Origin(
                sop_class_uid=incoming.parts.sop_class_uid,
                sop_instance_uid=incoming.parts.sop_instance_uid,
                transfer_syntax_uid=incoming.parts.transfer_syntax_uid,
                calling_ae=incoming.calling_ae,
                ecg_documents=incoming.ecg_documents,
            )
        )
        try:
            reception.write(incoming.parts.data)
            return self._receive(reception)
        finally:
            reception.discard()

    def _receive(self, reception: Reception) -> Receipt:
        if reception.refusal:
            return self._refused(reception, reception.refusal)
        try:
            content = reception.written()
            # Described first: it reads the temporary file, and needs no disk to wait for.
            instance, status, comment = self._describe(reception, content.sha256, content.size_bytes)
            self._objects.put(content)
            receipt = self._store.transact(
                lambda tx: self._record(tx, instance, status, comment),
                lock=lock_of(instance.patient, instance.sop_instance_uid),
            )
        except StorageFull:
            return self._refused(reception, "disk full")
        except StorageBusy as error:
            return self._refused(reception, str(error))
        log.info(
            "received",
            kind=receipt.kind.value if receipt.kind else "",
            disposition=receipt.disposition.value if receipt.disposition else "",
            reason=receipt.reason.partition(":")[0],
            sop_class=instance.sop_class_uid,
            calling_ae=instance.calling_ae,
            size_bytes=instance.size_bytes,
            duplicate=receipt.duplicate,
            status=f"0x{receipt.status:04X}",
        )
        return receipt

    def _describe(self, reception: Reception, sha256: str, size_bytes: int) -> tuple[Instance, int, str]:
        """The row of an object, and the status and comment it deserves."""
        origin = reception.origin
        row = partial(
            Instance,
            sop_instance_uid=origin.sop_instance_uid[:UID_LENGTH],
            sop_class_uid=origin.sop_class_uid[:UID_LENGTH],
            transfer_syntax_uid=origin.transfer_syntax_uid[:UID_LENGTH],
            received_at=self._clock(),
            calling_ae=origin.calling_ae,
            sha256=sha256,
            size_bytes=size_bytes,
        )
        try:
            return reception.with_header(lambda header: self._described(row, header, origin))
        except HeaderUnreadable as error:
            unreadable = row(
                series_instance_uid="",
                study_instance_uid="",
                accession_number="",
                patient=Patient(issuer="", patient_id="", name="", birth_date="", sex=""),
                acquired=None,
                kind=Kind.OTHER,
                disposition=Disposition.HELD,
                reason=f"unreadable: {error}",
            )
            return unreadable, CANNOT_UNDERSTAND, str(error)

    def _described(self, row: Callable[..., Instance], header: Elements, origin: Origin) -> tuple[Instance, int, str]:
        row = partial(
            row,
            series_instance_uid=text(header, "SeriesInstanceUID")[:UID_LENGTH],
            study_instance_uid=text(header, "StudyInstanceUID")[:UID_LENGTH],
            accession_number=text(header, "AccessionNumber")[:ID_LENGTH],
            patient=person(header, self._settings.pairing.default_issuer),
            acquired=acquired(header, self._settings.node.zone),
        )
        for keyword, expected in (
            ("SOPInstanceUID", origin.sop_instance_uid),
            ("SOPClassUID", origin.sop_class_uid),
        ):
            found = text(header, keyword)
            if not found:
                reason = f"the data set carries no {keyword}: damaged, or no data set at all"
                code, status = "unreadable", CANNOT_UNDERSTAND
            elif found != expected:
                reason = f"{keyword} inside differs from the one it was sent under"
                code, status = "uid_mismatch", DATA_SET_MISMATCH
            else:
                continue
            held = row(kind=Kind.OTHER, disposition=Disposition.HELD, reason=f"{code}: {reason}")
            return held, status, reason
        verdict = classify(header, ecg_documents=origin.ecg_documents)
        described = row(kind=verdict.kind, disposition=verdict.disposition, reason=verdict.reason)
        if verdict.disposition is Disposition.ACCEPTED and (lacking := _lacking(described, header)):
            described = replace(described, disposition=Disposition.HELD, reason=lacking)
        return described, SUCCESS, ""

    def _record(self, tx: Transaction, instance: Instance, status: int, comment: str) -> Receipt:
        """The row and the pairing, in one transaction; the same bytes again change nothing."""
        new = tx.is_unknown(instance.sop_instance_uid)
        known = () if new else tx.instances_with_uid(instance.sop_instance_uid)
        same = next((row for row in known if row.instance.sha256 == instance.sha256), None)
        if same is not None:
            instance = self._again(tx, same, known, instance)
            number = same.instance_id
        else:
            if not new:
                instance = self._beside(tx, known, instance)
            number = tx.add_instance(instance)
            row = StoredInstance(instance_id=number, instance=instance, purged_at=None)
            pair_arrival(tx, row, self._rules, self._clock())
        return Receipt(
            status=status,
            comment=comment[:64],
            kind=instance.kind,
            disposition=instance.disposition,
            reason=instance.reason,
            duplicate=same is not None,
            number=number,
        )

    def _again(
        self, tx: Transaction, same: StoredInstance, known: tuple[StoredInstance, ...], instance: Instance
    ) -> Instance:
        """The same bytes once more: bytes that retention removed are back; a verdict that would differ today stands.

        So an object that was ignored or held for what a setting or an earlier version said is sent again, and counts.
        What was held because of another copy of its UID, or refused when it was opened, stays as it is.
        """
        stands = same.instance
        others = tuple(row for row in known if row.instance_id != same.instance_id)
        reconsidered = stands.disposition in {Disposition.IGNORED, Disposition.HELD} and not any(
            row.instance.disposition in BLOCKING or _is_disputed(row) for row in others
        )
        if reconsidered and not stands.reason.startswith((SAME_UID, DISPUTED_CODE)) and not _is_own(tx, instance):
            stands = replace(
                stands,
                kind=instance.kind,
                disposition=instance.disposition,
                reason=instance.reason,
                patient=instance.patient,
                acquired=instance.acquired,
            )
        if stands != same.instance:
            tx.describe_again(same.instance_id, stands)
        if same.purged_at is not None:
            tx.restore_purged(same.instance_id)
        if stands != same.instance or same.purged_at is not None:
            row = StoredInstance(instance_id=same.instance_id, instance=stands, purged_at=None)
            pair_arrival(tx, row, self._rules, self._clock())
        return stands

    def _beside(self, tx: Transaction, known: tuple[StoredInstance, ...], instance: Instance) -> Instance:
        """`instance`, held if its UID is known with other bytes, ignored if it is a report of ours."""
        if _is_own(tx, instance):
            reason = "own_result: made by pulmolink; results are never processed again"
            return replace(instance, kind=Kind.OWN, disposition=Disposition.IGNORED, reason=reason)
        if not any(row.instance.disposition in BLOCKING for row in known):
            if instance.disposition is Disposition.ACCEPTED and any(map(_is_disputed, known)):
                return replace(instance, disposition=Disposition.HELD, reason=DISPUTED)
            return instance
        disputed = False
        for row in known:
            if row.instance.disposition is Disposition.ACCEPTED:
                disputed |= dispute(tx, row, instance.patient, self._rules, self._clock())
        reason = f"{SAME_UID}: an object with this SOP Instance UID and other content came earlier"
        return replace(instance, disposition=Disposition.HELD, reason=DISPUTED if disputed else reason)

    def _refused(self, reception: Reception, comment: str) -> Receipt:
        """Nothing was kept; the sender keeps it."""
        log.error(
            "refused",
            reason=comment,
            sop_class=reception.origin.sop_class_uid[:UID_LENGTH],
            calling_ae=reception.origin.calling_ae,
            size_bytes=reception.size_bytes,
        )
        return Receipt(status=OUT_OF_RESOURCES, comment=comment[:64], reason=comment)


def _is_disputed(row: StoredInstance) -> bool:
    """Whether copies of its UID came for different people, and nobody has said yet whose it is."""
    return row.instance.disposition is Disposition.HELD and row.instance.reason.startswith(DISPUTED_CODE)


def _is_own(tx: Transaction, instance: Instance) -> bool:
    return tx.is_own_report(instance.sop_instance_uid)


def person(header: Elements, default_issuer: str) -> Patient:
    """Who the header says it is of; what is not in the standard's form counts as not said."""
    birth_date = re.sub(r"[-./]", "", text(header, "PatientBirthDate"))
    sex = text(header, "PatientSex").upper()
    issuer = text(header, "IssuerOfPatientID")
    if not issuer and not is_unreadable(header, "IssuerOfPatientID"):
        issuer = default_issuer
    return Patient(
        issuer=issuer,
        patient_id=text(header, "PatientID"),
        name=text(header, "PatientName")[:NAME_LENGTH],
        # Zeros fill a date that nobody knows; any other eight digits are a statement, odd or not.
        birth_date=birth_date if re.fullmatch(r"(?!0{8})[0-9]{8}", birth_date) else "",
        sex=sex if sex in {"M", "F", "O"} else "",
    )


def _unreadable(header: Elements) -> str:
    """Which element that tells people apart stands there and is no text; "" if none.

    As if it were absent, a foreign issuer would be ours, and a contradicting birth date none.
    """
    keywords = ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
    return next((keyword for keyword in keywords if is_unreadable(header, keyword)), "")


def _lacking(instance: Instance, header: Elements) -> str:
    """Why what would take part is held: it lacks what pairing needs, or says it in a way that cannot be read."""
    if unreadable := _unreadable(header):
        return f"patient_unreadable: {unreadable} is there but is no text; correct and send again"
    if not instance.patient.patient_id:
        return "patient_id_blank: without a patient ID nothing is paired; correct and send again"
    if UNDECODED in instance.patient.patient_id + instance.patient.issuer:
        return "patient_id_unreadable: ID or issuer has bytes outside its character set; two such IDs may look alike"
    if max(len(instance.patient.patient_id), len(instance.patient.issuer)) > ID_LENGTH:
        return f"patient_id_too_long: ID or issuer has more than {ID_LENGTH} characters (PS3.5 6.2, LO)"
    if instance.acquired is None:
        return "date_missing: no usable acquisition, series, study or content date"
    if not instance.study_instance_uid or not instance.series_instance_uid:
        return "uid_missing: no Study or Series Instance UID, a report could not refer to it"
    return ""
