"""What is done with a claimed match: chest features, estimate, reports. One function a stage.

Each stage takes a match under a lease, works outside any transaction, and commits its result together with
the transition. A result whose lease was lost, or whose match changed meanwhile, is dropped by the store.
"""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ecg_ingest.lead_images import EcgRefused, LeadImages
from inference.prediction import Finding, Geometry, Prediction
from inference.predictor import Predictor
from inference.radiograph import RadiographUnusable
from pacs_node import CODE_VERSION
from pacs_node.flow.digest import chest_key, run_digest
from pacs_node.flow.estimating import Estimating
from pacs_node.flow.pair import PairingRules, estimate_again, lock_of, refuse_ecg, refuse_radiograph
from pacs_node.flow.part10 import read_header
from pacs_node.opening.opener import NotOpened, Opener
from pacs_node.report.inputs import Device, ReportInputs
from pacs_node.report.overlay import render_overlay
from pacs_node.report.secondary import secondary_capture
from pacs_node.report.structured import structured_report
from pacs_node.settings import Settings
from storage.objects import ObjectStore
from storage.records import ChestFeatures, Instance, Match, MatchState, NewReport, ReportKind, StoredInstance
from storage.store import Store

LEADS_KEPT = 8
"""Lead images a worker keeps in memory between the estimate and the report of the same ECG."""


class Stages:
    """The stages with what they share: store, objects, predictor, opener. One per worker thread."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        predictor: Predictor,
        opener: Opener,
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._objects = objects
        self._predictor = predictor
        self._estimating = Estimating(predictor, opener)
        self._settings = settings
        self._chest_key = chest_key(predictor.identity.digest, settings)
        self._clock = clock
        self._rules = PairingRules.of(settings)
        self._leads: OrderedDict[str, LeadImages] = OrderedDict()

    def run(self, match: Match, owner: str) -> bool:
        """Do the stage that the match's state asks for; False if its result came too late and was dropped."""
        stage = {
            MatchState.WAITING: self.chest,
            MatchState.PAIRED: self.estimate,
            MatchState.PREDICTED: self.report,
        }[match.state]
        return stage(match, owner)

    def chest(self, match: Match, owner: str) -> bool:
        """Compute and keep what the radiograph alone gives, so that its ECG finds it ready."""
        if self._store.chest_features(match.radiograph_id, self._chest_key) is not None:
            return self._store.release(match.match_id, owner)
        features = self._read_radiograph(match)
        if isinstance(features, str):
            return self._refuse_radiograph(match, owner, features)
        # A failed try is told until one succeeds; another reason to wait stands.
        reason = "" if match.reason.startswith(failed_try(match)) else match.reason
        self._store.save_chest(features, match.match_id, owner, waiting_reason=reason)
        return True

    def estimate(self, match: Match, owner: str) -> bool:
        """Read the ECG, run the fused network, store the estimate: PAIRED to PREDICTED."""
        if match.ecg_id is None:
            raise ValueError("a paired match has an ECG")
        features = self._features(match, owner)
        if isinstance(features, str):
            return self._refuse_radiograph(match, owner, features)
        radiograph = self._store.instance(match.radiograph_id).instance
        ecg = self._store.instance(match.ecg_id).instance
        try:
            leads = self._read_ecg(ecg)
        except (EcgRefused, NotOpened) as refusal:
            reason = f"{refusal.reason.value}: {refusal.detail}"
            with self._store.transaction(lock=lock_of(match.patient)) as tx:
                return refuse_ecg(tx, match, owner, reason, self._rules, self._clock(), repeats=self._repeats)
        embedding = np.frombuffer(features.embedding, dtype="<f4").reshape(9, -1)
        found = [Finding(**finding) for finding in json.loads(features.findings_json)]
        prediction = self._estimating.estimate(embedding, found, leads)
        digest = run_digest(radiograph.sha256, ecg.sha256, self._predictor.identity, self._settings)
        return self._store.save_prediction(
            match.match_id,
            owner,
            prediction_json=prediction.to_json(),
            run_digest=digest,
            now=self._clock(),
            shadowed=bool(self._settings.model.shadow),
        )

    def report(self, match: Match, owner: str) -> bool:
        """Write the Structured Report and the overlay, store them and what is to be sent where.

        An estimate that another model made goes back to be made again: a report never mixes two models.
        """
        if Prediction.from_json(match.prediction_json).model.digest != self._predictor.identity.digest:
            with self._store.transaction(lock=lock_of(match.patient)) as tx:
                return estimate_again(tx, match, owner, self._clock())
        inputs = self._report_inputs(match)
        # Drawing is mostly C code that lets other threads run; writing the report is Python.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="overlay") as beside:
            picture = beside.submit(render_overlay, inputs)
            reports = [
                self._stored(ReportKind.SR, structured_report(inputs)),
                self._stored(ReportKind.OVERLAY, secondary_capture(inputs, picture.result())),
            ]
        destinations = {
            kind: [entry.name for entry in self._settings.destinations if kind.value in entry.sends]
            for kind in ReportKind
        }
        return self._store.save_reports(match.match_id, owner, reports, destinations, now=self._clock())

    def _stored(self, kind: ReportKind, content: bytes) -> NewReport:
        """Keep a report's bytes; its row as they say it."""
        stored = self._objects.put(content)
        header = read_header(content)
        return NewReport(
            kind=kind,
            sop_class_uid=str(header.SOPClassUID),
            sop_instance_uid=str(header.SOPInstanceUID),
            series_instance_uid=str(header.SeriesInstanceUID),
            study_instance_uid=str(header.StudyInstanceUID),
            transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
        )

    def _features(self, match: Match, owner: str) -> ChestFeatures | str:
        """The radiograph's features, computed and kept now if they are not yet; the reason if it cannot be used."""
        kept = self._store.chest_features(match.radiograph_id, self._chest_key)
        if kept is not None:
            return kept
        features = self._read_radiograph(match)
        if not isinstance(features, str):
            self._store.save_chest(features, match.match_id, owner)
        return features

    def _read_radiograph(self, match: Match) -> ChestFeatures | str:
        """What the radiograph alone gives, or why it cannot be used."""
        radiograph = self._store.instance(match.radiograph_id).instance
        try:
            chest = self._estimating.chest(self._objects.get(radiograph.sha256))
        except (RadiographUnusable, NotOpened) as refusal:
            return f"{refusal.reason.value}: {refusal.detail}"
        return ChestFeatures(
            radiograph_id=match.radiograph_id,
            model_digest=self._chest_key,
            embedding=np.ascontiguousarray(chest.embedding, dtype="<f4").tobytes(),
            display_sha256=self._objects.put(_png(chest.display)).sha256,
            findings_json=json.dumps([asdict(finding) for finding in chest.findings]),
            geometry_json=json.dumps(asdict(chest.geometry)),
        )

    def _repeats(self, earlier: Match, radiograph: StoredInstance, ecg: StoredInstance) -> bool:
        """Whether these two, this model and these settings made an earlier match's report."""
        digest = run_digest(radiograph.instance.sha256, ecg.instance.sha256, self._predictor.identity, self._settings)
        return digest == earlier.run_digest

    def _refuse_radiograph(self, match: Match, owner: str, reason: str) -> bool:
        with self._store.transaction(lock=lock_of(match.patient)) as tx:
            return refuse_radiograph(tx, match, owner, reason, self._clock())

    def _read_ecg(self, ecg: Instance) -> LeadImages:
        """The ECG's lead images; the last few stay in memory from the estimate to the report."""
        leads = self._leads.pop(ecg.sha256, None)
        if leads is None:
            leads = self._estimating.leads(self._objects.get(ecg.sha256))
        self._leads[ecg.sha256] = leads
        while len(self._leads) > LEADS_KEPT:
            self._leads.popitem(last=False)
        return leads

    def _report_inputs(self, match: Match) -> ReportInputs:
        if match.ecg_id is None or match.gap_seconds is None:
            raise ValueError("a predicted match has an ECG")
        radiograph = self._store.instance(match.radiograph_id).instance
        ecg = self._store.instance(match.ecg_id).instance
        if radiograph.acquired is None or ecg.acquired is None:
            raise ValueError("paired instances have dates")
        features = self._features(match, "")
        if isinstance(features, str):
            raise ValueError("the radiograph was refused after its estimate")
        return ReportInputs(
            radiograph=read_header(self._objects.get(radiograph.sha256)),
            ecg=read_header(self._objects.get(ecg.sha256)),
            prediction=Prediction.from_json(match.prediction_json),
            geometry=Geometry(**json.loads(features.geometry_json)),
            display=_grey(self._objects.get(features.display_sha256)),
            leads=self._read_ecg(ecg),
            radiograph_at=radiograph.acquired.at,
            ecg_at=ecg.acquired.at,
            gap_seconds=match.gap_seconds,
            radiograph_date_only=radiograph.acquired.date_only,
            ecg_date_only=ecg.acquired.date_only,
            predecessor=self._store.predecessor_report(match.match_id, ReportKind.SR),
            run_digest=match.run_digest,
            revision=match.revision,
            created_at=self._clock(),
            site_timezone=self._settings.node.site_timezone,
            default_issuer=self._settings.pairing.default_issuer,
            device=Device(ae_title=self._settings.node.ae_title, software_version=CODE_VERSION),
        )


def failed_try(match: Match) -> str:
    """How the reason of a match begins after its stage failed."""
    return f"{match.state.value.lower()}_failed: "


def _png(grey: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey, mode="L").save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _grey(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)), dtype=np.uint8)
