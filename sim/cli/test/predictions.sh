# SPDX-License-Identifier: Apache-2.0
# tune, atlas, fidelity and additivity on two samples: plans against all plans, sums, refusals, and
# predictions where no model is to be found.
set -u
kvsim=$(cd "$(dirname "${BUILD:-build}/kvsim")" && pwd)/kvsim
model=${MODEL:-data/SmolLM2-135M-Instruct.Q4_1.gguf}
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
# refused NAME CODE MESSAGE ARGS...: exit code and a part of stderr
refused() {
    name=$1 code=$2 message=$3
    shift 3
    said=$("$kvsim" "$@" 2>&1 >/dev/null)
    found="$? $(printf '%s' "$said" | grep -o -F -- "$message")"
    check "$name" "$code $message" "$found"
}
if [ ! -e "$model" ]; then
    echo "ok 1 - predictions # SKIP no model at $model"
    exit 0
fi
case $model in /*) ;; *) model=$PWD/$model ;; esac
t=$dir/t.trace
"$kvsim" record -m "$model" -t samples -n 2 --keep final,kv,q,sens,grad --draws 2 -o "$t" -q || exit 1
"$kvsim" record -m "$model" -t samples -n 2 --keep final,kv,q,sens,grad --draws 2 --tape 1 -o "$dir/thrifty.trace" -q || exit 1
check "a tape of 1 MB records the same bytes" "same" \
    "$(for f in "$t"/*.safetensors; do cmp -s "$f" "$dir/thrifty.trace/${f##*/}" || echo "${f##*/} differs"; done; echo same)"

# Without a model in reach: another folder, no $KVSIM_MODEL.
apart() { (cd "$dir" && env -u KVSIM_MODEL "$kvsim" "$@"); }
check "fisher replay needs no model" "fisher
fisher" "$(apart replay t.trace 'static:bits={3,4}@sym' --fidelity fisher -q --tsv | tail -n +2 | cut -f2)"
check "attention rows need none either, and say more error of fewer bits" "more" \
    "$(apart replay t.trace 'static:bits={3,5}@sym' --fidelity attention -q --tsv | awk -F'\t' 'NR > 1 { v[NR] = $15 } END { print (v[2] > 2 * v[3] && v[3] > 0) ? "more" : "no" }')"
refused "attention rows in a store" 2 "are not stored" sweep "$t" static:bits=4@sym --fidelity attention --db "$dir/a.db"
check "exact replay does" "2" "$(apart replay t.trace static:bits=4@sym -q >/dev/null 2>&1; echo $?)"

plans=$(for k in 2 3 4 5 6; do for v in 2 3 4 5 6; do echo "static:k=$k,v=$v@asym:group=32"; done; done)
best=$(apart tune t.trace --no-exact -q --tsv --budget bits=5 $plans |
    awk -F'\t' '$4 <= 5.0001 && $1 != "spec" { print $5, $1 }' | sort -g | head -1 | cut -d' ' -f2)
check "a plan is the best of all plans within its budget" "$best" \
    "$(apart tune t.trace --no-exact -q --tsv --budget bits=5 --widths 2,3,4,5,6 static@asym:group=32 | tail -1 | cut -f1)"
check "finer families are predicted no worse, and proven" "yes yes" \
    "$(apart tune t.trace --no-exact -q --tsv --budget bits=4 static@asym:group=32 layerwise@asym:group=32 layerwise:by=head@asym:group=32 |
        awk -F'\t' '$1 ~ /^static/ { s = $5 } $1 ~ /by=head/ { h = $5 } $1 ~ /^layerwise:k/ { l = $5 } $1 != "spec" { bad += $11 != "0.000" || $4 > 4.0001 }
            END { print (h <= l && l <= s ? "yes" : "no"), (bad ? "no" : "yes") }')"
check "a searched cut stays within its budget" "yes" \
    "$(apart tune t.trace --no-exact -q --tsv --budget bits=4.5 --tries 60 'threshold:feature=entropy,quantiles=0..1,bits=3/5@asym:group=32' | tail -1 | cut -f12)"
check "kvtuner's plan is a layerwise spec within its budget, and the policy's own" "yes same" \
    "$(apart tune t.trace --no-exact -q --tsv --budget bits=4 --train 0-0 --items 1-1 kvtuner@asym:group=32 kvtuner:bits=4,items=1@asym:group=32 |
        awk -F'\t' '$1 ~ /^layerwise:k=/ { a = $5; ok = $12 } $1 ~ /^kvtuner/ { b = $5 } END { print ok, (a == b ? "same" : "other") }')"
check "shares of damage add up to the whole by each axis but rare words" "100 100 100 " \
    "$(for by in head position segment; do apart atlas t.trace --by $by --tsv | awk -F'\t' 'NR > 1 { s += $8 } END { printf "%.0f ", s }'; done)"

"$kvsim" tune "$t" -m "$model" -q --tsv --budget bits=4.25 --method greedy-exact --evaluations 7 --verify 1 \
    layerwise@sym >"$dir/g.tsv"
check "greedy-exact stands beside the additive plan, verified no worse, within budget and evaluations" "2 yes yes yes" \
    "$(awk -F'\t' '$2 ~ /^knapsack/ { a = $13; tried = $3 } $2 ~ /^greedy-exact/ { g = $13; n = $3 } NR > 1 { rows++; bad += $4 > 4.2501 }
        END { print rows, (g != "" && g <= a ? "yes" : "no"), (bad ? "no" : "yes"), (n > 1 && n <= 7 ? "yes" : "no") }' "$dir/g.tsv")"
timeout -s KILL 8 "$kvsim" tune "$t" --no-exact --budget bits=4.5 --tries 1000000 --method random \
    'threshold:feature=entropy,quantiles=0..1,bits=3/5@asym:group=32' >/dev/null 2>"$dir/err"
check "issue 13 point 6: tries are counted, with time left" "yes" \
    "$(grep -q '^searching [0-9]*/1000000  [0-9.]* \(specs/s\|s/spec\)  [0-9:]* left$' "$dir/err" && echo yes)"
refused "greedy-exact without exact replay" 2 "which --no-exact forbids" tune "$t" --no-exact --method greedy-exact layerwise@sym
refused "rounds in prediction" 1 "use --fidelity exact" replay "$t" --fidelity fisher 'oracle:bits=4.25,rounds=2@sym'

"$kvsim" headroom "$t" -m "$model" --bits 4 --train 0-0 --db "$dir/h.db" -q --tsv >"$dir/h.tsv"
check "headroom spends no more bits than uniform storage, on the items not chosen on" "11 yes" \
    "$(awk -F'\t' 'NR > 1 { n++; bad += $3 != 1 || $4 > 5.0001 || !($5 > 0) } END { print n, (bad ? "no" : "yes") }' "$dir/h.tsv")"
check "and its oracles are predicted no worse than uniform, their nulls worse than they" "yes" \
    "$(awk -F'\t' 'NR > 1 { k[$2] = $8 } END { print (k["token"] <= k["uniform"] && k["cell"] <= k["token, K and V"] && k["cell, shuffled"] > k["cell"]) ? "yes" : "no" }' "$dir/h.tsv")"
refused "headroom judged where it was chosen" 2 "overlap items" headroom "$t" --bits 4 --train 0-1 --items 1-1
refused "a budget below the cheapest plan" 1 "is below the cheapest plan" tune "$t" --no-exact --budget bits=1 static@sym
refused "a budget in ms without a device" 2 "ms=X@DEVICE" tune "$t" --no-exact --budget ms=3 static@sym
refused "kvtuner within a budget of bytes" 2 "kvtuner takes a budget of bits" tune "$t" --no-exact --budget bytes=6000 kvtuner@sym
refused "an unknown method" 2 "grid, random, simplex, anneal or greedy-exact is expected" tune "$t" --no-exact --method hope 'threshold:quantiles=0..1,bits=2/4@sym'
refused "a robust mean of too few items" 2 "robust needs 16 train items, and there are 1" tune "$t" --no-exact --mean robust static@sym
refused "an unknown axis" 2 "head, position, class, distance" atlas "$t" --by colour

"$kvsim" sweep "$t" -m "$model" --db "$dir/s.db" -q 'static:bits={3,4,5,8}@asym:group=32' 'static:k=5,v=3@asym:group=32' || exit 1
"$kvsim" fidelity "$t" --db "$dir/s.db" -q --tsv >"$dir/f.tsv"
check "fidelity puts exact rows in order of divergence" "5 yes" \
    "$(awk -F'\t' 'NR > 1 { bad += $5 < last; last = $5 } END { print NR - 1, (bad ? "no" : "yes") }' "$dir/f.tsv")"
# In the light run, whose builds draw other rounding, 8 bits' exact figure of two items decides nothing.
check "forms foretell fine widths within a third" "yes" \
    "$(awk -F'\t' -v fine="bits=$([ -n "${KVSIM_TEST_LIGHT:-}" ] && echo 5 || echo "[58]")" '$NF ~ fine { n++; for (i = 8; i <= 9; i++) bad += $i < 0.67 * $5 || $i > 1.5 * $5 } END { print (bad || !n ? "no" : "yes") }' "$dir/f.tsv")"
"$kvsim" fidelity "$t" --db "$dir/s.db" -q --tsv -t predicted static:k=8,v=2@asym:group=32 >"$dir/p.tsv"
check "a policy that was not run is calibrated between those that were" "static:k=8,v=2@asym:group=32 yes" \
    "$(awk -F'\t' 'NR == FNR { if (FNR > 1) { if (FNR == 2 || $5 < low) low = $5; if ($5 > high) high = $5 } next }
        FNR > 1 && $3 == "6.000" { print $NF, (low <= $5 && $5 <= high ? "yes" : "no") }' "$dir/f.tsv" "$dir/p.tsv")"
check "five policies give it no band" "none" \
    "$(awk -F'\t' 'NR > 1 { print ($6 == "" && $7 == "" ? "none" : $6 " to " $7) }' "$dir/p.tsv")"
"$kvsim" sweep "$t" --fidelity fisher --db "$dir/none.db" -q static:bits=4@sym || exit 1
refused "fidelity without exact rows" 1 "kvsim sweep" fidelity "$t" --db "$dir/none.db"
refused "a form the trace does not keep" 2 "iso, element, vector, total, channel or mended" fidelity "$t" --db "$dir/s.db" --form guess
check "equal parts flipped alone are their own sum" "1.000 1.000" \
    "$("$kvsim" additivity "$t" -m "$model" --items 0-0 --bits 4 --units position --sets 1 -q --tsv |
        awk -F'\t' '$3 == 1 { print $8, $9 }')"
echo "1..$n"
