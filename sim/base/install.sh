# SPDX-License-Identifier: Apache-2.0
# Installs program, library, headers, man page and pkg-config file.
#
#   install.sh WHERE PREFIX VERSION BUILD    WHERE is DESTDIR and PREFIX together; PREFIX is what
#                                            the pkg-config file will say
set -eu
where=$1 prefix=$2 version=$3 build=$4
libs=$(sed -n 's/^LDLIBS := //p' Makefile)

mkdir -p "$where/bin" "$where/lib/pkgconfig" "$where/share/man/man1" "$where/include/kvsim"
install -m 755 "$build/kvsim" "$where/bin/kvsim"
install -m 644 "$build/libkvsim.a" "$where/lib/libkvsim.a"
for header in policies/*.h sim/base/*.h sim/model/*.h sim/quant/*.h sim/cache/*.h sim/replay/*.h sim/cost/*.h \
    traces/*.h analysis/*/*.h reports/*/*.h; do
    mkdir -p "$where/include/kvsim/$(dirname "$header")"
    install -m 644 "$header" "$where/include/kvsim/$header"
done
sh sim/cli/man.sh "$build/kvsim" "$version" >"$where/share/man/man1/kvsim.1"
chmod 644 "$where/share/man/man1/kvsim.1"
# Headers name each other from the root of the repository, hence the second include folder.
cat >"$where/lib/pkgconfig/kvsim.pc" <<PC
prefix=$prefix
includedir=\${prefix}/include
libdir=\${prefix}/lib

Name: kvsim
Description: Replays KV-cache precision policies against a recorded language model
Version: $version
Cflags: -I\${includedir} -I\${includedir}/kvsim
Libs: -L\${libdir} -lkvsim $libs
PC
echo "installed kvsim $version in $where"
