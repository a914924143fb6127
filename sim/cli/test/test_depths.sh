# SPDX-License-Identifier: Apache-2.0
# Text windows: positions scored by a share of them, what the store keeps of each, and what show, diff, pick and the
# report say by depth.
root=$PWD
. sim/cli/test/lib/tap.sh
tiny good
i=0
while [ $i -lt 400 ]; do
    echo "The quick fox number $i jumps over $((i * 7 % 13)) lazy dogs, and line $((i * i)) ends here."
    i=$((i + 1))
done >text.txt

# ---- recording

usage='usage'
expect 2 "kvsim: tasks text: score=2/3: 1 or 1/N with N from 1 to 9999 is expected" 'a share of positions is 1/N' \
    record -m good.gguf -t text:text.txt,window=128,score=2/3 -n 2 -o bad
"$kvsim" record -q -m good.gguf -t text:text.txt,window=128 -n 4 --keep final -o whole || exit 1
"$kvsim" record -q -m good.gguf -t text:text.txt,window=128,score=1/8 -n 4 --keep final -o some -j 2 || exit 1
"$kvsim" record -q -m good.gguf -t text:text.txt,window=128,score=1/8 -n 4 --keep final -o same -j 1 || exit 1
check 'a sample of positions is the same whatever -j' cmp some/shard-00000.safetensors same/shard-00000.safetensors
check 'and is whole' "$kvsim" verify some

# ---- replaying

specs='static:bits=2@sym static:bits=4@sym static:bits=16@sym'
for t in whole some; do
    # shellcheck disable=SC2086
    "$kvsim" sweep -q $t $specs -m good.gguf --db $t.db -j 1 || exit 1
done
# shellcheck disable=SC2086
"$kvsim" sweep -q some $specs -m good.gguf --db two.db -j 2 || exit 1
depths() { "$kvsim" show --by depth --db "$1" --tsv; }
depths some.db >one.tsv
depths two.db >two.tsv
check 'what is said by depth is the same whatever -j' cmp one.tsv two.tsv
check 'of each 8 positions one is scored' test "$(column one.tsv positions | sort -u)" = 64
depths whole.db >all.tsv
check 'else each that predicts a token' test "$(column all.tsv positions | sort -u)" = 508
check '16 bit is 16 bit at every depth' test "$(awk -F '\t' '/^static:k=16/ { print $6, $18 }' all.tsv | sort -u)" = '0 1'
mean=$(column all.tsv kl_mean | head -1)
kl=$("$kvsim" show --db whole.db --sort spec --tsv >show.tsv && column show.tsv kl_nats | sort -g | tail -1)
check 'the mean by depth is that of the items' awk -v a="$(column all.tsv kl_mean | sort -g | tail -1)" -v b="$kl" \
    'BEGIN { exit !(a > 0 && a - b < 1e-5 * b && b - a < 1e-5 * b) }'
check 'and columns of the table' grep -q '^spec.*	kl_median	kl_median_low	kl_median_high	kl_99	.*	same_top	.*	rms_dp	.*kl_at_2048' show.tsv
check 'which tables without text windows lack' sh -c "
    '$kvsim' record -q -m good.gguf -t samples -n 4 --keep final -o choices &&
    '$kvsim' sweep -q choices static:bits=4@sym -m good.gguf --db choices.db &&
    '$kvsim' show --db choices.db --tsv | head -1 | grep -vq kl_median"
expect 1 'kvsim: choices.db: holds no scored positions of text windows, which replays of text keep since schema 5: sweep a recording of text:FILE,window=N into another store' \
    'and --by depth refuses' show --by depth --db choices.db
expect 2 "kvsim: --by: width: depth or place is expected" 'nothing else than depth' show --by width --db whole.db

# ---- the worst tokens, differences, picking, the page

"$kvsim" show --worst 3 --db whole.db -m good.gguf --tsv >worst.tsv
check 'the worst tokens are those asked for' test "$(wc -l <worst.tsv)" = 10
check 'in order' sh -c "awk -F '\t' 'NR > 1 && NR < 5 { print \$4 }' worst.tsv | sort -c -gr"
check 'with the text before them' sh -c "cut -f 8 worst.tsv | grep -q 'fox\|lazy\|line\|ends'"
"$kvsim" diff static:bits=2@sym static:bits=4@sym --db whole.db --tsv >diff.tsv
check 'diff compares them' test "$(cut -f 1 diff.tsv | tr '\n' ' ')" = 'quantity kl_nats kl_median same_top rms_dp '
check 'pick takes the quality at its context' sh -c \
    "'$kvsim' pick --max kl=100 --context 200 --db whole.db | grep -q 'at 508 positions that see 1 to 256 tokens'"
check 'and says where there is none' sh -c \
    "'$kvsim' pick --max kl=100 --context 4096 --db whole.db | grep -q 'Not known: the quality at 4096 tokens'"
check 'show says of which positions its KL at a context is' sh -c \
    "'$kvsim' show --context 200,4096 --db whole.db | grep -q '^KL at 200: of positions that see 1 to 256 tokens'"
check 'and that quality is not known at another' sh -c \
    "'$kvsim' show --context 200,4096 --db whole.db | grep -q '^quality was measured at 64 tokens (mean), not 200 or 4096'"
"$kvsim" record -q -m good.gguf -t text:text.txt,window=512 -n 2 --keep final -o long &&
    "$kvsim" sweep -q long static:bits=2@sym static:bits=4@sym -m good.gguf --db long.db &&
    "$kvsim" report -q --db long.db -o page >/dev/null 2>&1
check 'the page has the table by depth' grep -q '<h4>By depth</h4>' page/index.html
check 'and its figure, whose words touch nothing' sh -c "test -s page/depths.svg && '$build/reports/draw/test/crossings' page/depths.svg page/depths_narrow.svg"
finish
