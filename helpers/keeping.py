"""A copy of the runs in another folder, such as Google Drive, so that a machine that is lost costs minutes.

What is dear is kept: models, histories, predictions, paid answers, tables, figures; and frames, one archive an actor,
since thousands of small files are what such folders are slowest at. Features are not: from frames they take minutes.
Several machines may use one copy: each copies only what it has changed itself, and journals are put together by lines.
"""

import atexit
import filecmp
import logging
import re
import shutil
import stat
import struct
import threading
import time
import zipfile
import zlib
from collections import defaultdict

from helpers.frames import PICTURE
from helpers.workspace import replacing

log = logging.getLogger(__name__)

EVERY = 120  # seconds between two looks at what has changed; each version of a checkpoint goes to Drive's trash
LEFT_OUT = {"features", "frames", ".drafts"}  # folders of a run; frames go into archives
FRAME_BYTES, ACTOR_BYTES = 10**6, 10**9  # at most: a frame has some 50 kB, an actor's frames 50 MB
# what zipfile raises where an archive is damaged, encrypted or made to harm
DAMAGED = zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError


def keep(runs, copy):
    """Bring back what a copy has and `runs` has not, then copy what changes, every `EVERY` seconds, in the background.

    A last time when Python ends. Called again it does nothing more.
    """
    if any(thread.name == "keeping" for thread in threading.enumerate()):
        return
    known, saving = restore(copy, runs), threading.Lock()

    def once():
        with saving:
            save(runs, copy, known)

    def again():
        while True:
            time.sleep(EVERY)
            try:
                once()
            except Exception as problem:  # Drive is full or away: the next round may do better
                log.warning("Not all is in %s yet: %s", copy, problem)

    once()
    threading.Thread(target=again, name="keeping", daemon=True).start()
    atexit.register(once)


def restore(copy, runs):
    """Bring back what a copy has and a folder of runs has not; returns what is alike then, as `save` wants it."""
    known = {}
    for path in _dear(copy):
        name = path.relative_to(copy).as_posix()
        target = runs / name
        if path.suffix == ".jsonl":
            _add_lines(path, target)
        elif not target.exists():
            _copy(path, target)
        if filecmp.cmp(path, target, shallow=False):
            known[name] = _stamp(target)
    for archive in copy.glob("*/frames/Actor_??.zip"):
        run, sizes = runs / archive.parts[-3], {}
        for name, content in _contents(archive):
            sizes[name] = len(content)
            if not (run / name).exists():
                with replacing(run / name, "wb") as file:
                    file.write(content)
        pictures = _pictures(run).get(archive.stem[-2:], [])
        if _sizes(run, pictures) == sizes:
            known[archive.relative_to(copy).as_posix()] = sizes
    return known


def save(runs, copy, known):
    """Copy what has changed in a folder of runs since `known` was taken, which is brought up to date.

    Each file appears there whole, the frames before the table that names them. What the copy had of a file that is
    not `known` goes to a folder beside it, `…-before`; of a journal the lines of both stay.
    """
    for run in _runs(runs):
        for actor, pictures in _pictures(run).items():
            archive = copy / run.name / "frames" / f"Actor_{actor}.zip"
            name, sizes = archive.relative_to(copy).as_posix(), _sizes(run, pictures)
            if known.get(name) != sizes:
                with replacing(archive, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as zipped:
                    for picture in sizes:
                        zipped.write(run / picture, picture)
                known[name] = sizes
    for path in _dear(runs):
        name, stamp = path.relative_to(runs).as_posix(), _stamp(path)
        target = copy / name
        if known.get(name) == stamp:
            continue
        if path.suffix == ".jsonl":
            _add_lines(path, target)
        else:
            if name not in known and target.exists():
                aside = copy.with_name(f"{copy.name}-before") / name
                aside.parent.mkdir(parents=True, exist_ok=True)
                target.replace(aside)
            _copy(path, target)
        known[name] = stamp


def _dear(runs):
    for run in _runs(runs):
        for folder in [run, *(sub for sub in run.iterdir() if sub.is_dir() and sub.name not in LEFT_OUT)]:
            files = folder.glob("*") if folder == run else folder.rglob("*")
            yield from (path for path in files if path.is_file() and not path.name.startswith("."))
    yield from runs.glob("*.jsonl")


def _runs(runs):
    return [path for path in runs.glob("*") if path.is_dir()]


def _pictures(run):
    """The frames of a run by actor, {"01": paths}."""
    by_actor = defaultdict(list)
    for picture in sorted(run.glob("frames/*/*/*.jpg")):
        if actor := re.search(r"-(\d\d)_\d+$", picture.stem):
            by_actor[actor[1]].append(picture)
    return by_actor


def _sizes(run, pictures):
    return {picture.relative_to(run).as_posix(): picture.stat().st_size for picture in pictures}


def _stamp(path):
    return path.stat().st_size, path.stat().st_mtime_ns


def _copy(path, target):
    with open(path, "rb") as source, replacing(target, "wb") as file:
        shutil.copyfileobj(source, file)


def _add_lines(path, target):
    """Put the lines of a journal that another does not have behind its own."""
    theirs = path.read_bytes().splitlines()
    ours = target.read_bytes().splitlines() if target.exists() else []
    if new := [line for line in theirs if line not in set(ours)]:
        with replacing(target, "wb") as file:
            file.write(b"".join(line + b"\n" for line in (*ours, *new)))


def open_entry(zipped, entry, largest):
    """Open a file of an archive; BadZipFile unless it is a plain one of at most so many bytes: no more comes out."""
    plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)
    packed = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may unpack to GB in one piece
    if not (plain and packed and 0 < entry.file_size <= largest):
        raise zipfile.BadZipFile(f"{entry.filename!r} is a link, empty, too large or packed in an odd way")
    return zipped.open(entry)


def _contents(archive):
    """(name, bytes) of the frames of its actor in an archive; all else is passed over, with a warning.

    That is: what is damaged or too large, links, and names that no frame has, be it by their case. Of a name that is
    there twice the first counts. What is lacking then is to be made again, and the archive with it.
    """
    mine, room, seen, wrong = f"-{archive.stem[-2:]}_", ACTOR_BYTES, set(), []
    try:
        with zipfile.ZipFile(archive) as zipped:
            for entry in zipped.infolist():
                name = entry.filename
                try:
                    if not re.fullmatch(PICTURE, name) or mine not in name or name in seen:
                        raise zipfile.BadZipFile(f"{name[:99]!r} is no frame of its actor, or there twice")
                    seen.add(name)
                    with open_entry(zipped, entry, min(FRAME_BYTES, room)) as picture:
                        content = picture.read(FRAME_BYTES)
                except DAMAGED as problem:
                    wrong.append(str(problem) or "cut short")
                    continue
                room -= len(content)
                yield name, content
    except DAMAGED as problem:
        wrong.append(str(problem) or "cut short")
    if wrong:
        log.warning("%s is damaged (%s; %d in all): make its frames again.", archive, wrong[0], len(wrong))
