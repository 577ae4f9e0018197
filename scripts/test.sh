#!/usr/bin/env bash
# Lint, format, types, tests, from the repository's root: scripts/test.sh [PYTHON]; PYTHON has the package's [dev] extra.
set -euo pipefail
python=${1:-python}
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
"$python" -m pytest
