"""Synthetic patients: schematic radiographs and ECGs whose signs follow one mean pulmonary artery pressure.

They exist to try the whole way without a patient's data. What is learned from them holds for no real person.
"""

from inference.phantoms.cohort import Forms, write_cohort
from inference.phantoms.patients import (
    PhantomObject,
    PhantomPatient,
    Scenario,
    Truth,
    make_patient,
    scenario_of,
)
from inference.phantoms.pressure import Difficulty, Shown

__all__ = [
    "Difficulty",
    "Forms",
    "PhantomObject",
    "PhantomPatient",
    "Scenario",
    "Shown",
    "Truth",
    "make_patient",
    "scenario_of",
    "write_cohort",
]
