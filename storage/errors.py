"""What can go wrong with rows and objects: one base, one class for each thing a caller treats differently.

No message holds patient data: database errors are translated here, and their own text, which quotes values,
is dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final


class StorageError(Exception):
    """Rows or objects could not be read or written. `hint` says what a person can do about it, or is ""."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class StorageFull(StorageError):
    """The disk, or the allowance of this user or process, is full. A sender should be told 0xA700."""

    def __init__(self, operation: str, where: str) -> None:
        super().__init__(
            f"no space left: {operation} in {where}",
            "free space on the volume or raise the quota; what was acknowledged is safe",
        )
        self.operation = operation


class StorageBusy(StorageError):
    """Another writer held the database for longer than the configured wait. Trying again is right."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"the database is busy: {detail}", "try again; if it lasts, look for a process that hangs")


class StorageUnavailable(StorageError):
    """The database or the object folder cannot be reached, opened or used."""


class StorageConflict(StorageError):
    """A row breaks a rule of the schema, such as uniqueness. `constraint` names it, never a value."""

    def __init__(self, constraint: str) -> None:
        super().__init__(f"a stored row contradicts the new one: {constraint}")
        self.constraint = constraint


class SchemaOutdated(StorageError):
    """The database's schema is older than the program, or absent. `found` is "" for an empty database."""

    def __init__(self, found: str, wanted: str) -> None:
        state = f"is at revision {found}" if found else "has no schema"
        super().__init__(f"the database {state}, this program needs {wanted}", "run pulmolink db upgrade")
        self.found = found
        self.wanted = wanted


class SchemaTooNew(StorageError):
    """The database was upgraded by a later program than this one."""

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(
            f"the database is at revision {found}, which this program ({wanted}) does not know",
            "start the version of pulmolink that upgraded it, or restore a backup made before the upgrade",
        )
        self.found = found
        self.wanted = wanted


class RowMissing(StorageError):
    """No row has this number."""

    def __init__(self, noun: str, row_id: int) -> None:
        super().__init__(f"there is no {noun} {row_id}")
        self.noun = noun
        self.row_id = row_id


class IllegalTransition(StorageError):
    """A state may not follow another (`transitions.py`). Nothing was written."""

    def __init__(self, noun: str, row_id: int, old: str, new: str) -> None:
        super().__init__(f"{noun} {row_id} may not go from {old} to {new}")
        self.noun = noun
        self.row_id = row_id
        self.old = old
        self.new = new


class ObjectMissing(StorageError):
    """No object is stored under this digest."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"object {sha256} is not stored", "run pulmolink db verify")
        self.sha256 = sha256


class ObjectDamaged(StorageError):
    """The bytes stored under a digest do not have it."""

    def __init__(self, sha256: str, size_bytes: int) -> None:
        super().__init__(
            f"object {sha256} is damaged: the {size_bytes} bytes on disk have another digest",
            "restore this object from a backup, or have the sender send it again; check the volume",
        )
        self.sha256 = sha256
        self.size_bytes = size_bytes


class StoreMismatch(StorageError):
    """The database and the object folder do not belong together. Nothing was read or written."""


class SweepRefused(StorageError):
    """So many objects have no row that the database is suspected and not they. Nothing was moved."""

    def __init__(self, orphans: int, objects: int) -> None:
        super().__init__(
            f"{orphans} of {objects} objects have no row in the database: too many to set aside unasked",
            "if the database was restored from a backup, pulmolink import FOLDER over the object folder takes them in "
            "again; otherwise look at pulmolink db verify, then run pulmolink db sweep --yes",
        )
        self.orphans = orphans
        self.objects = objects


class BackupRefused(StorageError):
    """A backup was not made. The target was left as it was."""

    def __init__(self, target: Path, why: str, hint: str) -> None:
        super().__init__(f"no backup to {target.name}: {why}", hint)
        self.target = target


NO_SPACE: Final = frozenset({"ENOSPC", "EDQUOT", "EFBIG"})
"""errno names that mean full: volume, quota, and the process's file-size limit."""
