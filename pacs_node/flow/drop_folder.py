"""Take in what ECG carts drop into a folder: wait until a file is whole, store it, and only then move it away.

Each round looks at every file. A file goes to done/ (or is deleted) once it is durably stored, to held/ if a person
must say whose it is, to refused/ with the reason beside it if it cannot be used. Nothing is remembered that a restart
would miss: a file that lies in the folder is not done, and the same file gives the same object.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from ecg_ingest.lead_images import EcgRefused, RenderStyle
from pacs_node.flow.drop_identity import DONE, MAX_SIDECAR_BYTES, Identity, SidecarWrong, identity_of
from pacs_node.flow.ecg_file import as_dicom
from pacs_node.flow.part10 import DataSetBytes, HeaderUnreadable, from_part10
from pacs_node.flow.receive import SUCCESS, Incoming, Receipt, Receiver
from pacs_node.opening.opener import NotOpened, Opener, OpenerUnavailable
from pacs_node.settings import Settings
from storage.records import Disposition

log = structlog.get_logger()

CALLING_AE = "folder"
HELD, REFUSED = "held", "refused"
UNFINISHED_SUFFIXES = frozenset({".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".swp"})
"""Programs that copy write under such a name and rename when they are through."""

CLAIMED = ".pulmolink-"
"""How the JSON of a file begins to be called while both are put away."""

_BUSY = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})


@dataclass(frozen=True, kw_only=True)
class _State:
    """What a file looked like, and since when."""

    size: int
    changed_ns: int
    inode: int
    since: float  # of the monotonic clock


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """Where a file goes. `code` is for logs, `reason` for the person who finds the file."""

    place: str
    code: str
    reason: str = ""
    hint: str = ""


class DropFolder:
    """One watched folder. Call `look` again and again; one thread, one process."""

    def __init__(
        self,
        settings: Settings,
        receiver: Receiver,
        opener: Opener,
        monotonic: Callable[[], float],
        clock: Callable[[], datetime],
    ) -> None:
        self._rules = settings.folder
        self._settings = settings
        self._folder = Path(settings.folder.path)
        self._receiver = receiver
        self._opener = opener
        self._monotonic = monotonic
        self._clock = clock
        self._seen: dict[Path, _State] = {}
        self._again_at: dict[Path, float] = {}

    def look(self, stop: Callable[[], bool] = lambda: False) -> int:
        """One round; how many files left the folder. Ends early, between two files, where `stop` says so.

        Raises
        ------
        OSError
            The folder itself cannot be read.
        """
        now = self._monotonic()
        found = self._files()
        self._seen = {path: self._state(path, status, now) for path, status in found.items()}
        self._again_at = {path: at for path, at in self._again_at.items() if path in found}
        taken = 0
        for path in sorted(found):
            if stop():
                break
            if path.suffix.lower() != ".json" and self._is_due(path, now):
                taken += self._take(path, now)
        return taken

    def _files(self) -> dict[Path, os.stat_result]:
        """Regular files in the folder and those inside it; no links, nothing hidden, nothing of our own."""
        found: dict[Path, os.stat_result] = {}
        claims: list[Path] = []
        own = {self._folder / name for name in (DONE, HELD, REFUSED)}
        for folder, folders, names in os.walk(self._folder, onerror=_raise, followlinks=False):
            here = Path(folder)
            folders[:] = [name for name in folders if here / name not in own and not name.startswith(".")]
            for name in names:
                path = here / name
                if name.startswith(CLAIMED):
                    claims.append(path)
                if name.startswith((".", "~")) or path.suffix.lower() in UNFINISHED_SUFFIXES:
                    continue
                try:
                    status = path.lstat()
                except OSError:
                    continue  # renamed or taken back meanwhile
                if stat.S_ISREG(status.st_mode):
                    found[path] = status
        self._tidy([claim for claim in claims if all(path.parent != claim.parent for path in found)])
        return found

    def _tidy(self, claims: list[Path]) -> None:
        """Put away the JSON of files that were taken just before a crash; where a file waits, one may be its own."""
        for claim in claims:
            if self._rules.stored == "delete":
                claim.unlink()
                continue
            (self._folder / DONE).mkdir(exist_ok=True)
            claim.rename(self._folder / DONE / claim.name.removeprefix("."))

    def _state(self, path: Path, status: os.stat_result, now: float) -> _State:
        before = self._seen.get(path)
        seen = (status.st_size, status.st_mtime_ns, status.st_ino)
        unchanged = before is not None and (before.size, before.changed_ns, before.inode) == seen
        since = before.since if before is not None and unchanged else now
        return _State(size=seen[0], changed_ns=seen[1], inode=seen[2], since=since)

    def _is_due(self, path: Path, now: float) -> bool:
        state = self._seen.get(path)
        if state is None:
            return False  # came after the round began
        return now - state.since >= self._rules.settle_seconds and now >= self._again_at.get(path, 0.0)

    def _take(self, path: Path, now: float) -> bool:
        """Store one file and move it away; False if it stays for another round.

        Its JSON file is first renamed to a name that only these bytes have: were it left behind by a crash, the next
        file of the same name could be another patient's.
        """
        try:
            content = self._whole(path)
            if content is None:
                return False
            digest = hashlib.sha256(content).hexdigest()
            claimed = path.with_name(f"{CLAIMED}{digest[:32]}.json")
            sidecar = claimed if claimed.is_file() else _sidecar(path)
            if sidecar not in (None, claimed) and not self._is_due(sidecar, now):
                return False
            outcome = self._store(path, content, sidecar, now)
            if outcome is None:
                return False
            if sidecar is not None:
                sidecar = sidecar.rename(claimed)
            self._put_away(path, sidecar, outcome)
        except (OSError, OpenerUnavailable) as error:
            words = error.strerror if isinstance(error, OSError) else None
            log.error("file_left", error=words or type(error).__name__)
            self._again_at[path] = now + self._rules.retry_seconds
            return False
        log.info("file_taken", to=outcome.place, reason=outcome.code, content=digest[:12])
        return True

    def _whole(self, path: Path) -> bytes | None:
        """The file's bytes; None while somebody still has it open for writing, holds its lock, or changes it."""
        state = self._seen[path]
        limit = self._settings.limits.object_bytes
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if _is_written_to(descriptor):
                return None
            content = file.read(limit + 1)
            status = os.fstat(descriptor)
        if (status.st_size, status.st_mtime_ns, status.st_ino) != (state.size, state.changed_ns, state.inode):
            return None
        return content

    def _store(self, path: Path, content: bytes, sidecar: Path | None, now: float) -> _Outcome | None:
        """What becomes of a whole file; None: later."""
        if len(content) > self._settings.limits.object_bytes:
            return _Outcome(place=REFUSED, code="too_large", reason="larger than limits.object_bytes")
        if content[128:132] == b"DICM":
            try:
                return self._received(path, from_part10(content), now)
            except HeaderUnreadable as error:
                return _Outcome(place=REFUSED, code="damaged", reason=str(error))
        wrong = ""
        identity = Identity()
        try:
            told = _small(sidecar) if sidecar is not None else None
            identity = identity_of(path.name, told, self._rules, self._settings.node.zone)
        except SidecarWrong as error:
            wrong = str(error)
        waited = now - self._seen[path].since
        if not (identity.is_enough or wrong or sidecar) and waited < self._rules.sidecar_seconds:
            return None
        try:
            images = self._opener.ecg(content, RenderStyle())
            issuer = self._rules.issuer or self._settings.pairing.default_issuer
            # Of half an identity nothing is used: a patient ID without a time must not look as if it counted.
            patient = (identity if identity.is_enough else Identity()).patient(issuer if identity.is_enough else "")
            acquired_at = identity.acquired_at if identity.is_enough else None
            parts = as_dicom(content, images, patient, acquired_at, self._opener)
        except (EcgRefused, NotOpened) as refusal:
            return _Outcome(place=REFUSED, code=refusal.reason.value, reason=refusal.detail, hint=refusal.hint)
        return self._received(path, parts, now, wrong)

    def _received(self, path: Path, parts: DataSetBytes, now: float, wrong: str = "") -> _Outcome | None:
        receipt: Receipt = self._receiver.receive(Incoming(parts=parts, calling_ae=CALLING_AE, ecg_documents=True))
        if receipt.disposition is None:  # nothing was kept, for a reason that may pass
            self._again_at[path] = now + self._rules.retry_seconds
            return None
        code, _, sentence = receipt.reason.partition(": ")
        if receipt.status != SUCCESS or receipt.disposition is Disposition.HELD:
            hint = (
                f"`pulmolink accept {receipt.number} --patient-id ... --acquired-at ...` lets it count "
                f"(`pulmolink held` lists it as {receipt.number}), or put this file back into the folder with a JSON "
                "file beside it"
            )
            code = "sidecar_wrong" if wrong else code or "unreadable"
            return _Outcome(place=HELD, code=code, reason=wrong or sentence or receipt.comment, hint=hint)
        if receipt.disposition is Disposition.REFUSED:
            return _Outcome(place=REFUSED, code=code, reason=sentence)
        return _Outcome(place=DONE, code=code)

    def _put_away(self, path: Path, sidecar: Path | None, outcome: _Outcome) -> None:
        """Move the file and its JSON to their place, each in one step, the reason first; delete what is asked for."""
        if outcome.place == DONE and self._rules.stored == "delete":
            path.unlink()
            if sidecar is not None:
                sidecar.unlink(missing_ok=True)
            _sync(path.parent)
            return
        place = self._folder / outcome.place
        place.mkdir(exist_ok=True)
        name = _free_name(place, path.name)
        if outcome.reason:
            told = {"reason": outcome.code, "detail": outcome.reason, "hint": outcome.hint}
            _write(place / f"{name}.reason.txt", {**told, "at": self._clock().isoformat(timespec="seconds")})
        path.rename(place / name)
        if sidecar is not None:
            sidecar.rename(place / f"{name}.json")
        _sync(place)
        _sync(path.parent)


def _raise(error: OSError) -> None:
    raise error


def _is_written_to(descriptor: int) -> bool:
    """Whether another process has the file open for writing, or locked it.

    A read lease is granted only where nobody writes (fcntl(2)); file systems and owners for which the kernel grants
    none cannot tell, and there an unchanged size and time must do.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError as error:
        if error.errno in _BUSY:
            return True
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


def _sidecar(path: Path) -> Path | None:
    """The JSON file beside a file: NAME.pdf.json, else NAME.json."""
    for candidate in (path.with_name(f"{path.name}.json"), path.with_suffix(".json")):
        if candidate.is_file() and not candidate.is_symlink():
            return candidate
    return None


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_SIDECAR_BYTES + 1)
    if len(content) > MAX_SIDECAR_BYTES:
        raise SidecarWrong("the JSON file is too large")
    return content


def _free_name(place: Path, name: str) -> str:
    """`name`, or with a number where a file of that name lies there already: nothing is overwritten."""
    stem, suffix = Path(name).stem, Path(name).suffix
    number, free = 1, name
    while (place / free).exists():
        number += 1
        free = f"{stem}~{number}{suffix}"
    return free


def _write(path: Path, told: dict[str, str]) -> None:
    """A small JSON text, there whole or not at all."""
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(told, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
