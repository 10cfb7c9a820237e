"""What is opened in a child is what the readers give; what is made to do harm is refused in bounded time."""

from __future__ import annotations

import ast
import dataclasses
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ecg_ingest
import pacs_node
from ecg_ingest.lead_images import EcgRefused, RenderStyle
from ecg_ingest.sheet_picture import sheet_picture
from inference.phantoms import PhantomPatient
from inference.radiograph import RadiographPreprocessing, RadiographUnusable, Voi, read_radiograph
from pacs_node.opening.opener import NotOpened, Opener
from pacs_node.settings import Limits
from tests.benchmarks.ecg_sheets import Look, draw
from tests.benchmarks.ecg_signals import HZ, made_heart
from tests.unit.opening import hostile

STYLE, PREPROCESSING = RenderStyle(seconds_per_lead=2.0), RadiographPreprocessing(voi=Voi.PERCENTILE)


def same(one: object, other: object) -> bool:
    """Equal in every field, arrays bit by bit."""
    for entry in dataclasses.fields(one):  # type: ignore[arg-type]
        a, b = getattr(one, entry.name), getattr(other, entry.name)
        if not (np.array_equal(a, b, equal_nan=a.dtype.kind == "f") if isinstance(a, np.ndarray) else a == b):
            return False
    return type(one) is type(other)


def test_a_waveform_comes_back_bit_by_bit(opener: Opener, mortara_ecg: Path) -> None:
    content = mortara_ecg.read_bytes()
    assert same(opener.ecg(content, STYLE), ecg_ingest.read(content, style=STYLE))


def test_a_pdf_page_comes_back_bit_by_bit(opener: Opener, patient: PhantomPatient) -> None:
    content = patient.objects[1].part10
    assert same(opener.ecg(content, STYLE), ecg_ingest.read(content, style=STYLE))


def test_a_scan_comes_back_bit_by_bit_with_the_places_of_its_leads(opener: Opener) -> None:
    """Within the memory bound of these tests, with one thread and no more files than a confined child may open."""
    look = Look(pixels_per_mm=6.0, label_mm=3.2)
    content = draw(made_heart(11), HZ, look, seed=3).file()
    images = opener.ecg(content, STYLE)
    assert same(images, ecg_ingest.read(content, style=STYLE))
    assert [box.lead for box in images.boxes] == list(ecg_ingest.LEADS)
    assert np.array_equal(opener.sheet(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_the_page_of_a_pdf_is_drawn_and_signals_have_none(
    opener: Opener, patient: PhantomPatient, mortara_ecg: Path
) -> None:
    page = opener.sheet(patient.objects[1].part10)
    assert page is not None
    assert np.array_equal(page, sheet_picture(patient.objects[1].part10))
    assert opener.sheet(mortara_ecg.read_bytes()) is None
    with pytest.raises(EcgRefused, match="damaged"):
        opener.sheet(b"\x89PNG\r\n\x1a\n broken")


def test_a_radiograph_comes_back_bit_by_bit(opener: Opener, philips_radiograph: Path) -> None:
    content = philips_radiograph.read_bytes()
    assert same(opener.radiograph(content, PREPROCESSING), read_radiograph(content, PREPROCESSING))


def test_a_readers_refusal_comes_back_with_reason_and_hint(opener: Opener) -> None:
    with pytest.raises(EcgRefused) as direct:
        ecg_ingest.read(b"no ECG", style=STYLE)
    with pytest.raises(EcgRefused) as opened:
        opener.ecg(b"no ECG", STYLE)
    for name in ("reason", "detail", "hint"):
        assert getattr(opened.value, name) == getattr(direct.value, name)


HOSTILE_ECGS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a stream of 400 MB in a kilobyte": (hostile.stream_bomb, "opening_crashed"),
    "four million lines": (hostile.endless_drawing, "opening_crashed"),
    "a page of 35 km": (hostile.giant_page, "too_large"),
    "dictionaries in dictionaries": (hostile.nested_dictionaries, "empty"),
}


@pytest.mark.parametrize("name", HOSTILE_ECGS)
def test_a_pdf_made_to_do_harm_is_refused(opener: Opener, name: str) -> None:
    make, reason = HOSTILE_ECGS[name]
    with pytest.raises((EcgRefused, NotOpened)) as refused:
        opener.ecg(make(), STYLE)
    assert refused.value.reason.value == reason


def test_a_drawing_without_end_is_stopped_by_its_processor_time(patient: PhantomPatient) -> None:
    with Opener(Limits(opening_cpu_seconds=1)) as opener, pytest.raises(NotOpened) as refused:
        opener.ecg(hostile.endless_drawing(), STYLE)
    assert refused.value.reason.value == "opening_too_slow"


def test_radiographs_made_to_do_harm_are_refused(
    opener: Opener, patient: PhantomPatient, philips_radiograph: Path
) -> None:
    whole = patient.objects[0].part10
    reasons = {}
    for name, content in {
        "65535 x 65535 pixels": hostile.claims_pixels(whole, 65535, 65535),
        "9000 x 9000 pixels": hostile.claims_pixels(whole, 9000, 9000),
        "a deflate bomb": hostile.deflate_bomb(whole),
        "a damaged JPEG 2000": hostile.damaged_picture(philips_radiograph.read_bytes()),
    }.items():
        with pytest.raises((RadiographUnusable, NotOpened)) as refused:
            opener.radiograph(content, PREPROCESSING)
        reasons[name] = refused.value.reason.value
    assert reasons == {
        "65535 x 65535 pixels": "too_large",
        "9000 x 9000 pixels": "truncated",
        "a deflate bomb": "too_large",
        "a damaged JPEG 2000": "undecodable",
    }


def test_a_genuine_file_is_opened_after_one_that_ended_its_child(opener: Opener, patient: PhantomPatient) -> None:
    with pytest.raises(NotOpened):
        opener.ecg(hostile.stream_bomb(), STYLE)
    assert opener.ecg(patient.objects[1].part10, STYLE).page_layout == "3x4+1"


def test_a_file_that_fills_the_memory_by_itself_is_refused_unopened() -> None:
    with Opener(Limits(opening_bytes=2**29)) as opener, pytest.raises(NotOpened) as refused:
        opener.ecg(bytes(2**28 + 1), STYLE)
    assert refused.value.reason.value == "opening_too_large"
    assert opener.process_id is None


def test_the_worker_loads_no_pdf_library() -> None:
    """Nor does anything on its way load the code that reads ECGs."""
    code = (
        "import sys, pacs_node.opening.opener, pacs_node.flow.stages, pacs_node.flow.worker;"
        "print({'pypdfium2', 'cv2', 'ecg_ingest.page', 'ecg_ingest.waveform'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_only_the_program_for_it_opens_files() -> None:
    """Pixels, waveforms and PDFs of others are opened in `opening.server` and nowhere else in the service."""
    opens = re.compile(
        r"\bread_radiograph\b|\bsheet_picture\b|\bcv2\b|\becg_ingest\.read\b|from ecg_ingest import.*\bread\b"
        r"|\bpypdfium2\b|\bpixel_array\b|\bwaveform_array\b|\bWaveformData\b"
    )
    root = Path(pacs_node.__file__).parent
    found = {str(file.relative_to(root)) for file in root.rglob("*.py") if opens.search(_code(file))}
    own_making = {"commands/model.py", "commands/demo.py", "flow/wrap.py"}  # phantoms, overlays, waveforms it writes
    assert found == {"opening/server.py", *own_making}


def _code(file: Path) -> str:
    """A module without its docstrings and comments."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return ast.unparse(tree)
