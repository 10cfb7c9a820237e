"""What is there: status, matches, held, show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacs_node.commands.context import Opened, opened
from pacs_node.commands.present import NOTICE, current_estimate, estimate_text, instance_row, iso, match_row
from pacs_node.service import utc_now
from storage.records import (
    Delivery,
    DeliveryState,
    Disposition,
    Kind,
    MatchState,
    RequestState,
    WantedCommitment,
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.command(epilog="Example: pulmolink status --json")
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Count matches by state; show the queue's age and each destination."""
    with opened(ctx) as node:
        report = _status(node)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    console = Console()
    states = Table("state", "matches", title=f"pulmolink: matches ({NOTICE})", title_justify="left")
    for state, count in report["matches"].items():
        states.add_row(state, str(count))
    console.print(states)
    age = report["queue_age_seconds"]
    console.print(f"queue: oldest work due for {age:.0f} s" if age else "queue: nothing is due")
    objects = Table("object", "disposition", "count", title="received", title_justify="left")
    for entry in report["instances"]:
        objects.add_row(entry["kind"], entry["disposition"], str(entry["count"]))
    console.print(objects)
    if report["connections"]:
        connections = Table("connection", "why", "count", title="DICOM connections so far", title_justify="left")
        for entry in report["connections"]:
            connections.add_row(entry["outcome"], entry["reason"], str(entry["count"]))
        console.print(connections)
    destinations = Table(
        "destination",
        "pending",
        "delivered",
        "committed",
        "failed",
        "cancelled",
        "last answer",
        title="destinations",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,  # seven columns and words from outside, on 80 characters
    )
    for entry in report["destinations"]:
        destinations.add_row(
            escape(entry["name"] if entry["configured"] else f"{entry['name']} (not configured)"),
            str(entry["pending"]),
            str(entry["delivered"]),
            _committed(entry),
            str(entry["failed"]),
            str(entry["cancelled"]),
            escape(entry["last_error"] or ""),
        )
    console.print(destinations)
    for entry in report["destinations"]:
        if entry["next_question_at"]:
            console.print(
                f"{entry['name']}: {entry['commitments_awaited']} reports not committed to; asked about "
                f"{entry['next_question_at'][:16]} UTC",
                markup=False,
            )
    asked = report["commitment_requests"]
    if asked["pending"] or asked["answered"] or asked["given_up"]:
        console.print(
            f"commitment asked by sources: {asked['answered']} answered, {asked['pending']} to be answered, "
            f"{asked['given_up']} given up"
        )
        for entry in asked["unanswered"]:
            console.print(
                f"  {entry['state']}: {escape(entry['calling_ae'])} at {entry['peer']}, {entry['objects']} objects: "
                f"{escape(entry['last_error'] or 'due')}"
            )
    gone = [entry["name"] for entry in report["destinations"] if not entry["configured"] and entry["pending"]]
    for name in gone:
        console.print(
            f"nothing is sent to {name}: configure it, or `pulmolink deliver --to {name} --cancel`", markup=False
        )


def _status(node: Opened) -> dict[str, Any]:
    matches = node.store.count_matches()
    counts = node.store.count_deliveries()
    wanted = node.store.count_wanted()
    questions = node.store.next_questions()
    configured = [destination.name for destination in node.settings.destinations]
    others = sorted({name for name, _ in counts} - set(configured))
    return {
        "matches": {state.value: matches.get(state, 0) for state in MatchState},
        "instances": [
            {"kind": kind.value, "disposition": disposition.value, "count": count}
            for (kind, disposition), count in sorted(node.store.count_instances().items())
        ],
        "connections": [
            {"outcome": outcome, "reason": reason, "count": count}
            for (outcome, reason), count in sorted(node.store.tallies().items())
        ],
        "queue_age_seconds": node.store.oldest_due(utc_now()),
        "destinations": [
            _destination(node, name, counts, wanted.get(name, 0), name in configured)
            | {"next_question_at": iso(questions.get(name))}
            for name in (*configured, *others)
        ],
        "commitment_requests": _requests(node),
        "notice": NOTICE,
    }


def _destination(
    node: Opened, name: str, counts: dict[tuple[str, DeliveryState], int], awaited: int, configured: bool
) -> dict[str, Any]:
    waiting = node.store.deliveries(destination=name, states={DeliveryState.PENDING}, limit=1)
    failed = node.store.deliveries(destination=name, states={DeliveryState.FAILED}, limit=1)
    count = {state: counts.get((name, state), 0) for state in DeliveryState}
    return {
        "name": name,
        "configured": configured,
        "pending": count[DeliveryState.PENDING],
        "delivered": count[DeliveryState.DELIVERED] + count[DeliveryState.COMMITTED],
        "committed": count[DeliveryState.COMMITTED],
        "commitments_awaited": awaited,
        "failed": count[DeliveryState.FAILED],
        "cancelled": count[DeliveryState.CANCELLED],
        "last_error": next((entry.last_error for entry in (*failed, *waiting) if entry.last_error), None),
    }


def _committed(entry: dict[str, Any]) -> str:
    """How many reports a destination has committed to, of how many that it is asked about; "" if it is not asked."""
    asked = entry["committed"] + entry["commitments_awaited"]
    return f"{entry['committed']} of {asked}" if asked else ""


def _requests(node: Opened) -> dict[str, Any]:
    """What sources asked us to commit to."""
    counts = node.store.count_requests()
    return {
        **{state.value.lower(): counts.get(state, 0) for state in RequestState},
        "unanswered": [
            {
                "state": request.state.value,
                "calling_ae": request.calling_ae,
                "peer": request.peer,
                "transaction_uid": request.transaction_uid,
                "objects": len(request.references),
                "attempts": request.attempts,
                "received_at": iso(request.received_at),
                "due_at": iso(request.due_at),
                "last_error": request.last_error or None,
            }
            for request in node.store.unanswered_requests(limit=10)
        ],
    }


@click.command(epilog="Example: pulmolink matches --state HELD --state FAILED")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in MatchState], case_sensitive=False),
    help="Only matches in this state; may be repeated.",
)
@click.option("--patient", "patient_id", help="Only this patient ID.")
@click.option("--study", "study_uid", help="Only radiographs of this Study Instance UID.")
@click.option("--all", "include_superseded", is_flag=True, help="Superseded matches too.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@json_option
@click.pass_context
def matches(
    ctx: click.Context,
    states: tuple[str, ...],
    patient_id: str | None,
    study_uid: str | None,
    include_superseded: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """List every radiograph with the ECG chosen for it, its state and its estimate."""
    wanted = {MatchState(state) for state in states}
    with opened(ctx) as node:
        found = node.store.matches(
            states=wanted or None,
            study_uid=study_uid,
            patient_id=patient_id,
            include_superseded=include_superseded or MatchState.SUPERSEDED in wanted,
            limit=limit,
        )
    rows = [match_row(match) for match in found]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(title=f"pulmolink matches ({NOTICE})", title_justify="left", box=SIMPLE_HEAD)
    for column in ("match", "patient", "state", "radiograph", "mPAP (90%)", "why"):
        table.add_column(column, overflow="fold", no_wrap=column in {"state", "radiograph", "mPAP (90%)"})
    for row in rows:
        table.add_row(
            str(row["match_id"]),
            escape(row["patient_id"]),
            row["state"],
            (row["radiograph_at"] or "")[:10],
            estimate_text(row),
            escape((row["reason"] or "").partition(":")[0]),
        )
    console = Console()
    console.print(table)
    models = sorted({row["model"] for row in rows if row["model"]})
    if models:
        console.print(f"mmHg, model {', '.join(models)}", markup=False)


@click.command(epilog="Example: pulmolink held --disposition held")
@click.option(
    "--disposition",
    "dispositions",
    multiple=True,
    type=click.Choice([d.value for d in Disposition]),
    default=(Disposition.HELD.value, Disposition.REFUSED.value),
    show_default=True,
    help="Which objects; may be repeated.",
)
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]), help="Only this kind of object.")
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True, help="At most so many, newest first.")
@json_option
@click.pass_context
def held(ctx: click.Context, dispositions: tuple[str, ...], kind: str | None, limit: int, as_json: bool) -> None:
    """List objects that take no part, and why; with --disposition accepted --kind ecg the ECGs that do."""
    with opened(ctx) as node:
        found = node.store.instances(
            dispositions={Disposition(value) for value in dispositions},
            kind=Kind(kind) if kind else None,
            limit=limit,
            newest_first=True,
        )
    rows = [instance_row(stored.instance_id, stored.instance) for stored in found]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    console = Console(highlight=False)
    for row in rows:
        patient = escape(row["patient_id"]) or "-"
        console.print(
            f"[bold]{row['instance_id']}[/]  {row['disposition']}  {row['kind']}  patient {patient}"
            f"  from {escape(row['calling_ae'])}  {(row['received_at'] or '')[:16]}",
            soft_wrap=True,
        )
        if row["reason"]:
            console.print(f"    {escape(row['reason'])}")
    console.print(f"{len(rows)} objects; --json gives their UIDs")


@click.command(epilog="Example: pulmolink show 17")
@click.argument("match", metavar="MATCH")
@json_option
@click.pass_context
def show(ctx: click.Context, match: str, as_json: bool) -> None:
    """Show one match whole. MATCH is its number or its radiograph's SOP Instance UID."""
    with opened(ctx) as node:
        detail = _detail(node, match)
    if as_json:
        click.echo(json.dumps(detail, indent=2))
        return
    console = Console()
    for section in ("match", "estimate", "radiograph", "ecg"):
        if not detail[section]:
            continue
        table = Table(title=f"{section} ({NOTICE})", title_justify="left", show_header=False, box=SIMPLE_HEAD)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for field, value in _flat(detail[section]):
            if value not in (None, "", [], ()):
                table.add_row(field, escape(str(value)))
        console.print(table)
    for section, columns in (
        ("reports", ("kind", "sop_instance_uid", "created_at")),
        ("deliveries", ("kind", "destination", "state", "attempts", "last_status", "note")),
    ):
        if not detail[section]:
            continue
        table = Table(title=section, title_justify="left", box=SIMPLE_HEAD)
        for column in columns:
            table.add_column(column, overflow="fold")
        for entry in detail[section]:
            shown = entry | {"note": _note(entry)} if section == "deliveries" else entry
            values = (str(shown[column] if shown[column] is not None else "") for column in columns)
            table.add_row(*map(escape, values))
        console.print(table)


def _note(delivery: dict[str, Any]) -> str:
    """What is to be said of a delivery beside its state."""
    commitment = delivery["commitment"] if delivery["state"] != DeliveryState.COMMITTED else None
    return "; ".join(
        part for part in (delivery["last_error"], f"commitment {commitment}" if commitment else None) if part
    )


def _flat(section: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a section one a line: nested ones by name, numbers without false precision."""
    for field, value in section.items():
        if isinstance(value, dict):
            yield from ((f"{field} {inner}", each) for inner, each in value.items())
        elif field == "findings":
            yield from ((finding["subject"], f"{finding['code']}: {finding['detail']}") for finding in value)
        elif isinstance(value, float):
            yield field, f"{value:.3g}" if value < 1 else f"{value:.1f}"
        elif field == "patch_mpap_mmhg":
            yield field, "  ".join(f"{each:.1f}" for each in value)
        else:
            yield field, value


def _detail(node: Opened, name: str) -> dict[str, Any]:
    found = None
    if name.isdecimal():
        found = node.store.match(int(name))
    else:
        found = next((m for m in node.store.matches(radiograph_uid=name)), None)
    if found is None:
        raise click.ClickException(f"no match {name}; `pulmolink matches` lists them")
    estimate = current_estimate(found)
    wanted = {entry.delivery_id: entry for entry in node.store.wanted_commitments(found.match_id)}
    instances = {
        key: node.store.instance(row_id) if row_id is not None else None
        for key, row_id in (("radiograph", found.radiograph_id), ("ecg", found.ecg_id))
    }
    return {
        "match": {
            **match_row(found),
            "rule_version": found.rule_version,
            "attempts": found.attempts,
            "due_at": iso(found.due_at),
            "created_at": iso(found.created_at),
            "updated_at": iso(found.updated_at),
            "run_digest": found.run_digest or None,
        },
        "estimate": asdict(estimate) if estimate else {},
        **{
            key: {
                **instance_row(stored.instance_id, stored.instance),
                "acquired_at": iso(stored.instance.acquired.at) if stored.instance.acquired else None,
                "acquired_from": stored.instance.acquired.source if stored.instance.acquired else None,
                "time_zone": stored.instance.acquired.timezone if stored.instance.acquired else None,
                "date_only": stored.instance.acquired.date_only if stored.instance.acquired else None,
                "purged_at": iso(stored.purged_at),
            }
            if stored
            else {}
            for key, stored in instances.items()
        },
        "reports": [
            {
                "kind": report.kind.value,
                "sop_instance_uid": report.sop_instance_uid,
                "sha256": report.sha256,
                "size_bytes": report.size_bytes,
                "created_at": iso(report.created_at),
            }
            for report in node.store.reports(found.match_id)
        ],
        "deliveries": [
            {
                "kind": delivery.kind.value,
                "destination": delivery.destination,
                "state": delivery.state.value,
                "attempts": delivery.attempts,
                "last_status": f"0x{delivery.last_status:04X}" if delivery.last_status is not None else None,
                "last_error": delivery.last_error or None,
                "due_at": iso(delivery.due_at),
                "delivered_at": iso(delivery.delivered_at),
                "commitment": _commitment(delivery, wanted.get(delivery.delivery_id)),
                "committed_at": iso(delivery.committed_at),
            }
            for delivery in node.store.deliveries(match_id=found.match_id)
        ],
        "notice": NOTICE,
    }


def _commitment(delivery: Delivery, wanted: WantedCommitment | None) -> str | None:
    """How far the commitment to one delivered report is; None if its destination is not asked."""
    if delivery.state is DeliveryState.COMMITTED:
        return "committed"
    if wanted is None:
        return None
    if not wanted.attempts:
        return "to be asked"
    return f"asked {wanted.attempts}x" + (f": {wanted.last_error}" if wanted.last_error else "")
