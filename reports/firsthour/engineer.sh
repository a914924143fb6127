# SPDX-License-Identifier: Apache-2.0
# An engineer's first hour: llama-bench's output in, a command line out. engineer.sh FOLDER [LLAMA-BENCH-FILE], with BUILD and MODEL;
# the file is the times to decide by, default the made-up ones beside reports/your-device.md. SHAPE (default 135m) is the model's;
# FORMAT=ggml asks for types without their rotation (LLAMA_ATTN_ROT_DISABLE=1).
. reports/firsthour/steps.sh
runs=${2:-reports/your-device/llama-bench.md} device=$dir/mine.json shape=${SHAPE:-135m}
served="static:k={4,8},v={4,8}@${FORMAT:-hadamard(ggml)}"
rm -rf "$dir/samples.trace" "$dir/served.db"

step "fit the latency model to $(basename "$runs")" "$kvsim" calibrate -q --runs "$runs" --device mine --out "$device"
show 'milliseconds of four cache types at 4096 tokens' "$kvsim" what-if f16 q8_0 kq8_0vq4_0 q4_0 --device "$device" --context 4096
done_with 'from the file to milliseconds'

step 'record 24 samples' "$kvsim" record -q -m "$model" -t samples --stride 6 --keep final -o "$dir/samples.trace"
step 'replay the four pairs that llama.cpp serves, exactly' "$kvsim" sweep -q "$dir/samples.trace" "$served" static:bits=16@fp16 \
    -m "$model" --db "$dir/served.db"
show 'the fastest that keeps 0.05 nats a token' "$kvsim" pick --db "$dir/served.db" --device "$device" --context 4096 --max kl=0.05 --for llama.cpp
picked=$(sed -n 's/ is the \(fastest\|only\).*//p' "$dir/answer")
[ "$picked" ] || { echo "pick names nothing" && exit 1; }
step 'write it as llama.cpp takes it' "$kvsim" export "$picked" --to llama.cpp --shape "$shape" -o "$dir/plan.sh"
show 'the line to type' cat "$dir/plan.sh"
show 'read back' "$kvsim" import "$dir/plan.sh" --shape "$shape"
done_with 'from the file to the line to type'
