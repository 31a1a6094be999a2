"""What is computed once for a picture and kept."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from helpers import features as feats
from helpers import images, networks


@pytest.fixture
def pictures(tmp_path):
    """Forty pictures of noise, brighter by class, so that there is something to learn."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.jpg" for i in range(40)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 60, (360, 640, 3), "uint8") + np.uint8(40 * (i % 5))).save(path)
    return paths


@pytest.fixture(scope="module")
def trunk():
    return networks.alexnet_trunk("none")


def counting(trunk):
    """The trunk, and a list that grows with the number of pictures that go through it."""
    seen = []
    twin = networks.alexnet_trunk("none")
    twin.register_forward_hook(lambda _, inputs, output: seen.extend(inputs[0].flatten(1).any(1).nonzero()))
    return twin, seen


def test_features_are_what_the_trunk_gives(pictures, trunk, tmp_path):
    features = feats.trunk_features(trunk, pictures, tmp_path / "features")
    picture = images.FrameDataset(pictures)[3]
    assert picture.shape == (3, 360, 360)
    expected = trunk(picture[None]).flatten()
    assert features.table.shape == (40, 25600)
    torch.testing.assert_close(features[[3]][0], expected, rtol=2e-3, atol=1e-4)


def test_each_picture_goes_through_the_trunk_once_and_nothing_stale_is_used(pictures, trunk, tmp_path):
    counted, seen = counting(trunk)
    first = feats.trunk_features(counted, pictures, tmp_path / "features")
    assert len(seen) == 40
    again = feats.trunk_features(counted, pictures[::-1], tmp_path / "features")
    assert len(seen) == 40
    torch.testing.assert_close(again[[0]], first[[39]], rtol=0, atol=0)

    Image.new("RGB", (640, 360), "red").save(pictures[7])  # the same name, another picture
    changed = feats.trunk_features(counted, pictures, tmp_path / "features")
    assert len(seen) == 41
    assert changed.key != first.key
    assert not torch.equal(changed[[7]], first[[7]])

    with torch.no_grad():
        counted[0].bias += 1  # another trunk
    feats.trunk_features(counted, pictures, tmp_path / "features")
    assert len(seen) == 81
    assert len(list((tmp_path / "features").glob("*.float16"))) == 2


def test_a_trunk_pass_cut_off_goes_on(pictures, trunk, tmp_path):
    whole = feats.trunk_features(trunk, pictures, tmp_path / "whole")
    cut = feats.trunk_features(trunk, pictures, tmp_path / "cut")
    numbers, names = cut.table.file, next((tmp_path / "cut").glob("*.index"))
    with open(numbers, "r+b") as file:
        file.truncate(25 * 51200 + 777)  # in the middle of a picture
    with open(names, "r+b") as file:
        file.truncate(30 * 65 + 9)  # in the middle of a line, and further than the numbers
    counted, seen = counting(trunk)
    again = feats.trunk_features(counted, pictures, tmp_path / "cut")
    assert len(seen) == 15
    torch.testing.assert_close(again[range(40)], whole[range(40)], rtol=0, atol=0)
    assert again.key == whole.key


@pytest.mark.parametrize("lost", ["uint8", "index"])
def test_one_of_the_two_files_without_the_other_is_worth_nothing(pictures, tmp_path, lost):
    whole = feats.crops(pictures, tmp_path, images.CNN_TRANSFORM)[range(40)]
    next(tmp_path.glob(f"*.{lost}")).unlink()
    again = feats.crops(pictures[::-1], tmp_path, images.CNN_TRANSFORM)
    assert torch.equal(again[range(40)], whole.flip(0))


def test_small_pictures_are_kept_as_bytes_and_come_as_shares(pictures, tmp_path):
    kept = feats.crops(pictures, tmp_path, images.CNN_TRANSFORM)
    assert kept.table.dtype == np.uint8 and kept.table.shape == (40, 3, 80, 80)
    picture = images.FrameDataset(pictures, images.CNN_TRANSFORM)[7]
    torch.testing.assert_close(kept[[7]][0].cpu(), picture.float() / 255)
    other = feats.crops(pictures, tmp_path, images.FACE_TRANSFORM)
    assert other.table.shape == (40, 3, 176, 176) and other.key != kept.key


def face(x, y, skin, shirt="black"):
    """A frame with a face-coloured disc around (x, y), a shirt below, before a white wall."""
    frame = np.full((360, 640, 3), 250, np.uint8)
    frame[300:, 200:440] = ImageColor.getrgb(shirt)
    rows, columns = np.ogrid[:360, :640]
    frame[(columns - x) ** 2 + (rows - y) ** 2 < 70**2] = skin
    return Image.fromarray(frame)


@pytest.mark.parametrize("skin", [(255, 224, 196), (224, 172, 105), (141, 85, 36), (80, 50, 34)])
def test_the_crop_follows_the_face_of_any_skin(skin):
    crop = images.FaceCrop()
    for x, y in ((320, 180), (270, 150), (360, 210)):
        found = crop.centre(face(x, y, skin))
        assert abs(found[0] * 640 - x) < 8 and 0 < found[1] * 360 - y < 32  # a little below the middle
    crops = [
        [np.asarray(how(face(320, y, skin, "white"))).astype(int) for y in (150, 210)]
        for how in (crop, images.FaceCrop(follow=False))
    ]
    followed, fixed = (np.abs(high - low).mean() for high, low in crops)
    assert followed < fixed / 4


def test_without_a_face_the_crop_is_in_the_middle():
    assert images.FaceCrop().centre(Image.new("RGB", (640, 360), "white")) == (0.5, 0.5)
    assert images.FaceCrop()(face(320, 340, (224, 172, 105), "brown")).size == (176, 176)


def test_a_face_is_seen_anew_in_training_and_as_it_is_afterwards():
    view, batch = images.FaceView(64), torch.rand(4, 3, 176, 176)
    assert not torch.equal(view.train()(batch), view(batch))
    assert torch.equal(view.eval()(batch), view(batch))
    seen = view(batch)
    assert seen.shape == (4, 3, 64, 64)
    std = torch.tensor(images.IMAGENET_STD).view(3, 1, 1)
    grey = seen * std + torch.tensor(images.IMAGENET_MEAN).view(3, 1, 1)
    torch.testing.assert_close(grey[:, 0], grey[:, 2], rtol=0, atol=1e-5)
    assert not torch.allclose(*images.FaceView(64, grey=False, normalise=False).eval()(batch)[:, :2].unbind(1))
