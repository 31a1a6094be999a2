"""What is computed once for a picture and kept: a trunk's features, or a small crop of it.

A picture's numbers are found again by what made them (network, transform) and by the picture's content, so nothing
stale is ever reused. The file only grows, a batch at a time, its index after it: cut off and run again, it goes on.
"""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from tqdm import tqdm

from helpers.images import REPORT_TRANSFORM, FrameDataset
from helpers.networks import HEAD_SIZES, fingerprint

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
    compute = lambda batch: trunk(batch.to(device())).flatten(1).half()  # noqa: E731
    return _cached(name, np.dtype(np.float16), (HEAD_SIZES[0],), compute, paths, folder, transform)


def crops(paths, folder, transform):
    """Make a small picture of each; returns `Features` (n, 3, side, side), kept as bytes."""
    shape = tuple(FrameDataset(paths[:1], transform)[0].shape)
    name = f"crops-{shape[-1]}-{digest(repr(transform))[:8]}"
    return _cached(name, np.dtype(np.uint8), shape, lambda batch: batch, paths, folder, transform)


def _cached(name, dtype, shape, compute, paths, folder, transform):
    file, index = Path(folder) / f"{name}.{dtype.name}", Path(folder) / f"{name}.index"
    file.parent.mkdir(parents=True, exist_ok=True)
    width = dtype.itemsize * int(np.prod(shape))
    digests = [digest(Path(path).read_bytes()) for path in paths]
    known = _known(file, index, width)
    todo = {key: path for key, path in zip(digests, paths, strict=True) if key not in known}
    batches = torch.utils.data.DataLoader(FrameDataset(todo.values(), transform), batch_size=BATCH) if todo else []
    fresh, label = iter(todo), name.split("-")[0]
    with open(file, "ab") as numbers, open(index, "a", encoding="ascii") as names, torch.inference_mode():
        for batch in tqdm(batches, desc=label, unit="batch", file=sys.stdout, mininterval=0.5, disable=not todo):
            numbers.write(compute(batch).cpu().numpy().tobytes())
            numbers.flush()
            names.writelines(next(fresh) + "\n" for _ in batch)
            names.flush()
    known = _known(file, index, width)
    table = RowFile(file, dtype, (len(known), *shape))
    return Features(table, np.array([known[key] for key in digests]), digest(name + "".join(digests)))


def digest(content):
    """The SHA-256 of bytes or of a text, in hexadecimal."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def _known(file, index, width):
    """The row of each digest; what a kill left half-written at the end of either file is cut off."""
    if not file.exists() or not index.exists():
        return {}
    names = index.read_text("ascii").split("\n")[:-1][: file.stat().st_size // width]
    os.truncate(file, len(names) * width)
    os.truncate(index, len(names) * 65)
    return {name: row for row, name in enumerate(names)}
