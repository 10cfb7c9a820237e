"""The coded concepts a report uses, and the local scheme for the few that no standard scheme has."""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.coding import Code

LOCAL_SCHEME = "99PULMOLINK"

MEAN_PULMONARY_ARTERY_PRESSURE = Code("8414-5", "LN", "Pulmonary artery Mean blood pressure")
PULMONARY_ARTERY = Code("81040000", "SCT", "Pulmonary artery")
ESTIMATED = Code("414135002", "SCT", "Estimated")
CALCULATED = Code("258090004", "SCT", "Calculated")
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
SOURCE_OF_MEASUREMENT = Code("121112", "DCM", "Source of Measurement")
COMMENT = Code("121106", "DCM", "Comment")
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")

# TID 1600 family: the Image Library
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
SOURCE = Code("260753009", "SCT", "Source")
MODALITY = Code("121139", "DCM", "Modality")
PIXEL_DATA_ROWS = Code("110910", "DCM", "Pixel Data Rows")
PIXEL_DATA_COLUMNS = Code("110911", "DCM", "Pixel Data Columns")
PATIENT_ORIENTATION_ROW = Code("111044", "DCM", "Patient Orientation Row")
PATIENT_ORIENTATION_COLUMN = Code("111043", "DCM", "Patient Orientation Column")
HORIZONTAL_PIXEL_SPACING = Code("111026", "DCM", "Horizontal Pixel Spacing")
VERTICAL_PIXEL_SPACING = Code("111066", "DCM", "Vertical Pixel Spacing")
IMAGE_VIEW = Code("111031", "DCM", "Image View")
POSTERO_ANTERIOR = Code("272479007", "SCT", "postero-anterior")
MODALITIES = {
    "1.2.840.10008.5.1.4.1.1.1": Code("CR", "DCM", "Computed Radiography"),
    "1.2.840.10008.5.1.4.1.1.1.1": Code("DX", "DCM", "Digital Radiography"),
    "1.2.840.10008.5.1.4.1.1.1.1.1": Code("DX", "DCM", "Digital Radiography"),
}
OTHER_MODALITY = Code("OT", "DCM", "Other Modality")

# CID 222
NORMALITY = Code("121402", "DCM", "Normality")
NORMAL = Code("17621005", "SCT", "Normal")
ABNORMALLY_HIGH = Code("371879000", "SCT", "Abnormally High")
NORMALITY_UNDETERMINED = Code("371934000", "SCT", "Normality Undetermined")

# CID 6135 and the concept it answers
QUALITY_ASSESSMENT = Code("111050", "DCM", "Quality Assessment")
QUALITY_MET = Code("111237", "DCM", "Usable - Meets the quality control standard")
QUALITY_NOT_MET = Code("111236", "DCM", "Usable - Does not meet the quality control standard")

INTERVAL_LOWER = Code("MPAP-INT-LOW", LOCAL_SCHEME, "Lower limit of prediction interval of mPAP")
INTERVAL_UPPER = Code("MPAP-INT-HIGH", LOCAL_SCHEME, "Upper limit of prediction interval of mPAP")
INTERVAL_LEVEL = Code("MPAP-INT-LEVEL", LOCAL_SCHEME, "Level of prediction interval of mPAP")
PROBABILITY_ABOVE_20 = Code("P-MPAP-GT-20", LOCAL_SCHEME, "P(mPAP > 20 mmHg)")
PROBABILITY_AT_LEAST_25 = Code("P-MPAP-GE-25", LOCAL_SCHEME, "P(mPAP >= 25 mmHg)")
DAYS_BETWEEN = Code("XR-ECG-DAYS", LOCAL_SCHEME, "Days between radiograph and ECG")
PATCH_ESTIMATE = Code("PATCH-MPAP", LOCAL_SCHEME, "Estimate of mPAP from one patch of the radiograph")
"""Not 8414-5: who looks for the pressure must find one value, not ten."""

MILLIMETRE_OF_MERCURY = Code("mm[Hg]", "UCUM", "mmHg")
PERCENT = Code("%", "UCUM", "percent")
DAY = Code("d", "UCUM", "day")
MILLIMETRE = Code("mm", "UCUM", "mm")
PIXELS = Code("{pixels}", "UCUM", "Pixels")


def local_scheme() -> CodingSchemeIdentificationItem:
    """The declaration of `LOCAL_SCHEME` that travels with each object that uses it (PS3.3 C.12.1.1)."""
    return CodingSchemeIdentificationItem(
        designator=LOCAL_SCHEME,
        name="pulmolink local codes",
        version="1",
        responsible_organization="pulmolink project",
    )
