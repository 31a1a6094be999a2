"""Frames as tensors: the report's picture size and centre crop, and a data set over `frames.csv`."""

import torch
from PIL import Image
from torchvision.transforms import v2

# The report: frames of 360x640 (height, width), centre-cropped. Its head takes 25,600 numbers, which is what AlexNet's
# convolutions give for a crop of 360x360 (256 maps of 10x10).
SIZE, CROP = (360, 640), 360
REPORT_TRANSFORM = v2.Compose(
    [v2.Resize(SIZE), v2.CenterCrop(CROP), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
)


class FrameDataset(torch.utils.data.Dataset):
    """Pictures by path: item i is what `transform` makes of it, a float tensor (3, 360, 360) in 0..1."""

    def __init__(self, paths, transform=REPORT_TRANSFORM):
        self.paths, self.transform = list(paths), transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with Image.open(self.paths[i]) as picture:
            return self.transform(picture.convert("RGB"))
