# SPDX-License-Identifier: Apache-2.0
# The report's page of two recordings and two modes: its parts, its size, what it draws of a policy's
# decisions, and, where Chromium is installed, that a browser finds nothing to complain of.
root=$PWD
. sim/cli/test/lib/tap.sh
if ! command -v gnuplot >/dev/null; then
    skip 'the page' 'gnuplot is not installed'
    finish
fi
tiny good

"$kvsim" record -q -m good.gguf -t samples --stride 16 --keep final,kv,sens -o a.trace || exit 1
"$kvsim" record -q -m good.gguf -t samples --stride 24 --keep final -o b.trace || exit 1
fresh() {
    "$kvsim" sweep -q a.trace -m good.gguf --db s.db --mode inline,prefill 'static:bits={4,8}@sym' \
        'random:bits=2/8@sym' 'shuffle(random:bits=2/8):seed={0,1}@sym' layerwise:k=8/4,v=4@sym &&
        "$kvsim" sweep -q b.trace -m good.gguf --db s.db 'static:bits={4,8}@sym' 'random:bits=2/8@sym'
}
check 'a store of two recordings and two modes' fresh
check 'and of predictions' "$kvsim" sweep -q a.trace --fidelity fisher --db s.db 'static:bits={4,8}@sym'
check 'the report is written' "$kvsim" report -q --db s.db -m good.gguf -o r
count() { grep -o -e "$1" "$2" | wc -l; }
page=r/index.html
check 'with a section for each recording' test "$(count '<section id="t[0-9]*"' $page)" = 2
check 'a table for each mode' test "$(count '>effective bits<' $page)" = $((4 + 6))
check 'figures for each mode' test -s r/frontier_bits.svg -a -s r/frontier_bits-2.svg -a -s r/frontier_bits-3.svg -a -s r/frontier_bits-4.svg -a ! -e r/frontier_bits-5.svg
check 'a section for each policy' test "$(count '<article id="p[0-9]*"' $page)" = 6
check 'the tokens of an item for each that tells tokens apart' test "$(count '<div class="tokens">' $page)" = 3
check 'and the policy against both seeds of its shuffle' grep -q 'and 1 more' $page
order_of() { grep -o '<section id="[a-z]*' $page | sed 's/.*"//' | tr -d '0-9' | uniq | tr '\n' ' '; }
check 'it leads with an answer: which policy, at what cost, how sure' \
    grep -q '<p class="answer">On samples, of 3 policies.*nats</b> <small>\[.* bits</b> .* ms</b> a token at 2048 tokens .* resamples' $page
check 'results come first, policies behind, verdicts after that' test "$(order_of)" = 't policies verdicts assumptions provenance rebuild '
check 'tables begin with divergence, bits and milliseconds' grep -q \
    '#</th><th scope="col">policy</th><th scope="col">KL, nats</th><th scope="col">effective bits</th><th scope="col">ms at' $page
check 'each figure is there for a narrow screen too' test "$(count 'class="narrow"' $page)" = "$(count 'class="broad"' $page)"
check 'it asks for nothing from elsewhere' sh -c "! grep -qE 'https?://|src=\"[^d]|@import|url\\((\"|h)' $page"
check 'and stays below 3 MB' test "$(wc -c <$page)" -lt 3000000
check 'results go by the names of lm-evaluation-harness' \
    grep -q '"acc_norm_stderr,none": ' r/results.json
check 'both ways' sh -c "head -n 1 r/results.tsv | grep -q '	acc,none	acc_stderr,none	'"
"$kvsim" sweep -q a.trace -m good.gguf --db some.db --items 2-6 'random:bits=2/8@sym' 'static:bits=4@sym'
"$kvsim" report -q --db some.db -m good.gguf -o some
check 'issue 13 A14: widths and the drawn item are of the items of the results' \
    grep -q 'As decided on all 5 of the 5 items that its results of' some/index.html
check 'and the page says which bar is of what' grep -q 'The bar of tokens is of these items' some/index.html
check 'issue 13 A13: the page says at what length quality was measured' \
    grep -q 'Quality was measured at [0-9]* tokens (mean), not ' some/index.html
"$kvsim" report -q --db s.db -m good.gguf -o again
check 'the same store makes the same page' cmp r/index.html again/index.html
mv a.trace c.trace
check 'without the recording it says why it draws no tokens' sh -c \
    "'$kvsim' report -q --db s.db -o gone && grep -q 'the recording is not here' gone/index.html"
check 'which --trace mends' sh -c \
    "'$kvsim' report -q --db s.db -m good.gguf --trace c.trace -o r2 && cmp r2/index.html r/index.html"
check 'and show, for bits by layer' sh -c \
    "'$kvsim' show --db s.db --layers --trace c.trace,b.trace >layers.txt 2>said.log && ! grep 'is not here' said.log"
check 'figures come as PDF too' sh -c \
    "'$kvsim' report -q --db s.db --format pdf -o p && head -c 5 p/frontier_bits.pdf | grep -q %PDF-"
expect 2 "kvsim: --format: 'gif' is not one of svg, png, pdf" 'but not as GIF' report --db s.db --format gif -o g

# ---- figures: what is written in them can be read

crossings=$build/reports/draw/test/crossings
check 'no name is crossed in any figure of the report' sh -c "'$crossings' r/*.svg >found.txt"
sed 's/^/# /' found.txt | tail -n 3
mkdir drawn
"$kvsim" quant -q sym asym 'hadamard(sym)' q4_0 q8_0 kivi hqq zipcache --bits 2,3,4,8 --gaussian -o drawn >/dev/null &&
    "$kvsim" atlas -q c.trace -o drawn >/dev/null &&
    "$kvsim" headroom -q c.trace -m good.gguf --bits 4 --train 0-3 --items 4-8 -o drawn >/dev/null &&
    "$kvsim" calibrate -q --runs "$root/sim/cost/devices/epyc-avx2-2core-q4.json" --figures drawn >/dev/null
check 'nor in those of other verbs' sh -c "test -s drawn/headroom.svg -a -s drawn/device_lines.svg && '$crossings' drawn/*.svg >found.txt"
sed 's/^/# /' found.txt | tail -n 3
check "figures of studies show the numbers of their pages' tables" sh -c \
    "cd '$root' && sh reports/figures/studies.sh --data '$work/studies' && for f in '$work'/studies/*.tsv; do cmp \$f reports/figures/\${f##*/} || exit 1; done"
check 'nor in those of the house' sh -c "'$crossings' '$root'/reports/figures/*.svg >found.txt"
sed 's/^/# /' found.txt | tail -n 3
# Spoiled: every name of the first panel stands where its point is.
mkdir spoiled
cp r/frontier_bits.gp spoiled/
awk -F '\t' -v OFS='\t' 'NR > 1 && $1 == 1 { $10 = $2; $11 = $3 } { print }' r/frontier_bits.tsv >spoiled/frontier_bits.tsv
check 'script and data beside a figure draw it again' sh -c "cd spoiled && gnuplot frontier_bits.gp && test -s frontier_bits.svg"
check 'names moved onto points are found' sh -c "! '$crossings' spoiled/frontier_bits.svg >found.txt && grep -q 'is crossed by a point' found.txt"
# Spoiled: a word moved up by a line, onto a line of the figure.
awk '!moved && /text-anchor="start"/ && /translate\(16.00,/ { sub(/translate\(16.00,[0-9.]*/, "translate(400.00,390.00"); moved = 1 } { print }' \
    r/frontier_bits.svg >spoiled/title.svg
check 'a title moved onto an axis is found' sh -c "! '$crossings' spoiled/title.svg >found.txt && grep -q 'is crossed by a line' found.txt"

# ---- for a paper

"$kvsim" report -q --db s.db -m good.gguf --claims '' --rows 'static:bits=4@sym' --rows 'random*' --as 'four bits=static:bits=4@sym' \
    --panel kl-bits --size 84mm --format svg,pdf -o paper
check 'a panel for a paper has its rows under their names' sh -c "cut -f 9 paper/kl-bits.tsv | grep -qx 'four bits'"
check 'and no others' sh -c "! grep -q 'layerwise\|bits=8' paper/kl-bits.tsv"
check 'it is 84 mm wide' sh -c "strings -a paper/kl-bits.pdf | grep -q 'MediaBox \[ 0 0 23[89]'"
check 'its PDF brings its fonts' sh -c "strings -a paper/kl-bits.pdf | grep -q /FontFile"
check 'and nothing in it is crossed' sh -c "'$crossings' paper/*.svg >found.txt"
sed 's/^/# /' found.txt | tail -n 3
"$kvsim" report -q --db s.db -m good.gguf --claims '' --panel acc-ms --size 160x90mm --format svg -o high
check 'a height is kept to' grep -q 'width="160mm" height="90' high/acc-ms.svg
expect 2 "kvsim: --size: '84' is not a width such as 84mm, or 84x60mm, 8.4cm, 3.3in, of 40 to 600 mm" 'a size without its unit is refused' \
    report --db s.db --size 84 -o g
expect 2 "kvsim: --panel: 'bits' is not one of kl-bits, acc-bits, kl-ms, acc-ms" 'so is a panel that there is not' report --db s.db --panel bits -o g
expect 1 'kvsim: --rows: the store holds no row of mlp*' 'and a row that there is not' report --db s.db --rows 'mlp*' -o g

check 'training draws its learning curve' sh -c \
    "'$kvsim' train mlp c.trace -q --epochs 2 --latency 0,0.2,0.5,1 --quality 0,0.5,0.9,1 -o w.safetensors --figures curve && grep -q 'Learning curve of w' curve/w.svg"

# ---- in a browser

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
if [ -z "$browser" ]; then
    skip 'the page in a browser' 'Chromium is not installed'
    finish
fi
# dom FILE: the document as the browser has it, its complaints in said.log
dom() {
    timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --enable-logging=stderr \
        --dump-dom "file://$work/$1" 2>said.log
}
silent() { ! grep CONSOLE said.log; }
dom $page >with.html
check 'a browser reads the page' grep -q '</html>' with.html
check 'and finds nothing to complain of' silent
check 'heads of tables are buttons' test "$(count '<button type="button">' with.html)" -gt 10
# Headless Chromium reads documents by script, so what it gets is the page without its own.
sed '/^<script>$/,/^<\/script>$/d' $page >bare.html
check 'it has one script' test "$(count '<script' $page)" = 1 -a "$(count '<script' bare.html)" = 0
dom bare.html >without.html
check 'without it neither' silent
check 'where tables are complete' test "$(count '<tr' with.html)" = "$(count '<tr' without.html)"
check 'and have no buttons that do nothing' test "$(count '<button' without.html)" = 0
# Chromium's windows are at least 500 pixels wide.
sed 's|</body>|<script>document.title=[].filter.call(document.querySelectorAll("figure,figure div"),function(f){return f.scrollWidth>f.clientWidth}).length+" "+(document.documentElement.scrollWidth>innerWidth)+" "+[].filter.call(document.querySelectorAll(".narrow"),function(f){return f.clientWidth>0}).length</script></body>|' $page >fits.html
fits() { # fits WIDTH: figures that scroll, whether the page does, how many narrow ones are seen
    timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --window-size="$1",900 \
        --dump-dom "file://$work/fits.html" 2>/dev/null | sed -n 's|.*<title>\([^<]*\)</title>.*|\1|p'
}
check 'nothing scrolls sideways on a small screen, which has the narrow figures' test "$(fits 420)" = "0 false $(count 'class="narrow"' $page)"
check 'nor on a large one, which has the broad ones' test "$(fits 1400)" = '0 false 0'
# A click on the head of effective bits, then another.
click='var b=[].filter.call(document.querySelectorAll("table.sort button"),function(x){return /^effective/.test(x.textContent)})[0]'
order() { # order CLICKS: the first table's numbers of rows
    sed "s|</body>|<script>$click;for(var i=0;i<$1;i++)b.click();document.title=[].map.call(b.closest('table').tBodies[0].rows,function(r){return r.cells[0].textContent}).join(' ')</script></body>|" $page >click.html
    dom click.html | sed -n 's|.*<title>\([^<]*\)</title>.*|\1|p'
}
first=$(order 0)
check 'rows come widest first' test "$first" = '1 2 3 4 5 6'
check 'a click on bits sorts them the other way' test "$(order 1)" != "$first"
check 'another brings them back' test "$(order 2)" = "$first"
sed "s|</body>|<script>$click;b.focus();b.click();document.title=(document.activeElement===b)+' '+b.tabIndex+' '+b.closest('th').getAttribute('aria-sort')</script></body>|" $page >keys.html
check 'by keyboard too: the button is reached, keeps the focus and says the order' \
    sh -c "grep -q '<title>true 0 ascending</title>' keys.txt" "$(dom keys.html >keys.txt)"
finish
