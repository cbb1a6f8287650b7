#!/usr/bin/env bash
# Everything about a GPU that ten minutes can tell, in one command: benchmarks/gpu_check.sh OUT
#
# For a bare machine: Python 3.12, torch with CUDA (and the numpy it comes with), no network. What else is needed lies
# beside the tree in wheels/ where `benchmarks/gpu_pack.sh` has put it. Every step has a limit, and what it found is in
# OUT/summary.txt before the next one begins; a step that fails or takes too long is told there, and the rest goes on.
#
#   BUDGET=600    seconds for all of it; the training recipe takes what is left of them
#   DEVICE=cpu    tries the whole out without a GPU; SMALL=1 with small checkpoints and a few frames
#   PYTHON=python3   WHEELS=wheels   WORK=/tmp/sonant-gpu-check (checkpoints, 11 GB; 0.1 GB with SMALL=1)
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=$(realpath -m "${1:?usage: benchmarks/gpu_check.sh OUT}")
BUDGET=${BUDGET:-600} DEVICE=${DEVICE:-cuda} PYTHON=${PYTHON:-python3} SMALL=${SMALL:-}
WHEELS=${WHEELS:-wheels} WORK=${WORK:-/tmp/sonant-gpu-check}
mkdir -p "$OUT" "$WORK"
began=$SECONDS
left() { echo $((BUDGET - (SECONDS - began))); }
say() { echo "$*" | tee -a "$OUT/summary.txt"; }

# step NAME LIMIT COMMAND...: its last lines go into the summary, all of it into OUT/NAME.log
step() {
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  [ "$limit" -le "$(left)" ] || limit=$(left)
  if [ "$limit" -lt 5 ]; then say "-- $name: left out, no time for it"; return 0; fi
  timeout -k 5 "$limit" "$@" > "$OUT/$name.log" 2>&1
  code=$?
  case $code in
    0) say "-- $name: well, $((SECONDS - start)) s" ;;
    124 | 137) say "-- $name: stopped after its $limit s" ;;
    *) say "-- $name: FAILED with status $code, $((SECONDS - start)) s" ;;
  esac
  tail -n "${LINES_KEPT:-4}" "$OUT/$name.log" | cut -c1-600 | tee -a "$OUT/summary.txt"
}

: > "$OUT/summary.txt"
if compgen -G "$WHEELS/*.whl" > /dev/null && [ ! -d "$WORK/site" ]; then
  step wheels 60 "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$WORK/site" "$WHEELS"/*.whl
fi
export PYTHONPATH=src:.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
if [ -d "$WORK/site" ]; then export PYTHONPATH=$PYTHONPATH:$WORK/site; fi
small=${SMALL:+--small}
LINES_KEPT=12 step machine 40 "$PYTHON" benchmarks/gpu_speed.py machine --device "$DEVICE"
step tests 120 "$PYTHON" -m pytest -q -p no:cacheprovider -m "gpu and not weights" \
  $(grep -rl "mark\.gpu" tests/families --include="*.py")

for model in qwen3-tts-0.6b cosyvoice3-0.5b indextts2; do
  step "write-$model" 90 "$PYTHON" benchmarks/gpu_speed.py write "$model" "$WORK/$model" $small
done
speed() { # MODEL BATCH LIMIT [OPTION ...]
  local model=$1 batch=$2 limit=$3
  shift 3
  LINES_KEPT=1 step "speed-$model-batch-$batch${1:-}" "$limit" "$PYTHON" benchmarks/gpu_speed.py speak "$WORK/$model" \
    --device "$DEVICE" --batch "$batch" $small "$@"
}
for batch in 1 8 32; do speed qwen3-tts-0.6b $batch 60; done
speed qwen3-tts-0.6b 1 60 --unrecorded
speed qwen3-tts-0.6b 8 60 --unrecorded
for batch in 1 8; do speed cosyvoice3-0.5b $batch 60; done
speed cosyvoice3-0.5b 1 60 --unrecorded
speed indextts2 1 60
speed indextts2 1 60 --unrecorded
for model in cosyvoice3-0.5b indextts2; do
  LINES_KEPT=2 step "flow-$model" 100 env SONANT_NATIVE=0 "$PYTHON" benchmarks/flow_compile.py "$WORK/$model" --device "$DEVICE" \
    ${SMALL:+--frames 60 --backend eager}
done

remaining=$(($(left) - 12))
if [ -n "$SMALL" ]; then scale=smoke seconds=5; else scale=gpu seconds=$((remaining / 3)); fi
LINES_KEPT=6 step nano "$((remaining + 8))" env WHEELS= WORK="$WORK/nano" OUT="$OUT/nano" SCALE=$scale SECONDS_EACH=$seconds \
  UNTIL=$(($(date +%s) + remaining)) PYTHON="$PYTHON" recipes/nano/gpu.sh all
say "-- all of it: $((SECONDS - began)) s of $BUDGET"
