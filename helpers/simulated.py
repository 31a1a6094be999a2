"""Answers as Rekognition's, made up for the drawn sample, so that notebook 04 runs without an account.

Nobody asked Amazon for them. `python -m helpers.simulated` makes them up again, from `SHARES` and a frame's name alone.
"""

import json
import sys

import numpy as np
import pandas as pd

from helpers.emotions import EMOTIONS, NO_FACE
from helpers.frames import read_frames
from helpers.ravdess import CLASSES, ClipName
from helpers.rekognition import SIMULATED_ANSWERS
from helpers.sample import HEIGHT, WIDTH, face_of
from helpers.workspace import SAMPLE, SEED, open_run, replacing

# How many of 100 frames of a class (rows) get which emotion as the first (columns). Nothing was measured for this.
SHARES = pd.DataFrame(
    [[8, 12, 8, 20, 12, 14, 14, 8, 2, 2],
     [4, 14, 40, 12, 1, 16, 4, 6, 1, 2],
     [72, 2, 2, 2, 1, 10, 5, 4, 0, 2],
     [6, 8, 1, 3, 1, 72, 1, 5, 1, 2],
     [4, 40, 8, 6, 3, 22, 4, 8, 3, 2]],
    CLASSES, [*EMOTIONS, NO_FACE],
)  # fmt: skip


def simulate(picture):
    """An answer to the drawn frame of that name (`<clip>_<k>.jpg`), shaped as DetectFaces'; the same name, the same."""
    clip, _, k = picture.removesuffix(".jpg").rpartition("_")
    name = ClipName.parse(clip)
    rng = np.random.default_rng([SEED, *name.performance, int(k)])
    first = rng.choice(SHARES.columns, p=SHARES.loc[name.label] / 100)
    if first == NO_FACE:
        return {"FaceDetails": []}
    confidence = rng.uniform(45, 98)
    others = rng.permutation([emotion for emotion in EMOTIONS if emotion != first])
    rest = (100 - confidence) * rng.dirichlet(np.full(len(others), 0.7))
    rest *= np.minimum(1, 0.9 * confidence / rest.max())  # none above the first
    emotions = [(first, confidence), *sorted(zip(others, rest, strict=True), key=lambda pair: -pair[1])]
    face = face_of(name.actor)
    x, y, unit = WIDTH / 2 + face["x"], 165 + face["y"], face["scale"]  # where helpers/sample.py draws it
    left, top, right, bottom = x - 1.1 * unit, y - 1.2 * unit, x + 1.1 * unit, y + (face["chin"] + 0.05) * unit
    box = {
        "Width": (right - left) / WIDTH,
        "Height": (bottom - top) / HEIGHT,
        "Left": left / WIDTH,
        "Top": top / HEIGHT,
    }
    return {
        "FaceDetails": [{
            "BoundingBox": {side: round(float(share), 4) for side, share in box.items()},
            "Emotions": [{"Type": str(emotion), "Confidence": round(float(share), 2)} for emotion, share in emotions],
            "Confidence": round(float(rng.uniform(99, 100)), 2),
        }]
    }  # fmt: skip


def write(pictures, file=SIMULATED_ANSWERS):
    """Write the answers to frames of these names."""
    with replacing(file) as target:
        for picture in sorted(pictures):
            line = {"picture": picture, "simulated": True, "answer": simulate(picture)}
            target.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    run = open_run()
    if run.data != SAMPLE:
        sys.exit(f"Answers are made up for the drawn sample only, and DATA is the {run.title}: set DATA=data/sample.")
    frames = read_frames(run.need("frames.csv", notebook="01_preprocess"))
    write(path.rpartition("/")[2] for path in frames.loc[frames["split"] != "train", "path"])
