"""torchvision beside a CPU-only torch.

The registries' torchvision wheels are CUDA builds: beside a CPU torch their compiled operators do
not load and ``import torchvision`` (and so timm) stops at a missing operator schema. Declaring the
schemas of the two operators that its Python part names lets the rest work; nothing here calls
them. Where torchvision loads by itself this does nothing. Import ``timm`` from here.
"""

from __future__ import annotations

import torch

_KEEP: list[torch.library.Library] = []  # a library's declarations vanish with it


def _declare_operators() -> None:
    try:
        import torchvision  # type: ignore[import-untyped]  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            signature = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(signature)  # type: ignore[no-untyped-call]
        _KEEP.append(library)


_declare_operators()

import timm  # noqa: E402
import timm.data  # noqa: E402
import timm.models  # noqa: E402

__all__ = ["timm"]
