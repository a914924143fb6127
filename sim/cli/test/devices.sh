# SPDX-License-Identifier: Apache-2.0
# Device commands from the command line: exact figures on a device of round numbers, and refusals.
# Runs alone: it measures decode steps.
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
check "what no port is wide enough for is marked and said" "3 0 4 0 16 1 widths above a device's widest port (of the mixes, or of --against 16) are priced as if it could address them: extrapolated" \
    "$("$kvsim" what-if 3 4 16 --ports 4 -c 500 --device "$dir/round.json" --tsv 2>"$dir/err" | sed 1d | cut -f3,12 | tr '\t\n' '  ' ; tail -1 "$dir/err")"
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

# Widths by cell, with their controller in the step: a device of its own, which prices such a cache without a mark.
"$kvsim" bench device --weights q4 --threads 1 --contexts 2,34,90 --mixes 16,4,8,cells:4=0.5/8=0.5,cells:2/4/8 \
    --rounds 1 --steps 3 -q --format asym:group=32 -o "$dir/cells.json" >/dev/null &&
    "$kvsim" calibrate --runs "$dir/cells.csv" --device cells --out "$dir/cells-device.json" -q >/dev/null
check "a device that holds widths by cell tells their cost and the controller's" "3" \
    "$(grep -cE '^  "(mixed_ns|cell_class_ns|controller_ns)": [0-9]' "$dir/cells-device.json")"
check "and prices them without a mark, where others mark them" "0 1" \
    "$("$kvsim" what-if cells:4=0.5/8=0.5 -c 80 --device "$dir/cells-device.json,epyc-2core-q4" --tsv -q | sed 1d | cut -f12 | xargs)"

# Sixteen mixes at thirteen contexts on a GPU, whose rounds make a fit slow: some ten seconds in all.
timeout -s KILL 8 "$kvsim" calibrate --runs sim/cost/devices/h100-135m.json >/dev/null 2>"$dir/err"
check "issue 13 point 6: fits are counted, with time left" "yes" \
    "$(grep -q '^fitting [0-9]*/75  [0-9.]* \(fits/s\|s/fit\)  0:[0-9]* left$' "$dir/err" && echo yes)"

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

# llama-bench rows: three depths of two cache types on each of two machines, with and without flash attention.
bench_rows() {
    for gpu in 'GPU A' 'GPU B, GPU C'; do for fa in 0 1; do for depth in 64 512 2048; do for type in f16 q4_0 iq4_nl; do
        echo "$gpu|$fa|$depth|$type" | awk -F'|' -v params="$1" '{
            per = $4 == "f16" ? 400 : $4 == "q4_0" ? 100 : 300
            ns = (1e6 + ($3 + 8) * per * ($1 == "GPU A" ? 1 : 2) + ($2 ? 0 : 5e5)) * 15
            printf "{\"gpu_info\": \"%s\", \"flash_attn\": %d, \"n_depth\": %d, \"type_k\": \"%s\", \"type_v\": \"%s\", \"model_type\": \"llama 256M Q4_K - Medium\", \"model_n_params\": %s, \"n_threads\": 4, \"n_prompt\": 0, \"n_gen\": 15, \"avg_ns\": %.0f, \"avg_ts\": 1, \"stddev_ts\": 0.01}\n", $1, $2, $3, $4, $4, params, ns }'
    done; done; done; done
}
bench_rows 134515008 >"$dir/bench.jsonl"
bench_rows 8030261248 | sed 's/256M/8B/' >"$dir/big.jsonl"
refused "issue 13 A2: runs of several ways are no device" 1 \
    "kvsim: calibrate: the runs were made in several ways: gpu_info is 'GPU A' (18 runs) or 'GPU B, GPU C' (18 runs); flash_attn is '0' (18 runs) or '1' (18 runs); choose one, as with --where 'gpu_info=GPU A'" \
    calibrate --runs "$dir/bench.jsonl"
check "issue 13 A2: --where chooses, repeated or after a comma, values with commas too" "1.5 1.0" \
    "$(for w in 'gpu_info=GPU B, GPU C,flash_attn=0' 'flash_attn=true'; do "$kvsim" calibrate --runs "$dir/bench.jsonl" --where "$w" --where 'gpu_info=GPU B, GPU C' -q --tsv | awk '$1 == "base_ns" { printf "%.1f ", $2 / 1e6 }'; done | sed 's/ $//')"
check "a device of runs without a machine's name has no stray comma in its summary" "135m, Q4_1 weights, 4 threads" \
    "$("$kvsim" calibrate --runs reports/your-device/llama-bench.md --device own --out "$dir/named.json" -q >/dev/null; sed -n 's/.*"summary": "\([^"]*\)".*/\1/p' "$dir/named.json")"
refused "issue 13 A2: a condition that no run meets" 1 \
    "kvsim: calibrate: --where: flash_attn is never '2'; it is '0' (18 runs) or '1' (18 runs)" \
    calibrate --runs "$dir/bench.jsonl" --where flash_attn=2
refused "issue 13 A2: a condition that is none" 2 "kvsim: calibrate: --where fa: expected field=value" \
    calibrate --runs "$dir/bench.jsonl" --where fa
"$kvsim" calibrate --runs "$dir/bench.jsonl" --where 'gpu_info=GPU A,flash_attn=1' --device typed -o "$dir/typed.json" -q >/dev/null
check "issue 13 A3: Q4_K - Medium is Q4_K_M" "Q4_K_M" "$("$kvsim" devices --device "$dir/typed.json" --tsv | sed 1d | cut -f2)"
check "issue 13 A4: types of one width have their own prices, a width alone is marked" "16 0 own
q4_0 0 own
iq4_nl 0 own
4 1 width
1.40 1.10 1.30 1.30" \
    "$("$kvsim" what-if 16 q4_0 iq4_nl 4 -c 1000 -q --device "$dir/typed.json" --tsv | sed 1d | awk -F'\t' '{ print $3, $12, $13; ms = ms sprintf("%.2f ", $4) } END { sub(/ $/, "", ms); print ms }')"
check "issue 13 A5: rows of another model are marked and named" "1 llama 8B Q4_K - Medium" \
    "$("$kvsim" what-if --runs "$dir/big.jsonl" -q --device "$dir/typed.json" --tsv | sed 1d | cut -f7,10 | tr '\t' ' ' | sort -u)"
check "issue 13 A5: and those of the device's own are not, but those of another machine" "0 135m
1 135m" \
    "$("$kvsim" what-if --runs "$dir/bench.jsonl" -q --device "$dir/typed.json" --tsv | sed 1d | cut -f7,10 | tr '\t' ' ' | sort -u)"
check "issue 13 A5: --where chooses the machine's own, flags that are not compared are said" "18 0
note: the runs were made in several ways: flash_attn is '0' (9 runs) or '1' (9 runs); choose one, as with --where 'flash_attn=0'
note: flags and builds of the runs are not compared with the device's, whose file does not hold them" \
    "$("$kvsim" what-if --runs "$dir/bench.jsonl" --where 'gpu_info=GPU A' --device "$dir/typed.json" --tsv 2>"$dir/err" | sed 1d | cut -f7 | uniq -c | awk '{ print $1, $2 }'; cat "$dir/err")"
refused "--where without runs" 2 "kvsim: what-if: --where chooses among --runs FILE" what-if 4 --where fa=1
refused "issue 13 A5: --shape does not rename another model" 1 \
    "kvsim: calibrate: run 1 is of llama 8B Q4_K - Medium, 8.03e+09 parameters; --shape 135m has 1.345e+08" \
    calibrate --runs "$dir/big.jsonl" --shape 135m
printf '%s\n' 'found 1 CUDA devices' '| model | params | backend | type_k | type_v | test | t/s |' '| --- | --: | --- | --: | --: | --: | --: |' \
    '| llama 256M Q4_K - Medium | 134.52 M | CUDA | q4_0 | q4_0 | tg16 @ d512 | 500.00 ± 1.00 |' >"$dir/table.md"
check "issue 13 D3: llama-bench's Markdown is read" "q4_0 520 2.0000" \
    "$("$kvsim" what-if --runs "$dir/table.md" -q --device "$dir/typed.json" --tsv | sed 1d | cut -f2-4 | tr '\t' ' ')"

refused "a device that is not there" 2 \
    "kvsim: device: no device file or shipped device is named 'nowhere'; shipped: $("$kvsim" devices --tsv | sed 1d | cut -f1 | paste -sd, | sed 's/,/, /g')" \
    devices --device nowhere
refused "bench measures devices only" 2 "kvsim: bench: 'lunch' cannot be measured; 'device' can" bench lunch
refused "an unknown shape" 2 "kvsim: bench: --shape: '9b' is none of 135m, 360m, 1.7b, qwen2.5-0.5b, qwen2.5-1.5b, gemma-3-270m" bench device --shape 9b
refused "an unknown kind of weights" 2 "kvsim: bench: --weights: 'q3' is none of f32, bf16, q8, q4" bench device --weights q3
refused "contexts that descend" 2 "kvsim: bench: --contexts must ascend" bench device --contexts 64,32
refused "a mix that is none" 2 \
    "kvsim: mix: 'x9' is no mix of widths; expected like 8, k8v4, q4_0 or k4v2=0.5/8=0.5" bench device --mixes x9
refused "a width by cell that bit planes do not hold" 2 \
    "kvsim: bench: a mix by cell takes 2, 3, 4, 5, 6, 8 and 16 bits, each once; 7 is none of them" \
    bench device --contexts 2,4 --mixes cells:4=0.5/7=0.5 --weights q4 --threads 1
refused "a mix by cell of keys and values apart" 2 \
    "kvsim: mix: 'cells:k4v8': a mix by cell takes widths alone, like cells:2=0.5/8=0.5" what-if cells:k4v8
refused "calibrate needs runs" 2 "kvsim: calibrate: --runs FILE is needed: measured runs to fit" calibrate
refused "runs without a shape" 1 \
    "kvsim: calibrate: the runs do not tell the model's shape; name it with --shape" calibrate --runs "$dir/runs.csv"
refused "a policy that plans whole items has no cost a step" 1 \
    "kvsim: bench: --policy: 'oracle:bits=4@sym' does not decide from a token's features, so its cost in a decode step cannot be timed" \
    bench device --contexts 2,4 --mixes 4 --rounds 1 --steps 1 --threads 1 --weights q4 --policy oracle:bits=4@sym -q
refused "what-if needs something to price" 2 \
    "kvsim: what-if: name mixes such as 8 or k8v4, or specs of a store with --db" what-if
echo "1..$n"
