"""Speed and memory of extraction, beside what its two parts cost alone.

The target is what the machine could do if decoding and the model were all there is: on the CPU,
where they share the cores, 1 / (t_forward + t_decode / cores) images/s; on a GPU the slower of
1 / t_forward and cores / t_decode. t_forward: the bare model on ready channels_last batches, all
cores, bfloat16 autocast. t_decode: one image by Pillow and timm's evaluation transform on one
thread. Measurements take turns, so that other work on the machine meets them all; what counts is
the ratio.

    python benchmarks/extraction.py [--images N] [--output FILE.json]
    python benchmarks/extraction.py --memory [--images N]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import polars as pl
import torch
from PIL import Image

from icis.backbones import LoadedBackbone, evaluation_transform
from icis.compat import timm
from icis.extraction.forward import Forward, pick_devices, pick_precision
from icis.extraction.run import Settings, run_shards
from icis.extraction.shards import Shards
from icis.memory import freed_memory_kept
from icis.stages.extract import SHARD, _write

CORES = len(os.sched_getaffinity(0))
MODELS = ("resnet101", "mobilenetv2_100")


class InMemory:
    """Files of images in memory; the names are numbers, and go round."""

    def __init__(self, tar: Path) -> None:
        with tarfile.open(tar) as archive:
            members = [each for each in archive if each.name.endswith(".JPEG")]
            self.files = [archive.extractfile(each).read() for each in members]

    def has(self, name: str) -> bool:
        """Tell that there is an image for every number."""
        return True

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        return self.files[int(name) % len(self.files)]

    def box(self, name: str) -> None:
        """Return None: the whole image is meant."""

    def fingerprint(self, names: list[str]) -> dict[str, str]:
        """Return nothing: nobody asks."""
        return {}


def load(name: str, size: int | None = None) -> LoadedBackbone:
    """Return a model with random weights."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=0).eval()
    data = timm.data.resolve_model_data_config(model)
    if size:
        data["input_size"] = (3, size, size)
    return LoadedBackbone(model, data, name)


def extract_all(
    backbone: LoadedBackbone, source: InMemory, images: int, settings: Settings, devices: list[str]
) -> None:
    """Extract and write features as the stage does, into a folder that goes."""
    names = [str(number) for number in range(images)]
    frame = pl.DataFrame({"image": names, "class": ["c"] * images, "split": ["s"] * images})
    with tempfile.TemporaryDirectory() as folder:
        shards = Shards(Path(folder) / "partial", names, "key", SHARD)
        run_shards(
            shards, lambda: (backbone, source), settings,
            devices=devices, threads=CORES, label="benchmark",
        )  # fmt: skip
        blocks = (shards.read(shard) for shard in range(len(shards)))
        _write(Path(folder) / "features.parquet", frame, blocks, {})


def seconds(work) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(name: str, source: InMemory, images: int, repeats: int, device: str) -> dict:
    """Return rates of one model and their ratio, over repeats in which all take turns."""
    backbone = load(name)
    settings = Settings(precision="bfloat16", compare=False)
    batch = min(settings.batch(device), images)
    transform = evaluation_transform(backbone.data)

    def plain(number: int) -> torch.Tensor:
        return transform(Image.open(io.BytesIO(source.read(str(number)))).convert("RGB"))

    few = min(batch, 64)  # a GPU's batch of different images would take long to make
    ready = torch.stack([plain(number) for number in range(few)])
    ready = ready.repeat(-(-batch // few), 1, 1, 1)[:batch]
    ready = ready.to(device, memory_format=torch.channels_last)
    model = backbone.model.to(device, memory_format=torch.channels_last)
    passes = max(1, images // batch)

    def bare() -> None:
        cast = torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
        with torch.inference_mode(), cast, freed_memory_kept():
            for _ in range(passes):
                out = model(ready)
        out.float().cpu()  # waits for a GPU

    def decoding() -> None:
        for number in range(min(images, 256)):
            plain(number)

    def ours() -> None:
        extract_all(backbone, source, images, settings, [device])

    bare(), decoding(), ours()
    rows = []
    for _ in range(repeats):
        forward = seconds(bare) / (passes * batch)
        decode = seconds(decoding) / min(images, 256)
        rate = images / seconds(ours)
        if device == "cpu":
            target = 1 / (forward + decode / CORES)
        else:
            target = min(1 / forward, CORES / decode)
        rows.append({"t_forward": forward, "t_decode": decode, "target": target, "ours": rate,
                     "ratio": rate / target})  # fmt: skip
    check = Forward(backbone, device=device, precision="bfloat16", batch_size=batch)
    found = check.compare(torch.randint(0, 256, (batch, *ready.shape[2:], 3), dtype=torch.uint8))
    return {
        "model": name, "device": device, "cores": CORES, "images": images, "batch": batch,
        "precision_that_auto_picks": pick_precision("auto", [device]),
        "cosine_of_random_weights_on_noise": found.as_metadata(),
        "float32_ms": 1e3 * found.full_seconds, "bfloat16_ms": 1e3 * found.low_seconds,
        "repeats": rows, **{key: spread([row[key] for row in rows]) for key in rows[0]},
    }  # fmt: skip


def spread(values: list[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, _, high = quantiles(values, n=4)
    return {"median": median(values), "lower_quartile": low, "upper_quartile": high}


def show(result: dict) -> None:
    """Print one model's row."""

    def text(key: str, factor: float = 1, digits: int = 1) -> str:
        value = result[key]
        low, high = (factor * value[f"{side}_quartile"] for side in ("lower", "upper"))
        return f"{factor * value['median']:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"

    print(
        f"{result['model']:16} {text('t_forward', 1e3):20} {text('t_decode', 1e3):20} "
        f"{text('target'):22} {text('ours'):22} {text('ratio', 1, 2)}"
    )


def peak_memory(source: InMemory, images: int) -> float:
    """Return this process's peak of memory in MiB after an extraction."""
    extract_all(
        load("mobilenetv2_100", 64), source, images, Settings(precision="bfloat16"), ["cpu"]
    )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare_memory(arguments: argparse.Namespace) -> list[dict]:
    """Measure N and 10 N images, each in a process of its own."""
    found = []
    for images in (arguments.images, 10 * arguments.images):
        command = [sys.executable, __file__, "--tar", str(arguments.tar), "--images", str(images)]
        done = subprocess.run([*command, "--memory-of-one"], stdout=subprocess.PIPE, check=True)
        found.append({"images": images, "peak_mib": float(done.stdout)})
        print(f"{images:8} images: {found[-1]['peak_mib']:.0f} MiB at most")
    return found


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("ICIS_DATA", ".")) / "images/imagenet-samples-256.tar"
    parser.add_argument("--tar", type=Path, default=default, help="JPEGs (%(default)s)")
    parser.add_argument("--images", type=int, help="64; on a GPU 8192; with --memory 2048")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--device", default="auto", help="one device (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    parser.add_argument("--memory", action="store_true", help="peak memory of N and 10 N images")
    parser.add_argument("--memory-of-one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(CORES)
    device = pick_devices(arguments.device)[0]
    arguments.images = arguments.images or (
        2048 if arguments.memory else 64 if device == "cpu" else 8192
    )
    if arguments.memory:
        results = compare_memory(arguments)
    elif arguments.memory_of_one:
        print(peak_memory(InMemory(arguments.tar), arguments.images))
        return
    else:
        print(f"{device}, {CORES} cores; medians and quartiles of {arguments.repeats} turns")
        print("model            forward, ms/image    decode, ms/image     target, images/s       "
              "ours, images/s         ratio")  # fmt: skip
        source, results = InMemory(arguments.tar), []
        for name in arguments.models:
            results.append(measure(name, source, arguments.images, arguments.repeats, device))
            show(results[-1])
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
