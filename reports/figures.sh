# SPDX-License-Identifier: Apache-2.0
# Rebuilds the figures of the README and of reports/*.md: figures.sh DEMO-FOLDER [STORE], with BUILD in the environment.
# The frontier comes from what `make demo` made, others from what the commands of their pages left in work/;
# reports/figures/studies.sh draws those whose numbers stand in a page; the picture is the first screen of the report of
# STORE (default: the demo's).
set -eu
demo=$1 store=${2:-$1/demo.db} to=reports/figures
sh reports/figures/studies.sh
out=$demo/figures
cp "$demo/report/frontier_bits.svg" "$to/"
take() { # take FILE NAME PAGE: what the commands of a page left becomes the figure NAME
    if [ -f "$1" ]; then
        cp "$1" "$to/$2"
    else
        echo "no $1 (reports/$3 says how to make it): $to/$2 stays"
    fi
}
take work/study/fidelity.svg fidelity.svg fidelity.md
take work/cells/report/frontier_bits.svg cells.svg cells.md
take work/cells/ms/frontier_latency.svg cells_ms.svg cells.md
take work/generation/figure/generation.svg generation.svg generation.md
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
