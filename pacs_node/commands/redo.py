"""Do it again: rerun (a new estimate) and deliver (the stored reports once more)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inference.package import locate, read_identity
from inference.prediction import ModelIdentity
from pacs_node.cli import EXIT_FAILED, EXIT_IN_PART
from pacs_node.commands.context import Opened, opened
from pacs_node.commands.present import NOTICE
from pacs_node.flow.digest import run_digest
from pacs_node.flow.pair import PairingRules, drive_again, lock_of, reconsider, run_again
from pacs_node.service import utc_now
from storage.records import DeliveryState, Match, MatchState, ReportKind

REPORTED = frozenset({MatchState.REPORTED, MatchState.DELIVERED, MatchState.COMMITTED})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What `rerun` did with one match."""

    match_id: int
    done: bool
    what: str


@click.command(epilog="Example: pulmolink rerun --accession A1234")
@click.option("--match", "match_id", type=int, help="This match.")
@click.option("--study", "study_uid", metavar="UID", help="Every radiograph of this Study Instance UID.")
@click.option("--patient", "patient_id", metavar="ID", help="Every radiograph of this patient ID.")
@click.option("--accession", "accession", metavar="NO", help="Every radiograph of this accession number.")
@click.option("--failed", is_flag=True, help="Every match that FAILED.")
@click.option("--issuer", help="With --patient: only IDs of this issuer.")
@click.option("--force", is_flag=True, help="Make a new revision even if nothing changed.")
@click.option("--now", "work_now", is_flag=True, help="Work here and wait, instead of leaving it to the workers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def rerun(
    ctx: click.Context,
    match_id: int | None,
    study_uid: str | None,
    patient_id: str | None,
    accession: str | None,
    failed: bool,
    issuer: str | None,
    force: bool,
    work_now: bool,
    as_json: bool,
) -> None:
    """Run matches again where inputs, model or configuration changed since; the new report names its predecessor.

    Held and failed matches get another try. Exit status 3: some were run again, others could not be.
    """
    if sum(value is not None for value in (match_id, study_uid, patient_id, accession)) + failed != 1:
        raise click.UsageError("give exactly one of --match, --study, --patient, --accession, --failed")
    if issuer is not None and patient_id is None:
        raise click.UsageError("--issuer goes with --patient")
    with opened(ctx) as node:
        if match_id is not None:
            found: tuple[Match, ...] = (node.store.match(match_id),)
        else:
            found = node.store.matches(
                states={MatchState.FAILED} if failed else None,
                study_uid=study_uid,
                patient_id=patient_id,
                issuer=issuer,
                accession=accession,
            )
        identity = read_identity(locate(node.settings.model.where))
        answers = [_again(node, match, identity, force) for match in found]
        if work_now and any(answer.done for answer in answers):
            from pacs_node.commands.work_here import work_here

            work_here(node)
    if as_json:
        click.echo(json.dumps([vars(answer) for answer in answers], indent=2))
    elif not answers:
        click.echo("no match is known for that", err=True)
    else:
        table = Table("match", "done", "what", title=f"rerun ({NOTICE})", title_justify="left")
        for answer in answers:
            table.add_row(str(answer.match_id), "yes" if answer.done else "no", escape(answer.what))
        Console().print(table)
    done = sum(answer.done for answer in answers)
    unchanged = sum(answer.what == UNCHANGED for answer in answers)
    if not answers or (done + unchanged == 0):
        ctx.exit(EXIT_FAILED)
    if done + unchanged < len(answers):
        ctx.exit(EXIT_IN_PART)


UNCHANGED = "inputs, model and configuration are unchanged; --force makes a new revision all the same"


def _again(node: Opened, match: Match, identity: ModelIdentity, force: bool) -> Answer:
    """Put one match back into the queue, or say why not."""
    rules = PairingRules.of(node.settings)
    with node.store.transaction(lock=lock_of(match.patient)) as tx:
        current = tx.current_match(match.radiograph_id)
        if current is None or current.match_id != match.match_id:
            successor = current.match_id if current else "none"
            return Answer(match_id=match.match_id, done=False, what=f"superseded; the current match is {successor}")
        if current.state in {MatchState.PAIRED, MatchState.PREDICTED}:
            return Answer(match_id=match.match_id, done=True, what="is in the queue already")
        standing = reconsider(tx, current, rules, utc_now())
        if standing != current:
            what = "the rules in force now choose another ECG"
            if standing.match_id != current.match_id:
                what += f"; runs as match {standing.match_id}"
            return Answer(match_id=match.match_id, done=standing.state is MatchState.PAIRED, what=what)
        if current.state in {MatchState.WAITING, MatchState.UNPAIRED}:
            return Answer(match_id=match.match_id, done=False, what="has no ECG to run with")
        if current.state in {MatchState.HELD, MatchState.FAILED}:
            drive_again(tx, current, rules, utc_now())
            after = tx.match(current.match_id)
            if after.state is MatchState.HELD:
                return Answer(match_id=match.match_id, done=False, what=f"stays held: {after.reason}")
            return Answer(match_id=match.match_id, done=True, what="driven again")
        if current.ecg_id is None or current.gap_seconds is None:
            return Answer(match_id=match.match_id, done=False, what="has no ECG to run with")
        if current.gap_seconds > rules.window.total_seconds():
            what = "its ECG lies outside pairing.window_days now, and no other is there"
            return Answer(match_id=match.match_id, done=False, what=what)
        digest = run_digest(
            tx.instance(current.radiograph_id).instance.sha256,
            tx.instance(current.ecg_id).instance.sha256,
            identity,
            node.settings,
        )
        if digest == current.run_digest and not force:
            return Answer(match_id=match.match_id, done=False, what=UNCHANGED)
        number = run_again(tx, current, utc_now())
        return Answer(match_id=match.match_id, done=True, what=f"runs again as match {number}")


@click.command(epilog="Example: pulmolink deliver --failed --to pacs")
@click.option("--match", "match_id", type=int, help="The reports of this match.")
@click.option("--to", "destination", metavar="NAME", help="Only to this destination.")
@click.option("--failed", is_flag=True, help="Drive failed deliveries again.")
@click.option("--cancel", is_flag=True, help="Give up what is pending or failed for --to NAME, configured or not.")
@click.option("--now", "work_now", is_flag=True, help="Send here and now, instead of leaving it to the workers.")
@click.pass_context
def deliver(
    ctx: click.Context, match_id: int | None, destination: str | None, failed: bool, cancel: bool, work_now: bool
) -> None:
    """Send stored reports again (--match), drive failed deliveries again (--failed), or send what is due (--now).

    With --cancel nothing is sent: the deliveries to a destination that is gone are given up.
    """
    if not (failed or work_now or cancel or match_id is not None):
        raise click.UsageError("give --match, --failed, --cancel or --now")
    if cancel and (failed or work_now or match_id is not None or destination is None):
        raise click.UsageError("--cancel goes with --to NAME and with nothing else")
    with opened(ctx) as node:
        configured = [entry.name for entry in node.settings.destinations]
        if cancel and destination is not None:
            if destination not in {name for name, _ in node.store.count_deliveries()}:
                raise click.ClickException(f"no report was ever to be sent to {destination}")
            click.echo(f"{node.store.cancel_deliveries(destination, utc_now())} deliveries to {destination} cancelled")
            return
        if destination is not None and destination not in configured:
            raise click.UsageError(f"no destination is called {destination}; configured: {', '.join(configured)}")
        names = [destination] if destination else configured
        now = utc_now()
        if failed:
            count = sum(node.store.redrive(now, match_id=match_id, destination=name) for name in names)
            click.echo(f"{count} failed deliveries driven again")
        elif match_id is not None:
            count = _send_again(node, match_id, names)
            click.echo(f"{count} deliveries of match {match_id} made due")
        if work_now:
            from pacs_node.commands.work_here import deliver_here

            for name in names:
                node.store.hasten(name, now)
            unreached = deliver_here(node, names)
            left = sum(len(node.store.deliveries(destination=name, states={DeliveryState.PENDING})) for name in names)
            click.echo(
                f"{left} deliveries still pending" + (f"; no answer from {', '.join(unreached)}" * bool(unreached))
            )
            if left:
                ctx.exit(EXIT_IN_PART)


def _send_again(node: Opened, match_id: int, names: Sequence[str]) -> int:
    """Make the stored reports of a match due at the destinations `names`; how many deliveries that are."""
    match = node.store.match(match_id)
    if match.superseded_by is not None:
        raise click.ClickException(f"match {match_id} is superseded by match {match.superseded_by}; send that")
    if not node.store.reports(match_id):
        raise click.ClickException(f"match {match_id} is {match.state.value} and has no reports to send")
    return sum(
        node.store.add_deliveries(match_id, entry.name, [ReportKind(kind) for kind in entry.sends], utc_now())
        for entry in node.settings.destinations
        if entry.name in names
    )
