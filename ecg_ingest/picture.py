"""Bytes of a picture to pixels within limits: PNG, JPEG, TIFF, BMP and DICOM pictures.

Opens nothing larger than an ECG sheet needs, and one page at a time.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from ecg_ingest.lead_images import EcgRefused, RefusalReason

MAX_PIXELS = 60_000_000  # an A4 sheet at 600 dots an inch is 35 million
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")

_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    ZeroDivisionError,
    OverflowError,
)
"""What Pillow and pydicom's decoders raise on damaged pixels."""


def count_pages(data: bytes) -> int:
    """Pages of a picture file. Only a TIFF has several: a camera's JPEG may hold a preview as a second frame.

    Raises
    ------
    EcgRefused
        TOO_LARGE or DAMAGED.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1
    except Image.DecompressionBombError as error:
        raise _too_large("far too many") from error
    except (UnidentifiedImageError, *_FAULTS) as error:
        raise EcgRefused(RefusalReason.DAMAGED, "the picture cannot be decoded", "export or scan it again") from error


def read_picture(data: bytes, page: int = 0) -> NDArray[np.uint8]:
    """A page of a file, [height, width, 3] RGB, as stored: a camera's turn mark is not followed.

    Raises
    ------
    EcgRefused
        TOO_LARGE or DAMAGED.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd tags; sizes are checked here
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if page:
                    image.seek(page)
                _within_limits(*image.size)
                return _as_rgb(image)
    except Image.DecompressionBombError as error:
        raise _too_large("far too many") from error
    except (UnidentifiedImageError, *_FAULTS) as error:
        raise EcgRefused(RefusalReason.DAMAGED, "the picture cannot be decoded", "export or scan it again") from error


def _within_limits(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(f"{width} x {height}")


def _too_large(found: str) -> EcgRefused:
    return EcgRefused(
        RefusalReason.TOO_LARGE,
        f"{found} pixels; at most {MAX_PIXELS / 1e6:.0f} million are read",
        "scan the sheet at 300 dots an inch",
    )


def _as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Any mode as RGB; 16-bit grey by its own range, transparent parts as white paper."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _stretched(np.asarray(image, dtype=np.float64))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        clear = image.convert("RGBA")
        paper = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        image = Image.alpha_composite(paper, clear)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def _stretched(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    lowest, highest = float(values.min()), float(values.max())
    grey = ((values - lowest) * (255.0 / max(highest - lowest, 1e-9))).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def read_dicom_picture(dataset: Dataset) -> NDArray[np.uint8]:
    """The one frame of a DICOM picture as RGB.

    Raises
    ------
    EcgRefused
        TOO_LARGE, SEVERAL_PAGES, NOT_AN_ECG for a modality's own images, or DAMAGED.
    """
    modality = str(dataset.get("Modality", "") or "").upper()
    if modality in _OTHER_MODALITIES:
        raise EcgRefused(
            RefusalReason.NOT_AN_ECG, f"the object is an image of modality {modality}", "check the routing rule"
        )
    try:
        _within_limits(int(dataset.Columns), int(dataset.Rows))
        if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
            raise EcgRefused(RefusalReason.SEVERAL_PAGES, "the picture has several frames", "send one ECG on one page")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = pixel_array(dataset, raw=False)
    except (*_FAULTS, AttributeError, RuntimeError, NotImplementedError) as error:
        raise EcgRefused(RefusalReason.DAMAGED, "the picture's pixels cannot be decoded", "send it again") from error
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        colour = pixels[:, :, :3]
        return np.ascontiguousarray(colour if colour.dtype == np.uint8 else (colour >> 8)).astype(np.uint8)
    grey = _stretched(np.asarray(pixels, dtype=np.float64).reshape(pixels.shape[:2]))
    return 255 - grey if str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1" else grey


_OTHER_MODALITIES = frozenset(
    (
        "CR",
        "DX",
        "CT",
        "MR",
        "US",
        "NM",
        "PT",
        "XA",
        "RF",
        "MG",
        "IO",
        "PX",
        "RTIMAGE",
        "RTDOSE",
        "SEG",
        "ES",
        "OPT",
        "IVUS",
    )
)
"""Modalities whose pictures are not paper. Scans come as ECG, OT, SC, DOC, XC, HC or nothing at all."""
