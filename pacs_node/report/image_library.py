"""The Image Library of a report (TID 1600): the radiograph with as much as its header states, no more."""

from __future__ import annotations

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.sr.coding import Code
from pydicom.valuerep import DS

from pacs_node.report import codes
from pacs_node.report.header import Header


def image_library(radiograph: Header) -> ContainerContentItem:
    """The library's container, with one group and one image.

    highdicom's builder wants Imager Pixel Spacing and Patient Orientation of every CR and DX. Many lack one;
    here what is not stated is left out.
    """
    library = ContainerContentItem(
        name=codes.IMAGE_LIBRARY, relationship_type=RelationshipTypeValues.CONTAINS, template_id="1600"
    )
    group = ContainerContentItem(name=codes.IMAGE_LIBRARY_GROUP, relationship_type=RelationshipTypeValues.CONTAINS)
    image = ImageContentItem(
        name=codes.SOURCE,
        referenced_sop_class_uid=radiograph.sop_class_uid,
        referenced_sop_instance_uid=radiograph.sop_instance_uid,
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    image.ContentSequence = ContentSequence(_descriptors(radiograph))
    group.ContentSequence = ContentSequence([image])
    library.ContentSequence = ContentSequence([group])
    return library


def _descriptors(radiograph: Header) -> list[ContentItem]:
    """TID 1602 and, as far as known, TID 1603."""
    modality = codes.MODALITIES.get(radiograph.sop_class_uid, codes.OTHER_MODALITY)
    descriptors = [
        _code(codes.MODALITY, modality),
        _number(codes.PIXEL_DATA_ROWS, radiograph.rows, codes.PIXELS),
        _number(codes.PIXEL_DATA_COLUMNS, radiograph.columns, codes.PIXELS),
    ]
    if radiograph.view == "PA":
        descriptors.append(_code(codes.IMAGE_VIEW, codes.POSTERO_ANTERIOR))
    if radiograph.orientation:
        row, column = radiograph.orientation
        descriptors += [
            _text(codes.PATIENT_ORIENTATION_ROW, row),
            _text(codes.PATIENT_ORIENTATION_COLUMN, column),
        ]
    if radiograph.imager_spacing_mm:
        between_rows, between_columns = radiograph.imager_spacing_mm
        descriptors += [
            _number(codes.HORIZONTAL_PIXEL_SPACING, between_columns, codes.MILLIMETRE),
            _number(codes.VERTICAL_PIXEL_SPACING, between_rows, codes.MILLIMETRE),
        ]
    return descriptors


def _code(name: Code, value: Code) -> CodeContentItem:
    return CodeContentItem(name=name, value=value, relationship_type=RelationshipTypeValues.HAS_ACQ_CONTEXT)


def _number(name: Code, value: float, unit: Code) -> NumContentItem:
    item = NumContentItem(name=name, value=value, unit=unit, relationship_type=RelationshipTypeValues.HAS_ACQ_CONTEXT)
    if isinstance(value, int):  # highdicom writes a count of pixels as "1955.0"
        item.MeasuredValueSequence[0].NumericValue = DS(str(value))
    return item


def _text(name: Code, value: str) -> TextContentItem:
    return TextContentItem(name=name, value=value, relationship_type=RelationshipTypeValues.HAS_ACQ_CONTEXT)
