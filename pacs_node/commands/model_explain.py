"""`pulmolink model explain`: what one estimate rests on, as a picture and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacs_node.commands.context import opened, settings_of

if TYPE_CHECKING:
    from ecg_ingest.lead_images import LeadImages
    from inference.predictor import Predictor
    from inference.radiograph import Radiograph
    from pacs_node.opening.opener import Opener
    from pacs_node.report.explanation import Explained

PICTURE = "explanation.png"
NUMBERS = "explanation.json"


@click.command()
@click.argument("files", nargs=-1, metavar="[RADIOGRAPH ECG]", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--match", "match_id", type=int, help="Explain this match of the node instead of two files.")
@click.option("--package", help="The model.  [default: model.package of the configuration]")
@click.option("--occlusion", is_flag=True, help="Also map 8 x 8 places of the radiograph: 16 times an estimate's work.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help=f"Folder for {PICTURE} and {NUMBERS}.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def explain(
    ctx: click.Context,
    files: tuple[Path, ...],
    match_id: int | None,
    package: str | None,
    occlusion: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Show what the estimate of a radiograph and an ECG rests on. Nothing is stored, nothing is sent.

    The estimate is the mean of nine patches, so that each one's share is exact. Each lead, and with --occlusion each of
    8 x 8 places of the radiograph, is replaced by that of the average training patient: what the estimate loses by it
    is the effect. Effects do not add up. They say what the network looked at, never why a pressure is high.

    \b
    Example:
      pulmolink model explain radiograph.dcm ecg.dcm --out ./explained --occlusion
      pulmolink model explain --match 17 --out ./explained
    """
    from inference.package import locate
    from inference.predictor import Predictor
    from pacs_node.dicom.stack import quiet

    if bool(files) == (match_id is not None) or len(files) not in {0, 2}:
        raise click.UsageError("give a RADIOGRAPH and an ECG, or --match")
    quiet()
    content = _of_match(ctx, match_id) if match_id is not None else _of_files(ctx, files)
    settings = settings_of(ctx)
    model = settings.model
    predictor = Predictor.load(locate(model.find(package or model.package)), device=model.device)
    explained = _explained(ctx, predictor, *content, occlusion=occlusion)
    told = _as_json(explained)
    if out is not None:
        from PIL import Image

        from pacs_node.report.explanation import draw_explanation

        out.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_explanation(explained)).save(out / PICTURE, format="PNG")
        (out / NUMBERS).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return
    _show(explained)
    if out is not None:
        click.echo(f"drawn: {out / PICTURE}; numbers: {out / NUMBERS}")


def _of_match(ctx: click.Context, match_id: int) -> tuple[bytes, bytes]:
    """The bytes of a match's radiograph and ECG, from the node's storage."""
    with opened(ctx) as node:
        match = node.store.match(match_id)
        if match.ecg_id is None:
            raise click.ClickException(f"match {match_id} has no ECG, so there is no estimate to explain")
        radiograph, ecg = (
            node.objects.get(node.store.instance(number).instance.sha256)
            for number in (match.radiograph_id, match.ecg_id)
        )
    return radiograph, ecg


def _of_files(ctx: click.Context, files: tuple[Path, ...]) -> tuple[bytes, bytes]:
    """The bytes of two files of one patient.

    Raises
    ------
    click.ClickException
        If a file is too large, or the two name different patients.
    """
    from pacs_node.flow.classify import classify
    from pacs_node.flow.pairing import contradictions, same_key
    from pacs_node.flow.receive import person
    from pacs_node.labelled import header_of
    from storage.records import Disposition, Kind

    limit = settings_of(ctx).limits.object_bytes
    for file in files:
        if file.stat().st_size > limit:
            raise click.ClickException(f"{file} has more than limits.object_bytes = {limit} bytes")
    radiograph, ecg = (file.read_bytes() for file in files)
    headers = [header for data in (radiograph, ecg) if (header := header_of(data)) is not None]
    people = [person(header, settings_of(ctx).pairing.default_issuer) for header in headers]
    named = all(who.patient_id for who in people)
    if len(people) > 1 and (contradictions(*people) or (named and not same_key(*people))):
        raise click.ClickException("the radiograph and the ECG name different patients")
    if (header := header_of(radiograph)) is not None:
        found = classify(header)
        if found.kind is not Kind.RADIOGRAPH or found.disposition is not Disposition.ACCEPTED:
            told = found.reason or "it is no PA radiograph of the chest"
            click.echo(f"the service would not estimate from this radiograph: {told}", err=True)
    return radiograph, ecg


def _explained(
    ctx: click.Context, predictor: Predictor, radiograph: bytes, ecg: bytes, *, occlusion: bool
) -> Explained:
    """Read both inputs in confined processes, estimate, explain."""
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import Progress

    from pacs_node.flow.estimating import ecg_findings
    from pacs_node.opening.opener import Opener
    from pacs_node.report.explanation import Explained

    with Opener(settings_of(ctx).limits) as opener:
        film, leads = _read(predictor, opener, radiograph, ecg)
    chest = predictor.chest(film)
    prediction = predictor.predict(chest.embedding, leads.pixels)
    places = None
    if occlusion:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("Replacing places", total=len(prediction.patch_mpap_mmhg))
            places = predictor.occlude(film.picture, leads.pixels, progress=lambda: bar.advance(task))
    return Explained(
        prediction=replace(prediction, findings=(*chest.findings, *ecg_findings(leads), *prediction.findings)),
        explanation=predictor.explain(chest.embedding, leads.pixels),
        occlusion_mmhg=places,
        display=chest.display,
        geometry=chest.geometry,
        lead_images=leads.pixels,
    )


def _read(predictor: Predictor, opener: Opener, radiograph: bytes, ecg: bytes) -> tuple[Radiograph, LeadImages]:
    from ecg_ingest.lead_images import EcgRefused, RenderStyle
    from inference.radiograph import RadiographUnusable
    from pacs_node.opening.opener import NotOpened

    try:
        film = opener.radiograph(radiograph, predictor.preprocessing)
    except (RadiographUnusable, NotOpened) as refusal:
        raise click.ClickException(f"the radiograph is refused: {refusal}") from refusal
    try:
        return film, opener.ecg(ecg, RenderStyle(**predictor.ecg_style))  # type: ignore[arg-type]
    except (EcgRefused, NotOpened) as refusal:
        raise click.ClickException(f"the ECG is refused: {refusal.reason.value}: {refusal.detail}") from refusal


def _as_json(explained: Explained) -> dict[str, Any]:
    """All numbers, in mmHg to a thousandth; no patient among them."""
    from pacs_node.commands.present import NOTICE

    estimate, told = explained.prediction, explained.explanation
    places = None if explained.occlusion_mmhg is None else explained.occlusion_mmhg.round(3).tolist()
    return {
        "notice": NOTICE,
        "model": f"{estimate.model.name} {estimate.model.version}",
        "model_digest": estimate.model.digest,
        "mpap_mmhg": round(estimate.mpap_mmhg, 3),
        "interval_mmhg": [round(estimate.interval_low_mmhg, 3), round(estimate.interval_high_mmhg, 3)],
        "patch_mpap_mmhg": [round(value, 3) for value in told.patch_mpap_mmhg],
        "patch_share_mmhg": [round(value, 4) for value in told.patch_share_mmhg],
        "lead_effect_mmhg": {lead: round(value, 3) for lead, value in told.lead_effect_mmhg.items()},
        "ecg_effect_mmhg": round(told.ecg_effect_mmhg, 3),
        "occlusion_effect_mmhg": places,
        "findings": [asdict(finding) for finding in estimate.findings],
    }


def _show(explained: Explained) -> None:
    """The numbers as tables."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pacs_node.commands.present import NOTICE

    console = Console(highlight=False)
    estimate, told = explained.prediction, explained.explanation
    console.print(
        f"[bold]mPAP {estimate.mpap_mmhg:.1f} mmHg[/] ({estimate.interval_level:.0%} interval "
        f"{estimate.interval_low_mmhg:.1f} to {estimate.interval_high_mmhg:.1f})   "
        f"{estimate.model.name} {estimate.model.version}   {NOTICE}"
    )
    for finding in estimate.findings:
        colour = "dim" if finding.severity == "note" else "yellow"
        console.print(f"[{colour}]{finding.subject}: {finding.code}[/]  {escape(finding.detail)}")
    console.print("\nPatches, mmHg: their mean is the estimate")
    grid = Table(show_header=False)
    for row in range(3):
        grid.add_row(*(f"{value:.1f}" for value in told.patch_mpap_mmhg[3 * row : 3 * row + 3]))
    console.print(grid)
    console.print("Leads, mmHg: against the average training patient's")
    leads = Table("lead", "effect", box=SIMPLE_HEAD)
    for lead, effect in sorted(told.lead_effect_mmhg.items(), key=lambda entry: -abs(entry[1])):
        leads.add_row(lead, f"{round(effect, 2) + 0.0:+.2f}")
    leads.add_row("all twelve", f"{told.ecg_effect_mmhg:+.2f}")
    console.print(leads)
    if explained.occlusion_mmhg is not None:
        console.print("Places of the radiograph, mmHg: against the average training patient's")
        places = Table(show_header=False)
        for row in explained.occlusion_mmhg:
            places.add_row(*(f"{round(value, 1) + 0.0:+.1f}" for value in row))  # no -0.0
        console.print(places)
