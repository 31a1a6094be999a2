"""How long preparing clips takes, beside ffmpeg doing less: `make bench`, or `make bench DATA=folder`.

The ways, over the same clips and with as many processes: ffmpeg decoding and throwing the frames away (with one thread
a process, and with as many as it likes: the faster of the two is the floor, 1.0), plain ffmpeg writing the same JPEGs,
and `frames.prepare`. Rounds are interleaved, the best of each way counts. Memory is what a fresh Python took at most.
"""

import contextlib
import io
import itertools
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers import frames
from helpers.ravdess import CLASS_OF, ClipName, find_clips
from helpers.workspace import open_run

CLIPS, ROUNDS = 96, 3
PROCESSES = os.cpu_count()


def some(paths, count):
    """`count` clips spread over those there are, or repeated where there are fewer, under made-up names."""
    paths = list(paths)
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    codes = itertools.product(range(1, 25), (1, 2), (1, 2), CLASS_OF)
    names = (ClipName.parse(f"01-01-{e:02d}-01-{s:02d}-{r:02d}-{a:02d}") for a, s, r, e in codes)
    return dict(zip(names, chosen, strict=False))


def ffmpeg(clips, folder, before, after):
    def one(i, path):
        (folder / str(i)).mkdir()
        command = [frames.ffmpeg(), "-nostdin", "-v", "error", *before, "-i", f"file:{path.resolve()}", "-map", "0:v:0"]
        subprocess.run([*command, *after], cwd=folder / str(i), check=True)

    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(one, range(len(clips)), clips.values()))


NOTHING = ["-f", "null", "-"]
JPEGS = ["-vf", f"fps={frames.FPS},scale={frames.WIDTH}:{frames.HEIGHT}", "-q:v", str(frames.QUALITY), "%d.jpg"]
WAYS = {
    "decode, 1 thread": lambda clips, folder: ffmpeg(clips, folder, ["-threads", "1"], NOTHING),
    "decode, ffmpeg's threads": lambda clips, folder: ffmpeg(clips, folder, [], NOTHING),
    "plain ffmpeg to JPEGs": lambda clips, folder: ffmpeg(clips, folder, ["-threads", "1"], JPEGS),
    "frames.prepare": lambda clips, folder: frames.prepare(clips, folder),
}


def seconds(way, clips):
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        way(clips, Path(folder))
        return time.perf_counter() - start


def peak_memory(clips):
    """MB that a fresh process takes at most while it prepares clips; ffmpeg's own processes are not counted."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (clips,))


def _peak(clips):
    seconds(WAYS["frames.prepare"], clips)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    run = open_run()
    paths = find_clips(run.data)[0].values()
    clips = some(paths, CLIPS)
    print(f"{run.title}: {CLIPS} clips of {len(paths)}, {PROCESSES} processes, best of {ROUNDS} rounds")
    best = dict.fromkeys(WAYS, float("inf"))
    for _, name in itertools.product(range(ROUNDS), WAYS):
        best[name] = min(best[name], seconds(WAYS[name], clips))
    floor = min(best["decode, 1 thread"], best["decode, ffmpeg's threads"])
    print(f"{'':<26}{'seconds':>8}{'ratio':>8}")
    for name, took in best.items():
        print(f"{name:<26}{took:>8.1f}{took / floor:>8.2f}")
    for count in (CLIPS // 4, CLIPS, 4 * CLIPS):
        print(f"peak memory over {count:>4} clips: {peak_memory(some(paths, count)):.0f} MB")
