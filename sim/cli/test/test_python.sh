# SPDX-License-Identifier: Apache-2.0
# reports/examples/decide.py: a policy decided in numpy, replayed and drawn (issue 16, point 4). PYTHON names another
# interpreter than python3.
root=$(pwd)
. sim/cli/test/lib/tap.sh
python=${PYTHON:-python3}
if ! "$python" -c 'import numpy, safetensors' 2>/dev/null; then
    skip 'a policy decided in numpy' "$python has no numpy and safetensors"
    finish
fi
tiny good
"$kvsim" record -q -m good.gguf -t samples --stride 12 --keep final,kv -o t || exit 1
mkdir out
PATH=$build:$PATH MPLBACKEND=svg "$python" "$root/reports/examples/decide.py" t good.gguf out >py.log 2>&1
code=$?
if "$python" -c 'import matplotlib' 2>/dev/null; then
    check 'the script runs' test $code = 0
    check 'and draws its lines' grep -q '<svg' out/lines.svg
else
    skip 'and draws its lines' "$python has no matplotlib"
fi
cat py.log | sed 's/^/# /'

# rows SPEC: without the spec's name, as out/lines.json and kvsim have them
row() { "$kvsim" replay -q t "$1" -m good.gguf --json | "$python" -c "$read" ; }
read='import json, sys
for row in json.load(sys.stdin): row.pop("spec"); print(json.dumps(row, sort_keys=True))'
of_script='import json
for row in list(json.load(open("out/lines.json")).values())[0]: row.pop("spec"); print(json.dumps(row, sort_keys=True))'
"$python" -c "$of_script" >script
row static:k=2,v=2@asym >narrow
row static:k=8,v=2@asym >wide
check 'no key wide: every number of static:k=2,v=2' sh -c 'head -n 1 script | cmp - narrow'
check 'every key wide: every number of static:k=8,v=2' sh -c 'tail -n 1 script | cmp - wide'
check 'each step between holds more bits' "$python" -c '
import json
bits = [row["nominal_bits"] for row in list(json.load(open("out/lines.json")).values())[0]]
assert bits == sorted(set(bits)) and bits[0] == 2 and bits[-1] == 5, bits'
finish
