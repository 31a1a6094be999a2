"""What is computed once for a picture and kept: a trunk's features, or a small crop of it.

A picture's numbers are found again by what made them (network, transform) and by the picture's content, so nothing
stale is ever reused. The file only grows, a batch at a time, its index after it: cut off and run again, it goes on.
"""

import contextlib
import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from tqdm import tqdm

from helpers.images import IMAGENET_MEAN, IMAGENET_STD, REPORT_TRANSFORM, FrameDataset
from helpers.networks import HEAD_SIZES, fingerprint
from helpers.workspace import alone, content, writing

BATCH = 32


def state():
    """accelerate's state: the device, and which of how many processes this is."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def device():
    """The GPU if there is one, else the processor, as accelerate finds it."""
    return state().device


class RowFile:
    """A file of rows of one shape, as an array that is read a few rows at a time: `rows[indices]`.

    Mapped into memory it would do the same, but what has been read would count as the process's own memory.
    """

    def __init__(self, file, dtype, shape):
        self.file, self.dtype, self.shape = file, dtype, shape
        self.nbytes = dtype.itemsize * int(np.prod(shape))

    def __getitem__(self, indices):
        numbers = np.empty((len(indices), *self.shape[1:]), self.dtype)
        with open(self.file, "rb", buffering=0) as file:
            for row, index in zip(numbers, indices, strict=True):
                file.seek(int(index) * row.nbytes)
                file.readinto(row)
        return numbers


class Features:
    """What is kept of n pictures: `features[indices]` is a float tensor (m, …) on the device; bytes become 0..1.

    The numbers stay on disk and only those asked for are read; `key` changes with any of them.
    """

    def __init__(self, table, rows, key):
        self.table, self.rows, self.key = table, rows, key

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, indices):
        numbers = torch.from_numpy(self.table[self.rows[indices]]).to(device())
        return numbers.float() / 255 if numbers.dtype == torch.uint8 else numbers.float()


def trunk_features(trunk, paths, folder, transform=REPORT_TRANSFORM):
    """Run a trunk once over each picture; returns `Features` (n, 25600), kept as float16."""
    trunk = trunk.to(device())
    name = f"alexnet-{fingerprint(trunk)}-{digest(repr(transform))[:8]}"

    def compute(batch):
        """Always of a whole batch, filled up with nothing: of one of another size the last digits may differ."""
        whole = torch.zeros(BATCH, *batch.shape[1:])
        whole[: len(batch)] = batch
        return trunk(whole.to(device()))[: len(batch)].flatten(1).half()

    return _cached(name, np.dtype(np.float16), (HEAD_SIZES[0],), compute, paths, folder, transform)


def backbone_features(network, name, paths, folder, transform):
    """Run a network once over a small picture of each; returns `Features` (n, f), kept as float16.

    `name` is the network's; `transform` makes bytes (3, side, side) of a picture, which are scaled as ImageNet's were.
    """
    network = network.to(device()).eval()
    mean, std = (torch.tensor(v, device=device()).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))

    def compute(batch):
        whole = torch.zeros(BATCH, *batch.shape[1:], dtype=batch.dtype)
        whole[: len(batch)] = batch
        return network((whole.to(device()) / 255 - mean) / std)[: len(batch)].flatten(1).half()

    with torch.inference_mode():
        shape = tuple(compute(FrameDataset(paths[:1], transform)[0][None])[0].shape)
    name = f"{name}-{fingerprint(network)}-{digest(repr(transform))[:8]}"
    return _cached(name, np.dtype(np.float16), shape, compute, paths, folder, transform)


def crops(paths, folder, transform):
    """Make a small picture of each; returns `Features` (n, 3, side, side), kept as bytes."""
    shape = tuple(FrameDataset(paths[:1], transform)[0].shape)
    name = f"crops-{shape[-1]}-{digest(repr(transform))[:8]}"
    return _cached(name, np.dtype(np.uint8), shape, lambda batch: batch, paths, folder, transform)


def _cached(name, dtype, shape, compute, paths, folder, transform):
    file, index = Path(folder) / f"{name}.{dtype.name}", Path(folder) / f"{name}.index"
    width = dtype.itemsize * int(np.prod(shape))
    digests = [content(Path(path)) for path in paths]
    with alone(file):  # two that write at once would spoil it
        known = _known(file, index, width)
        todo = {key: path for key, path in zip(digests, paths, strict=True) if key not in known}
        batches = torch.utils.data.DataLoader(FrameDataset(todo.values(), transform), batch_size=BATCH)
        fresh, label = iter(todo), name.split("-")[0]
        with _appending(file) as numbers, _appending(index) as names, torch.inference_mode():
            for batch in tqdm(batches, desc=label, unit="batch", file=sys.stdout, mininterval=0.5, disable=not todo):
                numbers(compute(batch).cpu().numpy().tobytes())
                names(b"".join(next(fresh).encode() + b"\n" for _ in batch))
        known = _known(file, index, width)
    table = RowFile(file, dtype, (len(known), *shape))
    return Features(table, np.array([known[key] for key in digests]), digest(name + "".join(digests)))


@contextlib.contextmanager
def _appending(path):
    """A function that puts bytes at the end of a file, unless the file system refuses them: UserError."""
    with writing(path):
        file = open(path, "ab", buffering=0)  # noqa: SIM115

    def append(numbers):
        with writing(path):
            while numbers:
                numbers = numbers[file.write(numbers) :]

    with file:
        yield append


def digest(text):
    """The SHA-256 of bytes or of a text, in hexadecimal."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def _known(file, index, width):
    """The row of each digest; what a kill left half-written at the end of either file is cut off."""
    if not file.exists() or not index.exists():  # one without the other is worth nothing
        with writing(file):
            file.unlink(missing_ok=True)
            index.unlink(missing_ok=True)
        return {}
    with writing(file):
        names = index.read_text("ascii", errors="replace").split("\n")[:-1][: file.stat().st_size // width]
        os.truncate(file, len(names) * width)
        os.truncate(index, len(names) * 65)
    return {name: row for row, name in enumerate(names)}
