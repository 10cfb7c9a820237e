"""Put phantom pictures, recordings and pages into valid DICOM objects (PS3.3 A.2, A.26, A.34.3, A.45.1).

In: arrays or PDF bytes with who and when; out: Part 10 bytes, the same for the same input.
"""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    TwelveLeadECGWaveformStorage,
)

from inference.phantoms.chest import PIXEL_MM
from inference.phantoms.ecg import LEADS, SAMPLING_HZ, STEP_UV

_UID_SPACE = uuid.UUID("6f0f7c1e-5a1b-5d53-9a51-3f6f2f1d7a10")  # this project's phantoms, chosen once
_MDC_CODES = ("2:1", "2:2", "2:61", "2:62", "2:63", "2:64", "2:3", "2:4", "2:5", "2:6", "2:7", "2:8")
_VIEWS = {"PA": ("272479007", "postero-anterior"), "AP": ("399348003", "antero-posterior")}


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who an object says it is of."""

    name: str  # one group, or three (alphabetic=ideographic=phonetic)
    patient_id: str
    issuer: str
    birth_date: str
    sex: str
    writes_offset: bool  # whether its objects carry TimezoneOffsetFromUTC

    def with_birth_date(self, birth_date: str) -> Person:
        """The same person with another birth date."""
        return replace(self, birth_date=birth_date)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Which examination of which phantom, and when (local time, timezone-aware)."""

    seed: int
    index: int
    role: str  # "radiograph", "ecg", ...
    at: datetime
    visit: int = 0  # 0 is the first

    def uid(self, level: str) -> str:
        """The UID of "study", "series" or "instance": 2.25 and a UUIDv5 (PS3.5 B.2) of seed and index."""
        name = f"{self.seed}/{self.index}/{self.role}/{level}" + (f"/{self.visit}" if self.visit else "")
        return f"2.25.{uuid.uuid5(_UID_SPACE, name).int}"


def radiograph(
    examination: Examination,
    person: Person,
    pixels: NDArray[np.uint16],
    *,
    view: str,
    digital: bool,
    inverted: bool,
) -> bytes:
    """A chest radiograph: DX For Presentation if `digital`, else CR; MONOCHROME1 if `inverted`.

    `pixels` are uint16 [rows, columns] of 12 bits with air low; `view` is "PA" or "AP".
    """
    sop_class = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    dataset = _head(examination, person, sop_class, "DX" if digital else "CR", number=1)
    dataset.StudyDescription = "Chest"
    dataset.SeriesDescription = f"Chest {view}"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = view
    dataset.ImageType = ["ORIGINAL", "PRIMARY"] if not digital else ["ORIGINAL", "PRIMARY", ""]
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImagerPixelSpacing = [PIXEL_MM, PIXEL_MM]
    dataset.BurnedInAnnotation = "NO"
    dataset.AcquisitionDate = dataset.ContentDate
    dataset.AcquisitionTime = dataset.ContentTime
    dataset.KVP = "120"
    if digital:
        _digital_detail(dataset, view, inverted=inverted)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = "2048", "4096"
    stored = 4095 - pixels if inverted else pixels
    dataset.PixelData = np.ascontiguousarray(stored, dtype="<u2").tobytes()
    return _part10(dataset)


def waveform(examination: Examination, person: Person, steps: NDArray[np.int16]) -> bytes:
    """A 12-lead ECG Waveform Storage object of `steps`, int16 [12, samples] in steps of `STEP_UV`."""
    dataset = _head(examination, person, TwelveLeadECGWaveformStorage, "ECG", number=1)
    dataset.StudyDescription = "12-lead ECG"
    dataset.AcquisitionDateTime = dataset.ContentDate + dataset.ContentTime
    dataset.AcquisitionContextSequence = Sequence()
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.NumberOfWaveformChannels = len(LEADS)
    group.NumberOfWaveformSamples = steps.shape[1]
    group.SamplingFrequency = str(SAMPLING_HZ)
    group.MultiplexGroupLabel = "RHYTHM"
    channels = []
    for lead, code in zip(LEADS, _MDC_CODES, strict=True):
        channel = Dataset()
        channel.ChannelSourceSequence = Sequence([_code(code, "MDC", f"Lead {lead}")])
        channel.ChannelSensitivity = str(STEP_UV)
        channel.ChannelSensitivityUnitsSequence = Sequence([_code("uV", "UCUM", "microvolt")])
        channel.ChannelSensitivityCorrectionFactor = "1"
        channel.ChannelBaseline = "0"
        channel.ChannelTimeSkew = "0"
        channel.WaveformBitsStored = 16
        channel.FilterLowFrequency = "0.05"
        channel.FilterHighFrequency = "150"
        channels.append(channel)
    group.ChannelDefinitionSequence = Sequence(channels)
    group.WaveformBitsAllocated = 16
    group.WaveformSampleInterpretation = "SS"
    group.add_new(0x54001010, "OW", np.ascontiguousarray(steps.T, dtype="<i2").tobytes())
    dataset.WaveformSequence = Sequence([group])
    return _part10(dataset)


def encapsulated_pdf(examination: Examination, person: Person, pdf: bytes) -> bytes:
    """An Encapsulated PDF object of an ECG page, Modality ECG, titled "12-lead ECG"."""
    dataset = _head(examination, person, EncapsulatedPDFStorage, "ECG", number=1)
    dataset.StudyDescription = "12-lead ECG"
    dataset.ConversionType = "WSD"
    dataset.SpecificCharacterSet = dataset.get("SpecificCharacterSet", "ISO_IR 100")
    dataset.AcquisitionDateTime = dataset.ContentDate + dataset.ContentTime
    dataset.BurnedInAnnotation = "YES"
    dataset.DocumentTitle = "12-lead ECG"
    dataset.ConceptNameCodeSequence = Sequence([_code("268400002", "SCT", "12 lead ECG")])
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(pdf)
    dataset.EncapsulatedDocument = pdf + b"\x00" * (len(pdf) % 2)
    return _part10(dataset)


def scan(examination: Examination, person: Person, page: NDArray[np.uint8]) -> bytes:
    """A Secondary Capture Image of a scanned ECG page, uint8 [rows, columns, 3], Modality ECG."""
    dataset = _head(examination, person, SecondaryCaptureImageStorage, "ECG", number=1)
    dataset.StudyDescription = "12-lead ECG"
    dataset.SeriesDescription = "12-lead ECG, scanned"
    dataset.ConversionType = "DF"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = ""
    dataset.BurnedInAnnotation = "YES"
    dataset.AcquisitionDateTime = dataset.ContentDate + dataset.ContentTime
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.Rows, dataset.Columns = page.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    pixels = np.ascontiguousarray(page).tobytes()
    dataset.PixelData = pixels + b"\x00" * (len(pixels) % 2)
    return _part10(dataset)


def _head(examination: Examination, person: Person, sop_class: UID, modality: str, *, number: int) -> Dataset:
    """Patient, study, series, equipment and SOP common attributes."""
    at = examination.at
    dataset = Dataset()
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"] if "=" in person.name else "ISO_IR 100"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = examination.uid("instance")
    dataset.StudyInstanceUID = examination.uid("study")
    dataset.SeriesInstanceUID = examination.uid("series")
    if person.writes_offset:
        dataset.TimezoneOffsetFromUTC = f"{at:%z}"
    dataset.InstanceCreationDate = f"{at:%Y%m%d}"
    dataset.InstanceCreationTime = f"{at:%H%M%S}"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = f"{at:%Y%m%d}"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = f"{at:%H%M%S}"
    letter = {"radiograph": "R", "ecg": "E"}.get(examination.role, "F")
    visit = f"V{examination.visit + 1}" if examination.visit else ""
    dataset.AccessionNumber = f"{letter}{examination.seed:04d}{examination.index:05d}{visit}"
    dataset.StudyID = dataset.AccessionNumber
    dataset.Modality = modality
    dataset.Manufacturer = "pulmolink phantom"
    dataset.ManufacturerModelName = "phantom"
    dataset.InstitutionName = "Phantom Hospital"
    dataset.ReferringPhysicianName = ""
    dataset.PatientName = person.name
    dataset.PatientID = person.patient_id
    dataset.IssuerOfPatientID = person.issuer
    dataset.PatientBirthDate = person.birth_date
    dataset.PatientSex = person.sex
    dataset.DeviceSerialNumber = "1"
    dataset.SoftwareVersions = "1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = number
    return dataset


def _digital_detail(dataset: Dataset, view: str, *, inverted: bool) -> None:
    """What the DX modules want beyond CR (PS3.3 C.8.11)."""
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = Sequence([_code("816094009", "SCT", "Chest")])
    view_code = _code(_VIEWS[view][0], "SCT", _VIEWS[view][1])
    view_code.ViewModifierCodeSequence = Sequence()
    dataset.ViewCodeSequence = Sequence([view_code])
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if inverted else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dataset.LossyImageCompression = "00"
    dataset.DetectorType = "SCINTILLATOR"
    dataset.PositionerType = "NONE"
    dataset.AcquisitionContextSequence = Sequence()


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _part10(dataset: Dataset) -> bytes:
    """Explicit VR little endian, with file meta information."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
