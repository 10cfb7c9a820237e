"""The overlay picture shows exactly what was estimated, where, and never who the patient is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageDraw

from ecg_ingest.lead_images import EcgSource
from inference.prediction import Finding, Geometry
from pacs_node.report import canvas, ecg_strip, heatmap
from pacs_node.report.drawing import colour_map, drawable, font, shortened, wrapped
from pacs_node.report.overlay import render_overlay
from tests.unit.report.report_examinations import (
    RADIOGRAPH_AT,
    ecg_header,
    examination,
    geometry,
    leads,
    model,
    of_same_patient,
    prediction,
    radiograph_header,
    signals_mv,
)

VALUES = (12.0, 20.0, 30.0, 40.0, 25.0, 15.0, 33.0, 44.0, 49.0)
WHOLE = Geometry(rows=512, columns=512, left=0, top=0, scale_x=1, scale_y=1)


def drawn_texts(monkeypatch: pytest.MonkeyPatch, inputs: Any) -> list[str]:
    """Every text drawn into the picture of `inputs`."""
    texts: list[str] = []
    draw_text = ImageDraw.ImageDraw.text

    def listen(self: Any, xy: Any, text: str, *arguments: Any, **keywords: Any) -> None:
        texts.append(text)
        draw_text(self, xy, text, *arguments, **keywords)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", listen)
    render_overlay(inputs)
    return texts


def test_the_picture_is_rgb_of_one_size_and_the_same_every_time() -> None:
    first, second = render_overlay(examination()), render_overlay(examination())
    assert first.shape == (canvas.HEIGHT, canvas.WIDTH, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)


def test_every_picture_says_research_only_estimate_interval_model_and_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = drawn_texts(monkeypatch, examination())
    told = " | ".join(texts)
    assert told.count("RESEARCH USE ONLY - not for diagnosis") == 2
    for text in ("28.2", "mmHg", "90 % interval  17.4 to 41.2 mmHg", "87 %", "64 %", "dinov2-ecg 1.2.0"):
        assert text in told
    assert model().digest[:12] in told
    assert [text for text in texts if text in {f"{mmhg:.1f}" for mmhg in prediction().patch_mpap_mmhg}] == [
        f"{mmhg:.1f}" for mmhg in prediction().patch_mpap_mmhg
    ]
    assert "ECG 3.0 days after the radiograph" in told


def test_the_picture_carries_nobodys_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    radiograph = radiograph_header()
    radiograph.PatientName = "Surname^Given"
    radiograph.AccessionNumber = "ACC-4711"
    inputs = examination(radiograph=radiograph, ecg=of_same_patient(ecg_header(), radiograph))
    told = " | ".join(drawn_texts(monkeypatch, inputs))
    for secret in ("Surname", "Given", "9RG1", "1940", "ACC-4711"):
        assert secret not in told


def test_the_watermark_of_a_demo_model_crosses_radiograph_and_ecg() -> None:
    real = render_overlay(examination())
    demo = render_overlay(examination(prediction=prediction(model=model(kind="synthetic-demo"))))
    for left, top, right, bottom in (canvas.VIEW, canvas.STRIP):
        changed = np.any(real[top:bottom, left:right] != demo[top:bottom, left:right], axis=2)
        assert changed.mean() > 0.03
        thirds = np.array_split(changed, 3, axis=1)
        assert min(third.mean() for third in thirds) > 0.02


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(["L", "F"], ["R", "L"]), (["R", "F"], ["L", "R"]), (["A", "F"], []), ("", []), (["L"], [])],
)
def test_sides_are_marked_only_as_patient_orientation_says(
    monkeypatch: pytest.MonkeyPatch, orientation: Any, expected: list[str]
) -> None:
    radiograph = radiograph_header()
    radiograph.PatientOrientation = orientation
    texts = drawn_texts(monkeypatch, examination(radiograph=radiograph))
    assert [text for text in texts if text in {"L", "R"}] == expected


def test_a_date_without_a_time_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    told = " | ".join(drawn_texts(monkeypatch, examination(ecg_date_only=True)))
    assert "2026-11-05  time not given, noon taken" in told


def test_findings_are_told_and_those_without_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = tuple(
        Finding(subject="radiograph", code=f"finding_{number}", severity="warning", detail="so and so " * 8)
        for number in range(5)
    )
    texts = drawn_texts(monkeypatch, examination(prediction=prediction(findings=findings)))
    assert any(text.startswith("Radiograph: finding 0") for text in texts)
    assert any(text.startswith("ECG: noisy") for text in texts)  # neither input crowds out the other
    assert "and 4 more in the report" in texts


@pytest.mark.parametrize(("share", "text"), [(0.004, "<1 %"), (0.996, ">99 %"), (0.0, "0 %"), (1.0, "100 %")])
def test_a_probability_is_never_rounded_to_certainty(monkeypatch: pytest.MonkeyPatch, share: float, text: str) -> None:
    certain = prediction(probability_above_20=share, probability_at_least_25=share)
    assert drawn_texts(monkeypatch, examination(prediction=certain)).count(text) == 2


def test_the_map_has_exactly_the_patchs_colour_at_each_patchs_middle() -> None:
    black = np.zeros((512, 512), np.uint8)
    tinted = heatmap.tinted(black, WHOLE, VALUES)
    low, high = heatmap.SCALE_MMHG
    for index, mmhg in enumerate(VALUES):
        row, column = heatmap.PATCH_CENTRES[index // 3], heatmap.PATCH_CENTRES[index % 3]
        pure = colour_map()[round((mmhg - low) / (high - low) * 255)]
        assert np.abs(tinted[row, column] - pure * 0.35 * heatmap.OPACITY).max() <= 1


def test_the_map_never_shows_a_value_beyond_the_patches() -> None:
    """A map that overshoots would show a pressure that nothing estimated."""
    position = np.arange(512, dtype=np.float32)
    levels = heatmap._smooth(np.array(VALUES, np.float32).reshape(3, 3), position, position)
    assert levels.min() >= min(VALUES) - 1e-4
    assert levels.max() <= max(VALUES) + 1e-4


def test_the_map_covers_only_what_the_network_saw() -> None:
    part = replace(WHOLE, columns=1024, left=256.0)
    grey = np.full((512, 1024), 100, np.uint8)
    tinted = heatmap.tinted(grey, part, VALUES)
    assert (tinted[:, :255] == 100).all()
    assert (tinted[:, 770:] == 100).all()
    assert (tinted[:, 260:760] != 100).any(axis=2).all()


@pytest.mark.parametrize("shape", [(1024, 853), (700, 1024), (300, 100)])
def test_the_radiograph_keeps_its_proportions(shape: tuple[int, int]) -> None:
    fitted = heatmap.fitted(np.zeros(shape, np.uint8), 900, 900)
    assert max(fitted.shape) == 900
    assert fitted.shape[0] / fitted.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.01)


def ink(strip: NDArray[np.uint8], start_mm: float, end_mm: float, row: int) -> NDArray[np.bool_]:
    """Dark pixels of a stretch of one row of the strip."""
    scale = ecg_strip.PIXELS_PER_MM
    top = (15 + row * 20 - 9) * scale
    return strip[top : top + 18 * scale, int(start_mm * scale) : int(end_mm * scale)].max(axis=2) < 90


def test_a_millivolt_is_ten_millimetres_and_a_second_twenty_five() -> None:
    """A step of 1 mV after 1 s in lead I, on a median of 0."""
    signals = np.zeros((12, 5000), np.float32)
    signals[0, 500:600] = 0.8
    strip = ecg_strip.ecg_strip(leads(signals_mv=signals, sampling_hz=500.0))
    rows, columns = np.nonzero(ink(strip, 30, 50, row=0))  # clear of the label
    scale = ecg_strip.PIXELS_PER_MM
    top_of_step = rows[(columns > 8.5 * scale) & (columns < 12.5 * scale)].min()
    baseline = np.median(rows[columns < 7 * scale])
    assert (baseline - top_of_step) / scale == pytest.approx(8, abs=0.35)
    assert (30 - 13) + np.nonzero(ink(strip, 30, 50, row=0)[: int(4 * scale)].any(axis=0))[0].min() / scale == (
        pytest.approx(25, abs=0.35)
    )


def test_each_lead_is_drawn_in_its_own_place() -> None:
    for index in range(12):
        signals = np.full((12, 10000), np.nan, np.float32)
        signals[index] = signals_mv()[index]
        strip = ecg_strip.ecg_strip(leads(signals_mv=signals))
        start = 13 + (index // 3) * 62.5
        inked = [
            ink(strip, 13 + column * 62.5 + 25, 13 + column * 62.5 + 60, row)[:80].any()
            for column in range(4)
            for row in range(3)
        ]
        assert inked[index], start
        # Neighbours above and below may be crossed by a tall wave; other columns may not.
        assert not any(value for place, value in enumerate(inked) if place // 3 != index // 3)


def test_a_recording_of_one_column_only_is_drawn_from_its_first_sample() -> None:
    short = leads(signals_mv=signals_mv()[:, :2600])
    strip = ecg_strip.ecg_strip(short)
    assert ink(strip, 13 + 3 * 62.5 + 25, 13 + 3 * 62.5 + 60, 2).any()


def test_without_signals_the_lead_images_themselves_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.full((12, 48, 224, 3), 255, np.uint8)
    pixels[7] = (0, 128, 0)
    bare = leads(signals_mv=np.zeros((12, 0), np.float32), pixels=pixels, source=EcgSource.VECTOR_PDF)
    strip = ecg_strip.ecg_strip(bare)
    green = (strip == (0, 128, 0)).all(axis=2)
    rows, columns = np.nonzero(green)
    assert columns.mean() / ecg_strip.PIXELS_PER_MM == pytest.approx(13 + 2.5 * 62.5, abs=2)  # third column
    assert rows.mean() / ecg_strip.PIXELS_PER_MM == pytest.approx(35, abs=2)  # second row
    assert "lead images as the network saw them" in drawn_texts(monkeypatch, examination(leads=bare))


def test_a_text_is_cut_or_wrapped_to_its_place_and_foreign_letters_do_not_break_it() -> None:
    face = font(20)
    assert face.getlength(shortened("a long model name " * 9, 200, face)) <= 200
    assert all(face.getlength(line) <= 200 for line in wrapped("several words and " + "x" * 90, 200, face))
    assert drawable("肺 model") == "? model"


def test_a_geometry_that_reaches_beyond_the_picture_keeps_its_values_inside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    padded = replace(geometry(), left=-400.0, scale_x=(1841 + 800) / 512)
    picture = render_overlay(examination(geometry=padded, ecg_at=RADIOGRAPH_AT))
    assert picture.shape == (canvas.HEIGHT, canvas.WIDTH, 3)
