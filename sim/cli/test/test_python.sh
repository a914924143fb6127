# SPDX-License-Identifier: Apache-2.0
# What Python reads and writes (issue 16): a policy decided in numpy, replayed and drawn (reports/examples/decide.py), results in
# lm-evaluation-harness, plans under their runtimes' own parsers. PYTHON names another interpreter than python3; what it
# lacks is skipped by name (packages and versions: sim/test/reference/README.md).
root=$(pwd)
. sim/cli/test/lib/tap.sh
python=${PYTHON:-python3}

# has NAME MODULE...: whether the interpreter imports them; else NAME is skipped.
has() {
    name=$1 lacks=
    shift
    for module in "$@"; do "$python" -c "import $module" 2>/dev/null || lacks="$lacks $module"; done
    [ "$lacks" ] || return 0
    skip "$name" "$python has no$lacks"
    return 1
}

tiny good
"$kvsim" record -q -m good.gguf -t samples --stride 12 --keep final,kv -o t || exit 1

# ---- a policy decided in numpy

# row SPEC: without what names it, as out/lines.json and kvsim have it
row() { "$kvsim" replay -q t "$1" -m good.gguf --json | "$python" -c "$read" ; }
read='import json, sys
for row in json.load(sys.stdin): row.pop("spec"), row.pop("label"); print(json.dumps(row, sort_keys=True))'
of_script='import json
for row in list(json.load(open("out/lines.json")).values())[0]: row.pop("spec"), row.pop("label"); print(json.dumps(row, sort_keys=True))'
if has 'a policy decided in numpy' numpy safetensors; then
    mkdir out
    PATH=$build:$PATH MPLBACKEND=svg "$python" "$root/reports/examples/decide.py" t good.gguf out >py.log 2>&1
    code=$?
    if has 'and draws its lines' matplotlib; then
        check 'the script runs' test $code = 0
        check 'and draws its lines' grep -q '<svg' out/lines.svg
    fi
    sed 's/^/# /' py.log
    "$python" -c "$of_script" >script
    row static:k=2,v=2@asym >narrow
    row static:k=8,v=2@asym >wide
    check 'no key wide: every number of static:k=2,v=2' sh -c 'head -n 1 script | cmp - narrow'
    check 'every key wide: every number of static:k=8,v=2' sh -c 'tail -n 1 script | cmp - wide'
    check 'each step between holds more bits' "$python" -c '
import json
bits = [row["nominal_bits"] for row in list(json.load(open("out/lines.json")).values())[0]]
assert bits == sorted(set(bits)) and bits[0] == 2 and bits[-1] == 5, bits'
fi

# ---- scales of an FP8 cache, as a checkpoint's tensors

scales='import json, numpy as np
from safetensors.numpy import load_file
manifest, got = json.load(open("t/manifest.json")), load_file("fp8.safetensors")
shards = [load_file("t/" + shard["file"]) for shard in manifest["shards"]]
for x in "kv":
    largest = np.abs(np.concatenate([shard[x] for shard in shards]).astype(np.float32)).max(axis=(0, 2, 3))
    for layer, value in enumerate(largest / np.float32(448)):
        scale = got.pop(f"model.layers.{layer}.self_attn.{x}_proj.{x}_scale")
        assert scale.shape == () and scale.dtype == np.float32 and scale == value, (x, layer, scale, value)
assert not got, got'
if has 'scales of an FP8 cache' numpy safetensors; then
    "$kvsim" export static:bits=8@fp8_e4m3 --to modelopt -t t --no-exact --scales fp8.safetensors -q >/dev/null
    check "scales of an FP8 cache are numpy's absmax / 448 of each layer" "$python" -c "$scales"
fi

# ---- results.json under lm-evaluation-harness

if has "results under lm-evaluation-harness's make_table and its type of results" lm_eval pytablewriter pydantic; then
    "$kvsim" sweep -q t 'static:bits={2,4}@asym' 'shuffle(static:k=4,v=2)@sym' -m good.gguf --seed 7 --db s.db
    "$kvsim" report -q --db s.db -o r
    check "lm-evaluation-harness's make_table prints results.json, its EvalResults types it, and spoiled copies are refused" \
        "$python" "$root/sim/test/reference/check_harness.py" r/results.json
fi

# ---- plans under their runtimes' parsers

plan=layerwise:k=5/5/6/5/4,v=4/3/3/4/3@asym:group=32
while read -r target modules; do
    has "a plan for $target" $modules || continue
    "$kvsim" export $plan --to $target --shape 5x3x64 -o $target.plan -q >/dev/null
    check "a plan for $target is accepted by $modules, and spoiled copies are refused" \
        "$python" "$root/sim/test/reference/check_plans.py" $target=$target.plan
done <<'TARGETS'
transformers transformers
openvino openvino
mlx-lm mlx.core
kvtuner yaml
modelopt json
TARGETS
finish
