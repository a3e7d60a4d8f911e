"""All rows of an index, on one device or several, shard by shard."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from icis.backbones import LoadedBackbone
from icis.datasets.sources import ImageSource
from icis.errors import IcisError
from icis.extraction.decoding import Chunks, Decoded, ahead, alternating
from icis.extraction.forward import CPU_BATCH, GPU_BATCH, Forward, pick_precision
from icis.extraction.shards import Shards
from icis.memory import freed_memory_kept

Opener = Callable[[], tuple[LoadedBackbone, ImageSource]]
NAMED = 20
"""Unreadable images that an error names."""
PER_THREAD = 16
"""Images that each thread decodes at a time, so that none waits long for the last one."""


@dataclass(frozen=True)
class Settings:
    """How images become features; ``precision`` is resolved."""

    batch_size: int | Literal["auto"] = "auto"
    precision: str = "float32"
    unreadable: Literal["list", "stop"] = "list"
    compare: bool = True
    """Compute the features of the first images in float32 too, if the precision is lower."""

    def batch(self, device: str) -> int:
        """Return the images of one forward pass."""
        if self.batch_size != "auto":
            return self.batch_size
        return CPU_BATCH if device == "cpu" else GPU_BATCH


@dataclass
class Course:
    """What extraction took: seconds of decoding (summed over cores) and of the model."""

    images: int = 0
    decode_seconds: float = 0.0
    model_seconds: float = 0.0
    batch_size: int = 0
    unreadable: list[str] = field(default_factory=list)


def extract(
    backbone: LoadedBackbone,
    source: ImageSource,
    names: Sequence[str],
    *,
    batch_size: int | Literal["auto"] = "auto",
    precision: str = "auto",
    threads: int = 1,
    device: str = "cpu",
) -> Iterator[NDArray[np.float32]]:
    """Yield features [B, D], some images at a time, in the order of ``names``.

    Raises IcisError at the first image that is missing or unreadable. ``threads`` decode; those
    of the model are torch's.
    """
    precision = pick_precision(precision, [device])
    settings = Settings(batch_size, precision, "stop", compare=False)
    forward = Forward(
        backbone, device=device, precision=precision, batch_size=settings.batch(device), say=_say
    )
    chunks = Chunks(source, names, backbone.data, _chunks([range(len(names))], forward, threads))
    with closing(_decoded(chunks, device, threads)) as images, freed_memory_kept():
        for chunk in images:
            if chunk.unreadable:
                raise IcisError(chunk.unreadable[0])
            yield forward(chunk.pixels)


def _chunks(spans: Sequence[range], forward: Forward, threads: int) -> list[range]:
    """Cut rows into what is decoded at a time: whole batches, never across a span's end."""
    batch = forward.batch_size
    many = batch * -(-PER_THREAD * threads // batch) if forward.device.type == "cpu" else batch
    return [rows[start : start + many] for rows in spans for start in range(0, len(rows), many)]


def _decoded(chunks: Chunks, device: str, threads: int) -> Any:
    if device == "cpu":
        return alternating(chunks, threads)
    return ahead(chunks, max(1, threads - 1), pin=True)


def _say(message: str) -> None:
    tqdm.write(message, file=sys.stderr)


# shards


def extract_shards(
    shards: Shards,
    todo: Sequence[int],
    backbone: LoadedBackbone,
    source: ImageSource,
    settings: Settings,
    *,
    device: str,
    threads: int,
    progress: Callable[[int], None],
) -> Course:
    """Compute and write some shards on one device; ``progress`` is told of images done.

    A shard with an unreadable image is not written. The shard 0 remembers how its first images'
    features compare with float32.
    """
    forward = Forward(
        backbone, device=device, precision=settings.precision,
        batch_size=settings.batch(device), say=_say,
    )  # fmt: skip
    spans = [shards.rows(shard) for shard in todo]
    chunks = Chunks(source, shards.names, backbone.data, _chunks(spans, forward, threads))
    course = Course()
    with closing(_decoded(chunks, device, threads)) as images, freed_memory_kept():
        for shard, group in groupby(images, key=lambda each: each.rows.start // shards.size):
            _one_shard(shards, shard, group, forward, settings, course, progress)
    course.model_seconds = forward.seconds
    course.batch_size = forward.batch_size
    return course


def _one_shard(
    shards: Shards,
    shard: int,
    group: Iterator[Decoded],
    forward: Forward,
    settings: Settings,
    course: Course,
    progress: Callable[[int], None],
) -> None:
    vectors: list[NDArray[np.float32]] = []
    about: dict[str, Any] = {}
    whole = True
    for chunk in group:
        course.images += len(chunk.rows)
        course.decode_seconds += chunk.seconds
        course.unreadable += chunk.unreadable
        if chunk.unreadable and settings.unreadable == "stop":
            raise IcisError(chunk.unreadable[0])
        whole = whole and not chunk.unreadable
        if whole:  # otherwise the rest is decoded only to find what else is unreadable
            if chunk.rows.start == 0 and settings.compare and settings.precision != "float32":
                about = _compared(forward, chunk.pixels)
            vectors.append(forward(chunk.pixels))
        progress(len(chunk.rows))
    if whole:
        shards.write(shard, np.concatenate(vectors), about)


def _compared(forward: Forward, pixels: torch.Tensor) -> dict[str, Any]:
    found = forward.compare(pixels)
    _say(
        f"{forward.precision} beside float32, the first {found.images} images: cosine "
        f"{found.mean_cosine:.6f} on average, {found.min_cosine:.6f} at least; model "
        f"{1e3 * found.low_seconds:.1f} ms an image instead of {1e3 * found.full_seconds:.1f} ms"
    )
    return {"cosine_to_float32": found.as_metadata()}


def run_shards(
    shards: Shards,
    opener: Opener,
    settings: Settings,
    *,
    devices: Sequence[str],
    threads: int,
    label: str,
) -> None:
    """Compute all shards that are not there yet and say what it took.

    ``opener`` loads backbone and source; with several devices a process for each calls it.
    Raises IcisError where images are unreadable, with their names and reasons.
    """
    finished = shards.finished()
    todo = sorted({*range(len(shards))} - {*finished})
    kept = sum(len(shards.rows(shard)) for shard in finished)
    devices = devices[: max(1, len(todo))]
    if finished:
        _say(f"features {label}: {kept} images are done already ({len(finished)} shards)")
    started = time.perf_counter()
    with tqdm(
        total=len(shards.names), initial=kept, desc=f"features {label}", unit="image", disable=None
    ) as bar:

        def progress(images: int) -> None:
            bar.update(images)

        if len(devices) == 1:
            courses = [
                extract_shards(
                    shards, todo, *opener(), settings,
                    device=devices[0], threads=threads, progress=progress,
                )
            ]  # fmt: skip
        else:
            share = max(1, threads // len(devices))
            courses = _on_devices(shards, todo, opener, settings, devices, share, progress)
    seconds = time.perf_counter() - started
    _report(label, courses, settings, devices, threads, seconds)
    unreadable = [message for course in courses for message in course.unreadable]
    if unreadable:
        raise IcisError(_unreadable(sorted(unreadable), len(shards.names)))


def _report(
    label: str,
    courses: Sequence[Course],
    settings: Settings,
    devices: Sequence[str],
    threads: int,
    seconds: float,
) -> None:
    images = sum(course.images for course in courses)
    if not images:
        return
    decode = 1e3 * sum(course.decode_seconds for course in courses) / images
    model = 1e3 * sum(course.model_seconds for course in courses) / images
    sizes = ", ".join(str(size) for size in sorted({course.batch_size for course in courses}))
    _say(
        f"features {label}: {images} images in {seconds:.1f} s, {images / seconds:.1f} images/s\n"
        f"  decoding {decode:.1f} ms an image and core, model {model:.1f} ms an image and device; "
        f"{settings.precision}, batches of {sizes}, {','.join(devices)}, {threads} threads"
    )


def _unreadable(messages: Sequence[str], images: int) -> str:
    lines = [f"  {message}" for message in messages[:NAMED]]
    if len(messages) > NAMED:
        lines.append(f"  … and {len(messages) - NAMED} more")
    return (
        f"{len(messages)} of {images} images cannot be read:\n" + "\n".join(lines) + "\n"
        "mend them, or take them from the data set, and run again: what is done is kept"
    )


# several devices


def _on_devices(
    shards: Shards,
    todo: Sequence[int],
    opener: Opener,
    settings: Settings,
    devices: Sequence[str],
    threads: int,
    progress: Callable[[int], None],
) -> list[Course]:
    """Deal the shards to a process a device and gather what they tell."""
    context = multiprocessing.get_context("spawn")  # a GPU can't be used after a fork
    waiting: dict[Connection, tuple[str, Any]] = {}
    for number, device in enumerate(devices):
        here, there = context.Pipe(duplex=False)
        work = (there, shards, todo[number :: len(devices)], opener, settings, device, threads)
        process = context.Process(target=_process, args=work)
        process.start()
        there.close()  # or its end would never be seen here
        waiting[here] = device, process
    processes = [process for _, process in waiting.values()]
    courses: list[Course] = []
    try:
        while waiting:
            for pipe in wait([*waiting]):
                assert isinstance(pipe, Connection)
                message = _received(pipe, *waiting[pipe])
                if isinstance(message, int):
                    progress(message)
                else:
                    courses.append(message)
                    del waiting[pipe]
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        for process in processes:
            process.join()
    return courses


def _received(pipe: Connection, device: str, process: Any) -> int | Course:
    try:
        message: int | Course | IcisError = pipe.recv()
    except EOFError:
        process.join()
        raise IcisError(
            f"the process for device {device} ended with exit status {process.exitcode}; what it "
            "had to say stands above. Run again: what is done is kept"
        ) from None
    if isinstance(message, IcisError):
        raise message
    return message


def _process(
    pipe: Connection,
    shards: Shards,
    todo: Sequence[int],
    opener: Opener,
    settings: Settings,
    device: str,
    threads: int,
) -> None:
    """Work in a process of its own; it ends when the one that listens does (a broken pipe)."""
    torch.set_num_threads(threads)
    try:
        backbone, source = opener()
        pipe.send(
            extract_shards(
                shards, todo, backbone, source, settings,
                device=device, threads=threads, progress=pipe.send,
            )
        )  # fmt: skip
    except IcisError as error:
        pipe.send(error)
    except BrokenPipeError:
        sys.exit(1)
