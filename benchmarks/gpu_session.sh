#!/bin/bash
# Half an hour of a GPU, or of several: does it compute what the CPU computes, where does the time go, how much memory,
# does torchrun work, and what does the paper's network learn. Everything is written to OUT.
#   DATA=sets OUT=runs/gpu bash benchmarks/gpu_session.sh
#   DEVICE=cpu STEPS=2 FEATURES="[4,8]" SIZE="[16,16,16]" DATASET=phantoms OUT=runs/gpu bash benchmarks/gpu_session.sh
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
DEVICE=${DEVICE:-cuda}
OUT=${OUT:-runs/gpu}
MINUTES=${MINUTES:-20}                  # of the training
STEPS=${STEPS:-}                        # of the training; by default what MINUTES are enough for
FEATURES=${FEATURES:-[32,64,128,256,512]}
SIZE=${SIZE:-[80,96,96]}
DATA=${DATA:-data}                      # folder of the sets of shipped.json
DATASET=${DATASET:-}                    # one folder of scans instead
mkdir -p "$OUT"

CONFIGS="'bundle/configs/train.json'"
OPTIONS=(--bundle_root bundle --features "$FEATURES" --spatial_size "$SIZE")
if [ -n "$DATASET" ]; then
    OPTIONS+=(--dataset_dir "$DATASET" --bfloat16 True)
else
    CONFIGS="$CONFIGS,'bundle/configs/shipped.json'"
    OPTIONS+=(--data_dir "$DATA" --cache_dir "$OUT/cache")
fi
OPTIONS+=(${EXTRA:-})

"$PYTHON" benchmarks/gpu_session.py "$OUT" --config_file "[$CONFIGS]" --device "$DEVICE" --minutes "$MINUTES" \
    ${STEPS:+--steps "$STEPS"} "${OPTIONS[@]}" 2>&1 | tee "$OUT/session.log"
EPOCHS=$("$PYTHON" -c "import json; print(json.load(open('$OUT/session.json'))['epochs'])")
LENGTH=$("$PYTHON" -c "import json; print(json.load(open('$OUT/session.json'))['epoch_length'])")

HIDDEN=()
[ "$DEVICE" = cpu ] && HIDDEN=(env CUDA_VISIBLE_DEVICES=)
COUNT=$("${HIDDEN[@]}" "$PYTHON" -c "import torch; print(max(1, torch.cuda.device_count()))")
for PROCESSES in $(printf '%s\n' 1 "$COUNT" | sort -un); do    # nccl on GPUs, gloo on a CPU
    rm -rf "$OUT/torchrun_$PROCESSES"
    "${HIDDEN[@]}" "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node="$PROCESSES" -m monai.bundle run \
        --config_file "[$CONFIGS,'bundle/configs/multi_gpu_train.json']" "${OPTIONS[@]}" --output_dir "$OUT/torchrun_$PROCESSES" \
        --epochs 1 --epoch_length "${STEPS:-10}" --validation_pairs 2 2>&1 | tee "$OUT/torchrun_$PROCESSES.log"
done

rm -rf "$OUT/run"
"${HIDDEN[@]}" "$PYTHON" -m monai.bundle run --config_file "[$CONFIGS]" "${OPTIONS[@]}" --output_dir "$OUT/run" \
    --epochs "$EPOCHS" --epoch_length "$LENGTH" 2>&1 | tee "$OUT/run.log"
echo "written to $OUT: session.json, profile.txt, torchrun_*.log, run/model.pt, run/history.csv"
