"""The examinations that a training learns from: read once from a table, kept in its folder, every refusal listed."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pacs_node.commands.context import opened, settings_of

if TYPE_CHECKING:
    from inference.cohort import Checked, Refusal
    from inference.examinations import Examination
    from inference.split import Split
    from pacs_node.labelled import Reading, Source

SHOWN = 20
"""Refused rows that are also said on the terminal; all of them stand in the file."""


def labelled_examinations(
    ctx: click.Context,
    checked: Checked,
    data: Path | None,
    out: Path,
    key: str,
    *,
    any_view: bool,
    drop_refused: bool,
) -> tuple[list[Examination], int]:
    """The examinations of a checked table, and how many rows were refused.

    They are taken from `out` where an earlier call with the same `key` left them; not where it refused rows that may
    not be dropped, as what was wrong with their files may have been put right. `data` is the folder that the table's
    paths are in, None for the node's storage.
    """
    from rich.console import Console
    from rich.progress import Progress

    from ecg_ingest import RenderStyle
    from inference.examinations import kept_examinations
    from inference.radiograph import RadiographPreprocessing
    from inference.run import EXAMINATIONS, REFUSED
    from pacs_node.labelled import Folder, Node, Reading
    from pacs_node.opening.opener import Opener

    tell_unread(checked)
    kept = kept_examinations(out / EXAMINATIONS, key)
    if kept is not None and (out / REFUSED).is_file():
        with (out / REFUSED).open(newline="", encoding="utf-8") as file:
            lost = sum(1 for _ in csv.DictReader(file))
        if not lost or drop_refused:
            told = f", without {lost} rows refused then ({out / REFUSED})" if lost else ""
            click.echo(f"examinations as read before{told}; to read them anew, remove {out / EXAMINATIONS}", err=True)
            return kept, lost
    refused: list[Refusal] = list(checked.refused)
    (out / REFUSED).unlink(missing_ok=True)  # of another reading; written last, it says that this one was finished
    settings = settings_of(ctx)
    with Opener(settings.limits) as opener, Progress(console=Console(stderr=True), transient=True) as bar:
        reading = Reading(
            radiograph=RadiographPreprocessing(),
            style=RenderStyle(),
            opener=opener,
            zone=settings.node.zone,
            any_view=any_view,
        )
        task = bar.add_task("Reading examinations", total=len(checked.rows))

        def advance() -> None:
            bar.advance(task)

        if data is not None:
            examinations = _read(checked, Folder(data), reading, refused, out / EXAMINATIONS, key, advance)
        else:
            with opened(ctx) as node:
                source = Node(node.store, node.objects)
                examinations = _read(checked, source, reading, refused, out / EXAMINATIONS, key, advance)
    refused.sort(key=lambda one: one.row)
    with (out / REFUSED).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("row", "fault", "detail"))
        table.writerows((one.row, one.fault.value, one.detail) for one in refused)
    for one in refused[:SHOWN]:
        click.echo(f"row {one.row} refused: {one.fault.value}: {one.detail}", err=True)
    if len(refused) > SHOWN:
        click.echo(f"... and {len(refused) - SHOWN} more, all in {out / REFUSED}", err=True)
    return examinations, len(refused)


def tell_unread(checked: Checked) -> None:
    """Say which columns of a table nothing reads."""
    for column in checked.unread:
        click.echo(f"warning: the column {column!r} is not known; nothing reads it", err=True)


def _read(
    checked: Checked,
    source: Source,
    reading: Reading,
    refused: list[Refusal],
    folder: Path,
    key: str,
    advance: Callable[[], None],
) -> list[Examination]:
    from inference.examinations import keep_examinations
    from pacs_node.labelled import read_examinations

    found = read_examinations(checked.rows, source, reading, refused.append, advance)
    return keep_examinations(folder, key, (one for _, one in found))


def split_of(checked: Checked, examinations: list[Examination], *, seed: int) -> Split:
    """The table's own split where it gives one, else 70/10/20 by patient."""
    from inference.split import split_as_told, split_by_patient

    told = {f"row {row.row}": row.split for row in checked.rows}
    parts = [told[one.name] for one in examinations]
    if parts and all(parts):
        return split_as_told(parts)
    return split_by_patient([one.patient_id for one in examinations], seed=seed)
