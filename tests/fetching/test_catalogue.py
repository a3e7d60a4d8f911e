"""The catalogue: its own entries, the user's over them, and mistakes in words."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from icis.errors import IcisError
from icis.fetching.catalogue import FOLDER, Catalogue, read_catalogue, source_of

OWN = read_catalogue()
COUNTS = {
    "CUB": (200, 150, 50, 312, 11_788, 7_057, 1_764, 2_967),
    "AWA2": (50, 40, 10, 85, 37_322, 23_527, 5_882, 7_913),
    "SUN": (717, 645, 72, 102, 14_340, 10_320, 2_580, 1_440),
    "AWA1": (50, 40, 10, 85, 30_475, 19_832, 4_958, 5_685),
    "APY": (32, 20, 12, 64, 15_339, 5_932, 1_483, 7_924),
    "FLO": (102, 82, 20, 1024, 8_189, 5_631, 1_403, 1_155),
}


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mine.yaml"
    monkeypatch.setenv("ICIS_CATALOGUE", str(path))
    return path


def problems(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(IcisError) as caught:
        read_catalogue()
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_files_of_the_package_hold_one_data_set_each() -> None:
    names = ["apy", "awa1", "awa2", "cub", "flo", "imagenet-val", "sun", "words", "xlsa17"]
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == names


@pytest.mark.parametrize("name", OWN.sources)
def test_every_source_is_well_formed(name: str) -> None:
    source = OWN.sources[name]
    assert urlsplit(source.homepage).scheme == "https"
    assert source.licence.endswith("othing is redistributed.")
    for file in source.files:
        # the model checks hashes and addresses; here: that there is a way to get the file
        assert file.urls or source.note
        for url in file.urls:
            assert urlsplit(url).path.endswith(f"/{file.name}")


@pytest.mark.parametrize("name", OWN.benchmarks)
def test_every_benchmark_is_well_formed(name: str) -> None:
    benchmark = OWN.benchmarks[name]
    assert tuple(benchmark.counts.values()) == COUNTS[name]
    counts = benchmark.counts
    assert counts["seen"] + counts["unseen"] == counts["classes"]
    assert {source_of(text) for text in benchmark.places.values()} == set(benchmark.sources)
    parts = sum(counts[key] for key in ("trainval", "test_seen", "test_unseen"))
    assert parts == counts["images"]


def test_published_checksums() -> None:
    [cub] = OWN.source("cub-images").files
    assert cub.size == 1_150_585_339
    assert cub.md5 == "97eceeb196236b17998738112f37df78"
    assert OWN.source("xlsa17").size is None
    assert not OWN.source("numberbatch").files[0].unpack


def test_names() -> None:
    assert OWN.sources_of(["CUB", "xlsa17"]) == ["xlsa17", "cub-images"]
    assert OWN.sources_of(["all"]) == list(OWN.sources)
    with pytest.raises(IcisError, match="no source or benchmark 'cub-image'; did you mean"):
        OWN.sources_of(["cub-image"])
    with pytest.raises(IcisError, match="no benchmark 'cub'"):
        OWN.benchmark("cub")


def test_a_users_file_is_merged_key_by_key(user: Path) -> None:
    user.write_text(
        """
sources:
  cub-images:
    unpacked_size: 1200000000
    files: [{name: CUB_200_2011.tgz, urls: ["http://mirror.example/CUB_200_2011.tgz"]}]
  xlsa17:
    files: [{name: extra.txt, urls: ["https://example.org/extra.txt"]}]
  pets:
    title: Pets
    homepage: https://example.org/
    licence: Free to all.
    files: [{name: pets.zip, urls: ["https://example.org/pets.zip"]}]
benchmarks:
  CUB: {counts: {images: 11787}}
"""
    )
    found = read_catalogue()
    [cub] = found.source("cub-images").files
    assert cub.urls == ["http://mirror.example/CUB_200_2011.tgz"]
    assert cub.md5 == "97eceeb196236b17998738112f37df78"
    assert found.source("cub-images").title == OWN.source("cub-images").title
    assert [file.name for file in found.source("xlsa17").files] == ["xlsa17.zip", "extra.txt"]
    assert found.source("pets").files[0].unpack
    assert found.benchmark("CUB").counts == {**OWN.benchmark("CUB").counts, "images": 11_787}


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICIS_CATALOGUE", "")
    assert read_catalogue() == OWN


def test_a_missing_file(user: Path) -> None:
    with pytest.raises(IcisError, match=r"mine.yaml \(ICIS_CATALOGUE\) cannot be read: No such"):
        read_catalogue()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is no valid YAML: .*line 1"),
        ("- a", "expected a mapping with the keys sources, benchmarks or both"),
        ("", "expected a mapping"),
        ("source: {}", "the file: unknown key 'source'; did you mean 'sources'"),
        ("sources: 3", "sources: expected a mapping, found 3"),
        ("sources: {cub-images: null}", "sources.cub-images: expected a mapping.*found nothing"),
        (
            "sources: {cub-image: {files: [{name: a}]}}",
            r"sources.cub-image.title: it is missing \(did you mean 'cub-images'\?\)",
        ),
        (
            "sources: {cub-images: {licence: 3, homepag: x}}",
            "sources.cub-images.licence: expected text, found 3\n.*did you mean 'homepage'",
        ),
        (
            "sources: {cub-images: {files: [{name: CUB_200_2011.tgz, md5: abc}]}}",
            r"files.0.md5: expected 32 of the characters 0-9 and a-f, found 'abc'",
        ),
        (
            "sources: {cub-images: {files: [{name: CUB_200_2011.tgz, sha256: ABC}]}}",
            "sha256: expected 64",
        ),
        (
            "sources: {cub-images: {files: [{name: CUB_200_2011.tgz, size: 1GB}]}}",
            "size: expected a whole number, found '1GB'",
        ),
        (
            "sources: {cub-images: {files: [{name: CUB_200_2011.tgz, urls: [ftp://a/b]}]}}",
            "urls: 'ftp://a/b' is no address; expected https",
        ),
        (
            "sources: {cub-images: {files: [{name: a.txt, unpack: true}]}}",
            "a.txt cannot be unpacked",
        ),
        ("sources: {cub-images: {files: [{name: ../a}]}}", "name: expected a plain file name"),
        ("sources: {cub-images: {files: []}}", "."),
        ("sources: {cub-images: {files: 3}}", "files: expected a list, found 3"),
        ("sources: {cub-images: {files: [a]}}", r"files.0: expected a mapping"),
        ("sources: {a.b: {}}", "a.b: expected a name of letters"),
        (
            "benchmarks: {CUB: {sources: [cub-image, xlsa17]}}",
            "benchmarks.CUB.sources: there is no source 'cub-image'; did you mean 'cub-images'",
        ),
        (
            "benchmarks: {CUB: {images: 'fetched:sun-images/**/images'}}",
            "benchmarks.CUB.images: 'sun-images' is none of its sources",
        ),
        (
            "benchmarks: {CUB: {counts: {pictures: 3}}}",
            "benchmarks.CUB.counts: unknown key 'pictures'; there are: classes, seen",
        ),
    ],
)
def test_mistakes_in_words(user: Path, text: str, said: str) -> None:
    import re

    if text == "sources: {cub-images: {files: []}}":
        user.write_text(text)  # files are merged by name: no file changes nothing
        assert read_catalogue() == OWN
        return
    assert re.search(said, problems(user, text), re.DOTALL)


def test_a_file_may_not_stand_there_twice_nor_a_name_mean_two_things() -> None:
    source = OWN.source("cub-images").model_dump()
    benchmark = OWN.benchmark("AWA1").model_dump()
    with pytest.raises(ValueError, match="stands there twice"):
        Catalogue.model_validate(
            {"sources": {"a": {**source, "files": source["files"] * 2}}, "benchmarks": {}}
        )
    with pytest.raises(ValueError, match="would mean two things"):
        Catalogue.model_validate(
            {"sources": {"xlsa17": source, "b": source}, "benchmarks": {"b": benchmark}}
        )
