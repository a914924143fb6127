# SPDX-License-Identifier: Apache-2.0
# Prints the bit diagrams of all formats (make commands): layouts.sh KVSIM
cat <<'TEXT'
# Where the bits of a unit lie

Made by `make commands` from what the formats say themselves (`kvsim describe FORMAT --fields` has all numbers, as has
`fields.tsv` of `kvsim dump`). Heads of 64 values, each format as it is without keys; width 16 is 64 fp16 numbers in all of them.

A byte is drawn from its bit 7 to its bit 0; numbers have their lowest bit first, so a number that crosses bytes goes on at
bit 0 of the next. `0` to `9` and `A` to `V` stand for the code of value 0 to 31, small letters for metadata: `s` scale, `m`
minimum or mean, `z` zero or zero point, `n` norm, `t` step, `p` place of an outlier, `o` outlier. Under a diagram: all numbers of
the unit, each run with its first bit. Values are counted as a head has them, in the format's order of channels; of `kivi`'s keys,
a unit of 32 tokens, value 64 t + c is channel c of token t. `zipcache` lays out whole tensors: drawn is one of 128 tokens of
three heads, value 192 t + 64 h + c (`kvsim dump` writes the map of each). `hadamard` and `rotatekv` code rotated values.
TEXT
for format in $("$1" list formats --tsv | awk -F'\t' 'NR > 1 { print $1 }'); do
    "$1" describe "$format" --fields --tsv 2>/dev/null | awk -F'\t' -v format="$format" '
function letter(what) {
    return what == "zero" || what == "zero point" ? "z" : what == "step" ? "t" : substr(what, 1, 1)
}
function whose(n, value, next_one, covers, apart) {
    if (covers == 0) return ""
    if (covers == 1) return ", of value " value (n > 1 ? ", " value + next_one ", " value + 2 * next_one ", ..." : "")
    if (apart > 1) return ", of value " value ", " value + next_one ", ..., each with " covers - 1 " more that lie " apart " apart"
    if (n > 1) return ", of " covers " values each, from value " value " on"
    return ", of values " value " to " value + covers - 1
}
function flush_width(    b, i, line, more) {
    if (!bytes) return
    printf "\n%s, %s bits: %d bytes\n\n", side == "both" ? "K and V" : side, width, bytes
    for (b = 0; b < bytes && b < 12; b++) {
        line = ""
        for (i = 7; i >= 0; i--) line = line ((8 * b + i) in owner ? owner[8 * b + i] : ".")
        printf "%s%s", b % 6 ? " " : "    ", line
        more = b == 11 && (bytes > 12) ? " ..." : ""
        if (b % 6 == 5 || b == bytes - 1) print more
    }
    printf "\n%s", text
    delete owner
    text = ""
    bytes = 0
}
NR == 1 { next }
$2 == 16 && format != "bf16" && format != "fp16" { next }
{ key = $1 FS $2; rest = $0; sub(/^[^\t]*\t/, "", rest); all[key] = all[key] rest "\n"; if (!(key in seen)) { order[++n] = key; seen[key] = 1 } }
END {
    if (!n) exit
    printf "\n## %s\n", format
    for (k = 1; k <= n; k++) {
        split(order[k], of, FS)
        other = (of[1] == "K" ? "V" : "K") FS of[2]
        if (of[1] == "V" && all[other] == all[order[k]]) continue
        side = all[other] == all[order[k]] ? "both" : of[1]
        width = of[2]
        lines = split(all[order[k]], line, "\n") - 1
        for (l = 1; l <= lines; l++) {
            split(line[l], f, FS) # width unit_bytes what type bits n at step value next covers apart
            bytes = f[2]
            for (i = 0; i < f[6]; i++)
                for (b = 0; b < f[5]; b++) {
                    at = f[7] + i * f[8] + b
                    if (at < 96) owner[at] = f[3] ~ /^code/ ? substr("0123456789ABCDEFGHIJKLMNOPQRSTUV", 1 + (f[9] + i * f[10]) % 32, 1) : letter(f[3])
                }
            if (l <= 6)
                text = text sprintf("- bit %d%s: %s, %s%s\n", f[7],
                    f[6] > 1 ? " and every " (f[8] == 1 ? "one" : f[8] " bits") " from there, " f[6] " times" : "",
                    f[3], f[4] == "uint" ? f[5] (f[5] == 1 ? " bit" : " bits") : f[4], whose(f[6], f[9], f[10], f[11], f[12]))
            else if (l == 7) text = text "- and so on, run after run, for the other values of the unit\n"
        }
        flush_width()
    }
}'
done
