#!/usr/bin/env bash
# Lint, format, types, tests, from the repository's root: scripts/test.sh [PYTHON]; PYTHON has the package's [dev] extra.
set -euo pipefail
python=${1:-python}
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
# A process for each processor, and one thread of arithmetic in each: two pools of threads on the same processors would
# spend their time waiting for each other.
export OMP_NUM_THREADS=1
# The training ring's tests have processes of their own: after tests of the command line, one of them has twice ended its
# process with a segmentation fault in the C library, whose cause is not known yet.
"$python" -m pytest -n auto --dist worksteal --durations 15 tests/training
"$python" -m pytest -n auto --dist worksteal --durations 40 --ignore tests/training
