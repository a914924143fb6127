# SPDX-License-Identifier: Apache-2.0
# What `make install` puts in place works from there: the program, the manual page, and the library for a
# program of someone else's.
root=$PWD
. sim/cli/test/lib/tap.sh
libraries='-lopenblas -lgsl -lsqlite3 -ljansson -lpcre2-8 -lxxhash -lz -ldl -lm -pthread'
install_to() { (cd "$root" && sh sim/base/install.sh "$work/root/usr" /usr 1.2.3 "$build" "$libraries"); }

check 'it installs under DESTDIR' install_to
check 'the program runs from there' root/usr/bin/kvsim version
check 'the manual page carries the version' grep -q '"kvsim 1.2.3"' root/usr/share/man/man1/kvsim.1
check 'the pkg-config file names the final prefix' grep -qx 'prefix=/usr' root/usr/lib/pkgconfig/kvsim.pc
for header in $(cd root/usr/include/kvsim && find . -name '*.h'); do echo "#include \"$header\""; done >all.c
check 'every header that is installed is complete' ${CC:-cc} -std=gnu17 -fsyntax-only -Iroot/usr/include/kvsim all.c

cat >own.c <<'END'
#include "sim/quant/format.h"
int main(void) {
    struct kv_format_setting setting = {{1, 1, 1, 64, 64, 64, 64, 64}, KV_ORDER_GGML};
    struct kv_error e;
    struct kv_format *f;
    if (kv_format_open(&f, "sym", &setting, &e)) return 1;
    puts(f->canonical);
    kv_format_close(f);
    return 0;
}
END
if [ -n "${KVSIM_TEST_LIGHT:-}" ]; then
    skip 'a program of its own links with it' 'the library wants its sanitizer'
else
    check 'a program of its own links with it' ${CC:-cc} -std=gnu17 -Iroot/usr/include/kvsim own.c -o own \
        -Lroot/usr/lib -lkvsim $libraries
    check 'and runs' sh -c './own | grep -q ^sym:'
fi
finish
