# SPDX-License-Identifier: Apache-2.0
# What a user reads when something is wrong: the exact sentence and exit code (1 could not, 2 wrong usage).
root=$PWD
. sim/cli/test/lib/tap.sh
tiny good other truncated tensors pairs type number architecture nan

# ---- models

expect 1 'kvsim: nothing.gguf: there is no such file or folder; a model is a GGUF file or a Hugging Face folder' \
    'a model that is not there' record -m nothing.gguf -o x
expect 1 "kvsim: truncated.gguf: byte 4416: tensor blk.1.ffn_down.weight (64 rows of 96, F32) ends after the file's 415576 bytes: the file is truncated or its header lies" \
    'a truncated GGUF file' record -m truncated.gguf -o x
expect 1 "kvsim: tensors.gguf: byte 8: the header claims 1073741824 tensors, more than the file's 416576 bytes can describe" \
    'a header that lies about its tensors' record -m tensors.gguf -o x
expect 1 "kvsim: pairs.gguf: byte 16: the header claims 1099511627776 metadata pairs, more than the file's 416576 bytes can hold" \
    'a header that lies about its metadata' record -m pairs.gguf -o x
read=$(sed -n 's/^    {"\([A-Z0-9_]*\)", .*, decode_.*/\1/p' "$root/sim/model/weight_types.c" | paste -sd, | sed 's/,/, /g')
expect 1 "kvsim: type.gguf: tensor token_embd.weight has type Q8_K, which is not read; supported: $read" \
    'a tensor type that is known but not read' record -m type.gguf -o x
expect 1 "kvsim: number.gguf: tensor token_embd.weight has type number 77, which is not read; supported: $read" \
    'a tensor type that nobody knows' record -m number.gguf -o x
expect 1 'kvsim: architecture.gguf: general.architecture is mamba; only llama, qwen2, qwen3, gemma3 models are computed' \
    'another architecture' record -m architecture.gguf -o x
expect 1 'kvsim: nan.gguf: tensor blk.1.ffn_down.weight holds NaN at row 12, column 82' \
    'NaN among the weights' record -m nan.gguf -o x
expect 2 'kvsim: record: -m MODEL is needed: a GGUF file or a Hugging Face folder' \
    'no model at all' record -o x
check 'a refused model leaves no trace behind' test ! -e x

expect 2 'kvsim: code: format zipcache codes whole tensors, not rows by themselves' \
    'rows for a format that codes whole tensors' code zipcache --bits 4
expect 2 'kvsim: format hadamard: zipcache codes whole tensors by itself and cannot be wrapped' \
    'a rotation around a format that codes whole tensors' code 'hadamard(zipcache)' --bits 4
expect 2 "kvsim: code: format center takes the mean of a sequence's first tokens; rows by themselves have none" \
    'rows of a format whose mean is a sequence'"'"'s' code 'center(sym)' --bits 4

# ---- benchmark files

: >empty.jsonl
echo '{"ind": 0, "activity_label": "A", "ctx_a": "B", "ctx_b": "", "ctx": "B", "endings": ["c", "d"], "lable": 1}' >key.jsonl
echo '{"id": "a", "question": {"stem": "Why?", "choices": [{"text": "b", "label": "A"}, {"text": "c", "label": "B"}]}, "answerKey": "E"}' >answer.jsonl
echo '{"ind": 0, "activity_label"' >cut.jsonl
expect 1 'kvsim: nothing.jsonl: cannot be opened: No such file or directory' \
    'a benchmark that is not there' record -m good.gguf -t nothing.jsonl -o x
expect 1 'kvsim: empty.jsonl: there are no items: it is empty' \
    'an empty benchmark' record -m good.gguf -t empty.jsonl -o x
expect 1 'kvsim: key.jsonl: line 1: the field "label" is missing' \
    'an item with a misspelt key' record -m good.gguf -t key.jsonl -o x
expect 1 'kvsim: answer.jsonl: line 1: answerKey "E" is none of the labels A, B' \
    'an item whose answer is no choice' record -m good.gguf -t answer.jsonl -o x
check 'a line cut short names the line' sh -c "! '$kvsim' record -m good.gguf -t hellaswag:cut.jsonl -o x 2>err && grep -q '^kvsim: cut.jsonl: line 1: ' err"
printf '0\nzebra\n' >ids
expect 1 "kvsim: ids: line 2: samples holds no item with id 'zebra'" \
    'an id that no item has' record -m good.gguf --ids ids -o x

# ---- traces

"$kvsim" record -q -m good.gguf -t samples --stride 24 --keep final,kv -o t || exit 1
shard=shard-00000.safetensors
for broken in flipped cut unsealed sealed_badly; do cp -r t $broken; done
dd if=t/$shard bs=1 skip=30000 count=1 2>/dev/null | tr '\000-\377' '\001-\377\000' |
    dd of=flipped/$shard bs=1 seek=30000 conv=notrunc 2>/dev/null
truncate -s -100 cut/$shard
rm unsealed/manifest.json
echo '{' >sealed_badly/manifest.json
size=$(($(wc -c <t/$shard)))
expect 1 "kvsim: flipped/$shard: is damaged: its XXH64 is HASH, the manifest says HASH" \
    'a trace with a flipped byte' replay flipped static -m good.gguf
expect 1 "kvsim: cut/$shard: tensor token.kind ends at byte $size, but the file has $((size - 100)) bytes; it is truncated or its header lies" \
    'a trace cut short' replay cut static -m good.gguf
expect 1 'kvsim: unsealed: is not a finished trace: it has no readable manifest.json' \
    'a trace that was never finished' replay unsealed static -m good.gguf
expect 1 "kvsim: sealed_badly/manifest.json: line 2 is not JSON: string or '}' expected near end of file" \
    'a manifest that is not JSON' replay sealed_badly static -m good.gguf
expect 1 'kvsim: nothing: is not a trace folder (kvsim record makes one)' \
    'a trace that is not there' replay nothing static -m good.gguf
expect 1 'kvsim: t: was recorded from tiny (digest HASH), not from tiny (digest HASH)' \
    'a trace of another model' replay t static -m other.gguf
expect 1 'kvsim: t: holds a trace already; remove it or choose another folder' \
    'a folder that holds a trace' record -m good.gguf -o t
expect 2 'kvsim: --model: a model is needed: exact replay runs tiny again' \
    'a replay without its model' replay t static

# ---- specs and options

expect 2 "kvsim: spec: no policy is named 'statik'; did you mean 'static'?" \
    'a misspelt policy' replay t statik -m good.gguf
expect 2 "kvsim: spec: 'kivi' is a format and decides no widths; a policy does: static:bits=2@kivi" \
    'a format in the place of a policy' replay t kivi:bits=2 -m good.gguf
expect 2 "kvsim: policy static: unknown key 'bit'; did you mean 'bits'?" \
    'a misspelt key of a policy' replay t static:bit=4 -m good.gguf
expect 2 "kvsim: format: no format is named 'asim'; did you mean 'asym'?" \
    'a misspelt format' replay t static:bits=4@asim -m good.gguf
expect 2 "kvsim: format asym: unknown key 'grup'; did you mean 'group'?" \
    'a misspelt key of a format' replay t static:bits=4@asym:grup=32 -m good.gguf
expect 2 'kvsim: spec: format q4_0 does not offer 2 bits; it offers 4/16' \
    'a width that the format does not offer' replay t static:bits=2@q4_0 -m good.gguf
expect 2 'kvsim: policy static: bits=17: bits must be a whole number from 1 to 16' \
    'a width that none offers' replay t static:bits=17 -m good.gguf
expect 2 "kvsim: static:bits={2,4: '{' is not closed" \
    'an expansion left open' replay t 'static:bits={2,4' -m good.gguf
expect 2 "kvsim: --mode: no mode is named 'inlin'; there are inline, prefill, prefill1, requant, or published alone" \
    'a misspelt mode' replay t static --mode inlin -m good.gguf
expect 2 'kvsim: --feedback: shut: open or closed is expected' \
    'a feedback that there is not' replay t static --feedback shut -m good.gguf
expect 2 'kvsim: --feedback: closed feedback reads a run, and fisher replay has none; use --fidelity exact' \
    'closed feedback without a run' replay t static --feedback closed --fidelity fisher
expect 2 'kvsim: h2o:bits=16,by=token,heavy=0.25,recent=0.25@fp16:order=ggml,sinks=0,window=0: closed feedback goes token by token; policy h2o reads vectors, or what is known at the end of the prompt or later' \
    'closed feedback for a policy that waits' replay t h2o:by=token@fp16 --feedback closed --self exact -m good.gguf
expect 2 "kvsim: replay: unknown option '--mod'; did you mean '--mode'?" \
    'a misspelt option' replay t static --mod inline
expect 2 "kvsim: unknown command 'repaly'; did you mean 'replay'?" \
    'a misspelt command' repaly t static
expect 2 'kvsim: --items: 3-99: A-B with A <= B <= 5 is expected' \
    'items that the trace does not hold' replay t static --items 3-99 -m good.gguf
expect 2 'kvsim: replay: --jobs 0: a whole number from 1 to 4096 is expected' \
    'no jobs' replay t static -j 0
expect 2 'kvsim: replay: usage: kvsim replay TRACE SPEC...' 'a missing argument' replay t
check 'an impossible pair of an expansion is skipped with one line' sh -c \
    "'$kvsim' replay -m good.gguf t 'static:bits={2,4}@q4_0' >out 2>err && grep -qx 'skipped static:bits=2@q4_0: format q4_0 does not offer 2 bits; it offers 4/16' err"

# ---- where nothing can be written

expect 1 'kvsim: nothing/x.db: could not open it: the file or its folder cannot be written' \
    'a store in a folder that is not there' sweep -q t static -m good.gguf --db nothing/x.db
expect 1 'kvsim: ids: this is not a kvsim store (nor any SQLite file)' \
    'a store that is something else' sweep -q t static -m good.gguf --db ids
expect 1 'kvsim: nothing.db: no such store' 'a store that is not there' show --db nothing.db
want_code=1 want='kvsim: standard output: cannot be written: No space left on device'
if [ -w /dev/full ]; then
    name='a table that meets a full disk'
    "$kvsim" replay -q t static -m good.gguf >/dev/full 2>err.log
    judge $?
    name='a list that meets a full disk'
    "$kvsim" list formats >/dev/full 2>err.log
    judge $?
    expect 1 'kvsim: /dev/full: not a regular file; a store needs one' \
        'a store on a device' sweep -q t static -m good.gguf --db /dev/full
else
    skip 'output to a full disk' 'there is no /dev/full'
fi

# root writes read-only files: then another user tries.
name='a read-only store' want='kvsim: r/r.db: the store is read-only'
as=
[ "$(id -u)" != 0 ] || as='setpriv --reuid 65534 --clear-groups --'
mkdir r && "$kvsim" sweep -q t static -m good.gguf --db r/r.db && chmod 755 . && chmod 444 r/r.db && chmod 555 r || exit 1
if $as test ! -w r/r.db 2>/dev/null && $as "$kvsim" version >out.log 2>&1; then
    $as "$kvsim" sweep -q t static:bits=8 -m good.gguf --db r/r.db >out.log 2>err.log
    judge $?
    check 'and it can still be read' $as "$kvsim" show --db r/r.db
else
    skip "$name" 'root writes it, and no other user can be taken'
fi
chmod -R u+w r
finish
