"""Turn rows into records and records into rows. The selects that need joins stand here, once."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, Row, Select, select

from storage.records import (
    Acquired,
    ChestFeatures,
    Delivery,
    DeliveryState,
    Instance,
    Match,
    Patient,
    Report,
    StoredInstance,
)
from storage.schema import chest_features, deliveries, instances, matches, reports

_radiograph = instances.alias("radiograph")
_ecg = instances.alias("ecg")

SELECT_INSTANCES: Select[Any] = select(*instances.c)

SELECT_MATCHES: Select[Any] = (
    select(
        *(column for column in matches.c if column.name not in {"lease_owner", "lease_until", "chest_digest"}),
        _radiograph.c.sop_instance_uid.label("radiograph_uid"),
        _radiograph.c.issuer,
        _radiograph.c.patient_id,
        _radiograph.c.patient_name,
        _radiograph.c.birth_date,
        _radiograph.c.sex,
        _radiograph.c.accession_number,
        _radiograph.c.study_instance_uid,
        _radiograph.c.acquired_at.label("radiograph_at"),
        _ecg.c.sop_instance_uid.label("ecg_uid"),
        _ecg.c.acquired_at.label("ecg_at"),
    )
    .join_from(matches, _radiograph, matches.c.radiograph_id == _radiograph.c.instance_id)
    .outerjoin(_ecg, matches.c.ecg_id == _ecg.c.instance_id)
)
"""Columns of `Match`. Conditions on the radiograph are written with `MATCH_RADIOGRAPH`."""

MATCH_RADIOGRAPH = _radiograph.c

SELECT_REPORTS: Select[Any] = select(*reports.c)

SELECT_DELIVERIES: Select[Any] = select(
    *(column for column in deliveries.c if column.name not in {"lease_owner", "lease_until", "radiograph_id"}),
    reports.c.kind,
    reports.c.sha256,
    reports.c.sop_class_uid,
    reports.c.sop_instance_uid,
    reports.c.transfer_syntax_uid,
).join_from(deliveries, reports, deliveries.c.report_id == reports.c.report_id)

SELECT_CHEST_FEATURES: Select[Any] = select(*chest_features.c)


INSTANCE_COLUMNS = tuple(column.name for column in instances.c if not column.primary_key)
"""The keys of `instance_values`."""


def stored_instance(row: Row[Any]) -> StoredInstance:
    """The record of a row of `SELECT_INSTANCES`."""
    acquired = None
    if row.acquired_at is not None:
        acquired = Acquired(
            at=row.acquired_at,
            source=row.acquired_source,
            timezone=row.acquired_timezone,
            date_only=row.acquired_date_only,
        )
    return StoredInstance(
        instance_id=row.instance_id,
        purged_at=row.purged_at,
        instance=Instance(
            sop_instance_uid=row.sop_instance_uid,
            series_instance_uid=row.series_instance_uid,
            study_instance_uid=row.study_instance_uid,
            sop_class_uid=row.sop_class_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            accession_number=row.accession_number,
            patient=_patient(row),
            acquired=acquired,
            received_at=row.received_at,
            calling_ae=row.calling_ae,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            kind=row.kind,
            disposition=row.disposition,
            reason=row.reason,
        ),
    )


def instance_values(instance: Instance) -> dict[str, object]:
    """The columns of a new row for `instance`."""
    acquired = instance.acquired
    patient = instance.patient
    return {
        "sop_instance_uid": instance.sop_instance_uid,
        "series_instance_uid": instance.series_instance_uid,
        "study_instance_uid": instance.study_instance_uid,
        "sop_class_uid": instance.sop_class_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "accession_number": instance.accession_number,
        "issuer": patient.issuer,
        "patient_id": patient.patient_id,
        "patient_name": patient.name,
        "birth_date": patient.birth_date,
        "sex": patient.sex,
        "acquired_at": acquired.at if acquired else None,
        "acquired_source": acquired.source if acquired else "",
        "acquired_timezone": acquired.timezone if acquired else "",
        "acquired_date_only": acquired.date_only if acquired else False,
        "received_at": instance.received_at,
        "calling_ae": instance.calling_ae,
        "sha256": instance.sha256,
        "size_bytes": instance.size_bytes,
        "kind": instance.kind,
        "disposition": instance.disposition,
        "reason": instance.reason,
        "purged_at": None,
    }


def match(row: Row[Any]) -> Match:
    """The record of a row of `SELECT_MATCHES`."""
    return Match(
        match_id=row.match_id,
        radiograph_id=row.radiograph_id,
        ecg_id=row.ecg_id,
        radiograph_uid=row.radiograph_uid,
        ecg_uid=row.ecg_uid,
        patient=_patient(row),
        accession_number=row.accession_number,
        study_instance_uid=row.study_instance_uid,
        radiograph_at=row.radiograph_at,
        ecg_at=row.ecg_at,
        gap_seconds=row.gap_seconds,
        rule_version=row.rule_version,
        state=row.state,
        reason=row.reason,
        revision=row.revision,
        supersedes=row.supersedes,
        superseded_by=row.superseded_by,
        due_at=row.due_at,
        attempts=row.attempts,
        run_digest=row.run_digest,
        prediction_json=row.prediction_json,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def report(row: Row[Any]) -> Report:
    """The record of a row of `SELECT_REPORTS`."""
    return Report(**row._mapping)


def delivery(row: Row[Any]) -> Delivery:
    """The record of a row of `SELECT_DELIVERIES`."""
    return Delivery(**row._mapping)


def new_delivery(report_id: int, match_id: int, destination: str, now: datetime) -> dict[str, Any]:
    """The columns of a delivery that nobody tried yet, due at once."""
    return {
        "report_id": report_id,
        "match_id": match_id,
        "radiograph_id": select(matches.c.radiograph_id).where(matches.c.match_id == match_id).scalar_subquery(),
        "destination": destination,
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "due_at": now,
        "last_error": "",
    }


def chest(row: Row[Any]) -> ChestFeatures:
    """The record of a row of `SELECT_CHEST_FEATURES`."""
    return ChestFeatures(**row._mapping)


def new_id(result: CursorResult[Any]) -> int:
    """The number that an INSERT gave its row."""
    key: Any = result.inserted_primary_key
    return int(key[0])


def _patient(row: Row[Any]) -> Patient:
    return Patient(
        issuer=row.issuer,
        patient_id=row.patient_id,
        name=row.patient_name,
        birth_date=row.birth_date,
        sex=row.sex,
    )
