# SPDX-License-Identifier: Apache-2.0
# Runs benchmarks, and makes one table of what they found: each rate, the limit that it is a share of (measured
# in the same run), the share, and the share that was kept last time. KEPT (work/bench.json) is that file; it is
# written anew unless KEEP=no.
#     sh sim/test/bench.sh build/sim/quant/bench/bench_formats ...
set -u
: "${BUILD:=build}" "${KEPT:=work/bench.json}" "${KEEP:=yes}"
dir=$BUILD/bench
mkdir -p "$dir" "$(dirname "$KEPT")" || exit 1
found=$dir/figures.jsonl
: >"$found" || exit 1
export KVSIM_BENCH="$found"
machine=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)
machine="${machine:-$(uname -m)}, $(nproc) cores"
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
[ -z "$gpu" ] || machine="$machine, $gpu"
load=$(cut -d ' ' -f 1 /proc/loadavg 2>/dev/null)
for b in "$@"; do
    name=$(basename "$b")
    echo "$name, in full: $dir/$name.txt" >&2
    "$b" >"$dir/$name.txt" || { echo "bench: $name failed" >&2 && exit 1; }
done
if [ -n "$gpu" ] && [ -x "$BUILD/kvsim-cuda-limits" ]; then # `make cuda` has built it
    echo "kvsim-cuda-limits, in full: $dir/kvsim-cuda-limits.txt" >&2
    "$BUILD/kvsim-cuda-limits" "$BUILD/libkvsim-cublas.so" >"$dir/kvsim-cuda-limits.txt" || exit 1
fi
{
    printf '{"machine": "%s", "date": "%s", "commit": "%s", "load_before": %s, "figures": [\n' \
        "$machine" "$(date -u +%Y-%m-%d)" "$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)" "${load:-null}"
    sed '$!s/$/,/' "$found"
    echo ']}'
} >"$dir/bench.json"
[ -f "$KEPT" ] && before=$KEPT || before=/dev/null
awk '
    function text(key,   at) {
        if (!match($0, "\"" key "\": \"[^\"]*\"")) return ""
        at = length(key) + 5
        return substr($0, RSTART + at, RLENGTH - at - 1)
    }
    function number(key) {
        if (!match($0, "\"" key "\": [-+0-9.e]*")) return ""
        return substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 4)
    }
    /^\{"machine"/ && FILENAME == BEFORE { last = text("date") ", commit " text("commit") ", on " text("machine") }
    /^\{"machine"/ && FILENAME != BEFORE {
        print text("machine") ", commit " text("commit") "; load before: " number("load_before")
        print "last: " (last == "" ? "nothing is kept yet" : last)
        printf "%-52s %10s %-14s %10s of %-26s %7s %7s\n", "figure", "rate", "", "limit", "", "share", "last"
    }
    !/^\{"figure"/ { next }
    FILENAME == BEFORE { kept[text("figure")] = number("ratio"); next }
    {
        was = kept[text("figure")]
        printf "%-52s %10.5g %-14s %10.5g of %-26s %7.3g %7s\n", text("figure"), number("rate"), text("unit"),
            number("limit_rate"), text("limit"), number("ratio"), was == "" ? "-" : sprintf("%.3g", was)
    }' BEFORE="$before" "$before" "$dir/bench.json"
[ "$KEEP" = no ] || cp "$dir/bench.json" "$KEPT" || exit 1
echo "as JSON: $dir/bench.json$([ "$KEEP" = no ] || echo ", kept in $KEPT")"
