"""An ECG that is not DICOM as an object of DICOM's, so that it goes the way of all others.

A PDF becomes an Encapsulated PDF, a picture a Secondary Capture that keeps every pixel, signals a 12-lead ECG
waveform. Who and when is said by the caller, or left blank: nothing of it is taken from the file.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from datetime import datetime
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
    TwelveLeadECGWaveformStorage,
)

from pacs_node import CODE_VERSION
from pacs_node.flow.part10 import DataSetBytes
from storage.records import Patient

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ecg_ingest.lead_images import LeadImages

NAMESPACE = uuid.UUID("b25c0fd5-6f0c-5b0a-9d53-0b7a3f1f2c41")
"""Of the UIDs made here; the same file for the same patient and time gives the same object."""

MICROVOLTS_PER_DIGIT = 1.0
PADDING = -32768
_MDC_NUMBERS = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)  # PS3.16 CID 3001, in the order of `LEADS`


def wrap_pdf(pdf: bytes, patient: Patient, acquired_at: datetime | None) -> DataSetBytes:
    """An Encapsulated PDF data set (PS3.3 A.45.1) around `pdf`.

    Parameters
    ----------
    patient
        Whose it is; fields that nobody knows are "".
    acquired_at
        Timezone-aware, written in its own offset; None where nobody knows.
    """
    dataset = _described(pdf, patient, acquired_at)
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.ConversionType = "WSD"
    dataset.SecondaryCaptureDeviceManufacturer = "pulmolink ecg add"
    dataset.SecondaryCaptureDeviceSoftwareVersions = CODE_VERSION
    dataset.BurnedInAnnotation = "YES"
    dataset.DocumentTitle = "12-lead ECG"
    dataset.ConceptNameCodeSequence = []
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(pdf)
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return _encoded(dataset, str(ExplicitVRLittleEndian))


def wrap_picture(
    file: bytes, pixels: NDArray[np.uint8], patient: Patient, acquired_at: datetime | None
) -> DataSetBytes:
    """A Secondary Capture data set (PS3.3 A.8.1) with the pixels of a picture, JPEG-LS without loss.

    Parameters
    ----------
    file
        The file's bytes: by them the object is known again.
    pixels
        [height, width, 3] RGB, as `ecg_ingest` read them.
    """
    dataset = _described(file, patient, acquired_at)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.ConversionType = "DF" if file.startswith(b"\xff\xd8\xff") else "SD"  # digitised film; scanned document
    dataset.SecondaryCaptureDeviceManufacturer = "pulmolink ecg add"
    dataset.SecondaryCaptureDeviceSoftwareVersions = CODE_VERSION
    dataset.BurnedInAnnotation = "YES"
    dataset.PatientOrientation = ""
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    if file.startswith(b"\xff\xd8\xff"):
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
    dataset.compress(JPEGLSLossless, pixels, generate_instance_uid=False)
    return _encoded(dataset, str(JPEGLSLossless))


def wrap_signals(file: bytes, images: LeadImages, patient: Patient, acquired_at: datetime | None) -> DataSetBytes:
    """A 12-lead ECG waveform data set (PS3.3 A.34.3) with the recorded leads of `images`, in whole microvolts.

    Leads that were computed are left out: whoever reads the object computes them again.
    """
    import numpy as np

    from ecg_ingest.lead_images import LEADS

    dataset = _described(file, patient, acquired_at)
    dataset.SOPClassUID = TwelveLeadECGWaveformStorage
    recorded = [index for index, lead in enumerate(LEADS) if lead not in images.derived_leads]
    millivolts = images.signals_mv[recorded]
    digits = np.clip(np.rint(millivolts * (1000.0 / MICROVOLTS_PER_DIGIT)), -32767, 32767)
    samples = np.where(np.isfinite(millivolts), digits, PADDING).astype("<i2")
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = samples.shape
    group.SamplingFrequency = f"{images.sampling_hz:.10g}"
    group.MultiplexGroupLabel = "RHYTHM"
    group.ChannelDefinitionSequence = [_channel(LEADS[index], _MDC_NUMBERS[index]) for index in recorded]
    group.WaveformBitsAllocated = 16
    group.WaveformSampleInterpretation = "SS"
    group.add_new("WaveformPaddingValue", "OW", PADDING.to_bytes(2, "little", signed=True))
    group.add_new("WaveformData", "OW", samples.T.tobytes())
    dataset.WaveformSequence = [group]
    dataset.AcquisitionContextSequence = []
    return _encoded(dataset, str(ExplicitVRLittleEndian))


def _channel(lead: str, number: int) -> Dataset:
    channel, source, unit = Dataset(), Dataset(), Dataset()
    source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = f"2:{number}", "MDC", f"Lead {lead}"
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "uV", "UCUM", "microvolt"
    channel.ChannelSourceSequence = [source]
    channel.ChannelSensitivity = f"{MICROVOLTS_PER_DIGIT:g}"
    channel.ChannelSensitivityUnitsSequence = [unit]
    channel.ChannelSensitivityCorrectionFactor = "1"
    channel.ChannelBaseline = "0"
    channel.ChannelSampleSkew = "0"
    channel.WaveformBitsStored = 16
    return channel


def wrap_again(part10: bytes, patient: Patient, acquired_at: datetime) -> DataSetBytes:
    """A stored object made here, with what a person said later of whose it is and when it was made."""
    stored = dcmread(io.BytesIO(part10))
    transfer_syntax_uid = str(stored.file_meta.TransferSyntaxUID)
    dataset = Dataset()  # without the preamble that `stored` would be written with
    dataset.update(stored)
    _identify(dataset, part10, patient, acquired_at)
    return _encoded(dataset, transfer_syntax_uid)


def _described(file: bytes, patient: Patient, acquired_at: datetime | None) -> Dataset:
    """What all of these objects say: who, when, and UIDs that the file, patient and time decide."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    _identify(dataset, file, patient, acquired_at)
    dataset.ReferringPhysicianName = ""
    dataset.AccessionNumber = ""
    dataset.StudyID = ""
    dataset.StudyDescription = "12-lead ECG"
    dataset.Modality = "ECG"
    dataset.Manufacturer = ""
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    return dataset


def _identify(dataset: Dataset, file: bytes, patient: Patient, acquired_at: datetime | None) -> None:
    if acquired_at is not None and acquired_at.utcoffset() is None:
        raise ValueError("acquired_at must be timezone-aware")
    when = acquired_at.isoformat() if acquired_at else ""
    seed = f"{hashlib.sha256(file).hexdigest()}|{patient.issuer}|{patient.patient_id}|{when}"
    dataset.SOPInstanceUID = _uid(seed, "instance")
    dataset.SeriesInstanceUID = _uid(seed, "series")
    dataset.StudyInstanceUID = _uid(seed, "study")
    date = time = ""
    if acquired_at is not None:
        date, time = acquired_at.strftime("%Y%m%d"), acquired_at.strftime("%H%M%S.%f")
        dataset.AcquisitionDateTime = f"{date}{time}{acquired_at.strftime('%z')}"
        dataset.TimezoneOffsetFromUTC = acquired_at.strftime("%z")
    dataset.StudyDate = dataset.ContentDate = date
    dataset.StudyTime = dataset.ContentTime = time
    dataset.PatientName = patient.name
    dataset.PatientID = patient.patient_id
    if patient.issuer:
        dataset.IssuerOfPatientID = patient.issuer
    dataset.PatientBirthDate = patient.birth_date
    dataset.PatientSex = patient.sex


def _encoded(dataset: Dataset, transfer_syntax_uid: str) -> DataSetBytes:
    buffer = io.BytesIO()
    if hasattr(dataset, "file_meta"):  # `compress` leaves one
        del dataset.file_meta
    dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return DataSetBytes(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=transfer_syntax_uid,
        data=buffer.getvalue(),
    )


def _uid(seed: str, role: str) -> str:
    return f"2.25.{uuid.uuid5(NAMESPACE, f'{seed}|{role}').int}"
