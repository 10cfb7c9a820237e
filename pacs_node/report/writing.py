"""What every object we make has in common: patient and study as received, our equipment, one encoding."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from typing import Final

from pydicom import Dataset, dcmwrite
from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import PersonName

from pacs_node.report.header import Header, plain_text
from pacs_node.report.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_node.report.inputs import ReportInputs

UTF_8: Final = "ISO_IR 192"
_TEXT_VRS: Final = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}


def series_description(inputs: ReportInputs, what: str) -> str:
    """At most 64 characters that tell our series apart: what, which model, which revision, research only."""
    model = inputs.prediction.model
    revision = f" r{inputs.revision}" if inputs.revision > 1 else ""
    name = plain_text(f"{model.name} {model.version}")
    fixed = len(f"mPAP {what}: {revision} RESEARCH ONLY")
    return f"mPAP {what}: {name[: 64 - fixed]}{revision} RESEARCH ONLY"


def add_patient_and_study(dataset: Dataset, header: Header) -> None:
    """Write the radiograph's patient and study, every type 2 attribute present (PS3.3 C.7.1.1, C.7.2.1)."""
    dataset.PatientName = PersonName(header.patient_name)
    dataset.PatientID = header.patient_id
    dataset.PatientBirthDate = header.birth_date
    dataset.PatientSex = header.sex
    dataset.StudyInstanceUID = header.study_instance_uid
    dataset.StudyDate = header.study_date
    dataset.StudyTime = header.study_time
    dataset.ReferringPhysicianName = PersonName(header.referring_physician)
    dataset.StudyID = header.study_id
    dataset.AccessionNumber = header.accession_number
    for keyword, value in (
        ("IssuerOfPatientID", header.issuer),
        ("StudyDescription", header.study_description),
        ("PatientAge", header.age),
    ):
        if value:
            setattr(dataset, keyword, value)


def add_equipment_and_times(dataset: Dataset, inputs: ReportInputs) -> None:
    """Write who made the object and when, from `inputs.created_at`: no clock is read here."""
    at = inputs.written_at
    dataset.Manufacturer = "pulmolink"
    dataset.ManufacturerModelName = "pulmolink"
    dataset.DeviceSerialNumber = inputs.device.ae_title
    dataset.StationName = inputs.device.ae_title
    dataset.SoftwareVersions = plain_text(inputs.device.software_version, 64)
    dataset.TimezoneOffsetFromUTC = at.strftime("%z")[:5]
    for which in ("InstanceCreation", "Series", "Content"):
        setattr(dataset, f"{which}Date", dicom_date(at))
        setattr(dataset, f"{which}Time", dicom_time(at))


def dicom_date(at: datetime) -> str:
    """`at` as a DA value."""
    return at.strftime("%Y%m%d")


def dicom_time(at: datetime) -> str:
    """`at` as a TM value."""
    return at.strftime("%H%M%S.%f")


def part10(dataset: Dataset, header: Header) -> bytes:
    """`dataset` as a file, Explicit VR Little Endian, in the radiograph's character set where it suffices."""
    texts = [text for text in _texts(dataset) if not text.isascii()]
    terms = header.character_set if _can_write(texts, header.character_set) else (UTF_8,)
    if terms:
        dataset.SpecificCharacterSet = list(terms) if len(terms) > 1 else terms[0]
    elif "SpecificCharacterSet" in dataset:
        del dataset.SpecificCharacterSet
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    dataset.preamble = bytes(128)
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _texts(dataset: Dataset) -> Iterator[str]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in _TEXT_VRS and element.value:
            values = element.value if isinstance(element.value, list) else [element.value]
            yield from (str(value) for value in values)


def _can_write(texts: list[str], terms: tuple[str, ...]) -> bool:
    """Whether each text survives writing and reading under the character sets `terms`."""
    if not texts:
        return True
    encodings = convert_encodings(list(terms) or None)
    with warnings.catch_warnings():
        # pydicom warns and writes question marks; here that is the answer "no".
        warnings.simplefilter("ignore")
        try:
            return all(
                decode_bytes(encode_string(part, encodings), encodings, set()) == part
                for text in texts
                for part in text.replace("^", "=").split("=")
            )
        except (UnicodeError, LookupError, ValueError):
            return False
