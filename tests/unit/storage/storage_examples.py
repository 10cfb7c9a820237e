"""Instances, matches and reports to fill a store with."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from storage.records import (
    Acquired,
    ChestFeatures,
    Disposition,
    Instance,
    Kind,
    MatchState,
    NewReport,
    Patient,
    ReportKind,
)
from storage.store import Store
from storage.transaction import PatientLock

NOW = datetime(2026, 11, 20, 9, 30, 15, 123456, tzinfo=UTC)
RULE = "rule-1"
MODEL = "a" * 64
BOTH = {ReportKind.SR: ["pacs"], ReportKind.OVERLAY: ["pacs"]}


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def instance(
    uid: str = "1.2.3",
    kind: Kind = Kind.RADIOGRAPH,
    *,
    content: str = "",
    patient_id: str = "P1",
    issuer: str = "HOSPITAL",
    name: str = "Yamada^Tarou=山田^太郎=やまだ^たろう",
    acquired_at: datetime | None = NOW - timedelta(days=1),
    received_at: datetime = NOW,
    disposition: Disposition = Disposition.ACCEPTED,
    study: str = "1.9.1",
    accession: str = "ACC1",
) -> Instance:
    acquired = None
    if acquired_at is not None:
        acquired = Acquired(at=acquired_at, source="AcquisitionDateTime", timezone="Asia/Tokyo", date_only=False)
    return Instance(
        sop_instance_uid=uid,
        series_instance_uid=f"{uid}.1",
        study_instance_uid=study,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        accession_number=accession,
        patient=Patient(issuer=issuer, patient_id=patient_id, name=name, birth_date="19500131", sex="F"),
        acquired=acquired,
        received_at=received_at,
        calling_ae="MODALITY",
        sha256=digest(content or uid),
        size_bytes=1000,
        kind=kind,
        disposition=disposition,
        reason="",
    )


def add(store: Store, new: Instance) -> int:
    with store.transaction(PatientLock(issuer=new.patient.issuer, patient_id=new.patient.patient_id)) as tx:
        return tx.add_instance(new)


def add_match(
    store: Store,
    number: int = 1,
    *,
    state: MatchState = MatchState.PAIRED,
    due_at: datetime = NOW,
    acquired_at: datetime = NOW - timedelta(days=1),
    **more: str,
) -> int:
    """A radiograph, its ECG unless the state has none, and their match."""
    ecg_id = None
    if state not in {MatchState.WAITING, MatchState.UNPAIRED}:
        ecg_id = add(store, instance(f"1.2.{number}.2", Kind.ECG, **more))
    radiograph_id = add(store, instance(f"1.2.{number}.1", acquired_at=acquired_at, **more))
    with store.transaction() as tx:
        return tx.add_match(
            radiograph_id=radiograph_id,
            ecg_id=ecg_id,
            gap_seconds=None if ecg_id is None else 3600.0,
            rule_version=RULE,
            state=state,
            reason="",
            due_at=due_at,
            supersedes=None,
            now=NOW,
        )


def supersede(store: Store, match_id: int) -> int:
    """A further match of the same radiograph and ECG, as a rerun makes one."""
    with store.transaction() as tx:
        old = tx.match(match_id)
        return tx.add_match(
            radiograph_id=old.radiograph_id,
            ecg_id=old.ecg_id,
            gap_seconds=old.gap_seconds,
            rule_version=RULE,
            state=MatchState.PAIRED,
            reason="",
            due_at=NOW,
            supersedes=match_id,
            now=NOW,
        )


def new_report(match_id: int, kind: ReportKind = ReportKind.SR) -> NewReport:
    return NewReport(
        kind=kind,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid=f"2.25.{match_id}.{list(ReportKind).index(kind)}",
        series_instance_uid="2.25.5",
        study_instance_uid="1.9.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=digest(f"report {match_id} {kind}"),
        size_bytes=2000,
    )


def predict(store: Store, match_id: int, owner: str = "worker") -> None:
    """Take a PAIRED match to PREDICTED."""
    claimed = store.claim_match([MatchState.PAIRED], owner, 60, NOW)
    assert claimed is not None
    assert claimed.match_id == match_id
    assert store.save_prediction(match_id, owner, '{"mpap_mmhg": 21.5}', digest("run"), NOW)


def report(store: Store, match_id: int, destinations: dict[ReportKind, list[str]] = BOTH) -> None:
    """Take a PAIRED match to REPORTED, with an SR and an overlay."""
    predict(store, match_id)
    claimed = store.claim_match([MatchState.PREDICTED], "worker", 60, NOW)
    assert claimed is not None
    assert claimed.match_id == match_id
    # The overlay first, to see that the SR is sent first nevertheless.
    made = [new_report(match_id, ReportKind.OVERLAY), new_report(match_id, ReportKind.SR)]
    assert store.save_reports(match_id, "worker", made, destinations, NOW)


def features(radiograph_id: int, model_digest: str = MODEL) -> ChestFeatures:
    return ChestFeatures(
        radiograph_id=radiograph_id,
        model_digest=model_digest,
        embedding=bytes(range(256)) * 144,
        display_sha256=digest(f"display {radiograph_id}"),
        findings_json="[]",
        geometry_json="{}",
    )
