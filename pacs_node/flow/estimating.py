"""From the bytes of a radiograph and an ECG to an estimate by one package: what the stages and the shadow share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ecg_ingest.lead_images import LeadImages, RenderStyle
from inference.prediction import Chest, Finding, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inference.predictor import Predictor
    from pacs_node.opening.opener import Opener


class Estimating:
    """Opens files in confined processes and asks one predictor. For one thread, as its opener is."""

    def __init__(self, predictor: Predictor, opener: Opener) -> None:
        self._predictor = predictor
        self._opener = opener
        self._style = RenderStyle(**cast(dict[str, Any], dict(predictor.ecg_style)))

    def chest(self, radiograph: bytes) -> Chest:
        """What a radiograph gives without its ECG.

        Raises
        ------
        RadiographUnusable, NotOpened
            It must not be used.
        OpenerUnavailable
            Nothing can be opened now.
        """
        return self._predictor.chest(self._opener.radiograph(radiograph, self._predictor.preprocessing))

    def leads(self, ecg: bytes) -> LeadImages:
        """The lead images of an ECG, in the package's own style.

        Raises
        ------
        EcgRefused, NotOpened
            It must not be used.
        OpenerUnavailable
            Nothing can be opened now.
        """
        return self._opener.ecg(ecg, self._style)

    def estimate(self, embedding: NDArray[np.float32], chest: Iterable[Finding], leads: LeadImages) -> Prediction:
        """The estimate, with what was found while both inputs were read.

        Parameters
        ----------
        embedding
            Of the radiograph, float32 [9, 1024], by this very package.
        chest
            What was found in the radiograph.
        leads
            As `leads` gave them.
        """
        prediction = self._predictor.predict(embedding, leads.pixels)
        return replace(prediction, findings=(*chest, *ecg_findings(leads), *prediction.findings))


def ecg_findings(leads: LeadImages) -> tuple[Finding, ...]:
    """What was found while an ECG was read."""
    return tuple(
        Finding(
            subject="ecg",
            code=finding.code,
            severity="warning",
            detail=f"{finding.lead}: {finding.detail}" if finding.lead else finding.detail,
        )
        for finding in leads.quality
    )
