# SPDX-License-Identifier: Apache-2.0
# What the program says of itself: groups, help of one command, the page of all, spellings that were, and a
# plug-in described.
root=$PWD
. sim/cli/test/lib/tap.sh
tiny good

# ---- help

"$kvsim" help >help.txt
groups() { awk '/^[a-z &]+:$/ && $0 != "options of every command:" { printf "%s%s", sep, $0; sep = "\n" } /^  [a-z][a-z-]*  / { printf " %s", $1 }' help.txt; }
groups >groups.txt
sed -n 's/^KV_GROUP("\(.*\)")/\1:/p; s/^KV_COMMAND(\(.*\))/\1/p' "$root/sim/cli/commands.def" | tr _ - |
    awk '/:$/ { printf "%s%s", sep, $0; sep = "\n"; next } { printf " %s", $0 }' >wanted.txt
check 'help lists the commands by group, as commands.def has them' sh -c 'diff wanted.txt groups.txt | grep . ; test "$(cat wanted.txt)" = "$(cat groups.txt)"'
check '--help is the same' sh -c "'$kvsim' --help | cmp - help.txt"
verbs=$(awk '/^  [a-z][a-z-]*  / { print $1 }' help.txt)
unlike() { for verb in $verbs; do "$kvsim" help $verb >a && "$kvsim" $verb --help >b && cmp -s a b || echo $verb; done; }
check 'help COMMAND is what COMMAND --help says, for each' test -z "$(unlike)"
without() { for verb in $verbs; do "$kvsim" help $verb | sed -n '/^example:$/{n;p;}' | grep -q "kvsim $verb" || echo $verb; done; }
check 'and ends in an example of its own' test -z "$(without)"
expect 2 "kvsim: unknown command 'replya'; did you mean 'replay'?" 'help of a misspelt command names the nearest' help replya
expect 2 "kvsim: unknown command 'hlep'; did you mean 'help'?" 'help misspelt is found too' hlep
expect 2 'kvsim: unknown command '"'juggle'"' (kvsim --help lists them)' 'help of what is near to none' help juggle
expect 2 'kvsim: help: usage: kvsim help [COMMAND]' 'help of two commands' help replay sweep
expect 2 "kvsim: show: 'results.db' is one argument too many; usage: kvsim show --db FILE" 'a command that takes no argument' show results.db
check 'commands.md is what the tables say (make commands)' sh -c "'$kvsim' help --markdown | diff - '$root/sim/cli/commands.md'"
check 'the table of sim/quant/README.md is too' \
    sh -c "sh '$root/sim/quant/table.sh' '$kvsim' '$root/sim/quant/README.md' | diff - '$root/sim/quant/README.md'"
check 'the bit diagrams of formats are what they say themselves (make commands)' \
    sh -c "sh '$root/sim/quant/layouts.sh' '$kvsim' | diff - '$root/sim/test/conformance/layouts.md'"
check 'commands.md has a section for each command' test "$(grep -c '^### ' "$root/sim/cli/commands.md")" = "$(echo "$verbs" | wc -l)"

# ---- spellings that were

was() { # was COMMAND OLD NEW [ARGUMENTS...]
    verb=$1 old=$2 now=$3
    shift 3
    expect 2 "kvsim: $verb: option '--$old' is called '--$now' now" "$verb --$old is refused for --$now" $verb "$@" "--$old" x
}
for verb in record bench fidelity headroom atlas additivity; do was $verb output out; done
was record items draw
was train figure figures
was tune test items
for verb in attribute diff outcomes; do was $verb trace digest; done
expect 2 "kvsim: record: option '--items=5' is called '--draw' now" 'with a value behind the sign of equality too' record --items=5
expect 2 "kvsim: show: unknown option '--output' (kvsim show --help lists them)" 'a command that never had the option does not know it' show --output x
"$kvsim" record -q -m good.gguf -t samples -n 2 --keep final,kv,sens -o t || exit 1
slashed() { # slashed OPTION COMMAND ARGUMENTS...
    option=$1 verb=$2
    shift
    expect 2 "kvsim: $verb: --$option 2/3/4 is written --$option 2,3,4 now" "$verb --$option 2/3/4 is refused for commas" \
        "$@" "--$option" 2/3/4
}
slashed widths headroom t
slashed bits headroom t
slashed widths tune t static@sym
slashed bits additivity t
slashed bits train mlp t
slashed latency train mlp t
slashed quality train mlp t
slashed bits quant sym --gaussian
slashed contexts bench device
slashed ports what-if 4

# ---- completion

offered() { "$kvsim" help --complete -- "$@" | tr '\n' ' '; }
check 'completion offers the verbs that help lists' sh -c "test \"\$('$kvsim' help --complete -- '' | grep -v '^help\$')\" = '$verbs'"
option_lines() { "$kvsim" show --help | sed -n 's/^  \(    \|-., \)\(--[a-z-]*\).*/\2/p' | tr '\n' ' '; }
check 'the options that help lists' test "$(offered show --)" = "$(option_lines)"
check 'policies and formats, which `list` lists' test "$(offered replay t '' | tr -d ':@(') $(offered quant '' | tr -d '(')" = \
    "$("$kvsim" list policies --tsv | sed 1d | cut -f1 | tr '\n' ' ') $("$kvsim" list formats --tsv | sed 1d | cut -f1 | tr '\n' ' ')"
check 'devices' test "$(offered show --device h100-1)" = 'h100-1.7b h100-135m '
check 'keys of a policy, and behind @ those of a format' test "$(offered replay t static:k=8,) $(offered replay t static@asym:gr)" = \
    'static:k=8,bits= static:k=8,k= static:k=8,v=  static@asym:group= '
"$kvsim" sweep -q t 'static:bits={4,8}@sym' --as 'two=static:bits=2@sym' -m good.gguf --db c.db || exit 1
check 'what a store calls its specs' test "$(offered diff --db c.db t) $(offered diff --db=c.db static:bits=8)" = 'two threshold:  static:bits=8@sym '
check 'nothing for what is a file' test -z "$(offered verify '')$(offered show --db '')"
if command -v bash >/dev/null; then
    "$kvsim" help --bash >kvsim.bash
    asked() { PATH=$(dirname "$kvsim"):$PATH bash -c '. ./kvsim.bash; COMP_LINE=$1 COMP_POINT=${#1}; _kvsim 2>/dev/null; printf "%s|" "${COMPREPLY[@]}"' - "$1"; }
    check 'bash gets what stands behind its last break' test "$(asked 'kvsim sh')$(asked 'kvsim replay t static:bi')$(asked 'kvsim replay t static:bits=4@kiv')" = 'show|bits=|kivi|'
    check 'in quotes the whole word' test "$(asked "kvsim diff --db c.db 'static:bits=8")" = 'static:bits=8@sym|'
else
    skip 'bash completes' 'no bash'
fi

# ---- a plug-in

if ! (cd "$root" && ${CC:-cc} -std=c17 -O2 -fPIC -shared -I. -o "$work/mine.so" policies/template.c); then
    echo "not ok - the template compiles"
fi
expect 0 '' 'a plug-in is described by its path' describe ./mine.so
check 'with its keys and defaults' grep -qx 'key cut     whole number 0..1e+06 tokens, default 4: positions below it are kept wide' out.log
check 'like a policy of the program' grep -qx 'kind        policy' out.log
check 'and the digest that specs of it carry' grep -q '^digest      [0-9a-f]\{16\}$' out.log
expect 1 'kvsim: ./none.so: cannot be opened: No such file or directory' 'a plug-in that is not there' describe ./none.so
cp "$root/README.md" text.so
check 'a file that is none' sh -c "! '$kvsim' describe text.so 2>err && grep -q '^kvsim: text.so: cannot be loaded: ' err"
finish
