"""An ECG file from a person or a folder: have it read, and make the DICOM object that stands for it.

The file itself is opened only where every file is: in the child of an `Opener`.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from ecg_ingest.inspection import Inspection, Refusal
from ecg_ingest.lead_images import EcgRefused, EcgSource, LeadImages, RefusalReason, RenderStyle
from pacs_node.flow.part10 import DataSetBytes
from pacs_node.flow.wrap import wrap_pdf, wrap_picture, wrap_signals
from pacs_node.opening.opener import NotOpened, Opener
from storage.records import Patient


def look_at_file(content: bytes, style: RenderStyle, opener: Opener) -> Inspection:
    """Read an ECG file and show its sheet; a refused one too.

    Raises
    ------
    OpenerUnavailable
        Nothing can be opened now.
    """
    images, refusal, sheet = None, None, None
    try:
        images = opener.ecg(content, style)
    except (EcgRefused, NotOpened) as refused:
        refusal = Refusal(reason=refused.reason, detail=refused.detail, hint=refused.hint)
        if isinstance(refused, NotOpened):  # its sheet would be opened with the same harm
            return Inspection(images=None, refusal=refusal, sheet=None)
    with suppress(EcgRefused, NotOpened):  # the refusal of the file itself says more
        sheet = opener.sheet(content, images.boxes[0].page if images is not None and images.boxes else None)
    return Inspection(images=images, refusal=refusal, sheet=sheet)


def as_dicom(
    content: bytes, images: LeadImages, patient: Patient, acquired_at: datetime | None, opener: Opener
) -> DataSetBytes:
    """The object that stands for a file that `opener` read as `images`.

    Raises
    ------
    EcgRefused, NotOpened
        The picture can no longer be shown, or parts of the signals have no known place in time.
    OpenerUnavailable
        Nothing can be opened now.
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
    pixels = opener.sheet(content, images.boxes[0].page)
    if pixels is None:
        raise ValueError("a sheet that was read has a picture")
    return wrap_picture(content, pixels, patient, acquired_at)
