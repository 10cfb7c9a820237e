"""The program that opens untrusted files: loads the readers once, then gives each file a fresh child of its own.

A child is made before its file comes, confines itself, opens one file, answers and ends. What one file does to its
child, the next never meets. This process itself reads no file and nothing that a child says.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from pacs_node.opening.confinement import Bounds, Fence, confine, end_with_parent, make_fence
from pacs_node.opening.framing import Answer, Kind, Outcome, Request, receive_request, send_answer
from pacs_node.opening.plain import to_plain

WAITING = struct.Struct(">4sII")
"""To the worker, with a descriptor: a child waits at it. Mark, number of the child, version of Landlock."""
ENDED = struct.Struct(">4sIi")
"""To the worker: mark, number of the child, its exit status or, negative, the signal that ended it."""
KILL = struct.Struct(">I")
"""From the worker: end the child of this number."""
WAITING_MARK, ENDED_MARK = b"wait", b"ends"
READY = b"R"
"""A child's first byte: it is confined."""


def main() -> None:
    """Serve the worker at standard input. Arguments: its process number, bytes and processor seconds a file."""
    parent, memory_bytes, cpu_seconds = map(int, sys.argv[1:])
    end_with_parent(parent)
    load_readers()
    serve(socket.socket(fileno=os.dup(0)), Bounds(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds), open_file)


def load_readers() -> None:
    """Import everything that opens files, so that no child has to."""
    import ecg_ingest

    for module in pkgutil.iter_modules(ecg_ingest.__path__, "ecg_ingest."):
        importlib.import_module(module.name)
    # What these load when first used.
    for name in ("inference.radiograph", "pydicom.pixels.decoders", "numpy.ma", "PIL.ImageFile", "PIL.PngImagePlugin"):
        importlib.import_module(name)
    import cv2

    cv2.setNumThreads(1)  # a confined child can start no thread
    sys.dont_write_bytecode = True


def serve(control: socket.socket, bounds: Bounds, work: Callable[[socket.socket], None]) -> None:
    """Keep one confined child waiting to `work`, until the worker is gone."""
    # Libraries print there what they think of a file; a patient's name may be in it.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    import ecg_ingest
    import inference
    import pacs_node

    packages = [Path(str(package.__file__)).resolve().parent for package in (ecg_ingest, inference, pacs_node)]
    fence = make_fence(*packages)
    gc.collect()
    gc.freeze()
    number = 0
    while True:
        number += 1
        ours, theirs = socket.socketpair()
        server = os.getpid()
        child = os.fork()
        if child == 0:
            _be_child(server, bounds, fence, ours, work)
        ours.close()
        try:
            socket.send_fds(control, [WAITING.pack(WAITING_MARK, number, fence.version)], [theirs.fileno()])
            theirs.close()
            status = _watch(control, child, number)
            control.send(ENDED.pack(ENDED_MARK, number, status))
        except (ConnectionError, EOFError):
            return  # the worker is gone; a child that still works dies with us


def open_file(connection: socket.socket) -> None:
    """In the child: one request, one answer."""
    request = receive_request(connection)
    try:
        answer = _opened(request)
    except MemoryError:
        answer = Answer(outcome=Outcome.OUT_OF_MEMORY, fields={})
    send_answer(connection, answer)


def _be_child(
    server: int, bounds: Bounds, fence: Fence, connection: socket.socket, work: Callable[[socket.socket], None]
) -> None:
    """Never returns."""
    status = 1
    try:
        end_with_parent(server)
        confine(bounds, fence, connection.fileno())
        connection.sendall(READY)
        work(connection)
        status = 0
    finally:
        os._exit(status)


def _watch(control: socket.socket, child: int, number: int) -> int:
    """How the child ended; killed if the worker says so. Raises EOFError if the worker is gone."""
    descriptor = os.pidfd_open(child)
    try:
        watched = select.poll()
        watched.register(descriptor, select.POLLIN)
        watched.register(control, select.POLLIN)
        while True:
            ready = {ready for ready, _ in watched.poll()}
            if descriptor in ready:
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            message = control.recv(KILL.size)
            if not message:
                raise EOFError
            if KILL.unpack(message) == (number,):
                os.kill(child, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _opened(request: Request) -> Answer:
    from ecg_ingest.lead_images import EcgRefused
    from inference.radiograph import RadiographUnusable

    try:
        return _READERS[request.kind](request)
    except (EcgRefused, RadiographUnusable) as refusal:
        words = {"reason": refusal.reason.value, "detail": refusal.detail, "hint": refusal.hint}
        return Answer(outcome=Outcome.REFUSED, fields={name: to_plain(text) for name, text in words.items()})
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a fault of a reader is told as such; its message may hold content
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        return Answer(outcome=Outcome.FAULT, fields={"where": where})


def _read_ecg(request: Request) -> Answer:
    import ecg_ingest

    leads = ecg_ingest.read(request.data, style=ecg_ingest.RenderStyle(**request.options))  # type: ignore[arg-type]
    return Answer(outcome=Outcome.OPENED, fields=to_plain(leads), arrays=(leads.pixels, leads.signals_mv))


def _draw_sheet(request: Request) -> Answer:
    import numpy as np

    from ecg_ingest.sheet_picture import sheet_picture

    pixels = sheet_picture(request.data, **request.options)  # type: ignore[arg-type]
    none = np.zeros((0, 0, 3), dtype=np.uint8)
    return Answer(outcome=Outcome.OPENED, fields={}, arrays=(none if pixels is None else pixels,))


def _read_radiograph(request: Request) -> Answer:
    from inference.radiograph import RadiographPreprocessing, read_radiograph

    radiograph = read_radiograph(request.data, RadiographPreprocessing.from_json(dict(request.options)))
    return Answer(outcome=Outcome.OPENED, fields=to_plain(radiograph), arrays=(radiograph.picture, radiograph.display))


_READERS = {Kind.ECG: _read_ecg, Kind.RADIOGRAPH: _read_radiograph, Kind.SHEET: _draw_sheet}


if __name__ == "__main__":
    main()
