"""aPascal and aYahoo in small: images of one or two objects, and the lists of their boxes."""

import io

import numpy as np
from PIL import Image

LISTS = {
    "apascal_train.txt": ("VOC2008/JPEGImages", ("trainval",)),
    "apascal_test.txt": ("VOC2008/JPEGImages", ("test_seen",)),
    "ayahoo_test.txt": ("ayahoo_test_images", ("test_unseen",)),
}


def apy_files(data):
    """Return the members of each archive; orders the data set's pictures as the lists do.

    Two objects that follow each other share an image, side by side.
    """
    ordered, lists, images = [], {}, {"VOC2008/JPEGImages": {}, "ayahoo_test_images": {}}
    for name, (folder, splits) in LISTS.items():
        chosen = [picture for picture in data.pictures if picture.split in splits]
        lines = []
        for first in range(0, len(chosen), 2):
            pair = chosen[first : first + 2]
            path = pair[0].path
            images[folder][path], boxes = side_by_side([each.jpeg for each in pair])
            for each, box in zip(pair, boxes, strict=True):
                ordered.append(type(each)(each.label, each.split, path, each.jpeg))
                shown = " ".join(map(str, (*box, *np.zeros(64, dtype=int))))
                lines.append(f"{path} {data.names[each.label]} {shown}")
        lists[f"attribute_data/{name}"] = ("\n".join(lines) + "\n").encode()
    data.pictures[:] = ordered
    return {
        "VOCtrainval_14-Jul-2008.tar": {
            f"VOCdevkit/VOC2008/JPEGImages/{path}": jpeg
            for path, jpeg in images["VOC2008/JPEGImages"].items()
        },
        "attribute_data.tar.gz": lists,
        "ayahoo_test_images.tar.gz": {
            f"ayahoo_test_images/{path}": jpeg
            for path, jpeg in images["ayahoo_test_images"].items()
        },
    }


def side_by_side(jpegs):
    """Return one JPEG of several, and where each lies in it: 1-based, the last pixel included."""
    images = [Image.open(io.BytesIO(each)) for each in jpegs]
    whole = Image.new("RGB", (sum(each.width for each in images), images[0].height))
    left, boxes = 0, []
    for image in images:
        whole.paste(image, (left, 0))
        boxes.append((left + 1, 1, left + image.width, image.height))
        left += image.width
    data = io.BytesIO()
    whole.save(data, "JPEG", quality=95)
    return data.getvalue(), boxes
