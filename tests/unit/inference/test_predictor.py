"""The shipped model answers: the same for the same input, better for the right input, and says when it cannot know."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from ecg_ingest import RenderStyle, read
from inference.engine import lead_tensor
from inference.package import SHIPPED, read_manifest
from inference.phantoms import PhantomPatient, Scenario, make_patient
from inference.phantoms.wrong_films import WrongFilm, make_wrong_film
from inference.prediction import Prediction
from inference.predictor import Predictor
from inference.radiograph import patches, read_radiograph


@pytest.fixture(scope="module")
def demo() -> Predictor:
    return Predictor.load("synthetic-demo", threads=2)


def leads_of(demo: Predictor, patient: PhantomPatient) -> np.ndarray:
    return read(patient.objects[1].part10, style=RenderStyle(**demo.ecg_style)).pixels  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def inputs(demo: Predictor, phantom: PhantomPatient) -> tuple[np.ndarray, np.ndarray]:
    return demo.chest(read_radiograph(phantom.objects[0].part10, demo.preprocessing)).embedding, leads_of(demo, phantom)


def answer(prediction: Prediction) -> Prediction:
    """Without the time that it took."""
    return dataclasses.replace(prediction, seconds=0.0)


def test_the_shipped_package_is_small_and_says_what_it_is(demo: Predictor) -> None:
    size = sum(path.stat().st_size for path in (SHIPPED / "synthetic-demo").rglob("*") if path.is_file())
    assert size <= 5_000_000
    assert demo.identity.kind == "synthetic-demo"
    assert "stand-in" in demo.identity.architecture
    card = (SHIPPED / "synthetic-demo" / "MODEL_CARD.md").read_text()
    assert "knows nothing of real patients" in card
    assert "Research use only" in card


def test_the_shipped_package_learned_from_both_inputs() -> None:
    metrics = read_manifest("synthetic-demo").metrics
    correlation = metrics["correlation"]
    assert isinstance(correlation, dict)
    assert correlation["value"] > 0.85
    for swapped in ("ecg", "radiograph"):
        assert float(str(metrics[f"correlation_with_{swapped}_of_another_patient"])) < correlation["value"] - 0.05


def test_the_same_inputs_give_bit_identical_answers(
    demo: Predictor, inputs: tuple[np.ndarray, np.ndarray], phantom: PhantomPatient
) -> None:
    again = Predictor.load("synthetic-demo", threads=2)
    repeated = again.chest(read_radiograph(phantom.objects[0].part10, again.preprocessing)).embedding
    assert repeated.tobytes() == inputs[0].tobytes()
    assert answer(again.predict(repeated, inputs[1])) == answer(demo.predict(*inputs))


def test_the_answer_equals_the_unsplit_network_patch_by_patch(
    demo: Predictor, inputs: tuple[np.ndarray, np.ndarray], phantom: PhantomPatient
) -> None:
    import torch

    network, manifest = demo._engine.network, read_manifest("synthetic-demo")
    picture = read_radiograph(phantom.objects[0].part10, manifest.radiograph).picture
    leads = lead_tensor(inputs[1][None], manifest.ecg)
    with torch.inference_mode():
        plain = [
            float(network(torch.from_numpy(patch[None]), leads)) for patch in patches(picture, manifest.radiograph)
        ]
    split = demo.predict(*inputs)
    assert split.patch_mpap_mmhg == pytest.approx(plain, abs=1e-3)
    assert split.mpap_mmhg == pytest.approx(np.mean(plain), abs=1e-3)


def test_a_batch_gives_each_examination_its_own_answer(demo: Predictor, inputs: tuple[np.ndarray, np.ndarray]) -> None:
    other = (np.ascontiguousarray(inputs[0][::-1]), np.ascontiguousarray(inputs[1][:, :, ::-1]))
    batch = demo.predict_batch([inputs[0], other[0], inputs[0]], [inputs[1], other[1], inputs[1]])
    assert batch[0].mpap_mmhg == pytest.approx(demo.predict(*inputs).mpap_mmhg, abs=1e-3)
    assert batch[1].mpap_mmhg == pytest.approx(demo.predict(*other).mpap_mmhg, abs=1e-3)
    assert batch[2].mpap_mmhg == pytest.approx(batch[0].mpap_mmhg, abs=1e-3)


def test_the_interval_and_probabilities_hang_together(demo: Predictor, inputs: tuple[np.ndarray, np.ndarray]) -> None:
    prediction = demo.predict(*inputs)
    assert prediction.interval_low_mmhg < prediction.mpap_mmhg < prediction.interval_high_mmhg
    assert prediction.interval_level == 0.90
    assert 0.0 < prediction.probability_at_least_25 <= prediction.probability_above_20 < 1.0
    assert prediction.mpap_mmhg == pytest.approx(np.mean(prediction.patch_mpap_mmhg))
    assert prediction.model == demo.identity
    assert Prediction.from_json(prediction.to_json()) == prediction


@pytest.fixture(scope="module")
def unseen(demo: Predictor) -> list[tuple[float, Prediction]]:
    """Twelve phantoms of a cohort the model has not met, waveforms and both kinds of page (seeded)."""
    forms = (Scenario.PAIRED_WAVEFORM, Scenario.PAIRED_PDF_3X4, Scenario.PAIRED_PDF_6X2)

    def examine() -> Iterator[tuple[float, Prediction]]:
        for index in range(12):
            patient = make_patient(index, 991, forms[index // 4 % 3])
            chest = demo.chest(read_radiograph(patient.objects[0].part10, demo.preprocessing))
            yield patient.truth.mpap_mmhg, demo.predict(chest.embedding, leads_of(demo, patient))

    return list(examine())


def test_it_follows_the_pressure_of_phantoms_it_never_met(unseen: list[tuple[float, Prediction]]) -> None:
    truth = [mpap for mpap, _ in unseen]
    estimates = [prediction.mpap_mmhg for _, prediction in unseen]
    assert np.corrcoef(truth, estimates)[0, 1] > 0.85


def test_usual_phantoms_are_not_called_unusual(unseen: list[tuple[float, Prediction]]) -> None:
    flagged = sum(bool(prediction.findings) for _, prediction in unseen)
    assert flagged <= 2  # 1% an input by design


def test_a_picture_of_something_else_is_called_unusual(demo: Predictor, inputs: tuple[np.ndarray, np.ndarray]) -> None:
    noise = np.random.default_rng(1).random((512, 512), dtype=np.float32)
    prediction = demo.predict(demo._engine.embed_chest(noise), inputs[1])
    assert [(f.subject, f.code) for f in prediction.findings] == [("radiograph", "out_of_distribution")]


@pytest.mark.parametrize("kind", list(WrongFilm))
def test_a_film_that_is_not_what_its_tags_say_is_called_unusual_and_another_view(
    demo: Predictor, inputs: tuple[np.ndarray, np.ndarray], kind: WrongFilm
) -> None:
    chest = demo.chest(read_radiograph(make_wrong_film(kind, 3, 991), demo.preprocessing))
    view = "probably_inverted" if kind is WrongFilm.INVERTED else "not_frontal_chest"
    assert view in {finding.code for finding in chest.findings}
    found = demo.predict(chest.embedding, inputs[1]).findings
    assert ("radiograph", "out_of_distribution") in {(finding.subject, finding.code) for finding in found}


def test_a_right_film_brings_no_warning_of_its_view(demo: Predictor, phantom: PhantomPatient) -> None:
    """The phantom is stored as MONOCHROME1."""
    assert demo.chest(read_radiograph(phantom.objects[0].part10, demo.preprocessing)).findings == ()


def test_a_blank_page_in_place_of_an_ecg_is_called_unusual(
    demo: Predictor, inputs: tuple[np.ndarray, np.ndarray]
) -> None:
    prediction = demo.predict(inputs[0], np.full((12, 48, 224, 3), 255, dtype=np.uint8))
    assert ("ecg", "out_of_distribution") in {(f.subject, f.code) for f in prediction.findings}


def test_wrong_shapes_and_broken_numbers_are_refused(demo: Predictor, inputs: tuple[np.ndarray, np.ndarray]) -> None:
    embedding, leads = inputs
    with pytest.raises(ValueError, match=r"\[9, 1024\]"):
        demo.predict(embedding[:8], leads)
    with pytest.raises(ValueError, match=r"\[12, 48, 224, 3\]"):
        demo.predict(embedding, leads[:11])
    with pytest.raises(ValueError, match="not finite"):
        demo.predict(np.full_like(embedding, np.nan), leads)
