# SPDX-License-Identifier: Apache-2.0
# kvsim as a process: it ends when it is asked to, needs little memory to say its version, takes a closed
# pipe as filters do, and says how far it is.
root=$PWD
. sim/cli/test/lib/tap.sh
tiny good

# ---- signals

"$kvsim" record -q -m good.gguf -t samples --stride 36 --keep final,kv,sens -o t || exit 1
"$kvsim" sweep -q t none static:bits=8 static:bits=4 static:bits=2 -m good.gguf --db s.db || exit 1
endless='WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT sum(x) FROM c'

# at_work PID: waits until the process catches SIGTERM (bit 14 of what it catches), so that a signal finds its handler
# however slowly the machine starts it.
at_work() {
    until caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null) &&
          [ $((0x${caught:-0} >> 14 & 1)) = 1 ]; do
        kill -0 "$1" 2>/dev/null || return 1
        sleep 0.05
    done
    sleep 0.3
}
# Under nohup(1) this script's own children are spared SIGHUP, and stay so.
ignored=$(sed -n 's/^SigIgn:[[:space:]]*//p' /proc/self/status)
hup=HUP
[ $((0x${ignored:-0} & 1)) = 0 ] || { hup= && skip 'issue 13 C4: SIGHUP' 'ignored since before the test began'; }
for signal in TERM INT $hup; do
    "$kvsim" sql "$endless" --db s.db >out.log 2>err.log &
    pid=$!
    at_work $pid
    kill -s $signal $pid
    kill -s $signal $pid # as timeout(1) does, which signals its child and then its group
    (sleep 20 && kill -KILL $pid) 2>/dev/null &
    killer=$!
    wait $pid
    code=$?
    kill $killer 2>/dev/null
    name="issue 13 C4: a query without an end ends by SIG$signal"
    want_code=1 want='kvsim: s.db: interrupted'
    judge $code
done

cat >spin.c <<'C'
#include "policies/policy.h"
static int begin(void **self, const struct kv_run *run, const struct kv_args *args, struct kv_error *e) {
    (void)self, (void)run, (void)args, (void)e;
    return 0;
}
static void end(void *self) { (void)self; }
static int decide(void *self, const struct kv_item *i, size_t first, size_t n, uint8_t *cells,
                  struct kv_error *e) {
    static volatile unsigned turns;
    (void)self, (void)i, (void)first, (void)n, (void)cells, (void)e;
    for (;;) turns++;
}
static const struct kv_policy spin = {.abi = KV_POLICY_ABI, .struct_bytes = sizeof spin,
                                      .name = "spin", .summary = "never answers", .tag = "baseline", .open = begin, .close = end, .decide = decide};
const struct kv_policy *kv_policy_entry(uint32_t abi);
const struct kv_policy *kv_policy_entry(uint32_t abi) { (void)abi; return &spin; }
C
if ${CC:-cc} -std=c17 -D_GNU_SOURCE -I"$root" -shared -fPIC -o spin.so spin.c 2>cc.log; then
    for signal in TERM $hup; do
        "$kvsim" replay -q t "./spin.so@sym" -m good.gguf >out.log 2>err.log &
        pid=$!
        at_work $pid
        kill -s $signal $pid
        sleep 0.5
        kill -s $signal $pid
        (sleep 10; kill -KILL $pid) 2>/dev/null &
        killer=$!
        wait $pid 2>/dev/null
        code=$?
        kill $killer 2>/dev/null
        case $signal in TERM) want_code=143 ;; HUP) want_code=129 ;; esac
        check "issue 13 C4: a plug-in that never answers ends by the second SIG$signal" \
            test "$code" = $want_code
    done
else
    skip 'issue 13 C4: a plug-in that never answers ends by the second signal' 'no compiler'
fi
nohup sh -c "exec '$kvsim' sql \"$endless\" --db s.db" >out.log 2>&1 &
pid=$!
at_work $pid
kill -HUP $pid
sleep 0.3
check 'nohup keeps SIGHUP away' kill -0 $pid
kill -TERM $pid
wait $pid 2>/dev/null

# ---- OpenBLAS

sanitizer=$(nm "$kvsim" 2>/dev/null | grep -o '__asan_init\|__tsan_init' | head -n 1)
if [ -z "$sanitizer" ]; then
    for verb in version 'list --cpu' 'show --db s.db' 'describe static'; do
        check "issue 13 C6: kvsim $verb in 150 MB of address space" \
            sh -c "ulimit -v 150000; timeout 20 '$kvsim' $verb"
    done
    (ulimit -v 150000 && timeout 20 "$kvsim" record -m good.gguf -t samples -o tight >out.log 2>err.log)
    code=$?
    name='issue 13 C6: a model where OpenBLAS finds no memory is refused in a sentence'
    want_code=1
    want='kvsim: OpenBLAS: needs 192 MiB of address space, which cannot be had (ulimit -v?)'
    judge $code
else
    skip 'issue 13 C6: little address space' 'a sanitizer needs terabytes'
fi
core() { env -u OPENBLAS_CORETYPE "$@" "$kvsim" doctor --tsv 2>/dev/null | sed -n 's/^products.*core \([A-Za-z]*\): .*/\1/p'; }
case $("$kvsim" doctor --tsv 2>/dev/null | sed -n 's/^processor.*, level //p') in
avx512)
    check "issue 13 C7: level avx512 multiplies with SkylakeX's kernels" test "$(core env)" = SkylakeX
    check "and level avx2 with Haswell's" test "$(core env KVSIM_CPU=avx2)" = Haswell
    ;;
avx2) check "issue 13 C7: level avx2 multiplies with Haswell's kernels" test "$(core env)" = Haswell ;;
*) skip 'issue 13 C7: kernels by level' 'level base leaves them to OpenBLAS' ;;
esac
check 'the core that a user names goes before' test "$(OPENBLAS_CORETYPE=Nehalem "$kvsim" doctor --tsv 2>/dev/null |
    sed -n 's/^products.*core \([A-Za-z]*\): .*/\1/p')" = Nehalem
check 'doctor measures the rate of products' sh -c "'$kvsim' doctor --tsv | grep -q '^products.*GFLOP/s a thread'"

# ---- a pipe that nobody reads

# piped COMMAND: its code, in a pipe whose reader is gone at once.
piped() { { (sleep 0.2 && exec "$@") 2>err.log; echo $? >code; } | true; }
for verb in 'show --db s.db' 'list formats' 'help' 'help sweep' 'version' 'describe static' '--help' \
    "sql SELECT(1) --db s.db" 'frontier --db s.db' 'verdict --list'; do
    # shellcheck disable=SC2086
    piped "$kvsim" $verb
    until [ -s code ]; do sleep 0.05; done
    check "issue 13 C12: kvsim $verb ends of a closed pipe as cat does, without a word" \
        sh -c "[ $(cat code) = 141 ] && [ ! -s err.log ]"
    rm code
done
awk 'BEGIN {
    print "mix,context,step_ms"
    split("16 8 4", bits)
    for (b = 1; b <= 3; b++) for (context = 1024; context <= 4096; context += 1024)
        printf "%d,%d,%.4f\n", bits[b], context, 8 + context * (2 + bits[b]) / 20000
}' >runs.csv
piped "$kvsim" calibrate --runs runs.csv --shape 135m -o device.json -q
until [ -s code ]; do sleep 0.05; done
check 'issue 13 C12: calibrate writes its device although nobody reads the table' test -s device.json
check 'a full disk is still an error' sh -c "'$kvsim' list formats >/dev/full; [ \$? = 1 ]"

finish
