"""Text encoders of a few thousand weights, made on the spot."""

import json
import string
from pathlib import Path
from tempfile import TemporaryDirectory

import icis.compat  # noqa: F401  both libraries import torchvision, which needs it

CLIP = {
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {
        "context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2,
    },
}  # fmt: skip


def tiny_clip(folder: Path, dim: int, **settings) -> Path:
    """Write a random CLIP with embeddings of ``dim`` as open_clip's hub has them: two files."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {"embed_dim": dim, **CLIP, **settings}
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # far from linear, so that activations matter
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    about = {"model_cfg": config, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    return folder


def tiny_sentence_model(folder: Path, dim: int) -> Path:
    """Write a random BERT with mean pooling as sentence-transformers saves it.

    Its WordPiece vocabulary is the letters, so that it knows every word.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    signs = [*string.ascii_lowercase, *string.digits, *",.-'"]
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *signs,
        *(f"##{each}" for each in signs),
    ]
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=dim,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * dim,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    tokenizer = BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})
    with TemporaryDirectory() as parts:
        BertModel(config).save_pretrained(parts)
        tokenizer.save_pretrained(parts)
        model = SentenceTransformer(modules=[Transformer(parts), Pooling(dim)], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder
