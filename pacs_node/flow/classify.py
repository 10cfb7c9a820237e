"""Say what a received object is, from its header alone: PA chest radiograph, 12-lead ECG, ours, or other.

Pure: a data set in, a `Classification` out. Pixels, samples and documents are opened later, by the worker.
Nothing is guessed: what does not say that it is a PA view of the chest is ignored with the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from ecg_ingest.channels import PARSER_FAULTS, Elements, number, sequence, waveform_leads
from pacs_node.flow import sop_classes, words
from pacs_node.flow.words import names_chest, plain, views_named
from storage.records import Disposition, Kind

MANUFACTURER = "pulmolink"
"""Manufacturer (0008,0070) of everything we make; by it our own results are known when they come back."""

INDEPENDENT_LEADS = frozenset({"V1", "V2", "V3", "V4", "V5", "V6"})
"""Needed besides two limb leads; the other limb leads follow exactly (Einthoven, Goldberger)."""
LIMB_LEADS = frozenset({"I", "II", "III", "aVR", "aVL", "aVF"})
RESTING_SECONDS = 300.0
"""A longer recording is a Holter, a stress test or a catheterisation, whatever its SOP Class says."""

VIEW_CODES = {  # PS3.16 CID 4010 and its earlier SNOMED RT and SNOMED 3 forms; others are read by meaning
    **dict.fromkeys(
        {("SCT", "272479007"), *((s, c) for s in ("SRT", "SNM3", "99SDM") for c in ("R-40888", "R-10214"))}, "PA"
    ),
    **dict.fromkeys({("SCT", "399348003"), ("SRT", "R-10206"), ("SNM3", "R-10206")}, "AP"),
    **dict.fromkeys({("SCT", "399067008"), ("SCT", "399173006"), ("SCT", "399198007")}, "LATERAL"),
    **dict.fromkeys({("SRT", "R-102CD"), ("SRT", "R-10236"), ("SRT", "R-10232")}, "LATERAL"),
    **dict.fromkeys({("SCT", "399033003"), ("SRT", "R-10202")}, ""),  # frontal: PA or AP
}
CHEST_CODES = frozenset(  # CID 4009: chest, thoracic structure, thoracic cavity, lung
    {
        *(("SCT", code) for code in ("816094009", "51185008", "43799004", "39607008")),
        *((scheme, code) for scheme in ("SRT", "SNM3") for code in ("T-D3000", "T-D3200", "T-28000")),
    }
)
PA_POSITION = re.compile(r"P[-./ ]?A\.?|POSTERO-? ?ANTERIOR")
AP_POSITION = re.compile(r"A[-./ ]?P\.?( .*)?|ANTERO-? ?POSTERIOR( .*)?")
LATERAL_POSITION = re.compile(r"LL|RL|LAT(ERAL)?|L|R|(LEFT|RIGHT|L|R) LAT(ERAL)?")

IMAGE_TEXTS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
"""Say how this image was taken."""
STEP_TEXT = "PerformedProcedureStepDescription"
"""Says what was done: for the view as good as the texts above; for the body part it may name several."""
TITLES = ("DocumentTitle", "SeriesDescription", "StudyDescription", "ImageComments", "ProtocolName")

IMAGING_MODALITIES = frozenset(
    {"CR", "DX", "RG", "CT", "MR", "US", "NM", "PT", "XA", "RF", "MG", "IVUS", "OCT", "ES", "XC"}
)
"""A picture or document of one of these that mentions an ECG is gated by it or shows it, but is none."""


@dataclass(frozen=True, kw_only=True)
class Classification:
    """What an object is and whether it takes part; `reason` is "code: sentence" unless accepted."""

    kind: Kind
    disposition: Disposition
    reason: str = ""


def classify(header: Elements, *, ecg_documents: bool = False) -> Classification:
    """Classify an object by its header.

    Parameters
    ----------
    header
        The data set; pixel data may be absent. Unreadable elements count as absent.
    ecg_documents
        The sender is configured to send ECGs only: its PDFs and pictures need no title.
    """
    sop_class = text(header, "SOPClassUID")
    if text(header, "Manufacturer").lower() == MANUFACTURER and sop_class not in sop_classes.WAVEFORMS:
        return _ignored(Kind.OWN, "own_result", "made by pulmolink; results are never processed again")
    if sop_class in sop_classes.WAVEFORMS:
        return _waveform(header)
    if sop_class == sop_classes.ENCAPSULATED_PDF:
        if ecg_documents or _is_ecg_by_title(header):
            return _resting(header) or Classification(kind=Kind.ECG, disposition=Disposition.ACCEPTED)
        return _ignored(Kind.OTHER, "document_not_ecg", "neither title, modality nor sender says it is an ECG")
    if sop_class == sop_classes.SECONDARY_CAPTURE and (ecg_documents or _is_ecg_by_title(header)):
        return _resting(header) or Classification(kind=Kind.ECG, disposition=Disposition.ACCEPTED)
    if sop_class in sop_classes.RADIOGRAPHS:
        return _radiograph(header)
    return _ignored(Kind.OTHER, "sop_class", f"SOP Class {sop_class or 'missing'} is not used")


def _waveform(header: Elements) -> Classification:
    leads = waveform_leads(header)
    chest, limb = leads & INDEPENDENT_LEADS, leads & LIMB_LEADS
    if not leads and _without_rate(header):
        return Classification(
            kind=Kind.ECG,
            disposition=Disposition.REFUSED,
            reason="bad_sampling: no waveform group declares a sampling frequency above 0",
        )
    if not leads:
        return _ignored(Kind.OTHER, "not_an_ecg", "the waveform declares no standard ECG lead")
    if unsuitable := _resting(header):
        return unsuitable
    if (seconds := _longest_seconds(header)) > RESTING_SECONDS:
        return _ignored(Kind.OTHER, "not_resting_ecg", f"a recording of {seconds:.0f} s is not a resting ECG")
    if chest == INDEPENDENT_LEADS and len(limb) >= 2:
        return Classification(kind=Kind.ECG, disposition=Disposition.ACCEPTED)
    missing = sorted(INDEPENDENT_LEADS - chest) + ["two limb leads"] * (len(limb) < 2)
    return Classification(
        kind=Kind.ECG,
        disposition=Disposition.REFUSED,
        reason=f"leads_missing: {len(leads)} standard leads; missing {', '.join(missing)}",
    )


def _without_rate(header: Elements) -> bool:
    """Whether there are groups and none says how fast it was sampled, so that nothing else of it counts."""
    try:
        groups = sequence(header, "WaveformSequence")
        return bool(groups) and not any((number(group, "SamplingFrequency") or 0) > 0 for group in groups)
    except PARSER_FAULTS:
        return False


def _longest_seconds(header: Elements) -> float:
    """The longest multiplex group's duration; 0.0 where the header does not say, which the decoder refuses."""
    longest = 0.0
    try:
        for group in sequence(header, "WaveformSequence"):
            rate, samples = number(group, "SamplingFrequency"), number(group, "NumberOfWaveformSamples")
            longest = max(longest, samples / rate if rate and samples else 0.0)
    except PARSER_FAULTS:
        return longest
    return longest


def _is_ecg_by_title(header: Elements) -> bool:
    modality = text(header, "Modality")
    if modality == "ECG":
        return True
    return modality not in IMAGING_MODALITIES and words.ECG.search(_titles(header)) is not None


def _resting(header: Elements) -> Classification | None:
    if words.NOT_RESTING.search(_titles(header)):
        return _ignored(Kind.OTHER, "not_resting_ecg", "its title names a stress, Holter or monitor recording")
    return None


def _radiograph(header: Elements) -> Classification:
    if text(header, "SOPClassUID") == sop_classes.DIGITAL_XRAY_FOR_PROCESSING or (
        text(header, "PresentationIntentType") == "FOR PROCESSING"
    ):
        return _no_radiograph("for_processing", "raw detector data; the image FOR PRESENTATION is needed")
    modality = text(header, "Modality")
    if modality not in {"CR", "DX", "RG", ""}:
        return _no_radiograph("modality", f"modality {modality[:16]} is not a radiograph")
    if "LOCALIZER" in text(header, "ImageType"):
        return _no_radiograph("localizer", "a localizer")
    if text(header, "NumberOfFrames") not in {"", "0", "1"}:
        return _no_radiograph("multi_frame", "several frames; one radiograph is needed")
    if text(header, "QualityControlImage") == "YES":
        return _no_radiograph("quality_control", "a quality control or phantom image")
    return _body_part(header) or _view(header)


def _body_part(header: Elements) -> Classification | None:
    """Why this is not the chest, or None if it is."""
    image = _joined(header, *IMAGE_TEXTS)
    chest = _region(header)
    if chest is None:
        chest = names_chest(image)
    if chest is None:
        chest = names_chest(_joined(header, STEP_TEXT, "StudyDescription"))
    if chest is None:
        return _no_radiograph("body_part_unknown", "nothing in the header says that this is the chest")
    if not chest:
        return _no_radiograph("body_part", "body part or description is not the chest, or not only the chest")
    if names_chest(image) is False:
        # Ribs, sternum and spine are often sent with body part CHEST.
        return _no_radiograph("body_part", "the body part is the chest but the description names another")
    return None


def _region(header: Elements) -> bool | None:
    """Whether body part and coded region are the chest; None if neither is given, False if either is not."""
    said = []
    if part := plain(text(header, "BodyPartExamined")):
        said.append(names_chest(part) is True)
    if regions := _items(header, "AnatomicRegionSequence"):
        said.append(
            any(_code(item) in CHEST_CODES or names_chest(plain(text(item, "CodeMeaning"))) for item in regions)
        )
    return all(said) if said else None


def _view(header: Elements) -> Classification:
    """Accept a PA view; name any other, and any contradiction."""
    image = _joined(header, *IMAGE_TEXTS, STEP_TEXT)
    study = _joined(header, "StudyDescription")
    stated = [view for view in (_position(header), *_coded_views(header)) if view]
    named, ordered = views_named(image), views_named(study)
    side = _orientation(header)
    if stated:
        view = stated[0]
    elif len(named) == 1:
        (view,) = named
    elif not named and ordered == {"PA"} and side == "FRONTAL":
        view = "PA"  # what was ordered says PA alone, and the image itself is no lateral
    else:
        view = "LATERAL" if side == "LATERAL" else ""
    if not view:
        return _no_radiograph("view_unknown", "nothing in the header says that this image is a PA view")
    if view != "PA":
        return _no_radiograph(_VIEW_REASONS.get(view, "view_other"), f"view {view}, not PA")
    if set(stated) - {"PA"}:
        return _no_radiograph("view_contradiction", "ViewPosition and ViewCodeSequence disagree")
    if side == "LATERAL":
        return _no_radiograph("view_contradiction", "the view is PA but PatientOrientation is lateral")
    if (named and "PA" not in named) or ordered == {"AP"}:
        return _no_radiograph("view_contradiction", "the view is PA but a description names another view")
    if words.BEDSIDE.search(f"{image} {study} {_joined(header, 'BodyPartExamined')}"):
        return _no_radiograph("view_contradiction", "the view is PA but a description says bedside or lying")
    if words.SPECIAL.search(image):
        return _no_radiograph("view_special", "a special projection or a processed picture, not the plain PA film")
    return Classification(kind=Kind.RADIOGRAPH, disposition=Disposition.ACCEPTED)


_VIEW_REASONS = {"AP": "view_ap", "LATERAL": "view_lateral"}


def _position(header: Elements) -> str:
    """PA, AP, LATERAL or OTHER from ViewPosition (0018,5101); "" if it is empty."""
    position = plain(text(header, "ViewPosition")).upper()
    for view, pattern in (("PA", PA_POSITION), ("AP", AP_POSITION), ("LATERAL", LATERAL_POSITION)):
        if pattern.fullmatch(position):
            return view
    return "OTHER" if position else ""


def _coded_views(header: Elements) -> list[str]:
    """The same from ViewCodeSequence (0054,0220); a code that is not known is read by its meaning."""
    views = []
    for item in _items(header, "ViewCodeSequence"):
        view = VIEW_CODES.get(_code(item))
        if view is None:
            meaning = plain(text(item, "CodeMeaning"))
            named = views_named(meaning)
            silent = not meaning or (not named and words.FRONTAL.search(meaning))
            view = next(iter(named)) if len(named) == 1 else "" if silent else "OTHER"
        views.append(view)
    return views


def _orientation(header: Elements) -> str:
    """FRONTAL or LATERAL by the direction of the rows in PatientOrientation (0020,0020), "" if it is not given."""
    parts = [part for part in text(header, "PatientOrientation").upper().split("\\") if part]
    if len(parts) != 2:
        return ""
    # The first letter dominates. Turned pictures have head or foot there and the side in the columns.
    sides = [part[0] for part in parts]
    if "A" in sides or "P" in sides:
        return "LATERAL"
    return "FRONTAL" if "L" in sides or "R" in sides else ""


def _titles(header: Elements) -> str:
    concepts = " ".join(text(item, "CodeMeaning") for item in _items(header, "ConceptNameCodeSequence"))
    return plain(f"{concepts} {_joined(header, *TITLES)}")


def _joined(header: Elements, *keywords: str) -> str:
    return plain(" ".join(text(header, keyword) for keyword in keywords))


def _code(item: Elements) -> tuple[str, str]:
    return text(item, "CodingSchemeDesignator"), text(item, "CodeValue")


def _items(header: Elements, keyword: str) -> list[Elements]:
    try:
        return [item for item in header.get(keyword) or () if hasattr(item, "get")]
    except PARSER_FAULTS:
        return []


def text(header: Elements, keyword: str) -> str:
    """An element as stripped text, several values joined by backslash; "" if absent or neither text nor number."""
    try:
        value = header.get(keyword)
        if type(value) is str:  # nearly all of them
            return value.strip(" \0\t\r\n")
        if not all(isinstance(part, str | PersonName | int | float | Decimal) for part in _parts(value)):
            return ""  # bytes and items of a sequence say nothing; as text they would be ours, not the sender's
        if isinstance(value, list | tuple | MultiValue):
            return "\\".join(str(part).strip(" \0") for part in value)
        return "" if value is None else str(value).strip(" \0\t\r\n")
    except PARSER_FAULTS:
        return ""  # a value that contradicts its VR says nothing


def is_unreadable(header: Elements, keyword: str) -> bool:
    """Whether an element stands there and is no text: not absent, for it may say what we do not see."""
    try:
        value = header.get(keyword)
        return type(value) is not str and not all(isinstance(part, str | PersonName) for part in _parts(value))
    except PARSER_FAULTS:
        return True


def _parts(value: Any) -> tuple[Any, ...]:
    """The values of an element; none of an absent one."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple | MultiValue) else (value,)


def _ignored(kind: Kind, code: str, sentence: str) -> Classification:
    return Classification(kind=kind, disposition=Disposition.IGNORED, reason=f"{code}: {sentence}")


def _no_radiograph(code: str, sentence: str) -> Classification:
    return _ignored(Kind.OTHER, code, sentence)
