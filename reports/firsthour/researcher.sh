# SPDX-License-Identifier: Apache-2.0
# A researcher's first hour: a policy of one's own against static storage and its own shuffle, as figure and as LaTeX table; then the
# same decided in Python. researcher.sh FOLDER, with BUILD and MODEL; PYTHON names an interpreter with numpy and safetensors.
. reports/firsthour/steps.sh
python=${PYTHON:-python3} db=$dir/mine.db trace=$dir/samples.trace
rm -rf "$trace" "$db" "$dir/page" "$dir/rare"

step 'record 24 samples' "$kvsim" record -q -m "$model" -t samples --stride 6 --keep final,kv -o "$trace"
sed 's/template/mine/g' policies/template.c >"$dir/mine.c" # here the policy is written
step 'build the policy, outside kvsim' "${CC:-cc}" -std=c17 -O2 -fPIC -shared -I. -o "$dir/mine.so" "$dir/mine.c"
step 'replay it beside static widths and its own shuffle' "$kvsim" sweep -q "$trace" 'static:bits={4,8,16}@sym' \
    --as "mine=$dir/mine.so:cut=16@sym" --as "mine, shuffled=shuffle($dir/mine.so:cut=16)@sym" -m "$model" --db "$db"
show 'the same items, paired: mine against static 4 bit' "$kvsim" diff mine static:bits=4@sym --db "$db"
show 'the table for the paper' "$kvsim" show --db "$db" --latex
cp "$dir/answer" "$dir/table.tex"
grep -q '\\toprule' "$dir/table.tex" && grep -q mine "$dir/table.tex"
if command -v gnuplot >/dev/null; then
    step 'figures and the page' "$kvsim" report -q --db "$db" -m "$model" -o "$dir/page"
    test -s "$dir/page/frontier_bits.svg"
else
    echo '      -- s  figures and the page: gnuplot is not installed'
fi
done_with 'from a policy in C to its figure and table'

if ! "$python" -c 'import numpy, safetensors, matplotlib' 2>/dev/null; then
    echo "      -- s  a policy in Python: $python has no numpy, safetensors and matplotlib"
    exit 0
fi
whole=0
mkdir "$dir/rare"
export PATH="${kvsim%/*}:$PATH" MPLBACKEND=svg
step 'record 6 samples' "$kvsim" record -q -m "$model" -t samples --stride 24 --keep final,kv -o "$dir/rare/samples.trace"
step 'decide in numpy, replay 11 plans, draw' "$python" reports/examples/decide.py "$dir/rare/samples.trace" "$model" "$dir/rare"
test -s "$dir/rare/lines.svg"
done_with 'from a policy in Python to its figure'
