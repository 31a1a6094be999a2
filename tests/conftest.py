"""Every test runs on the drawn sample, with a random trunk, into a folder of its own; the notebooks' kernels too.

None can reach an AWS account: the keys, the profile and the limit of whoever runs the tests are put out of sight.
`make test` runs them in two processes (pytest-xdist): a file of tests in one of them, all notebooks, in order, in one.
"""

import atexit
import os
import shutil
import tempfile

import pytest

from helpers.workspace import REPOSITORY, SAMPLE

RUNS = tempfile.mkdtemp(prefix="runs-")
atexit.register(shutil.rmtree, RUNS, ignore_errors=True)
for name in [name for name in os.environ if name.startswith(("AWS_", "REKOGNITION_"))]:
    del os.environ[name]
os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull, AWS_EC2_METADATA_DISABLED="true")
os.environ.update(DATA=str(SAMPLE), RUNS=RUNS, WEIGHTS="none", PYTHONPATH=str(REPOSITORY))
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # who would fight over the cores
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return "notebooks" if nodeid.startswith("notebooks/") else super()._split_scope(nodeid)

    return Scheduling(config, log)
