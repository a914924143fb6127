# SPDX-License-Identifier: Apache-2.0
# The main job on real input: record the samples, train a controller on another text, sweep formats and policies, print the
# table, draw the figures and the page.
# Usage: demo.sh FOLDER, with BUILD and MODEL in the environment. What an earlier run finished is not done again.
set -eu
dir=$1 kvsim=$BUILD/kvsim
mkdir -p "$dir"
record() { # record NAME ARGUMENTS...
    name=$1
    shift
    "$kvsim" record -m "$MODEL" -t samples --keep final,kv,sens --draws 2 "$@" -o "$dir/$name.trace"
}
# Eight items tell how fast the machine is: one that would take over four minutes for all takes every second, third, ...
[ -f "$dir/samples.trace/manifest.json" ] || {
    began=$(date +%s)
    rm -rf "$dir/first.trace"
    record first -q -n 8
    stride=$((($(date +%s) - began - 1) / 3 + 1))
    [ $stride -le 9 ] || stride=9
    [ $stride -eq 1 ] || echo "demo: a slow machine: one sample of $stride"
    record samples --stride $stride
    rm -rf "$dir/first.trace"
}
[ -f "$dir/controller.safetensors" ] || {
    "$kvsim" record -q -m "$MODEL" -t text:traces/samples/text.txt,window=256 --keep none -o "$dir/text.trace"
    "$kvsim" train mlp "$dir/text.trace" --gamma 0 -o "$dir/controller.safetensors" >"$dir/training.txt"
}
"$kvsim" sweep "$dir/samples.trace" reports/demo.sweep "mlp:weights=$dir/controller.safetensors@sym" -m "$MODEL" --db "$dir/demo.db"
"$kvsim" show --db "$dir/demo.db" --context 128,2048
"$kvsim" report --db "$dir/demo.db" --context 128,512,2048 -m "$MODEL" -o "$dir/report"
