# SPDX-License-Identifier: Apache-2.0
# Device commands from the command line: exact figures on a device of round numbers, and refusals.
set -u
kvsim=${BUILD:-build}/kvsim
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
n=0
# check NAME EXPECTED ACTUAL
check() {
    n=$((n + 1))
    if [ "$2" = "$3" ]; then echo "ok $n - $1"; else
        echo "not ok $n - $1"
        printf 'expected: %s\ngot:      %s\n' "$2" "$3"
    fi
}
# refused NAME CODE MESSAGE ARGS...: exit code and the whole of stderr
refused() {
    name=$1 code=$2 message=$3
    shift 3
    said=$("$kvsim" "$@" 2>&1 >/dev/null)
    check "$name" "$code $message" "$? $said"
}

# 2 layers x 3 heads x 10 values; 1 ms a step; 4 bit costs half of 16 bit.
cat >"$dir/round.json" <<'J'
{"name": "round", "base_ns": 1e6, "append_ns": 0, "attend_ns": 0, "weights": "f32", "threads": 1,
 "shape": {"layers": 2, "heads": 9, "kv_heads": 3, "head_dim": 10},
 "key_ns": {"4": 5, "16": 10}, "value_ns": {"4": 5, "16": 10}, "context_tokens": [10, 1000]}
J
sed 's/"round"/"flat"/; s/"4": 5/"4": 20/g' "$dir/round.json" >"$dir/flat.json"
printf 'context,mix,step_ms,weights,threads\n100,16,1.1,f32,1\n2000,k4v16,3,f32,1\n' >"$dir/runs.csv"

# 100 tokens x 120 values x 10 ns = 0.12 ms; 2000 x 60 x (5 + 10) = 1.8 ms, outside the range
check "what-if predicts measured runs" "mix context measured_ms predicted_ms error_pct extrapolated
16 100 1.1000 1.1200 1.82 0
k4v16 2000 3.0000 2.8000 -6.67 1" \
    "$("$kvsim" what-if --runs "$dir/runs.csv" --device "$dir/round.json" --tsv | cut -f2-7 | tr '\t' ' ')"
check "what-if prices mixes beside the ceiling" "context spec ms_per_token saved16_pct ceiling_pct break_even
500 16 1.6000 0.00 37.50 
500 4 1.3000 18.75 37.50 0
500 4=0.5/16=0.5 1.4500 9.38 37.50 0" \
    "$("$kvsim" what-if 16 4 4=0.5/16=0.5 --context 500 --device "$dir/round.json" --tsv | cut -f2-4,7-9 | tr '\t' ' ')"
# 4 bits save 600 ns a token: 60 us of policy pay from 100 tokens on
check "a policy's own cost moves the break-even context" "4 101" \
    "$("$kvsim" what-if 4 --policy-us 60 --context 500 --device "$dir/round.json" --tsv | sed 1d | cut -f3,9 | tr '\t' ' ')"
check "ranks that change between devices are shown" "round 4 1 1
round 16 2 2
flat 4 2 1
flat 16 1 2" \
    "$("$kvsim" what-if 4 16 -q --context 500 --device "$dir/round.json,$dir/flat.json" --tsv | sed 1d | cut -f1,3,10,11 | tr '\t' ' ')"
check "ports round widths up" "4 1.6000" \
    "$("$kvsim" what-if 4 --ports 16 --context 500 --device "$dir/round.json" --tsv | sed 1d | cut -f3,4 | tr '\t' ' ')"
check "devices lists range and error" "round f32 1 10 1000" \
    "$("$kvsim" devices --device "$dir/round.json" --tsv | sed 1d | cut -f1-3,6,7 | tr '\t' ' ')"
check "shipped devices carry runs and a date" "" \
    "$("$kvsim" devices --tsv | awk -F'\t' 'NR > 1 && ($12 < 1 || $14 == "")')"

"$kvsim" bench device --weights bf16 --threads 1 --contexts 2,66,130 --mixes 16,4 --rounds 1 --steps 1 -q \
    -o "$dir/own.json" >/dev/null
check "bench device writes JSON and CSV that calibrate reads" "0 0" \
    "$("$kvsim" calibrate --runs "$dir/own.json" --device own --out "$dir/own-device.json" -q >/dev/null; echo $?) $("$kvsim" calibrate --runs "$dir/own.csv" -q >/dev/null; echo $?)"
check "what it makes is a device" "own bf16 1 2 130 6" \
    "$("$kvsim" devices --device "$dir/own-device.json" --tsv | sed 1d | cut -f1-3,6,7,12 | tr '\t' ' ')"

# A policy of a millisecond a token, measured with the steps, is no part of the device.
awk -F, -v OFS=, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
    NR > 1 { $at["step_ns"] += 1e6; $at["low_ns"] += 1e6; $at["high_ns"] += 1e6; $at["policy_ns"] = 1e6 } { print }' \
    "$dir/own.csv" >"$dir/with.csv"
check "a policy measured with the steps is left out of the device" \
    "$("$kvsim" calibrate --runs "$dir/own.csv" -q --tsv | awk '$1 == "base_ns" { printf "%.0f", $2 / 1e5 }')" \
    "$("$kvsim" calibrate --runs "$dir/with.csv" -q --tsv | awk '$1 == "base_ns" { printf "%.0f", $2 / 1e5 }')"

codes=
for again in 1 2; do
    "$kvsim" calibrate --runs "$dir/own.csv" --device own --db "$dir/s.db" -q >/dev/null
    codes="$codes $?"
done
check "a store takes the device and its runs, and takes them again" " 0 0" "$codes"

refused "a device that is not there" 2 \
    "kvsim: device: no device file or shipped device is named 'nowhere'; shipped: $("$kvsim" devices --tsv | sed 1d | cut -f1 | paste -sd, | sed 's/,/, /g')" \
    devices --device nowhere
refused "bench measures devices only" 2 "kvsim: bench: 'lunch' cannot be measured; 'device' can" bench lunch
refused "an unknown shape" 2 "kvsim: bench: --shape: '9b' is none of 135m, 360m, 1.7b" bench device --shape 9b
refused "an unknown kind of weights" 2 "kvsim: bench: --weights: 'q3' is none of f32, bf16, q8, q4" bench device --weights q3
refused "contexts that descend" 2 "kvsim: bench: --contexts must ascend" bench device --contexts 64,32
refused "a mix that is none" 2 \
    "kvsim: mix: 'x9' is no mix of widths; expected like 8, k8v4 or k4v2=0.5/8=0.5" bench device --mixes x9
refused "calibrate needs runs" 2 "kvsim: calibrate: --runs FILE is needed: measured runs to fit" calibrate
refused "runs without a shape" 1 \
    "kvsim: calibrate: the runs do not tell the model's shape; name it with --shape" calibrate --runs "$dir/runs.csv"
refused "a policy that plans whole items has no cost a step" 1 \
    "kvsim: bench: --policy: 'oracle:bits=4@sym' does not decide from a token's features, so its cost in a decode step cannot be timed" \
    bench device --contexts 2,4 --mixes 4 --rounds 1 --steps 1 --threads 1 --weights q4 --policy oracle:bits=4@sym -q
refused "what-if needs something to price" 2 \
    "kvsim: what-if: name mixes such as 8 or k8v4, or specs of a store with --db" what-if
echo "1..$n"
