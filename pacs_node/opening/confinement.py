"""Take from a process what an opened file could misuse, before it sees the file's first byte. Linux only.

Memory, processor time, file descriptors, new files, new programs and, where the kernel has Landlock, every file
but the program's own and every TCP connection. Undoes nothing: who was confined stays so.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DESCRIPTORS = 16
"""Open files that a confined process may have: its connection, three for nothing, the rest for late imports."""

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same numbers on every architecture
_VERSION, _PATH_BENEATH = 1, 1  # linux/landlock.h
_READ = (1 << 2) | (1 << 3)  # LANDLOCK_ACCESS_FS_READ_FILE, _READ_DIR
_FILE_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}  # by version: every right it knows
_TCP = 0b11  # bind and connect, from version 4
_SCOPES = 0b11  # abstract sockets and signals of others, from version 6

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one opening may use."""

    memory_bytes: int  # address space of the process
    cpu_seconds: int  # processor time


@dataclass(frozen=True, kw_only=True)
class Fence:
    """A Landlock ruleset that is ready to be entered, or none where the kernel has no Landlock."""

    descriptor: int  # -1: none
    version: int  # 0: none


def end_with_parent(parent: int) -> None:
    """Be killed when `parent`, which started this process, ends; at once if it ended already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def make_fence(*packages: Path) -> Fence:
    """A ruleset that lets a process read Python's own files and `packages`, and no other file."""
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return Fence(descriptor=-1, version=0)
    rights = _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]
    attributes = struct.pack("=QQQ", rights, _TCP, _SCOPES)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = int(_libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    if ruleset < 0:
        return Fence(descriptor=-1, version=0)
    own = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    for folder in {*own, *packages, Path("/usr/lib"), Path("/lib"), Path("/lib64")}:
        with suppress(FileNotFoundError):
            _let_read(ruleset, folder)
    return Fence(descriptor=ruleset, version=int(version))


def confine(bounds: Bounds, fence: Fence, keep: int) -> None:
    """Confine this process for good; of its open files only `keep` and the three standard ones stay.

    Raises
    ------
    OSError
        Something could not be taken away: the process must not open anything.
    """
    # If memory runs out on the machine, this process is the one to end. A container may not let it say so.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if fence.version and _libc.syscall(_RESTRICT_SELF, fence.descriptor, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.closerange(3, keep)
    os.closerange(keep + 1, max(keep + 1, os.sysconf("SC_OPEN_MAX")))
    for limit, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NPROC, 0, 0),  # no thread and no process more; the superuser is not bound by it
        (resource.RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS),
        (resource.RLIMIT_AS, bounds.memory_bytes, bounds.memory_bytes),
        (resource.RLIMIT_CPU, bounds.cpu_seconds, bounds.cpu_seconds + 1),  # SIGXCPU, then SIGKILL
    ):
        # What this process was started with may be less already, and cannot be raised.
        given = resource.getrlimit(limit)[1]
        most = hard if given == resource.RLIM_INFINITY else min(hard, given)
        resource.setrlimit(limit, (min(soft, most), most))


def _let_read(ruleset: int, folder: Path) -> None:
    descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", _READ, descriptor)
        if _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_add_rule")
    finally:
        os.close(descriptor)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
