# SPDX-License-Identifier: Apache-2.0
# A hardware designer's first hour: a recording in, $readmemh text and the bits of each token out. designer.sh FOLDER, with BUILD and
# MODEL. What the files say is held against each other as a testbench would read them.
. reports/firsthour/steps.sh
rm -rf "$dir/samples.trace" "$dir/bytes"

step 'record 2 samples' "$kvsim" record -q -m "$model" -t samples -n 2 --keep final,kv -o "$dir/samples.trace"
done_with 'to the recording'
whole=0
step 'the cache of item 0, 2 to 8 bits a cell, as bytes' "$kvsim" dump "$dir/samples.trace" random:by=cell,bits=2/4/8@asym:group=32 \
    --item 0 -o "$dir/bytes" --word 4 --tsv
cp "$dir/answer" "$dir/tokens.tsv"
show 'words for $readmemh, the first of them' head -n 3 "$dir/bytes/cells.hex"
show 'bits of the first tokens: codes, metadata, tags, padding' head -n 4 "$dir/tokens.tsv"
show 'where each number of a unit lies' head -n 4 "$dir/bytes/fields.tsv"
done_with 'from the recording to $readmemh'

words() { od -A n -v -t x1 -w4 "$dir/bytes/$1.bin" | awk '{ print $4 $3 $2 $1 }' | cmp - "$dir/bytes/$1.hex"; }
step 'held: the text has the bytes, byte 0 of a word last' words cells
bits() { # of all tokens in the table, of all units in theirs: codes + metadata + padding
    awk -F'\t' -v wanted="^($2)\$" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i ~ wanted) take[i]; next }
        $1 != "sum" { for (i in take) n += $i } END { printf "%.0f\n", n }' "$1"
}
same_bits() { [ "$(bits "$dir/tokens.tsv" 'code_bits|meta_bits|padding_bits')" = $(($(wc -c <"$dir/bytes/cells.bin") * 8)) ]; }
step "held: the tokens' bits are the file's" same_bits
step 'the fields of a format' "$kvsim" describe asym --fields
