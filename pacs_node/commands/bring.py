"""import: a folder of DICOM files through the same steps, without a network."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pacs_node.cli import EXIT_FAILED, EXIT_IN_PART
from pacs_node.commands.context import opened, settings_of
from pacs_node.commands.present import NOTICE
from pacs_node.service import utc_now
from storage.records import MatchState


@click.command("import", epilog="Example: pulmolink import /archive/2019 --queue-only")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--queue-only", is_flag=True, help="Store and pair only; leave the estimates to running workers.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON summary instead of tables.")
@click.pass_context
def import_(ctx: click.Context, folder: Path, queue_only: bool, as_json: bool) -> None:
    """Store, classify and pair every DICOM file under FOLDER, then compute estimates and reports.

    Nothing is sent from here: `serve` or `deliver --now` sends what the configured destinations are due. Running it
    again changes nothing. Exit status 3: some files could not be read or stored; they are named.
    """
    from inference.package import locate, read_identity
    from pacs_node.commands.work_here import work_here
    from pacs_node.dicom.stack import quiet
    from pacs_node.flow.folder import FileResult, files_under, receive_files
    from pacs_node.flow.receive import Receiver
    from pacs_node.flow.upkeep import Upkeep

    quiet()
    if not queue_only:
        read_identity(locate(settings_of(ctx).model.where))  # says now, not after all files, that it is missing
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    unread: list[FileResult] = []
    foreign: list[str] = []
    outcomes: Counter[tuple[str, str]] = Counter()
    with opened(ctx, create=True) as node, Progress(*columns, console=Console(stderr=True)) as progress:
        receiver = Receiver(node.store, node.objects, node.settings, utc_now)
        paths = files_under(folder)
        receiving = progress.add_task("receiving", total=len(paths))
        for result in receive_files(paths, receiver, node.settings.limits.object_bytes):
            progress.advance(receiving)
            if result.foreign:
                foreign.append(str(result.path))
                continue
            if result.faulty:
                unread.append(result)
            if not result.kept:
                continue
            receipt = result.receipt
            if receipt is not None and receipt.kind is not None and receipt.disposition is not None:
                label = "known" if receipt.duplicate else receipt.disposition.value
                outcomes[receipt.kind.value, label] += 1
        Upkeep(node.store, node.objects, node.settings, utc_now).close_windows()
        if not queue_only:
            counts = node.store.count_matches()
            stages = {MatchState.PAIRED: 2, MatchState.PREDICTED: 1, MatchState.WAITING: 1}
            total = sum(counts.get(state, 0) * steps for state, steps in stages.items())
            working = progress.add_task("estimating and reporting", total=total)
            work_here(node, lambda: progress.advance(working))
            progress.update(working, completed=total)
        states = node.store.count_matches()
    summary: dict[str, Any] = {
        "files": len(paths),
        "faulty": [{"file": str(result.path), "reason": result.reason, "kept": result.kept} for result in unread],
        "not_dicom": foreign,
        "objects": [
            {"kind": kind, "disposition": disposition, "count": count}
            for (kind, disposition), count in sorted(outcomes.items())
        ],
        "matches": {state.value: count for state, count in states.items()},
        "notice": NOTICE,
    }
    if as_json:
        click.echo(json.dumps(summary, indent=2))
    else:
        _show(summary)
    if unread:
        ctx.exit(EXIT_IN_PART if outcomes else EXIT_FAILED)


def _show(summary: dict[str, Any]) -> None:
    console = Console()
    objects = Table("object", "disposition", "count", title=f"{summary['files']} files", title_justify="left")
    for entry in summary["objects"]:
        objects.add_row(entry["kind"], entry["disposition"], str(entry["count"]))
    console.print(objects)
    if summary["not_dicom"]:
        console.print(
            f"no DICOM files, passed over: {', '.join(summary['not_dicom'][:5])}", highlight=False, markup=False
        )
    for entry in summary["faulty"]:
        kept = "held" if entry["kept"] else "not stored"
        console.print(f"{entry['file']}: {kept}: {entry['reason']}", highlight=False, markup=False)
    states = Table("state", "matches", title=f"matches now ({NOTICE})", title_justify="left")
    for state, count in summary["matches"].items():
        states.add_row(state, str(count))
    console.print(states)
