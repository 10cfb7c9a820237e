"""`pulmolink model package | install | list | card`: a trained network as a package, and the packages of this node."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from pacs_node.commands.context import settings_of

if TYPE_CHECKING:
    from inference.manifest import Manifest
    from inference.release import Description

DESCRIBING = (
    click.option("--name", help="Of the package: lower-case letters, digits, dots, hyphens."),
    click.option("--package-version", default="0.1.0", show_default=True, help="Semantic version."),
    click.option(
        "--intended-use",
        default="research on mPAP estimation; research use only",
        show_default=True,
        help="For the manifest.",
    ),
    click.option("--not-for", "exclusions", multiple=True, help="An exclusion; may be given several times."),
    click.option("--synthetic", is_flag=True, help="Trained on phantoms: kind synthetic-demo, name with 'demo'."),
    click.option(
        "--weights-dtype",
        type=click.Choice(["float32", "float16"]),
        default="float32",
        help="As stored in the package.",
    ),
)

KEY = click.option(
    "--public-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file that the package must be signed by.  [default: model.public_key]",
)


def _described(command: Any) -> Any:
    for option in reversed(DESCRIBING):
        command = option(command)
    return command


def describe(chosen: dict[str, Any]) -> tuple[Description, str] | None:
    """What a person says of a model, taken out of the options; None without a name."""
    from inference.manifest import NAME, VERSION, PackageKind
    from inference.release import Description

    name, dtype = chosen.pop("name"), chosen.pop("weights_dtype")
    version, use = chosen.pop("package_version"), chosen.pop("intended_use")
    exclusions, synthetic = chosen.pop("exclusions"), chosen.pop("synthetic")
    if name is None:
        return None
    if not re.fullmatch(NAME, name):
        raise click.UsageError("--name: lower-case letters, digits, dots and hyphens, at most 64")
    if not re.fullmatch(VERSION, version):
        raise click.UsageError("--package-version: a semantic version such as 1.0.0")
    if synthetic and "demo" not in name:
        raise click.UsageError("--name: a package trained on phantoms says demo in its name")
    description = Description(
        name=name,
        version=version,
        kind=PackageKind.SYNTHETIC_DEMO if synthetic else PackageKind.CLINICAL_RESEARCH,
        intended_use=use,
        exclusions=exclusions or ("any decision on a person's care",),
        data={},
    )
    return description, str(dtype)


def package_run(
    run_folder: Path, described: tuple[Description, str] | None, *, out: Path | None = None, device: str = "cpu"
) -> Manifest | None:
    """Make the package of a finished training, in `out` or RUN/package; None if nobody named it.

    Raises
    ------
    inference.run.RunUnusable
        If the folder holds no finished training.
    ValueError
        If a package cannot be made of it.
    """
    from dataclasses import replace

    from inference.checkpoint import epochs_done
    from inference.examinations import kept_examinations
    from inference.release import release
    from inference.run import EXAMINATIONS, SPLIT, Run, RunUnusable
    from inference.split import read_split
    from inference.training import finished

    if described is None:
        return None
    description, dtype = described
    run = Run.read(run_folder)
    if epochs_done(run_folder) < run.recipe.epochs:
        done = f"{epochs_done(run_folder)} of {run.recipe.epochs} epochs are done"
        raise RunUnusable(run_folder, f"is not finished: {done}", "call `pulmolink model train` again")
    examinations = kept_examinations(run_folder / EXAMINATIONS, run.examinations_key)
    if examinations is None:
        raise RunUnusable(run_folder, "lost the examinations it learned from", "call `pulmolink model train` again")
    split = read_split(run_folder / SPLIT)
    trained = finished(run.architecture, examinations, split, run.recipe, folder=run_folder)
    folder = out or run_folder / "package"
    manifest = release(
        folder,
        replace(description, data={**run.data, "backbone_weights": dict(run.weights)}),
        trained,
        examinations,
        split,
        run.recipe,
        architecture=run.architecture,
        radiograph=run.radiograph,
        ecg=run.ecg,
        weights_dtype=dtype,
        device=device,
    )
    click.echo(f"package {manifest.name} {manifest.version} in {folder}; digest {manifest.identity().digest}")
    return manifest


@click.command("package")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder to write. [default: RUN/package]")
@_described
def make_package(run: Path, out: Path | None, **chosen: Any) -> None:
    """Make a model package of the finished training in RUN: calibrated, measured on its test patients, with a card.

    \b
    Example:
      pulmolink model package ./run --name my-model --package-version 1.0.0 --out ./my-model
    """
    described = describe(chosen)
    if described is None:
        raise click.UsageError("--name is needed")
    try:
        package_run(run, described, out=out)
    except (ValueError, FileExistsError) as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.argument("package")
@click.option("--precision", type=click.Choice(["bf16", "fp16", "int8"]), required=True, help="Of the chest encoder.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where to prove it."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write.")
@click.pass_context
def lower(ctx: click.Context, package: str, precision: str, device: str, out: Path) -> None:
    """Make of PACKAGE one whose chest encoder multiplies in fewer bits, and faster.

    bf16 is for CPUs and GPUs, fp16 for GPUs, int8 for a ViT on a CPU; on a CPU with instructions for them bf16 takes
    about half the time of fp32 and int8 two fifths. Refused where the golden cases then stray from fp32 by more than
    0.1 mmHg on average or 0.5 at most, and where this machine would have to emulate it. The new package has a version
    and a digest of its own.

    \b
    Example:
      pulmolink model lower ./my-model --precision bf16 --out ./my-model-bf16
    """
    from inference.gate import told
    from inference.lowering import lower as lowered
    from inference.package import locate
    from inference.recipe import Precision

    manifest = lowered(locate(settings_of(ctx).model.find(package)), out, Precision(precision), device=device)
    if manifest.gate is None:
        raise RuntimeError("a lowered package has a gate")
    apart = told(manifest.gate.mean_delta_mmhg, manifest.gate.maximum_delta_mmhg)
    click.echo(
        f"package {manifest.name} {manifest.version} in {out}: its {manifest.gate.cases} golden cases lie {apart}"
    )
    click.echo(f"digest {manifest.identity().digest}")


@click.command()
@click.argument("package", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--key", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="PEM: the private key."
)
@click.option("--password-file", type=click.File("r"), help="Whose first line opens the key.")
def sign(package: Path, key: Path, password_file: TextIO | None) -> None:
    """Sign PACKAGE by OpenSSF Model Signing with an elliptic-curve key; the signature is PACKAGE/model.sig.

    Needs the extra pulmolink[signing]. The package itself, and its digest, stay as they are.

    \b
    Example:
      openssl ecparam -name prime256v1 -genkey -noout -out private.pem
      openssl ec -in private.pem -pubout -out public.pem
      pulmolink model sign ./my-package --key private.pem
    """
    from inference.package import read_package
    from inference.signature import sign as sign_package

    manifest = read_package(package).manifest
    password = password_file.readline().rstrip("\n") if password_file else None
    path = sign_package(package, key, password=password)
    click.echo(f"{manifest.name} {manifest.version} signed: {path}")


@click.command()
@click.argument("package", type=click.Path(path_type=Path, exists=True, file_okay=False))
@KEY
@click.pass_context
def install(ctx: click.Context, package: Path, public_key: Path | None) -> None:
    """Verify PACKAGE (every file, every golden case, its signature) and copy it to model.folder as NAME-VERSION.

    The signature is checked where --public-key or model.public_key names a key. The package answers once model.package
    names it and the node is started again.

    \b
    Example:
      pulmolink model install ./my-model
    """
    from inference.package import copy_package
    from inference.predictor import Predictor
    from inference.signature import vouched_manifest

    configured = settings_of(ctx).model
    key = public_key or configured.key
    identity = Predictor.load(package, public_key=key, device=configured.device).identity
    name = f"{identity.name}-{identity.version}"
    folder = configured.folder / name
    if copy_package(package, folder, digest=identity.digest):
        click.echo(f"{identity.name} {identity.version} installed in {folder}")
    else:
        click.echo(f"{identity.name} {identity.version} was installed before, the same bytes, in {folder}")
    if key is not None:
        vouched_manifest(folder, key)
    click.echo(f'to use it: [model] package = "{name}"\ndigest {identity.digest}')


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def list_packages(ctx: click.Context, as_json: bool) -> None:
    """List the packages that come with pulmolink and those installed in model.folder.

    \b
    Example:
      pulmolink model list --json
    """
    from inference.manifest import PackageRefused
    from inference.package import SHIPPED, locate, read_manifest

    settings = settings_of(ctx)
    used = settings.model.where
    rows: list[dict[str, object]] = []
    for origin, root in (("shipped", SHIPPED), ("installed", settings.model.folder)):
        for manifest_file in sorted(root.glob("*/manifest.json")):
            folder = manifest_file.parent
            row: dict[str, object] = {"folder": str(folder), "origin": origin, "in_use": False, "fault": None}
            try:
                identity = read_manifest(folder).identity()
            except PackageRefused as refused:
                rows.append(row | {"name": folder.name, "fault": str(refused)})
                continue
            row |= {"name": identity.name, "version": identity.version, "kind": identity.kind}
            row |= {"digest": identity.digest, "architecture": identity.architecture}
            try:
                row["in_use"] = locate(used).resolve() == folder.resolve()
            except PackageRefused:
                row["in_use"] = False
            rows.append(row)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        mark = "*" if row["in_use"] else " "
        told = row["fault"] or f"{row['version']}  {row['kind']}  {str(row['digest'])[:12]}  {row['origin']}"
        click.echo(f"{mark} {row['name']}  {told}")
    click.echo("* answers now (model.package)")


@click.command()
@click.argument("package")
@click.pass_context
def card(ctx: click.Context, package: str) -> None:
    """Print the model card of PACKAGE: a folder, or the name of a shipped or installed package.

    The card's bytes are checked against the manifest first.

    \b
    Example:
      pulmolink model card synthetic-demo
    """
    from inference.package import locate, read_card

    click.echo(read_card(locate(settings_of(ctx).model.find(package))), nl=False)
