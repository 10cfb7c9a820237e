"""What peers ask us to commit to, written down before they are told that we know (PS3.4 J).

Due times take the place of leases: whoever takes a request moves its due time on, and another takes it then if the
first one has died. To be told twice does a peer no harm.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, select, update

from storage import rows
from storage.connections import Connections
from storage.errors import RowMissing
from storage.records import CommitmentRequest, RequestState, SopReference, StoredInstance
from storage.schema import commitment_requests, instances
from storage.transitions import request_step

TRIES = 3
"""How often a claim looks again when another process was quicker."""
BATCH = 500
"""UIDs asked about in one statement."""


class CommitmentRequests(Connections):
    """Requests of peers and what became of them."""

    def add_request(
        self,
        transaction_uid: str,
        calling_ae: str,
        peer: str,
        references: Sequence[SopReference],
        *,
        due_at: datetime,
        now: datetime,
    ) -> CommitmentRequest:
        """Write down what a peer asks. The same once more is the same request, to be answered again.

        A transaction UID that this peer has used for other objects makes a request of its own, `duplicate`.
        """
        asked = json.dumps(references)
        of_transaction = _REQUESTS.where(
            commitment_requests.c.transaction_uid == transaction_uid, commitment_requests.c.calling_ae == calling_ae
        ).with_for_update()
        with self.writing() as connection:
            earlier = connection.execute(of_transaction).all()
            same = next((row for row in earlier if row.references_json == asked), None)
            if same is None:
                added = connection.execute(
                    insert(commitment_requests),
                    {
                        "transaction_uid": transaction_uid,
                        "calling_ae": calling_ae,
                        "peer": peer,
                        "references_json": asked,
                        "duplicate": bool(earlier),
                        "state": RequestState.PENDING,
                        "attempts": 0,
                        "due_at": due_at,
                        "received_at": now,
                        "last_error": "",
                    },
                )
                number = rows.new_id(added)
            else:
                number = same.request_id
                _, pending = request_step(same.state, RequestState.PENDING)
                connection.execute(
                    update(commitment_requests)
                    .where(commitment_requests.c.request_id == number)
                    .values(state=pending, peer=peer, attempts=0, due_at=due_at, received_at=now, answered_at=None)
                )
            return _request(connection.execute(_REQUESTS.where(commitment_requests.c.request_id == number)).one())

    def claim_request(
        self, now: datetime, until: datetime, *, of: CommitmentRequest | None = None
    ) -> CommitmentRequest | None:
        """Take the request that has been due longest, and count the attempt. It is due again at `until`.

        Parameters
        ----------
        of
            Only a request of the same peer.
        """
        due = _REQUESTS.where(commitment_requests.c.state == RequestState.PENDING, commitment_requests.c.due_at <= now)
        if of is not None:
            due = due.where(commitment_requests.c.calling_ae == of.calling_ae, commitment_requests.c.peer == of.peer)
        due = due.order_by(commitment_requests.c.due_at, commitment_requests.c.request_id).limit(1)
        for _ in range(TRIES):
            with self.reading() as connection:
                row = connection.execute(due).one_or_none()
            if row is None:
                return None
            with self.writing() as connection:
                taken = connection.execute(
                    update(commitment_requests)
                    .where(
                        commitment_requests.c.request_id == row.request_id,
                        commitment_requests.c.state == RequestState.PENDING,
                        commitment_requests.c.due_at == row.due_at,
                    )
                    .values(due_at=until, attempts=commitment_requests.c.attempts + 1)
                )
            if taken.rowcount:
                return self.request(row.request_id)
        return None

    def request(self, request_id: int) -> CommitmentRequest:
        """One request. Raises `RowMissing`."""
        with self.reading() as connection:
            row = connection.execute(_REQUESTS.where(commitment_requests.c.request_id == request_id)).one_or_none()
        if row is None:
            raise RowMissing("commitment request", request_id)
        return _request(row)

    def put_off_request(self, request_id: int, due_at: datetime, error: str | None = None) -> None:
        """Let a request be due at `due_at`; with an `error`, after a try without success."""
        self._move_request(
            request_id, RequestState.PENDING, due_at=due_at, **({} if error is None else {"last_error": error})
        )

    def put_off_peer(self, of: CommitmentRequest, due_at: datetime, error: str) -> None:
        """Nobody answers at a peer: let nothing be due there before `due_at`, so that other peers do not wait."""
        with self.writing() as connection:
            connection.execute(
                update(commitment_requests)
                .where(
                    commitment_requests.c.state == RequestState.PENDING,
                    commitment_requests.c.calling_ae == of.calling_ae,
                    commitment_requests.c.peer == of.peer,
                    commitment_requests.c.due_at < due_at,
                )
                .values(due_at=due_at, last_error=error)
            )

    def request_answered(self, request_id: int, failures: int, now: datetime) -> None:
        """The peer confirmed our report, in which so many objects were not committed to."""
        self._move_request(request_id, RequestState.ANSWERED, failures=failures, answered_at=now, last_error="")

    def give_up_request(self, request_id: int, error: str) -> None:
        """Nobody will be told."""
        self._move_request(request_id, RequestState.GIVEN_UP, last_error=error)

    def instances_named(self, sop_instance_uids: Collection[str]) -> dict[str, tuple[StoredInstance, ...]]:
        """The rows of each of these SOP Instance UIDs; one that has none is left out."""
        found: dict[str, tuple[StoredInstance, ...]] = {}
        wanted = sorted(set(sop_instance_uids))
        with self.reading() as connection:
            for start in range(0, len(wanted), BATCH):
                of_these = rows.SELECT_INSTANCES.where(
                    instances.c.sop_instance_uid.in_(wanted[start : start + BATCH])
                ).order_by(instances.c.instance_id)
                for stored in map(rows.stored_instance, connection.execute(of_these)):
                    uid = stored.instance.sop_instance_uid
                    found[uid] = (*found.get(uid, ()), stored)
        return found

    def count_requests(self) -> dict[RequestState, int]:
        """How many requests of peers are in each state. A state without any is left out."""
        counted = select(commitment_requests.c.state, func.count()).group_by(commitment_requests.c.state)
        with self.reading() as connection:
            return {state: count for state, count in connection.execute(counted)}

    def pending_requests(self, calling_ae: str) -> int:
        """How many requests of one peer wait for their answer."""
        waiting = select(func.count()).where(
            commitment_requests.c.state == RequestState.PENDING, commitment_requests.c.calling_ae == calling_ae
        )
        with self.reading() as connection:
            return int(connection.execute(waiting).scalar_one())

    def unanswered_requests(self, limit: int) -> tuple[CommitmentRequest, ...]:
        """The requests that were given up or still wait, the newest first."""
        found = _REQUESTS.where(commitment_requests.c.state != RequestState.ANSWERED)
        with self.reading() as connection:
            return tuple(
                map(_request, connection.execute(found.order_by(commitment_requests.c.request_id.desc()).limit(limit)))
            )

    def forget_requests(self, before: datetime) -> int:
        """Remove settled requests received earlier, and say how many."""
        settled = delete(commitment_requests).where(
            commitment_requests.c.received_at < before, commitment_requests.c.state != RequestState.PENDING
        )
        with self.writing() as connection:
            return connection.execute(settled).rowcount

    def _move_request(self, request_id: int, new: RequestState, **values: object) -> None:
        """Take a PENDING request on; one that another process has settled meanwhile stays."""
        _, state = request_step(RequestState.PENDING, new)
        with self.writing() as connection:
            connection.execute(
                update(commitment_requests)
                .where(
                    commitment_requests.c.request_id == request_id,
                    commitment_requests.c.state == RequestState.PENDING,
                )
                .values(state=state, **values)
            )


def _request(row: Row[Any]) -> CommitmentRequest:
    values = dict(row._mapping)
    references = json.loads(values.pop("references_json"))
    return CommitmentRequest(references=tuple(SopReference(*pair) for pair in references), **values)


_REQUESTS: Select[Any] = select(commitment_requests)
