"""An explanation is arithmetic on the network: shares add up, and every effect is a difference of two estimates."""

from __future__ import annotations

import numpy as np
import pytest

from ecg_ingest import RenderStyle, read
from inference.examinations import Examination
from inference.explanation import CELL_SIDE, Typical
from inference.manifest import LEAD_ORDER
from inference.phantoms import PhantomPatient
from inference.predictor import Predictor
from inference.radiograph import read_radiograph


@pytest.fixture(scope="module")
def demo() -> Predictor:
    return Predictor.load("synthetic-demo", threads=2)


@pytest.fixture(scope="module")
def picture(demo: Predictor, phantom: PhantomPatient) -> np.ndarray:
    return read_radiograph(phantom.objects[0].part10, demo.preprocessing).picture


@pytest.fixture(scope="module")
def leads(demo: Predictor, phantom: PhantomPatient) -> np.ndarray:
    return read(phantom.objects[1].part10, style=RenderStyle(**demo.ecg_style)).pixels  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def embedding(demo: Predictor, picture: np.ndarray) -> np.ndarray:
    return demo.embed(picture)


def test_the_shares_of_the_nine_patches_add_up_to_the_estimate(
    demo: Predictor, embedding: np.ndarray, leads: np.ndarray
) -> None:
    told, estimate = demo.explain(embedding, leads), demo.predict(embedding, leads)
    assert sum(told.patch_share_mmhg) == pytest.approx(estimate.mpap_mmhg, abs=1e-3)
    assert told.patch_mpap_mmhg == pytest.approx(estimate.patch_mpap_mmhg, abs=1e-3)
    assert told.mpap_mmhg == pytest.approx(estimate.mpap_mmhg, abs=1e-3)


@pytest.mark.parametrize("lead", ["I", "V1", "V6"])
def test_a_leads_effect_is_what_the_estimate_loses_with_the_average_patients_lead(
    demo: Predictor, embedding: np.ndarray, leads: np.ndarray, lead: str
) -> None:
    row = LEAD_ORDER.index(lead)
    without = leads.copy()
    without[row] = demo.typical.lead_images[row]
    lost = demo.predict(embedding, leads).mpap_mmhg - demo.predict(embedding, without).mpap_mmhg
    assert demo.explain(embedding, leads).lead_effect_mmhg[lead] == pytest.approx(lost, abs=1e-3)


def test_the_average_patients_ecg_has_no_effect_and_one_of_high_pressure_has(
    demo: Predictor, embedding: np.ndarray, leads: np.ndarray
) -> None:
    average = demo.explain(embedding, demo.typical.lead_images)
    assert list(average.lead_effect_mmhg) == list(LEAD_ORDER)
    assert [*average.lead_effect_mmhg.values(), average.ecg_effect_mmhg] == pytest.approx([0.0] * 13, abs=1e-3)
    told = demo.explain(embedding, leads)
    assert max(abs(effect) for effect in told.lead_effect_mmhg.values()) > 0.1
    assert abs(told.ecg_effect_mmhg) > 0.1


def test_leads_are_explained_from_the_kept_embedding_without_the_radiographs_network(
    demo: Predictor, embedding: np.ndarray, leads: np.ndarray
) -> None:
    runs = []
    hook = demo._engine.network.chest.register_forward_hook(lambda *_: runs.append(1))
    try:
        demo.explain(embedding, leads)
        assert runs == []
        demo.embed(np.zeros((512, 512), dtype=np.float32))
        assert runs == [1]
    finally:
        hook.remove()


def test_a_places_effect_is_what_the_estimate_loses_with_the_average_patients_place(
    demo: Predictor, picture: np.ndarray, leads: np.ndarray
) -> None:
    steps: list[None] = []
    effects = demo.occlude(picture, leads, progress=lambda: steps.append(None))
    assert effects.shape == (8, 8)
    assert len(steps) == 9
    estimate = demo.predict(demo.embed(picture), leads).mpap_mmhg
    filling = demo.typical.full_picture()
    # A corner, the middle (in four patches), the edge of one patch inside another.
    for row, column in ((0, 0), (3, 4), (2, 7), (7, 3)):
        place = np.s_[row * CELL_SIDE : (row + 1) * CELL_SIDE, column * CELL_SIDE : (column + 1) * CELL_SIDE]
        without = picture.copy()
        without[place] = filling[place]
        lost = estimate - demo.predict(demo.embed(without), leads).mpap_mmhg
        assert effects[row, column] == pytest.approx(lost, abs=2e-3)
    assert float(np.abs(effects).max()) > 0.1


def test_occlusion_runs_each_patch_again_only_for_the_places_in_it(
    demo: Predictor, picture: np.ndarray, leads: np.ndarray
) -> None:
    seen = 0

    def count(_module: object, given: tuple[np.ndarray, ...], _result: object) -> None:
        nonlocal seen
        seen += len(given[0])

    hook = demo._engine.network.chest.register_forward_hook(count)
    try:
        demo.occlude(picture, leads)
    finally:
        hook.remove()
    assert seen == 9 + 9 * 16


def examination(picture: np.ndarray, leads: np.ndarray) -> Examination:
    return Examination(
        patient_id="P", picture=picture.astype(np.float16), lead_images=leads.astype(np.uint8), mpap_mmhg=30.0
    )


def test_the_average_is_over_the_training_patients_alone_and_survives_storage() -> None:
    dark, light = np.zeros((512, 512)), np.ones((512, 512))
    black, white = np.zeros((12, 48, 224, 3)), np.full((12, 48, 224, 3), 255)
    shown = [examination(dark, black), examination(light, white), examination(light, white)]
    average = Typical.of(shown, (0, 1))
    assert set(np.unique(average.picture)) <= {127, 128}
    assert set(np.unique(average.lead_images)) <= {127, 128}
    assert average.full_picture() == pytest.approx(np.full((512, 512), 0.5), abs=0.01)
    again = Typical.from_tensors(average.to_tensors())
    np.testing.assert_array_equal(again.picture, average.picture)
    np.testing.assert_array_equal(again.lead_images, average.lead_images)


def test_misshapen_averages_are_refused() -> None:
    tensors = Typical.of([examination(np.zeros((512, 512)), np.zeros((12, 48, 224, 3)))], (0,)).to_tensors()
    with pytest.raises(ValueError, match=r"\[128, 128\]"):
        Typical.from_tensors({**tensors, "typical.picture": np.zeros((64, 64), dtype=np.uint8)})
    with pytest.raises(ValueError, match=r"\[12, 48, 224, 3\]"):
        Typical.from_tensors({**tensors, "typical.lead_images": np.zeros((11, 48, 224, 3), dtype=np.uint8)})
    with pytest.raises(KeyError):
        Typical.from_tensors({})
