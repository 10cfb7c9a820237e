"""One digest over all that decides an answer: inputs, model and configuration."""

from __future__ import annotations

import hashlib
import json

from inference.prediction import ModelIdentity
from pacs_node import CODE_VERSION
from pacs_node.flow.pairing import RULE_VERSION
from pacs_node.settings import Settings


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
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
