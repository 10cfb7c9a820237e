"""Have the examinations read that a cohort's table names, from folders or from the node's own storage.

In: checked rows; out: what the network takes, or a refusal with the reader's own reason. An examination is held to
what the service would estimate: a PA radiograph of the chest, an ECG that proves its leads, one patient.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from ecg_ingest.lead_images import EcgRefused, RenderStyle
from inference.cohort import CohortRow, Refusal, RowFault, check_dates
from inference.examinations import Examination
from inference.radiograph import RadiographPreprocessing, RadiographUnusable
from pacs_node.flow.acquired import acquired
from pacs_node.flow.classify import classify, text
from pacs_node.flow.part10 import UNREADABLE
from pacs_node.flow.tags import ecg_tags, radiograph_tags
from pacs_node.opening.opener import NotOpened, Opener
from storage.objects import ObjectStore
from storage.records import Disposition, Instance, Kind
from storage.store import Store


class NotThere(Exception):
    """A file or object that a row names and that does not exist. The message names no patient."""

    def __init__(self, fault: RowFault, detail: str) -> None:
        super().__init__(fault, detail)
        self.fault, self.detail = fault, detail


class Source(Protocol):
    """Where bytes come from."""

    def fetch(self, reference: str) -> bytes:
        """The bytes of what a row names. Raises `NotThere`."""

    def size(self, reference: str) -> int:
        """How many they are. Raises `NotThere`."""

    def sha256(self, reference: str) -> str:
        """Their digest. Raises `NotThere`."""


class Folder:
    """Files below one folder; a row names them by their path in it."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def fetch(self, reference: str) -> bytes:
        """The bytes of a file. Links and paths that lead out of the folder are refused."""
        path = self._path(reference)
        with _named():
            return path.read_bytes()

    def size(self, reference: str) -> int:
        """Its length in bytes."""
        path = self._path(reference)
        with _named():
            return path.stat().st_size

    def sha256(self, reference: str) -> str:
        """Its digest, read piece by piece."""
        path = self._path(reference)
        with _named(), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _path(self, reference: str) -> Path:
        path = (self._root / reference).resolve()
        if not path.is_relative_to(self._root):
            raise NotThere(RowFault.OUTSIDE_FOLDER, "the path leads out of the data folder")
        return path


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotThere(RowFault.MISSING_FILE, f"the file cannot be read ({error.strerror})") from error


class Node:
    """The node's storage; a row names objects by their SOP Instance UID."""

    def __init__(self, store: Store, objects: ObjectStore) -> None:
        self._store, self._objects = store, objects

    def fetch(self, reference: str) -> bytes:
        """The bytes of an accepted object."""
        return self._objects.get(self._instance(reference).sha256)

    def size(self, reference: str) -> int:
        """Its length in bytes, as its row says."""
        return self._instance(reference).size_bytes

    def sha256(self, reference: str) -> str:
        """Its digest, as its row says."""
        return self._instance(reference).sha256

    def _instance(self, reference: str) -> Instance:
        found = self._store.instances(sop_instance_uid=reference, dispositions={Disposition.ACCEPTED})
        if len(found) != 1:
            several = "more than one object has" if found else "no accepted object has"
            raise NotThere(RowFault.MISSING_FILE, f"{several} this SOP Instance UID")
        return found[0].instance


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How examinations are read."""

    radiograph: RadiographPreprocessing
    style: RenderStyle
    opener: Opener  # for these examinations alone
    zone: ZoneInfo  # of times that name none
    any_view: bool = False  # the table vouches for the view: headers of de-identified files often lost it


def read_examinations(
    rows: Sequence[CohortRow],
    source: Source,
    reading: Reading,
    refused: Callable[[Refusal], None],
    progress: Callable[[], None] = lambda: None,
    *,
    beside: Sequence[CohortRow] = (),
) -> Iterator[tuple[CohortRow, Examination]]:
    """The examinations of `rows` one by one, in their order; what cannot be used goes to `refused`.

    `beside` are the rows of the table that are not asked for: bytes that also stand there under another patient are
    refused as among `rows`.
    """
    contested = under_two_patients([*rows, *beside], source)
    for row in rows:
        try:
            yield row, _examination(row, source, reading, contested)
        except _Refused as refusal:
            refused(refusal.refusal)
        progress()


def under_two_patients(rows: Sequence[CohortRow], source: Source) -> frozenset[str]:
    """What rows name whose bytes also stand under another patient: nobody knows whose they are.

    Only files of one length under several patients are read for it.
    """
    of_size: dict[int, dict[str, set[str]]] = {}
    for row in rows:
        for reference in (row.radiograph, row.ecg):
            with contextlib.suppress(NotThere):  # the row's own refusal
                of_size.setdefault(source.size(reference), {}).setdefault(reference, set()).add(row.patient)
    contested: set[str] = set()
    for named in of_size.values():
        if len(set[str]().union(*named.values())) < 2:
            continue
        of_digest: dict[str, list[str]] = {}
        for reference in named:
            with contextlib.suppress(NotThere):
                of_digest.setdefault(source.sha256(reference), []).append(reference)
        for same in of_digest.values():
            if len(set[str]().union(*(named[reference] for reference in same))) > 1:
                contested.update(same)
    return frozenset(contested)


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


def _examination(row: CohortRow, source: Source, reading: Reading, contested: frozenset[str]) -> Examination:
    def refuse(fault: RowFault, detail: str) -> _Refused:
        return _Refused(Refusal(row=row.row, fault=fault, detail=detail))

    content = {}
    for what, reference in (("radiograph", row.radiograph), ("ECG", row.ecg)):
        try:
            content[what] = source.fetch(reference)
        except NotThere as absent:
            raise refuse(absent.fault, f"{what}: {absent.detail}") from absent
        if reference in contested:
            raise refuse(RowFault.TWO_PATIENTS, f"the {what}'s bytes also stand under another patient")
    headers = {what: header_of(data) for what, data in content.items()}
    named = {text(header, "PatientID") for header in headers.values() if header is not None} - {""}
    if len(named) > 1:
        raise refuse(RowFault.TWO_PATIENTS, "the radiograph and the ECG name different patients")
    chest = headers["radiograph"]
    try:
        radiograph = reading.opener.radiograph(content["radiograph"], reading.radiograph)
    except (RadiographUnusable, NotOpened) as unusable:
        raise refuse(RowFault.RADIOGRAPH, str(unusable)) from unusable
    if chest is not None and not reading.any_view:
        found = classify(chest)
        if found.kind is not Kind.RADIOGRAPH or found.disposition is not Disposition.ACCEPTED:
            raise refuse(RowFault.RADIOGRAPH, found.reason or "is no PA chest radiograph")
    try:
        leads = reading.opener.ecg(content["ECG"], reading.style)
    except (EcgRefused, NotOpened) as refusal:
        raise refuse(RowFault.ECG, f"{refusal.reason.value}: {refusal.detail}") from refusal
    taken = {what: None if header is None else acquired(header, reading.zone) for what, header in headers.items()}
    days: dict[str, date | None] = {}
    for what, told in (("radiograph", row.radiograph_on), ("ECG", row.ecg_on)):
        own = taken[what]
        days[what] = told if own is None else own.at.astimezone(reading.zone).date()
        if told is not None and days[what] != told:
            raise refuse(RowFault.CONTRADICTION, f"the {what} says another date than the table")
    if (wrong := check_dates(row, days["radiograph"], days["ECG"])) is not None:
        raise _Refused(wrong)
    at, day = taken["radiograph"], days["radiograph"]
    return Examination(
        patient_id=row.patient,
        picture=radiograph.picture.astype(np.float16),
        lead_images=leads.pixels,
        mpap_mmhg=row.mpap_mmhg,
        name=f"row {row.row}",
        acquired_at=at.at.isoformat() if at is not None else str(day),
        attributes=dict(row.attributes),
        tags={**radiograph_tags(chest or Dataset()), **ecg_tags(headers["ECG"])},
    )


def header_of(data: bytes) -> Dataset | None:
    """The header of a DICOM file, None of anything else; what is broken in it the readers say."""
    if data[128:132] != b"DICM":
        return None
    try:
        return dcmread(io.BytesIO(data), stop_before_pixels=True)
    except UNREADABLE:
        return None
