"""The overlay picture as a Secondary Capture image in the radiograph's study."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import SecondaryCaptureImageStorage

from pacs_node.report import identifiers
from pacs_node.report.errors import ReportError
from pacs_node.report.header import Header, plain_text
from pacs_node.report.inputs import RESEARCH_ONLY, SYNTHETIC_DEMO, ReportInputs
from pacs_node.report.writing import (
    add_equipment_and_times,
    add_patient_and_study,
    part10,
    series_description,
)

SERIES_NUMBER = 9702


def secondary_capture(inputs: ReportInputs, picture: NDArray[np.uint8]) -> bytes:
    """The picture as a DICOM file, uncompressed, Explicit VR Little Endian.

    Parameters
    ----------
    picture
        RGB [rows, columns, 3], uint8, as `render_overlay` gives it.

    Notes
    -----
    Written attribute by attribute: highdicom's `SCImage` stamps the clock, so that the same inputs would not
    give the same bytes, and cannot be built where Patient Orientation is empty.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ReportError("the picture must be uint8 [rows, columns, 3]")
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = _uid(inputs, identifiers.OVERLAY_IMAGE)
    add_patient_and_study(image, inputs.radiograph_header)
    add_equipment_and_times(image, inputs)
    _add_series_and_image(image, inputs)
    _add_sources(image, inputs)
    _add_pixels(image, picture)
    return part10(image, inputs.radiograph_header)


def _uid(inputs: ReportInputs, role: str) -> str:
    return identifiers.report_uid(inputs.run_digest, inputs.revision, role)


def _add_series_and_image(image: Dataset, inputs: ReportInputs) -> None:
    model = inputs.prediction.model
    image.SeriesInstanceUID = _uid(inputs, identifiers.OVERLAY_SERIES)
    image.SeriesNumber = SERIES_NUMBER
    image.SeriesDescription = series_description(inputs, "overlay")
    image.InstanceNumber = inputs.revision
    image.Modality = "OT"
    image.ConversionType = "WSD"
    image.DateOfSecondaryCapture = image.ContentDate
    image.TimeOfSecondaryCapture = image.ContentTime
    image.ContentQualification = "RESEARCH"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.BodyPartExamined = "CHEST"
    image.PatientOrientation = list(inputs.radiograph_header.orientation or ())
    image.BurnedInAnnotation = "YES"
    image.RecognizableVisualFeatures = "NO"
    if inputs.radiograph_header.lossy_compressed:
        image.LossyImageCompression = "01"  # once lossy, lossy for ever (PS3.3 C.7.6.1.1.5)
    image.DerivationDescription = plain_text(
        f"{RESEARCH_ONLY}. {SYNTHETIC_DEMO + '. ' if inputs.is_synthetic_demo else ''}"
        "Estimate of mean pulmonary artery pressure drawn over the radiograph, with the ECG. "
        f"Model {model.name} {model.version}, sha256 {model.digest}",
        1024,
    )
    image.ImageComments = RESEARCH_ONLY


def _add_sources(image: Dataset, inputs: ReportInputs) -> None:
    """Radiograph and ECG as sources, and where each lies (PS3.3 C.12.2, Common Instance Reference)."""
    radiograph, ecg = inputs.radiograph_header, inputs.ecg_header
    purpose = Dataset()
    purpose.CodeValue = "121322"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    source = _reference(radiograph)
    source.PurposeOfReferenceCodeSequence = Sequence([purpose])
    image.SourceImageSequence = Sequence([source])
    same_study = [header for header in (radiograph, ecg) if _in_study(header, radiograph)]
    image.ReferencedSeriesSequence = _by_series(same_study)
    if not _in_study(ecg, radiograph):
        other = Dataset()
        other.StudyInstanceUID = ecg.study_instance_uid
        other.ReferencedSeriesSequence = _by_series([ecg])
        image.StudiesContainingOtherReferencedInstancesSequence = Sequence([other])


def _in_study(header: Header, radiograph: Header) -> bool:
    return header.study_instance_uid == radiograph.study_instance_uid


def _by_series(headers: list[Header]) -> Sequence:
    series: dict[str, list[Dataset]] = {}
    for header in headers:
        series.setdefault(header.series_instance_uid, []).append(_reference(header))
    items = []
    for uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedInstanceSequence = Sequence(instances)
        items.append(item)
    return Sequence(items)


def _reference(header: Header) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.sop_class_uid
    reference.ReferencedSOPInstanceUID = header.sop_instance_uid
    return reference


def _add_pixels(image: Dataset, picture: NDArray[np.uint8]) -> None:
    image.SamplesPerPixel = 3
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = picture.shape[:2]
    image.BitsAllocated = 8
    image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    data = np.ascontiguousarray(picture).tobytes()
    image.PixelData = data + b"\0" * (len(data) % 2)
