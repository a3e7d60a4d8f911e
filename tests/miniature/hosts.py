"""Local servers that play every host: of data sets, of word vectors, and the model hub."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.describing.models import tiny_clip
from tests.fetching.server import FaultyServer
from tests.hub import HubServer, tiny_checkpoint
from tests.miniature.build import build

CHECKPOINTS = {
    "timm/resnet101.tv_in1k": "test_efficientnet",
    "timm/resnet101.tv2_in1k": "test_efficientnet",
    "timm/vit_base_patch16_224.augreg_in21k_ft_in1k": "test_vit",
    "timm/vit_base_patch16_clip_224.openai": "test_vit",
}
"""Every backbone that params.yaml names, and the tiny network that stands for it."""
CLIP = "timm/resnet101_clip.openai"
NOWHERE = "http://127.0.0.1:9"
"""A proxy that refuses: what is asked of any other host fails at once."""


@contextmanager
def played(root: Path, *, hub: bool = True) -> Iterator[dict[str, str]]:
    """Build the miniature in ``root`` and give the environment in which its hosts are found."""
    miniature = build(root / "miniature")
    with ExitStack() as stack:
        server = stack.enter_context(FaultyServer(miniature.hosts))
        environment = {
            "ICIS_CATALOGUE": str(miniature.catalogue(server.url("").rstrip("/"))),
            "IMAGENET_VAL": str(miniature.imagenet),
            "ICIS_MIRROR": "",
            "HTTP_PROXY": NOWHERE,
            "HTTPS_PROXY": NOWHERE,
            "NO_PROXY": "127.0.0.1",
        }
        if hub:
            models = root / "models"
            for number, (name, model) in enumerate(CHECKPOINTS.items()):
                tiny_checkpoint(models, model, name, seed=number)
            tiny_clip(models / CLIP, 16)
            environment |= stack.enter_context(HubServer(models, root / "cache"))
        yield environment
