"""What keeping the trunk's features saves, and what training on them takes: `make bench`, or `make bench DATA=folder`.

Over the frames of DATA's run: one pass through the trunk and 85 epochs of the head (from 3), against 85 epochs with the
trunk in the loop (from 1). Memory is what a fresh Python took at most, while it trained on made-up features.
"""

import contextlib
import io
import multiprocessing
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from helpers import features, networks, training
from helpers.frames import read_frames
from helpers.images import FrameDataset
from helpers.workspace import open_run, weights


class Decoded:
    """Frames decoded anew each time that they are asked for, as `Features` are read."""

    key = ""

    def __init__(self, paths):
        self.pictures = FrameDataset(paths)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, indices):
        return torch.stack([self.pictures[i] for i in indices]).to(features.device())


def seconds(work, *arguments):
    start = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        result = work(*arguments)
    return time.monotonic() - start, result


def peak_of_training(count, queue):
    """Train on `count` frames' worth of features; puts the process's peak memory into the queue, in MB."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder) / "made up.float16"
        with open(file, "wb") as numbers:
            for i in range(count):
                numbers.write(np.random.default_rng(i).normal(size=25600).astype(np.float16).tobytes())
        rows = features.RowFile(file, np.dtype(np.float16), (count, 25600))
        inputs, labels = features.Features(rows, np.arange(count), ""), np.arange(count) % 5
        order = np.arange(count)
        training.fit(networks.report_head(), inputs, labels, order[count // 5 :], order[: count // 5],
                     training.Recipe(epochs=2))  # fmt: skip
    queue.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main():
    # First, since on Linux a process's peak memory begins with that of the one which started it
    context = multiprocessing.get_context("spawn")
    for count in (1000, 2000, 4000):
        queue = context.Queue()
        process = context.Process(target=peak_of_training, args=(count, queue))
        process.start()
        print(f"peak memory, training on {count:,} frames' features: {queue.get():,.0f} MB")
        process.join()

    run = open_run()
    table = read_frames(run.need("frames.csv", notebook="01_preprocess"))
    paths = [run.root / path for path in table["path"]]
    labels, rows = training.labels_and_rows(table)
    train, trunk = training.doubled(table, rows["train"]), networks.alexnet_trunk(weights())
    print(f"{run.title}: {len(paths):,} frames, {len(train):,} training frames with the doubled ones")
    with tempfile.TemporaryDirectory() as folder:
        once, kept = seconds(features.trunk_features, trunk, paths, folder)
        recipe = replace(training.REPORT, epochs=3)
        head, _ = seconds(training.fit, networks.report_head(), kept, labels, train, rows["val"], recipe)
    whole = torch.nn.Sequential(trunk, torch.nn.Flatten(), networks.report_head())
    recipe = replace(recipe, epochs=1)
    loop, _ = seconds(training.fit, whole, Decoded(paths), labels, train, rows["val"], recipe)
    with_cache, without = once + 85 * head / 3, 85 * loop
    print(f"once through the trunk      {once:9.1f} s  ({len(paths) / once:.0f} frames a second)")
    print(f"an epoch of the head        {head / 3:9.1f} s")
    print(f"both, 85 epochs             {with_cache:9.1f} s")
    print(f"an epoch, trunk in the loop {loop:9.1f} s")
    print(f"85 such epochs              {without:9.1f} s  ({without / with_cache:.1f} times as long)")


if __name__ == "__main__":
    main()
