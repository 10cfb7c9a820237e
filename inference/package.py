"""Model packages on disk: find one, read who it is, check every byte, and write a new one. No torch here.

A package is a folder: manifest.json, model.safetensors, calibration.safetensors, golden/ and MODEL_CARD.md. That
its golden cases reproduce is checked by `Predictor.load`, which can compute them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.durable import settle, write_durably
from inference.manifest import (
    MAXIMUM_MANIFEST_BYTES,
    Manifest,
    PackageFault,
    PackageRefused,
    parse_manifest,
)
from inference.prediction import ModelIdentity
from inference.radiograph import PICTURE_SIDE

SHIPPED = Path(__file__).parent / "packages"
"""The packages that come with pulmolink."""

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
CALIBRATION = "calibration.safetensors"
CARD = "MODEL_CARD.md"
GOLDEN = "golden/cases.json"
SIGNATURE = "model.sig"
"""Beside the package and no part of it: `signature` makes and checks it."""
GOLDEN_TOLERANCE_MMHG = 0.05

_PICKLES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".npy", ".joblib"})
_MAXIMUM_FILES = 256
_MAXIMUM_WEIGHTS_BYTES = 4 << 30  # a ViT-L/14 in float32 has 1.2 GB
_MAXIMUM_FILE_BYTES = 256 << 20  # of any other file

Tensors = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """Inputs and the answer they gave when the package was made."""

    name: str
    picture: NDArray[np.float32]  # [512, 512], 0..1, kept as 16-bit PNG
    lead_images: NDArray[np.uint8]  # [12, 48, 224, 3], kept as PNG, leads below one another
    patch_mpap_mmhg: tuple[float, ...]  # nine


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package whose files are those its manifest names, unchanged."""

    manifest: Manifest
    weights: Tensors
    calibration: Tensors
    golden: tuple[GoldenCase, ...]


def locate(name_or_folder: str | Path) -> Path:
    """The folder of a shipped package by its name, or the given folder.

    Raises
    ------
    PackageRefused
        If there is neither.
    """
    text = str(name_or_folder)
    if os.sep not in text and (SHIPPED / text / MANIFEST).is_file():
        return SHIPPED / text
    folder = Path(name_or_folder)
    if not (folder / MANIFEST).is_file():
        known = ", ".join(sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST}"))) or "none"
        raise PackageRefused(
            PackageFault.NOT_FOUND,
            text,
            "is neither a model package's folder nor the name of a shipped package",
            f"shipped: {known}; installed: see `pulmolink model list`",
        )
    return folder


def read_manifest(name_or_folder: str | Path) -> Manifest:
    """The manifest alone, checked in itself; the other files are not opened."""
    path = locate(name_or_folder) / MANIFEST
    try:
        with path.open("rb") as file:
            return parse_manifest(file.read(MAXIMUM_MANIFEST_BYTES + 1))
    except OSError as error:
        raise PackageRefused(
            PackageFault.MANIFEST, MANIFEST, f"cannot be read ({error.strerror})", "check its permissions"
        ) from error


def read_identity(name_or_folder: str | Path) -> ModelIdentity:
    """Who the package is, from its manifest alone: cheap, and no proof that its weights are sound.

    Raises
    ------
    PackageRefused
        If there is no such package or its manifest is not sound.
    """
    return read_manifest(name_or_folder).identity()


def read_package(folder: Path) -> Package:
    """Read a package, refusing any file that is missing, added, changed or of a kind that can execute.

    Raises
    ------
    PackageRefused
        Naming the file.
    """
    manifest = read_manifest(folder)
    _check_names(folder, manifest)
    content = {name: _checked(folder, name, digest) for name, digest in sorted(manifest.files.items())}
    return Package(
        manifest=manifest,
        weights=_tensors(content[WEIGHTS], WEIGHTS, PackageFault.WEIGHTS),
        calibration=_tensors(content[CALIBRATION], CALIBRATION, PackageFault.CALIBRATION),
        golden=_golden(content),
    )


def write_package(
    folder: Path,
    manifest: Manifest,
    *,
    weights: Mapping[str, NDArray[np.generic]],
    calibration: Mapping[str, NDArray[np.generic]],
    golden: tuple[GoldenCase, ...],
    card: str,
) -> Manifest:
    """Write a package and give back its manifest, completed with the digest of each file.

    An existing package in `folder` is replaced as a whole, once the new one is complete.

    Raises
    ------
    FileExistsError
        If `folder` holds something that is not a package.
    OSError
        If it cannot be written.
    """
    from safetensors.numpy import save

    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise FileExistsError(f"{folder} is not empty and not a model package")
    content = {
        WEIGHTS: save({name: np.ascontiguousarray(array) for name, array in weights.items()}),
        CALIBRATION: save({name: np.ascontiguousarray(array) for name, array in calibration.items()}),
        CARD: card.encode(),
        **_golden_content(golden),
    }
    manifest = replace(
        manifest, files={name: hashlib.sha256(data).hexdigest() for name, data in sorted(content.items())}
    )
    content[MANIFEST] = manifest.to_bytes()
    draft = folder.with_name(folder.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    for name, data in content.items():
        path = draft / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    if folder.exists():
        shutil.rmtree(folder)
    settle(draft, folder)
    return manifest


def copy_package(source: Path, folder: Path, *, digest: str) -> bool:
    """Copy a package to `folder` and check the copy; False if the same package stands there already.

    Parameters
    ----------
    source, folder
        From where to where.
    digest
        Of the package that was verified (`ModelIdentity.digest`): what stands in `source` by now may be another one.

    Raises
    ------
    PackageRefused
        If the package is not sound or not that one, or another one stands in `folder`.
    OSError
        If the folder cannot be written.
    """
    manifest = read_manifest(source)
    if manifest.identity().digest != digest:
        raise PackageRefused(PackageFault.MANIFEST, MANIFEST, "changed after the package was verified", "install again")
    _check_names(source, manifest)
    if (folder / MANIFEST).is_file():
        if read_manifest(folder).to_bytes() == manifest.to_bytes():
            read_package(folder)
            if (source / SIGNATURE).is_file():  # it may have been signed since
                write_durably(folder / SIGNATURE, (source / SIGNATURE).read_bytes())
            return False
        raise PackageRefused(
            PackageFault.UNEXPECTED_FILE,
            str(folder),
            "holds another package of this name and version",
            "give the new one another version",
        )
    draft = folder.with_name(folder.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    beside = (SIGNATURE,) if (source / SIGNATURE).is_file() else ()
    try:
        for name in (*sorted(manifest.files), MANIFEST, *beside):
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            with (source / name).open("rb") as given, (draft / name).open("wb") as copy:
                shutil.copyfileobj(given, copy)
                copy.flush()
                os.fsync(copy.fileno())
        if read_package(draft).manifest != manifest:
            raise PackageRefused(PackageFault.MANIFEST, MANIFEST, "changed while it was copied", "install again")
        settle(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return True


def read_calibration(folder: Path) -> tuple[Manifest, Tensors]:
    """The manifest and what the package was calibrated by, without its weights.

    Raises
    ------
    PackageRefused
        If either is not as it was written.
    """
    manifest = read_manifest(folder)
    if CALIBRATION not in manifest.files:
        raise PackageRefused(PackageFault.MANIFEST, MANIFEST, f"does not name {CALIBRATION}")
    content = _checked(folder, CALIBRATION, manifest.files[CALIBRATION])
    return manifest, _tensors(content, CALIBRATION, PackageFault.CALIBRATION)


def read_card(folder: Path) -> str:
    """The model card, if its bytes are those of the manifest.

    Raises
    ------
    PackageRefused
        Otherwise.
    """
    manifest = read_manifest(folder)
    if CARD not in manifest.files:
        raise PackageRefused(PackageFault.MANIFEST, MANIFEST, f"does not name {CARD}")
    return _checked(folder, CARD, manifest.files[CARD]).decode(errors="replace")


def _check_names(folder: Path, manifest: Manifest) -> None:
    present = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise PackageRefused(PackageFault.UNEXPECTED_FILE, name, "is a link", "copy the file itself")
        if path.is_dir():
            continue
        if not path.is_file():  # a pipe would be waited for
            raise PackageRefused(PackageFault.UNEXPECTED_FILE, name, "is no ordinary file", "remove it")
        if path.suffix.lower() in _PICKLES:
            raise PackageRefused(PackageFault.PICKLE, name, "may hold executable code", "only safetensors are read")
        present.add(name)
        if len(present) > _MAXIMUM_FILES:
            raise PackageRefused(PackageFault.UNEXPECTED_FILE, name, f"is one of over {_MAXIMUM_FILES} files")
    required = {WEIGHTS, CALIBRATION, CARD, GOLDEN}
    for name in sorted(required - set(manifest.files)):
        raise PackageRefused(PackageFault.MANIFEST, MANIFEST, f"does not name {name}")
    for name in sorted(set(manifest.files) - present):
        raise PackageRefused(PackageFault.MISSING_FILE, name, "is missing", "install the package again")
    for name in sorted(present - set(manifest.files) - {MANIFEST, SIGNATURE}):
        raise PackageRefused(
            PackageFault.UNEXPECTED_FILE, name, "is not named in the manifest", "remove it or install again"
        )


def _checked(folder: Path, name: str, digest: str) -> bytes:
    """The bytes of a file, hashed as they were read, so that what is checked is what is used."""
    most = _MAXIMUM_WEIGHTS_BYTES if name == WEIGHTS else _MAXIMUM_FILE_BYTES
    try:
        size = (folder / name).stat().st_size
        if size > most:
            raise PackageRefused(PackageFault.UNEXPECTED_FILE, name, f"has {size} bytes, more than {most}")
        data = (folder / name).read_bytes()
    except OSError as error:
        raise PackageRefused(
            PackageFault.MISSING_FILE, name, f"cannot be read ({error.strerror})", "check its permissions"
        ) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise PackageRefused(PackageFault.DIGEST, name, "is not the file the manifest was written for", "install again")
    return data


def _tensors(data: bytes, name: str, fault: PackageFault) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(data))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise PackageRefused(fault, name, f"is not a safetensors file ({type(error).__name__})") from error


def _golden(content: Mapping[str, bytes]) -> tuple[GoldenCase, ...]:
    cases = []
    try:
        for case in json.loads(content[GOLDEN]):
            picture = _png(content[f"golden/{case['name']}-radiograph.png"])
            leads = _png(content[f"golden/{case['name']}-ecg.png"])
            if picture.shape != (PICTURE_SIDE, PICTURE_SIDE) or leads.shape != (12 * 48, 224, 3):
                raise ValueError("a golden picture has the wrong size")
            cases.append(
                GoldenCase(
                    name=str(case["name"]),
                    picture=(picture.astype(np.float32) / np.float32(65535.0)),
                    lead_images=leads.astype(np.uint8).reshape(12, 48, 224, 3),
                    patch_mpap_mmhg=tuple(float(value) for value in case["patch_mpap_mmhg"]),
                )
            )
            if len(cases[-1].patch_mpap_mmhg) != 9:
                raise ValueError("a golden case needs nine values")
    except (KeyError, TypeError, ValueError, OSError, SyntaxError) as error:  # the last is Pillow's of a broken PNG
        raise PackageRefused(PackageFault.GOLDEN, GOLDEN, f"is malformed ({error})") from error
    if not cases:
        raise PackageRefused(PackageFault.GOLDEN, GOLDEN, "holds no case")
    return tuple(cases)


def _golden_content(golden: tuple[GoldenCase, ...]) -> dict[str, bytes]:
    content: dict[str, bytes] = {}
    for case in golden:
        grey = np.rint(case.picture * 65535.0).astype(np.uint16)
        content[f"golden/{case.name}-radiograph.png"] = _to_png(grey)
        content[f"golden/{case.name}-ecg.png"] = _to_png(case.lead_images.reshape(12 * 48, 224, 3))
    rows = [{"name": case.name, "patch_mpap_mmhg": list(case.patch_mpap_mmhg)} for case in golden]
    content[GOLDEN] = (json.dumps(rows, indent=1) + "\n").encode()
    return content


def quantised(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """`picture` as a golden case keeps it: 16 bits a pixel."""
    return (np.rint(picture * 65535.0).astype(np.uint16)).astype(np.float32) / np.float32(65535.0)


def _png(data: bytes) -> NDArray[np.generic]:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.width > PICTURE_SIDE or image.height > 12 * 48:
            raise ValueError("a golden picture is too large")
        return np.array(image)


def _to_png(pixels: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
