# SPDX-License-Identifier: Apache-2.0
# The plan of the house is kept: lint is clean, and finds each fault that is planted in a copy.
root=$PWD
. sim/cli/test/lib/tap.sh
copy_house "$root" || {
    skip 'the plan of the house is kept' 'not a git checkout'
    finish
}

lint() { BUILD=build LINT=structure sh sim/test/lint.sh; }
# says NAME TEXT...: lint fails and says these in this order; then what was planted is taken out.
says() {
    name=$1 wrong=0
    shift
    said=$(lint) && wrong=1
    for text; do
        rest=${said#*"$text"}
        [ "$rest" != "$said" ] || wrong=1
        said=$rest
    done
    report $wrong "$name" || printf '# wanted %s\n' "$@"
    git checkout -q -- . && git clean -fdq
}
lines() { awk -v n="$1" 'BEGIN { while (n-- > 0) print "// more" }'; }

said=$(lint)
report $? 'the house as it is has no fault' || echo "$said" | sed 's/^/# /'
counts='lint: 0 circles, 0 upward includes, 0 upward calls; '
report "$(case $said in *"$counts"*) echo 0 ;; *) echo 1 ;; esac)" 'lint says so in numbers'

echo '#include "sim/cli/table.h"' >>sim/base/hash.h
says 'a room that looks up is found' 'lint: an include against the arrows' '    sim/base/hash.h -> sim/cli/table.h'
echo '#include "sim/cost/cost.h"' >>traces/layout.c
says 'a room that looks at its neighbour is found' 'lint: an include against the arrows' \
    '    traces/layout.c -> sim/cost/cost.h'
echo '#include "analysis/claims/claim.h"' >>analysis/results/front.c
says 'within analysis, results do not know claims' 'lint: an include against the arrows' \
    '    analysis/results/front.c -> analysis/claims/claim.h'

echo '#include "sim/base/memory.h"' >>sim/base/hash.h
echo '#include "sim/base/hash.h"' >>sim/base/memory.h
says 'headers that include each other are found' 'lint: includes run in a circle' 'sim/base/hash.h -> sim/base/memory.h'

licence='// SPDX-License-Identifier: Apache-2.0'
plant() { # FILE CODE: a source and its object
    printf '%s\n' "$licence" "$2" >"$1"
    "${CC:-cc}" -c "$1" -o "build/${1%.c}.o"
}
plant sim/base/hen.c 'int egg(void); int hen(void) { return egg(); }'
plant sim/base/egg.c 'int hen(void); int egg(void) { return hen(); }'
says 'objects that need each other are found' 'lint: objects need each other in a circle' 'sim/base/egg.c -> sim/base/hen.c (hen)'
plant sim/base/climb.c 'int planted(void); int climb(void) { return planted(); }'
plant sim/cli/planted.c 'int planted(void) { return 1; }'
says 'a call upwards that no include shows is found' 'lint: a call against the arrows' \
    '    sim/base/climb.c -> sim/cli/planted.c (planted)'
echo "$licence" >sim/base/new.c
says 'a source without an object is not passed over' 'lint: not built (make all)' '    sim/base/new.c'

lines 300 >>sim/cli/cmd_version.c
says 'a verb of more than 300 lines is found' 'lint: a file of sim/cli may hold 300 lines' '    sim/cli/cmd_version.c: '
for i in $(seq 29); do lines 299 >sim/cli/$i.def; done
says 'a command line that grows is found' 'lint: sim/cli may hold 8500 lines in all'
lines 30000 >traces/large.def
says 'a room of a fourth of the code is found' 'lint: a room may hold 22 % of the code' ' % traces'

printf 'struct kv_text {\n    int x;\n};\n' >>sim/base/hash.h
says 'a name that two headers give is found' 'lint: one name, two headers' '    kv_text: '
sed 's/KV_BASE_HASH_H/KV_HASH_H/' sim/base/hash.h >h && mv h sim/base/hash.h
says 'a guard that does not follow its path is found' 'lint: a guard that does not follow its path' \
    '    sim/base/hash.h: KV_BASE_HASH_H'
echo '#include <sqlite3.h>' >>sim/cli/cmd_sql.c
says 'SQLite outside the store is found' 'lint: sqlite3.h belongs to sim/store alone' '    sim/cli/cmd_sql.c'
finish
