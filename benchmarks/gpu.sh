#!/usr/bin/env bash
# All that only a GPU can show, in about eight minutes on one: does semseg compute there what it computes on a CPU, do
# its tests pass there, do the commands go through, how fast is a step, and how does it end without memory.
#
#     benchmarks/gpu.sh OUTPUT [DATA] [NAMES...]     # DATA: a folder of photos and masks; without one, the demo set
#
# Each check has a time limit and a log in OUTPUT; none stops the next. NAMES (agreement, tests, runs, memory, step,
# feeding, speed; default: all) picks some. A table of all checks ends the output. What measures no time runs at once.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "$1") data=${2:-none} wanted=" ${*:3} "
[ "$wanted" = "  " ] && wanted=" agreement tests runs memory step feeding speed "
mkdir -p "$out"
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false MPLCONFIGDIR="$out/matplotlib"
where=()
[ "$data" = none ] || where=(--data "$data")

check() { # NAME SECONDS COMMAND...: the command, its log, its line in the table
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  timeout -k 10 "$limit" "$@" > "$out/$name.log" 2>&1
  code=$?
  local said
  said=$(grep -E '^RESULT |^[0-9]+ (passed|failed)|^=.* (passed|failed|error)|^error:|macro|mean IoU' "$out/$name.log" | tail -n 1)
  printf '%-28s %-9s %4d s  %s\n' "$name" "$([ $code = 0 ] && echo ok || echo "exit $code")" $((SECONDS - start)) \
    "${said:0:200}" | tee -a "$out/table.txt"
}
asked() { [[ $wanted == *" $1 "* ]]; }
on() { KERAS_BACKEND=$1 "${@:2}"; }
exactly() { NVIDIA_TF32_OVERRIDE=0 JAX_DEFAULT_MATMUL_PRECISION=highest "$@"; }
test_on() { # BACKEND WORKERS FILES...
  OMP_NUM_THREADS=1 KERAS_BACKEND=$1 NVIDIA_TF32_OVERRIDE=0 JAX_DEFAULT_MATMUL_PRECISION=highest \
    check "tests_$1" 170 python3 -m pytest -n "$2" -q -m 'not plain' -p no:cacheprovider --maxfail 200 \
    -o filterwarnings=default "${@:3}"
}
run_main() { # NAME BACKEND FLAGS...
  check "main_$1" 200 env KERAS_BACKEND="$2" python3 main.py "${where[@]}" --epochs 2 --image-size 256 \
    --cache "$out/cache_$1" --output "$out/run_$1" "${@:3}"
}

: > "$out/table.txt"
core=(tests/test_fast_model.py tests/test_kernels.py tests/test_losses.py tests/test_metrics.py tests/test_train.py
  tests/test_muon.py tests/test_segmentation_model.py)
more=(tests/test_architectures.py tests/test_cost.py tests/test_devices.py tests/test_recipe.py
  tests/test_evaluate.py tests/test_tiling.py)
{
  if asked agreement; then
    OMP_NUM_THREADS=4 exactly on torch check agreement_torch 150 python3 benchmarks/gpu.py agreement &
    OMP_NUM_THREADS=4 exactly on jax check agreement_jax 150 python3 benchmarks/gpu.py agreement &
  fi
  if asked tests; then
    test_on torch 8 "${core[@]}" "${more[@]}" &
    test_on jax 6 tests/test_kernels.py tests/test_losses.py tests/test_metrics.py tests/test_muon.py &
  fi
  wait
}
if asked runs; then
  run_main float32 torch &
  run_main bfloat16 torch --precision mixed_bfloat16 &
  run_main compiled torch --precision mixed_bfloat16 --compile &
  run_main jax jax --precision mixed_bfloat16 &
  wait
  check predict 60 env KERAS_BACKEND=torch python3 -m semseg predict "$out/run_bfloat16" \
    "$(find "${data/none/images}" -name '*.jpg' -o -name '*.png' | head -n 1)" --output "$out/predictions" &
  check evaluate 90 env KERAS_BACKEND=torch python3 -m semseg evaluate "$out/run_bfloat16" &
  check evaluate_jax_run 90 env KERAS_BACKEND=torch python3 -m semseg evaluate "$out/run_jax" &
  wait
fi
if asked memory; then on torch check memory 150 python3 benchmarks/gpu.py memory "${where[@]}"; fi
if asked step; then
  on torch check step_torch 120 python3 benchmarks/gpu.py step
  on jax check step_jax 100 python3 benchmarks/gpu.py step
fi
if asked feeding; then on torch check feeding 90 python3 benchmarks/gpu.py feeding "${where[@]}"; fi
if asked speed; then
  on torch check speed_bfloat16 240 python3 benchmarks/train_step.py --precision mixed_bfloat16 \
    --cases "${CASES:-16x256,16x512,32x512,64x256,64x512}"
  on torch check speed_float32 120 python3 benchmarks/train_step.py --cases "${CASES32:-32x256,64x512}"
fi
echo
cat "$out/table.txt"
