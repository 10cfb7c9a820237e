"""`pulmolink model train`: from a table of labelled examinations to a trained network and its package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacs_node.cli import EXIT_IN_PART
from pacs_node.commands.model_package import DESCRIBING, describe, package_run
from pacs_node.commands.train_cohort import labelled_examinations, split_of

if TYPE_CHECKING:
    from inference.architecture import Architecture
    from inference.cohort import Checked
    from inference.devices import Workers
    from inference.examinations import Examination
    from inference.recipe import Recipe
    from inference.run import Run
    from inference.split import Split
    from inference.training import Trained

BACKBONES = {
    "dinov2-large": "vit_large_patch14_dinov2.lvd142m",
    "dinov2-base": "vit_base_patch14_dinov2.lvd142m",
    "dinov2-small": "vit_small_patch14_dinov2.lvd142m",
    "resnet34": "resnet34.tv_in1k",
    "vgg16": "vgg16.tv_in1k",
    "micro-vit": "micro-vit-stand-in",
    "micro-resnet": "micro-resnet-stand-in",
    "micro-vgg": "micro-vgg-stand-in",
}
RANDOM = "none: random"
"""As a run's record says that a backbone began without published weights."""
ECG_BRANCHES = {"paper": "ecg-convolution", "micro": "micro-ecg-stand-in", "none": "none"}
RECIPE_OPTIONS = (
    click.option(
        "--epochs", type=click.IntRange(min=1), default=20, show_default=True, help="Passes over the patients."
    ),
    click.option(
        "--examinations-a-step",
        type=click.IntRange(min=2),
        default=16,
        show_default=True,
        help="The batch; open in the paper.",
    ),
    click.option(
        "--learning-rate",
        type=click.FloatRange(min=0, min_open=True),
        default=5e-5,
        show_default=True,
        help="Of Adam; the paper's.",
    ),
    click.option(
        "--weight-decay",
        type=click.FloatRange(min=0),
        default=0.0,
        show_default=True,
        help="Of Adam; open in the paper.",
    ),
    click.option(
        "--schedule",
        type=click.Choice(["constant", "one-cycle"]),
        default="constant",
        show_default=True,
        help="Of the learning rate; open in the paper.",
    ),
    click.option(
        "--target",
        type=click.Choice(["standardised", "mmhg"]),
        default="standardised",
        show_default=True,
        help="What the loss is taken of; open in the paper.",
    ),
    click.option("--crops", type=click.IntRange(min=1), default=1, show_default=True, help="Random crops a picture."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
        default="auto",
        show_default=True,
        help="Of multiplications. auto: bf16 on a GPU that has it, else fp16 on a GPU, fp32 on a CPU.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of split and training."),
    click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Of torch on a CPU."),
)


def _with(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    def apply(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


@click.command()
@click.option(
    "--cohort", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="The table."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder that its paths start from.  [default: the table's own]",
)
@click.option("--storage", is_flag=True, help="The table names SOP Instance UIDs of the node's own storage.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The training's folder.")
@click.option(
    "--backbone", type=click.Choice(list(BACKBONES)), default="dinov2-large", show_default=True, help="Of the chest."
)
@click.option(
    "--ecg",
    "branch",
    type=click.Choice(list(ECG_BRANCHES)),
    default="paper",
    show_default=True,
    help="ECG branch; none: image only.",
)
@click.option("--weights", default="hub", show_default=True, help="Of the backbone: a safetensors file, hub, or none.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto: a GPU if there is one.",
)
@click.option("--drop-refused", is_flag=True, help="Go on without refused rows and end with status 3.")
@click.option("--any-view", is_flag=True, help="The table vouches that every radiograph is a PA view of the chest.")
@click.option("--read-only", is_flag=True, help="Read the cohort into OUT and stop; do so once before torchrun.")
@_with(RECIPE_OPTIONS)
@_with(DESCRIBING)
@click.pass_context
def train(
    ctx: click.Context,
    /,
    cohort: Path,
    data: Path | None,
    storage: bool,
    out: Path,
    backbone: str,
    branch: str,
    weights: str,
    device: str,
    drop_refused: bool,
    any_view: bool,
    read_only: bool,
    **chosen: Any,
) -> None:
    """Train a network on the labelled examinations of a table, by the paper's recipe unless told otherwise.

    The table (CSV or Parquet) has the columns patient, radiograph, ecg, mpap_mmhg and rhc_date, and may have sex,
    age, smoker, ph_group, site, scanner, split, radiograph_date and ecg_date. Every row that cannot be used is named
    with its reason in OUT/refused.csv. Called again with the same options after an interruption, it goes on where it
    was. Several GPUs: torchrun --nproc-per-node=4 --module pacs_node model train ...

    \b
    Example:
      pulmolink phantoms ./phantoms --patients 200 --forms waveform
      pulmolink model train --cohort ./phantoms/cohort.csv --data ./phantoms --out ./run \\
          --backbone micro-vit --ecg micro --weights none --learning-rate 1e-3 --name my-demo --synthetic
    """
    from inference.architecture import Architecture
    from inference.devices import precision_on, workers_of
    from inference.examinations import kept_examinations
    from inference.recipe import Precision, Recipe, Schedule, Target
    from inference.release import refuse_too_few
    from inference.run import EXAMINATIONS, REFUSED

    if storage and data is not None:
        raise click.UsageError("give either --data FOLDER or --storage")
    source = None if storage else data or cohort.parent
    if backbone.startswith("micro") and weights == "hub":
        raise click.UsageError("the stand-ins have no published weights: give --weights none")
    description = describe(chosen)
    if description is not None and branch == "none":
        raise click.UsageError("a package answers from both inputs: leave --name out with --ecg none")
    name = BACKBONES[backbone]
    fused = Architecture.image_only(name)
    if branch != "none":
        fused = Architecture(chest_backbone=name, ecg_branch=ECG_BRANCHES[branch])
    closed = {"schedule": Schedule, "target": Target, "precision": Precision}
    chosen["crops_an_examination"] = chosen.pop("crops")
    recipe = Recipe(**{key: closed[key](value) if key in closed else value for key, value in chosen.items()})  # type: ignore[arg-type]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with workers_of(device) as workers:
            precision_on(workers.device, recipe.precision)  # says now, not after the cohort was read
            plan = _planned(cohort, fused, recipe, weights, any_view=any_view, stored=storage)
            _check_folder(out, plan[1], weights)
            read = kept_examinations(out / EXAMINATIONS, plan[1].examinations_key) is not None
            if workers.count > 1 and not (read and (out / REFUSED).is_file()):  # every worker would read at once
                raise ValueError("the cohort is read by one process: call this with --read-only before torchrun")
            examinations, refused = labelled_examinations(
                ctx,
                plan[0],
                source,
                out,
                plan[1].examinations_key,
                any_view=any_view,
                drop_refused=drop_refused or workers.count > 1,
            )
            _refuse_rows(cohort, out, len(examinations), refused, drop_refused=drop_refused)
            if read_only:
                click.echo(f"{len(examinations)} examinations read, {refused} rows refused; kept in {out}")
            else:
                split = split_of(plan[0], examinations, seed=recipe.seed)
                if description is not None:
                    refuse_too_few(examinations, split)
                _train(plan[1], examinations, split, refused, out, weights, workers)
            if workers.is_first and not read_only:
                package_run(out, description, device=str(workers.device))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if refused:
        ctx.exit(EXIT_IN_PART)


def _refuse_rows(cohort: Path, out: Path, usable: int, refused: int, *, drop_refused: bool) -> None:
    """Pass if a training may go on with what was read. Raises ValueError."""
    from inference.run import REFUSED

    if refused and not drop_refused:
        rows = "1 row" if refused == 1 else f"{refused} rows"
        raise ValueError(
            f"{rows} cannot be used, each with its reason in {out / REFUSED}; correct them, or leave them out with "
            "--drop-refused"
        )
    if not usable:
        raise ValueError(f"{cohort.name} holds no row that can be used")


def _train(
    run: Run,
    examinations: list[Examination],
    split: Split,
    refused: int,
    out: Path,
    weights: str,
    workers: Workers,
) -> None:
    """Train and judge."""
    from inference import run as runs
    from inference.backbone_weights import import_weights
    from inference.checkpoint import epochs_done
    from inference.network import FusedNetwork
    from inference.split import write_split
    from inference.training import train as train_network
    from pacs_node.commands.train_display import Display

    architecture, recipe = run.architecture, run.recipe
    if workers.is_first:
        write_split(
            out / runs.SPLIT, [one.name for one in examinations], [one.patient_id for one in examinations], split
        )

    def prepare(network: FusedNetwork) -> None:
        imported = {"source": RANDOM}
        if weights != "none":
            imported = asdict(import_weights(network.chest, architecture.chest_backbone, weights))
        if workers.is_first:
            counts = {"rows": len(examinations), "refused_rows": refused}
            replace(run, weights=imported, data={**run.data, **counts}).write(out)

    if epochs_done(out):
        click.echo(f"going on after epoch {epochs_done(out)} of {recipe.epochs}", err=True)
    with Display(out, recipe.epochs, silent=not workers.is_first) as display:
        trained = train_network(
            architecture,
            examinations,
            split,
            recipe,
            radiograph=run.radiograph,
            ecg=run.ecg,
            folder=out,
            workers=workers,
            prepare=prepare,
            progress=display.epoch,
            on_step=display.step,
        )
    if workers.is_first:
        runs.write_history(out, trained.history)
        _judge(out, run, trained, examinations, split)


def _check_folder(out: Path, run: Run, weights: str) -> None:
    """Refuse a folder that holds another training, before anything in it is replaced.

    Raises
    ------
    inference.checkpoint.RunDiffers
        If the training in `out` was begun with another recipe, network, cohort or backbone's weights.
    inference.run.RunUnusable
        If its record cannot be read.
    """
    from inference.backbone_weights import HUB
    from inference.checkpoint import FILE, RunDiffers
    from inference.run import Run as Record

    if not (out / FILE).is_file():
        return
    begun = Record.read(out)
    backbone = run.architecture.chest_backbone
    named, known = "source", {"none": RANDOM, HUB: f"{HUB}:{backbone}"}.get(weights, Path(weights).name)
    if weights not in {"none", HUB} and Path(weights).is_file():  # it may be gone where a training only goes on
        with Path(weights).open("rb") as file:
            named, known = "sha256", hashlib.file_digest(file, "sha256").hexdigest()
    asked = (run.architecture, run.recipe, run.examinations_key, known)
    if asked != (begun.architecture, begun.recipe, begun.examinations_key, begun.weights.get(named)):
        raise RunDiffers(out)


def _planned(
    cohort: Path, architecture: Architecture, recipe: Recipe, weights: str, *, any_view: bool, stored: bool
) -> tuple[Checked, Run]:
    """The checked table, and the record of a training on it."""
    from ecg_ingest import RenderStyle
    from inference.cohort import read_cohort
    from inference.manifest import EcgPreprocessing
    from inference.radiograph import RadiographPreprocessing
    from inference.run import Run

    radiograph, ecg = RadiographPreprocessing(), EcgPreprocessing(style=asdict(RenderStyle()))
    digest = hashlib.sha256(cohort.read_bytes()).hexdigest()
    said = json.dumps([digest, radiograph.to_json(), ecg.to_json(), any_view, stored])
    checked = read_cohort(cohort)
    unread = {"columns_not_read": list(checked.unread)} if checked.unread else {}
    return checked, Run(
        architecture=architecture,
        recipe=recipe,
        radiograph=radiograph,
        ecg=ecg,
        examinations_key=hashlib.sha256(said.encode()).hexdigest(),
        data={"cohort": cohort.name, "cohort_sha256": digest, **unread},
        weights={"source": weights},
    )


def _judge(out: Path, run: Run, trained: Trained, examinations: list[Examination], split: Split) -> None:
    """Predict the test part, write the table, and say how it went."""
    from inference.ablation import judged
    from inference.predictions import write_predictions
    from inference.run import PREDICTIONS
    from inference.training import grid_estimates

    estimated = grid_estimates(trained.network, examinations, split.test, radiograph=run.radiograph, ecg=run.ecg)
    chosen = [examinations[k] for k in split.test]
    write_predictions(out / PREDICTIONS, chosen, estimated, model=run.architecture.name)
    if len(chosen) < 3:
        return
    row = judged("test", examinations, split.test, estimated, trained.chosen_epoch)
    click.echo(
        f"epoch {trained.chosen_epoch} kept; {row.examinations} test examinations: MAE {row.mae:.2f} ± {row.sd:.2f} "
        f"mmHg, r² {row.r2:.3f}, bias {row.bias:+.2f}, limits {row.loa[0]:+.1f} to {row.loa[1]:+.1f} mmHg\n"
        f"research use only; with intervals: pulmolink model evaluate {out / PREDICTIONS} --out {out / 'evaluation'}"
    )
