"""Archives of the small data sets as their hosts give them, and a catalogue that fits them."""

import bz2
import gzip
import hashlib
import io
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML
from scipy.io import savemat

from icis.compat import timm
from tests.miniature import classes
from tests.miniature.objects import apy_files

WIDTH = 24
"""Components of the small ResNet-101 features."""
WORDS = 16
"""Components of the small word vectors."""


@dataclass(frozen=True)
class Miniature:
    """The files of every host: ``hosts`` is what a server serves, by source and file name."""

    root: Path
    counts: dict[str, dict[str, int]]

    @property
    def hosts(self) -> Path:
        """Return the folder that a server serves: ``<source>/<file>``."""
        return self.root / "hosts"

    @property
    def imagenet(self) -> Path:
        """Return the folder of ImageNet's validation images, which the user has."""
        return self.root / "imagenet-val"

    def catalogue(self, url: str) -> Path:
        """Write the catalogue of the miniature's files at a server's address."""
        sources = {}
        for folder in sorted(each for each in self.hosts.iterdir() if each.is_dir()):
            files = [_entry(file, f"{url}/{folder.name}") for file in sorted(folder.iterdir())]
            sources[folder.name] = {"files": files, "unpacked_size": None}
        path = self.root / "catalogue.yaml"
        benchmarks = {name: {"counts": counts} for name, counts in self.counts.items()}
        YAML().dump({"sources": sources, "benchmarks": benchmarks}, path)
        return path


def _entry(file, url):
    data = file.read_bytes()
    entry = {"name": file.name, "urls": [f"{url}/{file.name}"], "size": len(data)}
    if file.name != "xlsa17.zip":  # has no published checksum, its first is to be recorded
        entry["sha256"] = hashlib.sha256(data).hexdigest()
        entry["md5"] = hashlib.md5(data).hexdigest()  # in place of the published one
    if ".txt." in file.name:
        entry["unpack"] = False
    return entry


def build(root: Path) -> Miniature:
    """Write all archives; the same ones every time."""
    cub, awa2, sun, flo, awa1 = (
        getattr(classes, name)() for name in ("cub", "awa2", "sun", "flo", "awa1")
    )
    apy = classes.apy()
    objects = apy_files(apy)
    hosts = root / "hosts"
    proposed = {}
    for data in (cub, awa2, sun, awa1, apy):
        proposed |= {f"xlsa17/data/{data.name}/{name}": b for name, b in xlsa17(data).items()}
    proposed |= {"xlsa17/code/readme.txt": b"code of the evaluation"}
    write_zip(hosts / "xlsa17/xlsa17.zip", proposed)
    listing = {"CUB_200_2011/images.txt": b"1 001.x/y.jpg\n", "attributes.txt": b"1 size::small\n"}
    images = {f"CUB_200_2011/images/{p.path}": p.jpeg for p in cub.pictures}
    write_tar(hosts / "cub-images/CUB_200_2011.tgz", listing | images)
    images = {f"Animals_with_Attributes2/JPEGImages/{p.path}": p.jpeg for p in awa2.pictures}
    readme = {"Animals_with_Attributes2/classes.txt": b"       1\tantelope\n"}
    write_zip(hosts / "awa2-images/AwA2-data.zip", readme | images)
    images = {f"images/{p.path}": p.jpeg for p in sun.pictures}
    write_tar(hosts / "sun-images/SUNAttributeDB_Images.tar.gz", images)
    flowers(hosts, flo)
    for name, members in objects.items():
        write_tar(hosts / "apy-images" / name, members)
    words(hosts, (cub, awa2, sun))
    imagenet(root / "imagenet-val")
    return Miniature(root, {d.name: d.counts for d in (cub, awa2, sun, flo, awa1, apy)})


def xlsa17(data, *, version=2, named=True):
    """Return the files of a data set in the proposed splits, by name."""
    rng = np.random.default_rng(1)
    pictures = list(data.pictures)
    if data.name != "APY":  # objects keep the order of their lists
        pictures = [pictures[each] for each in rng.permutation(len(pictures))]
    labels = np.array([picture.label for picture in pictures])
    spread = rng.normal(size=(data.attributes.shape[1], WIDTH))
    noise = rng.normal(size=(len(labels), WIDTH))
    features = np.maximum(data.attributes[labels] @ spread + noise, 0)
    files = np.array([data.folder + picture.path for picture in pictures], dtype=object)
    res101 = {
        "features": features.T,
        "labels": (labels + 1).astype(np.uint8)[:, None],
        "image_files": files[:, None],
    }
    attributes = data.attributes.T
    splits = {
        "att": attributes / np.linalg.norm(attributes, axis=0),
        "original_att": 100 * attributes,
        **locations(pictures, version),
    }
    if named:
        splits["allclasses_names"] = np.array(data.names, dtype=object)[:, None]
    seen = [name for number, name in enumerate(data.names) if number not in data.unseen]
    unseen = [data.names[number] for number in sorted(data.unseen)]
    lists = {"allclasses.txt": data.names, "trainvalclasses.txt": seen, "testclasses.txt": unseen}
    for fold in (1, 2, 3):
        lists[f"valclasses{fold}.txt"] = seen[fold::4]
        lists[f"trainclasses{fold}.txt"] = [name for name in seen if name not in seen[fold::4]]
    texts = {name: ("\n".join(rows) + "\n").encode() for name, rows in lists.items()}
    return {"res101.mat": mat(res101), "att_splits.mat": mat(splits), **texts}


def locations(pictures, version):
    """Return the 1-based locations of the splits, with train and val as the version has them."""
    splits = np.array([picture.split for picture in pictures])
    found = {
        f"{split}_loc": (np.flatnonzero(splits == split) + 1).astype(np.uint16)[:, None]
        for split in classes.SPLITS
    }
    trainval = found["trainval_loc"]
    if version == 1:
        found["train_loc"] = np.concatenate([trainval[1:], found["test_seen_loc"]])
        found["val_loc"] = trainval[:1]
    elif version == 2:
        found["train_loc"], found["val_loc"] = trainval[1:], trainval[:1]
    return found


def mat(variables):
    """Return a MATLAB file's bytes."""
    data = io.BytesIO()
    savemat(data, variables, do_compression=True)
    return data.getvalue()


def write_zip(path, members):
    """Write a zip archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def write_tar(path, members):
    """Write a tar archive, compressed where its name says so; the same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    packed = path.suffix in (".gz", ".tgz")
    path.write_bytes(gzip.compress(data.getvalue(), mtime=0) if packed else data.getvalue())


def flowers(hosts, data):
    """Write Flowers-102: images, labels and its own splits, and the zero-shot splits."""
    write_tar(hosts / "flo-images/102flowers.tgz", {f"jpg/{p.path}": p.jpeg for p in data.pictures})
    labels = np.array([[picture.label + 1 for picture in data.pictures]], dtype=np.uint8)
    (hosts / "flo-images/imagelabels.mat").write_bytes(mat({"labels": labels}))
    (hosts / "flo-images/setid.mat").write_bytes(mat({"trnid": np.array([[1, 2]])}))
    folder = hosts / "flo-splits"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in xlsa17(data, version=1, named=False).items():
        if name.endswith(".mat"):
            (folder / name).write_bytes(content)


def words(hosts, datasets):
    """Write two tables of word vectors that know every word of every class's name."""
    info = timm.data.ImageNetInfo("imagenet-1k")
    named = [info.index_to_description(each).split(",")[0] for each in range(1000)]
    for data in datasets:
        named += [name.split(".", 1)[-1] for name in data.names]
    known = set()
    for name in named:
        known |= {*name.lower().replace("_", " ").replace("+", " ").replace("-", " ").split()}
    known |= {word.replace(".", "").strip("'") for word in known}
    rng = np.random.default_rng(2)
    rows = {word: rng.normal(size=WORDS) for word in sorted(known) if word}
    lines = [f"{word} " + " ".join(f"{x:.4f}" for x in row) for word, row in rows.items()]
    text = "\n".join([f"{len(lines)} {WORDS}", *lines, ""]).encode()
    for source, file, packed in (
        ("numberbatch", "numberbatch-en-19.08.txt.gz", gzip.compress(text, mtime=0)),
        ("wikipedia2vec", "enwiki_20180420_300d.txt.bz2", bz2.compress(text)),
    ):
        (hosts / source).mkdir(parents=True, exist_ok=True)
        (hosts / source / file).write_bytes(packed)


def imagenet(folder):
    """Write validation images of a few of ImageNet's classes, in folders by wnid."""
    info = timm.data.ImageNetInfo("imagenet-1k")
    rng = np.random.default_rng(3)
    for number in range(0, 1000, 100):
        wnid = info.index_to_label_name(number)
        (folder / wnid).mkdir(parents=True)
        for each in (1, 2):
            file = folder / wnid / f"ILSVRC2012_val_{number + each:08d}.JPEG"
            file.write_bytes(classes.picture(rng.random(8), rng))
