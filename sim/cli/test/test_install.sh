# SPDX-License-Identifier: Apache-2.0
# What `make install` puts where, and that a stranger's program builds on it.
root=$(pwd)
. sim/cli/test/lib/tap.sh
cat >user.c <<'C'
#include <kvsim/policies/policy.h>
#include <kvsim/sim/quant/format.h>
#include <stdio.h>

int main(void) {
    const struct kv_format_setting setting = {.shape = {.n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 64}};
    struct kv_format *f;
    struct kv_error e = {0};
    if (kv_format_open(&f, "sym", &setting, &e)) return puts(e.msg), 1;
    printf("%s\n", f->type->name);
    kv_format_close(f);
    return 0;
}
C
staged=$work/stage/opt/kv
(cd "$root" && sh sim/base/install.sh "$staged" /opt/kv 1.2.3 "$build") >install.log 2>&1
check 'everything is put below DESTDIR and PREFIX' grep -qx "installed kvsim 1.2.3 in $staged" install.log
check 'the program runs from there' "$staged/bin/kvsim" version
check 'the pkg-config file names the prefix and the version' \
    sh -c "grep -qx prefix=/opt/kv '$staged/lib/pkgconfig/kvsim.pc' && grep -qx 'Version: 1.2.3' '$staged/lib/pkgconfig/kvsim.pc'"
sections_missing() {
    "$kvsim" --help | awk '/^  [a-z][a-z-]*  / {print toupper($1)}' | sed 's/-/\\-/g' | while IFS= read -r command; do
        grep -qxF ".SH KVSIM $command" "$staged/share/man/man1/kvsim.1" || echo "$command"
    done
}
check 'the man page has a section for each command' test -z "$(sections_missing)"
sanitizer=$(nm "$staged/lib/libkvsim.a" 2>/dev/null | grep -o '__asan_init\|__tsan_init\|__ubsan_handle' | head -n 1)
if [ -n "$sanitizer" ]; then
    skip 'a program builds on the installed library' 'built with a sanitizer'
else
    flags=$(sed -n 's/^Cflags: //p' "$staged/lib/pkgconfig/kvsim.pc" | sed "s|\${includedir}|$staged/include|g")
    libs=$(sed -n 's/^Libs: //p' "$staged/lib/pkgconfig/kvsim.pc" | sed "s|\${libdir}|$staged/lib|g")
    # shellcheck disable=SC2086
    check 'a program builds on the installed headers and library alone' ${CC:-cc} -std=c17 $flags user.c -o user $libs
    check 'and runs' sh -c 'test "$(./user)" = sym'
fi
finish
