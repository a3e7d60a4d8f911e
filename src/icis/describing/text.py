"""Text encoders: sentences to vectors, by open_clip or sentence-transformers."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import icis.compat  # noqa: F401  torchvision, which both libraries import, needs it
from icis.artifacts import file_sha256
from icis.config import TextDescriptors
from icis.datasets.paths import expand
from icis.errors import IcisError

Vectors = NDArray[np.float32]
HUB, LOCAL = "hf-hub:", "local-dir:"
PACKAGES = {
    "open_clip": ("open_clip_torch", "open_clip_torch"),
    "sentence-transformers": ("sentence-transformers", "'icis[sentences]'"),
}
"""By library: the name of its distribution, what to install."""
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
"""What a hub calls weights."""


def encode(
    config: TextDescriptors, texts: list[str], *, device: str = "cpu", batch_size: int = 64
) -> Vectors:
    """Return the encoder's output [N, d] for every text, as it is: not normalised."""
    encoder = _open_clip if config.library == "open_clip" else _sentence_transformers
    try:
        return encoder(config, texts, device, batch_size)
    except ImportError as error:
        _, install = PACKAGES[config.library]
        raise IcisError(
            f"{config.library} cannot be imported ({error}); pip install {install}"
        ) from error


def encoder_facts(config: TextDescriptors) -> dict[str, Any]:
    """Return which encoder it is."""
    return {
        "library": config.library,
        "version": version(PACKAGES[config.library][0]),
        "model": config.model,
    }


def weight_hashes(config: TextDescriptors) -> dict[str, str]:
    """Return the hashes of an encoder's weights as far as they lie on this machine."""
    if config.model.startswith(LOCAL):
        folder = _folder(config.model)
        kinds = ("*.safetensors", "*.bin", "*.pt", "*.pth")
        files = [file for kind in kinds for file in folder.rglob(kind)]
        return {
            f"{config.model}/{file.relative_to(folder)}": file_sha256(file)
            for file in sorted(files)
        }
    files = _cached(_repository(config))[:1]
    return {f"{config.model}/{file.name}": file_sha256(file) for file in files}


def _open_clip(config: TextDescriptors, texts: list[str], device: str, batch_size: int) -> Vectors:
    import open_clip

    name, tag, options = config.model, None, {}
    if name.startswith(LOCAL):
        name = LOCAL + str(_folder(name, "open_clip_config.json"))
    elif not name.startswith(HUB):
        name, tag = _model_and_tag(name)
        # open_clip takes the activation from the model's name and only warns where the weights
        # were trained with another one: RN101 is not what OpenAI's RN101 weights need
        options["force_quick_gelu"] = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")
    try:
        model = open_clip.create_model(
            name,
            tag,
            precision="fp32",
            device=device,
            require_pretrained=True,  # otherwise a model without weights is a random one
            **options,
        ).eval()
        tokenize = open_clip.get_tokenizer(name)
    except Exception as error:  # hub, file and architecture errors have no common type
        raise _unavailable(config, error) from error
    starts = range(0, len(texts), batch_size)
    with torch.inference_mode():
        rows = [
            model.encode_text(tokenize(texts[start : start + batch_size]).to(device)).float().cpu()
            for start in tqdm(starts, desc=config.model, unit="batch", disable=None, leave=False)
        ]
    found: Vectors = torch.cat(rows).numpy()
    return found


def _sentence_transformers(
    config: TextDescriptors, texts: list[str], device: str, batch_size: int
) -> Vectors:
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would show where stderr is no terminal, too
    name = config.model.removeprefix(HUB)
    if name.startswith(LOCAL):
        name = str(_folder(name, "config.json", "modules.json"))
    try:
        model = SentenceTransformer(name, device=device).float().eval()
    except Exception as error:  # hub, file and architecture errors have no common type
        raise _unavailable(config, error) from error
    found: Vectors = model.encode(
        texts,
        batch_size=batch_size,
        convert_to_numpy=True,
        normalize_embeddings=False,
        show_progress_bar=False,
    )
    return found


def _model_and_tag(name: str) -> tuple[str, str]:
    import open_clip

    model, _, tag = name.rpartition("/")
    model = model.replace("/", "-")  # OpenAI writes ViT-B/32
    if not open_clip.get_pretrained_cfg(model, tag):
        tags = open_clip.list_pretrained_tags_by_model(model)
        there = f"{model} has {', '.join(tags)}" if tags else "such as RN101/openai"
        raise IcisError(
            f"model {name}: expected hf-hub:ORG/NAME, local-dir:FOLDER, or MODEL/WEIGHTS that "
            f"open_clip knows ({there})"
        )
    return model, tag


def _folder(model: str, *expected: str) -> Path:
    folder = expand(model.removeprefix(LOCAL))
    if not folder.is_dir():
        raise IcisError(f"{folder}, the folder of the text encoder, does not exist")
    if expected and not any((folder / name).is_file() for name in expected):
        raise IcisError(f"{folder} has no {' or '.join(expected)}: it is no such text encoder")
    return folder


def _unavailable(config: TextDescriptors, error: Exception) -> IcisError:
    what = f"text encoder {config.model} of {config.library} cannot be had"
    mend = (
        "it is looked for in the Hugging Face cache and at HF_ENDPOINT (default "
        "https://huggingface.co): set that to a mirror, or name a downloaded copy as "
        "local-dir:FOLDER"
    )
    reason = f"{what}: {type(error).__name__}: {error}"
    return IcisError(reason if config.model.startswith(LOCAL) else f"{reason}\n{mend}")


def _repository(config: TextDescriptors) -> str:
    """Return the hub's name of a model; empty where it does not come from a hub."""
    name = config.model.removeprefix(HUB)
    if config.library == "open_clip" and name == config.model:
        import open_clip

        found = open_clip.get_pretrained_cfg(*_model_and_tag(name)).get("hf_hub", "")
        return str(found).strip("/")
    if config.library == "sentence-transformers" and "/" not in name:
        return f"sentence-transformers/{name}"
    return name


def _cached(repository: str) -> list[Path]:
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repository, name) for name in WEIGHTS] if repository else []
    return [Path(file) for file in found if isinstance(file, str)]
