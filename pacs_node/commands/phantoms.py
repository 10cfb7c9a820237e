"""`pulmolink phantoms`: write synthetic patients as DICOM files, with the truth beside them."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--patients", type=click.IntRange(1, 99_999), default=8, show_default=True, help="How many.")
@click.option("--seed", type=click.IntRange(0, 9_999), default=1, show_default=True, help="Which cohort.")
@click.option(
    "--difficulty",
    type=click.Choice(["easy", "paper"]),
    default="easy",
    show_default=True,
    help="easy: both examinations follow the pressure. paper: nobody can do better than r2 .12 from the radiograph, "
    ".38 from the ECG, .43 from both.",
)
@click.option("--visits", type=click.IntRange(1, 20), default=1, show_default=True, help="Of each patient.")
@click.option(
    "--forms",
    type=click.Choice(["site", "waveform", "pdf", "scan"]),
    default="site",
    show_default=True,
    help="Of the ECGs. site: a mixture in which some may not pair; the others pair all.",
)
def phantoms(out: Path, patients: int, seed: int, difficulty: str, visits: int, forms: str) -> None:
    """Write synthetic patients under OUT: DICOM radiographs and ECGs, and three tables.

    truth.csv has the columns patient_id, radiograph_uid, ecg_uid and mpap_mmhg; ecg_uid is empty where nothing
    may pair (an AP view, an ECG nine days away, a contradicting birth date, no ECG: four patients in sixteen).
    cohort.csv lists the pairs as `pulmolink model train --cohort` reads them. shown.csv has what each examination
    shows of the pressure, the ceiling of any reader. The same options give the same bytes.

    \b
    Example:
      pulmolink phantoms ./cohort --patients 8 --seed 1
      pulmolink phantoms ./cohort --patients 300 --difficulty paper --visits 2 --forms waveform
    """
    from rich.console import Console
    from rich.progress import Progress

    from inference.phantoms import Difficulty, Forms, write_cohort

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Writing phantom patients", total=patients)
        try:
            truths = write_cohort(
                out,
                patients=patients,
                seed=seed,
                difficulty=Difficulty(difficulty),
                visits=visits,
                forms=Forms(forms),
                progress=lambda done: bar.update(task, completed=done),
            )
        except OSError as error:
            raise click.ClickException(f"cannot write the cohort: {error.strerror} ({error.filename})") from error
    paired = sum(1 for truth in truths if truth.ecg_uid)
    many = f" at {visits} visits each, {paired} visits" if visits > 1 else f", {paired} of them"
    click.echo(f"{patients} patients{many} with a pair; written to {out}, truth in {out / 'truth.csv'}")
