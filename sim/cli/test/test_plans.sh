# SPDX-License-Identifier: Apache-2.0
# pick, export and import from the command line: a plan leaves, is replayed and comes back; and plausible mistakes.
root=$PWD
. sim/cli/test/lib/hostile.sh
. sim/cli/test/lib/tap.sh
tiny good
export kvsim
"$kvsim" record -q -m good.gguf -t samples --stride 24 -o t --keep final,kv,sens &&
    "$kvsim" sweep -q t static:bits={2,4,8}@asym 'static:bits={4,8}@ggml' -m good.gguf --db s.db &&
    "$kvsim" sweep -q t static:bits=4@sym --fidelity fisher --db f.db || exit 1

# ---- out and in

plan=layerwise:k=8/4,v=4/8@asym:group=32
for target in llama.cpp ik_llama.cpp vllm modelopt transformers kvtuner openvino mlx-lm; do
    "$kvsim" export $plan --to $target -t t -m good.gguf -o $target.plan --tsv -q >$target.tsv || exit 1
    spec=$("$kvsim" import $target.plan --from $target -t t -q)
    check "issue 16: $target: what comes back is what was replayed" \
        test "$spec" = "$(sed -n 3p $target.tsv | cut -f2)"
    "$kvsim" export "$spec" --to $target -t t --no-exact -o again.plan -q >/dev/null
    check "issue 16: $target: export, import, export" cmp $target.plan again.plan
    check "issue 16: $target: strict lets its own plan through" \
        "$kvsim" export "$spec" --to $target -t t --no-exact --strict -q
done
# nats and bits of the table are those of a replay by itself
"$kvsim" replay t $plan -m good.gguf -q --tsv | tail -n 1 | cut -f11,14 >alone
sed -n 2p llama.cpp.tsv | cut -f5,3 | awk '{ printf "%.6f\t%.3f\n", $2, $1 }' >beside
check 'issue 16: the loss beside a plan is that of exact replay' cmp alone beside
check 'issue 16: the sentence says bits, bytes and nats' sh -c \
    "'$kvsim' export $plan --to llama.cpp -t t -m good.gguf -o p.sh -q | grep -qE '^llama.cpp serves it as static:.* -> [0-9.]+ bits a value \([0-9]+ -> [0-9]+ bytes a token\), KL [0-9.]+ -> [0-9.]+ nats a scored token on 6 items'"
check 'issue 16: without a file the plan is standard output, and nothing else' sh -c \
    "'$kvsim' export static:bits=4@q4_0 --to llama.cpp --shape 30x3x64 2>/dev/null | grep -qx 'LLAMA_ATTN_ROT_DISABLE=1 llama-server -m MODEL.gguf -ctk q4_0 -ctv q4_0 -fa on'"
check 'issue 16: a policy that tells tokens apart leaves by its means over the items' sh -c \
    "'$kvsim' export 'threshold:feature=entropy,quantiles=0.5,bits=4/8@asym' --to openvino -t t --no-exact -q | grep -q '\"u8\"'"
check 'issue 16: a plan from tune leaves for every runtime' sh -c \
    "p=\$('$kvsim' tune t -m good.gguf --no-exact -q --tsv --budget bits=5 layerwise@asym:group=32 | tail -n 1 | cut -f1) &&
     for r in llama.cpp ik_llama.cpp vllm modelopt transformers kvtuner openvino mlx-lm; do '$kvsim' export \"\$p\" --to \$r -t t --no-exact -q >x.plan && '$kvsim' import x.plan --from \$r -t t -q >/dev/null || exit 1; done"
check 'issue 16: pick --for takes only what the runtime serves' sh -c \
    "'$kvsim' pick --db s.db --max kl=99 --for llama.cpp --tsv | sed 1d | cut -f1 | grep -c '^static.*@ggml' | grep -qx 2 && '$kvsim' pick --db s.db --max kl=99 --for llama.cpp --tsv | sed 1d | wc -l | grep -qx 2"

# ---- from llama-bench to a command line (reports/your-device.md)

bench=$root/reports/your-device/llama-bench.md
"$kvsim" calibrate --runs "$bench" --device mine --out mine.json -q >/dev/null
check 'issue 16: a device of llama-bench is foretold within 2 %, and says so beside its milliseconds' sh -c \
    "'$kvsim' what-if f16 q8_0 kq8_0vq4_0 q4_0 -d mine.json -c 4096 --tsv -q | awk -F'\t' 'NR > 1 { ok += \$NF > 0 && \$NF < 2 && \$13 == \"own\" } END { exit ok != 4 }'"
check 'issue 16: a rotated type is priced as the type that llama.cpp timed' sh -c \
    "'$kvsim' sweep -q t static:bits=4@q4_0 'static:bits=4@hadamard(q4_0)' -m good.gguf --db r.db --items 0-1 &&
     '$kvsim' pick --db r.db --max kl=99 -d mine.json -c 4096 --tsv | cut -f13,15 | sed 1d | sort -u | grep -qE '^[0-9.]+	0$' &&
     test \$('$kvsim' pick --db r.db --max kl=99 -d mine.json -c 4096 --tsv | sed 1d | cut -f13 | sort -u | wc -l) = 1"
check 'issue 16: the answer on it names cost, error, and what is not known' sh -c \
    "'$kvsim' pick --db s.db --device mine.json --context 4096 --max kl=99 --for llama.cpp >answer &&
     grep -q 'on mine (the latency model errs by' answer && grep -q 'Not known: the quality at 4096 tokens' answer &&
     grep -q \"the time of this model: the device's has 30 layers of 3 x 64, not 2 of 2 x 32\" answer"
check 'issue 16: and becomes a command line' sh -c \
    "spec=\$('$kvsim' pick --db s.db --device mine.json --max kl=99 --for llama.cpp --tsv | sed -n 2p | cut -f1) &&
     '$kvsim' export \"\$spec\" --to llama.cpp -t t --no-exact --strict -q | grep -q '^llama-server -m MODEL.gguf -ctk q4_0 -ctv q4_0 -fa on'"

# ---- mistakes

printf 'llama-server -m M.gguf -ctk q4_0 -ctv q9_1' >type.sh
printf 'llama-server -m M.gguf -ctk q4_0 -ctv "q8_0' >quote.sh
printf 'llama-server -m M.gguf -ctk q4_0 -ctv q8_0 | tee log' >pipe.sh
printf 'llama-server -m M.gguf -ctk' >cut.sh
printf 'llama-server -m M.gguf -ctk q4_0 -ctv q4_1' >pair.sh
printf 'llama-server -m M.gguf -ctk q6_0 -ctv q6_0' >fork.sh
printf 'llama-server -m M.gguf -ctk q8_0 -ctv q8_0 -fa off' >flash.sh
printf 'llama-server -m M.gguf -ctk q8_0 -ctv q8_0 -ctk-first q4_0,3' >first.sh
printf '{"cache_implementation": "quantized", "cache_config": {"nbits": 77}}' >nbits.json
printf '{"cache_implementation": "quantized", "cache_config": {"nbits": "4x"}}' >text.json
printf '{"cache_implementation": "quantized"' >cut.json
printf '[]' >list.json
printf '{"KEY_CACHE_PRECISION": "u8", "VALUE_CACHE_PRECISION": "u9"}' >u9.json
printf '{"KEY_CACHE_PRECISION": "u8", "KEY_CACHE_GROUP_SIZE": "16"}' >groups.json
printf '{"quantization": {"kv_cache_quant_algo": "NVFP4"}}' >nvfp4.json
printf '{"quantization": {"kv_cache_quant_algo": "MIXED_PRECISION", "kv_cache_quantized_layers": {"model.layers.2.self_attn": {"quant_algo": "FP8"}}}}' >layer.json
printf '0: {nbits_key: 8, nbits_value: 4}\n' >short.yaml
printf '"0": {nbits_key: 8, nbits_value: 4}\n' >quoted.yaml
printf '0: {nbits_key: 8}\n1: {nbits_key: 8, nbits_value: 4}\n' >half.yaml
printf '0: {nbits_key: -1, nbits_value: 4}\n' >minus.yaml
printf '0: {nbits_key: 8, nbits_value: 4}\n0: {nbits_key: 8, nbits_value: 4}\n' >again.yaml
printf 'mlx_lm.generate --model m --kv-bits 7' >seven.sh
printf 'mlx_lm.generate --model m --kv-bits 4 --kv-group-size 64' >group.sh
printf 'vllm serve m --kv-cache-dtype int5' >int5.sh
printf 'vllm serve m --kv-cache-dtype fp8 --kv-cache-dtype-skip-layers 0 2' >skip.sh
printf 'hello\n' >hello.txt
printf 'llama-server\0 -ctk q8_0' >zero.sh
: >empty.txt
ln -s nowhere.plan loop.plan
mkdir folder
cp s.db before.db

hostile_rows 'issue 16, hostile' <<'ROWS'
# pick
2 | no bound is given | kvsim pick --db s.db
2 | --max: 'kl' is no bound | kvsim pick --db s.db --max kl
2 | --max: 'acc=0.5' is no bound | kvsim pick --db s.db --max acc=0.5
2 | --max: 'kl=-1' | kvsim pick --db s.db --max kl=-1
2 | --max: 'kl=nan' | kvsim pick --db s.db --max kl=nan
2 | --max: 'kl=0.05nats' | kvsim pick --db s.db --max kl=0.05nats
2 | --max: 'kl=0,05' | kvsim pick --db s.db --max kl=0,05
2 | --min-acc 70 | kvsim pick --db s.db --min-acc 70
2 | --max-bytes: '40 MB' | kvsim pick --db s.db --max-bytes '40 MB'
2 | --max-bytes: '-1' | kvsim pick --db s.db --max-bytes -1
2 | --context 0 | kvsim pick --db s.db --max kl=1 -c 0
2 | --context | kvsim pick --db s.db --max kl=1 -c 128,2048
2 | --confidence 95 | kvsim pick --db s.db --max kl=1 --confidence 95
2 | did you mean 'llama.cpp' | kvsim pick --db s.db --max kl=1 --for llamacpp
2 | is named 'nowhere' | kvsim pick --db s.db --max kl=1 -d nowhere
2 | 'inlin' is not one of | kvsim pick --db s.db --max kl=1 --mode inlin
1 | no such store | kvsim pick --max kl=1 --db nothing.db
1 | no outcomes of fidelity exact | kvsim pick --max kl=1 --db f.db
1 | of that recording and mode | kvsim pick --max kl=1 --db s.db --digest zzz
1 | served as it is by vllm | kvsim pick --max kl=1 --db s.db --for vllm
1 | the nearest is | kvsim pick --max kl=1e-9 --db s.db
# export
2 | --to RUNTIME is needed | kvsim export static:bits=4
2 | did you mean 'vllm' | kvsim export static:bits=4 --to vlm --shape 135m
2 | there are llama.cpp, ik_llama.cpp | kvsim export static:bits=4 --to sglang-server-x --shape 135m
2 | --shape: how many layers | kvsim export static:bits=4 --to vllm
2 | '9b' is no shape | kvsim export static:bits=4 --to vllm --shape 9b
2 | '30x3' is no shape | kvsim export static:bits=4 --to vllm --shape 30x3
2 | did you mean 'static' | kvsim export statik:bits=4 --to vllm --shape 135m
2 | does not offer 7 bits | kvsim export static:bits=7 --to vllm --shape 135m
2 | decides by tokens | kvsim export threshold:quantiles=0.5,bits=4/8 --to vllm --shape 135m
2 | evicts tokens is no plan | kvsim export sinks:keep=1,window=1@sym --to vllm -t t --no-exact
2 | decides by tokens | kvsim export h2o --to vllm --shape 135m
2 | SPEC | kvsim export --to vllm --shape 135m
1 | does not serve it as it is | kvsim export layerwise:k=8/4@asym --to llama.cpp --shape 135m --strict
1 | nowhere/p.sh: cannot be written | kvsim export static:bits=4 --to vllm --shape 135m -o nowhere/p.sh
1 | nothing: is not a trace folder | kvsim export static:bits=4 --to vllm -t nothing -m good.gguf
1 | blocks of 32 do not fit | kvsim export static:bits=4@q4_0 --to vllm --shape 4x2x40
1 | codes no heads of 40 values | kvsim export static:bits=4@sym --to llama.cpp --shape 4x2x40
1 | codes at 8 bits at most | kvsim export static:bits=16@fp16 --to kvtuner --shape 135m
2 | --scales: they are measured on a recording | kvsim export static:bits=8@fp8_e4m3 --to vllm --shape 135m --scales x.st
2 | --scales: llama.cpp takes none with q4_0 q5_0 q8_0 | kvsim export static:bits=8@q8_0 --to llama.cpp -t t --no-exact --scales x.st
2 | --scales: vllm takes none with int8_per_token_head | kvsim export static:bits=8@sym --to vllm -t t --no-exact --scales x.st
1 | nowhere/x.st: cannot be written | kvsim export static:bits=8@fp8_e4m3 --to vllm -t t --no-exact --scales nowhere/x.st
2 | --items: 0-99 | kvsim export static:bits=4 --to vllm -t t -m good.gguf --items 0-99
# import
1 | nothing.sh: cannot be opened | kvsim import nothing.sh
1 | folder: is not a plain file | kvsim import folder
1 | loop.plan | kvsim import loop.plan
1 | looks like no plan | kvsim import hello.txt
1 | looks like no plan | kvsim import empty.txt
1 | zero.sh: line 1 | kvsim import zero.sh
2 | none is named 'tgi' | kvsim import type.sh --from tgi
1 | no cache type is named 'q9_1' | kvsim import type.sh
1 | a quotation mark is not closed | kvsim import quote.sh
1 | a word holds one of | kvsim import pipe.sh
1 | -ctk stands without a value | kvsim import cut.sh
1 | no format of kvsim holds together: q4_0 and q4_1 | kvsim import pair.sh
1 | q6_0 has no format in kvsim | kvsim import fork.sh
1 | quantized values need flash attention | kvsim import flash.sh
1 | not how many the model has | kvsim import first.sh
1 | more than the model's 2 layers | kvsim import first.sh --shape 2x2x32
1 | nbits: a whole number from 1 to 8 | kvsim import nbits.json
1 | nbits: a whole number from 1 to 8 | kvsim import text.json
1 | cut.json: line 1 is not JSON | kvsim import cut.json
1 | is JSON and no object | kvsim import list.json --from openvino
1 | 'u9' is no precision | kvsim import u9.json
1 | of different groups | kvsim import groups.json
1 | NVFP4 has no format in kvsim | kvsim import nvfp4.json
1 | beyond the model's 2 layers | kvsim import layer.json --shape 2x2x32
1 | holds 1 layers, and the model has 2 | kvsim import short.yaml --shape 2x2x32
1 | quoted.yaml: line 1: a key in quotes | kvsim import quoted.yaml
1 | layer 0 has no nbits_value | kvsim import half.yaml
1 | minus.yaml: line 1: a width is none of | kvsim import minus.yaml
1 | again.yaml: line 2: a width is given twice | kvsim import again.yaml
1 | '7' is none of 2, 3, 4, 5, 6, 8 | kvsim import seven.sh
1 | groups of 64 do not divide heads of 32 | kvsim import group.sh --shape 2x2x32
1 | 'int5' has no format in kvsim | kvsim import int5.sh
1 | '2' is no layer from 0 to 1 | kvsim import skip.sh --shape 2x2x32
1 | holds no cache_implementation | kvsim import u9.json --from transformers
ROWS
check "issue 16: there are 40 rows or more ($rows)" test "$rows" -ge 40
check 'issue 16: no mistake changed the store' cmp s.db before.db
finish
