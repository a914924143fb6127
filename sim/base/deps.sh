# SPDX-License-Identifier: Apache-2.0
# Installs the named Debian packages that are missing, or prints the one line to type. Silent when all is there.
set -eu
command -v dpkg-query >/dev/null || { # another system: try what the packages are for
    cc -E -include gsl/gsl_rng.h -include sqlite3.h -include jansson.h -include xxhash.h \
        -x c /dev/null >/dev/null 2>&1 && exit 0
    echo "kvsim needs what Debian packages as: $*" >&2
    exit 1
}
missing=
for p in "$@"; do
    dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo='sudo -n'
if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    exec 9>"${TMPDIR:-/tmp}/kvsim-deps.lock" && flock 9 # make -j may ask twice at once; apt locks do not wait
    { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1 ||
        { tail -n 5 "$log" >&2; echo "type: apt-get install -y$missing" >&2; exit 1; }
    rm -f "$log"
else
    echo "packages are missing; type: sudo apt-get install -y$missing" >&2
    exit 1
fi
