"""What a model package says of itself: `manifest.json` as a value, checked when read. No torch here.

The file must be byte for byte what `Manifest.to_bytes` writes and carries a digest of its own content, so that a
changed byte anywhere in it is found although nothing else vouches for it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from inference.architecture import Architecture
from inference.gate import Gate
from inference.prediction import ModelIdentity
from inference.radiograph import RadiographPreprocessing
from inference.recipe import Precision

SCHEMA = 2  # 2: average inputs and the view's limit stand beside the calibration
MAXIMUM_MANIFEST_BYTES = 1 << 20
LEAD_ORDER = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
NAME = r"[a-z0-9][a-z0-9.-]{0,63}"
VERSION = r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?"
"""Patterns of a package's name and semantic version."""
STYLE_FIELDS = (
    "layout",
    "seconds_per_lead",
    "millivolts_full_height",
    "paper_mm_per_second",
    "paper_mm_per_millivolt",
    "grid",
)


class PackageKind(StrEnum):
    """What a model may be used for."""

    CLINICAL_RESEARCH = "clinical-research"
    SYNTHETIC_DEMO = "synthetic-demo"


class PackageFault(StrEnum):
    """Why a package is refused. A closed set."""

    NOT_FOUND = "not_found"
    MANIFEST = "manifest"  # missing, malformed or changed
    SCHEMA = "schema"  # written for another version of pulmolink
    MISSING_FILE = "missing_file"
    UNEXPECTED_FILE = "unexpected_file"
    PICKLE = "pickle"  # executable formats are never opened
    DIGEST = "digest"  # a file is not the one the manifest was written for
    WEIGHTS = "weights"  # tensors do not fit the architecture
    CALIBRATION = "calibration"
    GOLDEN = "golden"  # a recorded answer is not reproduced
    SIGNATURE = "signature"  # not signed by the key that the site trusts
    PRECISION = "precision"  # this machine has no fast multiplication in it
    DEVICE = "device"  # this machine does not have what it is to run on


class PackageRefused(Exception):
    """A model package that must not be used. `file` is relative to the package's folder."""

    def __init__(self, fault: PackageFault, file: str, detail: str, hint: str = "") -> None:
        super().__init__(fault, file, detail, hint)
        self.fault = fault
        self.file = file
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.file}: {self.detail}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, kw_only=True)
class EcgPreprocessing:
    """How an ECG becomes the network's input. `style` are the fields of `ecg_ingest`'s `RenderStyle`.

    Pixels 0..255 are divided by 255 and normalised with `mean` and `std`, the same for all channels; channels are
    lead by lead in `lead_order`, red, green and blue within a lead.
    """

    style: Mapping[str, object]
    lead_order: tuple[str, ...] = LEAD_ORDER
    mean: float = 0.92
    std: float = 0.2

    def __post_init__(self) -> None:
        if tuple(sorted(self.style)) != tuple(sorted(STYLE_FIELDS)):
            raise ValueError(f"the style needs exactly the fields {', '.join(STYLE_FIELDS)}")
        if self.lead_order != LEAD_ORDER:
            raise ValueError(f"only the lead order {' '.join(LEAD_ORDER)} is implemented")
        if not self.std > 0:
            raise ValueError("std must be above 0")

    def to_json(self) -> dict[str, object]:
        """As it stands in a manifest."""
        return {
            "style": dict(self.style),
            "lead_order": list(self.lead_order),
            "mean": self.mean,
            "std": self.std,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> EcgPreprocessing:
        """The preprocessing of a manifest. Raises KeyError, TypeError or ValueError where it is wrong."""
        style, order = fields["style"], fields["lead_order"]
        if set(fields) != {"style", "lead_order", "mean", "std"}:
            raise ValueError("fields differ from those known")
        if not isinstance(style, dict) or not isinstance(order, list):
            raise TypeError("style must be an object and lead_order a list")
        return cls(
            style=style,
            lead_order=tuple(str(lead) for lead in order),
            mean=float(str(fields["mean"])),
            std=float(str(fields["std"])),
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A package's description. `files` maps each file beside the manifest to its sha256 in hex."""

    name: str
    version: str  # semantic version
    kind: PackageKind
    architecture: Architecture
    weights_dtype: str  # as stored, "float32" or "float16"; always expanded to float32 when loaded
    radiograph: RadiographPreprocessing
    ecg: EcgPreprocessing
    intended_use: str
    exclusions: tuple[str, ...]
    data: Mapping[str, object]  # what it was trained, calibrated and tested on
    training: Mapping[str, object]  # recipe, seed and library versions
    metrics: Mapping[str, object]  # on held-out patients, with intervals
    files: Mapping[str, str] = field(default_factory=dict)
    gate: Gate | None = None  # for a package that does not multiply in fp32: what was proved

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME, self.name):
            raise ValueError("name must be lower-case letters, digits, dots and hyphens")
        if not re.fullmatch(VERSION, self.version):
            raise ValueError("version must be a semantic version such as 1.0.0")
        if self.weights_dtype not in {"float32", "float16"}:
            raise ValueError("weights_dtype must be float32 or float16")
        if self.kind is PackageKind.SYNTHETIC_DEMO and "demo" not in self.name:
            raise ValueError("a synthetic-demo package says so in its name")
        for name, digest in self.files.items():
            if not re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9_.-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
                raise ValueError(f"{name[:64]!r} is no file's name inside a package")
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ValueError(f"the digest of {name} is no sha256")

    def to_bytes(self) -> bytes:
        """The content of manifest.json: canonical JSON with the digest of the rest."""
        body: dict[str, object] = {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "kind": self.kind.value,
            "architecture": self.architecture.to_json(),
            "weights_dtype": self.weights_dtype,
            "preprocessing": self._preprocessing(),
            "intended_use": self.intended_use,
            "exclusions": list(self.exclusions),
            "data": dict(self.data),
            "training": dict(self.training),
            "metrics": dict(self.metrics),
            "files": dict(self.files),
        }
        if self.gate is not None:  # unnamed in fp32, as before there was a choice
            body["gate"] = self.gate.to_json()
        body["content_sha256"] = hashlib.sha256(_canonical(body)).hexdigest()
        return _canonical(body)

    def identity(self) -> ModelIdentity:
        """Who speaks, for every result."""
        return ModelIdentity(
            name=self.name,
            version=self.version,
            kind=self.kind.value,
            digest=hashlib.sha256(self.to_bytes()).hexdigest(),
            preprocessing_digest=hashlib.sha256(_canonical(self._preprocessing())).hexdigest(),
            architecture=self.architecture.name
            + (f", chest encoder in {self.gate.precision.value}" if self.gate else ""),
        )

    @property
    def precision(self) -> Precision:
        """In which the chest encoder multiplies."""
        return self.gate.precision if self.gate else Precision.FP32

    def _preprocessing(self) -> dict[str, object]:
        return {"radiograph": self.radiograph.to_json(), "ecg": self.ecg.to_json()}


def parse_manifest(content: bytes) -> Manifest:
    """The manifest in `content`.

    Raises
    ------
    PackageRefused
        If it is malformed, was changed, or was written for another schema.
    """
    try:
        body = json.loads(content) if len(content) <= MAXIMUM_MANIFEST_BYTES else None
    except (ValueError, RecursionError) as error:
        raise _refused("is not JSON") from error
    if not isinstance(body, dict) or not isinstance(body.get("schema"), int):
        raise _refused("is not a model package's manifest")
    if body["schema"] != SCHEMA:
        older = body["schema"] < SCHEMA
        raise PackageRefused(
            PackageFault.SCHEMA,
            "manifest.json",
            f"has schema {body['schema']}, this version reads {SCHEMA}",
            "package the model again with this version" if older else "upgrade pulmolink",
        )
    try:
        manifest = _from_body(body)
        unchanged = manifest.to_bytes() == content
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _refused(f"is malformed ({type(error).__name__}: {error})") from error
    if not unchanged:
        raise _refused("was changed after it was written")
    return manifest


def _from_body(body: dict[str, object]) -> Manifest:
    preprocessing = body["preprocessing"]
    architecture, files = body["architecture"], body["files"]
    data, training, metrics = body["data"], body["training"], body["metrics"]
    exclusions, gate = body["exclusions"], body.get("gate")
    if not (
        isinstance(preprocessing, dict)
        and isinstance(architecture, dict)
        and isinstance(files, dict)
        and isinstance(data, dict)
        and isinstance(training, dict)
        and isinstance(metrics, dict)
        and isinstance(exclusions, list)
        and (gate is None or isinstance(gate, dict))
    ):
        raise TypeError("an object or list is missing")
    return Manifest(
        name=str(body["name"]),
        version=str(body["version"]),
        kind=PackageKind(str(body["kind"])),
        architecture=Architecture(**architecture),
        weights_dtype=str(body["weights_dtype"]),
        radiograph=RadiographPreprocessing.from_json(preprocessing["radiograph"]),
        ecg=EcgPreprocessing.from_json(preprocessing["ecg"]),
        intended_use=str(body["intended_use"]),
        exclusions=tuple(str(item) for item in exclusions),
        data=data,
        training=training,
        metrics=metrics,
        files={str(name): str(digest) for name, digest in files.items()},
        gate=None if gate is None else Gate.from_json(gate),
    )


def _refused(detail: str) -> PackageRefused:
    return PackageRefused(PackageFault.MANIFEST, "manifest.json", detail, "install the package again")


def _canonical(body: Mapping[str, object]) -> bytes:
    return (json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
