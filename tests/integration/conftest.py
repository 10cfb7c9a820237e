"""A patient of real files for the tests with real parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from tests.integration.rig import Orthanc, retag

JAPANESE_NAME = "Yamada^Tarou=山田^太郎=やまだ^たろう"


@dataclass(frozen=True, kw_only=True)
class RealPatient:
    """The Philips radiograph and the Mortara ECG as one patient's, three days apart."""

    radiograph: FileDataset
    radiograph_file: Path
    ecg: FileDataset
    ecg_file: Path


@pytest.fixture
def real_patient(tmp_path: Path, philips_radiograph: Path, mortara_ecg: Path) -> RealPatient:
    """See `RealPatient`; the name is Japanese in ISO 2022 IR 87."""
    person = {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": JAPANESE_NAME,
        "PatientID": "RIG-001",
        "IssuerOfPatientID": "RIG",
        "PatientBirthDate": "19500101",
        "PatientSex": "M",
        "TimezoneOffsetFromUTC": "+0900",
    }
    radiograph_file, ecg_file = tmp_path / "radiograph.dcm", tmp_path / "ecg.dcm"
    radiograph = retag(
        philips_radiograph,
        radiograph_file,
        **person,
        StudyDate="20260301",
        StudyTime="100000",
        AcquisitionDate="20260301",
        AcquisitionTime="100000",
        AccessionNumber="ACC1",
    )
    ecg = retag(
        mortara_ecg,
        ecg_file,
        **person,
        StudyDate="20260304",
        StudyTime="100000",
        AcquisitionDateTime="20260304100000",
        ContentDate="20260304",
        ContentTime="100000",
    )
    return RealPatient(radiograph=radiograph, radiograph_file=radiograph_file, ecg=ecg, ecg_file=ecg_file)


@pytest.fixture
def orthanc(tmp_path: Path, tool: Callable[[str], str]) -> Iterator[Orthanc]:
    """A running Orthanc of this test's own."""
    with Orthanc(tool("Orthanc"), tmp_path / "orthanc") as running:
        yield running
