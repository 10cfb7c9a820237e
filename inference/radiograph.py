"""Turn a radiograph's DICOM bytes into the network's picture, a picture to look at, and where both lie.

In: Part 10 bytes and the model package's preprocessing; out: `Radiograph`, or `RadiographUnusable` with a
reason from a closed set. Says whether pixels can be used, never whose they are. No torch here.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from inference import codestream
from inference.picture_quality import picture_findings
from inference.prediction import PATCH_OFFSETS, Finding, Geometry

PICTURE_SIDE = 512  # Yoon et al. 2.3
PATCH_SIDE = 224
DISPLAY_SIDE = 1024  # longer side of the picture to look at

MAXIMUM_BYTES = 512 << 20  # of a file, and of a deflated data set once inflated
MAXIMUM_SIDE = 16_384  # pixels; a 43 cm detector at 0.05 mm has 8,600
MAXIMUM_PIXELS = 96_000_000
MINIMUM_SIDE = 256  # pixels; below this there is less to see than in a patch


_PYDICOM_FAULTS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom and its decoders, four libraries with errors of their own, raise on damaged input."""


class UnusableReason(StrEnum):
    """Why a radiograph is not used. A closed set: statistics and reports key on it."""

    NOT_DICOM = "not_dicom"
    NO_PIXEL_DATA = "no_pixel_data"
    TRUNCATED = "truncated"
    UNDECODABLE = "undecodable"
    NOT_MONOCHROME = "not_monochrome"
    SEVERAL_FRAMES = "several_frames"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    BLANK = "blank"


class RadiographUnusable(Exception):
    """Must not be used. `reason` is for programs, `detail` for a person; neither names a patient."""

    def __init__(self, reason: UnusableReason, detail: str, hint: str = "") -> None:
        super().__init__(reason, detail, hint)
        self.reason = reason
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}"


class Fit(StrEnum):
    """How a radiograph that is not square becomes a square picture."""

    SQUASH = "squash"  # both axes scaled to the picture's side (the paper resizes so)
    PAD = "pad"  # aspect kept, the rest filled with air


class Voi(StrEnum):
    """Which values of interest the network sees."""

    STORED = "stored"  # the object's own VOI LUT or first window, then the percentiles
    PERCENTILE = "percentile"  # the percentiles alone


@dataclass(frozen=True, kw_only=True)
class RadiographPreprocessing:
    """How a radiograph becomes the network's input. Part of a model package's manifest.

    Grey levels between the two percentiles of the picture are mapped to 0..1 (air to bone), given to three
    equal channels, and normalised with `mean` and `std` a channel.
    """

    side: int = PICTURE_SIDE
    patch_side: int = PATCH_SIDE
    patch_offsets: tuple[int, ...] = PATCH_OFFSETS
    fit: Fit = Fit.SQUASH
    voi: Voi = Voi.STORED
    low_percentile: float = 0.5
    high_percentile: float = 99.5
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.side != PICTURE_SIDE or self.patch_side != PATCH_SIDE or self.patch_offsets != PATCH_OFFSETS:
            raise ValueError("only 512 x 512 pictures with 224 patches at 0, 144, 288 are implemented")
        if not 0.0 <= self.low_percentile < self.high_percentile <= 100.0:
            raise ValueError("percentiles must rise within 0..100")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError("mean and std need three channels, std above 0")

    def to_json(self) -> dict[str, object]:
        """As it stands in a manifest."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: dict[str, object]) -> RadiographPreprocessing:
        """The preprocessing of a manifest. Raises TypeError or ValueError if a field is missing or wrong."""
        expected = set(cls.__dataclass_fields__)
        if set(fields) != expected:
            raise ValueError(f"fields differ from those known: {sorted(set(fields) ^ expected)}")
        values: dict[str, object] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        values["fit"], values["voi"] = Fit(str(fields["fit"])), Voi(str(fields["voi"]))
        return cls(**values)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Radiograph:
    """A radiograph ready for the network."""

    picture: NDArray[np.float32]  # [512, 512], 0 (air) to 1
    geometry: Geometry
    display: NDArray[np.uint8]  # [rows, columns] grey, air dark, longer side at most `DISPLAY_SIDE`
    findings: tuple[Finding, ...]


def read_radiograph(dicom: bytes, preprocessing: RadiographPreprocessing) -> Radiograph:
    """Decode, put right, and scale a radiograph.

    Modality LUT, VOI (`Voi`), polarity (MONOCHROME1, PresentationLUTShape) and pixel padding are applied;
    sides, pixels and bytes are bounded before anything is allocated for them.

    Raises
    ------
    RadiographUnusable
        With the reason, for every input that gives no usable picture.
    """
    # Third-party decoders warn of details (odd VRs, padding) that the checks below decide about.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = _parse(dicom)
            _check_header(dataset)
            stored = _decode(dataset)
            findings: list[Finding] = []
            values, padding = _values(dataset, stored, preprocessing, findings)
        except _PYDICOM_FAULTS as error:
            # pydicom converts a value when it is first looked at: a damaged one can fail on any line above.
            raise RadiographUnusable(
                UnusableReason.UNDECODABLE, f"an attribute is malformed ({type(error).__name__})"
            ) from error
    low, high = _limits(values, padding, preprocessing)
    shown = np.clip((values - low) / (high - low), 0.0, 1.0).astype(np.float32)
    if padding is not None:
        shown[padding] = 0.0
    picture, geometry = _fit(shown, preprocessing)
    findings += picture_findings(picture, shown.shape)
    return Radiograph(picture=picture, geometry=geometry, display=_display(shown), findings=tuple(findings))


def patches(picture: NDArray[np.float32], preprocessing: RadiographPreprocessing) -> NDArray[np.float32]:
    """The nine normalised patches, row by row, as float32 [9, 3, 224, 224]."""
    side = preprocessing.patch_side
    cut = np.stack(
        [
            picture[top : top + side, left : left + side]
            for top in preprocessing.patch_offsets
            for left in preprocessing.patch_offsets
        ]
    )
    mean = np.asarray(preprocessing.mean, dtype=np.float32).reshape(1, 3, 1, 1)
    std = np.asarray(preprocessing.std, dtype=np.float32).reshape(1, 3, 1, 1)
    return np.ascontiguousarray((cut[:, None] - mean) / std, dtype=np.float32)


def _parse(dicom: bytes) -> Dataset:
    if len(dicom) > MAXIMUM_BYTES:
        raise RadiographUnusable(
            UnusableReason.TOO_LARGE, f"the file has {len(dicom)} bytes, more than {MAXIMUM_BYTES}"
        )
    if not codestream.inflates_within(dicom, MAXIMUM_BYTES):
        raise RadiographUnusable(UnusableReason.TOO_LARGE, f"the data set inflates beyond {MAXIMUM_BYTES} bytes")
    try:
        dataset = dcmread(io.BytesIO(dicom))
    except InvalidDicomError as error:
        raise RadiographUnusable(UnusableReason.NOT_DICOM, "no DICOM Part 10 header") from error
    except EOFError as error:
        raise RadiographUnusable(UnusableReason.TRUNCATED, "the file ends inside an element") from error
    except RecursionError as error:
        raise RadiographUnusable(UnusableReason.UNDECODABLE, "sequences are nested too deeply") from error
    except _PYDICOM_FAULTS as error:
        raise RadiographUnusable(
            UnusableReason.UNDECODABLE, f"the header cannot be parsed ({type(error).__name__})"
        ) from error
    if "PixelData" not in dataset and _PIXEL_DATA_TAG in dicom:
        # pydicom drops an encapsulated element whose end is missing.
        raise RadiographUnusable(
            UnusableReason.TRUNCATED, "the file ends inside the pixel data", hint="send the object again"
        )
    return dataset


_PIXEL_DATA_TAG = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"


def _check_header(dataset: Dataset) -> None:
    """Refuse what cannot be a single grey picture of a sensible size, before decoding it."""
    if "PixelData" not in dataset or not dataset["PixelData"].value:
        raise RadiographUnusable(UnusableReason.NO_PIXEL_DATA, "the object has no pixel data")
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames", 1) or 1)
        samples = int(dataset.SamplesPerPixel)
        photometric = str(dataset.PhotometricInterpretation)
        allocated = int(dataset.BitsAllocated)
    except (AttributeError, TypeError, ValueError) as error:
        raise RadiographUnusable(
            UnusableReason.UNDECODABLE, "an attribute that describes the pixels is missing or malformed"
        ) from error
    if samples != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise RadiographUnusable(UnusableReason.NOT_MONOCHROME, f"{samples} samples a pixel, {photometric[:16]}")
    if frames != 1:
        raise RadiographUnusable(UnusableReason.SEVERAL_FRAMES, f"{frames} frames")
    _check_size(rows, columns)
    if dataset.file_meta.get("TransferSyntaxUID") is None:
        raise RadiographUnusable(UnusableReason.UNDECODABLE, "no transfer syntax is given")
    pixel_data = dataset["PixelData"].value
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        size = codestream.picture_size(pixel_data)
        if size is not None:
            # A decoder believes the codestream, not the header.
            _check_size(*size)
    elif len(pixel_data) < (rows * columns * allocated + 7) // 8:
        raise RadiographUnusable(
            UnusableReason.TRUNCATED,
            f"{len(pixel_data)} bytes of pixels where {rows} x {columns} x {allocated} bits were announced",
            hint="send the object again",
        )


def _check_size(rows: int, columns: int) -> None:
    if max(rows, columns) > MAXIMUM_SIDE or rows * columns > MAXIMUM_PIXELS:
        raise RadiographUnusable(UnusableReason.TOO_LARGE, f"{rows} x {columns} pixels")
    if min(rows, columns) < MINIMUM_SIDE:
        raise RadiographUnusable(UnusableReason.TOO_SMALL, f"{rows} x {columns} pixels")


def _decode(dataset: Dataset) -> NDArray[Any]:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and not codestream.is_complete(dataset["PixelData"].value):
        raise RadiographUnusable(
            UnusableReason.TRUNCATED, "the compressed picture has no end", hint="send the object again"
        )
    try:
        stored = dataset.pixel_array
    except MemoryError as error:
        raise RadiographUnusable(UnusableReason.TOO_LARGE, "the picture does not fit into memory") from error
    except _PYDICOM_FAULTS as error:
        raise RadiographUnusable(
            UnusableReason.UNDECODABLE,
            f"{syntax.name}: the picture cannot be decoded ({type(error).__name__})",
        ) from error
    if stored.ndim != 2:
        raise RadiographUnusable(UnusableReason.NOT_MONOCHROME, f"decoded to {stored.ndim} dimensions")
    return stored


def _values(
    dataset: Dataset,
    stored: NDArray[Any],
    preprocessing: RadiographPreprocessing,
    findings: list[Finding],
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Grey values with air low, and where padding lies."""
    padding = _padding(dataset, stored)
    try:
        modality = apply_modality_lut(stored, dataset)
    except _PYDICOM_FAULTS as error:
        raise RadiographUnusable(UnusableReason.UNDECODABLE, "the modality LUT is malformed") from error
    values = np.asarray(modality, dtype=np.float32)
    if not np.isfinite(values).all():
        raise RadiographUnusable(UnusableReason.UNDECODABLE, "the rescaled values are not finite")
    inside = values if padding is None else values[~padding]
    if inside.size == 0 or float(inside.max()) == float(inside.min()):
        raise RadiographUnusable(UnusableReason.BLANK, "every pixel has the same value")
    if preprocessing.voi is Voi.STORED:
        values = _voi(dataset, modality, values, padding, findings)
    inverted = str(dataset.PhotometricInterpretation) == "MONOCHROME1"
    shape = str(dataset.get("PresentationLUTShape", "") or "")
    if shape == "INVERSE" and not inverted:
        inverted = True
        findings.append(_note("polarity_contradiction", "MONOCHROME2 with PresentationLUTShape INVERSE"))
    elif shape == "IDENTITY" and inverted:
        findings.append(_note("polarity_contradiction", "MONOCHROME1 with PresentationLUTShape IDENTITY"))
    return (-values if inverted else values), padding


def _padding(dataset: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where Pixel Padding Value (or its range, PS3.3 C.7.5.1.1.2) stands; None if nowhere."""
    if "PixelPaddingValue" not in dataset:
        return None
    try:
        first = int(dataset.PixelPaddingValue)
        limit = dataset.get("PixelPaddingRangeLimit")
        last = first if limit is None else int(limit)
    except (TypeError, ValueError):
        return None
    mask = (stored >= min(first, last)) & (stored <= max(first, last))
    return mask if bool(mask.any()) else None


def _voi(
    dataset: Dataset,
    modality: NDArray[Any],
    values: NDArray[np.float32],
    padding: NDArray[np.bool_] | None,
    findings: list[Finding],
) -> NDArray[np.float32]:
    """The object's own VOI LUT or first window, unless it leaves too little of the picture."""
    try:
        if dataset.get("VOILUTSequence"):
            shown = np.asarray(apply_voi(modality, dataset, index=0), dtype=np.float32)
        elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
            shown = np.asarray(apply_windowing(modality, dataset, index=0), dtype=np.float32)
        else:
            return values
    except _PYDICOM_FAULTS:
        findings.append(_note("window_ignored", "the stored window or VOI LUT is malformed"))
        return values
    inside = shown if padding is None else shown[~padding]
    low, high = float(inside.min()), float(inside.max())
    clipped = float(np.mean((inside <= low) | (inside >= high)))
    if not np.isfinite([low, high]).all() or low == high or clipped > 0.6:
        findings.append(_note("window_ignored", f"the stored window clips {clipped:.0%} of the picture"))
        return values
    return shown


def _limits(
    values: NDArray[np.float32],
    padding: NDArray[np.bool_] | None,
    preprocessing: RadiographPreprocessing,
) -> tuple[float, float]:
    # Every sixteenth pixel tells the percentiles well enough and spares sorting ten million.
    sample = values[::4, ::4] if padding is None else values[::4, ::4][~padding[::4, ::4]]
    if sample.size == 0:
        raise RadiographUnusable(UnusableReason.BLANK, "nothing but padding")
    low, high = np.percentile(sample, [preprocessing.low_percentile, preprocessing.high_percentile])
    if not high > low:
        low, high = float(sample.min()), float(sample.max())
    if not high > low:
        raise RadiographUnusable(UnusableReason.BLANK, "almost every pixel has the same value")
    return float(low), float(high)


def _fit(shown: NDArray[np.float32], preprocessing: RadiographPreprocessing) -> tuple[NDArray[np.float32], Geometry]:
    side = preprocessing.side
    rows, columns = shown.shape
    image = Image.fromarray(shown)
    if preprocessing.fit is Fit.SQUASH:
        picture = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
        geometry = Geometry(rows=rows, columns=columns, left=0.0, top=0.0, scale_x=columns / side, scale_y=rows / side)
        return np.clip(picture, 0.0, 1.0), geometry
    scale = max(rows, columns) / side
    width, height = max(1, round(columns / scale)), max(1, round(rows / scale))
    left, top = (side - width) // 2, (side - height) // 2
    picture = np.zeros((side, side), dtype=np.float32)
    picture[top : top + height, left : left + width] = np.clip(
        np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)), 0.0, 1.0
    )
    scale_x, scale_y = columns / width, rows / height
    return picture, Geometry(
        rows=rows,
        columns=columns,
        left=-left * scale_x,
        top=-top * scale_y,
        scale_x=scale_x,
        scale_y=scale_y,
    )


def _display(shown: NDArray[np.float32]) -> NDArray[np.uint8]:
    rows, columns = shown.shape
    longer = max(rows, columns)
    grey = Image.fromarray(np.rint(shown * 255.0).astype(np.uint8))
    if longer > DISPLAY_SIDE:
        scale = DISPLAY_SIDE / longer
        size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        grey = grey.resize(size, Image.Resampling.LANCZOS)
    return np.array(grey)


def _note(code: str, detail: str) -> Finding:
    return Finding(subject="radiograph", code=code, severity="note", detail=detail)
