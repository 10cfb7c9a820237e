"""Labelled examinations as the network takes them, in memory or kept in a folder that is mapped, not loaded.

Pictures and lead images are decoded once; a training of twenty epochs and its continuation after a kill read them
from the folder. No torch here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.durable import write_durably

PICTURE_SHAPE = (512, 512)
LEAD_IMAGES_SHAPE = (12, 48, 224, 3)

_PICTURES, _LEADS, _INDEX = "pictures.f16", "leads.u8", "examinations.json"


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A radiograph and an ECG of one patient with the measured pressure."""

    patient_id: str
    picture: NDArray[np.float16]  # [512, 512], 0..1, as `read_radiograph` gives it; less where averaged (`averaging`)
    lead_images: NDArray[np.uint8]  # [12, 48, 224, 3]; float16 and less where averaged
    mpap_mmhg: float
    name: str = ""  # what the table calls it
    acquired_at: str = ""  # of the radiograph, ISO 8601
    attributes: Mapping[str, str] = field(default_factory=dict)  # of `cohort.ATTRIBUTES`
    tags: Mapping[str, str] = field(default_factory=dict)  # of machine and technique, as `drift` compares them


def keep_examinations(folder: Path, key: str, examinations: Iterable[Examination]) -> list[Examination]:
    """Write `examinations` into `folder` as they come, and give them back mapped from there.

    Parameters
    ----------
    folder
        Made if absent; earlier content is replaced.
    key
        What the examinations were made from; `kept_examinations` asks for the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _INDEX).unlink(missing_ok=True)
    listed = []
    with (folder / _PICTURES).open("wb") as pictures, (folder / _LEADS).open("wb") as leads:
        for examination in examinations:
            pictures.write(np.ascontiguousarray(examination.picture, dtype="<f2").tobytes())
            leads.write(np.ascontiguousarray(examination.lead_images, dtype=np.uint8).tobytes())
            listed.append(
                {
                    "patient_id": examination.patient_id,
                    "mpap_mmhg": examination.mpap_mmhg,
                    "name": examination.name,
                    "acquired_at": examination.acquired_at,
                    "attributes": dict(examination.attributes),
                    "tags": dict(examination.tags),
                }
            )
        for file in (pictures, leads):
            # The index says that they are whole: it must not be there before them after a power cut.
            file.flush()
            os.fsync(file.fileno())
    write_durably(folder / _INDEX, json.dumps({"key": key, "examinations": listed}).encode())
    kept = kept_examinations(folder, key)
    if kept is None:
        raise OSError(f"what was written to {folder} cannot be read back")
    return kept


def kept_examinations(folder: Path, key: str) -> list[Examination] | None:
    """The examinations that `keep_examinations` left in `folder` for `key`; None if there are none or others."""
    try:
        index = json.loads((folder / _INDEX).read_bytes())
    except (OSError, ValueError):
        return None
    if index["key"] != key:
        return None
    listed = index["examinations"]
    if not listed:
        return []
    pictures = np.memmap(folder / _PICTURES, dtype="<f2", mode="r", shape=(len(listed), *PICTURE_SHAPE))
    leads = np.memmap(folder / _LEADS, dtype=np.uint8, mode="r", shape=(len(listed), *LEAD_IMAGES_SHAPE))
    return [Examination(picture=pictures[row], lead_images=leads[row], **fields) for row, fields in enumerate(listed)]
