# SPDX-License-Identifier: Apache-2.0
# Installs program, library, the headers that sim/kvsim.h names, examples, man pages, bash completion and
# pkg-config file.
#
#   install.sh WHERE PREFIX VERSION BUILD    WHERE is DESTDIR and PREFIX together; PREFIX is what
#                                            the pkg-config file will say
set -eu
where=$1 prefix=$2 version=$3 build=$4
libs=$(sed -n 's/^LDLIBS := //p' Makefile)
headers=$("${CC:-cc}" -std=c17 -I. -MM -x c sim/kvsim.h | tr ' \\' '\n\n' | grep '\.h$')

scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT
object=$scratch/kvsim.o

mkdir -p "$where/bin" "$where/lib/pkgconfig" "$where/share/man/man1" "$where/share/man/man7" "$where/share/doc/kvsim/examples"
install -m 755 "$build/kvsim" "$where/bin/kvsim"
# One object whose only names are those of the interface: what else the library holds is its own.
ld -r --whole-archive "$build/libkvsim.a" -o "$object"
objcopy --keep-global-symbols=sim/kvsim.symbols "$object"
rm -f "$where/lib/libkvsim.a"
ar rcs "$where/lib/libkvsim.a" "$object"
chmod 644 "$where/lib/libkvsim.a"
install -m 644 sim/examples/*.c "$where/share/doc/kvsim/examples"
# In the repository headers name each other from its root, where they are installed from <kvsim>.
for header in $headers; do
    to=$where/include/kvsim/$header
    [ "$header" != sim/kvsim.h ] || to=$where/include/kvsim/kvsim.h
    mkdir -p "$(dirname "$to")"
    sed 's|^#include "\([^"]*\)"|#include <kvsim/\1>|' "$header" >"$to"
    chmod 644 "$to"
done
sh sim/base/man.sh "$build/kvsim" "$version" >"$where/share/man/man1/kvsim.1"
sh sim/base/man.sh "$build/kvsim" "$version" specs >"$where/share/man/man7/kvsim-specs.7"
chmod 644 "$where/share/man/man1/kvsim.1" "$where/share/man/man7/kvsim-specs.7"
mkdir -p "$where/share/bash-completion/completions"
"$build/kvsim" help --bash >"$where/share/bash-completion/completions/kvsim"
chmod 644 "$where/share/bash-completion/completions/kvsim"
# The second folder serves policies built elsewhere, whose template names "policies/policy.h".
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
