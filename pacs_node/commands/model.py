"""`pulmolink model`: the group, and what concerns single packages: show, verify, and the demo package's training."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pacs_node.commands.context import settings_of
from pacs_node.commands.model_ablate import ablate
from pacs_node.commands.model_compare import compare
from pacs_node.commands.model_drift import drift
from pacs_node.commands.model_evaluate import evaluate
from pacs_node.commands.model_explain import explain
from pacs_node.commands.model_package import KEY, card, install, list_packages, lower, make_package, sign
from pacs_node.commands.model_rhc import rhc
from pacs_node.commands.model_train import train

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecg_ingest import RenderStyle
    from inference.examinations import Examination


SHORT_HELPS = {
    "train": "Train a network on a table of labelled examinations.",
    "ablate": "Train the six rows of the paper's Table 1 on phantoms.",
    "package": "Make a model package of a finished training.",
    "lower": "Make a package that multiplies in bf16, fp16 or int8.",
    "sign": "Sign a package (OpenSSF Model Signing).",
    "verify": "Check every byte, golden case and signature of a package.",
    "install": "Verify a package and copy it to model.folder.",
    "list": "List shipped and installed packages.",
    "show": "Show what a package says of itself.",
    "card": "Print a package's model card.",
    "evaluate": "Agreement with catheter values: figures and a report.",
    "compare": "Compare two models, from tables or from live traffic.",
    "drift": "Compare this node's results with the package's own patients.",
    "rhc": "Catheter values that came later: import, agreement.",
    "explain": "Show what one estimate rests on.",
    "train-demo": "Train the synthetic-demo package anew.",
}
"""One line each, in the order of work; click would cut the first sentences of the long ones."""


class InOrder(click.Group):
    """Lists its commands by `SHORT_HELPS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SHORT_HELPS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SHORT_HELPS.items()))


@click.group(cls=InOrder)
def model() -> None:
    """Train, judge, package and install models. Research use only.

    \b
    Example:
      pulmolink model verify synthetic-demo
    """


for command in (train, ablate, make_package, lower, sign, install, list_packages, card):
    model.add_command(command)
model.add_command(evaluate)
model.add_command(compare)
model.add_command(drift)
model.add_command(rhc)
model.add_command(explain)


@model.command()
@click.argument("package")
@click.option("--json", "as_json", is_flag=True, help="The manifest as JSON.")
@click.pass_context
def show(ctx: click.Context, package: str, as_json: bool) -> None:
    """Show what PACKAGE (a folder, or a shipped package's name) says of itself. Its weights are not opened.

    \b
    Example:
      pulmolink model show synthetic-demo
    """
    from inference.package import locate, read_manifest

    package = settings_of(ctx).model.find(package)
    manifest = read_manifest(package)
    if as_json:
        click.echo(manifest.to_bytes().decode(), nl=False)
        return
    identity = manifest.identity()
    click.echo(f"{identity.name} {identity.version} ({identity.kind})   research use only")
    click.echo(f"digest        {identity.digest}")
    click.echo(f"architecture  {identity.architecture}")
    click.echo(f"intended use  {manifest.intended_use}")
    for item in manifest.exclusions:
        click.echo(f"not for       {item}")
    click.echo("")
    click.echo((locate(package) / "MODEL_CARD.md").read_text(encoding="utf-8"), nl=False)


@model.command()
@click.argument("package")
@KEY
@click.pass_context
def verify(ctx: click.Context, package: str, public_key: Path | None) -> None:
    """Check every file of PACKAGE against its manifest and reproduce its golden cases; its signature too.

    The signature is checked where --public-key or model.public_key names the key that must have made it.

    \b
    Example:
      pulmolink model verify ./my-package
      pulmolink model verify ./my-package --public-key ./publisher.pem
    """
    from inference.gate import MAXIMUM_LIMIT_MMHG, MEAN_LIMIT_MMHG
    from inference.package import GOLDEN_TOLERANCE_MMHG, locate, read_manifest
    from inference.predictor import Predictor

    configured = settings_of(ctx).model
    key = public_key or configured.key
    where = locate(configured.find(package))
    identity, gate = Predictor.load(where, public_key=key, device=configured.device).identity, read_manifest(where).gate
    within = f"{GOLDEN_TOLERANCE_MMHG} mmHg"
    if gate is not None:
        within = f"the gate of {gate.precision.value} ({MEAN_LIMIT_MMHG} mmHg on average, {MAXIMUM_LIMIT_MMHG} at most)"
    signed = f", signed by the key in {key}" if key else ""
    click.echo(
        f"{identity.name} {identity.version}: every file as written, golden cases within {within}{signed}\n"
        f"digest {identity.digest}"
    )


@model.command("train-demo")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write.")
@click.option("--patients", type=click.IntRange(80, 20_000), default=800, show_default=True, help="How many phantoms.")
@click.option("--seed", type=click.IntRange(0, 9_999), default=7, show_default=True, help="Which phantoms.")
@click.option("--epochs", type=click.IntRange(1, 1000), default=16, show_default=True, help="Passes over them.")
def train_demo(out: Path, patients: int, seed: int, epochs: int) -> None:
    """Train the synthetic-demo package on phantom patients and write it to OUT.

    The phantoms go the whole way: DICOM bytes, radiograph and ECG readers (waveforms and both kinds of page),
    then the network. The same options give the same weights on the same kind of machine.

    \b
    Example:
      pulmolink model train-demo --out ./synthetic-demo --patients 800 --seed 7
    """
    from rich.console import Console
    from rich.progress import Progress

    from ecg_ingest import RenderStyle
    from inference.architecture import MICRO, Architecture
    from inference.checkpoint import Epoch
    from inference.manifest import EcgPreprocessing, PackageKind
    from inference.radiograph import RadiographPreprocessing
    from inference.recipe import DEMO
    from inference.release import Description, release
    from inference.split import DEMO_SHARES, split_by_patient
    from inference.training import train as train_network

    console = Console(stderr=True)
    style, radiograph = RenderStyle(), RadiographPreprocessing()
    ecg = EcgPreprocessing(style=asdict(style))
    examinations: list[Examination] = []
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("Drawing and reading phantoms", total=patients)
        for examination in _phantom_examinations(patients, seed, style):
            examinations.append(examination)
            bar.advance(task)
    split = split_by_patient([one.patient_id for one in examinations], seed=seed, shares=DEMO_SHARES)
    recipe = replace(DEMO, epochs=epochs, seed=seed)
    architecture = Architecture(chest_backbone=MICRO)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("Training", total=epochs)

        def report(epoch: Epoch) -> None:
            bar.advance(task)
            bar.console.print(
                f"epoch {epoch.number}: loss {epoch.loss:.3f}, validation MAE {epoch.validation_mae_mmhg:.2f} mmHg"
            )

        trained = train_network(
            architecture, examinations, split, recipe, radiograph=radiograph, ecg=ecg, progress=report
        )
    manifest = release(
        out,
        Description(
            name="synthetic-demo",
            version="1.1.0",
            kind=PackageKind.SYNTHETIC_DEMO,
            intended_use="trying and testing pulmolink with phantom patients; research use only",
            exclusions=("any examination of a person", "any statement on how the method performs"),
            data={
                "source": "phantom patients drawn by pulmolink, no person among them",
                "command": f"pulmolink model train-demo --patients {patients} --seed {seed} --epochs {epochs}",
            },
        ),
        trained,
        examinations,
        split,
        recipe,
        architecture=architecture,
        radiograph=radiograph,
        ecg=ecg,
        weights_dtype="float16",
    )
    click.echo(f"{manifest.name} {manifest.version} written to {out}")
    click.echo(json.dumps(manifest.metrics, indent=1))


def _phantom_examinations(patients: int, seed: int, style: RenderStyle) -> Iterator[Examination]:
    """Phantoms through the true readers; a third each with a waveform, a 3x4 page and a 6x2 page."""
    import numpy as np

    from ecg_ingest import read
    from inference.examinations import Examination
    from inference.phantoms import Scenario, make_patient
    from inference.radiograph import RadiographPreprocessing, read_radiograph
    from pacs_node.flow.part10 import read_header
    from pacs_node.flow.tags import ecg_tags, radiograph_tags

    preprocessing = RadiographPreprocessing()
    forms = (Scenario.PAIRED_WAVEFORM, Scenario.PAIRED_PDF_3X4, Scenario.PAIRED_PDF_6X2)
    for index in range(patients):
        # CR or DX and the polarity alternate within four: the form changes once in four, to go with neither.
        patient = make_patient(index, seed, forms[(index // 4) % 3])
        chest, ecg = patient.objects
        yield Examination(
            patient_id=patient.truth.patient_id,
            picture=read_radiograph(chest.part10, preprocessing).picture.astype(np.float16),
            lead_images=read(ecg.part10, style=style).pixels,
            mpap_mmhg=patient.truth.mpap_mmhg,
            tags={**radiograph_tags(read_header(chest.part10)), **ecg_tags(read_header(ecg.part10))},
        )
