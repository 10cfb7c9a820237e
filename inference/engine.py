"""The network ready to answer: evaluation mode, inference mode, fixed order of work; arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from inference.architecture import CHEST_EMBEDDING, ECG_EMBEDDING, Architecture
from inference.devices import autocast
from inference.manifest import EcgPreprocessing
from inference.network import FusedNetwork
from inference.prepared import PreparedVit, prepared
from inference.radiograph import RadiographPreprocessing, patches
from inference.recipe import Precision

PATCHES = 9
LEAD_IMAGES_SHAPE = (12, 48, 224, 3)


class UnfitPrecision(ValueError):
    """A chest encoder cannot multiply in the precision asked for."""


class Engine:
    """A fused network with the preprocessing that belongs to it.

    One of the radiograph alone is a ValueError; int8 for any other chest encoder than a ViT on a CPU is UnfitPrecision.

    The network is the engine's from then on: on a CPU a ViT among its parts is taken apart (`prepared`).
    `precision` is that of the chest encoder's multiplications; the rest stays float32.
    """

    def __init__(
        self,
        network: FusedNetwork,
        radiograph: RadiographPreprocessing,
        ecg: EcgPreprocessing,
        *,
        precision: Precision = Precision.FP32,
    ) -> None:
        if network.ecg is None:
            raise ValueError("a network without an ECG branch answers nothing in service")
        self.network = network.eval()
        self._ecg_branch = network.ecg
        self._device = next(network.parameters()).device
        self.radiograph = radiograph
        self.ecg_preprocessing = ecg
        # Convolutions on a CPU run a third faster over channels laid last; a ViT has none that matter.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._device.type == "cpu":
            network.chest = prepared(network.chest, precision)
        # What was prepared has its precision in its weights; anything else is told by torch.
        self._cast_to = precision if not _holds_prepared(network.chest) else Precision.FP32
        if self._cast_to is Precision.INT8:
            raise UnfitPrecision("int8 is for a ViT that answers on a CPU")

    def embed_chest(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """The nine patches of `picture` [512, 512] in one batch, as embeddings [9, 1024]."""
        return self.embed_patches(patches(picture, self.radiograph))

    def embed_patches(self, normalised: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalised patches [n, 3, 224, 224] in one batch, as embeddings [n, 1024]."""
        with torch.inference_mode():
            batch = torch.from_numpy(normalised).to(self._device)
            with autocast(self._device, self._cast_to):
                embedding = self.network.chest(batch.contiguous(memory_format=torch.channels_last))
        return np.ascontiguousarray(embedding.float().cpu().numpy(), dtype=np.float32)

    def answer(self, picture: NDArray[np.float32], lead_images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The nine patches' mmHg [9] of one picture [512, 512] and one ECG's lead images [12, 48, 224, 3]."""
        return self.fuse(self.embed_chest(picture)[None], self.embed_ecg(lead_images[None]))[0]

    def embed_ecg(self, lead_images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Lead images uint8 [examinations, 12, 48, 224, 3] as embeddings [examinations, 128]."""
        with torch.inference_mode():
            embedding = self._ecg_branch(lead_tensor(lead_images, self.ecg_preprocessing).to(self._device))
        return np.ascontiguousarray(embedding.cpu().numpy(), dtype=np.float32)

    def fuse(self, chest: NDArray[np.float32], ecg: NDArray[np.float32]) -> NDArray[np.float32]:
        """Chest [examinations, 9, 1024] and ECG [examinations, 128] to mmHg [examinations, 9]."""
        if chest.shape != (len(ecg), PATCHES, CHEST_EMBEDDING) or ecg.shape[1:] != (ECG_EMBEDDING,):
            raise ValueError(f"embeddings of shapes {chest.shape} and {ecg.shape} do not go together")
        with torch.inference_mode():
            of_chest, of_ecg = (torch.from_numpy(part).to(self._device) for part in (chest, ecg))
            values = self.network.head.split(of_chest, of_ecg)
        return values.cpu().numpy()


def _holds_prepared(encoder: torch.nn.Module) -> bool:
    return any(isinstance(module, PreparedVit) for module in encoder.modules())


def lead_tensor(lead_images: NDArray[np.uint8], preprocessing: EcgPreprocessing) -> torch.Tensor:
    """Lead images uint8 [n, 12, 48, 224, 3] as the ECG branch's input, float [n, 36, 48, 224], channels last.

    Raises
    ------
    ValueError
        If shape or dtype differ.
    """
    if lead_images.ndim != 5 or lead_images.shape[1:] != LEAD_IMAGES_SHAPE or lead_images.dtype != np.uint8:
        raise ValueError(f"lead images must be uint8 [n, 12, 48, 224, 3], not {lead_images.shape}")
    count = len(lead_images)
    # [n, lead, row, column, colour] to [n, row, column, lead, colour]: channels last in memory, lead by lead.
    laid = np.ascontiguousarray(lead_images.transpose(0, 2, 3, 1, 4)).reshape(count, 48, 224, 36)
    scaled = torch.from_numpy(laid).to(torch.float32).div_(255.0).sub_(preprocessing.mean).div_(preprocessing.std)
    return scaled.permute(0, 3, 1, 2)


def network_from_tensors(architecture: Architecture, tensors: Mapping[str, NDArray[np.generic]]) -> FusedNetwork:
    """A network holding `tensors`, expanded to float32.

    Raises
    ------
    ValueError
        If a tensor is missing, left over, misshapen or not finite.
    """
    with torch.device("meta"):
        network = FusedNetwork(architecture)
    expected = network.state_dict()
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    if set(tensors) != set(expected) - counters:
        differing = sorted(set(tensors) ^ (set(expected) - counters))
        raise ValueError(f"tensors differ from the architecture's, first: {differing[0]}")
    state: dict[str, torch.Tensor] = {name: torch.tensor(0) for name in counters}
    for name, array in tensors.items():
        if tuple(array.shape) != tuple(expected[name].shape):
            raise ValueError(f"{name} has shape {array.shape}, not {tuple(expected[name].shape)}")
        values = np.array(array, dtype=np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds values that are not finite")
        state[name] = torch.from_numpy(values)
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)


def tensors_of(network: FusedNetwork, dtype: str) -> dict[str, NDArray[np.generic]]:
    """The network's weights as arrays to store: matrices and filters in `dtype`, everything small in float32."""
    stored: dict[str, NDArray[np.generic]] = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        array = tensor.detach().contiguous().numpy().astype(np.float32)
        stored[name] = array.astype(np.float16) if dtype == "float16" and array.ndim > 1 else array
    return stored
