"""The drawn sample: 24 actors who do not exist, acting eight emotions, so that everything runs anywhere.

Faces are polygons in face units (1 is half a face's width, y points down), posed by eleven muscles. Each actor has
a face and a manner of their own; each clip rises to its emotion, holds it and lets go, while the mouth talks.
Some clips mix in a second emotion. Drawing is deterministic. `python -m helpers.sample` draws `data/sample` again.
"""

import subprocess
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from PIL import Image, ImageDraw

from helpers.frames import ffmpeg
from helpers.ravdess import Channel, ClipName, Emotion, Intensity, Modality, Statement
from helpers.workspace import SAMPLE

WIDTH, HEIGHT, RATE = 640, 360, 30000 / 1001
OVERSAMPLING = 2  # drawn at twice the size, then halved, for smooth edges

MUSCLES = ("brow_inner", "brow_outer", "furrow", "eye", "lid", "corner", "open", "wide", "sneer", "nod", "tilt")
POSE = {  # each emotion at full strength; a muscle that is not named rests
    Emotion.NEUTRAL: {},
    Emotion.CALM: {"corner": 0.35, "lid": 0.25, "tilt": 0.2},
    Emotion.HAPPY: {"corner": 1.0, "lid": 0.45, "open": 0.35, "wide": 0.5, "brow_outer": 0.2},
    Emotion.SAD: {"brow_inner": 0.9, "brow_outer": -0.3, "lid": 0.5, "corner": -0.8, "nod": 0.6, "tilt": 0.5},
    Emotion.ANGRY: {"brow_inner": -0.8, "furrow": 1.0, "eye": 0.3, "corner": -0.4, "wide": -0.3, "nod": 0.3},
    Emotion.FEARFUL: {"brow_inner": 1.0, "brow_outer": 0.4, "furrow": 0.3, "eye": 1.0, "open": 0.4, "wide": 0.8},
    Emotion.DISGUST: {"brow_inner": -0.5, "furrow": 0.5, "lid": 0.6, "sneer": 1.0, "corner": -0.5, "nod": -0.4},
    Emotion.SURPRISED: {"brow_inner": 1.0, "brow_outer": 1.0, "eye": 1.0, "open": 1.0, "wide": -0.4},
}
MIXED = {  # what an ambiguous clip is mixed with
    Emotion.NEUTRAL: Emotion.SAD, Emotion.CALM: Emotion.HAPPY, Emotion.HAPPY: Emotion.CALM,
    Emotion.SAD: Emotion.DISGUST, Emotion.ANGRY: Emotion.DISGUST, Emotion.FEARFUL: Emotion.SAD,
    Emotion.DISGUST: Emotion.ANGRY, Emotion.SURPRISED: Emotion.FEARFUL,
}  # fmt: skip

SKIN = ((250, 224, 205), (241, 204, 177), (224, 178, 146), (198, 144, 110), (156, 106, 78), (112, 74, 54))
HAIR = ((38, 30, 28), (84, 54, 36), (134, 90, 52), (196, 154, 94), (150, 66, 34), (120, 116, 114))
SHIRT = ((44, 46, 54), (74, 92, 122), (122, 70, 74), (82, 108, 88), (132, 120, 98), (98, 82, 120))
IRIS = ((86, 60, 40), (70, 104, 128), (84, 110, 76))


def face_of(actor):
    """How an actor looks and acts: a dict of colours, proportions, and per muscle a gain and a resting value."""
    rng = np.random.default_rng([1, actor])
    pick = lambda colours: np.array(colours[rng.integers(len(colours))]) + rng.integers(-8, 9, 3)  # noqa: E731
    female = actor % 2 == 0
    return {
        "skin": np.clip(pick(SKIN), 0, 255), "hair": np.clip(pick(HAIR), 0, 255),
        "shirt": np.clip(pick(SHIRT), 0, 255), "iris": pick(IRIS),
        "width": rng.uniform(0.92, 1.08), "chin": rng.uniform(1.36, 1.56), "jaw": rng.uniform(0.62, 0.84),
        "eyes": rng.uniform(0.38, 0.46), "eye": rng.uniform(0.85, 1.15), "brow": rng.uniform(0.05, 0.10),
        "nose": rng.uniform(0.8, 1.2), "mouth": rng.uniform(0.85, 1.15), "lips": rng.uniform(0.7, 1.3) + 0.2 * female,
        "long": bool(female and rng.random() < 0.75), "fringe": rng.uniform(-1, 1),
        "beard": bool(not female and rng.random() < 0.35), "glasses": bool(rng.random() < 0.2),
        "x": rng.uniform(-14, 14), "y": rng.uniform(-16, 16), "scale": rng.uniform(68, 80),
        "gain": rng.uniform(0.55, 1.15, len(MUSCLES)), "rest": rng.normal(0, 0.11, len(MUSCLES)),
    }  # fmt: skip


def clip_names():
    """The clips of the sample: each actor once in each emotion, at an intensity that alternates."""
    for actor in range(1, 25):
        for emotion in Emotion:
            strong = emotion != Emotion.NEUTRAL and (actor + emotion) % 2
            yield ClipName(
                Modality.AUDIO_VIDEO, Channel.SPEECH, emotion, Intensity(1 + strong),
                Statement(1 + (actor // 2 + emotion) % 2), 1 + (actor // 4 + emotion) % 2, actor,
            )  # fmt: skip


def motion(name):
    """The pose in every frame of a clip: an array (frames, muscles)."""
    rng = np.random.default_rng([2, name.actor, name.emotion, name.intensity])
    face = face_of(name.actor)
    frames = int(rng.integers(76, 94))
    t = np.arange(frames) / RATE
    end = frames / RATE
    onset, offset = rng.uniform(0.2, 0.7), end - rng.uniform(0.1, 0.5)
    smooth = lambda x: np.clip(x, 0, 1) ** 2 * (3 - 2 * np.clip(x, 0, 1))  # noqa: E731
    envelope = smooth((t - onset) / 0.5 + 0.5) * (1 - 0.7 * smooth((t - offset) / 0.4 + 0.5))
    pose = lambda emotion: np.array([POSE[emotion].get(muscle, 0.0) for muscle in MUSCLES])  # noqa: E731
    target = pose(name.emotion)
    if rng.random() < 0.3:  # an ambiguous clip
        target = 0.55 * target + 0.45 * pose(MIXED[name.emotion])
    strength = rng.uniform(0.85, 1.1) if name.intensity == Intensity.STRONG else rng.uniform(0.45, 0.75)
    poses = envelope[:, None] * (target * face["gain"] * strength) + face["rest"]
    talking = smooth((t - 0.35) / 0.2) * smooth((end - 0.35 - t) / 0.2)
    syllables = np.abs(np.sin(np.pi * rng.uniform(2.2, 3.0) * t + rng.uniform(0, 3)))
    poses[:, MUSCLES.index("open")] += 0.42 * talking * syllables * rng.uniform(0.7, 1.1)
    sway = rng.uniform(0.3, 0.6, 2)[:, None] * np.sin(2 * np.pi * rng.uniform(0.2, 0.5, 2)[:, None] * t)
    poses[:, [MUSCLES.index("nod"), MUSCLES.index("tilt")]] += 0.35 * sway.T
    blink = np.exp(-(((t - rng.uniform(0.3, end - 0.3)) / 0.06) ** 2))
    poses[:, MUSCLES.index("lid")] = np.maximum(poses[:, MUSCLES.index("lid")], 1.1 * blink)
    return poses


def draw(face, pose):
    """Draw one face in one pose: a uint8 array (360, 640, 3)."""
    m = dict(zip(MUSCLES, pose, strict=True))
    canvas = Image.new("RGB", (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING), (232, 233, 235))
    pen = ImageDraw.Draw(canvas)
    turn = 0.09 * m["tilt"]
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * face["scale"] * OVERSAMPLING
    centre = np.array([WIDTH / 2 + face["x"], 165 + face["y"] + 9 * m["nod"]]) * OVERSAMPLING

    def pixels(points):
        return [tuple(p) for p in np.asarray(points, float) @ spin.T + centre]

    def fill(points, colour):
        pen.polygon(pixels(points), fill=_rgb(colour))

    def stroke(points, colour, width):
        width = max(1, round(width * face["scale"] * OVERSAMPLING))
        pen.line(pixels(points), fill=_rgb(colour), width=width, joint="curve")

    skin, hair, w, chin = face["skin"], face["hair"], face["width"], face["chin"] + 0.16 * max(m["open"], 0)
    shade, lip = skin * 0.82, skin * 0.55 + np.array([92, 26, 32])
    body = [(-2.6, 3.6), (-2.3, 2.2), (-1.5, 1.85), (-0.45, 1.65), (0.45, 1.65), (1.5, 1.85), (2.3, 2.2), (2.6, 3.6)]
    if face["long"]:
        fill(
            _curve([(-0.9 * w, -1.1), (-1.2 * w, -0.2), (-1.22, 2.1), (1.22, 2.1), (1.2 * w, -0.2), (0.9 * w, -1.1)]),
            hair * 0.85,
        )
    fill(body, face["shirt"])
    fill([(-0.42, 0.9), (0.42, 0.9), (0.5, 1.75), (0, 2.02), (-0.5, 1.75)], shade)
    for side in (-1, 1):
        fill(_ellipse(side * 1.02 * w, 0.12, 0.13, 0.24), shade)
    head = [
        (0, -1.25),
        (0.7 * w, -1.02),
        (w, -0.25),
        (0.97 * w, 0.4),
        (face["jaw"] * w, 1.02),
        (0.28, chin),
        (0, chin + 0.03),
    ]
    fill(_curve(head + [(-x, y) for x, y in head[-2:0:-1]], closed=True), skin)
    if face["beard"]:
        jaw = [(0.95 * w, 0.45), (face["jaw"] * w, 1.02), (0.28, chin), (0, chin + 0.03)]
        fill(
            jaw + [(-x, y) for x, y in jaw[-2::-1]] + [(-0.5, 0.62), (0, 0.52), (0.5, 0.62)],
            np.minimum(hair, 0.7 * skin),
        )

    for side in (-1, 1):
        x, size = side * face["eyes"], 0.17 * face["eye"]
        opening = size * 0.62 * np.clip(1 + 0.65 * m["eye"] - 0.95 * m["lid"], 0.06, 1.8)
        fill(_ellipse(x, 0, size, opening), (250, 250, 248))
        look = (x, 0.01)
        iris = _ellipse(*look, 0.085, 0.085)
        iris[:, 1] = np.clip(iris[:, 1], -opening * 0.98, opening * 0.98)
        fill(iris, face["iris"])
        pupil = _ellipse(*look, 0.042, 0.042)
        pupil[:, 1] = np.clip(pupil[:, 1], -opening * 0.98, opening * 0.98)
        fill(pupil, (20, 18, 18))
        lid = _ellipse(x, 0, size, opening)
        stroke(lid[lid[:, 1] <= 0.001], skin * 0.42, 0.03)
        if m["lid"] > 0.25:  # the cheek pushes the lower lid up
            stroke(_curve([(x - size, opening + 0.05), (x, opening + 0.09), (x + size, opening + 0.05)]), shade, 0.02)
        inner, outer = (side * (face["eyes"] - 0.22 - 0.07 * m["furrow"]), side * (face["eyes"] + 0.24))
        y = -0.34 + 0.09 * max(m["furrow"], 0)
        middle = y - 0.05 - 0.07 * (m["brow_inner"] + m["brow_outer"])
        brow = [
            (inner, y - 0.16 * m["brow_inner"]),
            ((inner + outer) / 2, middle),
            (outer, y + 0.05 - 0.13 * m["brow_outer"]),
        ]
        stroke(_curve(brow), hair * 0.8, face["brow"])
        if m["furrow"] > 0.3:
            stroke([(side * 0.07, -0.36), (side * 0.06, -0.2)], shade, 0.025)
        if m["sneer"] > 0.25:  # the nose wrinkles and the fold beside it deepens
            stroke([(side * 0.06, 0.08), (side * 0.17, 0.17)], shade, 0.02 + 0.015 * m["sneer"])
        if max(m["sneer"], m["corner"]) > 0.3:
            stroke(_curve([(side * 0.24, 0.45), (side * 0.46, 0.62), (side * 0.52, 0.85)]), shade, 0.025)
        if face["glasses"]:
            stroke(_ellipse(x, 0.02, 0.29, 0.24), (50, 50, 56), 0.03)

    n = 0.17 * face["nose"]
    tip = 0.48 - 0.05 * max(m["sneer"], 0)
    stroke(
        _curve([(-0.05, 0.05), (-0.08, 0.3), (-n, tip), (-0.06, tip + 0.06), (0.06, tip + 0.06), (n, tip)]), shade, 0.03
    )

    half = 0.38 * face["mouth"] * (1 + 0.28 * m["wide"] + 0.14 * m["corner"])
    gap = 0.30 * max(m["open"], 0)
    top = 0.83 - 0.13 * max(m["sneer"], 0) - 0.12 * gap
    corners = 0.86 - 0.20 * m["corner"] + 0.15 * gap
    low = 0.86 + 0.9 * gap + 0.06 * m["corner"]
    thick = 0.06 * face["lips"]
    upper = [
        (-half, corners),
        (-0.4 * half, top - 0.3 * thick),
        (0, top),
        (0.4 * half, top - 0.3 * thick),
        (half, corners),
    ]
    lower = [(half, corners), (0.5 * half, low), (0, low + 0.02), (-0.5 * half, low), (-half, corners)]
    grow = np.array([0, thick])
    fill(np.vstack([_curve(np.array(upper) - grow), _curve(np.array(lower) + 1.3 * grow)]), lip)
    if gap > 0.03 or m["sneer"] > 0.35:
        fill(np.vstack([_curve(upper), _curve(lower)]), (88, 34, 38))
        teeth = np.vstack([_curve(upper), _curve(lower)]) * [0.9, 1]
        teeth[:, 1] = np.minimum(teeth[:, 1], top + 0.09)
        fill(teeth, (244, 242, 236))
    else:
        stroke(_curve(upper), lip * 0.6, 0.025)

    part = 0.45 * face["fringe"]
    line = [
        (-1.06 * w, 0.0),
        (-0.93 * w, -0.45),
        (part - 0.35, -0.86),
        (part, -0.98),
        (part + 0.35, -0.86),
        (0.93 * w, -0.45),
        (1.06 * w, 0.0),
    ]
    crown = [(1.14 * w, -0.3), (0.85 * w, -1.25), (0, -1.52), (-0.85 * w, -1.25), (-1.14 * w, -0.3)]
    fill(np.vstack([_curve(line), _curve(crown)]), hair)
    return np.asarray(canvas.reduce(OVERSAMPLING))


def stranger(emotion, actor=25):
    """A picture of somebody who is in none of the clips, in the middle of acting an emotion."""
    name = ClipName(Modality.AUDIO_VIDEO, Channel.SPEECH, emotion, Intensity.STRONG, Statement(1), 1, actor)
    poses = motion(name)
    return Image.fromarray(draw(face_of(actor), poses[len(poses) // 2]))


def draw_clip(name, folder=SAMPLE):
    """Draw one clip and encode it as H.264 into `folder/Actor_NN/`; returns its path."""
    path = Path(folder) / f"Actor_{name.actor:02d}" / f"{name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    face = face_of(name.actor)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "30000/1001", "-i", "-"]
    h264 = ["-c:v", "libx264", "-preset", "veryslow", "-crf", "29", "-pix_fmt", "yuv420p", "-threads", "1"]
    draft = path.with_name(f".{name}.part")
    command = [ffmpeg(), "-v", "error", "-y", *raw, *h264, "-bitexact", "-movflags", "+faststart", "-f", "mp4"]
    pictures = b"".join(draw(face, pose).tobytes() for pose in motion(name))
    subprocess.run([*command, f"file:{draft}"], input=pictures, check=True)
    return draft.replace(path)


def _rgb(colour):
    return tuple(int(c) for c in np.clip(colour, 0, 255))


def _ellipse(x, y, a, b):
    angle = np.linspace(0, 2 * np.pi, 48)
    return np.stack([x + a * np.cos(angle), y + b * np.sin(angle)], 1)


def _curve(points, closed=False, steps=8):
    """A smooth line through points (Catmull-Rom)."""
    p = np.asarray(points, float)
    p = np.vstack([p[-1], p, p[:2]]) if closed else np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    u = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts = [
        0.5 * (2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u**2 + (3 * b - a - 3 * c + d) * u**3)
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    return np.vstack(parts if closed else [*parts, p[-2:-1]])


if __name__ == "__main__":
    Parallel(n_jobs=-1)(delayed(draw_clip)(name) for name in clip_names())
