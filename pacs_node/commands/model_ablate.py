"""`pulmolink model ablate`: the six rows of the paper's Table 1, trained and judged on one cohort."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress

    from inference.phantoms import Shown

ROWS = ("vgg16", "vgg16+ecg", "resnet34", "resnet34+ecg", "dinov2", "dinov2+ecg")
FIGURES = ("mae", "sd", "slope", "r2", "rmse", "bias", "explained")


@click.command()
@click.option("--phantoms", type=click.Choice(["easy", "paper"]), required=True, help="The phantoms' difficulty.")
@click.option("--micro", is_flag=True, help="Small stand-ins for all networks: minutes on two cores.")
@click.option(
    "--dinov2",
    type=click.Choice(["large", "base", "small"]),
    default="large",
    show_default=True,
    help="Which DINOv2 stands in its rows without --micro; the paper's is the large one.",
)
@click.option("--patients", type=click.IntRange(30, 99_999), default=2400, show_default=True, help="How many phantoms.")
@click.option("--seed", type=click.IntRange(0, 9_999), default=1, show_default=True, help="Of phantoms and training.")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="How many seeds, from --seed.")
@click.option("--epochs", type=click.IntRange(1, 1000), help="Passes over the patients. [default: 20; 3 with --micro]")
@click.option("--only", type=click.Choice(ROWS), multiple=True, help="A row; may be given several times. [all]")
@click.option("--weights", multiple=True, metavar="BACKBONE=FILE", help="Published weights, a safetensors file or hub.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto: a GPU if there is one.",
)
@click.option(
    "--published",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="CSV of printed figures: name (as for --only) and any of mae, sd, slope, r2, rmse, bias, explained, "
    "loa_low, loa_high, loa_width.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the predictions of each row.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def ablate(
    phantoms: str,
    micro: bool,
    dinov2: str,
    patients: int,
    seed: int,
    seeds: int,
    epochs: int | None,
    only: tuple[str, ...],
    weights: tuple[str, ...],
    device: str,
    published: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train the six rows of the paper's Table 1 on phantoms and print the paper's figures beside the measured ones.

    Three chest encoders, each of the radiograph alone and fused with the ECG, on the same patients split 70/10/20.
    The oracle reads off what the phantoms were drawn by: no network can know more. With several seeds each has
    phantoms, split and weights of its own, and the table shows the means.

    \b
    Example:
      pulmolink model ablate --phantoms paper --micro
      pulmolink model ablate --phantoms paper --micro --seeds 3 --json --out ./ablation
      pulmolink model ablate --phantoms easy --dinov2 small --only dinov2 --only dinov2+ecg --patients 200 --epochs 2
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from inference.ablation import read_published

    try:
        printed = read_published(published) if published else None
    except ValueError as error:
        raise click.UsageError(f"--published: {error}") from error
    sources = _sources(weights, micro=micro, dinov2=dinov2)
    names = [name for name in ROWS if not only or name in only]
    console = Console(stderr=True)
    runs = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        for number in range(seed, seed + seeds):
            runs.append(
                _one(bar, names, phantoms, patients, number, epochs, sources, device, out, micro=micro, dinov2=dinov2)
            )
    summary = _mean(runs)
    if out is not None:
        (out / "ablation.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(summary, indent=1))
        return
    _show(summary, printed, micro=micro)


def _one(
    bar: Progress,
    names: Sequence[str],
    difficulty: str,
    patients: int,
    seed: int,
    epochs: int | None,
    sources: Mapping[str, str],
    device: str,
    out: Path | None,
    *,
    micro: bool,
    dinov2: str,
) -> dict[str, Any]:
    """All rows of one seed."""
    from dataclasses import asdict, replace

    from ecg_ingest import RenderStyle
    from inference.ablation import MICRO_RECIPE, architecture_of, measure_row
    from inference.backbone_weights import import_weights
    from inference.checkpoint import Epoch
    from inference.devices import workers_of
    from inference.manifest import EcgPreprocessing
    from inference.network import FusedNetwork
    from inference.phantoms.pressure import oracle_r2
    from inference.predictions import write_predictions
    from inference.radiograph import RadiographPreprocessing
    from inference.recipe import Recipe
    from inference.split import split_by_patient, write_split
    from pacs_node.commands.phantom_examinations import phantom_examinations

    style = RenderStyle()
    task = bar.add_task(f"seed {seed}: drawing {patients} phantoms", total=patients, note="")
    examinations, shown = phantom_examinations(
        patients, seed, difficulty, style, stand_ins=micro, progress=lambda: bar.advance(task)
    )
    bar.remove_task(task)
    split = split_by_patient([one.patient_id for one in examinations], seed=seed)
    recipe = replace(MICRO_RECIPE if micro else Recipe(), seed=seed)
    recipe = replace(recipe, epochs=epochs) if epochs else recipe
    folder = None if out is None else out / f"seed-{seed}"
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_split(
            folder / "split.csv", [one.name for one in examinations], [one.patient_id for one in examinations], split
        )
    rows: list[dict[str, Any]] = []
    for name in names:
        architecture = architecture_of(name, micro=micro, dinov2=dinov2)
        task = bar.add_task(f"seed {seed}: {name}", total=recipe.epochs, note="")

        def prepare(network: FusedNetwork, backbone: str = architecture.chest_backbone) -> None:
            if backbone in sources:
                import_weights(network.chest, backbone, sources[backbone])

        def progress(epoch: Epoch, task: Any = task) -> None:
            said = f"loss {epoch.loss:.3f}  validation MAE {epoch.validation_mae_mmhg:.2f} mmHg"
            bar.update(task, advance=1, note=said)

        with workers_of(device) as workers:
            row, estimated = measure_row(
                name,
                examinations,
                split,
                recipe,
                architecture=architecture,
                radiograph=RadiographPreprocessing(),
                ecg=EcgPreprocessing(style=asdict(style)),
                workers=workers,
                prepare=prepare,
                progress=progress,
            )
        bar.remove_task(task)
        given = sources.get(architecture.chest_backbone, "random")
        rows.append({**asdict(row), "network": architecture.name, "weights": given})
        if folder is not None:
            judged = [examinations[k] for k in split.test]
            write_predictions(folder / f"{name}.csv", judged, estimated, model=f"{name} seed {seed}")
    visits: list[Shown] = shown
    known = oracle_r2(tuple(visits[k] for k in split.train), tuple(visits[k] for k in split.test))
    return {"seed": seed, "rows": rows, "oracle_r2": known, "recipe": asdict(recipe)}


def _sources(weights: Sequence[str], *, micro: bool, dinov2: str) -> dict[str, str]:
    """`--weights vgg16=FILE` by timm's name of the backbone."""
    from inference.ablation import architecture_of

    found = {}
    for text in weights:
        name, _, source = text.partition("=")
        if name not in ROWS or "+" in name or not source:
            raise click.UsageError("--weights: write vgg16=FILE, resnet34=FILE or dinov2=FILE; FILE may be hub")
        found[architecture_of(name, micro=False, dinov2=dinov2).chest_backbone] = source
    if found and micro:
        raise click.UsageError("--weights: the stand-ins of --micro have no published weights")
    return found


def _mean(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds; what each seed gave stands beside them where there are several."""

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    rows = []
    for number, first in enumerate(runs[0]["rows"]):
        of_seeds = [run["rows"][number] for run in runs]
        row = {"name": first["name"], "network": first["network"], "weights": first["weights"]}
        row |= {figure: mean([one[figure] for one in of_seeds]) for figure in FIGURES}
        rows.append(row | {"loa": [mean([one["loa"][side] for one in of_seeds]) for side in (0, 1)]})
    oracle = {name: mean([run["oracle_r2"][name] for run in runs]) for name in runs[0]["oracle_r2"]}
    summary: dict[str, Any] = {
        "rows": rows,
        "oracle_r2": oracle,
        "test_examinations": runs[0]["rows"][0]["examinations"],
    }
    return summary | (
        {"seeds": list(runs)} if len(runs) > 1 else {"seed": runs[0]["seed"], "recipe": runs[0]["recipe"]}
    )


def _show(summary: Mapping[str, Any], printed: Mapping[str, Mapping[str, float]] | None, *, micro: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from inference.ablation import HELD_OF_THE_PAPER

    beside = HELD_OF_THE_PAPER if printed is None else printed
    title = f"Table 1, each row on {summary['test_examinations']} test examinations; errors in mmHg"
    table = Table(title=title, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("row", "MAE ± SD", "slope", "r²", "RMSE", "bias", "limits of\nagreement", "1-SSE\n/SST"):
        table.add_column(head, justify="left" if head == "row" else "right", no_wrap=True)
    for row in summary["rows"]:
        low, high = row["loa"]
        table.add_row(
            row["name"],
            f"{row['mae']:.2f} ± {row['sd']:.2f}",
            f"{row['slope']:.2f}",
            f"{row['r2']:.3f}",
            f"{row['rmse']:.2f}",
            f"{row['bias']:+.2f}",
            f"{low:+.1f} to {high:+.1f}",
            f"{row['explained']:.2f}",
        )
        paper = beside.get(row["name"], {})
        if paper:
            table.add_row(*_printed(paper), style="dim")
    console = Console()
    console.print(table)
    if "seeds" in summary:
        console.print(f"Means of {len(summary['seeds'])} seeds; r² of each:")
        for number, row in enumerate(summary["rows"]):
            of_seeds = ", ".join(f"{run['rows'][number]['r2']:.3f}" for run in summary["seeds"])
            console.print(f"  {row['name']:<14}{of_seeds}", soft_wrap=True, highlight=False)
    known = summary["oracle_r2"]
    console.print(
        f"Oracle on the same examinations: r² {known['fused']:.3f} from both, {known['chest']:.3f} from the "
        f"radiograph, {known['ecg']:.3f} from the ECG. No network can know more.",
        soft_wrap=True,
    )
    held = (
        "printed figures as given by --published"
        if printed is not None
        else (
            "the limits' width that Yoon et al. print, and 1-SSE/SST recomputed from their Table 1, whose other cells "
            "are not held here (--published prints them)"
        )
    )
    console.print(f"Paper: {held}. Other patients: not a comparison.", soft_wrap=True)
    if micro:
        console.print("The networks are small stand-ins, none of them the paper's. Research use only.", soft_wrap=True)
        return
    for row in summary["rows"]:
        given = "random weights" if row["weights"] == "random" else f"published weights ({row['weights']})"
        console.print(f"{row['name']}: {row['network']}, from {given}", style="dim", soft_wrap=True)
    console.print("Research use only.")


def _printed(paper: Mapping[str, float]) -> list[str]:
    """A row of what the paper prints; a dash where nothing is at hand."""

    def cell(name: str, form: str) -> str:
        return format(paper[name], form) if name in paper else "-"

    mae = cell("mae", ".2f") + (f" ± {paper['sd']:.2f}" if "sd" in paper else "")
    limits = "-"
    if "loa_low" in paper and "loa_high" in paper:
        limits = f"{paper['loa_low']:+.1f} to {paper['loa_high']:+.1f}"
    elif "loa_width" in paper:
        limits = f"{paper['loa_width']:.1f} wide"
    figures = [cell("slope", ".2f"), cell("r2", ".3f"), cell("rmse", ".2f"), cell("bias", "+.2f")]
    return ["  paper", mae, *figures, limits, cell("explained", ".2f")]
