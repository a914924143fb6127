# SPDX-License-Identifier: Apache-2.0
# Rebuilds the figures of the README and of reports/*.md: figures.sh DEMO-FOLDER [STORE], with BUILD in the environment.
# The frontier comes from what `make demo` made; the study's figure from work/study, where the commands of fidelity.md
# leave it, that of learned cells from work/cells, of families from work/families, of generation from work/generation;
# reports/figures/studies.sh draws those whose numbers stand in a page; the picture is the first screen of the report of
# STORE (default: the demo's).
set -eu
demo=$1 store=${2:-$1/demo.db} to=reports/figures
sh reports/figures/studies.sh
out=$demo/figures study=work/study cells=work/cells/report
cp "$demo/report/frontier_bits.svg" "$to/"
if [ -f "$study/fidelity.svg" ]; then
    cp "$study/fidelity.svg" "$to/"
else
    echo "no $study/fidelity.svg (reports/fidelity.md says how to make it): $to/fidelity.svg stays"
fi
if [ -f "$cells/frontier_bits.svg" ]; then
    cp "$cells/frontier_bits.svg" "$to/cells.svg"
else
    echo "no $cells/frontier_bits.svg (reports/cells.md says how to make it): $to/cells.svg stays"
fi
if [ -f work/generation/figure/generation.svg ]; then
    cp work/generation/figure/generation.svg "$to/"
else
    echo "no work/generation/figure/generation.svg (reports/generation.md says how to make it): $to/generation.svg stays"
fi
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    echo "no Chromium (package chromium): $to/report.png stays"
    exit 0
fi
"$BUILD/kvsim" report -q --db "$store" -o "$out"
page=$(cd "$out" && pwd)/index.html
"$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$out/profile" --window-size=1200,1000 \
    --screenshot="$out/report.png" "file://$page" 2>/dev/null
rm -rf "$out/profile"
[ "$(wc -c <"$out/report.png")" -lt 300000 ] || {
    echo "$out/report.png is larger than 300 KB" >&2
    exit 1
}
cp "$out/report.png" "$to/"
