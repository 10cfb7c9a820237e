"""Builders of headers for the tests of the flow: what a modality writes, without pixels or samples."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from pacs_node.flow import sop_classes
from pacs_node.flow.part10 import DataSetBytes

LEADS = {
    **{"I": "2:1", "II": "2:2", "III": "2:61", "aVR": "2:62", "aVL": "2:63", "aVF": "2:64"},
    **{f"V{number}": f"2:{number + 2}" for number in range(1, 7)},
}
NOON = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)


def header(sop_class: str = sop_classes.COMPUTED_RADIOGRAPHY, **elements: object) -> Dataset:
    """A data set of `sop_class` with `elements`; values of None are left out."""
    dataset = Dataset()
    _fill(dataset, {"SOPClassUID": sop_class, **elements})
    return dataset


def radiograph(**elements: object) -> Dataset:
    """A PA chest radiograph as a CR sends it; `elements` change it, None takes one away."""
    return header(**{"Modality": "CR", "BodyPartExamined": "CHEST", "ViewPosition": "PA", **elements})


def code(value: str, scheme: str = "SCT", meaning: str = "") -> Sequence:
    """A sequence of one coded concept."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def waveform(
    leads: tuple[str, ...] = tuple(LEADS), *, sop_class: str = sop_classes.TWELVE_LEAD_ECG, **elements: object
) -> Dataset:
    """The header of an ECG waveform; `seconds` (10) and `rate` (500 Hz) may be given."""
    rate, seconds = float(str(elements.pop("rate", 500))), float(str(elements.pop("seconds", 10)))
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.SamplingFrequency = rate
    group.NumberOfWaveformSamples = int(rate * seconds)
    group.NumberOfWaveformChannels = len(leads)
    group.ChannelDefinitionSequence = Sequence([_channel(lead) for lead in leads])
    return header(sop_class, **{"Modality": "ECG", "WaveformSequence": Sequence([group]), **elements})


def _channel(lead: str) -> Dataset:
    channel = Dataset()
    channel.ChannelSourceSequence = code(LEADS[lead], "MDC", f"Lead {lead}")
    return channel


def identified(dataset: Dataset, uid: str, **elements: object) -> Dataset:
    """`dataset` with what pairing and reports need: UIDs, a patient, a time; `elements` change it, None takes away."""
    filled: dict[str, object] = {
        "SOPInstanceUID": uid,
        "StudyInstanceUID": f"{uid}.1",
        "SeriesInstanceUID": f"{uid}.2",
        "PatientID": "P1",
        "PatientName": "Tanaka^Hanako",
        "PatientBirthDate": "19500102",
        "PatientSex": "F",
        **elements,
    }
    _fill(dataset, filled)
    return dataset


def _fill(dataset: Dataset, elements: dict[str, object]) -> None:
    """Write values as they are, wrong ones too: devices do."""
    for keyword, value in elements.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            tag = tag_for_keyword(keyword)
            assert tag is not None
            dataset[tag] = DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE)


def at(moment: datetime) -> dict[str, object]:
    """The elements that say when: AcquisitionDateTime in UTC."""
    return {"AcquisitionDateTime": moment.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")}


def encoded(dataset: Dataset) -> DataSetBytes:
    """A data set as it comes over the network, explicit little endian."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return DataSetBytes(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        data=buffer.getvalue(),
    )
