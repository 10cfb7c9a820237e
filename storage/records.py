"""The records that flow and survive: instances, matches, reports, deliveries. Values only, no database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What an instance is to us."""

    RADIOGRAPH = "radiograph"  # a PA chest radiograph
    ECG = "ecg"  # a 12-lead ECG, waveform or paper
    OWN = "own"  # a result of ours that came back
    OTHER = "other"


class Disposition(StrEnum):
    """What became of an instance when it arrived."""

    ACCEPTED = "accepted"  # takes part in pairing
    IGNORED = "ignored"  # stored, of no use to us; `reason` says why
    HELD = "held"  # stored, a person must look; `reason` says why
    REFUSED = "refused"  # accepted first, found unusable when opened; `reason` says why


class MatchState(StrEnum):
    """Where a radiograph's match stands. Which state follows which is data: `transitions.py`."""

    WAITING = "WAITING"  # a radiograph without an ECG, its window open
    UNPAIRED = "UNPAIRED"  # its window closed without an ECG; a late ECG still pairs
    PAIRED = "PAIRED"  # radiograph and ECG chosen, estimate due
    PREDICTED = "PREDICTED"  # estimate stored, reports due
    REPORTED = "REPORTED"  # reports stored, deliveries due (final where no destination is set)
    DELIVERED = "DELIVERED"  # every destination has every report it is sent
    COMMITTED = "COMMITTED"  # every destination has committed to keep them
    HELD = "HELD"  # a person must look; `reason` says at what
    FAILED = "FAILED"  # attempts spent; `rerun` drives it again
    SUPERSEDED = "SUPERSEDED"  # a later match of the same radiograph stands in its place


class ReportKind(StrEnum):
    """What a stored report is."""

    SR = "sr"  # Comprehensive 3D SR
    OVERLAY = "overlay"  # Secondary Capture


class DeliveryState(StrEnum):
    """Where one report's way to one destination stands."""

    PENDING = "PENDING"  # due at `due_at`
    DELIVERED = "DELIVERED"  # the destination answered success or a warning
    COMMITTED = "COMMITTED"  # the destination committed to keep it
    FAILED = "FAILED"  # refused, or attempts spent; `deliver --failed` drives it again
    CANCELLED = "CANCELLED"  # not sent: a later report stands in its place, or a person said so


class RequestState(StrEnum):
    """Where our answer to a peer's storage commitment request stands."""

    PENDING = "PENDING"  # to be reported at `due_at`
    ANSWERED = "ANSWERED"  # the peer confirmed the report
    GIVEN_UP = "GIVEN_UP"  # the peer refused the report, or nobody took it for too long


class SopReference(NamedTuple):
    """One object by its class and its name."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Who an instance says it is of. Blank strings where it says nothing."""

    issuer: str  # Issuer of Patient ID (0010,0021)
    patient_id: str  # (0010,0020)
    name: str  # (0010,0010), decoded
    birth_date: str  # (0010,0030), YYYYMMDD
    sex: str  # (0010,0040), M, F or O


@dataclass(frozen=True, kw_only=True)
class Acquired:
    """When an examination was made, as instant and as found."""

    at: datetime  # timezone-aware, UTC
    source: str  # the attribute it was read from, such as "AcquisitionDateTime"
    timezone: str  # where its offset came from: the object's own offset, or the site's zone name
    date_only: bool  # True: no time was given, noon local time was taken


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One DICOM object as received. `sop_instance_uid` may occur twice if the bytes differed."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    accession_number: str
    patient: Patient
    acquired: Acquired | None  # None: no usable date
    received_at: datetime  # timezone-aware, UTC
    calling_ae: str  # calling AE title, or "import" / "ecg add"
    sha256: str  # of the stored Part 10 bytes: the object's address
    size_bytes: int
    kind: Kind
    disposition: Disposition
    reason: str  # "" when accepted, else "code: sentence"


@dataclass(frozen=True, kw_only=True)
class StoredInstance:
    """An instance and its row."""

    instance_id: int
    instance: Instance
    purged_at: datetime | None  # when retention gave up its bytes; the row stays


@dataclass(frozen=True, kw_only=True)
class Match:
    """A radiograph, the ECG chosen for it if there is one, and how far its estimate has come.

    There is one row for each run: a nearer ECG or a rerun makes a new row that names the one it supersedes.
    """

    match_id: int
    radiograph_id: int  # row of the radiograph's instance
    ecg_id: int | None  # row of the ECG's instance
    radiograph_uid: str  # SOP Instance UID
    ecg_uid: str | None  # SOP Instance UID
    patient: Patient  # of the radiograph
    accession_number: str
    study_instance_uid: str
    radiograph_at: datetime | None
    ecg_at: datetime | None
    gap_seconds: float | None  # |ECG - radiograph|
    rule_version: str
    state: MatchState
    reason: str
    revision: int  # 1 for a radiograph's first match, then counting up
    supersedes: int | None  # match_id of the row this one replaces
    superseded_by: int | None
    due_at: datetime  # when the next stage may claim it
    attempts: int  # of the present stage
    run_digest: str  # of inputs, model and configuration; "" before the estimate
    prediction_json: str  # "" before the estimate
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class Report:
    """One stored DICOM object made for a match; its bytes are the object at `sha256`."""

    report_id: int
    match_id: int
    kind: ReportKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    size_bytes: int
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class NewReport:
    """A report whose bytes are already an object, about to get its row."""

    kind: ReportKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One report's way to one destination."""

    delivery_id: int
    report_id: int
    match_id: int
    kind: ReportKind
    sha256: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    destination: str  # the destination's configured name
    state: DeliveryState
    attempts: int  # answered and unanswered tries
    due_at: datetime
    first_tried_at: datetime | None  # None: it cannot have reached the destination
    trying_since: datetime | None  # first try since it was last driven again
    last_status: int | None  # DIMSE status of the last answer
    last_error: str  # "" or one sentence
    delivered_at: datetime | None
    committed_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ChestFeatures:
    """What the radiograph alone gives, kept until its ECG comes."""

    radiograph_id: int
    model_digest: str
    embedding: bytes  # nine patches x embedding size, little-endian float32
    display_sha256: str  # the display picture (PNG) as a stored object
    findings_json: str  # quality and view findings of the radiograph
    geometry_json: str  # how the network's 512 x 512 picture lies on the radiograph


@dataclass(frozen=True, kw_only=True)
class CommitmentRequest:
    """A peer asked whether we keep objects (PS3.4 J.3.2)."""

    request_id: int
    transaction_uid: str
    calling_ae: str
    peer: str  # the address it came from
    references: tuple[SopReference, ...]
    duplicate: bool  # its transaction UID was in use for other objects
    state: RequestState
    attempts: int  # reports tried on associations of our own
    due_at: datetime  # when whoever is free may report
    received_at: datetime
    answered_at: datetime | None
    failures: int | None  # objects that the confirmed report did not commit
    last_error: str  # "" or one sentence


@dataclass(frozen=True, kw_only=True)
class WantedCommitment:
    """A delivered report that its destination is asked to commit to."""

    delivery_id: int
    destination: str
    transaction_uid: str | None  # of the last question; None: not asked since it was delivered
    due_at: datetime  # when it is asked about next
    attempts: int  # questions so far
    last_error: str  # "" or one sentence


@dataclass(frozen=True, kw_only=True)
class ShadowEstimate:
    """What a second package said of a match, beside the estimate that was served. Never reported."""

    match_id: int
    attempts: int
    prediction_json: str  # "" where there is none
    reason: str  # why there is none, or why the last try failed; else ""
    done_at: datetime | None  # None: still to be made


@dataclass(frozen=True, kw_only=True)
class Catheterisation:
    """A mean pulmonary artery pressure measured by right-heart catheter. A patient has one a day."""

    issuer: str
    patient_id: str
    measured_on: date  # on the site's calendar
    mpap_mmhg: float
