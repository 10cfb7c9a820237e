"""Take one due row out of a queue table under a lease, so that no two workers have it.

A queue is asked for in branches, each a range of one index in the order in which its rows are due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Row,
    Select,
    Table,
    Update,
    bindparam,
    literal_column,
    or_,
    select,
    union_all,
    update,
)

from storage.connections import Connections

TRIES = 3
"""How often a claim looks again when another worker was quicker."""


class Claim:
    """The statements that claim from one queue, built once and run often.

    Parameters
    ----------
    table
        A queue: it has `due_at`, `attempts`, `lease_owner` and `lease_until`.
    key
        Its primary key.
    branches
        Conditions of which one must hold, beside being due and free. They may use bound parameters.
    within
        Columns of the index that stand before `due_at` and that a branch leaves as a range.
    also
        More columns to set when a row is claimed, as expressions over its old values.
    """

    def __init__(
        self,
        table: Table,
        key: Column[Any],
        branches: Sequence[ColumnElement[bool]],
        within: Sequence[Column[Any]] = (),
        also: Mapping[str, Any] | None = None,
    ) -> None:
        self._key = key
        now = bindparam("now", type_=table.c.due_at.type)
        free = or_(table.c.lease_until.is_(None), table.c.lease_until <= now)
        oldest = [
            select(key)
            .where(branch, table.c.due_at <= now, free)
            .order_by(*within, table.c.due_at, key)
            .limit(1)
            .correlate(None)
            for branch in branches
        ]
        first_of_each = union_all(
            *(
                select(chosen.with_only_columns(literal_column(str(number)).label("branch"), table.c.due_at).subquery())
                for number, chosen in enumerate(oldest)
            )
        ).subquery()
        self._look: Select[Any] = (
            select(first_of_each.c.branch).order_by(first_of_each.c.due_at, first_of_each.c.branch).limit(1)
        )
        self._takes: list[Update] = [
            update(table)
            .where(key == chosen.with_for_update(skip_locked=True).scalar_subquery())
            .values(
                lease_owner=bindparam("new_owner"),
                lease_until=bindparam("new_until"),
                attempts=table.c.attempts + 1,
                **(also or {}),
            )
            for chosen in oldest
        ]

    def run(
        self,
        store: Connections,
        read: Select[Any],
        *,
        owner: str,
        lease_seconds: float,
        now: datetime,
        **parameters: object,
    ) -> Row[Any] | None:
        """Claim the oldest due row and return it as selected by `read`, or None if nothing is due.

        A look costs no lock and no commit. Only when it finds something is the row taken in a write
        transaction; if another worker was quicker, it looks again.
        """
        parameters |= {"now": now}
        taking = parameters | {"new_owner": owner, "new_until": now + timedelta(seconds=lease_seconds)}
        for _ in range(TRIES):
            with store.reading() as connection:
                branch = connection.scalar(self._look, parameters)
            if branch is None:
                return None
            with store.writing() as connection:
                taken = connection.scalar(self._takes[branch].returning(self._key), taking)
                if taken is not None:
                    return connection.execute(read.where(self._key == taken)).one()
        return None
