# SPDX-License-Identifier: Apache-2.0
# Installs what was built. Usage: install.sh DESTDIR+PREFIX PREFIX VERSION BUILD LIBRARIES
# Headers keep their places under include/kvsim, because they include each other from there.
set -eu
to=$1 prefix=$2 version=$3 build=$4 libraries=$5
mkdir -p "$to/bin" "$to/lib/pkgconfig" "$to/include/kvsim" "$to/share/man/man1"
install -m 755 "$build/kvsim" "$to/bin/kvsim"
install -m 644 "$build/libkvsim.a" "$to/lib/libkvsim.a"
sed "s/@VERSION@/$version/" sim/cli/kvsim.1 >"$to/share/man/man1/kvsim.1"
chmod 644 "$to/share/man/man1/kvsim.1"

# The headers that a program is meant to include, and those that they include.
headers='policies/policy.h sim/base/util.h sim/base/args.h sim/base/assets.h sim/quant/format.h sim/quant/code.h
    sim/model/model.h sim/model/forward.h sim/model/adjoint.h sim/cache/cache.h sim/cache/decode.h
    traces/trace.h traces/tasks.h traces/record.h sim/replay/replay.h sim/cost/cost.h analysis/store.h analysis/stats.h'
done=' '
set -- $headers
while [ $# -gt 0 ]; do
    header=$1
    shift
    case $done in *" $header "*) continue ;; esac
    done="$done$header "
    mkdir -p "$to/include/kvsim/${header%/*}"
    install -m 644 "$header" "$to/include/kvsim/$header"
    set -- "$@" $(sed -n 's/^#include "\(.*\)".*/\1/p' "$header")
done

cat >"$to/lib/pkgconfig/kvsim.pc" <<END
prefix=$prefix
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: kvsim
Description: replays KV-cache precision policies against a recorded language model
Version: $version
Cflags: -I\${includedir}/kvsim
Libs: -L\${libdir} -lkvsim $libraries
END
chmod 644 "$to/lib/pkgconfig/kvsim.pc"
