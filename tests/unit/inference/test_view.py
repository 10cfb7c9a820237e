"""The pixels are asked whether they show a chest from the front: whatever the tags say, and of whatever make."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from inference.explanation import Typical
from inference.package import locate, read_package
from inference.phantoms import Scenario, make_patient
from inference.phantoms.wrong_films import WrongFilm, make_wrong_film
from inference.radiograph import RadiographPreprocessing, read_radiograph
from inference.view import HIGHEST_LIMIT, View, likeness
from pacs_node.flow.classify import classify
from storage.records import Disposition, Kind

PREPROCESSING = RadiographPreprocessing()


@pytest.fixture(scope="module")
def view() -> View:
    """That of the shipped package."""
    tensors = read_package(locate("synthetic-demo")).calibration
    return View.from_tensors(tensors, Typical.from_tensors(tensors).picture)


def picture_of(part10: bytes) -> np.ndarray:
    return read_radiograph(part10, PREPROCESSING).picture


def codes(view: View, part10: bytes) -> list[str]:
    found = view.findings(picture_of(part10))
    assert all(finding.subject == "radiograph" and finding.severity == "warning" for finding in found)
    return [finding.code for finding in found]


@pytest.mark.parametrize("index", range(8))
def test_phantoms_it_never_met_are_frontal_chests_in_both_polarities(view: View, index: int) -> None:
    assert codes(view, make_patient(index, 5501, Scenario.RADIOGRAPH_ONLY).objects[0].part10) == []


@pytest.mark.parametrize("kind", [kind for kind in WrongFilm if kind is not WrongFilm.INVERTED])
def test_another_view_part_or_position_is_found_behind_tags_that_say_pa(view: View, kind: WrongFilm) -> None:
    for index in (0, 1):  # stored as MONOCHROME2 and as MONOCHROME1
        assert codes(view, make_wrong_film(kind, index, 5501)) == ["not_frontal_chest"]


@pytest.mark.parametrize("kind", list(WrongFilm))
def test_the_tags_of_a_wrong_film_say_pa_chest_and_its_bytes_are_the_same_each_time(kind: WrongFilm) -> None:
    part10 = make_wrong_film(kind, 1, 5501)
    assert part10 == make_wrong_film(kind, 1, 5501)
    assert part10 != make_wrong_film(kind, 2, 5501)
    told = classify(dcmread(io.BytesIO(part10), stop_before_pixels=True))
    assert (told.kind, told.disposition) == (Kind.RADIOGRAPH, Disposition.ACCEPTED)


def test_exchanged_greys_are_told_from_another_view(view: View) -> None:
    for index in range(4):
        assert codes(view, make_wrong_film(WrongFilm.INVERTED, index, 5501)) == ["probably_inverted"]


def test_a_real_chest_is_frontal_and_inverted_it_is_said_to_be_so(view: View, philips_radiograph: Path) -> None:
    """It is MONOCHROME1, and its greys are put right when it is read."""
    part10 = philips_radiograph.read_bytes()
    assert codes(view, part10) == []
    assert [finding.code for finding in view.findings(1.0 - picture_of(part10))] == ["probably_inverted"]


@pytest.mark.parametrize("name", ["RG3_UNCI.dcm", "693_J2KR.dcm", "explicit_VR-UN.dcm"])
def test_real_pictures_of_other_parts_are_no_frontal_chests(view: View, name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    assert codes(view, Path(str(path)).read_bytes()) == ["not_frontal_chest"]


def test_every_real_frontal_chest_at_hand_passes(view: View, samples: Path) -> None:
    films = sorted((samples / "cxr").glob("*.dcm"))
    assert len(films) >= 3
    for film in films:
        assert codes(view, film.read_bytes()) == [], film.name
    with Image.open(samples / "cxr" / "nih_00000001_000.png") as picture:
        grey = np.asarray(picture.convert("L").resize((512, 512)), dtype=np.float32) / 255.0
    assert view.findings(grey) == ()


def test_a_small_shift_or_stretch_does_not_matter(view: View) -> None:
    picture = picture_of(make_patient(3, 5501, Scenario.RADIOGRAPH_ONLY).objects[0].part10)
    moved = np.roll(picture, (20, -24), axis=(0, 1))
    cut = np.asarray(Image.fromarray(picture[40:472, 30:482]).resize((512, 512)))
    straight = likeness(picture, view.average).upright
    assert likeness(moved, view.average).upright > straight - 0.1
    assert likeness(cut, view.average).upright > straight - 0.1


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_flat_picture_is_like_nothing(view: View, level: float) -> None:
    found = likeness(np.full((512, 512), level, dtype=np.float32), view.average)
    assert abs(found.upright) < 0.3
    assert view.findings(np.full((512, 512), level, dtype=np.float32))


def test_the_limit_lets_ninety_nine_in_a_hundred_held_out_patients_pass_and_is_never_severe() -> None:
    # Seeded: smooth random pictures, unlike one another, so that the limit is the quantile and not its bound.
    rng = np.random.default_rng(6)
    average = rng.integers(0, 256, (128, 128), dtype=np.uint8)

    def mixed(share: float) -> np.ndarray:
        return share * average / 255.0 + (1.0 - share) * rng.random((128, 128))

    pictures = [mixed(share) for share in np.linspace(0.1, 0.3, 250)]
    told = sorted(likeness(picture, average).upright for picture in pictures)
    assert View.fit(average, pictures).limit == pytest.approx(told[1])  # the 249th of 251 ranks from above
    few = [likeness(picture, average).upright for picture in pictures[:5]]
    assert View.fit(average, pictures[:5]).limit == pytest.approx(min(few))
    assert View.fit(average, [mixed(0.95)] * 3).limit == HIGHEST_LIMIT


def test_a_limit_that_is_no_correlation_is_refused(view: View) -> None:
    again = View.from_tensors(view.to_tensors(), view.average)
    assert again.limit == view.limit
    for wrong in (0.9, -2.0, float("nan")):
        with pytest.raises(ValueError, match="limit"):
            View.from_tensors({"view.limit": np.array([wrong])}, view.average)
