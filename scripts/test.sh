#!/usr/bin/env bash
# Lint, format, types, tests, from the repository's root: scripts/test.sh [PYTHON]; PYTHON has the package's [dev] extra.
set -euo pipefail
python=${1:-python}
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
# A process for each processor, and one thread of arithmetic in each: two pools of threads on the same processors would
# spend their time waiting for each other.
OMP_NUM_THREADS=1 "$python" -m pytest -n auto --dist worksteal
