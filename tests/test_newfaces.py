from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers import newfaces
from helpers.images import REPORT_TRANSFORM
from helpers.ravdess import CLASSES
from helpers.workspace import SAMPLE

SKIN = (224, 172, 140)


def face(width=640, height=360, mode="RGB", background="white"):
    """A picture with a square of skin in its middle and something blue above it."""
    picture = Image.new("RGB", (width, height), background)
    half = min(width, height) // 4
    picture.paste(SKIN, (width // 2 - half, height // 2 - half, width // 2 + half, height // 2 + half))
    picture.paste((0, 0, 255), (0, 0, width, max(1, height // 10)))
    return picture.convert(mode)


@pytest.fixture
def folder(tmp_path):
    """Pictures as people have them, and some that are none."""
    new = tmp_path / "it's 100% new 人"
    (new / "Happy").mkdir(parents=True)
    (new / "Bored").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    face().rotate(180).save(new / "Happy" / "a turned.jpg", exif=turned)
    face(3000, 4000).save(new / "b portrait.jpg")
    face(12000, 2000).save(new / "c wide.jpg")
    face(12000, 1200, "L").save(new / "d wide grey.png")
    face(20, 20).save(new / "e tiny.png")
    Image.new("RGBA", (300, 300)).save(new / "f transparent.png")
    face(400, 400, "P").save(new / "g palette.gif")
    Image.fromarray((np.arange(300 * 300).reshape(300, 300) % 40000).astype(np.uint16)).save(new / "h 16 bit.png")
    clip = sorted((SAMPLE / "Actor_20").glob("*.mp4"))[0]
    (new / "i clip.mp4").write_bytes(clip.read_bytes())
    (new / "j cut short.jpg").write_bytes((new / "b portrait.jpg").read_bytes()[:3000])
    (new / "k cut short.mp4").write_bytes(clip.read_bytes()[:8000])
    (new / "l text.txt").write_text("no face, though ffmpeg would draw such a long text as a terminal shows it\n" * 100)
    (new / "m empty.jpg").touch()
    two = face().resize((320, 360))
    both = Image.new("RGB", (640, 360), "white")
    both.paste(two, (0, 0)), both.paste(two, (320, 0))
    both.save(new / "n two faces.png")
    broken = bytearray((new / "e tiny.png").read_bytes())
    broken[37:41] = b"????"  # the name of a chunk
    (new / "o broken.png").write_bytes(broken)
    (new / "Sad").symlink_to(new / "nowhere")
    (new / "Happy" / "deeper").mkdir()
    (new / ".hidden").write_text("never mind")
    return new


def test_pictures_of_any_kind_become_frames_and_the_rest_is_named(folder, tmp_path):
    frames, failed = newfaces.prepare(folder, tmp_path / "run")
    pictures = {}
    for row in frames.groupby("file").head(1).itertuples():
        with Image.open(tmp_path / "run" / row.path) as picture:
            assert picture.size == (640, 360) and picture.mode == "RGB"
            pictures[Path(row.file).name[0]] = np.asarray(picture).astype(int)
    assert sorted(pictures) == list("abcdefghin")
    blue = (slice(2, 30), slice(300, 340))
    for which in "abcg":  # what is above is blue, once it is the right way up and whole
        assert pictures[which][blue].mean((0, 1)) == pytest.approx([0, 0, 255], abs=30), which
    assert (pictures["b"][:, :150] > 240).all() and (pictures["b"][180, 320] < 240).any()  # white at its sides
    assert (pictures["f"] > 250).all()  # on white
    assert np.ptp(pictures["h"]) > 200  # not all white, though its numbers are beyond 255
    notes = frames.groupby("file")["note"].first()
    assert {Path(file).name[0] for file in notes.index if notes[file]} == set("dfh")
    labels = frames.groupby("file")["label"].first()
    assert labels.pop("Happy/a turned.jpg") == "Happy" and set(labels) == {""}
    times = frames.loc[frames["file"] == "i clip.mp4", "time_s"].to_numpy()
    assert len(times) >= 4 and np.diff(times) == pytest.approx(0.6, abs=0.04)
    reasons = {path.name[0]: reason for path, reason in failed}
    assert sorted(reasons) == sorted("BSdjklmo")
    assert reasons["B"] == "a folder has to be named after a class: AngryFearful, Disgust, Happy, NeutralCalm, Sad"
    assert "cut short" in reasons["k"] and all("\n" not in reason for reason in reasons.values())
    fewer, _ = newfaces.prepare(folder / "Happy", tmp_path / "run")
    assert len(fewer) == len(list((tmp_path / "run" / "new").glob("*"))) == 1  # anew each time


def test_each_file_is_named_once_by_the_mean_of_its_frames(folder, tmp_path):
    class Red(nn.Module):  # scores the first class by how much more red than blue there is
        def forward(self, x):
            score = (x[:, 0] - x[:, 2]).mean((1, 2))
            return torch.stack([8 * score, *[torch.zeros_like(score)] * 4], dim=1)

    frames, _ = newfaces.prepare(folder, tmp_path)
    found = newfaces.predict(Red(), REPORT_TRANSFORM, frames, tmp_path)
    assert list(found["file"]) == list(dict.fromkeys(frames["file"]))
    assert found["frames"].sum() == len(frames) and found["confidence"].between(0.2, 1).all()
    assert set(found["predicted"]) <= set(CLASSES)
    assert dict(zip(found["file"], found["note"], strict=True))["d wide grey.png"] == "no colour of skin"
    assert set(found["middle"]) <= set(frames["path"])
    clip = frames[frames["file"] == "i clip.mp4"]
    pictures = [REPORT_TRANSFORM(Image.open(tmp_path / path)) for path in clip["path"]]
    mean = Red()(torch.stack(pictures)).softmax(1).mean(0)
    row = found.set_index("file").loc["i clip.mp4"]
    assert row["frames"] == len(clip) and row["confidence"] == pytest.approx(mean.max().item(), abs=1e-6)
    assert row["middle"] == clip["path"].iloc[len(clip) // 2]


def test_an_empty_folder_and_none_at_all(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        frames, failed = newfaces.prepare(folder, tmp_path / "run")
        assert list(frames.columns) == newfaces.COLUMNS and not len(frames)
        (tmp_path / "run").rename(tmp_path / f".{folder.name}")
    newfaces.drawn(tmp_path / "drawn")
    frames, failed = newfaces.prepare(tmp_path / "drawn", tmp_path / "run")
    assert sorted(frames["label"]) == sorted(CLASSES) and not failed and not frames["note"].any()
