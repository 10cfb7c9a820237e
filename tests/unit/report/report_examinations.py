"""Examinations to report on: the real Philips radiograph and the real Mortara ECG, made one patient's."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import EncapsulatedPDFStorage

from ecg_ingest.lead_images import LEADS, EcgSource, LeadImages, QualityFinding, RenderStyle
from inference.prediction import Finding, Geometry, ModelIdentity, Prediction
from pacs_node.report.inputs import Device, ReportInputs

RADIOGRAPH_AT = datetime(2026, 11, 2, 1, 30, tzinfo=UTC)
ECG_AT = RADIOGRAPH_AT + timedelta(days=3)
RUN_DIGEST = "c0ffee" + "0" * 58


@cache
def _radiograph() -> tuple[Dataset, np.ndarray]:
    """The radiograph's header and its display: air dark, longer side 1024."""
    radiograph = pydicom.dcmread(str(get_testdata_file("RG1_J2KI.dcm", download=False)))
    pixels = radiograph.pixel_array.astype(np.float32)
    low, high = np.percentile(pixels, (0.5, 99.5))
    grey = 255 - np.clip((pixels - low) / (high - low) * 255, 0, 255)  # MONOCHROME1
    scale = 1024 / max(grey.shape)
    size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
    display = np.asarray(Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.LANCZOS))
    del radiograph.PixelData
    return radiograph, display


@cache
def _ecg() -> tuple[Dataset, np.ndarray]:
    """The ECG's header and its first rhythm group in mV, in the order of `LEADS`."""
    ecg = pydicom.dcmread(str(get_testdata_file("waveform_ecg.dcm", download=False)))
    group = ecg.WaveformSequence[0]
    samples = ecg.waveform_array(0).T / 1000
    names = [channel.ChannelSourceSequence[0].CodeMeaning.split()[1] for channel in group.ChannelDefinitionSequence]
    wanted = [next(i for i, name in enumerate(names) if name.lower() == lead.lower()) for lead in LEADS]
    for item in ecg.WaveformSequence:
        del item.WaveformData
    return ecg, samples[wanted].astype(np.float32)


def radiograph_header() -> Dataset:
    """A fresh copy of the Philips radiograph's header."""
    return deepcopy(_radiograph()[0])


def with_raw(keyword: str, value: bytes, header: Dataset | None = None) -> Dataset:
    """The radiograph's header with `keyword` as it stands in a file: bytes, not yet looked at."""
    header = header or radiograph_header()
    tag = Tag(tag_for_keyword(keyword))  # type: ignore[arg-type]
    header[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    return header


def ecg_header() -> Dataset:
    """A fresh copy of the Mortara ECG's header, made the radiograph's patient's."""
    return of_same_patient(deepcopy(_ecg()[0]))


def pdf_header() -> Dataset:
    """The ECG as an Encapsulated PDF."""
    pdf = ecg_header()
    del pdf.WaveformSequence
    pdf.SOPClassUID = EncapsulatedPDFStorage
    pdf.Modality = "DOC"
    pdf.DocumentTitle = "12-lead ECG"
    return pdf


def of_same_patient(ecg: Dataset, radiograph: Dataset | None = None) -> Dataset:
    """`ecg` with the patient of `radiograph`."""
    source = radiograph or _radiograph()[0]
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(ecg, keyword, source.get(keyword))
    return ecg


def signals_mv() -> np.ndarray:
    """The real ECG, [12, 10000] at 1000 Hz."""
    return _ecg()[1].copy()


def geometry() -> Geometry:
    """The whole radiograph as the network's picture."""
    header = _radiograph()[0]
    return Geometry(
        rows=header.Rows,
        columns=header.Columns,
        left=0.0,
        top=0.0,
        scale_x=header.Columns / 512,
        scale_y=header.Rows / 512,
    )


def model(**changes: Any) -> ModelIdentity:
    """A research model."""
    identity = ModelIdentity(
        name="dinov2-ecg",
        version="1.2.0",
        kind="clinical-research",
        digest="5d41402abc4b2a76b9719d911017c592" * 2,
        preprocessing_digest="7d793037a0760186574b0282f2f435e7" * 2,
        architecture="vit_large_patch14_dinov2.lvd142m + ecg cnn",
    )
    return replace(identity, **changes)


def prediction(**changes: Any) -> Prediction:
    """Made up as a test value; no model gave it."""
    patches = (24.1, 26.0, 27.3, 25.2, 31.8, 36.4, 22.9, 29.5, 30.2)
    estimate = Prediction(
        mpap_mmhg=sum(patches) / 9,
        interval_low_mmhg=17.4,
        interval_high_mmhg=41.2,
        interval_level=0.9,
        probability_above_20=0.873,
        probability_at_least_25=0.641,
        patch_mpap_mmhg=patches,
        findings=(
            Finding(
                subject="radiograph",
                code="low_contrast",
                severity="note",
                detail="contrast in the lowest 5 %",
            ),
        ),
        model=model(),
        code_version="0.1.0",
        seconds=0.05,
    )
    return replace(estimate, **changes)


def leads(**changes: Any) -> LeadImages:
    """The real ECG as lead images (their pixels are plain here: reports draw the signals)."""
    images = LeadImages(
        pixels=np.full((12, 48, 224, 3), 240, np.uint8),
        source=EcgSource.WAVEFORM,
        style=RenderStyle(),
        page_layout="",
        seconds_recorded=10.0,
        derived_leads=(),
        quality=(QualityFinding(code="noisy", lead="V2", detail="mains hum of 0.06 mV"),),
        sampling_hz=1000.0,
        signals_mv=signals_mv(),
    )
    return replace(images, **changes)


def examination(**changes: Any) -> ReportInputs:
    """A complete, valid set of inputs; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "radiograph": radiograph_header(),
        "ecg": ecg_header(),
        "prediction": prediction(),
        "geometry": geometry(),
        "display": _radiograph()[1],
        "leads": leads(),
        "radiograph_at": RADIOGRAPH_AT,
        "ecg_at": ECG_AT,
        "radiograph_date_only": False,
        "ecg_date_only": False,
        "predecessor": None,
        "run_digest": RUN_DIGEST,
        "revision": 1,
        "created_at": datetime(2026, 11, 5, 4, 0, 12, 345678, tzinfo=UTC),
        "site_timezone": "Asia/Tokyo",
        "device": Device(ae_title="PULMOLINK", software_version="0.1.0"),
    }
    fields |= changes
    gap = abs(fields["ecg_at"] - fields["radiograph_at"]).total_seconds()
    return ReportInputs(**({"gap_seconds": gap} | fields))


def write(folder: Path, name: str, data: bytes) -> Path:
    """`data` as a file, for the programs that read files."""
    path = folder / name
    path.write_bytes(data)
    return path
