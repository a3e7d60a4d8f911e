"""Pixels → features on one device."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from icis.backbones import LoadedBackbone, normalise
from icis.errors import IcisError

CPU_BATCH = 16
"""Images a forward pass on the CPU: ResNet-101 and MobileNetV2 are slower with 64, and no faster
with 8."""
GPU_BATCH = 512
"""Images a forward pass on a GPU to begin with; halved where its memory does not suffice."""
COMPARED = 32
"""Images, but no more than one batch, whose features are computed in float32 too, where the
precision is lower."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_devices(wanted: str) -> list[str]:
    """Return torch's names of devices: ``auto`` (all GPUs, or the CPU), or a list with commas."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return [f"cuda:{number}" for number in range(gpus)] or ["cpu"]
    devices = [each.strip() for each in wanted.split(",")]
    for device in devices:
        found = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
        if found is None:
            what = "should be auto, cpu, cuda, cuda:N, or a list such as cuda:0,cuda:1"
            raise IcisError(f"--device {wanted}: {device!r} {what}")
        if device != "cpu" and int(found.group(1) or 0) >= gpus:
            has = f"{gpus} GPU{'s' * (gpus != 1)}" if gpus else "no GPU"
            raise IcisError(f"device {device} is asked for, but torch sees {has}; use cpu or auto")
    return devices


def pick_precision(wanted: str, devices: Sequence[str]) -> str:
    """Return the precision of the forward pass: ``auto`` asks the hardware, never a stopwatch.

    So the same machine gives the same features. Devices that differ work in what all can do.
    """
    if wanted != "auto":
        return wanted
    fast = {_fast_precision(device) for device in devices}
    if len(fast) == 1:
        return fast.pop()
    return "float32" if "float32" in fast or "cpu" in devices else "float16"


def _fast_precision(device: str) -> str:
    if device != "cpu":
        major, _ = torch.cuda.get_device_capability(device)
        return "bfloat16" if major >= 8 else "float16" if major >= 7 else "float32"
    return "bfloat16" if cpu_flags() & {"amx_bf16", "avx512_bf16"} else "float32"


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return what the CPU says that it can do; nothing where there is no such file."""
    text = path.read_text() if path.is_file() else ""
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(found.group(1).split()) if found else set()


@dataclass(frozen=True)
class Comparison:
    """Features of some images in low precision beside the same in float32."""

    mean_cosine: float
    min_cosine: float
    images: int
    low_seconds: float
    """An image."""
    full_seconds: float
    """An image."""

    def as_metadata(self) -> dict[str, float]:
        """Return what does not change from run to run."""
        return {"mean": self.mean_cosine, "min": self.min_cosine, "images": self.images}


class Forward:
    """A backbone on a device: uint8 pixels [N, H, W, 3] → features [N, D] in float32.

    Runs ``batch_size`` images at a time, for good half as many whenever a GPU's memory does not
    suffice; ``say`` is told then.
    """

    def __init__(
        self,
        backbone: LoadedBackbone,
        *,
        device: str,
        precision: str,
        batch_size: int,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        to = backbone.model.to
        self.model = to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data, self.device, self.precision = backbone.data, torch.device(device), precision
        self.batch_size, self.say = batch_size, say
        self.seconds = 0.0

    def __call__(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        """Return features [N, D]; IcisError where a GPU has no memory for a single image."""
        started = time.perf_counter()
        found = self._batches(pixels, self.precision)
        self.seconds += time.perf_counter() - started
        return found

    def _batches(self, pixels: torch.Tensor, precision: str) -> NDArray[np.float32]:
        done: list[NDArray[np.float32]] = []
        start = 0
        while start < len(pixels):
            size = self.batch_size
            found = self._try(pixels[start : start + size], precision)
            if found is not None:
                done.append(found)
                start += size
                continue
            if size == 1:
                what = "has too little memory for a single image"
                raise IcisError(f"device {self.device} {what}; use --device cpu")
            self.batch_size = min(size, len(pixels) - start) // 2 or 1
            torch.cuda.empty_cache()
            self.say(f"{self.device}: no memory for {size} images, {self.batch_size} from here on")
        return np.concatenate(done)

    def _try(self, pixels: torch.Tensor, precision: str) -> NDArray[np.float32] | None:
        """Return the features of one batch; None where the memory does not suffice."""
        try:
            return self._pass(pixels, precision)
        except torch.cuda.OutOfMemoryError:
            return None  # not handled here: the error's traceback holds what should be freed

    def _pass(self, pixels: torch.Tensor, precision: str) -> NDArray[np.float32]:
        cast = torch.autocast(
            self.device.type, dtype=DTYPES[precision], enabled=precision != "float32"
        )
        # float32 is meant: no TF32; and the same features every time
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), exact, cast:
            images = normalise(pixels.to(self.device, non_blocking=True), self.data)
            features = self.model(images)
        found: NDArray[np.float32] = features.float().cpu().numpy()
        return found

    def compare(self, pixels: torch.Tensor) -> Comparison:
        """Hold this precision against float32 on a few images; time both once they are warm."""
        pixels = pixels[: min(COMPARED, self.batch_size)]
        (low, low_time), (full, full_time) = (
            self._timed(pixels, precision) for precision in (self.precision, "float32")
        )
        cosine = _cosine(low.astype(np.float64), full.astype(np.float64))
        return Comparison(
            float(cosine.mean()), float(cosine.min()), len(pixels),
            low_time / len(pixels), full_time / len(pixels),
        )  # fmt: skip

    def _timed(self, pixels: torch.Tensor, precision: str) -> tuple[NDArray[np.float32], float]:
        self._batches(pixels, precision)
        started = time.perf_counter()
        found = self._batches(pixels, precision)
        return found, time.perf_counter() - started


def _cosine(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Return the cosine of each row with its fellow; 1 where both are zero."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    same = (one == other).all(axis=1)
    return np.where(same, 1.0, (one * other).sum(axis=1) / np.where(norms > 0, norms, 1.0))
