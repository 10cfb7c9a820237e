"""Read rows for commands, pages and metrics. Nothing here writes, and nothing here waits for a writer."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select

from storage import rows
from storage.connections import Connections
from storage.errors import RowMissing
from storage.records import (
    Delivery,
    DeliveryState,
    Disposition,
    Kind,
    Match,
    MatchState,
    Report,
    StoredInstance,
)
from storage.schema import deliveries, instances, matches, reports


class Reading(Connections):
    """Looks at what is stored."""

    def match(self, match_id: int) -> Match:
        """One match. Raises `RowMissing`."""
        row = self._first(rows.SELECT_MATCHES.where(matches.c.match_id == match_id))
        if row is None:
            raise RowMissing("match", match_id)
        return rows.match(row)

    def matches(
        self,
        *,
        states: Collection[MatchState] | None = None,
        study_uid: str | None = None,
        patient_id: str | None = None,
        issuer: str | None = None,
        accession: str | None = None,
        radiograph_uid: str | None = None,
        include_superseded: bool = False,
        after_id: int = 0,
        limit: int | None = None,
    ) -> tuple[Match, ...]:
        """The matches that fulfil every condition given, by number, those after `after_id`."""
        found = rows.SELECT_MATCHES.where(matches.c.match_id > after_id).order_by(matches.c.match_id)
        if states is not None:
            found = found.where(matches.c.state.in_(states))
        if not include_superseded:
            found = found.where(matches.c.state != MatchState.SUPERSEDED)
        for column, wanted in (
            (rows.MATCH_RADIOGRAPH.study_instance_uid, study_uid),
            (rows.MATCH_RADIOGRAPH.patient_id, patient_id),
            (rows.MATCH_RADIOGRAPH.issuer, issuer),
            (rows.MATCH_RADIOGRAPH.accession_number, accession),
            (rows.MATCH_RADIOGRAPH.sop_instance_uid, radiograph_uid),
        ):
            if wanted is not None:
                found = found.where(column == wanted)
        return tuple(map(rows.match, self._all(found.limit(limit))))

    def instance(self, instance_id: int) -> StoredInstance:
        """One instance. Raises `RowMissing`."""
        row = self._first(rows.SELECT_INSTANCES.where(instances.c.instance_id == instance_id))
        if row is None:
            raise RowMissing("instance", instance_id)
        return rows.stored_instance(row)

    def instances(
        self,
        *,
        dispositions: Collection[Disposition] | None = None,
        kind: Kind | None = None,
        sop_instance_uid: str | None = None,
        study_uid: str | None = None,
        patient_id: str | None = None,
        after_id: int = 0,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> tuple[StoredInstance, ...]:
        """The instances that fulfil every condition given, by number, those after `after_id`."""
        order = instances.c.instance_id.desc() if newest_first else instances.c.instance_id
        found = rows.SELECT_INSTANCES.where(instances.c.instance_id > after_id).order_by(order)
        if dispositions is not None:
            found = found.where(instances.c.disposition.in_(dispositions))
        for column, wanted in (
            (instances.c.kind, kind),
            (instances.c.sop_instance_uid, sop_instance_uid),
            (instances.c.study_instance_uid, study_uid),
            (instances.c.patient_id, patient_id),
        ):
            if wanted is not None:
                found = found.where(column == wanted)
        return tuple(map(rows.stored_instance, self._all(found.limit(limit))))

    def reports(self, match_id: int) -> tuple[Report, ...]:
        """The stored reports of a match, in the order in which they are sent."""
        return tuple(
            map(
                rows.report,
                self._all(rows.SELECT_REPORTS.where(reports.c.match_id == match_id).order_by(reports.c.report_id)),
            )
        )

    def deliveries(
        self,
        *,
        match_id: int | None = None,
        destination: str | None = None,
        states: Collection[DeliveryState] | None = None,
        after_id: int = 0,
        limit: int | None = None,
    ) -> tuple[Delivery, ...]:
        """The deliveries that fulfil every condition given, by number, those after `after_id`."""
        found = rows.SELECT_DELIVERIES.where(deliveries.c.delivery_id > after_id).order_by(deliveries.c.delivery_id)
        if match_id is not None:
            found = found.where(deliveries.c.match_id == match_id)
        if destination is not None:
            found = found.where(deliveries.c.destination == destination)
        if states is not None:
            found = found.where(deliveries.c.state.in_(states))
        return tuple(map(rows.delivery, self._all(found.limit(limit))))

    def count_matches(self) -> dict[MatchState, int]:
        """How many matches are in each state. A state without any is left out."""
        return {
            state: count for state, count in self._all(select(matches.c.state, func.count()).group_by(matches.c.state))
        }

    def count_instances(self) -> dict[tuple[Kind, Disposition], int]:
        """How many instances of each kind met with each disposition."""
        return {
            (kind, disposition): count
            for kind, disposition, count in self._all(
                select(instances.c.kind, instances.c.disposition, func.count()).group_by(
                    instances.c.kind, instances.c.disposition
                )
            )
        }

    def count_deliveries(self) -> dict[tuple[str, DeliveryState], int]:
        """How many deliveries to each destination are in each state."""
        return {
            (destination, state): count
            for destination, state, count in self._all(
                select(deliveries.c.destination, deliveries.c.state, func.count()).group_by(
                    deliveries.c.destination, deliveries.c.state
                )
            )
        }

    def oldest_due(self, now: datetime) -> float:
        """For how many seconds the oldest piece of claimable work has been due, 0.0 if there is none.

        Work is an estimate, a report, a radiograph without chest features, and a delivery.
        """
        oldest = [
            select(func.min(matches.c.due_at)).where(matches.c.state == MatchState.PAIRED),
            select(func.min(matches.c.due_at)).where(matches.c.state == MatchState.PREDICTED),
            select(func.min(matches.c.due_at)).where(
                matches.c.state == MatchState.WAITING, matches.c.chest_digest == ""
            ),
        ]
        destinations = select(deliveries.c.destination).distinct()
        with self.reading() as connection:
            due = [connection.scalar(statement) for statement in oldest]
            due += [
                connection.scalar(
                    select(func.min(deliveries.c.due_at)).where(
                        deliveries.c.destination == destination, deliveries.c.state == DeliveryState.PENDING
                    )
                )
                for destination in connection.scalars(destinations).all()
            ]
        return max(((now - instant).total_seconds() for instant in due if instant), default=0.0)

    def _all(self, statement: Select[Any]) -> Any:
        with self.reading() as connection:
            return connection.execute(statement).all()

    def _first(self, statement: Select[Any]) -> Any:
        with self.reading() as connection:
            return connection.execute(statement).one_or_none()
