"""Keep rows and objects that belong together together: both carry the same identity, or nothing starts.

A database that is new, mistyped or of another node must not be used with a folder of objects that it knows
nothing of: every object in it would look like one that nobody needs.
"""

from __future__ import annotations

from sqlalchemy import select

from storage.connections import Connections
from storage.errors import StoreMismatch
from storage.objects import ObjectStore
from storage.schema import installation, instances


def bind(store: Connections, objects: ObjectStore) -> None:
    """Pass if `objects` is the folder of `store`; a folder that carries no identity gets it, if it fits.

    Raises
    ------
    StoreMismatch
        If the folder belongs to another database, or shows that it cannot belong to this one.
    """
    check(store, objects)
    if objects.owner() is None and objects.claim(store_id(store)) != store_id(store):
        check(store, objects)


def check(store: Connections, objects: ObjectStore) -> None:
    """As `bind`, and nothing is written."""
    theirs = objects.owner()
    if theirs is None:
        _check_fit(store, objects)
    elif theirs != store_id(store):
        state = "new and empty" if _newest_object(store) is None else "another one's"
        raise StoreMismatch(
            f"the object folder {objects.root} belongs to another database; the configured one is {state}",
            "check [storage] database and objects; restore the backup of the database that belongs to the folder; "
            "or, to use the folder with this database from now on, run pulmolink db adopt --yes",
        )


def adopt(store: Connections, objects: ObjectStore) -> None:
    """Make `objects` the folder of `store`, whatever it belonged to. A person must have said so."""
    objects.hand_over(store_id(store))


def check_bound(store: Connections, objects: ObjectStore) -> None:
    """Pass if `bind` passed for the two before, at any time. Raises `StoreMismatch`."""
    if objects.owner() != store_id(store):
        raise StoreMismatch(
            f"the object folder {objects.root} does not carry the identity of this database", "run pulmolink doctor"
        )


def store_id(store: Connections) -> str:
    """The identity that a database was given when it was made."""
    with store.reading() as connection:
        return str(connection.scalars(select(installation.c.store_id)).one())


def _check_fit(store: Connections, objects: ObjectStore) -> None:
    """A folder without identity must be as empty as the database, or hold what the database names."""
    newest = _newest_object(store)
    if newest is None and next(objects.digests(), None) is not None:
        raise StoreMismatch(
            f"the database is new, and the object folder {objects.root} holds objects that it does not know",
            "check [storage] database and objects; restore the backup of the database; or, to start anew over these "
            "objects, run pulmolink db adopt --yes",
        )
    if newest is not None and not objects.exists(newest):
        raise StoreMismatch(
            f"the object folder {objects.root} lacks what the database names",
            "check [storage] objects and that its volume is mounted; if the objects are lost, "
            "run pulmolink db adopt --yes",
        )


def _newest_object(store: Connections) -> str | None:
    with store.reading() as connection:
        return connection.scalar(
            select(instances.c.sha256)
            .where(instances.c.purged_at.is_(None))
            .order_by(instances.c.instance_id.desc())
            .limit(1)
        )
