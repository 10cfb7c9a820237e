"""Prometheus metrics read from the rows at each scrape, so that they survive restarts and count every process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pacs_node.dicom.tls import standing
from pacs_node.settings import Tls
from storage.records import DeliveryState, MatchState, RequestState
from storage.store import Store


class StoreCollector(Collector):
    """Counts of matches, instances, deliveries, commitments and connections, and the age of the oldest work due."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        matches = GaugeMetricFamily(
            "pulmolink_matches", "Matches by state, superseded ones included.", labels=["state"]
        )
        counted = self._store.count_matches()
        for state in MatchState:
            matches.add_metric([state.value], counted.get(state, 0))
        yield matches
        instances = GaugeMetricFamily(
            "pulmolink_instances",
            "Objects received, by kind and disposition.",
            labels=["kind", "disposition"],
        )
        for (kind, disposition), count in self._store.count_instances().items():
            instances.add_metric([kind.value, disposition.value], count)
        yield instances
        deliveries = GaugeMetricFamily(
            "pulmolink_deliveries",
            "Report deliveries by destination and state.",
            labels=["destination", "state"],
        )
        by_destination = self._store.count_deliveries()
        for destination in sorted({name for name, _ in by_destination}):
            for delivery_state in DeliveryState:
                count = by_destination.get((destination, delivery_state), 0)
                deliveries.add_metric([destination, delivery_state.value], count)
        yield deliveries
        connections = CounterMetricFamily(
            "pulmolink_connections",
            "DICOM connections by outcome (accepted, rejected, refused, cut) and reason.",
            labels=["outcome", "reason"],
        )
        for (outcome, reason), times in sorted(self._store.tallies().items()):
            connections.add_metric([outcome, reason], times)
        yield connections
        awaited = GaugeMetricFamily(
            "pulmolink_commitments_awaited",
            "Delivered reports that their destination was asked to commit to and has not yet.",
            labels=["destination"],
        )
        by_name = self._store.count_wanted()
        for destination in sorted({name for name, _ in by_destination}):
            awaited.add_metric([destination], by_name.get(destination, 0))
        yield awaited
        requests = GaugeMetricFamily(
            "pulmolink_commitment_requests",
            "Storage commitment requests of sources, by what became of our report.",
            labels=["state"],
        )
        asked = self._store.count_requests()
        for request_state in RequestState:
            requests.add_metric([request_state.value], asked.get(request_state, 0))
        yield requests
        shadows = GaugeMetricFamily(
            "pulmolink_shadow_estimates",
            "Estimates of the second package: due, estimated, without.",
            labels=["outcome"],
        )
        for outcome, count in sorted(self._store.count_shadows().items()):
            shadows.add_metric([outcome], count)
        yield shadows
        yield GaugeMetricFamily(
            "pulmolink_queue_age_seconds",
            "Age of the oldest match that is due and not yet worked.",
            value=self._store.oldest_due(self._clock()) or 0.0,
        )

    def describe(self) -> list[Metric]:
        """Nothing is known before the first scrape."""
        return []


class CertificateCollector(Collector):
    """When our TLS certificate ends, as the file says at each scrape; nothing where there is none."""

    def __init__(self, tls: Tls, clock: Callable[[], datetime]) -> None:
        self._tls = tls
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """The metric now; 0 for a file that cannot be used."""
        if self._tls.certificate:
            ends = standing(self._tls, self._clock()).ends
            yield GaugeMetricFamily(
                "pulmolink_tls_certificate_ends_timestamp_seconds",
                "End of our TLS certificate in Unix time.",
                value=ends.timestamp() if ends else 0.0,
            )

    def describe(self) -> list[Metric]:
        """Nothing is known before the first scrape."""
        return []
