"""Rekognition's emotions as our classes: tables from kept answers, so that another mapping costs nothing."""

import numpy as np
import pandas as pd

from helpers.ravdess import CLASSES

CLASS_OF_EMOTION = {
    "HAPPY": "Happy", "SAD": "Sad", "DISGUSTED": "Disgust", "ANGRY": "AngryFearful", "FEAR": "AngryFearful",
    "CALM": "NeutralCalm",
}  # fmt: skip
EMOTIONS = *CLASS_OF_EMOTION, "SURPRISED", "CONFUSED", "UNKNOWN"  # the last three belong to none of our classes
NO_FACE = "no face"


def table(answers):
    """What Rekognition saw in each of n answers: a DataFrame, its rows and index theirs.

    Columns: `faces`, how many; `first`, the emotion it is most confident of, or "no face"; and its confidence in each
    of `EMOTIONS`, in percent. They are those of the largest face, by the area of its box; they add up to about 100.
    """
    rows = []
    for line in answers:
        faces = line["answer"]["FaceDetails"]
        shares = {emotion["Type"]: emotion["Confidence"] for emotion in largest(faces).get("Emotions", [])}
        first = max(shares, key=shares.__getitem__, default="UNKNOWN") if faces else NO_FACE
        rows.append({"faces": len(faces), "first": first, **dict.fromkeys(EMOTIONS, 0.0), **shares})
    return pd.DataFrame(rows, answers.index, ["faces", "first", *EMOTIONS])


def largest(faces):
    """The face with the largest box, or {} if there is none."""
    return max(faces, key=lambda face: face["BoundingBox"]["Width"] * face["BoundingBox"]["Height"], default={})


def best_of_five(table):
    """Probabilities (n, 5) of our classes, from `table`: what it gave to the other emotions is left out.

    A class's confidence is the sum of its emotions' (fear and anger are one class here). Without a face a row is 0.
    """
    given = np.stack([table[_emotions_of(name)].sum(axis=1) for name in CLASSES], axis=1)
    return given / np.maximum(given.sum(axis=1, keepdims=True), 1e-12)


def top_prediction(table):
    """The first emotion's class (n, 5), as the report scored it: 1 for that class, and 0 for all if it has none."""
    return np.stack([table["first"].isin(_emotions_of(name)).astype(float) for name in CLASSES], axis=1)


def _emotions_of(name):
    return [emotion for emotion, label in CLASS_OF_EMOTION.items() if label == name]
