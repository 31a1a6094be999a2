"""RAVDESS: its file names, its five classes here, and its actors.

The grammar of the names is the data set's own (Livingstone and Russo, 2018, doi:10.5281/zenodo.1188976);
the five classes and the split by actor are those of the 2020 report.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path, PurePosixPath

from helpers.workspace import UserError, shown

CLASSES = ("AngryFearful", "Disgust", "Happy", "NeutralCalm", "Sad")
SPLITS = {"train": "training", "val": "validation", "test": "test"}  # short names, and what they are called in prose
REPORT_SPLIT = {"train": range(1, 15), "val": range(15, 20), "test": range(20, 25)}  # actors


NO_CLASS = "surprised: in none of the five classes"
AGAIN = "the same performance once more"
USUAL = {NO_CLASS, AGAIN, "song", "audio only"}  # why a clip that is as it should be is left out


class Modality(IntEnum):
    """What a file holds. 01 and 02 show the same pictures."""

    AUDIO_VIDEO = 1
    VIDEO_ONLY = 2
    AUDIO_ONLY = 3


Channel = IntEnum("Channel", "SPEECH SONG")
Emotion = IntEnum("Emotion", "NEUTRAL CALM HAPPY SAD ANGRY FEARFUL DISGUST SURPRISED")
Intensity = IntEnum("Intensity", "NORMAL STRONG")
Statement = IntEnum("Statement", "KIDS DOGS")  # "Kids are talking by the door", "Dogs are sitting by the door"

CLASS_OF = {  # surprised (08) is left out, as the report did
    Emotion.NEUTRAL: "NeutralCalm", Emotion.CALM: "NeutralCalm", Emotion.HAPPY: "Happy", Emotion.SAD: "Sad",
    Emotion.ANGRY: "AngryFearful", Emotion.FEARFUL: "AngryFearful", Emotion.DISGUST: "Disgust",
}  # fmt: skip


@dataclass(frozen=True, order=True)
class ClipName:
    """The seven two-digit parts of a RAVDESS file name. `str()` gives the name back, without its ending."""

    modality: Modality
    channel: Channel
    emotion: Emotion
    intensity: Intensity
    statement: Statement
    repetition: int  # 1 or 2
    actor: int  # 1 to 24; odd numbers are men, even numbers women

    @classmethod
    def parse(cls, name):
        """Read `"01-01-05-02-01-01-12"`, with or without a folder and an ending; ValueError says what is wrong."""
        stem = PurePosixPath(name).stem
        if not re.fullmatch("[0-9]{2}(-[0-9]{2}){6}", stem):
            raise ValueError("the name is not seven two-digit numbers joined by hyphens")
        *codes, repetition, actor = map(int, stem.split("-"))
        modality, channel, emotion, intensity, statement = codes
        kinds = (Modality, Channel, Emotion, Intensity, Statement)
        for kind, code in zip(kinds, codes, strict=True):
            if code not in set(kind):
                raise ValueError(f"RAVDESS has no {kind.__name__.lower()} {code:02d}")
        if repetition not in (1, 2) or not 1 <= actor <= 24:
            raise ValueError(f"RAVDESS has no repetition {repetition:02d} of actor {actor:02d}")
        what = Modality(modality), Channel(channel), Emotion(emotion), Intensity(intensity), Statement(statement)
        made = cls(*what, repetition, actor)
        if made.emotion == Emotion.NEUTRAL and made.intensity == Intensity.STRONG:
            raise ValueError("RAVDESS has no strong neutral")
        return made

    def __str__(self):
        return "-".join(f"{part:02d}" for part in (self.modality, *self.performance))

    @property
    def performance(self):
        """All but the modality: two files with the same performance show the same pictures."""
        return self.channel, self.emotion, self.intensity, self.statement, self.repetition, self.actor

    @property
    def sex(self):
        return "male" if self.actor % 2 else "female"

    @property
    def label(self):
        """One of `CLASSES`, or None for surprised."""
        return CLASS_OF.get(self.emotion)


def check_split(split):
    """Return `split` ({name: actors}) if no actor stands in two of its parts, else raise ValueError."""
    twice = [actor for actor, n in Counter(a for part in split.values() for a in part).items() if n > 1]
    if twice:
        raise ValueError(f"Actors {sorted(twice)} are in two parts of the split: each actor may be in one only.")
    return split


def split_of(actor, split=REPORT_SPLIT):
    """The part of the split ("train", "val" or "test") that holds an actor."""
    return next(name for name, actors in split.items() if actor in actors)


def find_clips(folder, song=False, dropped=()):
    """Find the clips to use below a folder, and say of every other `.mp4` why it is not used.

    Of each performance one file is taken: audio and video (01, as the report did), else video only (02). Clips whose
    names are in `dropped` need not be there any more: they were cut already (see helpers/zenodo.py).

    Returns
    -------
    clips : dict of ClipName to Path, sorted by name
    skipped : list of (Path, reason)
    """
    folder = Path(folder)
    if not folder.is_dir() and not dropped:
        raise UserError(f"There is no folder of clips at {shown(folder)}: point DATA at one that holds Actor_NN/*.mp4.")
    gone = {name.performance: (name, folder / f"Actor_{name.actor:02d}" / f"{name}.mp4") for name in dropped}
    best: dict = {}
    paths, skipped = _walk(folder)
    for path in paths:
        try:
            name = ClipName.parse(path.name)
        except ValueError as problem:
            skipped.append((path, f"wrong name: {problem}"))
            continue
        try:
            reason = _unused(name, path, folder, song)
        except OSError as problem:
            reason = f"cannot be opened ({problem.strerror})"
        if reason:
            skipped.append((path, reason))
        elif name.performance not in best:
            best[name.performance] = name, path
        elif (first := best[name.performance])[0].modality <= name.modality:
            skipped.append((path, AGAIN))
        else:
            best[name.performance] = name, path
            skipped.append((first[1], AGAIN))
    best = gone | best
    if not best:
        first = f" ({shown(skipped[0][0].name)}: {skipped[0][1]})" if skipped else ""
        raise UserError(
            f"There is no clip to use in {shown(folder)}{first}: point DATA at a folder that holds Actor_NN/*.mp4."
        )
    return dict(sorted(best.values())), skipped


def _walk(folder):
    """(the paths below a folder that end in .mp4, sorted; [(a folder that is not looked into, why)])."""
    paths, closed = [], []
    refused = lambda problem: closed.append((Path(problem.filename), f"cannot be opened ({problem.strerror})"))  # noqa: E731
    for top, folders, files in os.walk(folder, onerror=refused):
        paths += [Path(top, name) for name in (*folders, *files) if name.lower().endswith(".mp4")]
        closed += [(Path(top, n), "a link to a folder: not followed") for n in folders if Path(top, n).is_symlink()]
    return sorted(paths), closed


def _unused(name, path, folder, song):
    if not path.is_file():
        return "a link to nothing" if path.is_symlink() and not path.exists() else "not a file"
    if not path.resolve().is_relative_to(folder.resolve()):
        return "a link that leads out of the folder"
    if name.modality == Modality.AUDIO_ONLY:
        return "audio only"
    if name.channel == Channel.SONG and not song:
        return "song"
    return None if name.label else NO_CLASS
