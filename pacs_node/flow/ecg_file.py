"""An ECG file from a person or a folder: read it, and make the DICOM object that stands for it.

The one place of pacs_node that opens ECG files which are not stored objects.
"""

from __future__ import annotations

from datetime import datetime

import ecg_ingest
from ecg_ingest.inspection import Inspection, look_at
from ecg_ingest.lead_images import EcgRefused, EcgSource, LeadImages, RefusalReason, RenderStyle
from ecg_ingest.sheet_picture import sheet_picture
from pacs_node.flow.part10 import DataSetBytes
from pacs_node.flow.wrap import wrap_pdf, wrap_picture, wrap_signals
from storage.records import Patient


def read_file(content: bytes, style: RenderStyle | None = None) -> LeadImages:
    """Read an ECG file.

    Raises
    ------
    EcgRefused
        With the reason.
    """
    return ecg_ingest.read(content, style=style or RenderStyle())


def look_at_file(content: bytes, style: RenderStyle) -> Inspection:
    """Read an ECG file and show its sheet; a refused one too."""
    return look_at(content, style=style)


def as_dicom(content: bytes, images: LeadImages, patient: Patient, acquired_at: datetime | None) -> DataSetBytes:
    """The object that stands for a file that was read as `images`.

    Raises
    ------
    EcgRefused
        The picture can no longer be shown, or parts of the signals have no known place in time.
    """
    if images.source is EcgSource.WAVEFORM:
        if any(finding.code == "times_unknown" for finding in images.quality):
            raise EcgRefused(
                RefusalReason.BAD_SAMPLING,
                "the parts of the recording do not say how they follow one another",
                "have the recorder export it in one piece",
            )
        return wrap_signals(content, images, patient, acquired_at)
    if images.page_dots_per_inch:
        return wrap_pdf(content, patient, acquired_at)
    pixels = sheet_picture(content)
    if pixels is None:
        raise ValueError("a sheet that was read has a picture")
    return wrap_picture(content, pixels, patient, acquired_at)
