"""Synthetic patients: a schematic chest radiograph and ECG whose signs follow one mean pulmonary artery pressure.

They exist to try the whole way without a patient's data. Nothing learned from them says anything of real people.
"""

from inference.phantoms.patients import (
    PhantomObject,
    PhantomPatient,
    Scenario,
    Truth,
    make_patient,
    scenario_of,
    write_cohort,
)

__all__ = [
    "PhantomObject",
    "PhantomPatient",
    "Scenario",
    "Truth",
    "make_patient",
    "scenario_of",
    "write_cohort",
]
