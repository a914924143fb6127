# SPDX-License-Identifier: Apache-2.0
# The main job on real input: record the samples, sweep formats and policies, print the table, draw the figures.
# Usage: demo.sh FOLDER, with BUILD and MODEL in the environment. What an earlier run finished is not done again.
set -eu
dir=$1 kvsim=$BUILD/kvsim
mkdir -p "$dir"
[ -f "$dir/samples.trace/manifest.json" ] ||
    "$kvsim" record -m "$MODEL" -t samples --keep final,kv -o "$dir/samples.trace"
"$kvsim" sweep "$dir/samples.trace" reports/demo.sweep -m "$MODEL" --db "$dir/demo.db"
"$kvsim" show --db "$dir/demo.db" --context 128,2048
"$kvsim" report --db "$dir/demo.db" --context 128,512,2048 -o "$dir/report"
