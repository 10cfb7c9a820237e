"""The overlay's Secondary Capture stands in the radiograph's study and says what it is and what it came from."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from pacs_node.report.errors import ReportError
from pacs_node.report.inputs import ReportInputs
from pacs_node.report.secondary import secondary_capture
from pacs_node.report.structured import structured_report
from tests.unit.report.report_examinations import (
    ecg_header,
    examination,
    model,
    prediction,
    radiograph_header,
)


def picture(rows: int = 30, columns: int = 41) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (rows, columns, 3)).astype(np.uint8)


def read(inputs: ReportInputs) -> Dataset:
    return pydicom.dcmread(BytesIO(secondary_capture(inputs, picture())))


def test_the_pixels_come_back_as_they_were_drawn() -> None:
    assert np.array_equal(read(examination()).pixel_array, picture())


def test_an_odd_number_of_bytes_is_padded() -> None:
    data = secondary_capture(examination(), picture(3, 5))
    assert np.array_equal(pydicom.dcmread(BytesIO(data)).pixel_array, picture(3, 5))


def test_the_image_lies_in_the_radiographs_study_in_a_series_of_its_own() -> None:
    inputs = examination()
    image, report = read(inputs), pydicom.dcmread(BytesIO(structured_report(inputs)))
    assert image.StudyInstanceUID == inputs.radiograph.StudyInstanceUID
    assert image.PatientID == "9RG1"
    series = {image.SeriesInstanceUID, report.SeriesInstanceUID, inputs.radiograph.SeriesInstanceUID}
    assert len(series) == 3
    assert image.SeriesNumber != report.SeriesNumber
    assert image.Modality == "OT"


def test_the_image_says_that_it_is_research_burned_in_and_whose_estimate() -> None:
    image = read(examination())
    assert image.BurnedInAnnotation == "YES"
    assert image.ContentQualification == "RESEARCH"
    for text in ("RESEARCH USE ONLY", model().name, model().digest):
        assert text in image.DerivationDescription
    assert model().name in image.SeriesDescription
    demo = read(examination(prediction=prediction(model=model(kind="synthetic-demo"))))
    assert "SYNTHETIC DEMO MODEL" in demo.DerivationDescription


def test_the_image_names_radiograph_and_ecg_as_its_sources() -> None:
    inputs = examination()
    image = read(inputs)
    (source,) = image.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == inputs.radiograph.SOPInstanceUID
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    (other,) = image.StudiesContainingOtherReferencedInstancesSequence
    (instance,) = other.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert instance.ReferencedSOPInstanceUID == inputs.ecg.SOPInstanceUID


def test_an_ecg_of_the_same_study_is_referenced_within_it() -> None:
    ecg = ecg_header()
    ecg.StudyInstanceUID = radiograph_header().StudyInstanceUID
    image = read(examination(ecg=ecg))
    assert len(image.ReferencedSeriesSequence) == 2
    assert "StudiesContainingOtherReferencedInstancesSequence" not in image


@pytest.mark.parametrize("stated", [True, False])
def test_orientation_is_copied_never_guessed(stated: bool) -> None:
    radiograph = radiograph_header()
    if not stated:
        del radiograph.PatientOrientation
    orientation = read(examination(radiograph=radiograph)).PatientOrientation
    assert (list(orientation) == ["L", "F"]) if stated else not orientation


def test_loss_in_the_radiograph_is_told_and_not_claimed_where_none_is_known() -> None:
    assert read(examination()).LossyImageCompression == "01"
    radiograph = radiograph_header()
    del radiograph.LossyImageCompression
    assert "LossyImageCompression" not in read(examination(radiograph=radiograph))


def test_the_same_inputs_give_the_same_bytes() -> None:
    assert secondary_capture(examination(), picture()) == secondary_capture(examination(), picture())


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 4)])
def test_a_picture_that_is_not_rgb_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ReportError):
        secondary_capture(examination(), np.zeros(shape, np.uint8))
