from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers import gradcam, images, networks
from helpers.workspace import SAMPLE, Run, UserError


@pytest.fixture
def by_colour():
    """A network that calls a picture by its colours: its first three classes score the mean of red, green, blue."""
    look, name = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3, 5, bias=False)
    with torch.no_grad():
        look.weight[:] = torch.eye(3)[:, :, None, None]
        name.weight[:] = 0
        name.weight[:3] = torch.eye(3)
    parts = OrderedDict(
        trunk=nn.Sequential(look, nn.ReLU()), mean=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=name
    )
    return nn.Sequential(parts).requires_grad_(False)


def test_the_heat_lies_where_the_class_is(by_colour):
    pictures = torch.zeros(20, 3, 24, 24)  # more than one batch
    pictures[:, 0, 2:6, 2:6] = 1  # red above left
    pictures[:, 1, 15:20, 15:20] = 0.5  # green below right
    classes = np.arange(20) % 4
    maps = gradcam.heat(by_colour, pictures, classes)
    assert maps.shape == (20, 24, 24) and maps.dtype == np.float32
    for found, cls in zip(maps, classes, strict=True):
        expected = pictures[0, cls].numpy() if cls < 2 else np.zeros((24, 24))
        assert found == pytest.approx(expected / max(expected.max(), 1e-12), abs=1e-6)  # of blue there is nothing


def test_both_networks_of_02_are_explained(tmp_path):
    """With random weights, since only shapes and ranges are asked for, from checkpoints as `fit` leaves them."""
    run, picture = Run(SAMPLE, tmp_path), tmp_path / "p.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)).save(picture)
    for model, network in (("alexnet_2020", networks.report_head()), ("alexnet", networks.face_alexnet("none"))):
        kept = {"key": "k", "history": [[1]], "best": {"value": 0.0, "network": network.state_dict()}}
        torch.save(kept, run.path("models", f"{model}.pth"))
        found, transform = gradcam.saved_network(model, run, "random trunk")
        pictures = images.FrameDataset([picture] * 2, transform)
        maps, seen = gradcam.heat(found, pictures, [0, 4]), gradcam.as_seen(found, pictures)
        side = 360 if model == "alexnet_2020" else 160
        assert maps.shape == (2, side, side) and seen.shape == (2, side, side, 3) and seen.dtype == np.uint8
        assert maps.min() >= 0 and maps.max() <= 1 + 1e-6
    assert np.ptp(seen.astype(int), axis=3).max() == 0  # the better one is shown grey
    with pytest.raises(UserError, match="trained on another trunk .ImageNet trunk, here random trunk.: set WEIGHTS"):
        gradcam.saved_network("alexnet_2020", run)


def test_how_much_of_the_heat_is_on_the_face(tmp_path):
    frame = Image.new("RGB", (640, 360), "white")
    frame.paste((224, 172, 140), (280, 130, 360, 230))  # skin, around the middle
    frame.save(tmp_path / "f.png")
    even, outside = np.ones((360, 360)), np.zeros((360, 360))
    outside[:60] = 1
    inside = np.zeros((360, 360))
    inside[150:210, 150:210] = 1
    found = gradcam.on_the_face([even, outside, inside, np.zeros((360, 360))], [tmp_path / "f.png"] * 4)
    assert found["area"].to_numpy() == pytest.approx([0.25] * 4, abs=0.01)
    assert found["heat"].to_numpy() == pytest.approx([found["area"][0], 0, 1, np.nan], nan_ok=True)
