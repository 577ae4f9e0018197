#!/usr/bin/env bash
# Measures everything in docs/performance.md and writes it anew. About 35 minutes, on an idle machine.
#   benchmarks/all.sh [FOLDER]      FOLDER: where the figures go instead of docs/performance
# PYTHON: the package's environment (with its train and openvino extras, and matplotlib); RIVALS: that of
# benchmarks/rivals-requirements.txt; DATA: the folder of IIIT5K_lmdb and IIIT5K_train_lmdb; FONTS: a folder of fonts;
# ONLY: names of the parts to measure, others are left as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-docs/performance}
PYTHON=${PYTHON:-.venv/bin/python}
RIVALS=${RIVALS:-.venv-rivals/bin/python}
DATA=${DATA:-${CRNN_DATA:-../shared/data}}
FONTS=${FONTS:-/usr/share/fonts/truetype}
ONLY=${ONLY:-bench precisions pipeline pipeline_onnxruntime decoding lexicon rivals service_onnxruntime service_openvino service_bfloat16 training}
mkdir -p "$out"

threads=$("$PYTHON" -c 'from crnn.engines.processors import usable_processors as n; print(n())')
counts=() # 1, 2, 4, ... and all processors
for ((n = 1; n < threads; n *= 2)); do counts+=(--threads "$n"); done
counts+=(--threads "$threads")

part() { # NAME COMMAND...: measured if it is among ONLY
    local name=$1
    shift
    case " $ONLY " in *" $name "*) ;; *) return ;; esac
    echo "== $name"
    "$@" --json "$out/$name.json"
}

sizes=()
for n in 1 2 4 8 16 32 64 128; do sizes+=(--batch-size "$n"); done
part bench "$PYTHON" -m crnn bench "${sizes[@]}" "${counts[@]}" --seconds 0.7
part precisions "$PYTHON" benchmarks/precisions.py --data "$DATA/IIIT5K_lmdb"
part pipeline "$PYTHON" benchmarks/pipeline.py --data "$DATA/IIIT5K_lmdb"
part pipeline_onnxruntime "$PYTHON" benchmarks/pipeline.py --data "$DATA/IIIT5K_lmdb" --engine onnxruntime
part decoding "$PYTHON" benchmarks/decoding.py --data "$DATA/IIIT5K_lmdb"
part lexicon "$PYTHON" benchmarks/lexicon.py --data "$DATA/IIIT5K_lmdb"
part rivals "$PYTHON" benchmarks/rivals.py --data "$DATA/IIIT5K_lmdb" --python "$RIVALS"
for engine in onnxruntime openvino; do
    part service_$engine "$PYTHON" benchmarks/service.py --data "$DATA/IIIT5K_lmdb" --engine $engine
done
part service_bfloat16 "$PYTHON" benchmarks/service.py --data "$DATA/IIIT5K_lmdb" --engine openvino --precision bfloat16
part training "$PYTHON" benchmarks/training.py --data "$DATA/IIIT5K_train_lmdb" --fonts "$FONTS"
if [ "$out" = docs/performance ]; then
    "$PYTHON" benchmarks/document.py docs/performance.md
fi
