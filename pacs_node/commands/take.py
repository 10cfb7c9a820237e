"""export: one row a current result."""

from __future__ import annotations

import csv
import os
import sys
from typing import IO

import click

from pacs_node.commands.context import opened
from pacs_node.commands.present import match_row
from pacs_node.flow.pair import ESTIMATED

COLUMNS = (
    "match_id",
    "patient_id",
    "radiograph_uid",
    "ecg_uid",
    "gap_seconds",
    "mpap_mmhg",
    "interval_low_mmhg",
    "interval_high_mmhg",
    "interval_level",
    "probability_above_20",
    "probability_at_least_25",
    "state",
    "issuer",
    "accession_number",
    "study_uid",
    "radiograph_at",
    "ecg_at",
    "model",
    "model_digest",
    "revision",
    "notice",
)


@click.command(epilog="Example: pulmolink export --format csv results.csv")
@click.option("--format", "form", type=click.Choice(["csv"]), default="csv", show_default=True, help="Form of OUT.")
@click.argument("out", type=click.Path(dir_okay=False, allow_dash=True))
@click.pass_context
def export(ctx: click.Context, form: str, out: str) -> None:
    """Write every current result (superseded ones left out) to OUT, or to standard output if OUT is "-"."""
    with opened(ctx) as node:
        rows = [match_row(match) for match in node.store.matches(states=ESTIMATED)]
    if out == "-":
        _write(sys.stdout, rows)
    else:
        # Readable by its owner only: it names patients.
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", newline="", encoding="utf-8") as file:
            _write(file, rows)
        click.echo(f"{len(rows)} results written as {form} to {out} (research use only)", err=True)


def _write(file: IO[str], rows: list[dict[str, object]]) -> None:
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
