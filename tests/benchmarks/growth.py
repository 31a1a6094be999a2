"""How the cost grows with the data: `make growth`, over 1, 4, 16 and 64 times the drawn sample's clips.

Its clips are repeated under other names, and a few bytes are put behind the end of every JPEG: what is kept of pictures
is found again by their content, and would cost nothing the second time. Each step runs in a fresh Python, whose peak
memory counts (its ffmpeg's does not). The table goes to data/growth.csv and into the README, with imgs/growth.png.
"""

import contextlib
import dataclasses
import io
import multiprocessing
import os
import re
import resource
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers import figures, frames, training
from helpers.evaluation import markdown
from helpers.features import crops
from helpers.images import FACE_TRANSFORM
from helpers.networks import face_alexnet
from helpers.ravdess import find_clips
from helpers.workspace import DRAWN, REPOSITORY, SAMPLE, UserError, replacing, versions

TIMES, MILLION = (1, 4, 16, 64), 1_000_000
README = REPOSITORY / "README.md"
PART = r"(<!-- begin growth, by make growth -->\n).*?(<!-- end growth -->)"


def cut(root, times):
    """The sample's clips so many times over, the copies told apart by repetitions that RAVDESS does not have."""
    clips, _ = find_clips(SAMPLE)
    again = {
        dataclasses.replace(name, repetition=name.repetition + k): clips[name] for name in clips for k in range(times)
    }
    _, failed = frames.prepare(again, root)
    if failed:
        raise UserError(f"{failed[0][0]} could not be cut: {failed[0][1]}.")


def kept(root):
    table = frames.read_frames(root / "frames.csv")
    return table, crops([root / path for path in table["path"]], root / "features", FACE_TRANSFORM)


def train(root):
    """One epoch of the fine-tuned AlexNet on the training frames, and its validation."""
    table, faces = kept(root)
    labels, rows = training.labels_and_rows(table)
    recipe = dataclasses.replace(training.FINE_TUNING, epochs=1)
    training.fit(face_alexnet("none"), faces, labels, rows["train"], rows["val"], recipe)


STEPS = {  # what is done to a run's folder, and where in it the result lies
    "clips to frames": (cut, "frames"),
    "face crops": (kept, "features"),
    "an epoch of training": (train, None),
}


def measured(work, *arguments):
    """(seconds, peak memory in MB) of a fresh Python that does some work."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (work, arguments))


def _measure(work, arguments):
    start = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        work(*arguments)
    return time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def growth(folder):
    """A row a size and step: step, clips, frames, seconds, MB of memory at most, MB on disk."""
    rows = []
    for times in TIMES:
        root = folder / str(times)
        for step, (work, place) in STEPS.items():
            seconds, memory = measured(work, root, *[times] * (work is cut))
            table = frames.read_frames(root / "frames.csv")
            disk = sum(path.stat().st_size for path in (root / place).rglob("*.*")) / 1e6 if place else 0
            rows.append([step, table["clip"].nunique(), len(table), seconds, memory, disk])
            print(f"{times:>3} × {step:<22}{seconds:>8.1f} s {memory:>8.0f} MB", flush=True)
            for path in table["path"] if work is cut else []:
                with open(root / path, "ab") as picture:
                    picture.write(path.encode())
    return pd.DataFrame(rows, columns=["step", "clips", "frames", "seconds", "memory", "disk"])


def on_paper(table):
    """A straight line through what was measured, at a million clips, and never below what was: a row a step."""
    rows = {}
    for step, part in table.groupby("step", sort=False):
        lines = {what: np.polyfit(part["clips"], part[what], 1) for what in ("seconds", "memory", "disk")}
        rows[step] = {what: max(np.polyval(line, MILLION), part[what].max()) for what, line in lines.items()}
    return pd.DataFrame(rows).T


def in_words(table, machine):
    """The part of the README: what was measured, and what follows for a million clips."""
    cells = table.assign(
        clips=table["clips"].map("{:,}".format), frames=table["frames"].map("{:,}".format),
        seconds=table["seconds"].map("{:,.0f}".format), memory=table["memory"].map("{:,.0f}".format),
        disk=table["disk"].map("{:,.0f}".format).where(table["disk"] > 0, ""),
    ).rename(columns={"memory": "memory, MB", "disk": "on disk, MB"})  # fmt: skip
    told = [
        f"{step} {row.seconds / 3600:,.0f} hours, {row.memory / 1000:,.1f} GB of memory"
        + f" and {row.disk / 1000:,.0f} GB on disk" * int(row.disk > 1)
        for step, row in on_paper(table).iterrows()
    ]
    return (
        f"Measured on the {DRAWN}, its clips repeated under other names, with {machine}:\n\n{markdown(cells)}\n\n"
        f"On paper, along straight lines through these, a million clips take: {'; '.join(told)}.\n"
    )


def drawn(table, heading):
    """Seconds and memory by clips, a line a step."""
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 3))
    for step, part in table.groupby("step", sort=False):
        axes[0].loglog(part["clips"], part["seconds"], "o-", label=step)
        axes[1].semilogx(part["clips"], part["memory"] / 1000, "o-")
    axes[0].set(xlabel="clips", ylabel="seconds")
    axes[1].set(xlabel="clips", ylabel="memory at most, GB", ylim=(0, None))
    for ax in axes:
        ax.set_xticks(sorted(set(table["clips"])), [f"{n:,}" for n in sorted(set(table["clips"]))])
        ax.minorticks_off()
    axes[0].set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figures.finished(figure, heading)


def main():
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "float32")
    machine = f"{os.cpu_count()} processors, {versions('torch')}, training in {precision}"
    with tempfile.TemporaryDirectory() as folder:
        table = growth(Path(folder)).round(2)
    with replacing(REPOSITORY / "data" / "growth.csv") as file:
        table.to_csv(file, index=False)
    figures.set_style()
    figures.save(drawn(table, f"How the cost grows: {DRAWN}, repeated"), REPOSITORY / "imgs" / "growth.png")
    readme = re.sub(
        PART, lambda part: part[1] + in_words(table, machine) + part[2], README.read_text("utf-8"), flags=re.S
    )
    with replacing(README) as file:
        file.write(readme)


if __name__ == "__main__":
    main()
