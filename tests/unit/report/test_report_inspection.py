"""What `ecg inspect` shows: every lead's box and name on the sheet, the network's pictures, or why it was refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecg_ingest.inspection import Inspection
from ecg_ingest.lead_images import LEADS, RefusalReason, RenderStyle
from pacs_node.flow.ecg_file import look_at_file
from pacs_node.opening.opener import Opener
from pacs_node.report.inspection import MARGIN, WIDTH, as_json, draw_inspection
from tests.unit.ecg.ecg_builders import Group, SheetStyle, part10, sheet, waveform

KEYS = {"accepted", "reason", "layout", "leads", "seconds_per_lead", "px_per_mm", "quality"}


@pytest.fixture(scope="module")
def heart() -> dict[str, np.ndarray]:
    """Ten seconds of drawn beats that obey the limb equations."""
    seconds = np.arange(5000) / 500 % 0.8

    def beat(p: float, r: float, t: float) -> np.ndarray:
        waves = ((0.15, p, 0.02), (0.3, r, 0.01), (0.55, t, 0.04))
        return sum(high * np.exp(-((seconds - at) ** 2) / (2 * wide**2)) for at, high, wide in waves)

    one, two = beat(0.08, 0.9, 0.1), beat(0.15, 0.5, 0.35)
    signals = {lead: beat(0.1, -0.8 + 0.3 * number, 0.2) for number, lead in enumerate(LEADS[6:])}
    return signals | {
        "I": one,
        "II": two,
        "III": two - one,
        "aVR": -(one + two) / 2,
        "aVL": one - two / 2,
        "aVF": two - one / 2,
    }


@pytest.fixture(scope="module")
def page(heart: dict[str, np.ndarray], opener: Opener) -> Inspection:
    return look_at_file(sheet(heart, SheetStyle()), RenderStyle(), opener)


class TestJson:
    def test_names_layout_scale_and_a_box_on_the_page_for_every_lead(self, page: Inspection) -> None:
        found = json.loads(json.dumps(as_json(page)))
        assert set(found) >= KEYS
        assert (found["accepted"], found["reason"], found["layout"]) == (True, None, "3x4+1")
        assert (found["seconds_per_lead"], found["dots_per_inch"]) == (2.5, 200)
        assert found["px_per_mm"] == pytest.approx(7.87, abs=0.05)
        assert list(found["leads"]) == list(LEADS)
        wide, high = found["page_size"]
        for place in found["leads"].values():
            left, top, right, bottom = place["box"]
            assert place["page"] == 0
            assert 0 <= left < right <= wide
            assert 0 <= top < bottom <= high

    def test_of_signals_has_no_boxes_but_the_leads_and_their_seconds(
        self, heart: dict[str, np.ndarray], opener: Opener
    ) -> None:
        signals = {lead: heart[lead] for lead in ("I", "II", *LEADS[6:])}
        found = as_json(look_at_file(part10(waveform(Group(signals=signals))), RenderStyle(), opener))
        assert found["leads"] == {lead: {"page": None, "box": None} for lead in LEADS}
        assert (found["layout"], found["seconds_per_lead"], found["px_per_mm"]) == ("", 10.0, None)
        assert found["derived_leads"] == ["III", "aVR", "aVL", "aVF"]

    def test_of_a_refused_file_names_the_reason_and_no_lead(self, heart: dict[str, np.ndarray], opener: Opener) -> None:
        swapped = look_at_file(sheet(heart, SheetStyle(swapped=("I", "II"))), RenderStyle(), opener)
        found = as_json(swapped)
        assert (found["accepted"], found["reason"], found["leads"]) == (False, "leads_ambiguous", {})
        assert found["detail"]
        assert swapped.sheet is not None

    def test_of_a_file_of_several_pages_shows_them_all(self, opener: Opener) -> None:
        buffer = io.BytesIO()
        pages = [Image.new("RGB", (900, 600), shade) for shade in ("white", "lightgrey", "silver")]
        pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
        inspection = look_at_file(buffer.getvalue(), RenderStyle(), opener)
        found = as_json(inspection)
        assert (found["accepted"], found["reason"], found["page_size"]) == (False, "not_an_ecg", None)
        assert inspection.sheet is not None
        assert inspection.sheet.shape[0] > 3 * 600
        assert [inspection.sheet[row, 450].tolist() for row in (300, 924, 1548)] == [[255] * 3, [211] * 3, [192] * 3]

    @pytest.mark.parametrize("content", [b"", b"MFER", b"%PDF-1.4 broken", b"\x89PNG\r\n\x1a\n broken"])
    def test_of_bytes_that_show_nothing_is_a_refusal_too(self, content: bytes, opener: Opener) -> None:
        inspection = look_at_file(content, RenderStyle(), opener)
        assert as_json(inspection)["reason"] in {reason.value for reason in RefusalReason}
        assert inspection.sheet is None
        assert draw_inspection(inspection).shape[1] == WIDTH


class TestPicture:
    def test_frames_every_lead_where_it_stands_and_shows_the_networks_pictures_below(self, page: Inspection) -> None:
        drawn = draw_inspection(page)
        assert drawn.dtype == np.uint8
        assert page.sheet is not None
        assert page.images is not None
        high, wide = page.sheet.shape[:2]
        scale = (WIDTH - 2 * MARGIN) / wide
        top = next(row for row in range(400) if (drawn[row, MARGIN : WIDTH - MARGIN] == 255).all())
        for box in page.images.boxes:
            x, y = MARGIN + round(box.left * scale) + 2, top + round((box.top + box.bottom) / 2 * scale)
            frame = drawn[y - 3 : y + 3, x - 2 : x + 3].reshape(-1, 3).astype(int)
            assert (frame.max(axis=1) - frame.min(axis=1)).max() > 100, f"no coloured frame beside {box.lead}"
        last = np.asarray(Image.fromarray(page.images.pixels[11]).resize((448, 96), Image.Resampling.NEAREST))
        column = drawn[top + round(high * scale) :, MARGIN + 3 * (448 + 16) :][:, :448]
        assert any(np.array_equal(column[row : row + 96], last) for row in range(column.shape[0] - 96))

    def test_of_a_refused_sheet_shows_it_without_a_frame(self, heart: dict[str, np.ndarray], opener: Opener) -> None:
        refused = look_at_file(sheet(heart, SheetStyle(swapped=("I", "II"), grid=False)), RenderStyle(), opener)
        drawn = draw_inspection(refused).astype(int)
        paper = drawn[200:-60]  # below the header, above the footer: black ink on white
        assert (paper.max(axis=2) - paper.min(axis=2)).max() < 12
        assert (paper == 255).mean() > 0.5

    def test_can_be_written_as_png(self, page: Inspection, tmp_path: Path) -> None:
        Image.fromarray(draw_inspection(page)).save(tmp_path / "found.png")
        with Image.open(io.BytesIO((tmp_path / "found.png").read_bytes())) as image:
            assert image.size[0] == WIDTH
