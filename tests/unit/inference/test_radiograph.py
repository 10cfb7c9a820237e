"""A radiograph becomes the network's picture, or is refused with a reason; never anything in between."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openjpeg
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.pixels import set_pixel_data
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from inference.phantoms import PhantomPatient
from inference.radiograph import (
    Fit,
    Radiograph,
    RadiographPreprocessing,
    RadiographUnusable,
    UnusableReason,
    Voi,
    patches,
    read_radiograph,
)

PREPROCESSING = RadiographPreprocessing()


def to_bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def changed(part10: bytes, change: Callable[[Dataset], object]) -> bytes:
    dataset = dcmread(io.BytesIO(part10))
    change(dataset)
    return to_bytes(dataset)


def with_pixels(part10: bytes, pixels: np.ndarray, photometric: str = "MONOCHROME2", bits: int = 12) -> bytes:
    dataset = dcmread(io.BytesIO(part10))
    set_pixel_data(dataset, pixels, photometric, bits, generate_instance_uid=False)
    return to_bytes(dataset)


def read(part10: bytes) -> Radiograph:
    return read_radiograph(part10, PREPROCESSING)


def refusal(part10: bytes) -> UnusableReason:
    with pytest.raises(RadiographUnusable) as caught:
        read(part10)
    return caught.value.reason


@pytest.fixture(scope="module")
def chest(phantom: PhantomPatient) -> bytes:
    return phantom.objects[0].part10


def test_the_real_philips_radiograph_shows_dark_lungs_and_its_whole_matrix(philips_radiograph: Path) -> None:
    result = read(philips_radiograph.read_bytes())
    assert result.picture.shape == (512, 512)
    assert result.picture.dtype == np.float32
    assert (result.geometry.rows, result.geometry.columns) == (1955, 1841)
    assert result.display.shape == (1024, 964)
    assert result.findings == ()
    # MONOCHROME1: the lungs must still come out darker than the mediastinum between them.
    right_lung, mediastinum = result.picture[150:230, 120:180], result.picture[260:400, 230:280]
    assert np.median(right_lung) + 0.2 < np.median(mediastinum)


def test_real_jpeg_and_implicit_secondary_captures_are_read(samples: Path) -> None:
    for name in ("rsna_cr_pa_jpeg.dcm", "nih_dx_in_sc_implicit.dcm"):
        result = read((samples / "cxr" / name).read_bytes())
        assert result.display.shape == (1024, 1024)
        assert 0.15 < float(result.picture.std()) < 0.35


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEG2000Lossless,
     JPEGLSLossless],
    ids=lambda uid: uid.name,
)  # fmt: skip
def test_every_lossless_transfer_syntax_gives_the_same_picture(chest: bytes, syntax: str) -> None:
    np.testing.assert_array_equal(read(transcoded(chest, syntax)).picture, read(chest).picture)


def transcoded(part10: bytes, syntax: str) -> bytes:
    dataset = dcmread(io.BytesIO(part10))
    if syntax in {RLELossless, JPEGLSLossless}:
        dataset.compress(syntax, generate_instance_uid=False)
        return to_bytes(dataset)
    if syntax == JPEG2000Lossless:
        dataset.PixelData = encapsulate([openjpeg.encode(dataset.pixel_array, 12)])
        dataset["PixelData"].is_undefined_length = True
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    plain = Dataset()
    plain.update(dataset)
    plain.file_meta = dataset.file_meta
    plain.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO(bytes(128) + b"DICM")
    buffer.seek(132)
    write_file_meta_info(buffer, plain.file_meta)
    body = DicomBytesIO()
    body.is_little_endian, body.is_implicit_VR = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    write_dataset(body, plain)
    content = body.getvalue()
    if syntax == DeflatedExplicitVRLittleEndian:
        squeezer = zlib.compressobj(wbits=-15)
        content = squeezer.compress(content) + squeezer.flush()
    return buffer.getvalue() + content


def test_both_polarities_give_the_same_picture(chest: bytes) -> None:
    pixels = dcmread(io.BytesIO(chest)).pixel_array  # this phantom is MONOCHROME1
    upright = with_pixels(chest, 4095 - pixels)
    np.testing.assert_allclose(read(upright).picture, read(chest).picture, atol=1e-6)


def test_signed_values_with_a_rescale_give_the_same_picture(chest: bytes) -> None:
    pixels = 4095 - dcmread(io.BytesIO(chest)).pixel_array

    def rescale(dataset: Dataset) -> None:
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "4096", "2", "US"
        dataset.WindowCenter, dataset.WindowWidth = "4096", "8192"

    signed = changed(with_pixels(chest, (pixels.astype(np.int32) - 2048).astype(np.int16)), rescale)
    np.testing.assert_allclose(read(signed).picture, read(chest).picture, atol=0.005)


def test_padding_does_not_change_what_is_seen_inside(chest: bytes) -> None:
    pixels = (4095 - dcmread(io.BytesIO(chest)).pixel_array).astype(np.uint16)
    pixels[:, :60] = 65_535

    def declare(dataset: Dataset) -> None:
        dataset.add_new("PixelPaddingValue", "US", 65_535)
        del dataset.WindowCenter, dataset.WindowWidth

    padded = read(changed(with_pixels(chest, pixels, bits=16), declare))
    assert float(padded.picture[:, :25].max()) == 0.0
    assert abs(float(padded.picture[:, 60:].mean()) - float(read(chest).picture[:, 60:].mean())) < 0.02


def test_a_window_that_shows_nothing_is_ignored_and_said(chest: bytes) -> None:
    def narrow(dataset: Dataset) -> None:
        dataset.WindowCenter, dataset.WindowWidth = "30000", "2"

    result = read(changed(chest, narrow))
    assert [finding.code for finding in result.findings] == ["window_ignored"]
    assert float(result.picture.std()) > 0.2


def test_low_contrast_is_found(chest: bytes) -> None:
    pixels = np.full((600, 600), 2000, dtype=np.uint16)
    pixels[:64, :64], pixels[-64:, -64:] = 0, 4095  # a marker and a mask: over one per cent each
    pixels[64:-64:7, ::3] += 90
    assert "low_contrast" in {finding.code for finding in read(with_pixels(chest, pixels)).findings}


@pytest.mark.parametrize("fit", list(Fit))
def test_geometry_leads_from_a_patch_back_to_the_radiograph(chest: bytes, fit: Fit) -> None:
    # A bright square at a known place must lie where the geometry says it does.
    pixels = np.full((900, 1200), 100, dtype=np.uint16)
    pixels[300:420, 800:960] = 4000
    pixels[0, :4000:7] = 3000
    result = read_radiograph(with_pixels(chest, pixels), RadiographPreprocessing(fit=fit, high_percentile=100.0))
    rows, columns = np.nonzero(result.picture > 0.9)
    lie = result.geometry
    inside = rows > 60
    left = lie.left + columns[inside].min() * lie.scale_x
    right = lie.left + (columns[inside].max() + 1) * lie.scale_x
    top = lie.top + rows[inside].min() * lie.scale_y
    bottom = lie.top + (rows[inside].max() + 1) * lie.scale_y
    assert (left, top, right, bottom) == pytest.approx((800, 300, 960, 420), abs=3 * lie.scale_x)
    box = lie.patch_box(0)
    assert box[0] == pytest.approx(lie.left)
    if fit is Fit.SQUASH:
        assert lie.patch_box(8)[2:] == pytest.approx((1200, 900))


def test_patches_are_the_nine_windows_normalised_and_grey() -> None:
    picture = np.random.default_rng(1).random((512, 512), dtype=np.float32)
    cut = patches(picture, PREPROCESSING)
    assert cut.shape == (9, 3, 224, 224)
    expected = (picture[144:368, 288:512] - 0.456) / 0.224
    np.testing.assert_allclose(cut[5, 1], expected, atol=1e-6)


def test_an_object_without_pixels_is_refused(chest: bytes) -> None:
    def strip(dataset: Dataset) -> None:
        del dataset.PixelData

    assert refusal(changed(chest, strip)) is UnusableReason.NO_PIXEL_DATA


def test_bytes_that_are_not_dicom_are_refused() -> None:
    assert refusal(b"") is UnusableReason.NOT_DICOM
    assert refusal(np.random.default_rng(2).bytes(16_384)) is UnusableReason.NOT_DICOM


def test_a_truncated_radiograph_is_refused(chest: bytes, philips_radiograph: Path) -> None:
    assert refusal(chest[: len(chest) // 2]) is UnusableReason.TRUNCATED
    compressed = philips_radiograph.read_bytes()
    assert refusal(compressed[: len(compressed) // 2]) is UnusableReason.TRUNCATED


def test_a_compressed_picture_cut_short_inside_whole_elements_is_refused(philips_radiograph: Path) -> None:
    from pydicom.encaps import generate_frames

    dataset = dcmread(philips_radiograph)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    assert refusal(to_bytes(dataset)) is UnusableReason.TRUNCATED


def test_rubbish_in_place_of_a_compressed_picture_is_refused(philips_radiograph: Path) -> None:
    dataset = dcmread(philips_radiograph)
    dataset.PixelData = encapsulate([b"\x00rubbish" * 500])
    assert refusal(to_bytes(dataset)) is UnusableReason.UNDECODABLE


def test_colour_is_refused(chest: bytes) -> None:
    def colour(dataset: Dataset) -> None:
        dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "RGB", 3

    assert refusal(changed(chest, colour)) is UnusableReason.NOT_MONOCHROME


def test_several_frames_are_refused(chest: bytes) -> None:
    assert refusal(changed(chest, lambda d: setattr(d, "NumberOfFrames", 2))) is UnusableReason.SEVERAL_FRAMES


def test_a_blank_picture_is_refused(chest: bytes) -> None:
    assert refusal(with_pixels(chest, np.full((600, 600), 7, dtype=np.uint16))) is UnusableReason.BLANK


def test_a_thumbnail_is_refused(chest: bytes) -> None:
    noise = np.random.default_rng(3).integers(0, 4095, (128, 128), dtype=np.uint16)
    assert refusal(with_pixels(chest, noise)) is UnusableReason.TOO_SMALL


def test_a_giant_is_refused_before_memory_is_taken(chest: bytes) -> None:
    def giant(dataset: Dataset) -> None:
        dataset.Rows = dataset.Columns = 65_535

    assert refusal(changed(chest, giant)) is UnusableReason.TOO_LARGE


def test_a_codestream_larger_than_its_header_says_is_refused(philips_radiograph: Path) -> None:
    part10 = bytearray(philips_radiograph.read_bytes())
    start = part10.index(b"\xff\x4f\xff\x51")
    part10[start + 8 : start + 16] = b"\x00\x00\xff\xff" * 2  # SIZ: Xsiz, Ysiz
    assert refusal(bytes(part10)) is UnusableReason.TOO_LARGE


def test_a_deflated_bomb_is_refused_without_being_unpacked(chest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.radiograph.MAXIMUM_BYTES", 16 << 20)  # the bound is the same code, sooner

    def mark(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.file_meta.FileMetaInformationGroupLength = 0

    head = changed(chest, mark)
    meta_end = 144 + int.from_bytes(head[140:144], "little")
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(20)) + squeezer.flush()
    assert refusal(head[:meta_end] + bomb) is UnusableReason.TOO_LARGE


@pytest.mark.parametrize("seed", range(8))
def test_damaged_bytes_are_refused_or_read_but_never_crash(chest: bytes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    damaged = bytearray(chest)
    for place in rng.integers(132, 2500, 40):
        damaged[int(place)] = int(rng.integers(0, 256))
    try:
        result = read(bytes(damaged))
    except RadiographUnusable:
        return
    assert result.picture.shape == (512, 512)


def test_preprocessing_survives_a_manifest_and_refuses_what_it_does_not_know() -> None:
    kept = RadiographPreprocessing(fit=Fit.PAD, voi=Voi.PERCENTILE, low_percentile=1.0)
    assert RadiographPreprocessing.from_json(kept.to_json()) == kept
    with pytest.raises(ValueError, match="flip"):
        RadiographPreprocessing.from_json({**kept.to_json(), "flip": True})
    with pytest.raises(ValueError, match="percentiles"):
        RadiographPreprocessing(low_percentile=99.9)


def test_reading_a_radiograph_does_not_load_torch() -> None:
    code = "import inference.radiograph, inference.package, inference.phantoms, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
