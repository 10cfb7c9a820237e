"""Limits of agreement with their confidence intervals from normal theory, for single and for repeated visits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from inference.evaluation.accuracy import SPREAD
from inference.evaluation.resampling import Array


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """An estimate between its confidence bounds, mmHg."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bias and limits between which 95% of differences lie."""

    bias: Bounded
    sd: float
    lower: Bounded
    upper: Bounded


def exact_limits(differences: Array, *, level: float = 0.95) -> Limits:
    """Limits of independent differences with exact confidence intervals from the non-central t distribution.

    Carkeet, Optom Vis Sci 2015;92:e71, each limit by itself: (limit - mean)/(s/sqrt(n)) is non-central t.
    """
    n, mean, sd = _moments(differences)
    tails = np.array([(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    near, far = (float(v) for v in stats.nct.ppf(tails, n - 1, SPREAD * math.sqrt(n)) * sd / math.sqrt(n))
    return Limits(
        bias=_mean_bounds(mean, sd / math.sqrt(n), n - 1, level),
        sd=sd,
        lower=Bounded(value=mean - SPREAD * sd, low=mean - far, high=mean - near),
        upper=Bounded(value=mean + SPREAD * sd, low=mean + near, high=mean + far),
    )


def approximate_limits(differences: Array, *, level: float = 0.95, spread: float = SPREAD) -> Limits:
    """As `exact_limits`, by the approximation of the paper that began it: a limit's standard error is sqrt(3/n) s.

    Bland and Altman, Lancet 1986;1:307. There `spread` is 2.
    """
    n, mean, sd = _moments(differences)
    error = math.sqrt(3.0 / n) * sd
    return Limits(
        bias=_mean_bounds(mean, sd / math.sqrt(n), n - 1, level),
        sd=sd,
        lower=_mean_bounds(mean - spread * sd, error, n - 1, level),
        upper=_mean_bounds(mean + spread * sd, error, n - 1, level),
    )


def repeated_limits(differences: Array, patient: NDArray[np.intp], *, level: float = 0.95) -> Limits:
    """Limits of differences with several visits a patient, the true value varying, and MOVER confidence intervals.

    Zou, Stat Methods Med Res 2013;22:630: a patient counts once (the bias is the mean of the patients' means), the
    variance of one difference is recovered from that of the means and that within patients.

    Raises
    ------
    ValueError
        If fewer than two patients, or none with two visits, are given.
    """
    visits = np.bincount(patient)
    means = np.bincount(patient, differences) / visits
    patients, rows = len(visits), len(differences)
    if patients < 2 or rows == patients:
        raise ValueError("two patients and a patient with two visits are needed")
    harmonic = patients / float(np.sum(1.0 / visits))
    of_means = float(means.var(ddof=1))
    within = (1.0 - 1.0 / harmonic) * float(np.sum((differences - means[patient]) ** 2)) / (rows - patients)
    total = of_means + within
    tails = ((1.0 + level) / 2.0, (1.0 - level) / 2.0)
    low, high = (
        total
        + sign
        * math.hypot(
            of_means * (1.0 - (patients - 1) / float(stats.chi2.ppf(tail, patients - 1))),
            within * (1.0 - (rows - patients) / float(stats.chi2.ppf(tail, rows - patients))),
        )
        for sign, tail in zip((-1.0, 1.0), tails, strict=True)
    )
    mean, sd, of_mean = float(means.mean()), math.sqrt(total), math.sqrt(of_means / patients)
    z = float(stats.norm.ppf((1.0 + level) / 2.0))
    outward = math.hypot(z * of_mean, SPREAD * (math.sqrt(high) - sd))
    inward = math.hypot(z * of_mean, SPREAD * (sd - math.sqrt(max(low, 0.0))))
    lower, upper = mean - SPREAD * sd, mean + SPREAD * sd
    return Limits(
        bias=_mean_bounds(mean, of_mean, patients - 1, level),
        sd=sd,
        lower=Bounded(value=lower, low=lower - outward, high=lower + inward),
        upper=Bounded(value=upper, low=upper - inward, high=upper + outward),
    )


def _moments(differences: Array) -> tuple[int, float, float]:
    if len(differences) < 3:
        raise ValueError("three differences are needed")
    return len(differences), float(differences.mean()), float(differences.std(ddof=1))


def _mean_bounds(value: float, error: float, degrees: int, level: float) -> Bounded:
    half = float(stats.t.ppf((1.0 + level) / 2.0, degrees)) * error
    return Bounded(value=value, low=value - half, high=value + half)
