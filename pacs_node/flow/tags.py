"""What a header says of the machine and the technique, never of the person: for telling that other machines came."""

from __future__ import annotations

import math

from pydicom.dataset import Dataset
from pydicom.uid import UID

RADIOGRAPH = (
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "PhotometricInterpretation",
    "ViewPosition",
    "KVP",
    "Rows",
    "Columns",
    "BitsStored",
    "DistanceSourceToDetector",
)
ECG = ("Modality", "Manufacturer", "ManufacturerModelName")
NONE = "(none)"
LONGEST = 64


def radiograph_tags(header: Dataset) -> dict[str, str]:
    """Tag by name, of a radiograph's header. What it does not say is `NONE`."""
    return {f"radiograph {name}": _plain(header.get(name)) for name in RADIOGRAPH}


def ecg_tags(header: Dataset | None) -> dict[str, str]:
    """As `radiograph_tags`. None: a file that is not DICOM."""
    if header is None:
        return {"ecg form": "not DICOM"}
    return {
        "ecg form": UID(str(header.get("SOPClassUID", ""))).name[:LONGEST] or NONE,
        **{f"ecg {name}": _plain(header.get(name)) for name in ECG},
    }


def _plain(value: object) -> str:
    """A value as text, numbers without needless digits; blanks and capitals are no difference."""
    if value is None or value == "":
        return NONE
    text = " ".join(str(value).split())[:LONGEST]
    try:
        number = float(text)
    except ValueError:
        return text.upper() or NONE
    return f"{number:g}" if math.isfinite(number) else NONE
