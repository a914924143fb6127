# SPDX-License-Identifier: Apache-2.0
# kvsim generate on a tiny model: 16 bits give the reference's tokens, jobs and company change nothing, what was
# finished is not generated again, what cannot be generated is refused.
. sim/cli/test/lib/hostile.sh
. sim/cli/test/lib/tap.sh
tiny good

specs='static:bits={2,4,16}@sym'
generate() { # generate JOBS DB [OPTION...]
    jobs=$1 db=$2
    shift 2
    "$kvsim" generate -q -j "$jobs" -m good.gguf -n 8 --tokens 24 "$specs" static:bits=4@kivi:group=32,residual=32 \
        --db "$db" --tsv "$@"
}
tables() { # all that was generated, by spec and prompt
    "$kvsim" sql "SELECT p.spec, g.mode, g.temperature, i.key, i.reference, i.own, i.equal, i.parted, i.own_kl,
        i.forced_kl FROM generated_item AS i JOIN generation AS g ON g.id = i.generation JOIN policy_spec AS p ON
        p.id = g.spec ORDER BY 1, 2, 3, 4" --db "$1" --tsv
}
count() { "$kvsim" sql 'SELECT COUNT(*) FROM generated_item' --db "$1" --tsv | tail -n 1; }
field() { # field FILE SPEC COLUMN of a table
    awk -F '\t' -v want="$3" -v spec="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == want) c = i; next }
        $NF == spec { print $c }' "$1"
}

generate 2 whole.db >whole.tsv
check 'sequences are generated' test $? = 0
check 'one for every spec and prompt' test "$(count whole.db)" = 32
for column in parted kl_own kl_forced; do
    check "16 bits: $column is nothing" test "$(field whole.tsv static:bits=16@sym $column | tr -d .0)" = ''
done
check '16 bits: all prompts are equal to the end' test "$(field whole.tsv static:bits=16@sym equal_16)" = 1.000
check '2 bits part' test "$(field whole.tsv static:bits=2@sym parted)" -gt 0
tables whole.db >whole.rows
check 'nothing is generated again' sh -c \
    "'$kvsim' generate -m good.gguf -n 8 --tokens 24 '$specs' --db whole.db 2>&1 >/dev/null | grep -q '^done: 0 seq.* 24 were'"

generate 1 one.db >one.tsv && tables one.db >one.rows
check 'one job generates what two do' cmp whole.rows one.rows
check 'and prints the same table' cmp whole.tsv one.tsv
for spec in static:bits=2@sym static:bits=4@sym static:bits=16@sym static:bits=4@kivi:group=32,residual=32; do
    "$kvsim" generate -q -m good.gguf -n 8 --tokens 24 "$spec" --db alone.db >/dev/null || exit 1
done
tables alone.db >alone.rows
check 'each spec alone generates what it does among others' cmp whole.rows alone.rows

# ---- stopped midway

long='random:bits=2/4/8/16,seed=1..6+1@sym'
long() { "$kvsim" generate -q -j 1 -m good.gguf -n 24 --tokens 100 "$long" --db "$1"; }
check 'a longer one' long full.db
"$kvsim" generate -q -j 1 -m good.gguf -n 24 --tokens 100 "$long" --db stopped.db >/dev/null 2>err.log &
pid=$!
until [ "$(count stopped.db 2>/dev/null || echo 0)" -gt 0 ] 2>/dev/null; do
    kill -0 $pid 2>/dev/null || break
    sleep 0.05
done
kill -INT $pid
wait $pid
some=$(count stopped.db)
check "one that was interrupted has stored a part ($some of 144)" test "$some" -gt 0 -a "$some" -lt 144
check 'and says how to go on' grep -q 'interrupted; what was finished is in stopped.db' err.log
check 'the same command goes on' long stopped.db
tables full.db >full.rows && tables stopped.db >stopped.rows
check 'to what one that was never stopped generates' cmp full.rows stopped.rows

# ---- drawn sequences

generate 2 drawn.db --temperature 1 >drawn.tsv && generate 2 drawn.db --temperature 1 --seed 2 >seeds.tsv
check '16 bits give the reference drawn, too' test "$(field drawn.tsv static:bits=16@sym parted)" = 0
tables drawn.db >drawn.rows
check 'another seed draws other tokens' test "$(cut -f 5 drawn.rows | sort -u | wc -l)" -gt 8
generate 1 other.db --temperature 1 >/dev/null && generate 1 other.db --temperature 1 --seed 2 >/dev/null
tables other.db >other.rows
check 'draws do not depend on jobs' cmp drawn.rows other.rows
for mode in prefill prefill1; do
    generate 2 $mode.db --mode $mode --self exact >$mode.tsv
    check "mode $mode: 16 bits give the reference" test "$(field $mode.tsv static:bits=16@sym parted)" = 0
done
check 'a store that is merged keeps what was generated' sh -c \
    "'$kvsim' merge whole.db drawn.db -o merged.db 2>/dev/null && [ \$('$kvsim' sql 'SELECT COUNT(*) FROM generated_item' --db merged.db --tsv | tail -n 1) = 96 ]"

# ---- policies that read what a token's own pass makes known

judged() { # judged JOBS DB [SPEC...]
    jobs=$1 db=$2
    shift 2
    "$kvsim" generate -q -j "$jobs" -m good.gguf -n 8 --tokens 24 --self exact --db "$db" --tsv "$@"
}
read_by='threshold:feature=attn-var,cuts=0.001,bits=3/16@sym threshold:feature=rarity,cuts=4,bits=3/16@sym'
judged 2 features.db 'static:bits=3@sym' $read_by 'threshold:feature=entropy,cuts=99,bits=3/16@sym' >features.tsv
check 'thresholds on features are generated' test "$(column features.tsv spec | wc -l)" = 4
check 'and tell tokens apart' test "$(column features.tsv kl_own | sort -u | grep -vcx 0.00000)" = 3
check 'below every entropy they are the static policy' test "$(awk -F '\t' '/cuts=99|static/ { print $4, $7, $8 }' features.tsv | sort -u | wc -l)" = 1
judged 1 features-alone.db $read_by >/dev/null
for db in features features-alone; do tables $db.db | grep -e cuts=0.001 -e cuts=4 >$db.rows; done
check 'jobs and company change nothing of them' cmp features.rows features-alone.rows

# ---- answers

for i in 1 2 3 4 5 6; do printf '{"question": "How many are %d?", "answer": "So.\\n#### 7"}\n' $i; done >gsm.jsonl
"$kvsim" generate -q -m good.gguf -t gsm8k:gsm.jsonl --tokens 8 static:bits=4@sym --db gsm.db >gsm.txt
check 'answers of GSM8K are judged by two filters beside 16 bit' \
    test "$(grep -cE '^static:bits=4@sym +gsm8k +(strict|flexible) +6 ' gsm.txt)" = 2
check 'and alone as data, with the floor' sh -c "
    '$kvsim' generate -q -m good.gguf -t gsm8k:gsm.jsonl --tokens 8 static:bits=4@sym --db gsm.db --table answers --tsv |
    awk -F '\t' 'NR > 1 && \$13 != \"1.000\" { bad = 1 } END { exit bad || NR != 3 }'"
check 'the harness says where they stop' test "$("$kvsim" sql 'SELECT DISTINCT stop FROM generation' --db gsm.db --json |
    grep -c 'Question:.*im_end')" = 1
"$kvsim" generate -q -m good.gguf -t recall,pairs=3,depths=0/100,n=2 --tokens 6 static:bits=4@sym --db facts.db >facts.txt
check 'numbers of made tasks are judged' grep -qE '^static:bits=4@sym +recall +strict +4 ' facts.txt

# ---- the report

expect 1 'kvsim: drawn.db: the store holds 64 generated texts and no outcomes of a recording; kvsim report makes a page of them, and the kvsim generate that wrote them prints their table' \
    'show says what a store of texts alone is for' show --db drawn.db
if command -v gnuplot >/dev/null; then
    check 'a store of texts alone is reported' "$kvsim" report -q --db drawn.db -o alone
    check 'with what was generated and by whom' sh -c \
        "grep -q '64 texts generated by' alone/index.html && test -s alone/generation.svg"
    check 'and how to generate it again' grep -q 'kvsim generate -m MODEL -t TASK -n 8 --tokens 24 --temperature 1' alone/index.html
    check 'without what it has nothing of' sh -c \
        "! grep -qE 'id=.policies|Recordings in the store|#policies' alone/index.html && test ! -e alone/results.json"
fi
"$kvsim" record -q -m good.gguf -t samples -n 6 --keep final -o t &&
    "$kvsim" sweep -q t 'static:bits={2,4}@sym' -m good.gguf --db whole.db || exit 1
if command -v gnuplot >/dev/null; then
    check 'a store with both is reported' "$kvsim" report -q --db whole.db -m good.gguf -o page
    check 'with a section of its own' grep -q 'Generated from hellaswag' page/index.html
    check 'and a figure' test -s page/generation.svg
    check 'generate draws it alone' generate 2 whole.db -o figure
    check 'where it is the same' cmp figure/generation.tsv page/generation.tsv
fi

# ---- what cannot be

expect 2 'kvsim: generate: --tokens 0: a whole number from 1 to 1000000 is expected' 'no tokens' \
    generate -m good.gguf --tokens 0 static:bits=4 --db no.db
expect 2 'kvsim: --mode: requant: a sequence that is generated is stored once; inline, prefill or prefill1 is expected' \
    'mode requant' generate -m good.gguf --mode requant static:bits=4 --db no.db
expect 1 'kvsim: none.gguf: there is no such file or folder; a model is a GGUF file or a Hugging Face folder' 'a model that is not there' \
    generate -m none.gguf static:bits=4 --db no.db
export kvsim
printf a >short.txt
hostile_rows 'generate' <<'ROWS'
2 | reads quantiles of features, which a recording has | kvsim generate -m good.gguf --self exact threshold:feature=entropy --db no.db
2 | reads entropy_nats of a token, known when its own query has read it: --self exact is expected | kvsim generate -m good.gguf threshold:feature=entropy,cuts=1/2/3 --db no.db
2 | reads damage | kvsim generate -m good.gguf oracle:bits=4 --db no.db
2 | longer than the model's 1024 | kvsim generate -m good.gguf --tokens 1000 static:bits=4 --db no.db
1 | too few | kvsim generate -m good.gguf -t text:short.txt static:bits=4 --db no.db
2 | --table: answer: all, sequences or answers is expected | kvsim generate -m good.gguf --table answer static:bits=4 --db no.db
2 | no policy is named | kvsim generate -m good.gguf statik --db no.db
2 | --temperature -1 | kvsim generate -m good.gguf --temperature -1 static:bits=4 --db no.db
ROWS
check 'none of these has left a store' test ! -e no.db
finish
