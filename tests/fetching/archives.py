"""Archives for tests: honest ones, and hostile ones that no packing program would write."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable


def make_zip(files: dict[str, bytes]) -> bytes:
    """Return a zip of paths to bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def make_tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """Return a tar of paths to bytes, packed as the mode says."""
    return make_odd_tar(lambda packed: [add(packed, *each) for each in files.items()], mode)


def make_odd_tar(fill: Callable[[tarfile.TarFile], object], mode: str = "w:gz") -> bytes:
    """Return a tar that ``fill`` writes the members of."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as packed:  # type: ignore[call-overload]
        fill(packed)
    return buffer.getvalue()


def add(packed: tarfile.TarFile, name: str, data: bytes = b"", **facts: object) -> None:
    """Add a member to a tar; facts are attributes of its header, such as type and linkname."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in facts.items():
        setattr(info, key, value)
    packed.addfile(info, io.BytesIO(data) if data else None)
