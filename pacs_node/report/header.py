"""Read a received header into values that are safe to write again: complete, conformant, nothing made up.

Whatever a sender got wrong is left out or blanked here, once, so that the writers need not ask again.
What identifies the patient or the study is never altered: it is kept, or the header is refused.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pydicom import Dataset, config
from pydicom.charset import python_encoding
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pydicom.valuerep import PersonName

from pacs_node.report.errors import HeaderUnusable

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_DATE: Final = re.compile(r"(\d{4})[.\-/]?(0[1-9]|1[0-2])[.\-/]?(0[1-9]|[12]\d|3[01])")
_TIME: Final = re.compile(r"([01]\d|2[0-3]):?(?:([0-5]\d):?(?:([0-5]\d)(\.\d{1,6})?)?)?")
_AGE: Final = re.compile(r"\d{3}[DWMY]")
_OFFSET: Final = re.compile(r"[+-](?:0\d|1[0-4])[0-5]\d")
_ORIENTATION: Final = re.compile(r"[APRLHF]{1,3}")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What reports need of a received object. Blank strings where it says nothing usable."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    character_set: tuple[str, ...]  # (0008,0005) as defined terms; empty: the default repertoire
    timezone_offset: str  # (0008,0201), such as "+0900"
    patient_id: str
    issuer: str
    patient_name: str  # up to three component groups, joined by "="
    birth_date: str  # YYYYMMDD
    sex: str  # M, F or O
    age: str
    accession_number: str
    study_id: str
    study_date: str
    study_time: str
    study_description: str
    referring_physician: str
    rows: int  # 0 where the object is no image
    columns: int
    orientation: tuple[str, str] | None  # Patient Orientation of row and column, None if not stated
    imager_spacing_mm: tuple[float, float] | None  # Imager Pixel Spacing: between rows, between columns
    view: str  # View Position
    lossy_compressed: bool  # the pixels are known to have been compressed with loss


def read_header(dataset: Dataset) -> Header:
    """The usable part of a received header.

    Parameters
    ----------
    dataset
        As received: attributes may be missing, empty or of a wrong form.

    Raises
    ------
    HeaderUnusable
        A UID is missing or malformed, or the Patient ID is blank or cannot be written as it is.
    """
    # A received value may break its VR's rules; it is judged here, so pydicom need not judge (and warn) too.
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        patient_id = _text(dataset, "PatientID")
        if not patient_id or len(patient_id) > 64 or "\\" in patient_id or _CONTROL.search(patient_id):
            raise HeaderUnusable("PatientID", "is blank or breaks the rules of its VR")
        sex = _text(dataset, "PatientSex").upper()
        return Header(
            sop_class_uid=_uid(dataset, "SOPClassUID"),
            sop_instance_uid=_uid(dataset, "SOPInstanceUID"),
            series_instance_uid=_uid(dataset, "SeriesInstanceUID"),
            study_instance_uid=_uid(dataset, "StudyInstanceUID"),
            character_set=_character_set(dataset),
            timezone_offset=_matching(_OFFSET, _text(dataset, "TimezoneOffsetFromUTC")),
            patient_id=patient_id,
            issuer=_whole(_text(dataset, "IssuerOfPatientID"), 64),
            patient_name=_person_name(dataset, "PatientName"),
            birth_date=_date(_text(dataset, "PatientBirthDate")),
            sex=sex if sex in {"M", "F", "O"} else "",
            age=_matching(_AGE, _text(dataset, "PatientAge")),
            accession_number=_whole(_text(dataset, "AccessionNumber"), 16),
            study_id=_whole(_text(dataset, "StudyID"), 16),
            study_date=_date(_text(dataset, "StudyDate")),
            study_time=_time(_text(dataset, "StudyTime")),
            study_description=plain_text(_text(dataset, "StudyDescription"), 64),
            referring_physician=_person_name(dataset, "ReferringPhysicianName"),
            rows=_count(dataset, "Rows"),
            columns=_count(dataset, "Columns"),
            orientation=_orientation(dataset),
            imager_spacing_mm=_spacing(dataset),
            view=_text(dataset, "ViewPosition").upper(),
            lossy_compressed=_text(dataset, "LossyImageCompression") == "01",
        )


def plain_text(text: str, limit: int | None = None) -> str:
    """`text` on one line, without control characters and backslashes, cut to `limit` characters."""
    return _CONTROL.sub(" ", text).replace("\\", "/").strip()[:limit].strip()


def _text(dataset: Dataset, keyword: str) -> str:
    """An attribute as text, several values joined by a backslash, "" where there is none to be had."""
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, LookupError, OverflowError, NotImplementedError):
        return ""  # a value of another VR than its tag's, or one pydicom cannot convert
    parts = value if isinstance(value, MultiValue | list | tuple) else (value,)
    if not all(isinstance(part, str | PersonName | int | float | Decimal) for part in parts):
        return ""  # absent, bytes or a sequence: as text it would be ours, not the sender's
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(str(part) for part in value).strip()
    return value.strip() if isinstance(value, str) else str(value).strip()


def _whole(text: str, limit: int) -> str:
    """`text` if it is writable as it is, else "". An identifier cut short would be another's."""
    return text if len(text) <= limit and "\\" not in text and not _CONTROL.search(text) else ""


def _uid(dataset: Dataset, keyword: str) -> str:
    uid = UID(_text(dataset, keyword).rstrip("\0"))
    if not uid or not uid.is_valid:
        raise HeaderUnusable(keyword, "is missing or no valid UID")
    return str(uid)


def _matching(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else ""


def _date(text: str) -> str:
    """YYYYMMDD, also from the forms of ACR-NEMA and of careless senders; "" for anything else."""
    found = _DATE.fullmatch(text)
    return "".join(found.groups()) if found else ""


def _time(text: str) -> str:
    """HHMMSS.FFFFFF as far as given; "" for anything else."""
    found = _TIME.fullmatch(text)
    return "".join(part for part in found.groups() if part) if found else ""


def _person_name(dataset: Dataset, keyword: str) -> str:
    """Up to three component groups of up to five components and 64 characters (PS3.5 6.2.1.2)."""
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, LookupError):
        return ""
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    if not isinstance(value, str | PersonName):
        return ""
    groups = []
    for group in str(value if isinstance(value, PersonName) else PersonName(str(value))).split("=")[:3]:
        parts = _CONTROL.sub("", group).split("^")
        # Surplus components stay readable in the last one rather than being lost.
        parts = [*parts[:4], " ".join(parts[4:])] if len(parts) > 5 else parts
        groups.append("^".join(parts)[:64].strip())
    return "=".join(groups).rstrip("=")


def _character_set(dataset: Dataset) -> tuple[str, ...]:
    """The declared character sets, if each is a defined term (PS3.3 C.12.1.1.2); UTF-8 otherwise."""
    declared = _text(dataset, "SpecificCharacterSet")
    if not declared:
        return ()
    terms = tuple(declared.split("\\"))
    known = all(term in python_encoding and (term or position == 0) for position, term in enumerate(terms))
    return terms if known else ("ISO_IR 192",)


def _count(dataset: Dataset, keyword: str) -> int:
    text = _text(dataset, keyword)
    return int(text) if text.isdigit() else 0


def _orientation(dataset: Dataset) -> tuple[str, str] | None:
    parts = _text(dataset, "PatientOrientation").upper().split("\\")
    if len(parts) != 2 or not all(_ORIENTATION.fullmatch(part) for part in parts):
        return None
    return parts[0], parts[1]


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    try:
        between_rows, between_columns = (float(part) for part in _text(dataset, "ImagerPixelSpacing").split("\\"))
    except ValueError:
        return None
    return (between_rows, between_columns) if between_rows > 0 and between_columns > 0 else None
