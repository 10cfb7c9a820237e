"""The one door: bytes of an ECG in, twelve lead images out, or `EcgRefused` with a reason.

Recognises a DICOM waveform, an Encapsulated PDF and a bare PDF by their content. Opens no picture and
follows no file name. Safe to call in a child process: what comes back, and what is raised, can be pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecg_ingest.lead_images import EcgRefused, EcgSource, LeadImages, RefusalReason, RenderStyle

if TYPE_CHECKING:
    from ecg_ingest.recording import Recording

MAX_BYTES = 256 * 1024 * 1024

_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"BM": "a BMP picture",
    b"SCPECG": "an SCP-ECG record",
    b"<?xml": "an XML file",
}


def read(data: bytes, *, style: RenderStyle) -> LeadImages:
    """Read an ECG.

    Parameters
    ----------
    data : bytes
        A DICOM Part 10 file (12-lead, General, Ambulatory or Hemodynamic waveform, or Encapsulated PDF), or
        a PDF.
    style : RenderStyle
        How the pictures are to look, from the model package.

    Returns
    -------
    LeadImages
        Pictures and signals of all twelve leads.

    Raises
    ------
    EcgRefused
        For everything that must not be used. No other exception leaves here for any bytes.
    """
    if not data:
        raise EcgRefused(RefusalReason.EMPTY, "the file is empty", "send it again")
    if len(data) > MAX_BYTES:
        raise EcgRefused(
            RefusalReason.TOO_LARGE, f"{len(data)} bytes; at most {MAX_BYTES} are read", "send a resting ECG"
        )
    from ecg_ingest.channels import PARSER_FAULTS

    try:
        if data[128:132] == b"DICM":
            return _read_dicom(data, style)
        if _is_pdf(data):
            return _read_pdf(data, style)
    except PARSER_FAULTS as error:  # damaged bytes surface anywhere in the parsers
        raise EcgRefused(
            RefusalReason.DAMAGED,
            f"the file breaks off or contradicts itself ({type(error).__name__})",
            "send it again from the recorder; if it is refused again, its export is faulty",
        ) from error
    kind = next((name for magic, name in _PICTURES.items() if data.startswith(magic)), "neither DICOM nor PDF")
    raise EcgRefused(
        RefusalReason.UNSUPPORTED_FORM,
        f"the file is {kind}",
        "send a DICOM waveform, an Encapsulated PDF or a PDF with text and lines",
    )


def _is_pdf(data: bytes) -> bool:
    """PDF readers accept the header anywhere in the first 1024 bytes."""
    return b"%PDF-" in data[:1024]


def _read_dicom(data: bytes, style: RenderStyle) -> LeadImages:
    from ecg_ingest.dicom_file import open_dicom
    from ecg_ingest.waveform import read_waveform

    opened = open_dicom(data)
    if opened.document is not None:
        if not _is_pdf(opened.document):
            raise EcgRefused(
                RefusalReason.UNSUPPORTED_FORM,
                "the encapsulated document is not a PDF",
                "send a DICOM waveform or an Encapsulated PDF",
            )
        return _read_pdf(opened.document, style)
    recording = read_waveform(opened.dataset, big_endian=opened.big_endian)
    return _images(recording, style, source=EcgSource.WAVEFORM, page_layout="")


def _read_pdf(data: bytes, style: RenderStyle) -> LeadImages:
    from ecg_ingest.pdf import read_pdf

    sheet = read_pdf(data)
    return _images(sheet.recording, style, source=EcgSource.VECTOR_PDF, page_layout=sheet.layout)


def _images(recording: Recording, style: RenderStyle, *, source: EcgSource, page_layout: str) -> LeadImages:
    """Complete, prove, draw."""
    from ecg_ingest.leads import complete, refuse_impossible
    from ecg_ingest.quality import inspect
    from ecg_ingest.render import render

    whole = complete(recording)
    refuse_impossible(whole, seconds=style.seconds_per_lead)
    pixels, drawn = render(whole, style)
    return LeadImages(
        pixels=pixels,
        source=source,
        style=style,
        page_layout=page_layout,
        seconds_recorded=whole.seconds,
        derived_leads=whole.derived_leads,
        quality=(*whole.findings, *inspect(whole), *drawn),
        sampling_hz=whole.sampling_hz,
        signals_mv=whole.signals_mv.astype("float32"),
    )
