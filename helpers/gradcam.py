"""Where in a picture a network finds what speaks for a class: Grad-CAM, as captum computes it.

Selvaraju et al., 2017, arXiv:1610.02391. The maps are as coarse as the last convolution's (21 x 21 for the report's
AlexNet, 9 x 9 for the better one), and tell where it looked, not whether it understood.
"""

from collections import OrderedDict

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerAttribution, LayerGradCam
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from helpers.features import device
from helpers.images import FACE_TRANSFORM, REPORT_TRANSFORM, SIZE, FaceCrop
from helpers.networks import alexnet_trunk, face_alexnet, report_head
from helpers.training import load
from helpers.workspace import UserError, shown, weights

BATCH = 16  # pictures whose gradients are held at a time
FACE = 0.5  # the side of the square around the face, as a share of the picture's height


def saved_network(model, run, note=""):
    """A network of 02 with what it learned, and its transform (picture to tensor): `alexnet_2020` or `alexnet`.

    Its trunk is `network.trunk`. UserError if there is no checkpoint, or if WEIGHTS gives another trunk than the one
    that `note`, of the model's predictions, tells of.
    """
    file = run.need("models", f"{model}.pth", notebook="02_alexnet_train")
    if model == "alexnet":
        return load(face_alexnet("none"), file), v2.Compose([FACE_TRANSFORM, v2.ToDtype(torch.float32, scale=True)])
    trunk = alexnet_trunk(weights())
    if trunk.note != note:
        here, there = trunk.note or "ImageNet trunk", note or "ImageNet trunk"
        raise UserError(f"{shown(file)} was trained on another trunk ({there}, here {here}): set WEIGHTS as for 02.")
    parts = OrderedDict(trunk=trunk, flatten=nn.Flatten(), head=load(report_head(), file))
    return nn.Sequential(parts), REPORT_TRANSFORM


def heat(network, pictures, classes):
    """How much each place of a picture speaks for a class.

    Parameters
    ----------
    network : nn.Module with a `trunk` that ends in convolutions, as `saved_network` gives it
    pictures : float tensor (n, 3, h, w), or a longer iterable of tensors (3, h, w)
    classes : int array (n,), places in `CLASSES`

    Returns a float array (n, height, width) of what the trunk is shown, 0 where nothing speaks for it, at most 1.
    """
    network = network.to(device()).eval()
    layer = [layer for layer in network.trunk if isinstance(layer, nn.ReLU)][-1]
    cam, found = LayerGradCam(network, layer), []
    for i in range(0, len(classes), BATCH):
        batch = torch.stack([pictures[k] for k in range(i, min(i + BATCH, len(classes)))]).to(device())
        side = network.view.size if hasattr(network, "view") else batch.shape[-1]
        target = torch.as_tensor(np.asarray(classes[i : i + BATCH]), device=device())
        coarse = cam.attribute(batch, target, relu_attributions=True)
        found.append(LayerAttribution.interpolate(coarse, (side, side), "bilinear")[:, 0].detach().cpu().numpy())
    maps = np.concatenate(found)
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)


def as_seen(network, pictures):
    """What the trunk is shown of pictures (n, 3, h, w), to be drawn under its heat: uint8 array (n, side, side, 3)."""
    pictures = np.stack([picture.numpy() for picture in pictures])
    if hasattr(network, "view"):
        cut = (pictures.shape[-1] - network.view.size) // 2  # the view takes the middle
        pictures = pictures[:, :, cut : cut + network.view.size, cut : cut + network.view.size]
        pictures = pictures.mean(axis=1, keepdims=True).repeat(3, axis=1) if network.view.grey else pictures
    return (255 * pictures.transpose(0, 2, 3, 1)).round().astype(np.uint8)


def on_the_face(maps, paths):
    """How much of each map lies on the face: DataFrame, a row a picture, with heat and area, shares of the whole.

    `maps` are of the report's network, 360 x 360; `paths` the frames that they are of. The face is a square half the
    frame's height wide, where `FaceCrop` finds skin. A map without any heat gives NaN.
    """
    height, width = SIZE
    rows, half = [], FACE * height / 2
    for found, path in zip(maps, paths, strict=True):
        with Image.open(path) as picture:
            x, y = FaceCrop().centre(picture.convert("RGB"))
        x, y = x * width - (width - height) / 2, y * height
        top, bottom, left, right = (int(np.clip(edge, 0, height)) for edge in (y - half, y + half, x - half, x + half))
        heat = found[top:bottom, left:right].sum() / found.sum() if found.any() else np.nan
        rows.append([heat, (bottom - top) * (right - left) / height**2])
    return pd.DataFrame(rows, columns=["heat", "area"])
