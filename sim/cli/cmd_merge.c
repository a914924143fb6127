// SPDX-License-Identifier: Apache-2.0
// kvsim merge: one store of several, of a sweep's shards above all.
#include "sim/base/files.h"
#include "sim/base/talk.h"
#include "sim/cli/options.h"
#include "sim/store/merge.h"

static int merge(struct kv_cli *c, struct kv_error *e) {
    struct kv_merge_count n;
    const char *out = kv_opt(c, "out");
    if (!out) return kv_fail(e, KV_EUSAGE, "--out", "the store to make is needed");
    int rc = kv_check_output(out, e);
    if (rc == 0) rc = kv_store_merge((const char *const *)c->args, c->n_args, out, &n, e);
    if (rc) return rc;
    kv_say("%s: %zu outcomes of %zu runs, from %zu stores%s", out, n.outcomes, n.runs, c->n_args,
           n.missing ? "; shards are missing, see above" : "");
    kv_say("next: kvsim show --db %s", out);
    return 0;
}

static const struct kv_option options[] = {
    {"out", 'o', "FILE", NULL, "the store to make; it must not be there"}, {0}};

const struct kv_command kv_cmd_merge = {
    .name = "merge",
    .summary = "makes one store of several: the shards of a sweep (sweep --shard I/N)",
    .usage = "A.db B.db...",
    .example = "kvsim merge work/demo.db -o work/merged.db",
    .options = options,
    .min_args = 1,
    .max_args = 100000,
    .run = merge};
