"""Frames as tensors: what each network is shown of a frame, and a data set over `frames.csv`."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from helpers.workspace import UserError, shown

# The report: frames of 360x640 (height, width), centre-cropped. Its head takes 25,600 numbers, which is what AlexNet's
# convolutions give for a crop of 360x360 (256 maps of 10x10).
SIZE, CROP = (360, 640), 360
REPORT_TRANSFORM = v2.Compose(
    [v2.Resize(SIZE), v2.CenterCrop(CROP), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
)
# The small CNN: frames of 90x160, of which the middle 80x80 (the 2020 team's code)
CNN_TRANSFORM = v2.Compose([v2.Resize((90, 160)), v2.CenterCrop(80), v2.PILToTensor()])

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrameDataset(torch.utils.data.Dataset):
    """Pictures by path: item i as `transform` makes it; as the report's does, a float tensor (3, 360, 360) in 0..1."""

    def __init__(self, paths, transform=REPORT_TRANSFORM):
        self.paths, self.transform = list(paths), transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        try:
            with Image.open(self.paths[i]) as picture:
                return self.transform(picture.convert("RGB"))
        except OSError:
            name, remedy = shown(self.paths[i]), "delete it, and run the notebook that made it again"
            raise UserError(f"{name} is no whole picture: {remedy}.") from None


@dataclass(frozen=True)
class FaceCrop:
    """A square around the face, found by the colour of skin: a PIL picture in, a PIL picture (`side`, `side`) out.

    The square is centred a little below the median of the pixels whose chroma is that of skin, Cb 77 to 127 and Cr 133
    to 173 (Chai and Ngan, 1999, doi:10.1109/76.767122). Skins differ much in brightness, at which it does not look, and
    little in these. Shoulders and clothes are kept out: only the middle of the width (0.3 to 0.7) and the upper three
    quarters of the height count. The square stays inside the picture; with too few such pixels it is in the middle.
    """

    share: float = 0.73  # the square's side, as a share of the picture's height
    side: int = 176  # pixels
    follow: bool = True  # without it, the square is in the middle of every picture, for comparison

    def __call__(self, picture):
        x, y = self.centre(picture) if self.follow else (0.5, 0.5)
        half = self.share * picture.height / 2
        x = min(max(x * picture.width, half), picture.width - half)
        y = min(max(y * picture.height, half), picture.height - half)
        box = [round(edge) for edge in (x - half, y - half, x + half, y + half)]
        return picture.crop(box).resize((self.side, self.side), Image.Resampling.BILINEAR)

    def centre(self, picture):
        """Where the face is, as shares of the picture's width and height; the middle if nothing has skin's colour."""
        xs, ys = self._skin(picture)
        return ((48.5 + np.median(xs)) / 160, (5.5 + np.median(ys)) / 90) if len(xs) >= 100 else (0.5, 0.5)

    def finds(self, picture):
        """Whether there is enough of skin's colour to go by."""
        return len(self._skin(picture)[0]) >= 100

    def _skin(self, picture):
        small = picture.convert("YCbCr").resize((160, 90), Image.Resampling.BOX)
        blue, red = np.asarray(small)[:68, 48:112, 1:].transpose(2, 0, 1)
        ys, xs = np.nonzero((blue >= 77) & (blue <= 127) & (red >= 133) & (red <= 173))
        return xs, ys


FACE_TRANSFORM = v2.Compose([FaceCrop(), v2.PILToTensor()])
FIXED_TRANSFORM = v2.Compose([FaceCrop(follow=False), v2.PILToTensor()])


class FaceView(nn.Module):
    """What the fine-tuned AlexNet is shown of face crops: a batch (n, 3, 176, 176) in 0..1 to (n, 3, size, size).

    While it trains, each picture is turned (15 degrees at most), zoomed, shifted, mirrored, and its contrast and
    brightness changed, at random and each time anew; otherwise its middle is taken as it is. Grey pictures hide the
    colour of skin, by which a network could tell its few actors apart. All are scaled as ImageNet's pictures were.
    """

    def __init__(self, size=160, affine=1.0, light=1.0, grey=True, normalise=True):
        super().__init__()
        self.size, self.affine, self.light, self.grey, self.normalise = size, affine, light, grey, normalise

    def extra_repr(self):
        return f"{self.size}, affine={self.affine}, light={self.light}, grey={self.grey}, normalise={self.normalise}"

    def forward(self, x):
        n, between = len(x), lambda low, high: torch.empty(len(x), device=x.device).uniform_(low, high)
        strength = self.affine if self.training else 0
        angle = between(-15, 15) * strength * math.pi / 180
        zoom = torch.exp(between(-0.2, 0.2) * strength) / 1.1
        mirror = torch.where(between(0, 1) < 0.5 * (strength > 0), -1, 1)
        theta = torch.zeros(n, 2, 3, device=x.device)
        theta[:, 0, 0], theta[:, 0, 1] = zoom * angle.cos() * mirror, -zoom * angle.sin()
        theta[:, 1, 0], theta[:, 1, 1] = zoom * angle.sin() * mirror, zoom * angle.cos()
        theta[:, 0, 2], theta[:, 1, 2] = between(-0.12, 0.12) * strength, between(-0.12, 0.12) * strength
        grid = nn.functional.affine_grid(theta, [n, 3, self.size, self.size], align_corners=False)
        x = nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
        if self.grey:
            x = x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        if self.training and self.light:
            mean = x.mean((1, 2, 3), keepdim=True)
            contrast, brightness = (1 + 0.4 * self.light * between(-1, 1).view(n, 1, 1, 1) for _ in range(2))
            x = ((x - mean) * contrast + mean * brightness).clamp(0, 1)
        if self.normalise:
            mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
            x = (x - mean) / std
        return x.contiguous(memory_format=torch.channels_last)
