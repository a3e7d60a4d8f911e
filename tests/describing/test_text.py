"""Text encoders' vectors of classes, against the libraries called by hand."""

import json
import sys

import numpy as np
import pytest
import torch

from icis.artifacts import file_sha256
from icis.config import TextDescriptors
from icis.datasets.index import Classes
from icis.describing import text
from icis.describing.sources import read_source
from icis.describing.text import encode, weight_hashes
from icis.errors import IcisError
from tests.describing.models import tiny_clip, tiny_sentence_model

NAMES = ("elk", "002.Laysan_Albatross", "zebra")
CLASSES = Classes(NAMES, (True, True, False))
TEXTS = ["a photo of an elk", "zebra", "a very long description, of many words, of a horse"]
LIBRARIES = ("open_clip", "sentence-transformers")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a tiny model's folder for each library."""
    root = tmp_path_factory.mktemp("encoders")
    return {
        "open_clip": tiny_clip(root / "clip", 12),
        "sentence-transformers": tiny_sentence_model(root / "sentences", 8),
    }


@pytest.fixture(params=LIBRARIES)
def source(request, folders):
    """Return a source of descriptors that uses one of the tiny models."""
    return text_source(folders, request.param)


def text_source(folders, library, **settings):
    model = settings.pop("model", f"local-dir:{folders[library]}")
    return TextDescriptors(kind="text", library=library, model=model, **settings)


def by_hand(source, texts):
    """Return embeddings [N, d] of length 1, each text encoded alone."""
    folder = source.model.removeprefix("local-dir:")
    if source.library == "open_clip":
        import open_clip

        model = open_clip.create_model(f"local-dir:{folder}").eval()
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        with torch.no_grad():
            rows = [model.encode_text(tokenizer([each]))[0].numpy() for each in texts]
    else:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(folder, device="cpu")
        rows = [model.encode(each) for each in texts]
    return np.stack([row / np.linalg.norm(row) for row in rows])


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def refusal(source, classes=CLASSES):
    with pytest.raises(IcisError) as caught:
        read_source(source, classes)
    return str(caught.value)


def test_encoding_is_what_the_library_gives(source):
    found = encode(source, TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(unit(found), by_hand(source, TEXTS), atol=2e-6)
    assert np.abs(unit(found) @ unit(found).T - np.eye(3)).max() > 1e-3


def test_encoding_depends_neither_on_the_run_nor_on_the_batch(source):
    first = encode(source, TEXTS)
    np.testing.assert_array_equal(encode(source, TEXTS), first)
    np.testing.assert_allclose(encode(source, TEXTS, batch_size=2), first, rtol=1e-4, atol=1e-5)
    backwards = encode(source, TEXTS[::-1], batch_size=1)[::-1]
    np.testing.assert_allclose(backwards, first, rtol=1e-4, atol=1e-5)


def test_a_class_is_its_name_in_the_template(source):
    found, sources, facts = read_source(source, CLASSES)
    sentences = ["a photo of an elk", "a photo of a laysan albatross", "a photo of a zebra"]
    np.testing.assert_allclose(found.vectors, by_hand(source, sentences), atol=2e-6)
    assert found.classes is CLASSES
    assert set(sources.values()) == {
        file_sha256(file) for file in _folder(source).glob("*.safetensors")
    }
    about = facts["text"]
    assert about["names"] == ["elk", "laysan albatross", "zebra"]
    assert about["templates"] == source.templates
    assert about["model"] == source.model
    assert about["version"][0].isdigit()
    json.dumps(facts)


def _folder(source):
    return text._folder(source.model)


@pytest.mark.parametrize("normalize", ["l2", "none"])
def test_templates_are_averaged_after_they_are_normalised(source, normalize, tmp_path):
    (tmp_path / "names.txt").write_text("zebra\tZebra\nelk\tMoose\n002.Laysan_Albatross\tBird\n")
    changes = {
        "templates": ["{name}", "it is {article} {name}", "a zoo with {name}, {name}"],
        "normalize": normalize,
        "names": str(tmp_path / "names.txt"),
    }
    found, sources, _ = read_source(source.model_copy(update=changes), CLASSES)
    expected = []
    for name in ("Moose", "Bird", "Zebra"):
        sentences = [name, f"it is a {name}", f"a zoo with {name}, {name}"]
        expected.append(by_hand(source, sentences).mean(axis=0))
    expected = np.stack(expected)
    expected = unit(expected) if normalize == "l2" else expected
    np.testing.assert_allclose(found.vectors, expected, atol=2e-6)
    assert sources[changes["names"]] == file_sha256(tmp_path / "names.txt")


def test_descriptions_are_averaged_by_class_and_templates_left_out(source, tmp_path):
    file = tmp_path / "descriptions.txt"
    file.write_text(
        "zebra\tstripes\nelk\tantlers\nzebra\tlike  a horse\n\n"
        "002.Laysan_Albatross\ta bird of the sea\nzebra\tlives in herds\n"
    )
    source = source.model_copy(update={"descriptions": str(file)})
    found, sources, facts = read_source(source, CLASSES)
    zebra = by_hand(source, ["stripes", "like a horse", "lives in herds"]).mean(axis=0)
    others = by_hand(source, ["antlers", "a bird of the sea"])
    np.testing.assert_allclose(found.vectors, [*others, unit(zebra)], atol=2e-6)
    assert sources[str(file)] == file_sha256(file)
    assert facts["text"]["descriptions"] == str(file)
    assert "templates" not in facts["text"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("elk\ta\nzebra\tb\n", "1 of 3 classes have no description: 002.Laysan_Albatross"),
        ("", "3 of 3 classes have no description: elk, 002.Laysan_Albatross, zebra"),
        ("okapi\ta\n", "there is no class 'okapi'"),
        ("elk: antlers\n", "line 1: expected class, tab, sentence"),
    ],
)
def test_descriptions_are_checked_before_a_model_is_loaded(folders, tmp_path, content, expected):
    file = tmp_path / "descriptions.txt"
    file.write_text(content)
    settings = {"descriptions": str(file), "model": "hf-hub:no/model"}
    assert expected in refusal(text_source(folders, "open_clip", **settings))


def test_the_activation_comes_from_the_configuration(tmp_path, folders):
    quick = text_source(
        {"open_clip": tiny_clip(tmp_path / "quick", 12, quick_gelu=True)}, "open_clip"
    )
    plain = text_source(folders, "open_clip")
    found = encode(quick, TEXTS)
    np.testing.assert_allclose(unit(found), by_hand(quick, TEXTS), atol=2e-6)
    assert np.abs(found - encode(plain, TEXTS)).max() > 1e-4


def test_openais_weights_get_the_activation_that_they_were_trained_with(folders, monkeypatch):
    """``RN101`` has another one, of which open_clip only warns."""
    import open_clip

    asked = {}

    def create_model(*arguments, **options):
        asked.update(options, arguments=arguments)
        raise OSError("no hub")

    monkeypatch.setattr(open_clip, "create_model", create_model)
    with pytest.raises(IcisError, match="no hub"):
        encode(text_source(folders, "open_clip", model="RN101/openai"), TEXTS)
    assert asked["arguments"] == ("RN101", "openai")
    assert asked["force_quick_gelu"] is True
    assert asked["require_pretrained"] is True
    with pytest.raises(IcisError, match="no hub"):
        encode(text_source(folders, "open_clip", model="ViT-B/32/laion2b_s34b_b79k"), TEXTS)
    assert asked["arguments"] == ("ViT-B-32", "laion2b_s34b_b79k")
    assert not asked["force_quick_gelu"]


def test_hashes_of_weights_in_the_hubs_cache(folders, monkeypatch):
    import huggingface_hub

    asked = []

    def cached(repository, name):
        asked.append(repository)
        path = folders["open_clip"] / name
        return str(path) if path.is_file() else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    sha256 = file_sha256(folders["open_clip"] / "open_clip_model.safetensors")
    for library, model, repository in (
        ("open_clip", "hf-hub:me/clip", "me/clip"),
        ("open_clip", "RN101/openai", "timm/resnet101_clip.openai"),
        ("sentence-transformers", "hf-hub:me/sentences", "me/sentences"),
        ("sentence-transformers", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
    ):
        found = weight_hashes(text_source(folders, library, model=model))
        assert found == {f"{model}/open_clip_model.safetensors": sha256}
        assert asked[-1] == repository


# what is missing


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("model", ["hf-hub:nobody/nothing", "RN101/openai"])
def test_a_hub_out_of_reach_is_named_with_the_ways_out(folders, library, model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal(text_source(folders, library, model=model))
    assert message.startswith(f"text encoder {model} of {library} cannot be had: ")
    assert "HF_ENDPOINT" in message
    assert "local-dir:FOLDER" in message


@pytest.mark.parametrize(
    ("library", "module", "install"),
    [
        ("open_clip", "open_clip", "pip install open_clip_torch"),
        ("sentence-transformers", "sentence_transformers", "pip install 'icis[sentences]'"),
    ],
)
def test_a_missing_library_is_named_with_its_package(
    folders, monkeypatch, library, module, install
):
    monkeypatch.setitem(sys.modules, module, None)
    message = refusal(text_source(folders, library))
    assert message.startswith(f"{library} cannot be imported")
    assert message.endswith(install)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_folder_that_is_no_model(folders, tmp_path, library):
    source = text_source(folders, library, model=f"local-dir:{tmp_path}/absent")
    assert refusal(source) == f"{tmp_path}/absent, the folder of the text encoder, does not exist"
    source = text_source(folders, library, model=f"local-dir:{tmp_path}")
    assert refusal(source).startswith(f"{tmp_path} has no ")


def test_a_model_without_weights_is_not_a_random_one(folders, tmp_path):
    config = (folders["open_clip"] / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(config)
    source = text_source(folders, "open_clip", model=f"local-dir:{tmp_path}")
    assert "pretrained weights" in refusal(source)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("RN101/opnai", "(RN101 has openai, yfcc15m)"),
        ("resnet", "MODEL/WEIGHTS that open_clip knows (such as RN101/openai)"),
    ],
)
def test_a_model_that_open_clip_does_not_know(folders, model, expected):
    message = refusal(text_source(folders, "open_clip", model=model))
    assert message.startswith(f"model {model}: expected hf-hub:ORG/NAME, local-dir:FOLDER")
    assert expected in message


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.nan, "rows hold NaN or infinity"), (0, "'zebra' is all zeros"), (1, "is constant (0.")],
)
def test_embeddings_that_say_nothing_are_refused(folders, monkeypatch, value, expected):
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    rows[2] = value
    monkeypatch.setattr("icis.describing.sentences.encode", lambda *_, **__: rows)
    source = text_source(folders, "open_clip")
    message = refusal(source)
    assert message.startswith(f"{source.model}: ")
    assert expected in message
