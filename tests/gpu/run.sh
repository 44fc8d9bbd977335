#!/bin/bash
# All that needs a card, in one call of under eight minutes: tables in markdown, and in $OUT/gpu.md.
#
#   tests/gpu/run.sh                         on a machine with one GPU
#   DEVICE=cpu SMALL=1 tests/gpu/run.sh      the same, small, to try it on a CPU; SLOW=4 gives all
#                                            parts four times their time
#
# The machine has Python 3.12, torch with CUDA, and no network. All other packages are wheels in
# build/wheels, which git ignores; fill it on a machine with a network:
#   pip download --dest build/wheels --python-version 3.12 --only-binary :all: --no-deps \
#       -r tests/gpu/wheels.txt
# Nothing of the machine is changed: the wheels go into an environment in build/gpu.
set -u
cd "$(dirname "$0")/../.." || exit 2
DEVICE=${DEVICE:-cuda} SMALL=${SMALL:-} OUT=${OUT:-build/gpu} PYTHON=${PYTHON:-python3}
WHEELS=${WHEELS:-build/wheels} START=$SECONDS SLOW=${SLOW:-1}
LIMIT=$((470 * SLOW))
mkdir -p "$OUT" build/gpu

missing() { echo "tests/gpu/run.sh: $1" >&2; exit 2; }

"$PYTHON" -c "import torch" 2>/dev/null || missing "torch is not installed for $PYTHON"
if [ "$DEVICE" != cpu ]; then
    "$PYTHON" -c "import torch, sys; sys.exit(torch.version.cuda is None)" ||
        missing "this torch is built without CUDA"
    "$PYTHON" -c "import torch, sys; sys.exit(not torch.cuda.is_available())" ||
        missing "torch finds no card (see nvidia-smi and CUDA_VISIBLE_DEVICES)"
fi
if ! "$PYTHON" -c "
import importlib.util, sys
needed = 'onnx onnxruntime zennit pytest hypothesis torchvision msgspec threadpoolctl rich'.split()
sys.exit(not all(map(importlib.util.find_spec, needed)))"; then
    ls "$WHEELS"/*.whl >/dev/null 2>&1 || missing "no wheels in $WHEELS (see the top of this file)"
    "$PYTHON" -m venv --system-site-packages build/gpu/env || missing "python3-venv is missing"
    PYTHON=$PWD/build/gpu/env/bin/python
    "$PYTHON" -m pip install -q --no-index --no-deps "$WHEELS"/*.whl ||
        missing "a wheel in $WHEELS does not install on $("$PYTHON" --version)"
fi
# onnxprune need not be installed: a folder of links is laid out as an installation is.
rm -rf build/gpu/site && mkdir -p build/gpu/site/onnxprune
ln -s "$PWD"/onnxprune/* "$PWD/converters" "$PWD/samples" build/gpu/site/onnxprune/
export PYTHONPATH=$PWD/build/gpu/site:$PWD OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
# onnxruntime finds CUDA's libraries where torch has them.
LIBRARIES=$("$PYTHON" - <<'END'
import pathlib, torch
site = pathlib.Path(torch.__file__).parent.parent
print(":".join(map(str, [site / "torch" / "lib", *sorted(site.glob("nvidia/*/lib"))])))
END
)
export LD_LIBRARY_PATH=$LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
if [ "$DEVICE" != cpu ]; then
    "$PYTHON" -c "
import onnxruntime, sys
sys.exit('CUDAExecutionProvider' not in onnxruntime.get_available_providers())" ||
        missing "this onnxruntime has no CUDA: onnxruntime-gpu is not installed, or is hidden"
fi

part() {  # title, seconds, command...
    local title=$1 seconds=$(($2 * SLOW)) left=$((LIMIT - SECONDS + START))
    shift 2
    [ "$left" -lt "$seconds" ] && seconds=$left
    printf '\n## %s\n\n' "$title"
    if [ "$seconds" -lt 5 ]; then echo "left out: no time is left"; return; fi
    local begin=$SECONDS
    timeout --signal=INT --kill-after=10 "$seconds" "$@" 2>"$OUT/errors.txt"
    local status=$?
    [ $status -ne 0 ] && printf '\nended with status %s: %s\n' $status "$(tail -n 3 "$OUT/errors.txt")"
    printf '\n%s s\n' $((SECONDS - begin))
}

small=${SMALL:+--small}
measure() { part "$1" "$2" "$PYTHON" -m tests.gpu.measure "$3" --device "$DEVICE" --folder "$OUT" $small; }
side=224 networks="vgg16 resnet50" repeats=5 rules="epsilon zplus epsilon-plus gamma alpha-beta"
[ -n "$SMALL" ] && side=64 networks=resnet50 repeats=1 rules="epsilon zplus"

{
    measure "Machine" 30 machine
    part "Tests" 90 "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests/relevance tests/gpu
    measure "Evaluation beside onnxruntime alone" 70 throughput
    part "LRP beside zennit" 70 "$PYTHON" -m tests.benchmarks.relevance --networks $networks \
        --size $side --repeats $repeats --rules $rules --device "$DEVICE"
    measure "The plan of this device and that of the CPU" 60 plans
    measure "An accuracy-aware search" 190 search
    printf '\n%s s in all\n' $((SECONDS - START))
} | tee "$OUT/gpu.md"
