# SPDX-License-Identifier: Apache-2.0
# Checks what a compiler doesn't: format, cppcheck, licence lines, and the plan of the house: who may
# include whom, circles, sizes, one thing a name.
# Installs nothing; says what is missing. LINT=fast leaves cppcheck out; LINT=structure needs no more
# than sh, awk, nm and a build (BUILD=build): all but cppcheck and format.
set -u
: "${LINT:=}" "${BUILD:=build}"
here=$(dirname "$0")
scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT
found=$scratch/found
: >"$found"
complain() { # WHAT, lines on stdin; runs behind a pipe, so what it found goes to a file
    lines=$(cat)
    [ -z "$lines" ] && return
    { echo "lint: $1" && echo "$lines" | sed 's/^/    /'; } >>"$found"
}
if [ "$LINT" != structure ]; then
    missing=
    for tool in clang-format cppcheck; do command -v $tool >/dev/null || missing="$missing $tool"; done
    if [ -n "$missing" ]; then
        echo "lint needs$missing; type: sudo apt-get install$missing" >&2
        exit 1
    fi
fi
files() { # those of git, and new ones
    git ls-files --cached --others --exclude-standard "$@" | while read -r f; do
        [ -f "$f" ] && echo "$f"
    done
}
files '*.c' '*.h' >"$scratch/sources"
files '*.c' '*.h' '*.cu' '*.cuh' '*.def' >"$scratch/code"
grep -v '/test/\|/bench/' "$scratch/code" >"$scratch/house" # tests and benchmarks may look anywhere

# ---- format, licence, length, leftovers

if [ "$LINT" != structure ]; then
    xargs clang-format --dry-run <"$scratch/sources" 2>&1 | grep 'warning:' | cut -d: -f1 | sort -u |
        complain 'not as clang-format has it (make format)'
fi
files '*.c' '*.h' '*.sh' '*.sql' '*.gp' '*.py' '*.awk' | xargs awk '
    FNR == 1 { if (file && !told) print file; file = FILENAME; told = 0 }
    FNR <= 2 && /SPDX-License-Identifier: Apache-2.0/ { told = 1 }
    END { if (file && !told) print file }' | complain 'without the licence line'
xargs wc -l <"$scratch/code" | awk '$2 != "total" && $1 >= 700 {print $2 ": " $1 " lines"}' |
    complain 'long: look for the second module'
git grep --untracked -nE '\b(TO''DO|FIX''ME|XX''X)\b' -- '*.c' '*.h' '*.sh' '*.py' Makefile | complain 'left for later'

# ---- who may include whom
# A room and the rooms that it stands on. It may look into these and into what they stand on, and
# everybody at the seam, policies/policy.h. What is not a room but a file is that file alone.

cat >"$scratch/rooms" <<'ROOMS'
sim/base         policies
policies         sim/base/blas.h sim/base/blas.c
sim/quant        sim/base
sim/model        sim/quant
sim/cache        sim/quant
traces           sim/model sim/cache
sim/cost         sim/model sim/cache
sim/replay       traces sim/cost
sim/store        traces sim/cost sim/replay
sim/runtimes     sim/replay
sim/generate     sim/replay
analysis/stats   sim/replay
analysis/search  sim/replay
analysis/results analysis/stats sim/store
analysis/claims  analysis/results
analysis/studies analysis/claims analysis/search sim/runtimes sim/generate
reports/draw     analysis/studies
reports/page     reports/draw
reports/table    sim/base
reports          reports/page reports/table
sim              reports
sim/cli          reports
sim/examples     sim/kvsim.h
sim/cuda/formats sim/quant
sim/cuda/engine  sim/model/engine.h sim/cuda/formats
sim/cuda         sim/model/accelerator.h sim/cuda/formats
sim/mpi          sim/base/ranks.h
ROOMS
xargs grep -H '^#include "' <"$scratch/house" | sed 's/:#include "/ /; s/".*//
    s|^\(.*/\)\([^/ ]*\) \([^/]*\)$|\1\2 \1\3|' >"$scratch/includes"
awk -f "$here/arrows.awk" "$scratch/rooms" "$scratch/includes" >"$scratch/upward"
complain 'an include against the arrows' <"$scratch/upward"

# ---- circles: of rooms, of includes, and of what the linker must find

awk '{for (i = 2; i <= NF; i++) print $1, $i}' "$scratch/rooms" | cat - "$scratch/includes" |
    awk -f "$here/circles.awk" | sort >"$scratch/circles"
complain 'includes run in a circle' <"$scratch/circles"
# Templates and examples are built by others, and sim/mpi where there is an MPI.
grep '\.c$' "$scratch/house" | grep -v '^policies/template[a-z_]*\.c$\|^sim/examples/\|^sim/mpi/' >"$scratch/linked"
sh "$here/links.sh" "$BUILD" <"$scratch/linked" >"$scratch/links" 2>"$scratch/unbuilt"
head -n 5 "$scratch/unbuilt" | complain 'not built (make all)'
awk -f "$here/circles.awk" "$scratch/links" | sort >"$scratch/knots"
complain 'objects need each other in a circle' <"$scratch/knots"
awk -f "$here/arrows.awk" "$scratch/rooms" "$scratch/links" >"$scratch/climbing"
complain 'a call against the arrows' <"$scratch/climbing"

# ---- sizes: the command line stays small, and no room holds a fifth of the house and more

files 'sim/cli/*.c' 'sim/cli/*.h' 'sim/cli/*.def' 'sim/cli/*.sh' | grep -v /test/ >"$scratch/cli"
cli_lines=$(xargs cat <"$scratch/cli" | wc -l)
[ "$cli_lines" -le 8500 ] || echo "$cli_lines lines" | complain 'sim/cli may hold 8500 lines in all'
xargs wc -l <"$scratch/cli" | awk '$2 != "total" && $1 > 300 {print $2 ": " $1 " lines"}' |
    complain 'a file of sim/cli may hold 300 lines'
xargs wc -l <"$scratch/house" | awk '
    $2 == "total" { next }
    { split($2, at, "/"); lines[at[1] (at[1] == "sim" ? "/" at[2] : "")] += $1; all += $1 }
    END { for (room in lines) printf "%.1f %% %s\n", 100 * lines[room] / all, room }' |
    sort -rn >"$scratch/shares"
awk '$1 > 22' "$scratch/shares" | complain 'a room may hold 22 % of the code'

# ---- one thing a name

# What NAME_simd.h holds is included once a set of vectors; abi-1 holds a header as it once was.
grep '\.h$' "$scratch/sources" | grep -v '_simd\.h$\|/abi-1/' | xargs awk '
    FNR == 1 { if (file && !kept) print file ": " guard
               file = guard = FILENAME; kept = 0
               sub(/^sim\//, "", guard); gsub(/[\/.]/, "_", guard); guard = "KV_" toupper(guard) }
    $1 == "#ifndef" && $2 == guard { kept = 1 }
    END { if (file && !kept) print file ": " guard }' | complain 'a guard that does not follow its path'
grep '\.h$' "$scratch/house" | xargs awk -f "$here/names.awk" | complain 'one name, two headers'
git grep --untracked -l 'sqlite3\.h' -- '*.c' '*.h' | grep -v '^sim/store/' |
    complain 'sqlite3.h belongs to sim/store alone'

# ---- cppcheck
# It does not follow values set through a pointer: uninitialized ones are left to the compilers.
# The two files named hold checks that it cannot see through: a sum of exponentials is above 0, and
# a name comes whenever there is no letter.

if [ -z "$LINT" ]; then
    # shellcheck disable=SC2046
    cppcheck --quiet -j "$(nproc)" --std=c11 --platform=unix64 --enable=warning,performance --inline-suppr \
        --suppress=missingIncludeSystem --suppress=internalAstError --suppress=uninitvar --suppress=legacyUninitvar \
        --suppress=invalidFunctionArg:sim/cache/decode.c --suppress=nullPointer:sim/cli/kvsim.c \
        --template='{file}:{line}: {message} [{id}]' -I. -DKV_ISA=base $(grep '\.c$' "$scratch/house") 2>&1 |
        grep '\[' | complain 'cppcheck'
fi

cat "$found"
lines() { cat "$@" | wc -l; }
echo "lint: $(lines "$scratch/circles" "$scratch/knots") circles, $(lines "$scratch/upward") upward includes," \
    "$(lines "$scratch/climbing") upward calls; $cli_lines lines in sim/cli; the largest room: $(head -n 1 "$scratch/shares")"
[ ! -s "$found" ] && echo 'lint: clean'
