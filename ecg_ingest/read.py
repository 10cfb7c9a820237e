"""The one door: bytes of an ECG in, twelve lead images out, or `EcgRefused` with a reason.

Recognises a DICOM waveform, an Encapsulated PDF, a DICOM picture, a bare PDF, PNG, JPEG, TIFF and BMP files and
HL7 aECG by their content. Follows no file name. Safe to call in a child process (see `isolated`): what comes
back, and what is raised, can be pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ecg_ingest.lead_images import EcgRefused, EcgSource, LeadImages, RefusalReason, RenderStyle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ecg_ingest.pdf import PicturePage
    from ecg_ingest.recording import Recording

MAX_BYTES = 256 * 1024 * 1024

PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")  # PNG, JPEG, TIFF, BMP
_XML = (b"<", b"\xef\xbb\xbf<", b"\xff\xfe<\0", b"\xfe\xff\0<")  # bare, or behind a byte order mark
_XML_ROOTS = {  # searched near the beginning, with the zeros of UTF-16 taken out
    b"<AnnotatedECG": "an HL7 aECG file",
    b"<RestingECG": "a GE MUSE XML file",
    b"<restingecgdata": "a Philips XML file",
}
_XML_ROOT_WITHIN = 16_384

_MOST_PICTURE_PAGES = 4  # of a TIFF or PDF, each read by its pixels
_LEAST_RASTER_SECONDS = 1.4
"""Of a lead on a picture: scans are often cropped in the last column, and the lead's image then says so."""


def read(data: bytes, *, style: RenderStyle) -> LeadImages:
    """Read an ECG.

    Parameters
    ----------
    data : bytes
        A DICOM Part 10 file (12-lead, General, Ambulatory or Hemodynamic waveform, Encapsulated PDF, or a
        picture such as Secondary Capture), a PDF, a PNG, JPEG, TIFF or BMP file, or an HL7 aECG.
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
        if is_pdf(data):
            return _read_pdf(data, style)
        if data.startswith(PICTURES):
            return _read_picture(data, style)
        if is_aecg(data):
            return _read_aecg(data, style)
    except PARSER_FAULTS as error:  # damaged bytes surface anywhere in the parsers
        raise EcgRefused(
            RefusalReason.DAMAGED,
            f"the file breaks off or contradicts itself ({type(error).__name__})",
            "send it again from the recorder; if it is refused again, its export is faulty",
        ) from error
    raise EcgRefused(
        RefusalReason.UNSUPPORTED_FORM,
        f"the file is {_kind(data)}",
        "send a DICOM waveform, an HL7 aECG, a PDF, or a PNG, JPEG, TIFF or BMP picture of the sheet",
    )


def _kind(data: bytes) -> str:
    if data[16:22] == b"SCPECG":
        return "an SCP-ECG record"
    if data.startswith((b"MFER", b"MFR ")) or data[2:6] == b"MFR ":
        return "an MFER record"
    if data.startswith(_XML):
        return _xml_root(data)
    return "no known form of an ECG"


def _xml_root(data: bytes) -> str:
    beginning = data[:_XML_ROOT_WITHIN].replace(b"\0", b"")
    return next((name for root, name in _XML_ROOTS.items() if root in beginning), "an XML file of no known kind")


def is_aecg(data: bytes) -> bool:
    """Whether an HL7 aECG begins here."""
    return data.startswith(_XML) and _xml_root(data) == _XML_ROOTS[b"<AnnotatedECG"]


def is_pdf(data: bytes) -> bool:
    """PDF readers accept the header anywhere in the first 1024 bytes."""
    return b"%PDF-" in data[:1024]


def _read_dicom(data: bytes, style: RenderStyle) -> LeadImages:
    from ecg_ingest.dicom_file import open_dicom
    from ecg_ingest.waveform import read_waveform

    opened = open_dicom(data)
    if opened.document is not None:
        if not is_pdf(opened.document):
            raise EcgRefused(
                RefusalReason.UNSUPPORTED_FORM,
                "the encapsulated document is not a PDF",
                "send a DICOM waveform or an Encapsulated PDF",
            )
        return _read_pdf(opened.document, style)
    if opened.is_picture:
        from ecg_ingest.picture import read_dicom_picture

        return _read_pixels(read_dicom_picture(opened.dataset), style)
    recording = read_waveform(opened.dataset, big_endian=opened.big_endian)
    return _images(recording, style, source=EcgSource.WAVEFORM, page_layout="")


def _read_pdf(data: bytes, style: RenderStyle) -> LeadImages:
    from ecg_ingest.pdf import PageIsPicture, read_pdf

    try:
        sheet = read_pdf(data)
    except PageIsPicture as picture:
        return _the_one_ecg([partial(_read_drawn_page, data, page, style) for page in picture.pages])
    images = _images(sheet.recording, style, source=EcgSource.VECTOR_PDF, page_layout=sheet.layout)
    return replace(
        images,
        boxes=sheet.boxes,
        page_order="standard",
        page_seconds_per_lead=sheet.seconds_per_column,
        pixels_per_mm=sheet.pixels_per_mm,
        page_dots_per_inch=sheet.dots_per_inch,
    )


def _read_picture(data: bytes, style: RenderStyle) -> LeadImages:
    from ecg_ingest.picture import count_pages, read_picture

    def page(number: int) -> LeadImages:
        return _read_pixels(read_picture(data, number), style, page=number)

    return _the_one_ecg([partial(page, number) for number in range(count_pages(data))])


def _read_drawn_page(data: bytes, page: PicturePage, style: RenderStyle) -> LeadImages:
    """A page of a PDF by its pixels; what it says of its scale in letters counts too."""
    from ecg_ingest.page import draw_page
    from ecg_ingest.paper_scale import STANDARD_MM_PER_MILLIVOLT, STANDARD_MM_PER_SECOND, printed_scale

    drawn = _read_pixels(draw_page(data, page.number), style, page=page.number)
    speed, gain = printed_scale(page.text)
    for said, usual, unit in ((speed, STANDARD_MM_PER_SECOND, "mm/s"), (gain, STANDARD_MM_PER_MILLIVOLT, "mm/mV")):
        if said not in (None, usual):
            raise EcgRefused(
                RefusalReason.NON_STANDARD_SCALE, f"the page says {said:g} {unit}", "export it at 25 mm/s and 10 mm/mV"
            )
    said_all = speed is not None and gain is not None
    quality = tuple(finding for finding in drawn.quality if not (said_all and finding.code == "gain_assumed"))
    return replace(drawn, page_dots_per_inch=page.dots_per_inch, quality=quality)


def _the_one_ecg(pages: list[Callable[[], LeadImages]]) -> LeadImages:
    """The only page that is an ECG. A second one that may be, read or not, makes the file ambiguous."""
    if len(pages) == 1:
        return pages[0]()
    several = EcgRefused(
        RefusalReason.SEVERAL_PAGES,
        f"{len(pages)} pages hold pictures or traces, and more than one may be an ECG",
        "send one ECG on one page",
    )
    if len(pages) > _MOST_PICTURE_PAGES:
        raise several
    found: list[LeadImages | EcgRefused] = []
    for page in pages:
        try:
            found.append(page())
        except EcgRefused as refusal:
            if refusal.reason is not RefusalReason.NOT_AN_ECG:
                found.append(refusal)
        if len(found) > 1:
            raise several
    if not found:
        raise EcgRefused(
            RefusalReason.NOT_AN_ECG, f"none of the {len(pages)} pages shows an ECG", "check the routing rule"
        )
    if isinstance(found[0], EcgRefused):
        raise found[0]
    return found[0]


def _read_aecg(data: bytes, style: RenderStyle) -> LeadImages:
    from ecg_ingest.aecg import read_aecg

    return _images(read_aecg(data), style, source=EcgSource.WAVEFORM, page_layout="")


def _read_pixels(pixels: NDArray[np.uint8], style: RenderStyle, *, page: int = 0) -> LeadImages:
    from ecg_ingest.raster import read_raster

    sheet = read_raster(pixels, page)
    images = _images(
        sheet.recording,
        style,
        source=EcgSource.RASTER,
        page_layout=sheet.layout,
        least_seconds=min(_LEAST_RASTER_SECONDS, style.seconds_per_lead),
    )
    return replace(
        images,
        boxes=sheet.boxes,
        page_order=sheet.order,
        page_seconds_per_lead=sheet.seconds_per_column,
        pixels_per_mm=sheet.pixels_per_mm,
    )


def _images(
    recording: Recording,
    style: RenderStyle,
    *,
    source: EcgSource,
    page_layout: str,
    least_seconds: float | None = None,
) -> LeadImages:
    """Complete, prove, draw."""
    from ecg_ingest.leads import complete, refuse_impossible
    from ecg_ingest.quality import inspect
    from ecg_ingest.render import render

    whole = complete(recording)
    refuse_impossible(
        whole,
        seconds=style.seconds_per_lead if least_seconds is None else least_seconds,
        from_picture=source is EcgSource.RASTER,
    )
    pixels, drawn = render(whole, style)
    return LeadImages(
        pixels=pixels,
        source=source,
        style=style,
        page_layout=page_layout,
        seconds_recorded=whole.seconds,
        derived_leads=whole.derived_leads,
        quality=(*whole.findings, *inspect(whole, from_pixels=source is EcgSource.RASTER), *drawn),
        sampling_hz=whole.sampling_hz,
        signals_mv=whole.signals_mv.astype("float32"),
    )
