"""A phantom patient's pressure over visits, and how much of it each examination shows: the ceiling, by construction.

Two difficulties. `easy`: both examinations follow the pressure closely. `paper`: an examination shows the pressure
with so much of its own chance that not even an oracle, who reads off exactly what was drawn, can do better than the
paper's figures suggest: squared correlation .12 from the radiograph, .38 from the ECG, .43 from both. With pressure
and chance normal and the two chances independent, the oracle is the linear regression on both, whose squared
correlation is (a + b - 2ab) / (1 - ab) for a = .12 and b = .38, that is .428.

An ECG lags: at a later visit it still shows part of the pressure of the visit before (remodelling of the right
heart follows the load over months).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LOWEST_MMHG = 11.0
HIGHEST_MMHG = 65.0

PAPER_MEAN_MMHG = 36.3
PAPER_SD_MMHG = 11.45  # five of the six rows of the paper's Table 1 give 11.4 to 11.5
PAPER_BOUNDS_MMHG = (8.0, 75.0)
PAPER_CHEST_R2 = 0.12
PAPER_ECG_R2 = 0.38

VISIT_CORRELATION = 0.8  # of a patient's pressure at one visit with the next, `paper`
VISIT_STEP_MMHG = 6.0  # SD of the change from one visit to the next, `easy`
ECG_LAG = 0.35  # share of the visit before in what a later ECG shows

EASY_CHEST_SCATTER_MMHG = 3.5
EASY_ECG_SCATTER_MMHG = 7.0  # together the two tell more than either alone


class Difficulty(StrEnum):
    """How much of the pressure the examinations show."""

    EASY = "easy"
    PAPER = "paper"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The truth of one visit and what each examination shows of it, all mmHg: what an oracle reads off."""

    mpap_mmhg: float
    chest_mmhg: float
    ecg_mmhg: float


def first_pressure(difficulty: Difficulty, rng: np.random.Generator) -> float:
    """mPAP at the first visit in mmHg, to one decimal."""
    if difficulty is Difficulty.EASY:
        return round(LOWEST_MMHG + (HIGHEST_MMHG - LOWEST_MMHG) * float(rng.beta(1.4, 1.8)), 1)
    return _bounded(float(rng.standard_normal()))


def next_pressure(difficulty: Difficulty, before_mmhg: float, rng: np.random.Generator) -> float:
    """mPAP at the visit after one of `before_mmhg`; over many patients its distribution stays the same (`paper`)."""
    if difficulty is Difficulty.EASY:
        return round(float(np.clip(before_mmhg + rng.normal(0.0, VISIT_STEP_MMHG), LOWEST_MMHG, HIGHEST_MMHG)), 1)
    share = (_PAPER.cdf(before_mmhg) - _BELOW) / (_ABOVE - _BELOW)
    score = NormalDist().inv_cdf(min(max(share, 1e-6), 1.0 - 1e-6))
    return _bounded(VISIT_CORRELATION * score + float(np.sqrt(1.0 - VISIT_CORRELATION**2) * rng.standard_normal()))


_PAPER = NormalDist(36.0, 11.85)
_BELOW, _ABOVE = (_PAPER.cdf(bound) for bound in PAPER_BOUNDS_MMHG)


def _bounded(score: float) -> float:
    """A standard normal score as a pressure: normal within the bounds, with `PAPER_MEAN_MMHG` and `PAPER_SD_MMHG`."""
    return round(_PAPER.inv_cdf(_BELOW + NormalDist().cdf(score) * (_ABOVE - _BELOW)), 1)


def shown_by_chest(difficulty: Difficulty, mpap_mmhg: float, rng: np.random.Generator) -> float:
    """The pressure that the radiograph shows, mmHg."""
    if difficulty is Difficulty.EASY:
        return mpap_mmhg + float(rng.normal(0.0, EASY_CHEST_SCATTER_MMHG))
    return _diluted(mpap_mmhg, PAPER_SD_MMHG, PAPER_CHEST_R2, rng)


def shown_by_ecg(
    difficulty: Difficulty, mpap_mmhg: float, before_mmhg: float | None, rng: np.random.Generator
) -> float:
    """The pressure that the ECG shows, mmHg; `before_mmhg` is that of the visit before, None at the first.

    In `paper` the squared correlation with the pressure of the same visit is the same at every visit.
    """
    lag = 0.0 if before_mmhg is None else ECG_LAG
    followed = mpap_mmhg if before_mmhg is None else (1.0 - lag) * mpap_mmhg + lag * before_mmhg
    if difficulty is Difficulty.EASY:
        return followed + float(rng.normal(0.0, EASY_ECG_SCATTER_MMHG))
    spread = float(np.sqrt((1 - lag) ** 2 + lag**2 + 2 * (1 - lag) * lag * VISIT_CORRELATION))
    with_truth = ((1 - lag) + lag * VISIT_CORRELATION) / spread
    return _diluted(followed, PAPER_SD_MMHG * spread, PAPER_ECG_R2 / with_truth**2, rng)


def _diluted(followed_mmhg: float, sd_mmhg: float, share: float, rng: np.random.Generator) -> float:
    """`followed_mmhg` as `share` of the variance of what is shown, chance the rest; shown within the drawable range.

    What is shown has the spread of the pressures themselves: with the chance simply added, no anatomy could show it.
    """
    chance = float(rng.normal(0.0, sd_mmhg * np.sqrt(1.0 / share - 1.0)))
    shrink = np.sqrt(share) * PAPER_SD_MMHG / sd_mmhg
    return float(PAPER_MEAN_MMHG + shrink * (followed_mmhg - PAPER_MEAN_MMHG + chance))


def oracle_r2(fitted_on: tuple[Shown, ...], judged_on: tuple[Shown, ...]) -> dict[str, float]:
    """What nobody can beat: squared correlations of least-squares regressions on what the examinations show.

    Parameters
    ----------
    fitted_on, judged_on
        Visits that fix the coefficients, and visits whose squared correlation is given.

    Returns
    -------
    dict
        "fused", "chest" and "ecg".
    """

    def table(visits: tuple[Shown, ...]) -> NDArray[np.float64]:
        return np.array([(visit.mpap_mmhg, visit.chest_mmhg, visit.ecg_mmhg) for visit in visits])

    fit, judge = table(fitted_on), table(judged_on)
    result = {}
    for name, columns in (("fused", [1, 2]), ("chest", [1]), ("ecg", [2])):
        design = np.column_stack([np.ones(len(fit)), fit[:, columns]])
        weights, *_ = np.linalg.lstsq(design, fit[:, 0], rcond=None)
        said = np.column_stack([np.ones(len(judge)), judge[:, columns]]) @ weights
        result[name] = float(np.corrcoef(said, judge[:, 0])[0, 1] ** 2)
    return result
