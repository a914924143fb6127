# SPDX-License-Identifier: Apache-2.0
# Tasks that are made of a text and a seed, and GSM8K: what tasks, record, sweep, show, outcomes and the report say of
# them, and twenty mistakes in their specs.
root=$PWD
. sim/cli/test/lib/tap.sh
tiny good
i=0
while [ $i -lt 300 ]; do
    echo "The quick fox number $i jumps over $((i * 7 % 13)) lazy dogs. Line $((i * i)) ends here."
    i=$((i + 1))
done >text.txt
lines() { tr '\n' ' ' <"$1"; }

# ---- making and recording

needle=needle:text.txt,lengths=280/360,depths=0/100,n=3
"$kvsim" tasks $needle --tsv >tasks.tsv
check 'tasks counts what will be made' grep -q '^items	12$' tasks.tsv
"$kvsim" tasks $needle -m good.gguf --tsv >made.tsv
check 'and with a model what is made' grep -q '^source_length=280,depth=100	3$' made.tsv
check 'whose contexts have their length' awk -F '\t' '/^context_tokens_max/ { exit !($2 > 340 && $2 <= 360) }' made.tsv
"$kvsim" record -q -m good.gguf -t $needle --keep final -o needle -j 1 || exit 1
"$kvsim" record -q -m good.gguf -t $needle --keep final -o again -j 2 || exit 1
check 'the same whatever -j' cmp needle/shard-00000.safetensors again/shard-00000.safetensors
"$kvsim" record -q -m good.gguf -t $needle,seed=2 --keep final -o other || exit 1
check 'and another for another seed' sh -c '! cmp -s needle/shard-00000.safetensors other/shard-00000.safetensors'
"$kvsim" record -q -m good.gguf -t $needle -n 5 --keep final -o some || exit 1
check 'a part of it can be drawn' "$kvsim" verify some
"$kvsim" record -q -m good.gguf -t recall,pairs=3/9,depths=0/50/100,n=2 --keep final,kv,sens -o recall || exit 1
"$kvsim" record -q -m good.gguf -t recall:text.txt,lengths=150,depths=50,n=2 --keep final -o words || exit 1

# ---- replaying and showing

for t in needle recall; do
    "$kvsim" sweep -q $t static:bits=16@sym static:bits=2@sym -m good.gguf --db $t.db || exit 1
    "$kvsim" show --by place --db $t.db --tsv >$t.tsv || exit 1
    "$kvsim" show --by place --db $t.db >$t.txt || exit 1
done
column needle.tsv length | uniq >lengths
check 'a row for each place, by length' test "$(lines lengths)" = '280 360 280 360 '
column needle.tsv depth >depths
check 'and depth' test "$(lines depths)" = '0 100 0 100 0 100 0 100 '
check 'with all its items' test "$(column needle.tsv n | sort -u)" = 3
check 'recall has pairs' test "$(column recall.tsv pairs | sort -un | tr '\n' ' ')" = '3 9 '
check '16 bit is itself at each place' awk -F '\t' '/^static:k=16/ { n++; bad += $10 != 0 || $6 != $7 || $13 != 1 } END { exit !(n == 4 && !bad) }' needle.tsv
check '2 bit is not' awk -F '\t' '/^static:k=2/ { n += $10 != 0 } END { exit !n }' needle.tsv
check 'readers are told where it first differs' grep -q '^static:bits=2@sym: by margin ' needle.txt
check 'and that a length without matches is judged by the margin alone' grep -q '4 of 4 places by margin alone (16 bit matches below 30 %)' needle.txt
"$kvsim" outcomes static:bits=2@sym --db recall.db --tsv >outcomes.tsv
check 'outcomes says what greedy decoding writes' test "$(column outcomes.tsv greedy16 | sort -u)" = 0
check 'of each choice' test "$(column outcomes.tsv greedy | wc -l)" = 48
"$kvsim" sweep -q recall static:bits=4@sym --fidelity fisher --db fisher.db || exit 1
check 'a prediction knows of no match' sh -c "! '$kvsim' show --by place --db fisher.db 2>err && grep -q 'holds no exact replays of needle or recall tasks' err"
"$kvsim" record -q -m good.gguf -t samples -n 4 --keep final -o choices && "$kvsim" sweep -q choices static:bits=4@sym -m good.gguf --db choices.db
expect 1 'kvsim: choices.db: holds no exact replays of needle or recall tasks' '--by place refuses other stores' show --by place --db choices.db
"$kvsim" report -q --db needle.db -o page >/dev/null 2>&1
check 'the page has the table by length and depth' grep -q '<h4>By length and depth</h4>' page/index.html
check 'and its heat maps, whose words touch nothing' sh -c "test -s page/places.svg && '$build/reports/draw/test/crossings' page/places.svg page/places_narrow.svg"

# ---- GSM8K

i=0
while [ $i -lt 30 ]; do
    printf '{"question": "What is %d and %d?", "answer": "It is <<%d+%d=%d>>.\\n#### %d"}\n' $i $i $i $i $((2 * i)) $((2 * i % 7))
    i=$((i + 1))
done >gsm.jsonl
"$kvsim" tasks gsm.jsonl --tsv >gsm.tsv
check 'GSM8K is recognized' grep -q '^kind	gsm8k$' gsm.tsv
check 'its floor is said' grep -q '^commonest_answer_%	16.7' gsm.tsv
"$kvsim" record -q -m good.gguf -t gsm8k:gsm.jsonl,from=gsm.jsonl,shots=2 -n 3 --keep final -o gsm || exit 1
check 'and recorded with its examples' "$kvsim" verify gsm
"$kvsim" sweep -q gsm static:bits=4@sym -m good.gguf --db gsm.db || exit 1
check 'its answers have a divergence and no accuracy' sh -c "
    '$kvsim' show --db gsm.db --tsv >g.tsv && test -s g.tsv"
check 'nor an agreement: there is nothing to pick' test "$(column g.tsv agree)$(column g.tsv acc)" = ''
check 'that is a number' awk "BEGIN { exit !($(column g.tsv kl_nats) > 0) }"

# ---- mistakes

usage() { # usage WHO-AND-WHAT NAME SPEC
    expect 2 "kvsim: tasks$1" "$2" tasks "$3"
}
text=needle:text.txt
usage ' needle: lengths=12: lengths must be a number from 16 to 1e+06' 'a length too short' $text,lengths=12
usage ' needle: lengths=512.5 is no whole number' 'a length that is no whole number' $text,lengths=512.5
usage ' needle: lengths holds 512 twice' 'a length twice' $text,lengths=512/1024/512
usage ' needle: depths holds 50 twice' 'a depth twice' $text,depths=50/0/50
usage ' needle: depths=101: depths must be a number from 0 to 100' 'a depth below the text' $text,depths=101
usage ' needle: depths=-1: depths must be a number from 0 to 100' 'and above it' $text,depths=-1
usage " needle: unknown key 'length'; did you mean 'lengths'?" 'a key misspelt' $text,length=512
usage " needle: unknown key 'pairs'; it has lengths, depths, n, seed" 'a key of the other task' $text,pairs=4
usage " needle: key 'depths' is given twice" 'a key twice' $text,depths=0,depths=1
usage " needle: '1024' is no key=value; a path may not hold a comma" 'a list with commas' $text,lengths=512,1024
usage ' needle: n=0: n must be a whole number from 1 to 100000' 'no items' $text,n=0
usage ' needle: n=1.5: n must be a whole number from 1 to 100000' 'half an item' $text,n=1.5
usage ' needle: seed=-1: seed must be a whole number from 0 to 1e+15' 'a seed below 0' $text,seed=-1
usage " needle: depths has 33 numbers; at most 32 are taken" 'a long list' $text,depths=$(seq -s/ 1 33)
usage ': openbookqa needs a file: openbookqa:FILE' 'a kind alone' openbookqa
usage ': needle needs a file: needle:FILE' 'or in a file without a name' needle:,n=2
usage ' recall: pairs=1: pairs must be a number from 2 to 100000' 'one pair' recall,pairs=1
usage ' recall: lengths say how many pairs a context holds, or pairs do' 'pairs and lengths' recall,pairs=4,lengths=512
usage ': gsm8k needs a file: gsm8k:FILE' 'problems of nothing' gsm8k
usage ' gsm8k: shots=5 needs from=FILE, the problems to draw them from' 'examples of nothing' gsm8k:gsm.jsonl,shots=5
usage ' gsm8k: from=gsm.jsonl: shots=0 draws none of it' 'a file for no examples' gsm8k:gsm.jsonl,shots=0,from=gsm.jsonl
usage ' gsm8k: shots=31: gsm.jsonl holds 30 problems' 'more examples than there are' gsm8k:gsm.jsonl,shots=31,from=gsm.jsonl
expect 1 'kvsim: text.txt: length=64: the question and its fact alone have more tokens' 'a context without room' tasks $text,lengths=64 -m good.gguf
expect 1 'kvsim: text.txt: has 9 words of its own; pairs=10 needs more' 'more pairs than words' tasks recall:text.txt,pairs=10 -m good.gguf
expect 1 'kvsim: text.txt: length=400 holds more than the 9 pairs there are' 'a length for more words than there are' tasks recall:text.txt,lengths=400 -m good.gguf
seq 10000 95000 >numbers.txt
expect 1 'kvsim: numbers.txt: holds so many numbers of five digits that only 4999 are left to ask for' 'a text of all numbers' \
    tasks needle:numbers.txt,lengths=64,n=1 -m good.gguf
finish
