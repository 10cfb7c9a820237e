"""Let highdicom 0.28 put WAVEFORM content items into a report and read them back.

Its `WaveformContentItem` can be built, but neither found by its value type (`KeyError`) nor made from a
dataset (`from_dataset` insists on IMAGE), and a document is assembled through both. Remove this module and
its one call when highdicom does it by itself; `tests/unit/report/test_waveform_items.py` tells when.
"""

from __future__ import annotations

import copy as copying
from typing import Any

from highdicom.sr import ValueTypeValues, WaveformContentItem, value_types
from pydicom import Dataset


def teach_highdicom_waveforms() -> None:
    """Patch highdicom in place. Calling it again changes nothing."""
    find_class = value_types._get_content_item_class
    if getattr(find_class, "knows_waveforms", False):
        return

    def content_item_class(value_type: ValueTypeValues) -> Any:
        return WaveformContentItem if value_type == ValueTypeValues.WAVEFORM else find_class(value_type)

    def from_dataset(cls: Any, dataset: Dataset, copy: bool = True) -> Any:
        if dataset.get("ValueType") != "WAVEFORM" or "ReferencedSOPSequence" not in dataset:
            raise ValueError("the dataset is no content item of value type WAVEFORM")
        return cls._from_dataset_base(copying.deepcopy(dataset) if copy else dataset)

    content_item_class.knows_waveforms = True  # type: ignore[attr-defined]
    value_types._get_content_item_class = content_item_class
    WaveformContentItem.from_dataset = classmethod(from_dataset)  # type: ignore[method-assign, assignment]
