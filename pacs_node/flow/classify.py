"""Say what a received object is, from its header alone: PA chest radiograph, 12-lead ECG, ours, or other.

Pure: a data set in, a `Classification` out. Pixels, samples and documents are opened later, by the worker.
Nothing is guessed: what does not say that it is a PA view of the chest is ignored with the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom.dataset import Dataset

from ecg_ingest.channels import waveform_leads
from pacs_node.flow import sop_classes
from storage.records import Disposition, Kind

MANUFACTURER = "pulmolink"
"""Manufacturer (0008,0070) of everything we make; by it our own results are known when they come back."""

INDEPENDENT_LEADS = frozenset({"V1", "V2", "V3", "V4", "V5", "V6"})
"""Needed besides two limb leads; the other limb leads follow exactly (Einthoven, Goldberger)."""
LIMB_LEADS = frozenset({"I", "II", "III", "aVR", "aVL", "aVF"})

PA_CODES = frozenset({("SCT", "272479007"), ("SRT", "R-10214"), ("SRT", "R-40888"), ("SNM3", "R-10214")})
VIEW_CODES = {  # PS3.16 CID 4010, the chest's views; anything else is an other view
    **dict.fromkeys(PA_CODES, "PA"),
    **dict.fromkeys({("SCT", "399348003"), ("SRT", "R-10206"), ("SNM3", "R-10206")}, "AP"),
    **dict.fromkeys({("SCT", "399067008"), ("SCT", "399173006"), ("SCT", "399198007")}, "LATERAL"),
    **dict.fromkeys({("SRT", "R-10236"), ("SRT", "R-10232"), ("SRT", "R-10228")}, "LATERAL"),
}
CHEST_CODES = frozenset(
    {("SCT", "816094009"), ("SCT", "51185008"), ("SRT", "T-D3000"), ("SNM3", "T-D3000"), ("SCT", "39607008")}
)
CHEST_WORDS = re.compile(r"\b(chest|thorax|thoracic|cxr|lungs?)\b|胸部|胸", re.I)
NOT_CHEST_WORDS = re.compile(r"\b(thoracic|t[- ]?)[- ]?spine\b|\bribs?\b|\bsternum\b|胸椎|肋骨|胸骨", re.I)
LATERAL_WORDS = re.compile(r"\b(lat|lateral|ll|rl|lld|rld|decub\w*|oblique|rao|lao)\b|側面|斜位", re.I)
AP_WORDS = re.compile(r"\b(ap|a\.p\.|antero-?posterior|portable|bedside|supine)\b|ポータブル|臥位|A→P", re.I)
PA_WORDS = re.compile(r"\b(pa|p\.a\.|p-a|postero-?anterior)\b|P→A", re.I)
ECG_WORDS = re.compile(r"\b(ecg|ekg|12[- ]?lead)\b|electrocardio|elektrokardio|électrocardio|心電図|12誘導", re.I)
NOT_RESTING_WORDS = re.compile(
    r"\b(holter|stress|exercise|treadmill|ergometr\w*|ambulatory|event|loop|24[- ]?h\w*|monitor\w*)\b"
    r"|負荷|ホルター|マスター|トレッドミル",
    re.I,
)


@dataclass(frozen=True, kw_only=True)
class Classification:
    """What an object is and whether it takes part; `reason` is "code: sentence" unless accepted."""

    kind: Kind
    disposition: Disposition
    reason: str = ""


def classify(header: Dataset, *, ecg_documents: bool = False) -> Classification:
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
        return _document(header, ecg_documents)
    if sop_class in sop_classes.RADIOGRAPHS:
        if sop_class == sop_classes.SECONDARY_CAPTURE and _is_ecg_picture(header, ecg_documents):
            return _resting(header) or Classification(kind=Kind.ECG, disposition=Disposition.ACCEPTED)
        return _radiograph(header)
    return _ignored(Kind.OTHER, "sop_class", f"SOP Class {sop_class or 'missing'} is not used")


def _waveform(header: Dataset) -> Classification:
    leads = waveform_leads(header)
    chest, limb = leads & INDEPENDENT_LEADS, leads & LIMB_LEADS
    if not leads:
        return _ignored(Kind.OTHER, "not_an_ecg", "the waveform declares no standard ECG lead")
    if chest == INDEPENDENT_LEADS and len(limb) >= 2:
        return Classification(kind=Kind.ECG, disposition=Disposition.ACCEPTED)
    missing = sorted(INDEPENDENT_LEADS - chest) + ["two limb leads"] * (len(limb) < 2)
    return Classification(
        kind=Kind.ECG,
        disposition=Disposition.REFUSED,
        reason=f"leads_missing: {len(leads)} standard leads; missing {', '.join(missing)}",
    )


def _document(header: Dataset, ecg_documents: bool) -> Classification:
    if ecg_documents or text(header, "Modality") == "ECG" or ECG_WORDS.search(_titles(header)):
        return _resting(header) or Classification(kind=Kind.ECG, disposition=Disposition.ACCEPTED)
    return _ignored(Kind.OTHER, "document_not_ecg", "neither title, modality nor sender says it is an ECG")


def _resting(header: Dataset) -> Classification | None:
    if NOT_RESTING_WORDS.search(_titles(header)):
        return _ignored(Kind.OTHER, "not_resting_ecg", "its title names a stress, Holter or monitor recording")
    return None


def _is_ecg_picture(header: Dataset, ecg_documents: bool) -> bool:
    modality = text(header, "Modality")
    return (
        ecg_documents
        or modality == "ECG"
        or (modality not in {"CR", "DX", "RG"} and ECG_WORDS.search(_titles(header)) is not None)
    )


def _radiograph(header: Dataset) -> Classification:
    if text(header, "SOPClassUID") == sop_classes.DIGITAL_XRAY_FOR_PROCESSING or (
        text(header, "PresentationIntentType") == "FOR PROCESSING"
    ):
        return _no_radiograph("for_processing", "raw detector data; the image FOR PRESENTATION is needed")
    modality = text(header, "Modality")
    if modality not in {"CR", "DX", "RG", ""}:
        return _no_radiograph("modality", f"modality {modality} is not a radiograph")
    if "LOCALIZER" in text(header, "ImageType"):
        return _no_radiograph("localizer", "a localizer")
    return _body_part(header) or _view(header)


def _body_part(header: Dataset) -> Classification | None:
    """Why this is not the chest, or None if it is."""
    part = text(header, "BodyPartExamined")
    regions = _codes(header, "AnatomicRegionSequence")
    described = _descriptions(header)
    if part:
        chest = CHEST_WORDS.search(part) is not None and not NOT_CHEST_WORDS.search(part)
    elif regions:
        chest = not CHEST_CODES.isdisjoint(regions)
    elif NOT_CHEST_WORDS.search(described):
        chest = False
    elif CHEST_WORDS.search(described):
        chest = True
    else:
        return _no_radiograph("body_part_unknown", "nothing in the header says that this is the chest")
    return None if chest else _no_radiograph("body_part", f"body part {part or 'coded otherwise'} is not the chest")


def _view(header: Dataset) -> Classification:
    """Accept a PA view; name any other."""
    position = text(header, "ViewPosition").upper()
    codes = [VIEW_CODES.get(code, "OTHER") for code in _codes(header, "ViewCodeSequence")]
    series = " ".join(text(header, key) for key in SERIES_TEXTS)
    orientation = [part for part in text(header, "PatientOrientation").split("\\") if part]
    if position:
        view = "PA" if position == "PA" else "AP" if position.startswith("AP") else position
    elif codes:
        view = codes[0]
    else:
        view = _view_in_words(series) or _view_in_words(text(header, "StudyDescription")) or ""
    if len(orientation) == 2 and orientation[0][:1] in "AP":
        if view == "PA":
            return _no_radiograph("view_contradiction", "the view is PA but PatientOrientation is lateral")
        view = view or "LATERAL"
    if view == "PA" and (_view_in_words(series) == "AP" or codes[:1] not in ([], ["PA"])):
        return _no_radiograph("view_contradiction", "view position, view code and description disagree")
    if view == "PA":
        return Classification(kind=Kind.RADIOGRAPH, disposition=Disposition.ACCEPTED)
    if not view:
        return _no_radiograph("view_unknown", "nothing in the header says that this is a PA view")
    code = {"AP": "view_ap", "LATERAL": "view_lateral", "LL": "view_lateral", "RL": "view_lateral"}
    return _no_radiograph(code.get(view, "view_other"), f"view {view}, not PA")


SERIES_TEXTS = (
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "PerformedProcedureStepDescription",
)


def _view_in_words(words: str) -> str:
    """PA, AP or LATERAL if the words name exactly one of them, else ""."""
    found = [
        name
        for name, pattern in (("PA", PA_WORDS), ("AP", AP_WORDS), ("LATERAL", LATERAL_WORDS))
        if pattern.search(words.replace("_", " "))
    ]
    return found[0] if len(found) == 1 else ""


def _descriptions(header: Dataset) -> str:
    return " ".join(text(header, key) for key in (*SERIES_TEXTS, "StudyDescription")).replace("_", " ")


def _titles(header: Dataset) -> str:
    concepts = " ".join(text(item, "CodeMeaning") for item in _items(header, "ConceptNameCodeSequence"))
    keys = ("DocumentTitle", "SeriesDescription", "StudyDescription", "ImageComments", "ProtocolName")
    return " ".join([concepts, *(text(header, key) for key in keys)]).replace("_", " ")


def _codes(header: Dataset, keyword: str) -> list[tuple[str, str]]:
    return [(text(item, "CodingSchemeDesignator"), text(item, "CodeValue")) for item in _items(header, keyword)]


def _items(header: Dataset, keyword: str) -> list[Dataset]:
    value = header.get(keyword)
    return [item for item in value if isinstance(item, Dataset)] if value else []


def text(header: Dataset, keyword: str) -> str:
    """An element as stripped text, several values joined by backslash; "" if absent or unreadable."""
    try:
        value = header.get(keyword)
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return ""  # a value that contradicts its VR says nothing
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        return "\\".join(str(part).strip() for part in value)
    return str(value).strip()


def _ignored(kind: Kind, code: str, sentence: str) -> Classification:
    return Classification(kind=kind, disposition=Disposition.IGNORED, reason=f"{code}: {sentence}")


def _no_radiograph(code: str, sentence: str) -> Classification:
    return _ignored(Kind.OTHER, code, sentence)
