# SPDX-License-Identifier: Apache-2.0
# Checks what a compiler doesn't: format, cppcheck, direction of includes, licence lines, long files.
# Installs nothing; says what is missing. LINT=fast leaves cppcheck out.
set -u
found=$(mktemp) && trap 'rm -f "$found"' EXIT
complain() { # WHAT, lines on stdin; runs behind a pipe, so what it found goes to a file
    lines=$(cat)
    [ -z "$lines" ] && return
    { echo "lint: $1" && echo "$lines" | sed 's/^/    /'; } >>"$found"
}
missing=
for tool in clang-format cppcheck; do command -v $tool >/dev/null || missing="$missing $tool"; done
if [ -n "$missing" ]; then
    echo "lint needs$missing; type: sudo apt-get install$missing" >&2
    exit 1
fi
sources=$(git ls-files '*.c' '*.h')
here=$(git ls-files '*.c' | grep -v '/test/\|/bench/')

# ---- format, licence, length, leftovers

# shellcheck disable=SC2086
clang-format --dry-run $sources 2>&1 | grep 'warning:' | cut -d: -f1 | sort -u |
    complain 'not as clang-format has it (make format)'
git ls-files '*.c' '*.h' '*.sh' '*.sql' '*.gp' '*.py' | while read -r f; do
    head -n 2 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || echo "$f"
done | complain 'without the licence line'
# shellcheck disable=SC2086
wc -l $sources | awk '$2 != "total" && $1 >= 700 {print $2 ": " $1 " lines"}' |
    complain 'long: look for the second module'
git grep -nE '\b(TO''DO|FIX''ME|XX''X)\b' -- '*.c' '*.h' '*.sh' '*.py' Makefile | complain 'left for later'

# ---- direction of includes: a room and the rooms it may look into (tests and benchmarks see all)

while read -r room allowed; do
    for file in $(git ls-files "$room/*.c" "$room/*.h" | grep -v '/test/\|/bench/'); do
        grep -o '^#include "[^"]*"' "$file" | cut -d'"' -f2 | while read -r header; do
            ok=false
            for prefix in "$room/" policies/policy.h policies/policies.def $allowed; do
                case $header in "$prefix"*) ok=true ;; esac
            done
            $ok || echo "$file includes $header"
        done
    done
done <<'ROOMS' | complain 'an include against the arrows'
policies
sim/base
sim/model sim/base/ sim/quant/format.h
sim/quant sim/base/
sim/cache sim/base/ sim/quant/
traces sim/base/ sim/model/ sim/quant/
sim/replay sim/base/ sim/model/ sim/quant/ sim/cache/ sim/cost/ traces/
sim/cost sim/base/ sim/model/ sim/quant/ sim/cache/ sim/replay/ traces/
analysis sim/base/ sim/base/outcome.h traces/trace.h sim/cost/cost.h
ROOMS
git grep -l 'sqlite3\.h' -- '*.c' '*.h' | grep -v '^analysis/store/store\.c$' | complain 'sqlite3.h belongs to analysis/store/store.c alone'

# ---- cppcheck
# It does not follow values set through a pointer: uninitialized ones are left to the compilers.
# The two files named hold checks that it cannot see through: a sum of exponentials is above 0, and
# a name comes whenever there is no letter.

if [ "${LINT:-}" != fast ]; then
    # shellcheck disable=SC2086
    cppcheck --quiet -j "$(nproc)" --std=c11 --platform=unix64 --enable=warning,performance --inline-suppr \
        --suppress=missingIncludeSystem --suppress=internalAstError --suppress=uninitvar --suppress=legacyUninitvar \
        --suppress=invalidFunctionArg:sim/cache/decode.c --suppress=nullPointer:sim/cli/kvsim.c \
        --template='{file}:{line}: {message} [{id}]' -I. -DKV_ISA=base $here 2>&1 | grep '\[' | complain 'cppcheck'
fi

cat "$found"
[ ! -s "$found" ] && echo 'lint: clean'
