#!/usr/bin/env bash
# Packs what benchmarks/gpu_check.sh needs on a bare machine into one archive: benchmarks/gpu_pack.sh OUT.tar.gz [PYTHON]
#
# The tree without what no step reads, and wheels/ with the packages that a machine with torch and numpy lacks, for
# Linux on x86-64 and the Python named by VERSION (3.12). Needs a network; PYTHON's pip fetches the wheels.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?usage: benchmarks/gpu_pack.sh OUT.tar.gz [PYTHON]}")
PYTHON=${2:-python3} VERSION=${VERSION:-3.12} MOST=60000000
NEEDED=( # an onnxruntime of two thirds the size of today's
  safetensors tokenizers regex PyYAML sentencepiece tiktoken einops platformdirs soundfile cffi pycparser soxr
  onnxruntime==1.20.1 flatbuffers protobuf packaging tqdm huggingface-hub hibari-tts num2words typer click rich
  shellingham markdown-it-py mdurl pygments pytest pytest-timeout pluggy iniconfig
)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/sonant"
git archive HEAD src recipes benchmarks pyproject.toml ":(glob)tests/*.py" \
  tests/families tests/data/qwen3_tts tests/data/cosyvoice3 tests/data/indextts2 | tar -x -C "$folder/sonant"
rm -rf "$folder/sonant/src/sonant/assets/nano" "$folder/sonant/tests/families/kokoro" "$folder/sonant/tests/families/builtin"
grep -v ^onnxruntime constraints.txt > "$folder/constraints.txt"
"$PYTHON" -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: --python-version "$VERSION" \
  --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
  -c "$folder/constraints.txt" -d "$folder/sonant/wheels" "${NEEDED[@]}"
tar -C "$folder" -czf "$out" sonant
size=$(stat -c %s "$out")
echo "$out: $((size / 1000000)) MB; unpack it there, then: cd sonant && benchmarks/gpu_check.sh OUT"
[ "$size" -le "$MOST" ] || { echo "that is more than the 60 MB it may have" >&2; exit 1; }
