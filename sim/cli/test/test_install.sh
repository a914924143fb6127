# SPDX-License-Identifier: Apache-2.0
# What `make install` puts where, and that strangers' programs build and run on it.
root=$(pwd)
. sim/cli/test/lib/tap.sh
in_root() { (cd "$root" && "$@"); }

# ---- a staged tree, as packagers make it
staged=$work/stage/opt/kv
in_root sh sim/base/install.sh "$staged" /opt/kv 1.2.3 "$build" >install.log 2>&1
check 'everything is put below DESTDIR and PREFIX' grep -qx "installed kvsim 1.2.3 in $staged" install.log
check 'the program runs from there' "$staged/bin/kvsim" version
check 'the pkg-config file names the prefix and the version' \
    sh -c "grep -qx prefix=/opt/kv '$staged/lib/pkgconfig/kvsim.pc' && grep -qx 'Version: 1.2.3' '$staged/lib/pkgconfig/kvsim.pc'"
doc=$staged/share/doc/kvsim
check 'the format of recordings is there' cmp "$root/traces/format.md" "$doc/format.md"
vectors_differ() {
    for file in README.md layouts.md cases.tsv codes.bin input.f32; do
        cmp "$root/sim/test/conformance/$file" "$doc/conformance/$file" || echo "$file"
    done
}
check 'so are the conformance vectors' test -z "$(vectors_differ)"
# each case that codes row by row, from the installed files alone
unlike() {
    tail -n +2 "$doc/conformance/cases.tsv" | while IFS="$(printf '\t')" read -r spec side bits heads offset bytes crc rest; do
        case $spec in zipcache* | hqq* | center*) continue ;; esac # all rows are one tensor, or one prompt
        "$staged/bin/kvsim" code "$spec" --bits "$bits" --side "$side" --heads "$heads" \
            <"$doc/conformance/input.f32" >codes 2>err || echo "$spec $bits: $(cat err)"
        tail -c +$((offset + 1)) "$doc/conformance/codes.bin" | head -c "$bytes" | cmp -s - codes || echo "$spec $side $bits"
    done
}
check 'by which the installed program is right' test -z "$(unlike)"
sections_missing() {
    "$kvsim" --help | awk '/^  [a-z][a-z-]*  / {print toupper($1)}' | sed 's/-/\\-/g' | while IFS= read -r command; do
        grep -qxF ".SH KVSIM $command" "$staged/share/man/man1/kvsim.1" || echo "$command"
    done
}
check 'the man page has a section for each command' test -z "$(sections_missing)"
page=$staged/share/man/man7/kvsim-specs.7
undescribed() {
    { "$kvsim" list policies --tsv && "$kvsim" list formats --tsv; } | awk -F'\t' '$1 != "policy" && $1 != "format" { print $1 }' |
        sed 's/-/\\-/g' | while IFS= read -r name; do grep -qxF ".SS $name" "$page" || echo "$name"; done
}
check 'the page of specs has a part for each policy and format' test -z "$(undescribed)"
check 'and says what each key does' grep -q '^key group  *' "$page"
if command -v man >/dev/null && command -v groff >/dev/null; then
    for each in "$staged/share/man/man1/kvsim.1" "$page"; do
        check "${each##*/} is well-formed" sh -c "test -z \"\$(LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -l '$each' 2>&1 >page.txt)\""
        # Examples are lines to be typed, and a list of choices is one word: neither can be broken.
        check 'and fits 80 columns' test "$(awk '
            /[^ ]/ { n++; long = 0; for (i = 1; i <= NF; i++) if (length($i) > 40) long = 1
                     if (length($0) > 80 && !long && $1 != "kvsim") wide++ }
            END { print (n > 300), wide + 0 }' page.txt)" = '1 0'
    done
else
    skip 'the pages are well-formed and fit 80 columns' 'no man or groff'
fi
check 'the completion of bash is there' grep -q '^complete .*_kvsim kvsim$' "$staged/share/bash-completion/completions/kvsim"

# ---- the tree that strangers build on, and nothing of the repository
tree=$work/kv
in_root sh sim/base/install.sh "$tree" "$tree" 1.2.3 "$build" >/dev/null 2>&1
lib=$tree/lib/libkvsim.a
find "$tree/include" -name '*.h' | sed "s|^$tree/include/||" | sort >headers
names() { sed -n 's|^#include <\(kvsim/[^>]*\)>.*|\1|p' "$tree/include/kvsim/kvsim.h"; }
{ echo kvsim/kvsim.h && names; } | sort >named
check 'kvsim.h names every header that is installed' cmp headers named
alone() { # alone COMPILER LANGUAGE STANDARD: each header by itself
    while IFS= read -r header; do
        echo "#include <$header>" | "$1" -x "$2" -std="$3" -Wall -Wextra -Wpedantic -Werror -fsyntax-only \
            -I"$tree/include" - || return 1
    done <headers
}
check 'each header compiles alone as C11' alone gcc c c11
check 'each header compiles alone as C17' alone gcc c c17
if command -v g++ >/dev/null; then
    check 'each header compiles alone as C++17' alone g++ c++ c++17
else
    skip 'each header compiles alone as C++17' 'no g++'
fi

# ---- what the library exports
in_root sh sim/base/symbols.sh >declared
check 'sim/kvsim.symbols lists what the headers declare (make symbols)' cmp declared "$root/sim/kvsim.symbols"
exported() { nm -g --defined-only "$1" 2>/dev/null | awk 'NF == 3 { print $3 }' | LC_ALL=C sort; }
exported "$lib" >exported
check 'the installed library exports these and nothing else' cmp exported declared
check 'every name in it begins with kv_, those that are its own too' \
    sh -c "! nm -g --defined-only '$build/libkvsim.a' 2>/dev/null | awk 'NF == 3 { print \$3 }' | grep -v '^kv_' | grep -v '^__'"
ends_process() {
    nm -A -u "$build/libkvsim.a" 2>/dev/null | grep -E ' (_?exit|_Exit|quick_exit|abort|raise|kill|pthread_exit|__assert_fail)$' |
        grep -v ':guard\.o: *U abort$' # a thread without a guard: the last resort of guard.h
}
check 'nothing in it ends the process' sh -c "test -z '$(ends_process)'"

# ---- programs
sanitizer=$(nm "$lib" 2>/dev/null | grep -o '__asan_init\|__tsan_init\|__ubsan_handle' | head -n 1)
if [ -n "$sanitizer" ]; then
    skip 'programs build and run on the installed tree alone' 'built with a sanitizer'
    finish
fi
if command -v pkg-config >/dev/null; then
    pc() { PKG_CONFIG_PATH=$tree/lib/pkgconfig pkg-config "$@" kvsim; }
    check 'pkg-config knows the version' test "$(pc --modversion)" = 1.2.3
    flags=$(pc --cflags) libs=$(pc --libs)
else
    flags=$(sed -n 's/^Cflags: //p' "$tree/lib/pkgconfig/kvsim.pc" | sed "s|\${includedir}|$tree/include|g")
    libs=$(sed -n 's/^Libs: //p' "$tree/lib/pkgconfig/kvsim.pc" | sed "s|\${libdir}|$tree/lib|g")
fi
cat >user.cc <<'C'
#include <kvsim/kvsim.h>

#if KV_VERSION_NUMBER < KV_VERSION_AT(0, 1, 0)
#error "an old kvsim"
#endif

int main() {
    struct kv_format_setting setting = {};
    setting.shape.n_layers = setting.shape.n_heads = setting.shape.n_kv_heads = 1;
    setting.shape.head_dim = 64;
    struct kv_replay_spec spec;
    struct kv_error e;
    if (kv_replay_spec_open(&spec, "static:bits=4@sym", &setting, 1, &e)) return puts(e.msg), 1;
    printf("%s %s %s\n", kv_version(), spec.policy->name, spec.format->type->name);
    kv_replay_spec_close(&spec);
    return 0;
}
C
# shellcheck disable=SC2086
{
    if command -v g++ >/dev/null; then
        check 'a C++ program links' g++ -std=c++17 -Wall -Wextra -Werror $flags user.cc -o user $libs
        check 'and runs' test "$(./user)" = "$("$kvsim" version | awk '{ print $2; exit }') static sym"
    else
        skip 'a C++ program links and runs' 'no g++'
    fi
    for example in replay sweep; do
        check "the example $example.c compiles" \
            gcc -std=c11 -Wall -Wextra -Wpedantic -Werror $flags "$tree/share/doc/kvsim/examples/$example.c" -o $example $libs
    done
}
tiny good
check 'the installed program records the samples' \
    "$tree/bin/kvsim" record -q -m good.gguf -t samples -n 6 --keep final,kv -o samples.trace
check 'replay says how far two policies stray' sh -c './replay good.gguf samples.trace static:bits=8@sym static:bits=2@sym >replay.out'
nats() { sed -n "$1s/.* bits, \([0-9.]*\) nats a token: .*/\1/p" replay.out; }
check 'and eight bits stray less than two' awk "BEGIN { exit !(0 < $(nats 1) && $(nats 1) < $(nats 2)) }"
check 'sweep fills a store and prints its frontier' sh -c './sweep good.gguf samples.trace results.db >sweep.out'
check 'whose widest member nobody beats' grep -q '^\* .*static:bits=8@sym$' sweep.out
check 'a second sweep runs nothing again and says the same' \
    sh -c './sweep good.gguf samples.trace results.db | cmp - sweep.out'
check 'and the installed program reads the store' \
    sh -c "'$tree/bin/kvsim' show --db results.db --tsv | grep -q 'static:k=8,v=8@sym'"
check 'a spec that is none is refused in one sentence' \
    sh -c "! ./replay good.gguf samples.trace static:bits=4@sim none 2>err && grep -qx \"replay: .*; did you mean 'sym'?.*\" err"

if [ "$(uname -m)" = x86_64 ]; then
    unguarded() { objdump -d --no-show-raw-insn replay | awk -f "$root/sim/test/unguarded.awk" "$root/sim/kvsim.symbols" -; }
    check 'every call that may run out of memory says so' test -z "$(unguarded)"
fi
finish
