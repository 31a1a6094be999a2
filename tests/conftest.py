"""Every test runs on the drawn sample, with a random trunk, into a folder of its own; the notebooks' kernels too.

None can reach an AWS account: the keys, the profile and the limit of whoever runs the tests are put out of sight.
"""

import atexit
import os
import shutil
import tempfile

from helpers.workspace import REPOSITORY, SAMPLE

RUNS = tempfile.mkdtemp(prefix="runs-")
atexit.register(shutil.rmtree, RUNS, ignore_errors=True)
for name in [name for name in os.environ if name.startswith(("AWS_", "REKOGNITION_"))]:
    del os.environ[name]
os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull, AWS_EC2_METADATA_DISABLED="true")
os.environ.update(DATA=str(SAMPLE), RUNS=RUNS, WEIGHTS="none", PYTHONPATH=str(REPOSITORY))
