"""From clips to frames, as the report did: ffmpeg at 5/3 frames a second, sorted into an ImageFolder tree.

One ffmpeg process a clip writes the pictures and lists the clip's own time stamps, from which the true time of each
picture follows. Killed and run again, it goes on; a clip that can't be read is named at the end, the others are done.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import closing
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import imageio_ffmpeg
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from tqdm import tqdm

from helpers.ravdess import CLASSES, REPORT_SPLIT, SPLITS, ClipName, check_split, split_of
from helpers.workspace import UserError, alone, content, replacing, shown, write_table, writing

FPS = Fraction(5, 3)  # frames a second kept; the report's frame counts follow from it
WIDTH, HEIGHT = 640, 360
FIT = f"scale={WIDTH}:{HEIGHT}:force_original_aspect_ratio=increase,crop={WIDTH}:{HEIGHT}"
QUALITY = 2  # ffmpeg's -q:v for JPEG: 2 is the best
RECIPE = f"{FPS} {FIT} q{QUALITY}"

# What one clip may take: RAVDESS's have 1280 x 720 pixels and last 5 seconds. ffmpeg needs at most 1 GB for it.
TIME_LIMIT = 600  # seconds of work
LONGEST, MOST = 300, 50_000  # seconds, pictures
LARGEST = 4096 * 2304  # pixels of a picture
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,flv,asf,mpeg,mpegvideo,mpegts,ogg"
# No playlist or script that names other files, nothing from the network, no more memory at a time than it says
GUARDED = ["-max_alloc", "500000000", "-format_whitelist", CONTAINERS, "-protocol_whitelist", "file"]
GUARDED += ["-max_pixels", str(LARGEST)]
FULL = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)}

# A frame's name, as a run's tables have it
PICTURE = rf"frames/(?:{'|'.join(SPLITS)})/(?:{'|'.join(CLASSES)})/[0-9]{{2}}(?:-[0-9]{{2}}){{6}}_[0-9]{{2,4}}\.jpg"
COLUMNS = "path clip actor sex emotion intensity statement repetition time_s split label".split()


def ffmpeg():
    """The system's ffmpeg if there is one, else the one that imageio-ffmpeg brings."""
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg_version():
    """The version of that ffmpeg: pictures of two versions differ in their last bits."""
    printed = subprocess.run([ffmpeg(), "-version"], capture_output=True, check=True, text=True).stdout
    return printed.split()[2]


def prepare(clips, root, split=REPORT_SPLIT, jobs=-1):
    """Cut clips into `root/frames/<split>/<class>/<clip>_<k>.jpg` and write `root/frames.csv`, a row a frame.

    Parameters
    ----------
    clips : dict of ClipName to Path, as `ravdess.find_clips` gives it
    root : Path, the run's folder
    split : {"train": actors, "val": actors, "test": actors}
    jobs : ffmpeg processes at a time; -1 is one a core

    Returns
    -------
    frames : DataFrame with `COLUMNS`; `path` is relative to `root`, `time_s` is the source frame's time in the clip
    failed : list of (Path, reason), the clips that could not be used

    UserError if no clip can be read, or the frames cannot be written. A second call at the same time waits.
    """
    check_split(split)
    with alone(root / "frames.csv"):
        return _prepare(clips, root, split, jobs)


def _prepare(clips, root, split, jobs):
    drafts, journal = root / ".drafts", root / "frames.jsonl"
    shutil.rmtree(drafts, ignore_errors=True)
    with writing(drafts):
        drafts.mkdir(parents=True, exist_ok=True)
    before = _read_journal(journal)
    # with those that another process has cut and dropped since the caller looked
    known = {name: root / f"{name}.mp4" for name in dropped(root)} | clips
    records = {name: before[str(name)] for name in known if str(name) in before}
    records = {name: r for name, r in records.items() if _is_current(r, name, known[name], root, split)}
    with replacing(journal) as file:
        file.writelines(json.dumps(record) + "\n" for record in records.values())

    todo = [name for name in clips if name not in records]
    # ffmpeg does the work in processes of its own, so threads are enough to run them, and nothing is forked.
    work = Parallel(jobs, prefer="threads", return_as="generator_unordered")(
        delayed(_cut)(name, clips[name], root, drafts, split) for name in todo
    )
    failed = []
    # the outer writing() is for the journal's own end: what a full disk did not take is tried again as it is closed
    with writing(journal), warnings.catch_warnings(), closing(work), open(journal, "a", encoding="utf-8") as file:
        warnings.filterwarnings("ignore", ".*tasks which were still", UserWarning)  # where an error ends it
        for name, record in tqdm(work, total=len(todo), desc="clips", file=sys.stdout, disable=not todo):
            if "problem" in record:
                failed.append((clips[name], record["problem"]))
            else:
                records[name] = record
                with writing(journal):
                    file.write(json.dumps(record) + "\n")
                    file.flush()
    shutil.rmtree(drafts, ignore_errors=True)

    if failed and not records:
        raise UserError(f"None of the {len(clips)} clips could be read; {shown(failed[0][0])}: {failed[0][1]}.")
    frames = pd.DataFrame(
        [row for name in sorted(records) for row in _rows(name, records[name], split)], columns=COLUMNS
    )
    kept = set(frames["path"])
    with writing(root / "frames"):
        for picture in root.glob("frames/*/*/*.jpg"):  # of clips that are gone, or that a new split has moved
            if picture.relative_to(root).as_posix() not in kept:
                picture.unlink()
    write_table(root / "frames.csv", frames)
    return frames, sorted(failed)


def cut_clips(root, split=REPORT_SPLIT):
    """The clips whose frames are all there: set of ClipName."""
    records = {ClipName.parse(clip): record for clip, record in _read_journal(root / "frames.jsonl").items()}
    return {name for name, record in records.items() if _is_whole(record, name, root, split)}


def dropped(root):
    """The names of the clips of a run that were dropped once they were cut: set of ClipName."""
    file = root / "dropped.txt"
    return {ClipName.parse(line) for line in file.read_text("utf-8").split()} if file.exists() else set()


def check_no_leak(frames, root):
    """Check that no actor and no picture (by content) is in two splits; returns how many of each there are.

    UserError names the first that is: a model that has seen a face, or the very picture, would be tested on it.
    """
    digests = [content(root / path) for path in frames["path"]]
    for what, key in (("actor", frames["actor"]), ("picture", pd.Series(digests, frames.index))):
        splits = frames.groupby(key)["split"].nunique()
        if (splits > 1).any():
            first = frames.loc[key == splits.idxmax(), "path"].iloc[0]
            raise UserError(f"One {what} is in two splits, see {shown(root / first)}: check the clips' names.")
    return {"actors": frames["actor"].nunique(), "pictures": len(set(digests))}


def read_frames(path):
    """Read `frames.csv`; UserError if it is no such table, or names a picture outside its run."""
    try:
        frames = pd.read_csv(path)
    except (ValueError, OSError) as problem:  # pandas has several names for a file that is no table
        reason = str(problem).splitlines()[0].rstrip(".")
        raise UserError(f"{shown(path)} cannot be read ({reason}): run 01_preprocess again.") from None
    if missing := [column for column in COLUMNS if column not in frames]:
        raise UserError(f"{shown(path)} lacks the columns {', '.join(missing)}: run 01_preprocess again.")
    if len(strange := frames[~frames["path"].astype(str).str.fullmatch(PICTURE)]):
        raise UserError(
            f"{shown(path)} names {strange['path'].iloc[0]!r}, which is no frame of its run: run 01_preprocess again."
        )
    return frames


def still(path, time_s, width=WIDTH, height=HEIGHT):
    """One picture of a clip, `time_s` seconds after its start, as a PIL image."""
    command = [ffmpeg(), "-nostdin", "-v", "error", *GUARDED, "-ss", f"{time_s:.3f}", "-i", f"file:{path}"]
    command += ["-map", "0:v:0", "-vf", FIT, "-frames:v", "1", "-c:v", "png", "-f", "image2pipe", "-"]
    return Image.open(BytesIO(subprocess.run(command, capture_output=True, check=True, timeout=TIME_LIMIT).stdout))


def one_of_each_emotion(clips, root, time_s=1.5):
    """A picture of each emotion, in alphabetical order: {ClipName: picture}.

    Strong clips and actors not yet shown come first; a clip that can't be read is passed over. Of one that was dropped
    once it was cut it is the third frame, filmed about 1.47 s after its start.
    """
    chosen: dict[ClipName, Image.Image] = {}
    for emotion in sorted({name.emotion for name in clips}, key=lambda emotion: emotion.name):
        shown_actors = {name.actor for name in chosen}
        names = [name for name in clips if name.emotion == emotion]
        for name in sorted(names, key=lambda n: (n.actor in shown_actors, -n.intensity, n.actor, n)):
            try:
                cut = [] if clips[name].exists() else sorted(root.glob(f"frames/*/*/{name}_02.jpg"))
                chosen[name] = Image.open(cut[0]) if cut else still(clips[name], time_s)
                break
            except (OSError, subprocess.SubprocessError):
                continue
    return chosen


def kept_frames(stamps, count, fps=FPS):
    """Which source frames ffmpeg's `fps` filter keeps, as indices into their time stamps (seconds, ascending).

    The filter rounds every stamp to the nearest tick of the new rate and keeps, for each tick, the last frame that is
    not past it. It then stamps them 0, 0.6, 1.2, …, which is not when they were filmed: at 29.97 frames a second it
    keeps frames 8, 26, 44, …, that is 0.27, 0.87, 1.47 s (FFmpeg, libavfilter/vf_fps.c; checked against the pictures
    in tests/test_frames.py).
    """
    ticks = [int(stamp * fps + Fraction(1, 2)) for stamp in stamps]
    return [max((i for i, tick in enumerate(ticks) if tick <= k), default=0) for k in range(count)]


def _cut(name, path, root, drafts, split):
    """Cut one clip into the tree; returns (name, record), the record holding frame times or a `problem`."""
    try:
        if not path.exists():
            return name, {"problem": "not there (any more), and not all of its frames are: fetch its actor again"}
        stamp = _stamp(path)
    except OSError as problem:
        return name, {"problem": f"cannot be opened ({problem.strerror})"}
    if not stamp[0]:
        return name, {"problem": "empty file"}
    # of this try alone: another may have been killed, and its ffmpeg not
    with writing(root / "frames"):
        draft = Path(tempfile.mkdtemp(dir=drafts))
    try:
        times = cut_pictures(path, draft)
    except (OSError, ValueError, subprocess.TimeoutExpired) as problem:
        shutil.rmtree(draft, ignore_errors=True)
        late = isinstance(problem, subprocess.TimeoutExpired)
        return name, {"problem": f"took longer than {TIME_LIMIT} s" if late else str(problem)}
    target = root / _folder(name, split)
    with writing(root / "frames"):
        target.mkdir(parents=True, exist_ok=True)
        for k in range(len(times)):
            (draft / f"{k}.jpg").replace(target / f"{name}_{k:02d}.jpg")
    return name, {"clip": str(name), "source": stamp, "recipe": RECIPE, "times": times}


def cut_pictures(path, folder, fps=FPS):
    """Write `0.jpg`, `1.jpg`, … into a folder, `fps` (a Fraction) a second; returns their true times in seconds.

    ValueError for a clip that is damaged, or larger or longer than a clip may be; UserError if the disk is full.
    """
    # a clip whose times leap by hours would give millions of pictures, were they not counted before they are scaled
    chain = f"fps={fps},trim=end_frame={int(LONGEST * fps) + 1},{FIT}"
    pictures = ["-map", "0:v:0", "-vf", chain, "-q:v", str(QUALITY), "-threads", "1", "-start_number", "0"]
    stamps = ["-map", "0:v:0", "-c", "copy"]  # a line a frame, nothing decoded for it
    stamps += ["-frames:v", str(MOST + 1), "-f", "framecrc", "-"]
    quiet = ["-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info"]
    lean = ["-threads", "1", "-filter_threads", "1", "-an"]  # clips run side by side, so one thread each is fastest
    done = subprocess.run(
        [ffmpeg(), *quiet, *lean, *GUARDED, "-i", f"file:{path.resolve()}", *pictures, "%d.jpg", *stamps],
        cwd=folder,  # so that a % in the folder's own name is no pattern
        capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT,
    )  # fmt: skip
    errors = re.findall(r"\[(?:error|fatal|panic)\] (.*)", done.stderr)
    count = len(list(folder.glob("*.jpg")))
    said = "\n".join(errors)  # and not all of stderr, where a clip's own title stands too
    with writing(folder.parent):
        if done.returncode and (full := [number for text, number in FULL.items() if f": {text}" in said]):
            raise OSError(full[0], os.strerror(full[0]))
    if "not on whitelist" in said:
        raise ValueError("not a video, or of a kind that is not read")
    if "matches no streams" in said:
        raise ValueError("no video stream")
    if "max pixel count" in said:
        raise ValueError(f"its pictures are larger than a clip's may be ({LARGEST:,} pixels)")
    length = re.search(r"^\[info\] +Duration: (\d+):(\d+):([\d.]+)", done.stderr, re.M)
    whole = int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3]) if length else 0.0
    packets = [[int(x) for x in line.split(",")[2:4]] for line in done.stdout.splitlines() if line[:1] == "0"]
    if max(whole, float(count / fps)) > LONGEST or len(packets) > MOST:
        raise ValueError(f"longer than a clip may be ({LONGEST} s, or {MOST:,} pictures)")
    tick = re.search(r"^#tb 0: (\d+/[1-9]\d*)", done.stdout, re.M)
    stamps_s = sorted(pts * Fraction(tick[1]) for pts, _ in packets if pts >= 0) if tick else []
    end = float(max(pts + duration for pts, duration in packets) * Fraction(tick[1])) if tick and packets else 0
    if not count and 0 < end < 0.5 / fps:
        raise ValueError(f"too short for a frame: {end:.2f} s")
    if done.returncode or errors or not count or not tick or not stamps_s:
        raise ValueError(f"cut short, damaged or not a video (ffmpeg: {errors[0] if errors else 'no frame'})")
    if end < whole - 0.5:
        raise ValueError(f"cut short: {end:.1f} of {whole:.1f} s")
    return [round(float(stamps_s[i]), 4) for i in kept_frames(stamps_s, count, fps)]


def _rows(name, record, split):
    for k, time_s in enumerate(record["times"]):
        yield {
            "path": f"{_folder(name, split)}/{name}_{k:02d}.jpg", "clip": str(name), "actor": name.actor,
            "sex": name.sex, "emotion": name.emotion.name.lower(), "intensity": name.intensity.name.lower(),
            "statement": name.statement.name.lower(), "repetition": name.repetition, "time_s": time_s,
            "split": split_of(name.actor, split), "label": name.label,
        }  # fmt: skip


def _folder(name, split):
    return f"frames/{split_of(name.actor, split)}/{name.label}"


def _stamp(path):
    return [path.stat().st_size, path.stat().st_mtime_ns]


def _is_current(record, name, path, root, split):
    unchanged = not path.exists() or record["source"] == _stamp(path)  # a clip may be dropped once it is cut
    return unchanged and _is_whole(record, name, root, split)


def _is_whole(record, name, root, split):
    return record["recipe"] == RECIPE and all((root / row["path"]).exists() for row in _rows(name, record, split))


def _read_journal(journal):
    """The records of clips done before, by clip; a line that was cut off by a kill, or is none, is passed over."""
    records = {}
    for line in journal.read_text("utf-8", errors="replace").splitlines() if journal.exists() else []:
        try:
            record = json.loads(line)
            ClipName.parse(record["clip"]), record["source"], record["recipe"]
            if all(0 <= time_s <= LONGEST for time_s in record["times"]):
                records[record["clip"]] = record
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return records
