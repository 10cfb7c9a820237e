"""What a mean pulmonary artery pressure shows on the phantom radiograph and the phantom ECG, as numbers.

The directions are published; the sizes are chosen so that a small network can learn them.

Radiograph: enlarged right atrium, right ventricle and central pulmonary arteries, and pruned peripheral vessels
(Humbert et al., 2022 ESC/ERS guidelines for pulmonary hypertension); a right descending pulmonary artery above
16 mm (Matthay et al., Invest Radiol 1981). ECG: P above 0.25 mV in II, right axis deviation, R above 0.5 mV in
V1 with R/S above 1, deep S in V5 and V6, T inversion in the right precordial leads (the same guidelines).
No claim is made that real anatomy follows these lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REFERENCE_MMHG = 15.0  # where every sign is at its ordinary value


@dataclass(frozen=True, kw_only=True)
class ChestSigns:
    """What the radiograph shows of the pressure."""

    cardiothoracic_ratio: float  # greatest heart width over greatest inner thoracic width
    main_artery_mm: float  # radius of the main pulmonary artery's bulge on the left heart border
    right_descending_artery_mm: float  # its diameter
    right_border_share: float  # part of the heart's width that lies right of the midline
    peripheral_vessels: float  # part of the peripheral vessels that is left, 0 to 1


@dataclass(frozen=True, kw_only=True)
class EcgSigns:
    """What the ECG shows of the pressure. Amplitudes in millivolts."""

    axis_degrees: float  # of QRS in the frontal plane
    p_ii_mv: float
    r_mv: tuple[float, ...]  # V1 to V6
    s_mv: tuple[float, ...]  # V1 to V6, positive depths
    t_mv: tuple[float, ...]  # V1 to V6


def chest_signs(shown_mmhg: float, rng: np.random.Generator) -> ChestSigns:
    """The radiograph's signs of the pressure that it shows (`pressure.shown_by_chest`), each with its own variation."""
    excess = shown_mmhg - REFERENCE_MMHG
    return ChestSigns(
        cardiothoracic_ratio=float(np.clip(0.43 + 0.0034 * excess + rng.normal(0.0, 0.010), 0.38, 0.68)),
        main_artery_mm=max(9.0, 12.0 + 0.34 * excess + float(rng.normal(0.0, 0.8))),
        right_descending_artery_mm=max(9.0, 12.5 + 0.28 * excess + float(rng.normal(0.0, 0.8))),
        right_border_share=float(np.clip(0.29 + 0.0028 * excess + rng.normal(0.0, 0.008), 0.24, 0.48)),
        peripheral_vessels=float(np.clip(1.0 - 0.014 * excess, 0.25, 1.0)),
    )


def ecg_signs(shown_mmhg: float, rng: np.random.Generator) -> EcgSigns:
    """The ECG's signs of the pressure that it shows (`pressure.shown_by_ecg`), each with its own variation."""
    excess = shown_mmhg - REFERENCE_MMHG
    r_normal = np.array([0.18, 0.35, 0.70, 1.15, 1.25, 0.95])
    r_change = np.array([0.0190, 0.0130, 0.0050, -0.0060, -0.0110, -0.0095])
    s_normal = np.array([0.95, 1.25, 0.85, 0.45, 0.20, 0.10])
    s_change = np.array([-0.0140, -0.0120, -0.0010, 0.0080, 0.0130, 0.0120])
    t_normal = np.array([-0.04, 0.28, 0.36, 0.36, 0.32, 0.25])
    t_change = np.array([-0.0060, -0.0110, -0.0100, -0.0040, -0.0010, 0.0])
    individual = 1.0 + rng.normal(0.0, 0.06, 6)
    return EcgSigns(
        axis_degrees=45.0 + 1.9 * excess + float(rng.normal(0.0, 7.0)),
        p_ii_mv=max(0.06, 0.11 + 0.0034 * excess + float(rng.normal(0.0, 0.010))),
        r_mv=tuple(float(v) for v in np.maximum(0.05, (r_normal + r_change * excess) * individual)),
        s_mv=tuple(float(v) for v in np.maximum(0.03, (s_normal + s_change * excess) * individual)),
        t_mv=tuple(float(v) for v in t_normal + t_change * excess),
    )
