# SPDX-License-Identifier: Apache-2.0
# Policies that are not what they say, specs that cannot be, and modes that are not a spec's own, as a user
# meets them (issue 13: A9, A10, A11, B2, C5, C10, C11, C13, C14).
root=$(pwd)
. sim/cli/test/lib/tap.sh
tiny good
"$kvsim" record -q -m good.gguf -t samples --stride 36 -o t || exit 1

# plugin NAME DECISION FIELDS: builds NAME.so
plugin() {
    cat >"$1.c" <<EOF
#include "policies/policy.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
__attribute__((noinline, unused)) static int deep(volatile int n) {
    volatile char frame[4096];
    frame[n % 4096] = (char)n;
    return frame[(n + 1) % 4096] + deep(n + 1) + frame[0];
}
static int mine_open(void **s, const struct kv_run *r, const struct kv_args *a, struct kv_error *e) {
    (void)s; (void)r; (void)a; (void)e;
    return 0;
}
static int mine_decide(void *s, const struct kv_item *item, size_t first, size_t n, uint8_t *cells,
                       struct kv_error *e) {
    const struct kv_token *tokens = item->tokens;
    size_t k = kv_cells(&item->run->shape);
    (void)s; (void)e; (void)tokens;
    for (size_t t = first; t < first + n; t++)
        for (size_t c = 0; c < k; c++) { int w = 1; $2; *cells++ = (uint8_t)w; }
    return 0;
}
static const struct kv_policy mine = {.abi = KV_POLICY_ABI, .struct_bytes = sizeof mine, .name = "$1",
    .tag = "baseline", .open = mine_open, .decide = mine_decide, $3};
const struct kv_policy *kv_policy_entry(uint32_t abi) { (void)abi; return &mine; }
EOF
    cc -std=c17 -D_GNU_SOURCE -O1 -fPIC -shared -I"$root" -o "$1.so" "$1.c" || exit 1
}
says() { # says CODE PATTERN NAME ARGUMENTS...: the last line on stderr holds the pattern
    want_code=$1 pattern=$2 name=$3
    shift 3
    "$kvsim" "$@" >out.log 2>err.log
    code=$?
    [ "$code" = "$want_code" ] && tail -n 1 err.log | grep -q -- "$pattern"
    report $? "$name" || { echo "# code $code"; sed 's/^/# /' err.log; }
}

# ---- A9

plugin needs 'w = tokens[t].feature[KV_RARITY_NATS] > 2 ? 2 : 0' '.varies = KV_VARIES_TOKEN'
plugin unclear 'w = tokens[t].kind == KV_DIGIT' '.varies = KV_VARIES_TOKEN'
plugin vectors 'w = item->k != NULL' '.varies = KV_VARIES_TOKEN'
plugin sides 'w = (int)(c % 2)' '.varies = KV_VARIES_TOKEN'
plugin layers 'w = c >= k / 2' '.varies = KV_VARIES_TOKEN | KV_VARIES_KV'
plugin tokens 'w = (int)(t % 2)' '.varies = KV_VARIES_LAYER'
plugin places 'w = (int)(t % 2)' '.varies = KV_VARIES_POSITION'
plugin contents 'w = (int)(tokens[t].id % 2)' '.varies = KV_VARIES_POSITION'
plugin honest 'w = tokens[t].feature[KV_RARITY_NATS] > 2 ? 2 : 0' \
    '.varies = KV_VARIES_TOKEN, .needs = KV_NEED(KV_RARITY_NATS)'
says 1 'policy ./needs.so reads rarity_nats without declaring it' \
    'issue 13 A9: a plug-in that reads a feature it does not declare is refused by the feature' replay t ./needs.so -m good.gguf
says 1 'policy ./unclear.so reads token class without declaring it' \
    'issue 13 A9: so is one that reads classes' replay t ./unclear.so --fidelity fisher
says 1 'policy ./vectors.so reads keys and values without declaring it' \
    'issue 13 A9: so is one that goes by vectors where there are some' replay t ./vectors.so -m good.gguf
says 1 'answers otherwise along K and V, which it does not declare (KV_VARIES_KV)' \
    'issue 13 A9: an answer along an axis that is not declared is refused' replay t ./sides.so -m good.gguf
says 1 'answers otherwise along layer,' 'issue 13 A9: layers too' replay t ./layers.so -m good.gguf
says 1 'answers otherwise along token,' 'issue 13 A9: tokens too' replay t ./tokens.so -m good.gguf
says 1 'goes by what the tokens are' 'issue 13 A9: positions alone are what positions are' replay t ./contents.so -m good.gguf
check 'issue 13 A9: a policy by position passes' "$kvsim" replay t ./places.so -m good.gguf --audit
check 'issue 13 A9: one that declares what it reads passes' "$kvsim" replay t ./honest.so -m good.gguf --audit

# ---- C14

for way in 'exit(0):exit()' 'quick_exit(0):quick_exit()' 'abort():abort()' '*(volatile int *)8 = 1:SIGSEGV' 'raise(SIGFPE):SIGFPE'; do
    plugin ends "${way%:*}" '.varies = KV_VARIES_TOKEN'
    says 1 "kvsim: ./ends.so: the plug-in ended the program by .*${way##*:}" \
        "issue 13 C14: a plug-in that does ${way%:*} is named, with code 1" replay t 'shuffle(./ends.so)' --fidelity fisher
done
for way in '_exit(0):_exit()' '_Exit(0):_exit()' 'deep(0):SIGSEGV'; do
    plugin ends "${way%:*}" '.varies = KV_VARIES_TOKEN'
    says 1 "kvsim: ./ends.so: the plug-in ended the program by .*${way##*:}" \
        "issue 13 C14: one that does ${way%:*} is named too" replay t ./ends.so --fidelity fisher
    says 1 "kvsim: ./ends.so: the plug-in ended the program by .*${way##*:}" \
        "issue 13 C14: in workers as well: ${way%:*}" replay t ./ends.so -m good.gguf -j 2
done
plugin forks 'if (t == first && c == 0) { pid_t p = fork(); int s; if (!p) _exit(0); waitpid(p, &s, 0); w = s ? 9 : 1; }' \
    '.varies = KV_VARIES_TOKEN'
check 'issue 13 C14: a child that a plug-in forks may end' "$kvsim" replay t ./forks.so --fidelity fisher
# Nobody can stop this one; what was stored before is whole, and the sweep goes on without it.
"$kvsim" sweep -q t static:bits=4@sym --fidelity fisher --db ended.db || exit 1
plugin ends 'syscall(SYS_exit_group, 0)' '.varies = KV_VARIES_TOKEN'
"$kvsim" sweep -q t static:bits=3@sym ./ends.so static:bits=2@sym --fidelity fisher --db ended.db
"$kvsim" verify ended.db >out.log 2>&1
check 'issue 13 C14: a store outlives a plug-in that ends the process past all handlers' \
    grep -q 'equal bit for bit' out.log
"$kvsim" sweep -q t static:bits='{2,3,4}@sym' --fidelity fisher --db ended.db || exit 1
check 'issue 13 C14: and takes what was not run' \
    test "$("$kvsim" sql 'SELECT COUNT(*), COUNT(DISTINCT n) FROM summary' --db ended.db --tsv | tail -n 1)" = "$(printf '3\t1')"
says 1 'nothing: is not a trace folder' 'issue 13 C14: train without its trace' train mlp nothing

# ---- A11

"$kvsim" sweep -q t ./honest.so --fidelity fisher --db builds.db || exit 1
plugin honest 'w = tokens[t].feature[KV_RARITY_NATS] > 4 ? 2 : 0' \
    '.varies = KV_VARIES_TOKEN, .needs = KV_NEED(KV_RARITY_NATS)'
"$kvsim" sweep -q t ./honest.so --fidelity fisher --db builds.db || exit 1
"$kvsim" show --db builds.db >show.txt
check 'issue 13 A11: two builds of a plug-in are told apart by their digests' \
    test "$(grep -c '^./honest.so#[0-9a-f]\{4\}@sym' show.txt)" = 2
check 'issue 13 A11: the newest is said' test "$(grep -c '(newest)' show.txt)" = 1
"$kvsim" frontier --value kl --db builds.db >front.txt
check 'issue 13 A11: in the frontier too' test "$(grep -c '#[0-9a-f]\{4\}@sym (newest)' front.txt)" = 1

label=$(grep -o '^./honest.so#[0-9a-f]*@sym (newest)' show.txt | cut -d' ' -f1)
check 'issue 13 A11: TSV of both has the label' sh -c \
    "for verb in show frontier; do '$kvsim' \$verb --db builds.db --tsv | awk -F '\t' -v l='$label' 'NR == 1 { while (\$++at != \"label\" && at < NF) ; } NR > 1 { n += \$at == l } END { exit n != 1 }' || exit 1; done"
"$kvsim" sweep -q t ./honest.so static:bits=2@sym static:bits=4@kivi -m good.gguf --db exact.db || exit 1
plugin honest 'w = tokens[t].feature[KV_RARITY_NATS] > 3 ? 2 : 0' \
    '.varies = KV_VARIES_TOKEN, .needs = KV_NEED(KV_RARITY_NATS)'
"$kvsim" sweep -q t ./honest.so -m good.gguf --db exact.db || exit 1
says 0 '/honest.so#[0-9a-f]*@sym is the newest build of its file that the store holds' \
    'issue 13 A11: outcomes says whether its build is the newest' outcomes ./honest.so --db exact.db
"$kvsim" attribute --db exact.db >out.log 2>err.log
check 'issue 13 A11: attribute says which builds are not' \
    grep -q '/honest.so#[0-9a-f]*@sym is not the newest build of its file that the store holds' err.log
check 'issue 13 B2: and which runs are of another mode' \
    grep -q '^static:bits=4@kivi, mode inline: the format was published in mode prefill$' err.log
printf '%s: %s\n' source here model any benchmark any quantity 'kl ratio' first './honest.so*' \
    second static:bits=4@kivi 'at most' 9 claim 'a rule is as good' >own.claim
"$kvsim" verdict ./own.claim --db exact.db >out.log 2>&1
check 'issue 13 A11: verdict marks the newest' test "$(grep -c 'honest.so#[0-9a-f]*@sym (newest) against' out.log) $(grep -c 'honest.so#[0-9a-f]*@sym against' out.log)" = '1 1'
check 'issue 13 B2: and the mode' sh -c "grep -q '(inline\*)' out.log && grep -q '^\* another read mode' out.log"

# ---- A10

export KVSIM_CPU=fast
says 2 "KVSIM_CPU: no CPU level is named 'fast'" 'issue 13 A10: an unknown level is refused' version
unset KVSIM_CPU
"$kvsim" sweep -q t static:bits=4@sym --items 0-1 -m good.gguf --db level.db || exit 1
KVSIM_CPU=base "$kvsim" sweep -q t static:bits=4@sym -m good.gguf --db level.db || exit 1
runs=$("$kvsim" sql 'SELECT COUNT(*) FROM run' --db level.db --tsv | tail -n 1)
levels=$("$kvsim" sql 'SELECT COUNT(DISTINCT cpu) FROM run' --db level.db --tsv | tail -n 1)
check 'issue 13 A10: a sweep that goes on at another level is another run' test "$runs" = "$levels"

# ---- B2

says 0 'static:bits=4@kivi, mode inline: the format was published in mode prefill' \
    'issue 13 B2: another mode than the published one is said' replay t static:bits=4@kivi -m good.gguf
"$kvsim" sweep -q t static:bits=4@kivi static:bits=4@sym -m good.gguf --db modes.db || exit 1
check 'issue 13 B2: show marks it' sh -c "'$kvsim' show --db modes.db | grep -q 'kivi.* inline\* '"
check 'issue 13 B2: and says what the star means' sh -c "'$kvsim' show --db modes.db | grep -q 'another read mode than'"
check 'issue 13 B2: the frontier marks it' sh -c "'$kvsim' frontier --db modes.db --value kl | grep -q 'kivi\*'"
says 0 'static:bits=4@kivi, mode inline: the format was published in mode prefill' \
    'issue 13 B2: outcomes says it' outcomes static:bits=4@kivi --db modes.db
check 'issue 13 B2: TSV has the published mode' sh -c "'$kvsim' show --db modes.db --tsv | head -n 1 | grep -q published_mode"
check 'issue 13 B2: diff marks it' sh -c "'$kvsim' diff static:bits=4@kivi static:bits=4@sym --db modes.db | grep -q 'inline\*)'"
check 'issue 13 B2: list says modes' sh -c "'$kvsim' list policies | head -n 1 | grep -q published_in"
"$kvsim" sweep -q t "$root/policies/rivals.sweep" --mode published -m good.gguf --db rivals.db || exit 1
check 'issue 13 B2: the published systems run each in its own mode' \
    sh -c "'$kvsim' show --db rivals.db | grep -q 'qaq@qaq *prefill1 ' && ! '$kvsim' show --db rivals.db | grep -q '\*  *[01]\.[0-9]'"

# ---- C10, C13, C11

printf 'static:bits=4@sym\n\000static:bits=2@sym\n' >zero.sweep
says 1 'zero.sweep: line 2: a zero byte, where text is expected' \
    'issue 13 C10: a zero byte in a sweep file is refused by its line' replay t zero.sweep -m good.gguf
echo 'static:bits=4@sym static:bits=2@sym' >two.sweep
says 2 'stands behind a spec; a line holds one' \
    'issue 13 C10: a second spec in a line is not dropped' replay t two.sweep -m good.gguf
says 2 "':memory:' names no file" 'issue 13 C10: a store in memory is refused' sweep t static -m good.gguf --db :memory:
says 2 "':memory:' names no file" 'issue 13 C10: by other verbs too' show --db :memory:
printf '0\n24\n0\n' >ids
says 1 "ids: line 3: id '0' is listed twice" 'issue 13 C10: an id that is listed twice' record -m good.gguf --ids ids -o x
"$kvsim" sweep t 'static:bits=4@{kivi,sym}' --fidelity fisher --db fisher.db 2>err.log
check 'issue 13 C13: a spec that cannot be predicted is skipped with a line' grep -q 'skipped static:k=4,v=4@kivi' err.log
check 'issue 13 C13: and the rest is stored' sh -c "'$kvsim' show --db fisher.db | grep -q '^static:bits=4@sym'"
says 1 'fisher replay does not answer' 'issue 13 C13: alone it is an error' replay t static:bits=4@kivi --fidelity fisher
finish
