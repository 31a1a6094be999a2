"""Pictures, tables and models, broken or meant to harm: none is executed, none fills the memory, each is named."""

import io
import json
import logging
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from helpers import crossval, evaluation, frames, networks, newfaces, scoring, training
from helpers.ravdess import CLASSES
from helpers.workspace import REPOSITORY, SAMPLE, UserError
from tests import training_script

MEMORY = 1000  # MB
NEW = """
import json, sys
from pathlib import Path
from helpers import newfaces
frames, failed = newfaces.prepare(Path(sys.argv[1]), Path(sys.argv[2]))
print(json.dumps([list(frames["file"]), {path.name: reason for path, reason in failed}]))
"""
ROWS = """
import sys
from pathlib import Path
from helpers import scoring
from helpers.workspace import UserError
try:
    scoring.read_predictions(Path(sys.argv[1]))
except UserError as problem:
    print(problem)
"""
PEAK = """
try:  # which other systems do not tell
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
except OSError:
    print(0)
"""


def measured(script, *arguments):
    """What a script prints, in a process of its own, and the most memory that this held, in MB."""
    command = [sys.executable, "-c", script + PEAK, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    *said, kilobytes = done.stdout.splitlines()
    return "\n".join(said), int(kilobytes) / 1000


def png(width, height, mode=6, depth=8, most=400):
    """A PNG of one colour, however large, of at most so many MB of pixels, which are never held."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    size = min(height * (1 + width * {0: 1, 2: 3, 6: 4}[mode] * depth // 8), most * 2**20)
    packer, packed = zlib.compressobj(1), io.BytesIO()
    for _ in range(size // 2**20):
        packed.write(packer.compress(bytes(2**20)))
    packed.write(packer.compress(bytes(size % 2**20)) + packer.flush())
    header = struct.pack(">IIBBBBB", width, height, depth, mode, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed.getvalue()) + chunk(b"IEND", b"")


def test_hostile_pictures(tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    plain = Image.new("RGB", (800, 600), (224, 172, 140))
    used = {
        "8000 x 8000.png": png(8000, 8000),
        "16 bit.png": png(700, 500, mode=0, depth=16),
        "16 bit colour.png": png(700, 500, mode=2, depth=16),
    }
    plain.convert("CMYK").save(new / "cmyk.jpg")
    Image.new("CMYK", (7900, 7900)).save(new / "cmyk large.jpg", progressive=True)
    Image.new("RGB", (12000, 9000)).save(new / "108 million.jpg")
    plain.save(new / "animated.gif", save_all=True, append_images=[plain.rotate(90), plain.rotate(180)] * 20)
    plain.save(new / "a picture named a clip.mp4", format="PNG")
    plain.save(new / f"{'ä' * 125}.jpg")  # 254 bytes
    used |= dict.fromkeys(path.name for path in new.iterdir())
    bombs = {
        "bomb.png": png(9000, 9000),
        "larger bomb.png": png(60000, 60000, most=1),
        "header alone.png": png(2**31 - 1, 2**31 - 1, most=1),
        "text.png": png(300, 300)[:33] + bytes(2000),
    }
    script = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(pwned) (w) file closefile\nshowpage\n"
    broken = {
        "vector.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500),
        "postscript.png": script.encode(),  # Pillow would have Ghostscript execute it
        "program.jpg": Path(sys.executable).resolve().read_bytes()[:100_000],
        "program.mp4": Path(sys.executable).resolve().read_bytes()[:100_000],
        "playlist.mkv": f"#EXTM3U\nfile://{SAMPLE / 'Actor_01'}\n".encode(),
    }
    with io.BytesIO() as whole:
        plain.save(whole, "JPEG")
        for tenth in range(10):
            broken[f"cut at {tenth} tenths.jpg"] = whole.getvalue()[: len(whole.getvalue()) * tenth // 10]
    for name, content in (used | bombs | broken).items():
        if content is not None:
            (new / name).write_bytes(content)
    (new / "device.png").symlink_to("/dev/zero")
    said, megabytes = measured(NEW, new, tmp_path / "run")
    found, named = json.loads(said)
    assert set(found) == set(used)
    assert set(named) == {*bombs, *broken, "device.png"}
    assert all("too many to read at once" in named[name] for name in ("bomb.png", "larger bomb.png"))
    assert all("no picture" in named[name] for name in ("vector.svg", "phone.heic", "postscript.png", "program.jpg"))
    assert named["device.png"] == "not a file" and "not a video" in named["program.mp4"]
    assert all(0 < len(reason) < 200 and "\n" not in reason for reason in named.values()), named
    assert megabytes < MEMORY + 500 and not list(tmp_path.rglob("pwned"))  # 500 for Python with torch


def test_a_picture_that_is_damaged_afterwards_is_named(tmp_path):
    network = training_script.face_alexnet("none")
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff")
    table = pd.DataFrame({"path": ["x.jpg"], "file": ["x"], "label": [""], "note": [""]})
    with pytest.raises(UserError, match=r"x\.jpg is no whole picture: delete it, and run the notebook that made it"):
        newfaces.predict(network, newfaces.FrameDataset([]).transform, table, tmp_path)


class Planted:
    """What would write a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def planted(tmp_path):
    """A function that writes a pickle to a path, with pickle or as torch does; and the file that it would write."""
    pwned = tmp_path / "pwned"

    def plant(path, by):
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"key": "k", "history": [[1]], "best": Planted(pwned), "features.0.weight": Planted(pwned)}
        if by == "pickle":
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path)
        return path

    plant(tmp_path / "try.pkl", "pickle")
    pickle.loads((tmp_path / "try.pkl").read_bytes())  # noqa: S301
    assert pwned.exists()  # it would indeed
    pwned.unlink()
    return plant, pwned


@pytest.mark.parametrize("by", ["pickle", "torch"])
def test_a_pickle_where_a_checkpoint_should_be_is_never_executed(planted, tmp_path, monkeypatch, by):
    plant, pwned = planted
    file = plant(tmp_path / "model.pth", by)
    with pytest.raises(UserError, match=r"model\.pth is cut short or no checkpoint of ours: move or delete it"):
        training.load(networks.report_head(), file)
    with pytest.raises(UserError, match=r"model\.pth is cut short or no checkpoint of ours: move or delete it"):
        training_script.train(file)
    with pytest.raises(UserError, match=r"model\.pth is no file of PyTorch weights: set WEIGHTS"):
        networks.alexnet_trunk(str(file))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    url = networks.AlexNet_Weights.IMAGENET1K_V1.url
    cached = plant(tmp_path / "hub" / "checkpoints" / Path(url).name, by)
    with pytest.raises(UserError, match="is no file of PyTorch weights: delete it, and it is fetched anew"):
        networks.alexnet_trunk("imagenet")
    cached.write_bytes(b"PK\3\4" + bytes(1000))
    with pytest.raises(UserError, match="is no file of PyTorch weights: delete it, and it is fetched anew"):
        networks.alexnet_trunk("imagenet")
    assert not pwned.exists()


@pytest.fixture
def predictions(tmp_path):
    """A table of predictions as it should be, its frames.csv, and a function that reads a changed one."""
    frames_csv = pd.DataFrame({
        "path": [f"frames/test/Sad/01-01-04-01-01-01-20_{k:02d}.jpg" for k in range(5)],
        "clip": "01-01-04-01-01-01-20", "actor": 20, "split": "test", "label": "Sad",
    })  # fmt: skip
    table = scoring.write_predictions(tmp_path / "cnn.csv", frames_csv, np.full((5, len(CLASSES)), 0.2))

    def changed(**columns):
        table.assign(**columns).to_csv(tmp_path / "cnn.csv", index=False)
        return scoring.read_predictions(tmp_path / "cnn.csv")

    return frames_csv, changed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "=1+1", "1e999", ""])
def test_probabilities_that_are_none(predictions, value):
    _, changed = predictions
    with pytest.raises(UserError, match=r"cnn\.csv has .*probabilit"):
        changed(p_Sad=[value, 0.2, 0.2, 0.2, 0.2])
    with pytest.raises(UserError, match=r"cnn\.csv has 1 frames whose probabilities are none"):
        changed(p_Sad=[1.2, 0.2, 0.2, 0.2, 0.2], p_Happy=[-0.8, 0.2, 0.2, 0.2, 0.2])


def test_tables_with_formulas_and_of_other_frames(predictions, tmp_path):
    table, changed = predictions
    assert scoring.differing(changed(), table) == ""
    formula = '=HYPERLINK("http://127.0.0.1/?"&A1)'
    for column in ("label", "predicted"):
        with pytest.raises(UserError, match="has classes that are not ours"):
            changed(**{column: formula})
    for column in ("clip", "actor", "split"):
        assert "5 frames of another clip" in scoring.differing(changed(**{column: formula}), table)
    assert "1 frames that frames.csv" in scoring.differing(changed(path=["../../x.jpg", *table["path"][1:]]), table)
    noted = changed(note="=1+1 | <script>alert(1)</script>\n<!-- end results -->")
    text = evaluation.results_markdown(evaluation.results({"cnn": noted}, "x"))
    assert "<script" not in text and "<!--" not in text and r"=1+1 \|" in text and len(text.splitlines()) == 6
    for content in (b"", b"\0" * 1000, b"\xff\xfe\xfa", b'"' * 999):
        (tmp_path / "cnn.csv").write_bytes(content)
        with pytest.raises(UserError, match=r"cnn\.csv (cannot be read|lacks the columns)"):
            scoring.read_predictions(tmp_path / "cnn.csv")
        assert crossval._keys(tmp_path / "cnn.csv") == set()


@pytest.mark.parametrize("row", ["p,c,1,test,Sad,Sad,0,0,0,0,1,\n", ",,,,,,,,,,,\n"])
def test_ten_million_rows_are_not_read(tmp_path, row):
    file = tmp_path / "cnn.csv"
    with open(file, "w") as target:
        target.write(",".join(scoring.COLUMNS) + "\n")
        for _ in range(100):
            target.write(row * 100_000)
    said, megabytes = measured(ROWS, file)
    assert said.endswith("has more than 1,000,000 rows: a row a frame is all that it may have.")
    assert megabytes < MEMORY


@pytest.mark.parametrize(
    "path", ["../../secret.jpg", "/etc/passwd", "frames/../x.jpg", "frames/test/Sad/../x_00.jpg", ""]
)
def test_a_frames_csv_that_points_outside_its_run(tmp_path, path):
    pd.DataFrame([[path, *"cmmmmmm", 0.1, "test", "Sad"]], columns=[*frames.COLUMNS]).to_csv(tmp_path / "frames.csv")
    with pytest.raises(UserError, match=r"frames\.csv names .* which is no frame of its run: run 01_preprocess again"):
        frames.read_frames(tmp_path / "frames.csv")
    (tmp_path / "frames.csv").write_text("path\nx")
    with pytest.raises(UserError, match=r"frames\.csv lacks the columns clip, actor"):
        frames.read_frames(tmp_path / "frames.csv")
    (tmp_path / "frames.csv").write_bytes(b"")
    with pytest.raises(UserError, match=r"frames\.csv cannot be read"):
        frames.read_frames(tmp_path / "frames.csv")


def test_a_journal_of_nonsense_is_passed_over(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    clip = next(SAMPLE.glob("Actor_01/01-01-03*.mp4"))
    name = frames.ClipName.parse(clip.name)
    lines = ["[]", "1", '"x"', "{}", '{"clip": "../../x"}', f'{{"clip": "{name}"}}', "\0\0", '{"clip": "01-01-']
    lines += [json.dumps({"clip": str(name), "source": 1, "recipe": frames.RECIPE, "times": ["x"]})]
    (tmp_path / "frames.jsonl").write_bytes("\n".join(lines).encode() + b"\xff\n")
    table, failed = frames.prepare({name: clip}, tmp_path)
    assert len(table) and not failed
    shutil.rmtree(tmp_path / "frames")
    again, _ = frames.prepare({name: clip}, tmp_path)
    pd.testing.assert_frame_equal(again, table)
