"""Faces that the models were not made for: pictures and short clips of one's own, as cameras and phones make them.

They lie in a folder, those with a label in a subfolder named after its class. Nothing is sent anywhere.
"""

import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from helpers.features import device
from helpers.frames import HEIGHT, TIME_LIMIT, WIDTH, cut_pictures
from helpers.images import FaceCrop, FrameDataset
from helpers.ravdess import CLASSES, Emotion
from helpers.sample import stranger
from helpers.training import probabilities
from helpers.workspace import REPOSITORY, UserError, alone, shown, writing

NEW = REPOSITORY / "data" / "new"
COLUMNS = ["path", "file", "label", "time_s", "note"]
CLIPS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".flv", ".wmv", ".mpg", ".mpeg", ".3gp", ".ogv"}
PICTURES = {"JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"}  # none that Pillow has another program read
LARGEST = 64_000_000  # pixels of a picture that has to be read whole; most JPEGs are read at a fraction of their size
TOO_LARGE = f"more than {LARGEST:,} pixels, too many to read at once: make it smaller"


def prepare(folder, root):
    """Bring pictures and clips to 640 x 360 in `root/new/`, anew each time.

    A clip goes the road of 01 (5 frames every 3 seconds, what sticks out above and below cut off); a picture is turned
    as its EXIF says, put on white where it is transparent, and shrunk to a height of 360, with white at its sides or
    its sides cut off. Several pictures in one file count as its first. One picture is held at a time, of at most
    `LARGEST` pixels, which takes less than 1 GB of memory.

    Returns
    -------
    frames : DataFrame, a row a frame: path (relative to `root`), file, label ("" without one), time_s, note
    failed : list of (Path, reason), what could not be used

    UserError if the frames cannot be written. A second call at the same time waits.
    """
    with alone(Path(root) / "new"):
        return _prepare(folder, root)


def _prepare(folder, root):
    target = Path(root) / "new"
    with writing(target):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
    rows = []
    failed: list[tuple[Path, str]] = []
    for n, (path, label) in enumerate(_files(folder, failed)):
        try:
            times = _convert(path, target, n)
        except UserError:
            raise
        except subprocess.TimeoutExpired:
            failed.append((path, f"took longer than {TIME_LIMIT} s"))
            continue
        except Exception as problem:  # a damaged picture makes Pillow raise almost anything
            failed.append((path, str(problem).splitlines()[0] if str(problem) else type(problem).__name__))
            continue
        for k, time_s in enumerate(times):
            name = f"new/{n:03d}_{k:02d}.jpg"
            with Image.open(Path(root) / name) as picture:
                note = "" if FaceCrop().finds(picture) else "no colour of skin"
            rows.append([name, shown(path.relative_to(folder)), label, time_s, note])
    return pd.DataFrame(rows, columns=COLUMNS), failed


def drawn(folder):
    """Put five drawn pictures of somebody who is in no clip into a folder, one of each class, to try this on."""
    for label, emotion in zip(CLASSES, (5, 7, 3, 1, 4), strict=True):
        path = Path(folder) / label / f"drawn {Emotion(emotion).name.lower()}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        stranger(Emotion(emotion)).save(path)
    return folder


def predict(network, transform, frames, root, mirrored=False):
    """What a network says of each file: DataFrame with file, label, predicted, confidence, frames, note.

    The probabilities of a clip are the mean over its frames; `middle` is the path of its middle frame.
    """
    pictures = FrameDataset([Path(root) / path for path in frames["path"]], transform)
    p = probabilities(network, _Batches(pictures), mirrored=mirrored)
    rows = []
    for (file, label), part in frames.assign(row=range(len(frames))).groupby(["file", "label"], sort=False):
        mean = p[part["row"]].mean(axis=0)
        note = part["note"].iloc[0] if part["note"].all() else ""
        middle = part["path"].iloc[len(part) // 2]
        rows.append([file, label, CLASSES[mean.argmax()], mean.max(), len(part), note, middle])
    return pd.DataFrame(rows, columns=["file", "label", "predicted", "confidence", "frames", "note", "middle"])


class _Batches:
    """A data set of pictures as `probabilities` takes it: read when asked for, so that few are held at a time."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, indices):
        return torch.stack([self.pictures[i] for i in indices]).to(device())


def _files(folder, failed):
    """(Path, label) of each file, in order of name; folders that are no class go to `failed`."""
    found = []
    for path in sorted(Path(folder).glob("*")):
        if path.name.startswith("."):
            continue
        if path.is_file():
            found.append((path, ""))
        elif not path.is_dir():
            failed.append((path, "not a file"))
        elif path.is_dir() and path.name in CLASSES:
            for inside in sorted(p for p in path.iterdir() if not p.name.startswith(".")):
                if inside.is_file():
                    found.append((inside, path.name))
                elif not inside.is_dir():
                    failed.append((inside, "not a file"))
                else:
                    failed.append((inside, "what lies deeper than in a class's folder is not looked at"))
        else:
            failed.append((path, f"a folder has to be named after a class: {', '.join(CLASSES)}"))
    return found


def _convert(path, target, n):
    """Write one file's frames as `<n>_<k>.jpg`; returns their times in seconds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.init()
            picture = Image.open(path, formats=sorted(PICTURES & set(Image.OPEN)))
    except Image.DecompressionBombError:
        raise ValueError(TOO_LARGE) from None
    except UnidentifiedImageError:
        if path.suffix.lower() not in CLIPS:
            raise ValueError("no picture that is read here, and no clip by its name: save it as JPEG or MP4") from None
        with writing(target), tempfile.TemporaryDirectory(dir=target) as folder:
            times = cut_pictures(path, Path(folder))
            for k in range(len(times)):
                (Path(folder) / f"{k}.jpg").replace(target / f"{n:03d}_{k:02d}.jpg")
        return times
    with picture:
        framed = _framed(picture)
    with writing(target):
        framed.save(target / f"{n:03d}_00.jpg", quality=95)
    return [0.0]


def _framed(picture):
    """A picture of any size, mode and orientation as RGB, 640 x 360."""
    by_rows = picture.format in ("JPEG", "MPO") and "progressive" not in picture.info
    if picture.width * picture.height > LARGEST and not by_rows:
        raise ValueError(TOO_LARGE)
    picture.draft("RGB", (2 * WIDTH, 2 * HEIGHT))
    step = max(1, min(picture.size) // (2 * HEIGHT))
    if step > 1 and picture.mode in ("RGB", "RGBA", "L", "CMYK"):
        picture = picture.reduce(step)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):  # 16 bits and more: from its darkest to its brightest
        numbers = np.asarray(picture)[::step, ::step].astype(float)
        spread = max(np.ptp(numbers), 1e-12)
        picture = Image.fromarray((255 * (numbers - numbers.min()) / spread).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture, narrow = picture.convert("RGB"), picture.width / picture.height < WIDTH / HEIGHT
    size = WIDTH, HEIGHT
    return ImageOps.pad(picture, size, color="white") if narrow else ImageOps.fit(picture, size)
