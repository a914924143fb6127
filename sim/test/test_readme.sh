# SPDX-License-Identifier: Apache-2.0
# The README typed: every line of its `sh` blocks, in order, in a copy of the house that holds what a clean clone does. A tiny
# model stands in the place of the fetched one, and its recording in that of `make demo`'s; FIRSTHOUR=1 (`make firsthour`) types
# all of it with the model itself. Then the scripts of reports/firsthour/, and whether links of pages lead somewhere.
root=$PWD house_build=${BUILD:-build} real=${FIRSTHOUR:-} fetched=${MODEL:-data/SmolLM2-135M-Instruct.Q4_1.gguf}
. sim/cli/test/lib/tap.sh
case $fetched in /*) ;; *) fetched=$root/$fetched ;; esac
made=$build
copy_house "$root" || {
    skip 'the README is typed' 'not a git checkout'
    finish
}
unset KVSIM_MODEL MAKEFLAGS MFLAGS BUILD MODEL # of the make that runs this
mkdir -p data
model=data/SmolLM2-135M-Instruct.Q4_1.gguf
if [ "$real" ]; then
    [ -f "$fetched" ] || { echo "not ok - no $fetched (make model)" && exit 1; }
    ln -s "$fetched" $model
    find build -name '*.d' -exec sed -i "s#^$house_build/#build/#" {} +
else
    cp "$made/kvsim" build/ && "$made/sim/cli/test/make_gguf" good $model || exit 1
fi

# The demo's recording and store of the tiny model: policy cells is trained for another shape, so without it.
tiny_demo() {
    build/kvsim record -q -m $model -t samples --stride 6 --keep final,kv,sens -o work/demo/samples.trace &&
        grep -v '^cells' reports/demo.sweep >work/tiny.sweep &&
        build/kvsim sweep -q work/demo/samples.trace work/tiny.sweep --db work/demo/demo.db
}
awk '/^```/ { inside = $0 == "```sh"; next }
    inside { line = line $0; if (sub(/\\$/, "", line)) next
             gsub(/  +/, " ", line); sub(/ # .*/, "", line); print line; line = "" }' README.md >lines
[ "$(wc -l <lines)" -ge 20 ]
report $? "the README has $(wc -l <lines) lines to type"
drawn=$(command -v gnuplot)
while read -r line <&3; do
    case $line in
    apt-get* | *'git clone'*) skip "$line" 'needs root or a network' && continue ;;
    'make check'*) skip "$line" 'is what types this' && continue ;;
    'make demo'*) [ "$real" ] || { check "$line (a tiny model)" tiny_demo && continue; } ;;
    *'kvsim report'* | *'kvsim doctor'*) [ "$drawn" ] || { skip "$line" 'gnuplot is not installed' && continue; } ;;
    esac
    from=$(date +%s)
    case $line$real in *'--for llama.cpp'*db) skip "$line" 'heads of the tiny model are too short to be rotated' && continue ;; esac
    sh -eu -c "$line" >check.log 2>&1 </dev/null
    report $? "$line${real:+ ($(($(date +%s) - from)) s)}" || sed 's/^/# /' check.log
done 3<lines

# ---- first hours; one that is typed for a person shows what it took

[ "$real" ] || export SHAPE=2x2x32 FORMAT=ggml
for who in engineer researcher designer; do
    check "reports/firsthour/$who.sh" sh reports/firsthour/$who.sh "work/firsthour/$who"
    [ "$real" ] && sed 's/^/# /' check.log
done

# ---- pages

[ "$(wc -l <README.md)" -le 130 ]
report $? 'the README has at most 130 lines'
# PAGE LINK, of links that are neither addresses nor in code.
git ls-files '*.md' | xargs awk '
    FNR == 1 { code = 0 } /^```/ { code = !code } code || /^    / { next }
    { gsub(/`[^`]*`/, ""); gsub(/src="/, "]("); gsub(/"/, ")") # pictures with a width are HTML
      while (match($0, /\]\([^)]*\)/)) {
          link = substr($0, RSTART + 2, RLENGTH - 3); $0 = substr($0, RSTART + RLENGTH)
          if (link !~ /^[a-z]+:/) print FILENAME, link } }' >links
headings() { # as a page's anchors: lower case, no punctuation, hyphens for spaces
    sed -n 's/^##* //p' "$1" | tr 'A-Z ' 'a-z-' | sed 's/[^a-z0-9_-]//g'
}
while read -r page link; do
    file=${link%%#*} at=${page%/*}
    [ "$at" = "$page" ] && at=.
    file=${file:+$at/$file} && [ -e "${file:=$page}" ] || { echo "$page: $link" && continue; }
    case $link in *'#'*) headings "$file" | grep -qxF -- "${link#*#}" || echo "$page: $link" ;; esac
done <links >broken
[ "$(wc -l <links)" -ge 50 ] && [ ! -s broken ]
report $? "each of $(wc -l <links) links between pages leads somewhere" || sed 's/^/# /' broken
finish
