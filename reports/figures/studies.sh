# SPDX-License-Identifier: Apache-2.0
# Figures of the studies whose numbers stand in a table of their page, drawn from that table, so that page and figure
# cannot differ: studies.sh [FOLDER] writes NAME.tsv and NAME.svg (default: reports/figures), studies.sh --data FOLDER the
# data alone; and the fit of your-device.md from the runs that it is about (BUILD: build).
set -eu
BUILD=${BUILD:-build} here=reports/figures draw=1 to=reports/figures
[ "${1-}" != --data ] || { draw='' && shift; }
[ $# -eq 0 ] || to=$1
mkdir -p "$to"

# table PAGE HEAD: the cells of the table whose first line begins with HEAD, a line a row.
table() {
    awk -F '|' -v head="| $2" '
        index($0, head) == 1 { on = 1; getline; next }
        !/^\|/ { on = 0 }
        on { for (i = 2; i < NF; i++) { gsub(/^ +| +$|[*`]/, "", $i); printf "%s%s", $i, i < NF - 1 ? "\t" : "\n" } }' "reports/$1"
}
# draw NAME WIDTH HEIGHT
draw() {
    [ -z "$draw" ] || gnuplot -e "format = 'svg'; name = '$to/$1'; data = '$to/$1.tsv'; canvas_x = $2; canvas_y = $3" \
        reports/draw/style.gp "$here/$1.gp"
}

# A factor of two levels tells both: "x (a against b)", of "one, against other".
table attribution.md 'factor | level' | awk -F '\t' '
    BEGIN { print "place\tname\ttimes\tlow\thigh\tfactor" }
    function row(name, times, low, high) { printf "%g\t%s\t%s\t%s\t%s\t%d\n", place++, name, times, low, high, factors }
    $1 != "" { factor = $1; sub(/ \(.*/, "", factor) }
    $1 ~ /scorer/ { next }
    $1 != "" { factors++; if (factors > 1) place += 0.5 }
    $5 ~ /against/ {
        split($2, name, ", against "); split($5, part, /[( )]+/)
        row(factor ": " name[1], part[2], "", ""); row(factor ": " name[2], part[4], "", ""); next
    }
    { n = split($5, part, /[][, ]+/); row(factor ": " $2, part[1], part[2], part[3]) }' >"$to/attribution.tsv"
draw attribution 860 520

# What the recording assumes (open, prefill), and what the run itself does (closed, requant).
{
    echo "name	assumed	run"
    table assumptions.md 'threshold on' | awk -F '\t' '{ split($1, n, ","); print "widths by " n[1] ", 2 to 16 bits\t" $4 "\t" $5 }'
    table assumptions.md 'format, 32 items' | awk -F '\t' '{ sub(/^static:bits=/, "", $1); split($1, n, /[@:]/); print n[2] " at " n[1] " bits\t" $4 "\t" $5 }'
} >"$to/assumptions.tsv"
draw assumptions 860 330

table plans.md 'runtime | exported as' | awk -F '\t' '
    BEGIN { print "name\tbits\tnats\tagainst\tlow\thigh" }
    { split($6, part, /[][, ]+/); print $1 "\t" $3 "\t" $5 "\t" part[1] "\t" part[2] "\t" part[3] }' | sort -s -t '	' -k 3,3g >"$to/plans.tsv"
draw plans 860 340

# A bucket stands at the most that its positions see; "KL (low to high)" where there is an interval. Sinks lie on what has none.
head=$(grep -m 1 '^| policy | bits | 1 to 256' reports/long.md)
table long.md 'policy | bits | 1 to 256' | awk -F '\t' -v head="$head" '
    BEGIN { print "row\tcontext\tkl\tlow\thigh\tname"; split(head, bucket, / *\| */) }
    $1 ~ /sinks/ { next }
    { row++
      sub(/^static:/, "", $1); sub(/^cells:bits=5@.*/, "cells:bits=5", $1)
      if ($1 ~ /^bits=/) { bits = substr($1, 6, 1); $1 = substr($1, 8) ", " bits " bit" }
      for (i = 3; i <= 8; i++) {
          most = bucket[i + 1]; sub(/.* /, "", most); gsub(/,/, "", most)
          split($i, part, /[ ()]+/); print row "\t" most "\t" part[1] "\t" part[2] "\t" part[4] "\t" $1 } }' >"$to/long.tsv"
draw long 860 440

# Panel, place from above, short name, and each family's "KL ± half its interval" (half alone where it has none).
table families.md 'scheme | SmolLM2' | awk -F '\t' '
    { for (m = 1; m <= 3; m++) { split($(3 * m), part, / ± /); kl[$1, m] = part[1]; half[$1, m] = part[2] } }
    function panel(which, list,   i, m, row, pair, n) {
        n = split(list, row, ";")
        for (i = 1; i <= n; i++) {
            split(row[i], pair, "=>")
            printf "%d\t%d\t%s", which, i, pair[1]
            for (m = 1; m <= 3; m++) {
                x = kl[pair[2], m]; d = half[pair[2], m]
                if (x == "") printf "\t\t\t"; else printf "\t%g\t%g\t%g", x, x - d, x + d
            }
            print ""
        }
    }
    END {
        print "panel\tplace\tname\tkl1\tlow1\thigh1\tkl2\tlow2\thigh2\tkl3\tlow3\thigh3"
        mean = "keys less their mean=>static:bits=W@center(asym:group=32);the same, before RoPE=>static:bits=W@center(asym:group=32):side=pre"
        same = "one scale a head=>static:bits=W@sym;that, rotated=>static:bits=W@hadamard(sym);" \
            "qW_0, half-split=>static:bits=W@qW_0:order=hf;groups of 32=>static:bits=W@asym:group=32;" mean
        four = same; gsub(/W/, 4, four); eight = same; gsub(/W/, 8, eight)
        panel(1, four ";plan by layer and head=>plan by layer, head, K and V, 5 bits;learned cells=>learned cells, 5 bits")
        panel(2, eight ";fp8 e4m3=>static:bits=8@fp8_e4m3")
    }' >"$to/families.tsv"
draw families 960 440

# Devices that are shipped, on their own runs.
[ -z "$draw" ] || for device in epyc-avx2-2core-q4 h100-135m h100-1.7b; do
    "$BUILD/kvsim" calibrate -q --runs sim/cost/devices/$device.json --device $device --figures work/devices >/dev/null
    cp work/devices/${device}_lines.svg "$to/latency_$device.svg"
done
[ -z "$draw" ] || {
    "$BUILD/kvsim" calibrate -q --runs reports/your-device/llama-bench.md --device your-device --figures work/your-device >/dev/null
    cp work/your-device/your-device_lines.svg "$to/your-device.svg"
}
