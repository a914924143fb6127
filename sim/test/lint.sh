# SPDX-License-Identifier: Apache-2.0
# What a reader of the code may rely on: format, direction of includes, headings, length, cppcheck's findings.
# Prints each breach with its file and ends in failure when there is one.
set -u
bad=0
files=$(git ls-files) || exit 1
code=$(echo "$files" | grep '\.[ch]$')

complain() { # complain HEADING LINES: shows the lines, if any
    [ -n "$2" ] || return 0
    printf '%s\n' "$1" "$2" | sed '2,$s/^/  /'
    bad=1
}

need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null && return 0
    echo "$1 is missing; type: apt-get install $2"
    bad=1
    return 1
}

# Every file that can says its licence in its first two lines; a C file says on the next what it is for.
complain 'no SPDX line at the top:' "$(for f in $(echo "$files" | grep -E '\.(c|h|cu|cuh|sh|py|sql|gp)$'); do
    head -n 2 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || echo "$f"
done)"
complain 'no sentence on line 2:' "$(for f in $code; do
    sed -n 2p "$f" | grep -q '^// .' || echo "$f"
done)"

marks='TO''DO|FIX''ME|XX''X' # split, so that this file does not name them itself
complain 'marks of unfinished work:' "$(git grep -nwE "$marks" -- '*.c' '*.h' '*.cu' '*.sh' '*.py' '*.md' '*.sql' '*.gp' Makefile)"
complain '700 lines or more:' "$(for f in $code; do
    lines=$(wc -l <"$f")
    [ "$lines" -lt 700 ] || echo "$f: $lines"
done)"

# Who may include whom: a room, then the rooms and files it may take from (its own included). Tests and
# benchmarks judge from anywhere; sim/cli sees everything.
complain 'an include against the arrows:' "$(git grep -n '^#include "' -- '*.c' '*.h' ':!*/test/*' ':!*/bench/*' ':!sim/cli/*' | awk '
    BEGIN {
        low = "policies/policy.h sim/base/ "
        may["policies"] = "policies/"
        may["sim/base"] = low
        may["sim/quant"] = low "sim/quant/"
        may["sim/model"] = low "sim/model/ sim/quant/"
        may["sim/cache"] = low "sim/cache/ sim/quant/"
        may["traces"] = low "sim/model/ sim/quant/ traces/"
        may["sim/replay"] = low "sim/model/ sim/quant/ traces/ sim/replay/ policies/policies.def"
        may["sim/cost"] = low "sim/model/ sim/quant/ sim/cache/ traces/ sim/replay/ sim/cost/"
        may["analysis"] = low "analysis/ sim/replay/outcome.h traces/trace.h sim/cost/cost.h"
    }
    {
        split($0, part, ":")
        room = part[1]
        sub(/\/[^\/]*$/, "", room)
        split($0, quoted, "\"")
        if (!(room in may)) { print part[1] ": " room " is no room that lint knows"; next }
        n = split(may[room], allowed, " ")
        for (i = 1; i <= n; i++) if (index(quoted[2], allowed[i]) == 1) next
        print part[1] ":" part[2] ": " quoted[2]
    }')"
complain 'sqlite3.h belongs to the store:' "$(git grep -ln '#include <sqlite3.h>' -- ':!analysis/store*' ':!*/test/*')"

if need clang-format clang-format; then
    complain 'not as clang-format writes it (make format):' "$(echo "$code" | xargs clang-format --dry-run -Werror 2>&1 | grep 'error:' | cut -d: -f1 | sort -u)"
fi
# cppcheck knows no C17; what it says of C11 holds. Kernels are read as built for level base. Two of its
# findings are about itself: what it cannot parse, and an older guess at uninitialized variables.
if need cppcheck cppcheck; then
    complain 'cppcheck:' "$(echo "$code" | grep -v '/test/\|/bench/' | grep '\.c$' |
        xargs cppcheck -q --std=c11 --enable=warning,performance --inline-suppr -j "$(nproc)" -I. -DKV_ISA=base \
            --suppress=missingInclude --suppress=missingIncludeSystem --suppress=legacyUninitvar --suppress=internalAstError --template='{file}:{line}: {message} [{id}]' 2>&1)"
fi
[ "$bad" = 0 ] && echo "lint: $(echo "$code" | wc -l) C files are clean"
exit $bad
