# SPDX-License-Identifier: Apache-2.0
# Wrong inputs from the command line: one calm sentence each, and the right exit code.
. sim/cli/test/lib/tap.sh

# ---- files that are not what they should be ----

check "a missing model file" 1 \
    "kvsim: $tmp/none.gguf: there is no such file or folder; a model is a GGUF file or a Hugging Face folder" \
    "$kvsim" record -m "$tmp/none.gguf" -t samples -o "$tmp/t"
check "a missing benchmark file" 1 "kvsim: $tmp/none.jsonl: cannot be opened: No such file or directory" \
    "$kvsim" record -m "$tmp/none.gguf" -t "$tmp/none.jsonl" -o "$tmp/t"
check "a missing trace" 1 "kvsim: $tmp/none: is not a trace folder (kvsim record makes one)" \
    "$kvsim" replay "$tmp/none" static
: >"$tmp/empty.jsonl"
check "an empty item file" 1 "kvsim: $tmp/empty.jsonl: there are no items: it is empty" \
    "$kvsim" record -m "$tmp/none.gguf" -t "$tmp/empty.jsonl" -o "$tmp/t"
cat >"$tmp/label.jsonl" <<'JSON'
{"ind": 0, "activity_label": "a", "ctx_a": "b", "ctx_b": "", "endings": ["c", "d"], "label": 1}
{"ind": 1, "activity_label": "a", "ctx_a": "b", "ctx_b": "", "endings": ["c", "d"], "label": 7}
JSON
check "an item whose label is none of its endings" 1 \
    "kvsim: $tmp/label.jsonl: line 2: \"label\" is none of the endings 0 to 1" \
    "$kvsim" record -m "$tmp/none.gguf" -t "$tmp/label.jsonl" -o "$tmp/t"
cat >"$tmp/key.jsonl" <<'JSON'
{"id": "8-1", "question": {"stem": "a", "choices": [{"text": "b", "label": "A"}, {"text": "c", "label": "B"}]}, "answerKey": "E"}
JSON
check "an item whose key is none of its labels" 1 \
    "kvsim: $tmp/key.jsonl: line 1: answerKey \"E\" is none of the labels A, B" \
    "$kvsim" record -m "$tmp/none.gguf" -t "$tmp/key.jsonl" -o "$tmp/t"

printf 'GGUF\003\000\000\000\377\377\377\377\377\377\377\017\001\000\000\000\000\000\000\000' >"$tmp/lie.gguf"
check "a GGUF header whose counts lie" 1 \
    "kvsim: $tmp/lie.gguf: byte 8: the header claims 1152921504606846975 tensors, more than the file's 24 bytes can describe" \
    "$kvsim" record -m "$tmp/lie.gguf" -t samples -o "$tmp/t"
printf 'GGUF\003\000' >"$tmp/short.gguf"
check "a GGUF file of six bytes" 1 \
    "kvsim: $tmp/short.gguf: byte 4: the version needs 4 bytes, but the file ends after 2: it is truncated or its header lies" \
    "$kvsim" record -m "$tmp/short.gguf" -t samples -o "$tmp/t"

# ---- wrong usage ----

check "an unknown command" 2 "kvsim: unknown command 'recrod'; did you mean 'record'?" "$kvsim" recrod
check "an unknown option" 2 "kvsim: replay: unknown option '--moode'; did you mean '--mode'?" \
    "$kvsim" replay --moode x
check "a number out of range" 2 "kvsim: record: --jobs 0: a whole number from 1 to 4096 is expected" \
    "$kvsim" record -j 0
check "too few arguments" 2 "kvsim: replay: usage: kvsim replay TRACE SPEC..." "$kvsim" replay x

# ---- a full disk under stdout ----

to_full() { "$@" >/dev/full; }
check "stdout on a full disk" 1 "kvsim: standard output: cannot be written: No space left on device" \
    to_full "$kvsim" version
check "help on a full disk" 1 "kvsim: standard output: cannot be written: No space left on device" \
    to_full "$kvsim" record --help

# ---- with the model ----

if [ ! -r "$model" ]; then
    skip "hostile models, traces and stores" "no $model (make model)"
    done_testing
    exit
fi

head -c 60000000 "$model" >"$tmp/bad.gguf"
check "a truncated GGUF file" 1 \
    "kvsim: $tmp/bad.gguf: byte *: tensor blk.*.weight (* rows of *) ends after the file's 60000000 bytes: the file is truncated or its header lies" \
    "$kvsim" record -m "$tmp/bad.gguf" -t samples -o "$tmp/t"
cp "$model" "$tmp/bad.gguf"
offset() { grep -abo -m1 -- "$1" "$model" | head -n 1 | cut -d: -f1; } # of a text in the header
arch=$(($(offset general.architecture) + 20 + 4 + 8)) # after the key: its type and the text's length
patch "$tmp/bad.gguf" $arch mamba
check "a model of another architecture" 1 \
    "kvsim: $tmp/bad.gguf: general.architecture is mamba; only llama models are computed" \
    "$kvsim" record -m "$tmp/bad.gguf" -t samples -o "$tmp/t"
patch "$tmp/bad.gguf" $arch llama
type=$(($(offset blk.0.ffn_up.weight) + 19 + 4 + 16)) # after the name: dimensions and their count
patch "$tmp/bad.gguf" $type '\014'
check "a tensor of an unknown type" 1 \
    "kvsim: $tmp/bad.gguf: tensor blk.0.ffn_up.weight has type Q4_K, which is not read; supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0" \
    "$kvsim" record -m "$tmp/bad.gguf" -t samples -o "$tmp/t"
patch "$tmp/bad.gguf" $type '\003'
size=$(wc -c <"$model")
patch "$tmp/bad.gguf" $((size - 32)) '\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377'
check "NaN among the weights" 1 \
    "kvsim: $tmp/bad.gguf: tensor output_norm.weight holds NaN at row 0, column 568" \
    "$kvsim" record -m "$tmp/bad.gguf" -t samples -o "$tmp/t"
rm "$tmp/bad.gguf"

check "recording is quiet when told so" 0 "" \
    "$kvsim" record -q -m "$model" -t samples -n 4 --keep final -o "$tmp/trace"
check "a folder that holds a trace" 1 "kvsim: $tmp/trace: holds a trace already; remove it or choose another folder" \
    "$kvsim" record -q -m "$model" -t samples -n 4 --keep final -o "$tmp/trace"
if command -v python3 >/dev/null; then
    check "a shard's header is JSON that another language reads" 0 "" python3 -c '
import json, struct, sys
data = open(sys.argv[1], "rb").read()
n, = struct.unpack("<Q", data[:8])
header = json.loads(data[8:8 + n])
assert header["__metadata__"]["format"] == "kvsim-trace-1"
assert header["item.key"]["dtype"] == "U64" and header["item.key"]["shape"] == [4]
ends = [t["data_offsets"][1] for k, t in header.items() if k != "__metadata__"]
assert max(ends) == len(data) - 8 - n' "$tmp/trace/shard-00000.safetensors"
else
    skip "a shard's header is JSON that another language reads" "no python3"
fi

check "an unknown policy" 2 "kvsim: spec: no policy is named 'statc'; did you mean 'static'?" \
    "$kvsim" replay "$tmp/trace" statc:bits=4
check "an unknown format" 2 "kvsim: format: no format is named 'asim'; did you mean 'asym'?" \
    "$kvsim" replay "$tmp/trace" static:bits=4@asim
check "an unknown key" 2 "kvsim: policy static: unknown key 'bit'; did you mean 'bits'?" \
    "$kvsim" replay "$tmp/trace" static:bit=4
check "a width that the format does not offer" 2 \
    "kvsim: spec: format sym does not offer 7 bits; it offers 2/3/4/5/6/8/16" \
    "$kvsim" replay "$tmp/trace" static:bits=7
check "an unknown mode" 2 "kvsim: --mode: no mode is named 'outline'; there are inline, prefill, prefill1" \
    "$kvsim" replay "$tmp/trace" static --mode outline
check "items beyond the trace" 2 "kvsim: --items: 2-4: A-B with A <= B <= 3 is expected" \
    "$kvsim" replay "$tmp/trace" static --items 2-4

cp -r "$tmp/trace" "$tmp/flipped"
patch "$tmp/flipped/shard-00000.safetensors" 5000 '\377\000\377'
check "a trace with flipped bytes" 1 \
    "kvsim: $tmp/flipped/shard-00000.safetensors: is damaged: its XXH64 is ????????????????, the manifest says ????????????????" \
    "$kvsim" replay "$tmp/flipped" static
cp -r "$tmp/trace" "$tmp/other"
digest=$(grep -o '"digest": "[0-9a-f]*"' "$tmp/trace/manifest.json" | head -n 1 | cut -d'"' -f4)
name=$(grep -o '"name": "[^"]*"' "$tmp/trace/manifest.json" | head -n 1 | cut -d'"' -f4)
sed "s/$digest/0123456789abcdef/" "$tmp/trace/manifest.json" >"$tmp/other/manifest.json"
check "a trace of another model" 1 \
    "kvsim: $tmp/other: was recorded from $name (digest 0123456789abcdef), not from $name (digest $digest)" \
    "$kvsim" replay -q "$tmp/other" static -m "$model"

# ---- stores and disks ----

check "a store where none can be made" 1 \
    "kvsim: /proc/kvsim.db: could not open it: the file or its folder cannot be written" \
    "$kvsim" sweep -q "$tmp/trace" static -m "$model" --db /proc/kvsim.db
"$kvsim" sweep -q "$tmp/trace" static:bits=16 -m "$model" --db "$tmp/read.db" --items 0-0
chmod 444 "$tmp/read.db"
as_user=
if [ -w "$tmp/read.db" ]; then # root may write to any file: be somebody else
    as_user="setpriv --reuid=65534 --regid=65534 --clear-groups"
    chmod 755 "$tmp"
fi
if $as_user test -x "$kvsim" -a -r "$model" -a -r "$tmp/read.db" 2>/dev/null; then
    # shellcheck disable=SC2086
    check "a read-only store" 1 "kvsim: $tmp/read.db: the store is read-only" $as_user \
        "$kvsim" sweep -q "$tmp/trace" static:bits=8 -m "$model" --db "$tmp/read.db" --items 0-0
else
    skip "a read-only store" "root may write to any file, and nobody may not run $kvsim"
fi
limited() { (ulimit -f "$1" && shift && "$@"); } # blocks of 512 bytes (or of 1,024)
check "a trace that outgrows the disk" 1 \
    "kvsim: $tmp/t/shard-00000.safetensors: cannot be grown to * bytes: File too large" \
    limited 20 "$kvsim" record -q -m "$model" -t samples -n 1 --keep final -o "$tmp/t"
check "what was written of it is no trace" 1 "kvsim: $tmp/t: is not a finished trace: it has no readable manifest.json" \
    "$kvsim" replay "$tmp/t" static
check "a store that outgrows the disk" 1 \
    "kvsim: $tmp/small.db: could not * the store: the file size limit of this process was reached; what was stored before is safe" \
    limited 20 "$kvsim" sweep -q "$tmp/trace" static:bits=16 -m "$model" --db "$tmp/small.db" --items 0-0

done_testing
