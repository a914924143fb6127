# SPDX-License-Identifier: Apache-2.0
# Plausible mistakes and hostile inputs, a row each (lib/hostile.sh).
. sim/cli/test/lib/hostile.sh
. sim/cli/test/lib/tap.sh
tiny good other
export kvsim
record='record -q -m good.gguf'
"$kvsim" $record -t samples --stride 24 -o t && "$kvsim" $record -t samples --stride 48 --keep none -o bare &&
    "$kvsim" sweep -q t static:bits=4 static:bits=2 -m good.gguf --db s.db || exit 1
shard=shard-00000.safetensors

# ---- inputs

hellaswag() { # hellaswag ENDINGS LABEL [CONTEXT [ID]]
    printf '{"ind": %s, "activity_label": "A", "ctx_a": "%s", "ctx_b": "", "ctx": "B", "endings": %s, "label": %s}' \
        "${4:-0}" "${3:-B}" "$1" "$2"
}
arc() { # arc LABEL LABEL
    printf '{"id": "a", "question": {"stem": "Why?", "choices": [{"text": "b", "label": "%s"}, {"text": "c", "label": "%s"}]}, "answerKey": "A"}\n' "$1" "$2"
}
two='["c", "d"]'
hellaswag "$two" 1 >no_newline.jsonl
{ hellaswag "$two" 1 B 0 && printf '\r\n' && hellaswag "$two" 0 B 1 && printf '\r\n'; } >crlf.jsonl
{ hellaswag "$two" 1 && echo && hellaswag "$two" 0; } >twice.jsonl
hellaswag "$two" 7 >gold7.jsonl
hellaswag "$two" -1 >gold_below.jsonl
hellaswag "$two" 0.5 >gold_half.jsonl
hellaswag '"c"' 0 >endings_text.jsonl
hellaswag '["c", 5]' 0 >ending_number.jsonl
hellaswag '["c"]' 0 >one_ending.jsonl
hellaswag '["c", ""]' 0 >ending_empty.jsonl
hellaswag "$two" 0 "$(head -c 1000000 /dev/zero | tr '\0' x)" >long.jsonl
arc A A >labels.jsonl
arc B C >answer.jsonl
: >empty.txt
printf 'a\0b\n' >zero.txt
printf '\037\213\010\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' >damaged.jsonl.gz
for bytes in 0 3 4 8 16 24; do head -c $bytes good.gguf >cut$bytes.gguf; done
mkdir empty_folder hf
echo '{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": -2}' >hf/config.json
for broken in list version2 swapped; do cp -r t $broken; done
echo '[]' >list/manifest.json
echo '{"format": "kvsim-trace", "version": 2}' >version2/manifest.json
cp bare/$shard swapped/$shard
ln -s loop2 loop1 && ln -s loop1 loop2
echo 'no library' >text.so
: >empty.so
echo 'static:bits=4' >text.db
head -c 9000 s.db >damaged.db
cp s.db newer.db # SQLite's user_version, four bytes at 60
printf '\0\0\3\347' | dd of=newer.db bs=1 seek=60 conv=notrunc 2>/dev/null
mkdir folder.sweep
: >empty.sweep
echo endless.sweep >endless.sweep
printf 'static:bits=4\r\n# a comment\r\n\r\nstatic:bits=2\r\n' >crlf.sweep
device() { # device BASE KEY_NS
    printf '{"name": "d", "base_ns": %s, "key_ns": {"16": %s}, "value_ns": {"16": 1}, "context_tokens": [1, 9], "shape": {"layers": 1, "heads": 1, "kv_heads": 1, "head_dim": 8, "hidden": 8, "ffn": 8, "vocab": 8}}' "$1" "$2"
}
device -5 1 >below.json
device '"5 ms"' 1 >unit.json
device NaN 1 >nan.json
device 1e300 1 >huge.json
device 5 1e300 >huge_key.json
device 5 -1 >key_below.json
head='mix,shape,layers,heads,kv_heads,head_dim,hidden,ffn,vocab,weights,threads,context,step_ns'
row='16,135m,30,9,3,64,576,1536,49152,q4,2'
: >empty.csv
echo "$head" >header.csv
printf '%s\n%s,16,100\n' "$head" "$row" >one.csv
printf '%s\n%s,16,nan\n' "$head" "$row" >nan.csv
printf '%s\n%s,16,"12,5"\n' "$head" "$row" >comma.csv
printf '%s\n%s,-16,5\n' "$head" "$row" >context.csv
printf '%s\n%s,16\n' "${head%,*}" "$row" >column.csv
printf '\001\0\377' >binary
head -c 256 /dev/zero | tr '\0' '\377' >nan.f32
head -c 34 /dev/zero | tr '\0' '\177' >nan.codes
mkfifo pipe slow
cat t/manifest.json s.db text.db >before

# ---- rows

hostile_rows 'issue 13, hostile' <<'ROWS'
# traces
1 | empty_folder | kvsim replay empty_folder static -m good.gguf
1 | list/manifest.json: is not the manifest | kvsim verify list
1 | version 2 | kvsim verify version2
1 | swapped/shard-00000.safetensors | kvsim replay swapped static -m good.gguf
1 | loop1 | kvsim replay loop1 static -m good.gguf
1 | symbolic links | kvsim verify loop1
1 | /dev/null: is not a plain file | kvsim verify /dev/null
1 | text.so: byte 0 | kvsim verify text.so
2 | --items: 5-2: A-B with A <= B | kvsim replay t static -m good.gguf --items 5-2
2 | --items: 900- | kvsim replay t static -m good.gguf --items 900-
2 | --items: -3 | kvsim replay t static -m good.gguf --items -3
2 | --items | kvsim replay t static -m good.gguf --items 0-99999999999999999999
1 | bare: keeps no sensitivities | kvsim replay bare static -m good.gguf --fidelity fisher
1 | bare: keeps no Q, K and V | kvsim replay bare static --fidelity attention -m good.gguf
1 | bare: keeps no sensitivities | kvsim atlas bare
1 | bare: keeps no keys and values, or no sensitivities | kvsim anatomy bare
1 | bare: keeps no | kvsim headroom bare -m good.gguf --db h.db
1 | bare: keeps no sensitivities | kvsim additivity bare -m good.gguf --items 0-0
1 | bare: holds no keys and values | kvsim quant -t bare
1 | bare: keeps no K and V | kvsim train mlp bare -o x.safetensors
# models
1 | cut0.gguf: byte 0 | kvsim record -m cut0.gguf -o x
1 | cut3.gguf: byte 0 | kvsim record -m cut3.gguf -o x
1 | cut4.gguf: byte 4: the version | kvsim verify cut4.gguf
1 | cut8.gguf: byte 8: the number of tensors | kvsim record -m cut8.gguf -o x
1 | cut16.gguf: byte 16: the number of metadata pairs | kvsim record -m cut16.gguf -o x
1 | cut24.gguf: byte 8: the header claims | kvsim record -m cut24.gguf -o x
1 | empty_folder/config.json | kvsim record -m empty_folder -o x
1 | hf/config.json: num_hidden_layers | kvsim verify hf
1 | /dev/zero | kvsim record -m /dev/zero -o x
1 | no such file or folder | KVSIM_MODEL=nowhere kvsim replay t static
# benchmark files
0 | items 1 | kvsim tasks no_newline.jsonl | tr -s ' '
0 | items 2 | kvsim tasks crlf.jsonl | tr -s ' '
0 | warning: twice.jsonl: the id '0' is given to two items | kvsim tasks twice.jsonl
1 | twice.jsonl: items 0 and 1 have one id, '0', and results go by ids | kvsim record -m good.gguf -t twice.jsonl -o x
1 | gold7.jsonl: line 1: "label" is none of the endings | kvsim tasks gold7.jsonl
1 | gold_below.jsonl: line 1: "label" is none of the endings | kvsim tasks gold_below.jsonl
1 | gold_half.jsonl: line 1: "label" is none of the endings | kvsim tasks gold_half.jsonl
1 | endings_text.jsonl: line 1 | kvsim tasks endings_text.jsonl
1 | ending_number.jsonl: line 1: ending 1 is not a text | kvsim tasks ending_number.jsonl
1 | one_ending.jsonl: line 1: "endings" has 1 entries | kvsim tasks one_ending.jsonl
1 | ending_empty.jsonl: line 1: choice 1 is empty | kvsim tasks ending_empty.jsonl
1 | item: '0' has 10000 | kvsim record -m good.gguf -t long.jsonl -o x
1 | labels.jsonl: line 1: the label "A" stands at two choices | kvsim tasks labels.jsonl
1 | answer.jsonl: line 1: answerKey "A" is none of the labels | kvsim tasks answer.jsonl
1 | empty.txt: there are no items | kvsim tasks text:empty.txt
1 | zero.txt: line 1: byte 1 | kvsim tasks text:zero.txt
1 | damaged.jsonl.gz: cannot be read: in | kvsim tasks damaged.jsonl.gz
2 | window=0 | kvsim tasks text:zero.txt,window=0
2 | unknown kind 'glue' | kvsim tasks glue:long.jsonl
1 | is not a plain file | kvsim tasks t
1 | samples: has 144 items, not 999 | kvsim record -m good.gguf -t samples -n 999 -o x
2 | exclude each other | kvsim record -m good.gguf -t samples -n 9 --stride 2 -o x
# specs
2 | bits | kvsim replay t static:bits=4,bits=8 -m good.gguf
2 | bits must be a whole number | kvsim replay t static:bits= -m good.gguf
2 | bits must be a whole number | kvsim replay t static:bits=4bit -m good.gguf
2 | bits must be a whole number | kvsim replay t static:bits=-4 -m good.gguf
2 | bits must be a whole number | kvsim replay t static:bits=99999999999999999999 -m good.gguf
2 | a spec begins with a name | kvsim replay t @sym -m good.gguf
2 | brackets do not match | kvsim replay t "static@hadamard(sym" -m good.gguf
2 | wraps another | kvsim replay t static@hadamard -m good.gguf
2 | group=33 | kvsim replay t static@asym:group=33 -m good.gguf
2 | makes more than | kvsim replay t 'static:bits={1..1000000000}' -m good.gguf
2 | quantiles=nan | kvsim replay t threshold:quantiles=nan,bits=2/4 -m good.gguf
2 | they must rise | kvsim replay t threshold:quantiles=0.9/0.1,bits=2/4/8 -m good.gguf
2 | mode inline is named twice | kvsim replay t static -m good.gguf --mode inline,inline
0 | shuffle(shuffle(static | kvsim replay t 'shuffle(shuffle(static))' -m good.gguf --items 0-0
# stores
1 | text.db: this is not a kvsim store | kvsim sweep t static -m good.gguf --db text.db
1 | t: a folder | kvsim show --db t
1 | t/manifest.json: this is not a kvsim store | kvsim frontier --db t/manifest.json
2 | only read here | kvsim sql "ATTACH 'z.db' AS z" --db s.db
2 | one statement at a time | kvsim sql 'SELECT 1; SELECT 2' --db s.db
1 | no such run | kvsim outcomes static:bits=8 --db s.db
2 | 's.db' is one argument too many; usage: kvsim show --db FILE | kvsim show s.db
2 | 's.db' is one argument too many; usage: kvsim pick --db FILE | kvsim pick s.db --max kl=1
2 | 'vllm' is one argument too many; usage: kvsim export SPEC | kvsim export static:bits=4@sym vllm --shape 135m
2 | depth or place is expected | kvsim show --by layer --db s.db
1 | holds no scored positions of text windows | kvsim show --by depth --db s.db
2 | --worst 0 | kvsim show --worst 0 --db s.db
1 | 'static:bits=5*' are all that begin so | kvsim report --rows static:bits=5 --db s.db -o r
2 | 'SVG' is not one of svg, png, pdf | kvsim report --format SVG --db s.db -o r
2 | 'kl-bits,acc-bits' is not one of | kvsim report --panel kl-bits,acc-bits --db s.db -o r
2 | '84in' is not a width | kvsim report --panel kl-bits --size 84in --db s.db -o r
2 | '84mmx60mm' is not a width | kvsim report --panel kl-bits --size 84mmx60mm --db s.db -o r
2 | '8' is not a width | kvsim report --panel kl-bits --size 8 --db s.db -o r
2 | '-84mm' is not a width | kvsim report --panel kl-bits --size -84mm --db s.db -o r
2 | -m MODEL is needed | kvsim anatomy
2 | did you mean 'sym' | kvsim anatomy t -m good.gguf --format sim
1 | good.gguf: is not a trace folder | kvsim anatomy good.gguf
1 | there is no such file or folder | kvsim anatomy t -m nothing.gguf --check
2 | --context | kvsim show --db s.db -c 0
2 | --context | kvsim show --db s.db -c 1e99
0 | warning: nowhere: is not a trace folder | kvsim show --db s.db --layers --trace nowhere
0 | items_needed | kvsim diff static:bits=2 static:bits=4 --db s.db
1 | newer kvsim | kvsim show --db newer.db
1 | the file is damaged | kvsim frontier --db damaged.db
# sweep and claim files
2 | specs: none | kvsim sweep t empty.sweep -m good.gguf --db z.db
0 | | kvsim sweep t crlf.sweep -m good.gguf --db z.db --items 0-0
2 | endless.sweep | kvsim sweep t endless.sweep -m good.gguf --db z.db
1 | folder.sweep: is not a plain file | kvsim sweep t folder.sweep -m good.gguf --db z.db
2 | binary | kvsim verdict binary --db s.db
1 | nowhere: cannot be opened | kvsim verdict nowhere --db s.db
# devices and runs
1 | below.json: 'base_ns' must be a number | kvsim devices -d below.json
1 | unit.json: 'base_ns' must be a number | kvsim devices -d unit.json
1 | nan.json: line 1 | kvsim devices -d nan.json
1 | huge.json: 'base_ns' | kvsim what-if 16 -d huge.json
1 | huge_key.json: | kvsim what-if 16 -d huge_key.json
1 | key_below.json: key_ns | kvsim devices -d key_below.json
1 | empty.csv | kvsim calibrate --runs empty.csv
1 | header.csv | kvsim calibrate --runs header.csv
1 | cannot fix | kvsim calibrate --runs one.csv
1 | nan.csv: row 1: column 'step_ns' | kvsim calibrate --runs nan.csv
1 | comma.csv: row 1: column 'step_ns' | kvsim calibrate --runs comma.csv
1 | context.csv: row 1: column 'context' | kvsim calibrate --runs context.csv
1 | column.csv: row 1: expected a positive step_ns | kvsim calibrate --runs column.csv
2 | must add up to 1 | kvsim what-if 2=0.5/8=0.6
2 | is no mix of widths | kvsim what-if 2=nan/8=0.5
# plug-ins
1 | text.so: cannot be loaded | kvsim describe ./text.so
1 | empty.so: cannot be loaded | kvsim replay t ./empty.so -m good.gguf
1 | nowhere.so: cannot be opened | kvsim replay t nowhere.so -m good.gguf
# options
2 | --jobs 1e9: a whole number | kvsim replay t static -j 1e9
2 | --seed -1 | kvsim replay t static --seed -1
2 | needs A-B | kvsim replay t static --items
2 | --context 0 | kvsim tune t static -c 0
2 | --budget: bits=nan | kvsim tune t static -b bits=nan
2 | --alpha inf | kvsim train mlp t --alpha inf -o x.safetensors
2 | widths must rise | kvsim train mlp t --bits 8,2 -o x.safetensors
0 | also judge them | kvsim tune t static -m good.gguf --train 0-3 --items 2-5 --no-exact
0 | layer | kvsim additivity t -m good.gguf --items 0-0 --bits 16 --units layer --sets 1
2 | is measured | kvsim quant sym --gaussian --bits 7
# outputs: refused before the work
1 | nowhere/x: cannot be written | kvsim bench device --contexts 16 --mixes 16 -o nowhere/x
1 | nowhere/x.safetensors: cannot be written | kvsim train mlp t -o nowhere/x.safetensors
1 | text.db: is not a folder | kvsim record -m good.gguf -t samples --stride 72 -o text.db
1 | cannot be made | kvsim record -m good.gguf -t samples --stride 72 -o ''
1 | standard output: cannot be written | kvsim list formats >&-
# pipes
1 | pipe: is a pipe that nobody writes | kvsim tasks pipe
1 | pipe: is a pipe that nobody writes | kvsim calibrate --runs pipe
1 | pipe: is a pipe that nobody writes | kvsim what-if 4 -d pipe
1 | pipe: is a pipe that nobody writes | kvsim record -m good.gguf -t samples --ids pipe -o x
1 | pipe: is a pipe, and a plain file is needed here | kvsim verify pipe
1 | pipe: this is neither a GGUF file nor a Hugging Face folder | kvsim record -m pipe -o x
1 | pipe: is not a trace folder | kvsim replay pipe static
1 | pipe: not a regular file; a store needs one | kvsim show --db pipe
1 | ./pipe | kvsim replay t ./pipe -m good.gguf
1 | pipe: no such file, or it cannot be read | kvsim replay t mlp:weights=pipe -m good.gguf
0 | items 2 | cat crlf.jsonl | kvsim tasks /dev/stdin | tr -s ' '
0 | items 2 | gzip -c crlf.jsonl | kvsim tasks /dev/stdin | tr -s ' '
0 | items 2 | { sleep 1; cat crlf.jsonl >slow; } & kvsim tasks slow | tr -s ' '
0 | items 2 | { sleep 4; cat crlf.jsonl; } | kvsim tasks /dev/stdin | tr -s ' '
# vectors
1 | ends 3 bytes after a whole unit | printf abc | kvsim code sym --bits 4
2 | --dim 0 | kvsim code sym --bits 4 --dim 0
1 | standard input: row 0, value 0 is NaN | kvsim code sym --bits 4 <nan.f32
1 | standard input: row 0, value 0 decodes to NaN | kvsim code sym --bits 4 --decode <nan.codes
# environment
0 | kvsim | env -i "$kvsim" version
0 | epyc | HOME= LC_ALL=xx_YY TMPDIR=/nowhere kvsim devices
ROWS

check "issue 13: there are 60 rows or more ($rows)" test "$rows" -ge 60
cat t/manifest.json s.db text.db >after
check 'issue 13: no mistake changed a trace, a store or a file beside them' cmp before after
check 'issue 13: a refused recording leaves nothing behind' test ! -e x
finish
