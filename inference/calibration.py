"""How far an estimate may be off, and whether an input looks like those the model was made with. No torch here.

Split-conformal: residuals of patients that took no part in training give the interval and the probabilities.
Their coverage holds for patients drawn as those were, and for no others. Patients are what is exchangeable, not
visits: one who came often weighs as much as one who came once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from inference.drift_reference import DriftReference

INTERVAL_LEVEL = 0.90
USUAL_SHARE = 0.99  # of held-out patients whose input must count as usual
COMPONENTS = 128  # principal directions of an embedding that are kept one by one


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What embeddings of usual inputs look like: a Gaussian whose covariance is kept by its principal directions.

    The covariance is shrunk towards a sphere as far as the number of patients asks for (Ledoit and Wolf, J Multivariate
    Anal 2004;88:365): otherwise directions in which the few do not vary would make every new patient unusual.
    """

    mean: NDArray[np.float32]  # [n]
    basis: NDArray[np.float32]  # [directions, n], orthonormal rows
    variance: NDArray[np.float32]  # [directions + 1]; the last is of every direction that is left
    limit: float  # distance that `USUAL_SHARE` of held-out patients stay below

    def distance(self, embedding: NDArray[np.float32]) -> float:
        """Squared Mahalanobis distance of `embedding` [n]."""
        offset = (embedding - self.mean).astype(np.float64)
        along = self.basis.astype(np.float64) @ offset
        rest = max(0.0, float(offset @ offset) - float(along @ along))
        return float(np.sum(along**2 / self.variance[:-1])) + rest / float(self.variance[-1])

    def ratio(self, embedding: NDArray[np.float32]) -> float:
        """The distance over its limit."""
        return self.distance(embedding) / self.limit

    def is_unusual(self, embedding: NDArray[np.float32]) -> bool:
        """Whether `embedding` lies beyond the limit. NaN counts as unusual."""
        return not self.distance(embedding) <= self.limit


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Residuals (measured minus estimated, mmHg) of held-out patients, and references for both embeddings."""

    residuals_mmhg: NDArray[np.float32]  # [visits]
    chest: Reference
    ecg: Reference
    patient: NDArray[np.int32] | None = None  # [visits], whose residual; None where each is another patient's
    drift: DriftReference | None = None  # None in packages made before it was kept

    def __post_init__(self) -> None:
        if self.residuals_mmhg.ndim != 1 or not np.isfinite(self.residuals_mmhg).all():
            raise ValueError("residuals must be finite")
        if self.patient is not None and self.patient.shape != self.residuals_mmhg.shape:
            raise ValueError("a patient for each residual is needed")
        if len(np.unique(self._patients())) < minimum_patients(INTERVAL_LEVEL):
            raise ValueError("residuals of too few patients for the interval")

    def half_width_mmhg(self) -> float:
        """Half the interval's width: the conformal quantile of the absolute residuals."""
        return grouped_conformal_quantile(np.abs(self.residuals_mmhg), self._patients(), INTERVAL_LEVEL)

    def interval(self, mpap_mmhg: float) -> tuple[float, float]:
        """The interval around an estimate, not below zero."""
        half = self.half_width_mmhg()
        return max(0.0, mpap_mmhg - half), mpap_mmhg + half

    def probability_above(self, mpap_mmhg: float, threshold_mmhg: float, *, inclusive: bool) -> float:
        """How probable a measured value above the threshold is, from the residuals; never quite 0 or 1."""
        plausible = mpap_mmhg + self.residuals_mmhg.astype(np.float64)
        above = plausible >= threshold_mmhg if inclusive else plausible > threshold_mmhg
        weights = patient_weights(self._patients())
        patients = round(float(weights.sum()))
        return (float(weights[above].sum()) + 0.5) / (patients + 1.0)

    def _patients(self) -> NDArray[np.integer]:
        return np.arange(len(self.residuals_mmhg)) if self.patient is None else self.patient

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """As kept in calibration.safetensors."""
        tensors: dict[str, NDArray[np.generic]] = {"residuals_mmhg": self.residuals_mmhg}
        if self.patient is not None:
            tensors["patient"] = self.patient
        if self.drift is not None:
            tensors |= self.drift.to_tensors()
        for name, reference in (("chest", self.chest), ("ecg", self.ecg)):
            tensors[f"{name}.mean"] = reference.mean
            tensors[f"{name}.basis"] = reference.basis
            tensors[f"{name}.variance"] = reference.variance
            tensors[f"{name}.limit"] = np.array([reference.limit], dtype=np.float64)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Calibration:
        """The calibration of a package. Raises LookupError or ValueError if a tensor is missing or misshapen."""

        def reference(name: str, size: int) -> Reference:
            mean, basis = _float32(tensors[f"{name}.mean"]), _float32(tensors[f"{name}.basis"])
            variance = _float32(tensors[f"{name}.variance"])
            if mean.shape != (size,) or basis.ndim != 2 or basis.shape[1] != size:
                raise ValueError(f"{name} reference is misshapen")
            if variance.shape != (basis.shape[0] + 1,) or not (variance > 0).all():
                raise ValueError(f"{name} variances must be positive, one a direction and one for the rest")
            limit = float(tensors[f"{name}.limit"].reshape(-1)[0].item())
            if not 0.0 < limit < np.inf or not (np.isfinite(mean).all() and np.isfinite(basis).all()):
                raise ValueError(f"{name} reference is not finite: nothing would be unusual, or everything")
            return Reference(mean=mean, basis=basis, variance=variance, limit=limit)

        from inference.architecture import CHEST_EMBEDDING, ECG_EMBEDDING

        return cls(
            residuals_mmhg=_float32(tensors["residuals_mmhg"]),
            patient=np.asarray(tensors["patient"], dtype=np.int32) if "patient" in tensors else None,
            drift=DriftReference.from_tensors(tensors),
            chest=reference("chest", CHEST_EMBEDDING),
            ecg=reference("ecg", ECG_EMBEDDING),
        )


def grouped_conformal_quantile(scores: NDArray[np.floating], patient: NDArray[np.integer], level: float) -> float:
    """A score that a visit of a new patient stays below with probability `level` or more.

    Each patient has the weight 1/(patients + 1), shared by the visits; the rest lies at infinity (hierarchical
    conformal prediction: Lee, Barber and Willett 2023, arXiv:2306.06342). With one visit a patient this is the
    ceil((n + 1) level)-th smallest of n.

    Raises
    ------
    ValueError
        If there are too few patients for the level.
    """
    weights = patient_weights(patient)
    patients = round(float(weights.sum()))
    order = np.argsort(scores, kind="stable")
    share = np.cumsum(weights[order]) / (patients + 1)
    enough = np.flatnonzero(share >= level - 1e-9)
    if len(enough) == 0:
        raise ValueError("too few patients for this level")
    return float(scores[order[enough[0]]])


def patient_weights(patient: NDArray[np.integer]) -> NDArray[np.float64]:
    """The weight of each visit [visits] where every patient weighs 1."""
    _, numbers, visits = np.unique(patient, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / visits[numbers])


def minimum_patients(level: float) -> int:
    """How many held-out patients `grouped_conformal_quantile` needs for `level`."""
    return int(np.ceil(level / (1.0 - level) - 1e-9))


def usual_limit(scores: NDArray[np.floating], patient: NDArray[np.integer] | None = None) -> float:
    """The score that `USUAL_SHARE` of new patients stay below, by patient; the largest of fewer than 99 patients.

    Parameters
    ----------
    scores
        Of held-out visits, [visits].
    patient
        Whose each is; None where each is another patient's.
    """
    patient = np.arange(len(scores)) if patient is None else patient
    if len(np.unique(patient)) < minimum_patients(USUAL_SHARE):
        return float(scores.max())
    return grouped_conformal_quantile(scores, patient, USUAL_SHARE)


def fit_reference(
    usual: NDArray[np.float32],
    held_out: NDArray[np.float32],
    *,
    patient: NDArray[np.integer] | None = None,
    components: int = COMPONENTS,
) -> Reference:
    """A reference from embeddings [visits, n], its limit (`usual_limit`) from patients that took no part in fitting it.

    `patient` says whose the held-out visits are; None where each is another patient's.
    """
    mean = usual.mean(axis=0)
    centred = (usual - mean).astype(np.float64)
    count, size = centred.shape
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    values, basis = singular**2 / count, directions[:components]
    shrinkage = ledoit_wolf_shrinkage(centred, values)
    kept = values[: len(basis)]
    left = float(values[len(basis) :].sum()) / max(1, size - len(basis))
    variance = (1.0 - shrinkage) * np.append(kept, left) + shrinkage * values.sum() / size
    reference = Reference(
        mean=mean.astype(np.float32),
        basis=basis.astype(np.float32),
        variance=np.maximum(variance, 1e-12).astype(np.float32),
        limit=np.inf,
    )
    distances = np.array([reference.distance(row) for row in held_out])
    return replace(reference, limit=usual_limit(distances, patient))


def ledoit_wolf_shrinkage(centred: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """How far towards a sphere the covariance of `centred` [count, n] is best drawn, 0 to 1.

    Parameters
    ----------
    values
        Eigenvalues of the covariance; those that are zero may be absent.
    """
    count, size = centred.shape
    squares = float((values**2).sum())
    spread = squares - float(values.sum()) ** 2 / size  # of the sample covariance around the sphere
    chance = (float((np.sum(centred**2, axis=1) ** 2).sum()) / count - squares) / count
    return min(chance, spread) / spread if spread > 0 else 1.0


def _float32(array: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, dtype=np.float32)
