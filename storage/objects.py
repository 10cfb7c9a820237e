"""Keep bytes under their sha256 in a folder: `root/ab/<sha256>`. Names come from digests and nothing else.

An object that `put` returned for survives a power failure. What refers to it, and since when, belongs to the
rows.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import mmap
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from storage.errors import NO_SPACE, ObjectDamaged, ObjectMissing, StorageFull, StorageUnavailable

TEMPORARY = "tmp"
ORPHANED = "orphaned"
STORE_ID = "STORE_ID"
LOCK = "lock"
READ_BYTES = 1 << 20
FRESH_SECONDS = 60.0
"""The last bytes of a younger object came so lately that they say well enough when it was put."""
_numbers = itertools.count()
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FOLDER = re.compile(r"[0-9a-f]{2}")


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """What `put` kept."""

    sha256: str
    size_bytes: int
    created: bool  # False: the same bytes were already there


class ObjectStore:
    """A content-addressed folder, private to its user (folders 0700, files 0600).

    Any number of threads, processes and machines may use one folder at once, if its file system has atomic
    renames and `flock` (local ones and NFSv4 do). Setting aside takes the folder's lock for itself and `put`
    shares it for the moment in which it decides that an object is already there, so that an object never goes
    away under a sender that was just told it exists.

    Parameters
    ----------
    root
        The folder; made if absent.

    Raises
    ------
    StorageUnavailable
        If the folder cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # As text too: joining Paths would cost more than the system calls on them.
        self._place = str(root)
        self._temporary = root / TEMPORARY
        self.orphaned = root / ORPHANED
        # Folders whose own entry in their parent this process has made durable.
        self._durable: set[str] = set()
        with _translated("open", root):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._temporary.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            _sync_folder(root)
            _sync_folder(root.parent)

    def writer(self) -> ObjectWriter:
        """A place for bytes that come in pieces; `put` keeps them, `discard` forgets them.

        Raises
        ------
        StorageFull, StorageUnavailable
            As `put`.
        """
        with _translated("write", self.root):
            return ObjectWriter(self.root, self._temporary)

    def put(self, data: bytes | Iterable[bytes] | ObjectWriter) -> StoredObject:
        """Keep `data`; when this returns, its bytes and every folder entry on the way to them are on disk.

        What a writer took is moved, not copied; the writer is of no use afterwards.

        Raises
        ------
        StorageFull
            If the volume, the quota or the file-size limit is reached. Nothing partial stays.
        StorageUnavailable
            If the folder cannot be written for another reason.
        """
        with _translated("write", self.root):
            if isinstance(data, bytes):
                sha256 = hashlib.sha256(data).hexdigest()
                if self._keep_present(sha256, len(data)):
                    return StoredObject(sha256=sha256, size_bytes=len(data), created=False)
                data = (data,)
            writer = data if isinstance(data, ObjectWriter) else ObjectWriter(self.root, self._temporary)
            try:
                if not isinstance(data, ObjectWriter):
                    for piece in data:
                        writer.write(piece)
                sha256, size_bytes = writer.sha256, writer.size_bytes
                created = not self._keep_present(sha256, size_bytes)
                if created:
                    writer.sync()
                    self._move_into_place(writer, sha256)
            finally:
                writer.discard()
            return StoredObject(sha256=sha256, size_bytes=size_bytes, created=created)

    def get(self, sha256: str, *, verify: bool = True) -> bytes:
        """The bytes kept under `sha256`.

        Raises
        ------
        ObjectMissing
            If there are none.
        ObjectDamaged
            If `verify` and they have another digest.
        """
        path = self.path(sha256)
        with _translated("read", self.root):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise ObjectMissing(sha256) from None
        if verify and hashlib.sha256(data).hexdigest() != sha256:
            raise ObjectDamaged(sha256, len(data))
        return data

    def check(self, sha256: str) -> None:
        """Pass if the bytes under `sha256` are whole; read in pieces, of any size. Raises as `get`."""
        digest = hashlib.sha256()
        size_bytes = 0
        with _translated("read", self.root):
            try:
                with self.path(sha256).open("rb") as file:
                    while piece := file.read(READ_BYTES):
                        digest.update(piece)
                        size_bytes += len(piece)
            except FileNotFoundError:
                raise ObjectMissing(sha256) from None
        if digest.hexdigest() != sha256:
            raise ObjectDamaged(sha256, size_bytes)

    def path(self, sha256: str) -> Path:
        """Where `sha256` lies or would lie. `ValueError` if it is not 64 lower-case hexadecimal digits."""
        if _DIGEST.fullmatch(sha256) is None:
            raise ValueError("not a sha256 in lower-case hexadecimal")
        return self.root / sha256[:2] / sha256

    def exists(self, sha256: str) -> bool:
        """Whether something is kept under `sha256`; its bytes are not looked at."""
        return self.path(sha256).is_file()

    def size_bytes(self, sha256: str) -> int | None:
        """The size of what is kept under `sha256`, or None if nothing is."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def set_aside(self, sha256: str, *, unused_for_seconds: float) -> bool:
        """Take an object that no row needs out of the way, unless something was put there lately.

        It moves to `orphaned/<sha256>`, from where `pulmolink import` takes it in again, and `remove_set_aside`
        removes it in time. A sender puts an object before its row is committed. The age guards that moment:
        it must be longer than any transaction takes (an hour is plenty).

        Returns
        -------
        bool
            True if it is out of the way, False if it is too young. An absent object is out of the way.
        """
        path = self.path(sha256)
        with _translated("set aside", self.root), self._locked(fcntl.LOCK_EX):
            try:
                if time.time() - path.stat().st_mtime < unused_for_seconds:
                    return False
            except FileNotFoundError:
                return True
            self.orphaned.mkdir(mode=0o700, exist_ok=True)
            os.utime(path)  # its time there counts from now
            path.rename(self.orphaned / sha256)
            _sync_folder(self.orphaned)
            _sync_folder(path.parent)
            _sync_folder(self.root)
        return True

    def count_set_aside(self) -> int:
        """How many objects lie in `orphaned`."""
        return sum(1 for name in _sorted_names(self.orphaned) if _DIGEST.fullmatch(name))

    def remove_set_aside(self, older_than_seconds: float) -> int:
        """Remove what was set aside so long ago, and say how many objects."""
        return self._remove_older(self.orphaned, older_than_seconds)

    def owner(self) -> str | None:
        """The identity of the database that this folder belongs to, None if it carries none."""
        with _translated("read", self.root):
            try:
                return (self.root / STORE_ID).read_text(encoding="ascii").strip()
            except FileNotFoundError:
                return None

    def claim(self, store_id: str) -> str:
        """Make a folder without identity that of `store_id`. The identity it has now: another may be quicker."""
        with _translated("claim", self.root):
            temporary = self._write_identity(store_id)
            try:
                # A link, and no rename, never replaces another's.
                os.link(temporary, self.root / STORE_ID)
                _sync_folder(self.root)
            except FileExistsError:
                pass
            finally:
                temporary.unlink(missing_ok=True)
        return self.owner() or ""

    def hand_over(self, store_id: str) -> None:
        """Make the folder that of `store_id`, whatever it was before."""
        with _translated("claim", self.root):
            self._write_identity(store_id).rename(self.root / STORE_ID)
            _sync_folder(self.root)

    def digests(self) -> Iterator[str]:
        """The digest of every object, in order. Objects put or set aside meanwhile may or may not appear."""
        for first in _sorted_names(self.root):
            if _FOLDER.fullmatch(first):
                for name in _sorted_names(self.root / first):
                    if _DIGEST.fullmatch(name):
                        yield name

    def sweep_temporary(self, older_than_seconds: float) -> int:
        """Remove what killed writers left, and say how many files. Younger files may still be written to."""
        return self._remove_older(self._temporary, older_than_seconds)

    def _remove_older(self, folder: Path, older_than_seconds: float) -> int:
        swept = 0
        with _translated("sweep", self.root):
            for name in _sorted_names(folder):
                path = folder / name
                try:
                    if time.time() - path.stat().st_mtime >= older_than_seconds:
                        path.unlink()
                        swept += 1
                except FileNotFoundError:
                    continue  # its writer finished, or another sweep was quicker
        return swept

    def _keep_present(self, sha256: str, size_bytes: int) -> bool:
        """Whether these bytes are already there for good; their age then starts anew (see `set_aside`)."""
        folder = f"{self._place}/{sha256[:2]}"
        path = f"{folder}/{sha256}"
        # A look before the lock: most objects are new.
        if not os.path.exists(path):  # noqa: PTH110
            return False
        with self._locked(fcntl.LOCK_SH):
            try:
                # Another size is what a failing volume leaves; the good bytes then replace it.
                if os.stat(path).st_size != size_bytes:  # noqa: PTH116
                    return False
                os.utime(path)
            except FileNotFoundError:
                return False
        # Whoever put it may have been killed between the rename and this.
        self._make_durable(folder)
        return True

    def _write_identity(self, store_id: str) -> Path:
        writer = ObjectWriter(self.root, self._temporary)
        try:
            writer.write(f"{store_id}\n".encode("ascii"))
            return writer.leave()
        finally:
            writer.discard()

    def _move_into_place(self, writer: ObjectWriter, sha256: str) -> None:
        folder = f"{self._place}/{sha256[:2]}"
        path = f"{folder}/{sha256}"
        with self._locked(fcntl.LOCK_SH):
            if writer.age_seconds > FRESH_SECONDS:
                writer.touch()  # its age counts from now, however slowly its bytes came
            try:
                writer.move(path)
            except FileNotFoundError:
                Path(folder).mkdir(mode=0o700, exist_ok=True)
                writer.move(path)
        self._make_durable(folder)

    def _make_durable(self, folder: str) -> None:
        """Put the entries of `folder` and its own on disk, the latter once a process."""
        _sync_folder(folder)
        if folder not in self._durable:
            _sync_folder(self.root)
            self._durable.add(folder)

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        # A descriptor of its own for each use: flock belongs to the open file, so threads must not share one.
        descriptor = os.open(f"{self._place}/{LOCK}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)


class ObjectWriter:
    """An object on its way in: a temporary file, its digest and its size. For one thread.

    `ObjectStore.writer` makes it, `ObjectStore.put` keeps it.

    Attributes
    ----------
    size_bytes : int
        What was written so far.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        # Whose process and which object: two writers never draw the same name, nor one that a dead writer left.
        self._name: str | None = f"{folder}/{os.getpid():x}-{time.time_ns():x}-{next(_numbers):x}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._name, flags, 0o600)
        self._digest = hashlib.sha256()
        self._since = time.monotonic()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """The digest of what was written so far, in lower-case hexadecimal."""
        return self._digest.hexdigest()

    @property
    def age_seconds(self) -> float:
        """Since when it is written to."""
        return time.monotonic() - self._since

    def write(self, *pieces: bytes | memoryview) -> None:
        """Append bytes.

        Raises
        ------
        StorageFull, StorageUnavailable
            The object is then of no use; `discard` it.
        """
        total = sum(map(len, pieces))
        with _translated("write", self._root):
            written = os.writev(self._descriptor, pieces) if len(pieces) > 1 else os.write(self._descriptor, pieces[0])
            if written < total:
                self._write_rest(pieces, written)
        for piece in pieces:
            self._digest.update(piece)
        self.size_bytes += total

    def mapped(self) -> mmap.mmap:
        """What was written so far, to be read; the caller closes it."""
        with _translated("read", self._root):
            return mmap.mmap(self._descriptor, 0, prot=mmap.PROT_READ)

    def sync(self) -> None:
        """Put the bytes on disk."""
        os.fsync(self._descriptor)

    def touch(self) -> None:
        """Set the time of the last change to now."""
        os.utime(self._descriptor)

    def move(self, path: str) -> None:
        """Give the file its name for good."""
        if self._name is None:
            raise ValueError("this object was put or discarded before")
        os.rename(self._name, path)  # noqa: PTH104 - a name, not a Path, on the hot path
        self._name = None

    def leave(self) -> Path:
        """Put the bytes on disk and leave the temporary file to the caller."""
        if self._name is None:
            raise ValueError("this object was put or discarded before")
        self.sync()
        path, self._name = Path(self._name), None
        return path

    def discard(self) -> None:
        """Close and remove the temporary file, unless `put` moved it. Harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._name is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._name)  # noqa: PTH108
            self._name = None

    def _write_rest(self, pieces: tuple[bytes | memoryview, ...], written: int) -> None:
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


def _sync_folder(folder: Path | str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sorted_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


@contextmanager
def _translated(operation: str, root: Path) -> Iterator[None]:
    """Turn the operating system's errors into ours. `root` is configuration, so it may be named."""
    try:
        yield
    except OSError as error:
        if errno.errorcode.get(error.errno or 0, "") in NO_SPACE:
            raise StorageFull(operation, str(root)) from error
        raise StorageUnavailable(
            f"cannot {operation} objects in {root}: {error.strerror or type(error).__name__}",
            "check that the folder exists, that this user may write it, and that its volume is mounted",
        ) from error
