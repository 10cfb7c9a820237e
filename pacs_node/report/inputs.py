"""Everything a report is made of, checked once: the writers behind it only write."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from ecg_ingest.lead_images import LeadImages
from inference.prediction import Geometry, Prediction
from pacs_node.report.errors import HeaderUnusable, PatientsDiffer, ReportError
from pacs_node.report.header import Header, read_header
from storage.records import Report

RESEARCH_ONLY = "RESEARCH USE ONLY - not for diagnosis"
"""Stands in every output."""

SYNTHETIC_DEMO = "SYNTHETIC DEMO MODEL - trained on phantoms only; its numbers mean nothing for a patient"
"""Stands in every output of a model that learnt from phantoms."""

LONGEST_DISPLAY_SIDE = 1024

_AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]{0,15}")


@dataclass(frozen=True, kw_only=True)
class Device:
    """The node that makes the report."""

    ae_title: str
    software_version: str


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """One examination with its estimate, ready to be reported.

    Raises
    ------
    PatientsDiffer
        Patient ID, issuer, birth date or sex of radiograph and ECG contradict each other.
    HeaderUnusable
        A header lacks what no report can do without.
    ReportError
        Another value is out of its range.
    """

    radiograph: Dataset  # header as received; pixels are not looked at
    ecg: Dataset  # header as received, of a waveform, an Encapsulated PDF or a picture
    prediction: Prediction
    geometry: Geometry  # how the nine patches lie on the radiograph
    display: NDArray[np.uint8]  # [rows, columns] grey, air dark, the whole radiograph
    leads: LeadImages
    radiograph_at: datetime  # aware
    ecg_at: datetime  # aware
    gap_seconds: float  # |ECG - radiograph|
    radiograph_date_only: bool  # True: no time was given, noon was taken
    ecg_date_only: bool
    predecessor: Report | None  # the SR that this one replaces
    run_digest: str  # sha256 in hex of inputs, model and configuration
    revision: int  # 1 for the first report of a radiograph
    created_at: datetime  # aware
    site_timezone: str  # IANA name; used where the radiograph states no offset
    device: Device
    default_issuer: str = ""  # the configured issuer of objects that name none

    def __post_init__(self) -> None:
        self._check_patient()
        self._check_geometry()
        self._check_times()
        self._check_estimate()
        if not self.run_digest or self.revision < 1:
            raise ReportError("a report needs a run digest and a revision from 1 on")
        if not _AE_TITLE.fullmatch(self.device.ae_title):
            raise ReportError("the device's AE title must have 1 to 16 printable characters")

    @cached_property
    def radiograph_header(self) -> Header:
        """The usable part of the radiograph's header."""
        return read_header(self.radiograph)

    @cached_property
    def ecg_header(self) -> Header:
        """The usable part of the ECG's header."""
        return read_header(self.ecg)

    @cached_property
    def written_at(self) -> datetime:
        """`created_at` in the report's own offset from UTC.

        Timezone Offset From UTC governs every date and time of an object, the copied Study Time among them:
        so the radiograph's offset stands, and the site's zone only where the radiograph states none.
        """
        return self.created_at.astimezone(self._zone(self.radiograph_header))

    @property
    def radiograph_local(self) -> datetime:
        """`radiograph_at` as the clock of its own room showed it: noon stays noon, on the day it was."""
        return self.radiograph_at.astimezone(self._zone(self.radiograph_header))

    @property
    def ecg_local(self) -> datetime:
        """`ecg_at` as the clock of its own room showed it."""
        return self.ecg_at.astimezone(self._zone(self.ecg_header))

    def _zone(self, header: Header) -> tzinfo:
        offset = header.timezone_offset
        if not offset:
            return ZoneInfo(self.site_timezone)
        minutes = int(offset[1:3]) * 60 + int(offset[3:5])
        return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))

    @property
    def is_synthetic_demo(self) -> bool:
        """Whether the model learnt from phantoms only and its numbers mean nothing for a person."""
        return self.prediction.model.kind == "synthetic-demo"

    def _check_patient(self) -> None:
        radiograph, ecg = self.radiograph_header, self.ecg_header
        if radiograph.patient_id != ecg.patient_id:
            raise PatientsDiffer("PatientID")
        if (radiograph.issuer or self.default_issuer) != (ecg.issuer or self.default_issuer):
            raise PatientsDiffer("IssuerOfPatientID")
        if radiograph.birth_date and ecg.birth_date and radiograph.birth_date != ecg.birth_date:
            raise PatientsDiffer("PatientBirthDate")
        if radiograph.sex and ecg.sex and radiograph.sex != ecg.sex:
            raise PatientsDiffer("PatientSex")

    def _check_geometry(self) -> None:
        header, geometry = self.radiograph_header, self.geometry
        if (geometry.rows, geometry.columns) != (header.rows, header.columns):
            raise HeaderUnusable("Rows and Columns", "are not those that the estimate was made on")
        if self.display.ndim != 2 or self.display.dtype != np.uint8 or 0 in self.display.shape:
            raise ReportError("the display picture must be uint8 [rows, columns]")
        if max(self.display.shape) > LONGEST_DISPLAY_SIDE:
            raise ReportError(f"the display picture is longer than {LONGEST_DISPLAY_SIDE} pixels")
        for index in range(9):
            left, top, right, bottom = clipped_patch(geometry, index)
            if right - left < 1 or bottom - top < 1:
                raise ReportError(f"patch {index + 1} lies outside the radiograph")

    def _check_times(self) -> None:
        for name in ("radiograph_at", "ecg_at", "created_at"):
            if getattr(self, name).utcoffset() is None:
                raise ReportError(f"{name} must be timezone-aware")
        if not (math.isfinite(self.gap_seconds) and self.gap_seconds >= 0):
            raise ReportError("gap_seconds must be zero or more")
        if abs(abs((self.ecg_at - self.radiograph_at).total_seconds()) - self.gap_seconds) > 1:
            raise ReportError("gap_seconds is not the time between ECG and radiograph")
        try:
            ZoneInfo(self.site_timezone)
        except (LookupError, ValueError, OSError) as error:
            raise ReportError("the site's time zone is not known", hint="use an IANA name") from error

    def _check_estimate(self) -> None:
        estimate = self.prediction
        values = (
            estimate.mpap_mmhg,
            estimate.interval_low_mmhg,
            estimate.interval_high_mmhg,
            *estimate.patch_mpap_mmhg,
        )
        if len(estimate.patch_mpap_mmhg) != 9 or not all(math.isfinite(value) for value in values):
            raise ReportError("an estimate needs nine finite patch values, a finite mean and finite limits")
        if estimate.interval_low_mmhg > estimate.interval_high_mmhg:
            raise ReportError("the limits of the interval are the wrong way round")
        if any(finding.subject not in {"radiograph", "ecg"} for finding in estimate.findings):
            raise ReportError("a finding concerns neither the radiograph nor the ECG")
        for share in (
            estimate.interval_level,
            estimate.probability_above_20,
            estimate.probability_at_least_25,
        ):
            if not 0 <= share <= 1:
                raise ReportError("a probability or level lies outside 0 to 1")


def clipped_patch(geometry: Geometry, index: int) -> tuple[float, float, float, float]:
    """Patch `index` (0..8, row by row) as (left, top, right, bottom), cut at the radiograph's edges.

    Network pictures may reach beyond the radiograph (padding); coordinates in a report may not.
    """
    left, top, right, bottom = geometry.patch_box(index)
    return (
        min(max(left, 0.0), float(geometry.columns)),
        min(max(top, 0.0), float(geometry.rows)),
        min(max(right, 0.0), float(geometry.columns)),
        min(max(bottom, 0.0), float(geometry.rows)),
    )
