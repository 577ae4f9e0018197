#!/usr/bin/env bash
# Makes trained weights the bundled ones and measures what the pages say of them, from the repository's root:
#     scripts/release.sh WEIGHTS DATA FOLDER [PYTHON]
# WEIGHTS is a run, or the .safetensors of `crnn average`; DATA holds the real words' LMDBs; FOLDER gets the results.
# Then scripts/figures.py FOLDER and benchmarks/accuracy.py write them into the pages. Nothing else should be running.
set -euo pipefail
weights=$1 data=$2 out=$3 python=${4:-python}
model=src/crnn/weights/crnn_vgg_bilstm_alnum36.onnx
test=$data/IIIT5K_lmdb
held=("$data"/IC15_train_lmdb "$data"/IC15_rectified_train_lmdb "$data"/IC03_train_lmdb "$data"/SVT_train_lmdb)
crnn() { "$python" -m crnn "$@"; }
mkdir -p "$out"
crnn export "$weights" "$out/words.onnx" --fp16 --check "${held[2]}" $(printf -- '--calibrate %s ' "${held[@]}") | tee "$out/export.txt"
crnn quantize "$data"/IIIT5K_train_lmdb "${held[0]}" "${held[2]}" --model "$out/words.onnx"
mv "$out/words.onnx" "$model"
mv "$out/words.int8.json" "${model%.onnx}.int8.json"
evaluate() { crnn evaluate "${@:2}" --json "$out/$1.json" | tail -n 3; }
evaluate test "$test" --engine onnxruntime
evaluate test_again "$test" --engine onnxruntime --second-look
evaluate held_out "${held[0]}" "${held[2]}" "${held[3]}" --held-out --engine onnxruntime
evaluate cuts "${held[@]}" --held-out --engine onnxruntime
evaluate cuts_again "${held[@]}" --held-out --engine onnxruntime --second-look
evaluate list50 "$test" --lexicon-size 50 --engine onnxruntime
evaluate list1000 "$test" --lexicon-size 1000 --engine onnxruntime
evaluate int8 "$test" --engine openvino --precision int8
