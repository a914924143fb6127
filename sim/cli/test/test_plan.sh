# SPDX-License-Identifier: Apache-2.0
# Plans from files (policy plan), what is written of a replay (--plan-out), and the mistakes on the way (issue 16,
# point 4).
root=$(pwd)
. sim/cli/test/lib/tap.sh
tiny good
"$kvsim" record -q -m good.gguf -t samples --stride 12 --keep final,kv,q,sens -o t || exit 1
"$kvsim" record -q -m good.gguf -t samples --stride 24 --keep final,kv -o other || exit 1

# ---- replay(plan of P) = replay(P), bit for bit

numbers() { sed 's/"spec": "[^"]*"//; s/"label": "[^"]*"//' "$1"; }
round_trip() { # round_trip SPEC OPTIONS...
    spec=$1
    shift
    "$kvsim" replay -q t "$spec" "$@" -m good.gguf --json --plan-out p.st >of.json &&
        "$kvsim" replay -q t "plan:file=p.st@${spec##*@}" "$@" -m good.gguf --json >by.json || return 1
    numbers of.json >a && numbers by.json >b && grep -q kl_nats a && cmp a b
}
for spec in static:bits=4@sym random:by=cell@sym class:digit=8,space=2@asym oracle:bits=4@sym sinks:window=8@sym h2o@sym \
    qaq@qaq zipcache@zipcache static:bits=2@kivi 'shuffle(random)@asym:group=32' threshold:bits=2/8@hqq \
    oracle:bits=3,rounds=2@sym; do
    check "the plan of $spec replays as it does" round_trip "$spec" --items 0-3
done
check 'in mode prefill too' round_trip random@sym --mode prefill --items 0-3
check 'in mode requant too' round_trip class:digit=8@asym --mode requant --items 0-3
check 'and where fisher replay predicts' round_trip random:by=cell@asym --fidelity fisher
check 'and with closed feedback' round_trip threshold:bits=2/8@sym --feedback closed --self exact --items 0-3

# ---- files of other hands: bytes laid down here

le() { # le N BYTES: a number, lowest byte first
    i=0 x=$1
    while [ $i -lt "$2" ]; do
        printf "\\$(printf %03o $((x % 256)))"
        x=$((x / 256)) i=$((i + 1))
    done
}
# layers FILE METADATA BITS...: widths by layer and head, [2 layers][2 KV heads][K, V]
layers() {
    file=$1 head="{\"__metadata__\":{$2},\"widths\":{\"dtype\":\"U8\",\"shape\":[2,2,2],\"data_offsets\":[0,8]}}"
    shift 2
    { le ${#head} 8 && printf %s "$head" && for bits in "$@"; do le "$bits" 1; done; } >"$file"
}
same_numbers() { # same_numbers SPEC SPEC: on the same items
    "$kvsim" replay -q t "$1" -m good.gguf --json >of.json && "$kvsim" replay -q t "$2" -m good.gguf --json >by.json &&
        numbers of.json >a && numbers by.json >b && cmp a b
}
layers static.st '' 4 3 4 3 4 3 4 3
check 'widths by layer and head: one for keys, one for values' same_numbers plan:file=static.st static:k=4,v=3
layers heads.st '' 2 2 4 4 8 8 4 4
check 'widths by layer and head: another for each head' \
    same_numbers plan:file=heads.st@asym layerwise:by=head,k=2/4/8/4@asym
check 'keys tell the versions of a file apart' \
    sh -c "'$kvsim' replay -q t plan:file=heads.st -m good.gguf --json | grep -q 'plan:digest=[0-9a-f]*,file=heads.st@sym:'"

# ---- mistakes

"$kvsim" replay -q t random@sym -m good.gguf --plan-out good.st >/dev/null || exit 1
"$kvsim" replay -q t random@sym -m good.gguf --items 0-0 --plan-out first.st >/dev/null || exit 1
edit() { LC_ALL=C sed "s|$2|$3|" good.st >"$1"; } # edit FILE FROM TO: of one length
refused() { # refused CODE MESSAGE NAME SPEC...
    code=$1 message=$2 name=$3
    shift 3
    expect "$code" "kvsim: $message" "$name" replay t "$@" -m good.gguf
}
refused 2 "policy plan: key 'file' must be given (safetensors file of the widths)" 'a plan without its file' plan
refused 1 'nothing.st: no such file, or it cannot be read' 'a file that is not there' plan:file=nothing.st
echo '{"widths": [4, 4]}' >text.st
refused 1 'text.st: is not a safetensors file' 'a plan as JSON' plan:file=text.st
head -c 900 good.st >cut.st
refused 1 'cut.st: tensor widths lies outside the file, or has another size than its shape says; this model takes U8 [tokens, 2, 2, 2]' \
    'a file cut short' plan:file=cut.st
edit named.st '"widths"' '"width."'
refused 1 'named.st: holds no tensor widths, which a plan is made of' 'a tensor of another name' plan:file=named.st
edit signed.st '"U8"' '"I8"'
refused 1 'signed.st: tensor widths is not U8; this model takes U8 [tokens, 2, 2, 2]' 'widths of another type' plan:file=signed.st
head='{"widths":{"dtype":"U8","shape":[3,2,2],"data_offsets":[0,12]}}'
{ le ${#head} 8 && printf %s "$head" && le 0 12; } >shape.st
refused 1 'shape.st: tensor widths has another shape than is expected; this model takes U8 [2, 2, 2]' \
    'a plan for another model' plan:file=shape.st
head='{"widths":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'
{ le ${#head} 8 && printf %s "$head" && le 0 8; } >flat.st
refused 1 'flat.st: tensor widths has the axes tokens, layers, KV heads, K and V, or without the first' \
    'a plan of one axis' plan:file=flat.st
layers five.st '' 4 4 4 4 4 7 4 4
refused 2 'five.st: layer 1, KV head 0, value: format sym does not offer 7 bits; it offers 2/3/4/5/6/8/16' \
    'a width that the format does not offer' plan:file=five.st
refused 2 'good.st: item 0 of the file, token 1, layer 0, KV head 0, key: format fp16 does not offer 2 bits; it offers 16' \
    'a plan for another format, by item and token' plan:file=good.st@fp16
layers half.st '' 4 4 4 4 0 4 4 4
refused 1 'half.st: layer 1, KV head 0, key: evicted (0) without the other of key and value' \
    'a key evicted without its value' plan:file=half.st
refused 1 'good.st: has digest HASH, not HASH as the spec says' 'a file that has changed' \
    plan:digest=0123456789abcdef,file=good.st
expect 1 'kvsim: good.st: is a plan of recording HASH; this one is HASH (digest), HASH (manifest_xxh64)' \
    'a plan of another recording' replay other plan:file=good.st -m good.gguf
edit nameless.st '"trace"' '"other"'
refused 1 'nameless.st: does not say of which recording it is: metadata trace is to hold manifest_xxh64 of the trace'"'"'s manifest.json' \
    'a plan of no recording' plan:file=nameless.st
item=$("$kvsim" replay -q t plan:file=first.st -m good.gguf 2>&1 | sed -n 's/.*(item \(.*\))$/\1/p')
refused 1 "first.st: holds no widths for key HASH (item $item)" 'an item that the plan lacks' plan:file=first.st
check 'and the items that it has are replayed' "$kvsim" replay -q t plan:file=first.st --items 0-0 -m good.gguf
edit axes.st '"varies":"token"' '"varies":"layer"'
refused 1 "axes.st: its widths differ along an axis that varies 'layer' leaves out" 'tags left out' plan:file=axes.st
edit word.st '"varies":"token"' '"varies":"tokne"'
refused 1 "word.st: varies 'tokne': token, layer, head, kv, position are expected, with slashes between" \
    'a misspelt axis' plan:file=word.st
edit few.st '"options":"4"' '"options":"3"'
refused 1 "few.st: options '3': a cell has one of 4 widths here; 1 where no tags are needed, and at most 14" 'tags too narrow' plan:file=few.st
edit maybe.st '"causal":"yes"' '"causal":"may"'
refused 1 "maybe.st: causal 'may': yes or no is expected" 'a word that is neither' plan:file=maybe.st
refused 2 "policy plan: unknown key 'flie'; did you mean 'file'?" 'a misspelt key' plan:flie=good.st
refused 1 'decision: item 0, token 1, layer 0, KV head 0: keys of format kivi share a scale with cells of another width; give them one width or use a format whose unit is a head'"'"'s vector' \
    'widths that differ where a scale is shared' plan:file=good.st@kivi:residual=32

# Damage anywhere in the header or the tables of items: a sentence, or a plan that is held against the recording.
header=$(od -A n -t u8 -N 8 good.st | tr -d ' ')
calm() {
    at=0
    while [ $at -lt $((header + 140)) ]; do
        cp good.st spoilt.st
        printf '\377' | dd of=spoilt.st bs=1 seek=$at conv=notrunc 2>/dev/null
        "$kvsim" replay -q t plan:file=spoilt.st -m good.gguf --fidelity fisher >/dev/null 2>err.log
        code=$?
        [ $code -le 2 ] && { [ $code = 0 ] || tail -n 1 err.log | grep -q '^kvsim: [^ ].*: .'; } || { echo "byte $at: code $code"; return 1; }
        head -c $at good.st >cut.st
        "$kvsim" replay -q t plan:file=cut.st -m good.gguf --fidelity fisher >/dev/null 2>err.log
        [ $? = 1 ] && grep -q '^kvsim: cut.st: ' err.log || { echo "cut at byte $at"; return 1; }
        at=$((at + 7))
    done
}
check 'a damaged or shortened file is refused in one sentence' calm

# ---- what makes no plan

refused 2 '--plan-out: this file is of one spec, not of 2' 'two specs' 'static:bits={2,4}' --plan-out x.st
refused 2 '--plan-out: this file is of one run; a store, which may hold items already, cannot go with it' \
    'a store beside a plan' static --db x.db --plan-out x.st
refused 2 '--plan-out: this file is of one run; more than one mode cannot go with it' 'two modes' static --mode inline,prefill --plan-out x.st
refused 2 '--plan-out: this file is of one run; more than one fidelity cannot go with it' 'two fidelities' \
    static --fidelity exact,fisher --plan-out x.st
refused 2 '--plan-out: this file is of one run; more than one redraw cannot go with it' 'two redraws' static --redraws 2 --plan-out x.st
refused 2 'none: has no format: what it stores does not follow from one width a cell, as a plan has' \
    'the plan of no format' none --plan-out x.st
check 'none of them left a file' test ! -e x.st
refused 1 'nowhere/x.st: cannot be written: No such file or directory' 'a folder that is not there' static --plan-out nowhere/x.st
# ---- scores as arrays

tensor() { # tensor FILE NAME: the bytes of a tensor
    header=$(od -A n -t u8 -N 8 "$1" | tr -d ' ')
    tail -c +9 "$1" | head -c "$header" >header.json
    range=$(sed "s/.*\"$2\":{[^}]*\"data_offsets\":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/" header.json)
    tail -c +$((9 + header + ${range% *})) "$1" | head -c $((${range#* } - ${range% *}))
}
"$kvsim" replay -q t random@sym -m good.gguf --scores-out scores.st --json >row.json || exit 1
"$kvsim" replay -q t random@sym -m good.gguf --db s.db >/dev/null || exit 1
check 'a store gives its results as arrays' "$kvsim" outcomes random@sym --db s.db --safetensors stored.st
for name in item.key item.index item.gold item.n_choices item.kl_nats item.right item.right16 item.margin item.bits \
    choice.logprob choice.logprob16 choice.kl_nats choice.tokens choice.chars choice.bytes; do
    tensor scores.st $name >a && tensor stored.st $name >b
    check "$name is the same from the run and from the store" sh -c 'test -s a && cmp a b'
done
mean() { od -A n -v -t f8 -w8 | awk '{ s += $1 } END { printf "%.12f\n", s / NR }'; }
check 'the mean over tokens is the KL that replay prints' sh -c "
    [ \"\$(sed -n 's/.*\"kl_nats\": \([0-9.e-]*\).*/\1/p' row.json | awk '{ printf \"%.12f\", \$1 }')\" = '$(tensor scores.st token.kl_nats | mean)' ]"
# tokens of a choice add up to the choice, in order
tensor scores.st choice.tokens | od -A n -v -t u4 -w4 >n
tensor scores.st choice.kl_nats | od -A n -v -t f8 -w8 >sums
tensor scores.st token.kl_nats | od -A n -v -t f8 -w8 >tokens
check 'the KL of tokens adds up to that of choices' awk '
    FILENAME == "n" { n[++c] = $1 } FILENAME == "sums" { sum[++d] = $1 }
    FILENAME == "tokens" { while (k < c && left == 0) left = n[++k]; got[k] += $1; left-- }
    END { if (c < 10) exit 1
          for (k = 1; k <= c; k++) if ((x = got[k] - sum[k]) > 1e-12 || x < -1e-12) exit 1 }' n sums tokens
refused 2 '--scores-out: this file is of one run; fidelity fisher, which scores nothing, cannot go with it' \
    'scores of a prediction' static --fidelity fisher --scores-out x.st
refused 2 '--scores-out: this file is of one spec, not of 2' 'scores of two specs' 'static:bits={2,4}' --scores-out x.st
expect 1 'kvsim: nowhere/x.st: cannot be written: No such file or directory' 'arrays into a folder that is not there' \
    outcomes random@sym --db s.db --safetensors nowhere/x.st
finish
