"""What asking for frames takes beside the server's own time: `make bench`, or `make bench DATA=folder`.

Over the validation and test frames of DATA's run, against `tests/rekognition_server.py` in a process of its own, which
takes SECONDS for an answer. The floor is the server's time, added up, divided by the calls under way at a time.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from helpers import aws, rekognition
from helpers.frames import read_frames
from helpers.workspace import REPOSITORY, Run, open_run
from tests.rekognition_server import KEY, SECRET

SECONDS = 0.15


def seconds(work, *arguments):
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        work(*arguments)
    return time.perf_counter() - start


def main():
    run = open_run()
    frames = read_frames(run.need("frames.csv", notebook="01_preprocess")).query("split != 'train'")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.rekognition_server", str(SECONDS)], cwd=REPOSITORY, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    os.environ.update(
        AWS_ENDPOINT_URL_REKOGNITION=f"http://127.0.0.1:{int(server.stdout.readline())}",
        AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_DEFAULT_REGION="us-east-1",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:  # so that the answers are not kept beside real ones
        (Path(folder) / "run").symlink_to(run.root, target_is_directory=True)
        elsewhere = Run(Path(folder) / "clips", Path(folder) / "run")
        first = seconds(rekognition.ask, elsewhere, frames, 1000)
        again = seconds(rekognition.ask, elsewhere, frames, 1000)
        pictures = len(rekognition.answers_file(elsewhere).read_bytes().splitlines())
        answered = int(rekognition.read_answers(elsewhere, frames).notna().sum())
    counted = json.loads(server.communicate("")[0])
    floor = counted["busy"] / aws.CALLS
    print(f"{run.title}: {answered:,} of {len(frames):,} frames answered ({pictures:,} different pictures)")
    print(f"the server's own time / {aws.CALLS}   {floor:7.1f} s   1.00")
    print(f"rekognition.ask           {first:7.1f} s   {first / floor:.2f}   {pictures / first:.0f} answers a second")
    print(f"the same again            {again:7.1f} s          {counted['calls'] - pictures} calls")


if __name__ == "__main__":
    main()
