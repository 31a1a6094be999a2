"""Every test runs on the drawn sample, with a random trunk, into a folder of its own; the notebooks' kernels too."""

import atexit
import os
import shutil
import tempfile

from helpers.workspace import REPOSITORY, SAMPLE

RUNS = tempfile.mkdtemp(prefix="runs-")
atexit.register(shutil.rmtree, RUNS, ignore_errors=True)
os.environ.update(DATA=str(SAMPLE), RUNS=RUNS, WEIGHTS="none", PYTHONPATH=str(REPOSITORY))
