# SPDX-License-Identifier: Apache-2.0
# kvsim dump as a hardware designer meets it: files that agree with each other and with replay, and mistakes (issue 16,
# point 8). Bytes themselves are judged by sim/replay/test/test_dump.c.
root=$(pwd)
. sim/cli/test/lib/tap.sh
tiny good
"$kvsim" record -q -m good.gguf -t samples --stride 12 --keep final,kv,q,sens -o t || exit 1
"$kvsim" record -q -m good.gguf -t samples --stride 24 --keep final -o bare || exit 1

# ---- one dump's files

"$kvsim" dump t random:by=cell@asym --item 1 --choice 2 -o d --tsv >tokens.tsv 2>said || exit 1
about() { sed -n "s/.*\"$1\": \"*\([^\",]*\).*/\1/p" d/about.json; }
sum_of() { awk -F'\t' -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i; next } { s += $c } END { print s + 0 }' "$1"; }
check 'units lie back to back and fill the file' awk -F'\t' -v size="$(($(wc -c <d/cells.bin)))" '
    NR > 1 { if ($1 != at) exit 1; at += $2 } END { exit at != size }' d/units.tsv
check 'each unit is its codes, metadata and padding' awk -F'\t' 'NR > 1 && 8 * $2 != $11 + $12 + $13 { exit 1 }' d/units.tsv
check 'units stand token by token, layer by layer, keys first' awk -F'\t' '
    NR > 1 { key = sprintf("%06d %03d %s %03d", $3, $5, $8, $6); if (key <= last) exit 1; last = key }' d/units.tsv
for bits in code_bits meta_bits padding_bits; do
    check "the table of tokens adds up to the units' $bits" test "$(sum_of tokens.tsv $bits)" = "$(sum_of d/units.tsv $bits)"
done
check 'and its tags to the stream' test $((($(sum_of tokens.tsv tag_bits) + 7) / 8)) = $(($(wc -c <d/tags.bin)))
hex() { # hex WORD FILE: a file's words from the highest byte to the lowest
    od -A n -v -t x1 -w"$1" "$2" | awk -v word="$1" '{ s = ""; for (i = word; i; i--) s = s (i <= NF ? $i : "00"); print s }'
}
hex 4 d/cells.bin >words
check 'cells.hex is cells.bin, a word a line, byte 0 last' cmp words d/cells.hex
hex 4 d/tags.bin >words
check 'tags.hex is tags.bin' cmp words d/tags.hex
"$kvsim" dump t random:by=cell@asym --item 1 --choice 2 --word 16 -o wide -q >/dev/null
hex 16 wide/cells.bin >words
check 'words of 16 bytes hold the same' sh -c 'cmp words wide/cells.hex && cmp d/cells.bin wide/cells.bin'
check 'fields of a kind are its bits, each once' awk -F'\t' '
    FNR == 1 { next }
    FILENAME ~ /fields/ { bits[$1 $2 $3] += $6 * $7; next }
    bits[$8 $9 $10] != $11 + $12 { exit 1 }' d/fields.tsv d/units.tsv
check 'a run is the same a second time' sh -c "'$kvsim' dump t random:by=cell@asym --item 1 --choice 2 -o again -q >/dev/null && diff -r d again"
check 'dumping without -o writes nothing' sh -c "mkdir in && cd in && '$kvsim' dump ../t static --item 0 >/dev/null && test -z \"\$(ls)\""

# ---- the ledger's bits

mean_of_choices() { # mean_of_choices SPEC ITEM KEY: from the dumps of all choices
    for c in 0 1 2 3; do
        "$kvsim" dump t "$1" --item "$2" --choice $c -o d -q >/dev/null || exit 1
        about "$3"
    done | awk '{ s += $1 } END { printf "%.10f\n", s / NR }'
}
for spec in static:bits=4@sym random:by=layer@asym class:digit=8@sym static:bits=2@kivi h2o@sym static:bits=3@hqq static:bits=2@zipcache; do
    "$kvsim" replay -q t $spec -m good.gguf --items 1-1 --json >row.json
    for key in nominal_bits effective_bits allocated_bits; do
        want=$(sed -n "s/.*\"$key\": \([0-9.]*\).*/\1/p" row.json | awk '{ printf "%.10f", $1 }')
        check "$spec: dumps have replay's $key" test "$(mean_of_choices $spec 1 $key)" = "$want"
    done
done

# ---- bytes are those of kvsim code

"$kvsim" dump t static:bits=3@sym --item 0 -o plain -q >/dev/null
"$kvsim" code sym --bits 3 --dim 32 --decode <plain/cells.bin >decoded.f32
check 'what kvsim code decodes them to codes to the same bytes' \
    sh -c "'$kvsim' code sym --bits 3 --dim 32 <decoded.f32 | cmp - plain/cells.bin"

# ---- tensors

for spec in static:bits=4@zipcache random:by=cell@zipcache; do
    "$kvsim" dump t $spec --item 1 --choice 2 -o tensors -q >/dev/null
    check "$spec: each tensor's fields are its bits, each number once" awk -F'\t' '
        FNR == 1 { next }
        FILENAME ~ /tensors.tsv/ { bits[$1] += $4 * $5; for (i = 0; i < $5; i++) if (seen[$1, $6 + i * $7]++) exit 1; next }
        $9 == "tensor" { n++; if (bits[$1] != $11 + $12) exit 1 }
        END { if (!n) exit 1 }' tensors/tensors.tsv tensors/units.tsv
done
# what a reader makes of the map alone: the codes of the first unit of keys at 4 bits, by shell arithmetic
"$kvsim" dump t static:bits=4@zipcache --item 1 -o tensors -q >/dev/null
check 'the first code of a tensor lies where the map says' test "$(awk -F'\t' '$1 == 0 && $2 == "code" { print $6 / 8; exit }' tensors/tensors.tsv)" \
    -eq "$(awk -F'\t' '$1 == 0 && $9 == "tensor" { print $12 / 8; exit }' tensors/units.tsv)"
"$kvsim" dump t static:bits=4@sym --item 0 -o plain -q >/dev/null
check 'a format of units has no map of tensors' test ! -e plain/tensors.tsv

# ---- mistakes

expect 2 'kvsim: dump: --item I is needed: which item of the trace' 'no item' dump t static
expect 2 'kvsim: dump: --item 99: a whole number from 0 to 11 is expected' 'an item that is not there' dump t static --item 99
expect 2 'kvsim: --choice: item 0 has choices 0 to 3' 'a choice that is not there' dump t static --item 0 --choice 4
expect 2 'kvsim: dump: --choice first: a whole number from 0 to 1000 is expected' 'a choice by name' dump t static --item 0 --choice first
expect 2 'kvsim: dump: --word 0: a whole number from 1 to 64 is expected' 'words of nothing' dump t static --item 0 --word 0
expect 1 'kvsim: bare: keeps no keys and values; record with --keep kv' 'a recording without keys and values' dump bare static --item 0
expect 2 'kvsim: none: has no format, so nothing is packed' 'a policy without a format' dump t none --item 0
expect 2 'kvsim: spec: format q4_0 does not offer 3 bits; it offers 4/16' 'a width that the format lacks' dump t static:bits=3@q4_0 --item 0
expect 1 'kvsim: plan.st: no such file, or it cannot be read' 'a plan that is not there' dump t plan:file=plan.st --item 0
expect 1 'kvsim: nothing: is not a trace folder (kvsim record makes one)' 'a recording that is not there' dump nothing static --item 0
: >file
expect 1 'kvsim: file: is not a folder' 'a file where a folder is wanted' dump t static --item 0 -o file
expect 2 "kvsim: dump: unknown option '--items'; did you mean '--item'?" 'items for item' dump t static --items 0
expect 2 'kvsim: describe: static is a policy; --fields is of formats' 'fields of a policy' describe static --fields
finish
