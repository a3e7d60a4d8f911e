"""Linear heads: shapes, scores, joining and splitting."""

import pytest
import torch

from icis.errors import IcisError
from icis.heads import Head, check_dim, class_rows


def make_head(classes=("wolf", "bat", "cow"), dim=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(len(classes), dim, generator=generator)
    return Head(weight, torch.randn(len(classes), generator=generator), tuple(classes))


def test_scores_are_weight_times_feature_plus_bias():
    head, images = make_head(), torch.randn(5, 4)
    for image, row in zip(images.tolist(), head.scores(images).tolist(), strict=True):
        for c in range(3):
            products = [w * x for w, x in zip(head.weight[c].tolist(), image, strict=True)]
            assert row[c] == pytest.approx(sum(products) + float(head.bias[c]), abs=1e-5)


def test_restrict_keeps_the_order_asked_for():
    head, images = make_head(), torch.randn(6, 4)
    part = head.restrict(("cow", "wolf"))
    assert part.classes == ("cow", "wolf")
    torch.testing.assert_close(part.scores(images), head.scores(images)[:, [2, 0]])


def test_joined_and_back():
    head = make_head()
    joined = head.joined()
    assert joined.shape == (3, 5)
    assert torch.equal(joined[:, -1], head.bias)
    back = Head.from_joined(joined, head.classes)
    assert torch.equal(back.weight, head.weight)
    assert torch.equal(back.bias, head.bias)
    assert back.digest() == head.digest()


def test_append_puts_the_other_rows_below():
    both = make_head().append(make_head(("elk", "ant"), seed=1))
    assert both.classes == ("wolf", "bat", "cow", "elk", "ant")
    images = torch.randn(3, 4)
    apart = [make_head().scores(images), make_head(("elk", "ant"), seed=1).scores(images)]
    torch.testing.assert_close(both.scores(images), torch.cat(apart, dim=1))


def test_append_refuses_a_class_that_is_there():
    with pytest.raises(IcisError, match="'bat' stands twice"):
        make_head().append(make_head(("bat",)))


def test_digest_sees_values_and_names():
    head = make_head()
    assert head.digest() == make_head().digest()
    changed = head.weight.clone()
    changed[1, 2] = torch.nextafter(changed[1, 2], torch.tensor(torch.inf))
    others = [
        Head(changed, head.bias, head.classes),
        Head(head.weight, head.bias.flip(0), head.classes),
        Head(head.weight, head.bias, ("wolf", "cow", "bat")),
    ]
    assert len({head.digest(), *(other.digest() for other in others)}) == 4


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        (torch.zeros(2, 4), torch.zeros(3)),
        (torch.zeros(3, 4), torch.zeros(2)),
        (torch.zeros(3), torch.zeros(3)),
        (torch.zeros(3, 4), torch.zeros(3, 1)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(weight, bias):
    with pytest.raises(IcisError, match="3 classes needs weight"):
        Head(weight, bias, ("a", "b", "c"))


def test_a_class_that_stands_twice_is_refused():
    with pytest.raises(IcisError, match="'b' stands twice"):
        Head(torch.zeros(3, 4), torch.zeros(3), ("a", "b", "b"))


def test_features_of_another_dimension_are_named():
    with pytest.raises(IcisError, match=r"takes features \[N, 4\], these are \[7, 5\]"):
        make_head().scores(torch.zeros(7, 5))
    with pytest.raises(IcisError, match=r"these are \[4\]"):
        check_dim(torch.zeros(4), 4)


def test_class_rows_names_what_is_missing():
    assert class_rows(("a", "b", "c"), ("c", "a")) == [2, 0]
    with pytest.raises(IcisError, match="2 classes have no row, the first is 'x'"):
        class_rows(("a", "b"), ("a", "x", "y"))
