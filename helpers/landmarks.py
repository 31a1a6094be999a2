"""Where a face is in a picture and how it moves over a clip: 68 landmarks, and crops with the eyes level.

dlib finds the face by histograms of oriented gradients (Dalal and Triggs, 2005; King, 2009, JMLR 10) and puts the
points on it by regression trees (Kazemi and Sullivan, 2014), in the order of iBUG's 300-W (Sagonas et al., 2013); their
model comes with the package face_recognition_models. Both run on the processor, and nothing is downloaded.
"""

import functools
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import distribution
from pathlib import Path

import dlib
import numpy as np
from joblib import Parallel, delayed
from PIL import Image
from tqdm import tqdm

from helpers import frames
from helpers.workspace import UserError, alone, replacing, shown, writing

FPS = Fraction(5)  # pictures a second: three times those of frames.csv, which are among them (the middle of each three)
POINTS = 68
NOSE = range(27, 36)
STEADY = [27, 28, 29, 30, 31, 33, 35, 36, 39, 42, 45]  # nose and corners of the eyes: an expression moves them least
RECIPE = f"dlib 68, {FPS} a second, 5 boxes, 400 pixels"
LARGE = 400  # pixels of the square in which the points are looked for; the face's box is half as wide
# The face's box is moved and scaled a little, and the points are the mean over these: they tremble less so.
NUDGES = ((0, 0, 1), (-0.03, -0.03, 1.03), (0.03, -0.03, 0.97), (-0.03, 0.03, 0.97), (0.03, 0.03, 1.03))
FIXED = (0.5, 0.52, 0.24)  # where no face is found, a box: its middle and its side, as shares of the picture's size


@dataclass(frozen=True)
class Track:
    """The landmarks of a clip: `times` (n,) in seconds, `points` (n, 68, 2) in pixels, `found` (n,) whether it was."""

    times: np.ndarray
    points: np.ndarray
    found: np.ndarray


def track(pictures, times):
    """Follow a face through pictures: `Track`.

    Parameters
    ----------
    pictures : sequence of n PIL pictures of one size
    times : their times in seconds

    Where no face is found its box is taken from the pictures before and after; where none has one, the middle is taken.
    """
    greys = [picture.convert("L") for picture in pictures]
    boxes = np.array([_box(grey) for grey in greys]).reshape(-1, 3)
    found = ~np.isnan(boxes[:, 0])
    if found.any():
        n = np.arange(len(boxes))
        boxes = np.stack([np.interp(n, n[found], column[found]) for column in boxes.T], axis=1)
        boxes[:, 2] = np.median(boxes[:, 2])  # a face hardly changes its size within a clip
    else:
        boxes[:] = np.array(FIXED) * [greys[0].width, greys[0].height, greys[0].width]
    points = np.array([_points(grey, *box) for grey, box in zip(greys, boxes, strict=True)], np.float32)
    return Track(np.asarray(times, float), points, found)


def tracks(table, clips, run, jobs=-1):
    """The landmarks of every clip of `frames.csv`, at `FPS` where the clip is there, else of its kept frames alone.

    Parameters
    ----------
    table : DataFrame of `frames.csv`
    clips : dict of ClipName to Path, as `ravdess.find_clips` gives it
    jobs : processes at a time; -1 is one a core

    Returns `{clip: Track}`, in the order of `frames.csv`. They are kept in `features/landmarks/` of the run, each with
    what it was made of: cut off and run again, it goes on.
    """
    folder = run.path("features", "landmarks", "clip").parent
    paths = {str(name): path for name, path in clips.items()}
    todo = [
        (clip, paths.get(clip), [run.root / path for path in part["path"]], part["time_s"].to_numpy(), folder)
        for clip, part in table.groupby("clip", sort=False)
    ]
    with alone(folder):
        done = Parallel(jobs, return_as="generator")(delayed(_kept)(*one) for one in todo)
        return dict(tqdm(done, total=len(todo), desc="landmarks", unit="clip", file=sys.stdout, mininterval=0.5))


def upright_pictures(table, found, run, side=176):
    """A face with level eyes for each row of `frames.csv`: list of paths below `features/upright/`.

    `found` is what `tracks` gave. Where no face was found it is a square from the picture's middle. Each is made once,
    and again where its frame is newer.
    """
    folder, paths = run.path("features", "upright", "face").parent, []
    for clip, part in table.groupby("clip", sort=False):
        for row, k in zip(part.itertuples(), nearest(found[clip], part["time_s"]), strict=True):
            path, frame = folder / Path(row.path).name, run.root / row.path
            paths.append(path)
            if not path.exists() or path.stat().st_mtime_ns < frame.stat().st_mtime_ns:
                with replacing(path, "wb") as file:
                    upright(_open(frame), found[clip].points[k], side).save(file, "JPEG", quality=95)
    return paths


def nearest(track, times):
    """Which picture of a `Track` comes nearest to each of some times: int array."""
    return np.abs(track.times[None] - np.asarray(times)[:, None]).argmin(axis=1)


def upright(picture, points, side=96, eyes=0.38, height=0.36):
    """A square of a picture, turned so that the eyes are level: a PIL picture (`side`, `side`).

    Parameters
    ----------
    points : array (68, 2), the landmarks in pixels
    eyes : the distance between the eyes' middles, as a share of the side
    height : where they lie, as a share of the side from the top
    """
    left, right = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    # complex numbers: a pixel z of the square is from middle + turn * (z - where the eyes' middle has to lie)
    turn = complex(*(right - left)) / (eyes * side)
    start = complex(*(left + right) / 2) - turn * complex(0.5, height) * side
    numbers = turn.real, -turn.imag, start.real, turn.imag, turn.real, start.imag
    return picture.transform((side, side), Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR)


def _kept(clip, path, pictures, times, folder):
    """One clip's `Track`, from where it is kept or made anew: (clip, Track)."""
    file = folder / f"{clip}.npz"
    path = path if path and path.exists() else None
    made_of = f"{RECIPE}; {clip} of {_stamp(path) if path else pictures[0].name}"
    try:
        with np.load(file, allow_pickle=False) as kept:
            if str(kept["made_of"]) == made_of:
                return clip, Track(kept["times"], kept["points"], kept["found"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there, or cut off
    made = of_clip(path, folder) if path else None
    if made is None:
        made = track([_open(picture) for picture in pictures], times)
    with replacing(file, "wb") as target:
        np.savez_compressed(target, times=made.times, points=made.points, found=made.found, made_of=made_of)
    return clip, made


def of_clip(path, folder):
    """The `Track` of any clip; None if it is damaged. `folder` is where its pictures may lie meanwhile."""
    with writing(folder), tempfile.TemporaryDirectory(dir=folder) as draft:
        try:
            times = frames.cut_pictures(path, Path(draft), FPS)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None
        return track([_open(Path(draft, f"{k}.jpg")) for k in range(len(times))], times)


def _open(path):
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except OSError:
        raise UserError(f"{shown(path)} is no whole picture: delete it, and run 01_preprocess again.") from None


def _stamp(path):
    return f"{path.stat().st_size} bytes of {path.stat().st_mtime_ns}"


@functools.cache
def _models():
    """dlib's detector and its 68 points, once a process."""
    package = distribution("face_recognition_models")  # to import it would need an old setuptools
    file = package.locate_file("face_recognition_models/models/shape_predictor_68_face_landmarks.dat")
    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(file))


def _box(grey):
    """Where the surest face is, as (x, y, width) of its middle and side, in pixels; NaN without one."""
    detector, _ = _models()
    for size in (2, 1):  # half the size is four times as fast
        boxes, sureness, _ = detector.run(np.asarray(grey.reduce(size)), 0, 0)
        if len(boxes):
            box = boxes[int(np.argmax(sureness))]
            return np.array([box.left() + box.right(), box.top() + box.bottom(), 2 * box.width()]) * size / 2
    return np.full(3, np.nan)


def _points(grey, x, y, width):
    """The 68 points in one box: array (68, 2). dlib rounds to whole pixels, so it is shown the face enlarged."""
    _, predictor = _models()
    left, top, size = round(x - width), round(y - width), round(2 * width)
    large = grey.crop((left, top, left + size, top + size)).resize((LARGE, LARGE), Image.Resampling.BILINEAR)
    large, found = np.asarray(large), []
    for right, down, zoom in NUDGES:
        middle, half = LARGE / 2 * (1 + np.array([right, down])), LARGE / 4 * zoom
        shape = predictor(large, dlib.rectangle(*(round(edge) for edge in [*(middle - half), *(middle + half)])))
        found.append([(point.x, point.y) for point in shape.parts()])
    return np.mean(found, axis=0) * size / LARGE + [left, top]
