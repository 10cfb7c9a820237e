"""`pulmolink phantoms`: write synthetic patients as DICOM files, with the truth beside them."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--patients", type=click.IntRange(1, 99_999), default=8, show_default=True, help="How many.")
@click.option("--seed", type=click.IntRange(0, 9_999), default=1, show_default=True, help="Which cohort.")
def phantoms(out: Path, patients: int, seed: int) -> None:
    """Write synthetic patients under OUT: DICOM radiographs and ECGs, and OUT/truth.csv.

    truth.csv has the columns patient_id, radiograph_uid, ecg_uid and mpap_mmhg; ecg_uid is empty where nothing
    may pair (an AP view, an ECG nine days away, a contradicting birth date, no ECG: four patients in sixteen).
    The same number and seed give the same bytes.

    \b
    Example:
      pulmolink phantoms ./cohort --patients 8 --seed 1
    """
    from rich.console import Console
    from rich.progress import Progress

    from inference.phantoms import write_cohort

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Writing phantom patients", total=patients)
        try:
            truths = write_cohort(
                out, patients=patients, seed=seed, progress=lambda done: bar.update(task, completed=done)
            )
        except OSError as error:
            raise click.ClickException(f"cannot write the cohort: {error.strerror} ({error.filename})") from error
    paired = sum(1 for truth in truths if truth.ecg_uid)
    click.echo(f"{len(truths)} patients written to {out}, {paired} of them with a pair; truth in {out / 'truth.csv'}")
