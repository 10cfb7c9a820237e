"""The ways to answer an examination that `tests.benchmarks.inference` puts side by side, one process each.

python -m tests.benchmarks.contenders make FOLDER MODEL THREADS NAME... writes one network with random weights as a
package and as the files of other engines; python -m tests.benchmarks.contenders NAME FOLDER MODEL THREADS loads one of
them and measures once for every line on its standard input. Each answers with one JSON object a line.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecg_ingest import RenderStyle
from inference.architecture import VIT_BASE, VIT_LARGE, VIT_SMALL, Architecture
from inference.calibration import Calibration, fit_reference
from inference.devices import multiplies_fast
from inference.engine import Engine, lead_tensor, tensors_of
from inference.explanation import Typical
from inference.lowering import lower
from inference.manifest import EcgPreprocessing, Manifest, PackageKind
from inference.network import FusedNetwork
from inference.package import WEIGHTS, GoldenCase, quantised, write_package
from inference.phantoms import Scenario, make_patient
from inference.predictor import Predictor
from inference.radiograph import Radiograph, RadiographPreprocessing, patches, read_radiograph
from inference.recipe import Precision
from inference.view import View

MODELS = {"dinov2-large": VIT_LARGE, "dinov2-base": VIT_BASE, "dinov2-small": VIT_SMALL}
Answer = NDArray[np.float32]  # mmHg [9]
Way = Callable[[], Answer]


class NotHere(Exception):
    """A contender that this machine cannot run; the message says why."""


class WholeNetwork(nn.Module):
    """The network as one function of an examination: nine patches in one batch, the ECG once, the split head."""

    def __init__(self, network: FusedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, nine: Tensor, leads: Tensor) -> Tensor:
        """mmHg [9] from patches [9, 3, 224, 224] and leads [1, 36, 48, 224]."""
        if self.network.ecg is None:
            raise TypeError("a fused network is needed")
        return self.network.head.split(self.network.chest(nine)[None], self.network.ecg(leads))[0]


def make(folder: Path, backbone: str, names: list[str]) -> dict[str, Any]:
    """Write the network in the forms that contenders `names` take, as far as can be; the work of one examination."""
    torch.manual_seed(0)
    network = FusedNetwork(Architecture(chest_backbone=backbone)).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):  # LayerScale begins at 1e-5, which would leave the blocks without any say
            parameter.uniform_(0.05, 0.45)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.05)
    _write(folder / "fp32", network)
    nine, leads = _given()
    np.savez(folder / "inputs.npz", nine=nine.numpy(), leads=leads.numpy())
    forms: tuple[tuple[str, Callable[[Path], None]], ...] = (
        ("openvino", _to_openvino),
        ("onnxruntime", _to_onnx),
        ("pulmolink bf16", partial(_lowered, Precision.BF16)),
        ("pulmolink int8", partial(_lowered, Precision.INT8)),
    )
    for begins, form in forms:
        if any(name.startswith(begins) for name in names):
            with contextlib.suppress(NotHere):  # the contender itself will say so
                form(folder)
    return {"flops": _flops(backbone)}


def _flops(backbone: str) -> int:
    """Floating-point operations of one examination as the paper's network has them, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = WholeNetwork(FusedNetwork(Architecture(chest_backbone=backbone)).eval())
        network(torch.zeros(9, 3, 224, 224), torch.zeros(1, 36, 48, 224))
    return counter.get_total_flops()


def _write(folder: Path, network: FusedNetwork) -> None:
    """A package as the service loads it, with calibration of random numbers."""
    architecture = Architecture(chest_backbone=_backbone_of(folder))
    radiograph, ecg = RadiographPreprocessing(), EcgPreprocessing(style=asdict(RenderStyle()))
    rng = np.random.default_rng(1)
    picture = quantised(_radiograph(radiograph).picture)
    weights = tensors_of(network, "float32")
    engine = Engine(network, radiograph, ecg)
    values = engine.fuse(engine.embed_chest(picture)[None], engine.embed_ecg(_leads()[None]))[0]

    def usual(size: int) -> NDArray[np.float32]:
        return rng.standard_normal((60, size)).astype(np.float32)

    calibration = Calibration(
        residuals_mmhg=np.linspace(-9.0, 9.0, 41, dtype=np.float32),
        chest=fit_reference(usual(1024), usual(1024)),
        ecg=fit_reference(usual(128), usual(128)),
    )
    typical = Typical(picture=rng.integers(0, 256, (128, 128), dtype=np.uint8), lead_images=_leads())
    view = View(average=typical.picture, limit=0.5)
    write_package(
        folder,
        Manifest(
            name="random-demo",
            version="0.1.0",
            kind=PackageKind.SYNTHETIC_DEMO,
            architecture=architecture,
            weights_dtype="float32",
            radiograph=radiograph,
            ecg=ecg,
            intended_use="measuring speed",
            exclusions=("everything else",),
            data={"source": "random numbers"},
            training={},
            metrics={},
        ),
        weights=weights,
        calibration={**calibration.to_tensors(), **typical.to_tensors(), **view.to_tensors()},
        golden=(
            GoldenCase(
                name="phantom",
                picture=picture,
                lead_images=_leads(),
                patch_mpap_mmhg=tuple(float(value) for value in values),
            ),
        ),
        card="# random-demo\n",
    )


def _backbone_of(folder: Path) -> str:
    return MODELS[(folder.parent / "model").read_text(encoding="utf-8")]


def _lowered(precision: Precision, folder: Path) -> None:
    if not multiplies_fast(torch.device("cpu"), precision):
        raise NotHere(f"this processor has no {precision.value} instructions")
    lower(folder / "fp32", folder / precision.value, precision)


def _to_openvino(folder: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        raise NotHere("openvino is not installed")
    import openvino

    network, (nine, leads) = _network(folder), _inputs(folder)
    model = openvino.convert_model(WholeNetwork(network), example_input=(nine, leads))
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


def _to_onnx(folder: Path) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")):
        raise NotHere("onnx or onnxruntime is not installed")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    network, (nine, leads) = _network(folder), _inputs(folder)
    torch.onnx.export(WholeNetwork(network), (nine, leads), str(folder / "model.onnx"), dynamo=False, opset_version=17)
    quantize_dynamic(
        folder / "model.onnx",
        folder / "model.int8.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul"],
    )


def _leads() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (12, 48, 224, 3), dtype=np.uint8)


def _radiograph(preprocessing: RadiographPreprocessing) -> Radiograph:
    return read_radiograph(_part10(), preprocessing)


def _part10() -> bytes:
    return make_patient(1, 3, Scenario.PAIRED_WAVEFORM, mpap_mmhg=42.0).objects[0].part10


def _given() -> tuple[Tensor, Tensor]:
    """Nine normalised patches of a phantom and the lead images, as the network takes them."""
    preprocessing = RadiographPreprocessing()
    nine = torch.from_numpy(patches(_radiograph(preprocessing).picture, preprocessing))
    return nine, lead_tensor(_leads()[None], EcgPreprocessing(style=asdict(RenderStyle()))).contiguous()


def _inputs(folder: Path) -> tuple[Tensor, Tensor]:
    """What `_given` gave, from a file: no engine is to carry what it was exported from."""
    with np.load(folder / "inputs.npz") as kept:
        return torch.from_numpy(kept["nine"]), torch.from_numpy(kept["leads"])


def _network(folder: Path) -> FusedNetwork:
    """The network as timm builds it, its weights loaded as one does outside a service: no digest, no golden case."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        network = FusedNetwork(Architecture(chest_backbone=_backbone_of(folder / "fp32")))
    weights = load_file(folder / "fp32" / WEIGHTS)
    counters = {name: torch.tensor(0) for name in network.state_dict() if name.endswith("num_batches_tracked")}
    network.load_state_dict(weights | counters, assign=True)
    return network.eval().requires_grad_(False)


def _plain(folder: Path, _threads: int) -> Way:
    network, (nine, leads) = _network(folder), _inputs(folder)

    def answer() -> Answer:
        with torch.no_grad():
            return np.concatenate([network(patch[None], leads).numpy() for patch in nine])

    return answer


def _batched(folder: Path, _threads: int) -> Way:
    network, (nine, leads) = _network(folder), _inputs(folder)
    whole = WholeNetwork(network)

    def answer() -> Answer:
        with torch.no_grad():
            return whole(nine, leads).numpy()

    return answer


def _compiled(folder: Path, _threads: int) -> Way:
    if shutil.which("c++") is None:
        raise NotHere("torch.compile needs a C++ compiler")
    from torch._inductor import config

    config.freezing = True
    network, (nine, leads) = _network(folder), _inputs(folder)
    whole = torch.compile(WholeNetwork(network))

    def answer() -> Answer:
        with torch.no_grad():
            return np.array(whole(nine, leads))

    return answer


def _openvino(precision: str) -> Callable[[Path, int], Way]:
    def contender(folder: Path, threads: int) -> Way:
        if precision == "bf16" and not multiplies_fast(torch.device("cpu"), Precision.BF16):
            raise NotHere("this processor has no bf16 instructions")
        if not (folder / "model.xml").is_file():
            raise NotHere("openvino is not installed")
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        model = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
        nine, leads = _inputs(folder)
        given = [nine.numpy(), leads.numpy()]
        return lambda: np.array(model(given)[0])

    return contender


def _onnxruntime(file: str) -> Callable[[Path, int], Way]:
    def contender(folder: Path, threads: int) -> Way:
        if not (folder / file).is_file():
            raise NotHere("onnx or onnxruntime is not installed")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])
        nine, leads = _inputs(folder)
        given = {entry.name: part.numpy() for entry, part in zip(session.get_inputs(), (nine, leads), strict=True)}
        return lambda: np.asarray(session.run(None, given)[0])

    return contender


class _Service:
    """This predictor, loaded as the worker loads it; measures besides what each input alone costs."""

    def __init__(self, folder: Path, threads: int, precision: str) -> None:
        if not (folder / precision).is_dir():
            raise NotHere(f"this processor has no {precision} instructions")
        self.predictor = Predictor.load(folder / precision, threads=threads)
        self.part10 = _part10()
        self.radiograph = read_radiograph(self.part10, self.predictor.preprocessing)
        self.leads = _leads()
        self.embedding = np.zeros((9, 1024), dtype=np.float32)

    def answer(self) -> Answer:
        """A read radiograph and ECG to the nine values, everything included that the service does between."""
        self.embedding = self.predictor.chest(self.radiograph).embedding
        return np.asarray(self.predictor.predict(self.embedding, self.leads).patch_mpap_mmhg, dtype=np.float32)

    def parts(self) -> dict[str, float]:
        """Seconds of an ECG's arrival, the last answer's chest embedding kept, and of reading the radiograph's file."""
        return {
            "ecg_seconds": _median_seconds(lambda: self.predictor.predict(self.embedding, self.leads), 9),
            "decode_seconds": _median_seconds(lambda: read_radiograph(self.part10, self.predictor.preprocessing), 3),
        }


class _Multiplier:
    """How fast this machine multiplies matrices, the best of the ways that torch has; GFLOP/s by precision."""

    SHAPES = ((2048, 2048, 2048), (9 * 257, 4096, 1024))  # rows, inner, columns: a square, and a ViT-L/14's own

    def __init__(self) -> None:
        self.precisions = [torch.float32]
        if multiplies_fast(torch.device("cpu"), Precision.BF16):
            self.precisions.append(torch.bfloat16)

    def rates(self) -> dict[str, float]:
        """GFLOP/s, the fastest of three turns each."""
        found = {}
        for dtype in self.precisions:
            best = 0.0
            for rows, inner, columns in self.SHAPES:
                a, weight = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
                packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
                for way in (
                    lambda a=a, weight=weight: torch.mm(a, weight.t()),
                    lambda a=a, packed=packed: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], ""),
                ):
                    with torch.inference_mode():
                        best = max(best, 2e-9 * rows * inner * columns / min(_seconds(way) for _ in range(4)))
            found[str(dtype).removeprefix("torch.")] = best
        return found


WAYS: dict[str, Callable[[Path, int], Way]] = {
    "plain": _plain,
    "one batch": _batched,
    "openvino fp32": _openvino("f32"),
    "onnxruntime fp32": _onnxruntime("model.onnx"),
    "torch.compile fp32": _compiled,
    "openvino bf16": _openvino("bf16"),
    "onnxruntime int8": _onnxruntime("model.int8.onnx"),
}
OWN = {"pulmolink fp32": "fp32", "pulmolink bf16": "bf16", "pulmolink int8": "int8"}


def _seconds(way: Callable[[], object]) -> float:
    begun = time.perf_counter()
    way()
    return time.perf_counter() - begun


def _median_seconds(way: Callable[[], object], times: int) -> float:
    return float(np.median([_seconds(way) for _ in range(times)]))


def peak_mib() -> float:
    """The most memory this process ever held, as the kernel kept it."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel tells no peak memory")


def measured(name: str, folder: Path, threads: int) -> Iterator[dict[str, Any]]:
    """What the process of contender `name` says: that it is ready, then one measurement whenever it is asked."""
    begun = time.perf_counter()
    if name == "gemm":
        multiplier = _Multiplier()
        yield {"ready": True}
        while True:
            yield multiplier.rates()
    own = _Service(folder, threads, OWN[name]) if name in OWN else None
    way = own.answer if own else WAYS[name](folder, threads)
    values = way()
    ready = {"ready": True, "load_seconds": time.perf_counter() - begun, "mmhg": [float(value) for value in values]}
    yield ready | (own.parts() if own else {})
    while True:
        busy = time.process_time()
        seconds = _seconds(way)
        said = {"seconds": seconds, "cpu_seconds": time.process_time() - busy, "peak_mib": peak_mib()}
        yield said | (own.parts() if own else {})


def main(arguments: list[str]) -> int:
    """One process's life."""
    name, folder, model, threads = arguments[0], Path(arguments[1]), arguments[2], int(arguments[3])
    torch.set_num_threads(threads)
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exporters, about their own future
        if name == "make":
            (folder / "model").write_text(model, encoding="utf-8")
            print(json.dumps(make(folder, MODELS[model], arguments[4:])), file=out, flush=True)
            return 0
        try:
            for said in measured(name, folder, threads):
                print(json.dumps(said), file=out, flush=True)
                if not sys.stdin.readline():
                    return 0
        except NotHere as reason:
            print(json.dumps({"skipped": str(reason)}), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
