"""Measure whether a package's checks see films and ECGs that are not what their tags say: AUROC, hits, false flags.

python -m tests.benchmarks.trust [--quick] [--package NAME] [--out FOLDER] writes FOLDER/trust.jsonl, one JSON object a
figure, and prints a table. Films go as DICOM bytes through the true reader. No bound is asserted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from ecg_ingest.lead_images import RenderStyle
from ecg_ingest.recording import Recording
from ecg_ingest.render import render
from inference.calibration import Calibration
from inference.engine import Engine, network_from_tensors
from inference.explanation import Typical
from inference.package import locate, read_package
from inference.phantoms import Difficulty, Scenario, make_patient
from inference.phantoms.drawn import SAMPLING_HZ, draw_examination
from inference.phantoms.wrong_films import WrongFilm, make_wrong_film
from inference.radiograph import read_radiograph
from inference.view import View, likeness
from tests.benchmarks.record import Recorder, load_now, machine, versions

SEED = 6021
"""A cohort that no package was trained or calibrated on, and no limit was chosen by."""

Array = NDArray[np.float64]


class Checks:
    """The checks of one package: a score an input, the higher the stranger, and whether it is called so."""

    def __init__(self, package: str) -> None:
        found = read_package(locate(package))
        self.manifest = found.manifest
        network = network_from_tensors(found.manifest.architecture, found.weights)
        self._engine = Engine(network, found.manifest.radiograph, found.manifest.ecg)
        self._calibration = Calibration.from_tensors(found.calibration)
        self._typical = Typical.from_tensors(found.calibration)
        self._view = View.from_tensors(found.calibration, self._typical.picture)

    def film(self, part10: bytes) -> tuple[float, float, bool]:
        """Distance over its limit, one less the likeness to a frontal chest, and whether the view is called wrong."""
        picture = read_radiograph(part10, self.manifest.radiograph).picture
        distance = self._calibration.chest.ratio(self._engine.embed_chest(picture).mean(axis=0))
        return distance, 1.0 - likeness(picture, self._typical.picture).upright, bool(self._view.findings(picture))

    def ecg(self, lead_images: NDArray[np.uint8]) -> float:
        """Distance over its limit."""
        return self._calibration.ecg.ratio(self._engine.embed_ecg(lead_images[None])[0])


def main(arguments: list[str]) -> int:
    """Run everything; exit status 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.trust", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few pictures only: shows that it runs, measures little")
    parser.add_argument("--package", default="synthetic-demo", help="name of a shipped package, or a folder")
    parser.add_argument("--out", type=Path, default=Path("bench-output"), help="folder of trust.jsonl (%(default)s)")
    chosen = parser.parse_args(arguments)
    recorder = Recorder(chosen.out / "trust.jsonl")
    right, wrong = (4, 1) if chosen.quick else (400, 60)
    checks = Checks(chosen.package)
    load = load_now()
    console, progress = Console(), Console(stderr=True)

    def tell(what: str) -> None:
        progress.print(f"[dim]{what}[/]", highlight=False)

    tables = [
        _films(checks, recorder, right, wrong, load, tell),
        _ecgs(checks, recorder, right, wrong, load, tell),
    ]
    for table in tables:
        console.print(table)
    where, ran = machine(), versions()
    console.print(
        f"{checks.manifest.name} {checks.manifest.version}; {where['cpu']}, commit {ran['commit']}, "
        f"torch {ran['torch']}.\nJSON lines: {chosen.out / 'trust.jsonl'}",
        highlight=False,
    )
    return 0


def _films(
    checks: Checks, recorder: Recorder, right: int, wrong: int, load: float, tell: Callable[[str], None]
) -> Table:
    tell(f"{right} PA phantoms")
    usual = np.array(
        [checks.film(make_patient(index, SEED, Scenario.RADIOGRAPH_ONLY).objects[0].part10) for index in range(right)]
    )
    found = {}
    for kind in WrongFilm:
        tell(f"{wrong} films: {kind.value}")
        found[kind.value] = np.array([checks.film(make_wrong_film(kind, index, SEED)) for index in range(wrong)])
    table = _table("films", ("n", "embedding:\nAUROC", "called", "pixels:\nAUROC", "called", "either\ncalled"))
    _row(recorder, table, "films", "right (false flags)", usual, None, load)
    for kind, scores in found.items():
        _row(recorder, table, "films", kind, scores, usual, load)
    return table


def _row(
    recorder: Recorder, table: Table, benchmark: str, kind: str, scores: Array, usual: Array | None, load: float
) -> None:
    """One kind of film: how well each check parts it from the right ones, and how often it is called."""
    embedding, view = scores[:, 0] > 1.0, scores[:, 2] > 0.5
    cells = []
    for column, (check, called) in enumerate((("embedding", embedding), ("pixels", view))):
        if usual is None:
            cells.append("")
        else:
            area = auroc(scores[:, column], usual[:, column])
            recorder.add(benchmark, f"{kind}: AUROC, {check}", "", [area], load, kind=kind, check=check)
            cells.append(f"{area:.4f}")
        cells.append(_share(recorder, benchmark, kind, check, called, load))
    cells.append(_share(recorder, benchmark, kind, "either", embedding | view, load))
    table.add_row(kind, str(len(scores)), *cells)


def _ecgs(
    checks: Checks, recorder: Recorder, right: int, wrong: int, load: float, tell: Callable[[str], None]
) -> Table:
    tell(f"{right} phantom ECGs")
    style = RenderStyle(**checks.manifest.ecg.style)  # type: ignore[arg-type]

    def images(signals_mv: Array) -> NDArray[np.uint8]:
        recording = Recording(
            signals_mv=signals_mv, sampling_hz=SAMPLING_HZ, clocks=(0,) * 12, derived_leads=(), findings=()
        )
        return render(recording, style)[0]

    def signals(index: int) -> Array:
        return draw_examination(index, SEED, Difficulty.EASY, checks.manifest.radiograph).signals_mv

    usual = np.array([checks.ecg(images(signals(index))) for index in range(right)])
    table = _table("ECGs", ("n", "embedding:\nAUROC", "called"))
    table.add_row(
        "right (false flags)", str(right), "", _share(recorder, "ECGs", "phantoms", "embedding", usual > 1.0, load)
    )
    for kind, change in WRONG_ECGS.items():
        tell(f"{wrong} ECGs: {kind}")
        rng = np.random.default_rng([SEED, list(WRONG_ECGS).index(kind)])
        scores = np.array([checks.ecg(images(change(signals(index), rng))) for index in range(wrong)])
        area = auroc(scores, usual)
        recorder.add("ECGs", f"{kind}: AUROC, embedding", "", [area], load, kind=kind, check="embedding")
        table.add_row(kind, str(wrong), f"{area:.4f}", _share(recorder, "ECGs", kind, "embedding", scores > 1.0, load))
    return table


WRONG_ECGS: Mapping[str, Callable[[Array, np.random.Generator], Array]] = {
    "flat": lambda mv, rng: rng.normal(0.0, 0.003, mv.shape),
    "noise": lambda mv, rng: rng.normal(0.0, 0.4, mv.shape),
    "upside down": lambda mv, _: -mv,
    "leads in reverse order": lambda mv, _: mv[::-1],
    "leads shifted by one row": lambda mv, _: np.roll(mv, 1, axis=0),
    "50 mm/s taken as 25": lambda mv, _: np.repeat(mv, 2, axis=1)[:, : mv.shape[1]],
    "gain four times too high": lambda mv, _: 4.0 * mv,
    "arm electrodes exchanged": lambda mv, _: (
        mv[[0, 2, 1, 4, 3, 5, 6, 7, 8, 9, 10, 11]] * np.where(np.arange(12) == 0, -1.0, 1.0)[:, None]
    ),
}
"""What a reader or a recorder may get wrong, done to the signals in mV [12, samples]."""


def auroc(strange: Array, usual: Array) -> float:
    """The share of pairs in which the strange one scores higher; ties count half (Mann and Whitney)."""
    ranks = rankdata(np.concatenate([strange, usual]))
    above = ranks[: len(strange)].sum() - len(strange) * (len(strange) + 1) / 2
    return float(above / (len(strange) * len(usual)))


def _share(recorder: Recorder, benchmark: str, kind: str, check: str, called: NDArray[np.bool_], load: float) -> str:
    """Record and word the share that is called strange."""
    share = 100.0 * float(np.mean(called))
    recorder.add(benchmark, f"{kind}: called by {check}", "%", [share], load, kind=kind, check=check, of=len(called))
    return f"{share:.1f} %"


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("what")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
