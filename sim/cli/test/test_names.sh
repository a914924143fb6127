# SPDX-License-Identifier: Apache-2.0
# What rows are called: labels of long plans, names that the user gives, how both find their rows, how tables print
# them for a terminal, a page, a paper and a program; and what a sweep says when it is done.
root=$PWD
. sim/cli/test/lib/tap.sh
tiny good
"$kvsim" record -q -m good.gguf -t samples -n 4 --keep final,kv -o t || exit 1

# ---- a sweep with names

plan=layerwise:k=2/3/4/8/2/3/4/8/2/3,v=2/2/2/2/2/2/2/2/2/2@sym
printf 'static:bits={4,8}@sym\nstatic:bits=3@sym \t as=three bits  # a comment\n%s\n' "$plan" >some.sweep
"$kvsim" sweep t some.sweep --as "two=static:bits=2@sym" --audit -m good.gguf --db s.db 2>err.log || exit 1
check 'an audit says that it passed' grep -q '^audit passed: 5 specs, asked again in 20 replays ' err.log
check 'a sweep says that all is there' grep -qx 'done: all 20 outcomes are in s.db' err.log
check 'and what to type next' test "$(tail -n 1 err.log)" = 'next: kvsim show --db s.db'
"$kvsim" sweep t some.sweep --as "two=static:bits=2@sym" -m good.gguf --db s.db 2>err.log
check 'a second one, that all was there' grep -qx 'done: 0 outcomes were replayed and 20 were there; all are in s.db' err.log
check 'with -q it says nothing' test -z "$("$kvsim" sweep -q t some.sweep -m good.gguf --db s.db 2>&1)"

# ---- what tables call the rows

labels() { "$kvsim" sql 'SELECT DISTINCT label FROM summary ORDER BY effective_bits DESC' --db s.db --tsv "$@" | sed 1d; }
label=$(labels | grep layerwise)
check 'a plan of many widths is called by their means and a digest' sh -c "echo '$label' | grep -qx 'layerwise:k~3.90,v~2.00#[0-9a-f]\{4\}@sym'"
check 'named rows by their names, others by their labels' test "$(labels | tr '\n' '|')" = "static:bits=8@sym|static:bits=4@sym|three bits|$label|two|"
in_json() { "$kvsim" show --db s.db --json | grep -c '"label": "three bits"'; }
check 'in JSON' test "$(in_json)" = 1
check 'whose column spec is canonical' sh -c "'$kvsim' show --db s.db --csv | grep '^\"static:k=3,v=3@sym:' | grep -q ',three bits,'"
check 'in text' sh -c "'$kvsim' show --db s.db | grep -q '^three bits  '"
check 'in Markdown' sh -c "'$kvsim' show --db s.db --markdown | grep -q '^| three bits | '"
check 'in LaTeX' sh -c "'$kvsim' show --db s.db --latex | grep -q '^three bits & '"
check 'in replay' sh -c "'$kvsim' replay -q t --as 'mine=static:bits=5@sym' -m good.gguf | grep -q '^mine  '"
if command -v gnuplot >/dev/null; then
    "$kvsim" report -q --db s.db -o r
    check 'in figures' grep -q 'three bits' r/frontier_bits.tsv
    check 'on the page' grep -q '>three bits<' r/index.html
    check 'in results.json' grep -q '"samples: three bits": ' r/results.json
else
    skip 'in figures and on the page' 'no gnuplot'
fi

# ---- a spec is found by any of its names

"$kvsim" outcomes static:bits=3@sym --db s.db --tsv >wanted.tsv
for name in 'three bits' static:k=3,v=3@sym:sinks=0 "$("$kvsim" sql "SELECT DISTINCT spec FROM summary WHERE label = 'three bits'" --db s.db --tsv | sed 1d)"; do
    check "as '$(echo "$name" | cut -c1-30)'" sh -c "'$kvsim' outcomes '$name' --db s.db --tsv | cmp - wanted.tsv"
done
check 'a long plan by its label' sh -c "test \$('$kvsim' diff '$label' two --db s.db --tsv | wc -l) -gt 4"
check 'and by its spec' sh -c "test \$('$kvsim' diff '$plan' two --db s.db --tsv | wc -l) -gt 4"
specs_of() { cp s.db c.db && "$kvsim" replay -q t "$@" --mode prefill --db c.db -m good.gguf --tsv | sed 1d | cut -f1,11; }
check 'sweep and replay take what the store calls a spec' test "$(specs_of 'three bits' "$label")" = "$(specs_of static:bits=3@sym "$plan")" -a -n "$(specs_of 'three bits')"
expect 1 "kvsim: static:bits=6@sym: the store holds no such run; it holds 'static:bits=4@sym'" 'what is not there is told by labels' outcomes static:bits=6@sym --db s.db

# ---- names for one table alone

check 'show --as renames for itself' sh -c "'$kvsim' show --db s.db --as 'plan A=$label' --tsv | grep -q '	plan A	'"
check 'the store keeps its own' test "$(labels | grep -c 'plan A')" = 0
"$kvsim" sweep -q t --as 'zwei=static:bits=2@sym' -m good.gguf --db s.db
check 'sweep --as replaces a name' test "$(labels | tail -n 1)" = zwei

# ---- what is refused

named() { # named NAME=SPEC CODE MESSAGE
    expect "$2" "kvsim: $3" "--as $1 is refused" sweep -q t --as "$1" -m good.gguf --db s.db
}
named nothing 2 "--as: 'nothing': NAME=SPEC is expected"
named =none 2 "--as: '=none': NAME=SPEC is expected"
named x= 2 "--as: 'x=': NAME=SPEC is expected"
rule="a name of 1 to 48 characters is expected, without '@', '=' and '#'"
named 'a@b=none' 2 "--as: 'a@b': $rule"
named ' a=none' 2 "--as: ' a': $rule"
named "$(printf 'a\033b')=none" 2 "--as: 'a?b': $rule"
named 'x=static:bits={2,4}@sym' 2 "static:bits={2,4}@sym: is 2 specs, and 'x' is the name of one"
named 'x=statik@sym' 2 "spec: no policy is named 'statik'; did you mean 'static'?"
expect 2 'kvsim: s.db: '"'three bits'"' is its name of another spec, static:k=3,v=3@sym:group=head,levels=full,order=ggml,scale=fp16,sinks=0,window=0' \
    'a name that another spec has' sweep -q t --as 'three bits=static:bits=4@sym' -m good.gguf --db s.db
expect 2 "kvsim: --as: 'x' is the name of two specs: static:k=4,v=4@sym:group=head,levels=full,order=ggml,scale=fp16,sinks=0,window=0 and static:k=8,v=8@sym:group=head,levels=full,order=ggml,scale=fp16,sinks=0,window=0" \
    'a name given twice' sweep -q t --as 'x=static:bits=4@sym' --as 'x=static:bits=8@sym' -m good.gguf --db s.db
expect 1 'kvsim: s.db: holds no row of static:bits=5@sym, to be named' 'a row that is not there' show --as 'x=static:bits=5@sym' --db s.db
printf 'static@sym is=x\n' >bad.sweep
expect 2 'kvsim: bad.sweep: line 1: is=x: stands behind a spec; a line holds one, and as=NAME behind it' 'a word behind a spec' sweep -q t bad.sweep -m good.gguf --db s.db
expect 2 'kvsim: sweep: usage: kvsim sweep TRACE SPEC|FILE.sweep...' 'no spec at all' sweep t
expect 2 'kvsim: show: --tsv and --latex: a table is printed in one way' 'two ways at once' show --db s.db --latex --tsv

# ---- 80 columns

if (cd "$root" && ${CC:-cc} -std=c17 -O2 -fPIC -shared -I. -o "$work/mine.so" policies/template.c); then
    "$kvsim" sweep -q t './mine.so:cut={4,16}@sym' -m good.gguf --db s.db
    COLUMNS=80 "$kvsim" show --db s.db >wide.txt
    check 'names lose what they share and keep what differs' test "$(grep -c '^mine.so#[0-9a-f]*:cut=4… ' wide.txt) $(grep -c '^mine.so#[0-9a-f]*:cut=16… ' wide.txt)" = '2 2'
else
    echo 'not ok - the template compiles'
fi
wide() { # lines of more than 80 characters
    COLUMNS=80 "$kvsim" "$@" 2>/dev/null | LC_ALL=C sed 's/[\x80-\xBF]//g' | LC_ALL=C awk 'length($0) > 80' | grep -v '^  kvsim ' | wc -l
}
for words in 'show --db s.db' 'show --db s.db --paired' 'show --db s.db --scorers' 'frontier --db s.db' 'attribute --db s.db' 'verdict --db s.db' \
    'list policies' 'list formats --long' 'list devices' 'describe qaq' 'devices' '--help' 'show --help' 'sweep --help' 'sql --views'; do
    # shellcheck disable=SC2086
    check "$words fits" test "$(wide $words)" = 0
done
finish
