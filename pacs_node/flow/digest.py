"""One digest over all that decides an answer: inputs, model and configuration."""

from __future__ import annotations

import hashlib
import json

from inference.prediction import ModelIdentity
from pacs_node import CODE_VERSION
from pacs_node.flow.pairing import RULE_VERSION
from pacs_node.settings import Settings

CPU = "cpu"


def run_digest(radiograph_sha256: str, ecg_sha256: str, model: ModelIdentity, settings: Settings) -> str:
    """sha256 in hex. Two runs with the same digest give the same report; `rerun` compares it."""
    parts = {
        "radiograph": radiograph_sha256,
        "ecg": ecg_sha256,
        "model": model.digest,
        "preprocessing": model.preprocessing_digest,
        "code": CODE_VERSION,
        "ae_title": settings.node.ae_title,
        "site_timezone": settings.node.site_timezone,
        "default_issuer": settings.pairing.default_issuer,
        "pairing_rule": RULE_VERSION,
    }
    if settings.model.device != CPU:  # its answers differ from a CPU's in the last bits
        parts["device"] = settings.model.device
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def chest_key(model_digest: str, settings: Settings) -> str:
    """What chest features are kept under: the package's digest, on a GPU with the device hashed in (64 hex digits).

    So an estimate never fuses what one device made of the radiograph with what another makes of the ECG.
    """
    if settings.model.device == CPU:
        return model_digest
    return hashlib.sha256(f"{model_digest} {settings.model.device}".encode()).hexdigest()
