"""A training's folder: what was asked for, written before it begins, and read again to go on or to make a package."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from inference.architecture import Architecture
from inference.checkpoint import Epoch
from inference.durable import write_durably
from inference.manifest import EcgPreprocessing
from inference.radiograph import RadiographPreprocessing
from inference.recipe import Precision, Recipe, Schedule, Target

SCHEMA = 1
RECORD = "run.json"
EXAMINATIONS = "examinations"
SPLIT = "split.csv"
HISTORY = "history.csv"
PREDICTIONS = "predictions.csv"
REFUSED = "refused.csv"


class RunUnusable(Exception):
    """A folder that holds no training, or one of another version. `hint` says what to do."""

    def __init__(self, folder: Path, detail: str, hint: str = "") -> None:
        super().__init__(str(folder), detail, hint)
        self.folder, self.detail, self.hint = folder, detail, hint

    def __str__(self) -> str:
        return f"{self.folder}: {self.detail}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a training was asked to do."""

    architecture: Architecture
    recipe: Recipe
    radiograph: RadiographPreprocessing
    ecg: EcgPreprocessing
    examinations_key: str  # of the kept examinations
    data: Mapping[str, object]  # the cohort's counts and digest
    weights: Mapping[str, object]  # where the backbone's weights came from; empty for random ones

    def write(self, folder: Path) -> None:
        """Write the record, durably."""
        body = {
            "schema": SCHEMA,
            "architecture": self.architecture.to_json(),
            "recipe": asdict(self.recipe),
            "radiograph": self.radiograph.to_json(),
            "ecg": self.ecg.to_json(),
            "examinations_key": self.examinations_key,
            "data": dict(self.data),
            "weights": dict(self.weights),
        }
        write_durably(folder / RECORD, (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The record in `folder`.

        Raises
        ------
        RunUnusable
            If there is none, or it is malformed or of another version.
        """
        try:
            body = json.loads((folder / RECORD).read_bytes())
            if body["schema"] != SCHEMA:
                raise RunUnusable(folder, f"was made by another version (schema {body['schema']})", "train again")
            return cls(
                architecture=Architecture(**body["architecture"]),
                recipe=_recipe(body["recipe"]),
                radiograph=RadiographPreprocessing.from_json(body["radiograph"]),
                ecg=EcgPreprocessing.from_json(body["ecg"]),
                examinations_key=str(body["examinations_key"]),
                data=body["data"],
                weights=body["weights"],
            )
        except OSError as error:
            raise RunUnusable(folder, "holds no training", "give the --out of `pulmolink model train`") from error
        except (KeyError, TypeError, ValueError) as error:
            raise RunUnusable(folder, f"has a malformed {RECORD} ({type(error).__name__})", "train again") from error


def write_history(folder: Path, history: Sequence[Epoch]) -> None:
    """Write a row an epoch, durably."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([field.name for field in fields(Epoch)])
    table.writerows((epoch.number, f"{epoch.loss:.6f}", f"{epoch.validation_mae_mmhg:.4f}") for epoch in history)
    write_durably(folder / HISTORY, text.getvalue().encode())


def _recipe(body: Mapping[str, object]) -> Recipe:
    closed = {"schedule": Schedule, "target": Target, "precision": Precision}
    return Recipe(**{name: closed[name](value) if name in closed else value for name, value in body.items()})  # type: ignore[arg-type]
