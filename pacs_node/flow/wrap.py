"""An ECG that is not DICOM (a PDF file) as an Encapsulated PDF object, so that it goes the way of all others."""

from __future__ import annotations

import hashlib
import io
import uuid
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from pacs_node import CODE_VERSION
from pacs_node.flow.part10 import DataSetBytes
from storage.records import Patient

NAMESPACE = uuid.UUID("b25c0fd5-6f0c-5b0a-9d53-0b7a3f1f2c41")
"""Of the UIDs made here; the same file for the same patient and time gives the same object."""


def wrap_pdf(pdf: bytes, patient: Patient, acquired_at: datetime) -> DataSetBytes:
    """An Encapsulated PDF data set (PS3.3 A.45.1) around `pdf`.

    Parameters
    ----------
    acquired_at
        Timezone-aware; written in its own offset.
    """
    if acquired_at.utcoffset() is None:
        raise ValueError("acquired_at must be timezone-aware")
    seed = f"{hashlib.sha256(pdf).hexdigest()}|{patient.issuer}|{patient.patient_id}|{acquired_at.isoformat()}"
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.SOPInstanceUID = _uid(seed, "instance")
    dataset.SeriesInstanceUID = _uid(seed, "series")
    dataset.StudyInstanceUID = _uid(seed, "study")
    date, time = acquired_at.strftime("%Y%m%d"), acquired_at.strftime("%H%M%S.%f")
    dataset.AcquisitionDateTime = f"{date}{time}{acquired_at.strftime('%z')}"
    dataset.StudyDate = dataset.ContentDate = date
    dataset.StudyTime = dataset.ContentTime = time
    dataset.TimezoneOffsetFromUTC = acquired_at.strftime("%z")
    dataset.PatientName = patient.name
    dataset.PatientID = patient.patient_id
    if patient.issuer:
        dataset.IssuerOfPatientID = patient.issuer
    dataset.PatientBirthDate = patient.birth_date
    dataset.PatientSex = patient.sex
    dataset.ReferringPhysicianName = ""
    dataset.AccessionNumber = ""
    dataset.StudyID = ""
    dataset.StudyDescription = "12-lead ECG"
    dataset.Modality = "ECG"
    dataset.ConversionType = "WSD"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.SecondaryCaptureDeviceManufacturer = "pulmolink ecg add"
    dataset.SecondaryCaptureDeviceSoftwareVersions = CODE_VERSION
    dataset.BurnedInAnnotation = "YES"
    dataset.DocumentTitle = "12-lead ECG"
    dataset.ConceptNameCodeSequence = []
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(pdf)
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    buffer = io.BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return DataSetBytes(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        data=buffer.getvalue(),
    )


def _uid(seed: str, role: str) -> str:
    return f"2.25.{uuid.uuid5(NAMESPACE, f'{seed}|{role}').int}"
