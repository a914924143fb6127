// SPDX-License-Identifier: Apache-2.0
// The columns of show's table: when each is printed and what it says of a row.
#include "sim/cli/columns.h"
#include "sim/base/memory.h"

#include <stdlib.h>

// "0.415 [0.372 0.459]"
static char *range_text(double x, struct kv_interval i) {
    if (isnan(x)) return NULL;
    return isnan(i.low) ? kv_format_text("%.3f", x)
                        : kv_format_text("%.3f [%.3f %.3f]", x, i.low, i.high);
}

// "+0.008 [-0.023 +0.046]"
static char *signed_range_text(double x, struct kv_interval i) {
    if (isnan(x)) return NULL;
    if (fabs(x) < 0.0005) x = 0; // no "-0.000"
    return isnan(i.low) ? kv_format_text("%+.3f", x)
                        : kv_format_text("%+.3f [%+.3f %+.3f]", x, i.low, i.high);
}

static void take_text(struct kv_table *t, char *s) {
    kv_table_text(t, s);
    free(s);
}

#define CELL(name) static void name(struct kv_table *t, const struct kv_shown *c)
CELL(spec) {
    kv_table_text(t, c->row->s.spec);
}
CELL(label) {
    take_text(t, kv_format_text("%s%s", c->row->label, c->row->s.oracle ? " (oracle)" : ""));
}
CELL(tag) {
    kv_table_text(t, c->row->s.tag);
}
CELL(oracle) {
    kv_table_count(t, c->row->s.oracle);
}
CELL(fidelity) {
    kv_table_text(t, c->row->s.fidelity);
}
CELL(mode) {
    kv_table_text(t, c->row->s.mode);
}
CELL(own) {
    kv_table_text(t, c->row->s.self);
}
CELL(compute) {
    kv_table_text(t, c->row->s.compute);
}
CELL(variant) {
    kv_table_text(t, c->row->s.variant);
}
CELL(seed) {
    kv_table_count(t, (long long)c->row->s.seed);
}
CELL(redraws) {
    kv_table_count(t, (long long)c->row->s.n_redraws);
}
CELL(count) {
    kv_table_count(t, (long long)c->row->s.n_items);
}
CELL(acc) {
    kv_table_number(t, c->row->s.acc[KV_ACC], 6);
}
CELL(acc_low) {
    kv_table_number(t, c->row->interval[KV_ACC].low, 6);
}
CELL(acc_high) {
    kv_table_number(t, c->row->interval[KV_ACC].high, 6);
}
CELL(acc_text) {
    take_text(t, range_text(c->row->s.acc[KV_ACC], c->row->interval[KV_ACC]));
}
CELL(acc_norm) {
    kv_table_number(t, c->row->s.acc[KV_ACC_NORM], 6);
}
CELL(acc_norm_low) {
    kv_table_number(t, c->row->interval[KV_ACC_NORM].low, 6);
}
CELL(acc_norm_high) {
    kv_table_number(t, c->row->interval[KV_ACC_NORM].high, 6);
}
CELL(acc_norm_text) {
    kv_table_number(t, c->row->s.acc[KV_ACC_NORM], 3);
}
CELL(acc_bytes) {
    kv_table_number(t, c->row->s.acc[KV_ACC_BYTES], 6);
}
CELL(acc_token) {
    kv_table_number(t, c->row->s.acc[KV_ACC_TOKEN], 6);
}
CELL(diff) {
    kv_table_number(t, c->row->to16[KV_ACC].difference, 6);
}
CELL(diff_low) {
    kv_table_number(t, c->row->to16[KV_ACC].interval.low, 6);
}
CELL(diff_high) {
    kv_table_number(t, c->row->to16[KV_ACC].interval.high, 6);
}
CELL(diff_text) {
    take_text(t, signed_range_text(c->row->to16[KV_ACC].difference, c->row->to16[KV_ACC].interval));
}
CELL(won) {
    kv_table_number(t, c->row->to16[KV_ACC].n ? c->row->to16[KV_ACC].won : NAN, -1);
}
CELL(lost) {
    kv_table_number(t, c->row->to16[KV_ACC].n ? c->row->to16[KV_ACC].lost : NAN, -1);
}
CELL(mid_p) {
    kv_table_number(t, c->row->to16[KV_ACC].mid_p, 6);
}
CELL(holm_p) {
    kv_table_number(t, c->row->holm_p, 6);
}
CELL(holm_p_text) {
    kv_table_number(t, c->row->holm_p, 3);
}
CELL(rounding) {
    kv_table_number(t, c->row->split.rounding_share, 4);
}
CELL(rounding_kl) {
    kv_table_number(t, c->row->split_kl.rounding_share, 4);
}
CELL(rounding_text) {
    kv_table_number(t, 100 * c->row->split.rounding_share, 0);
}
CELL(rounding_kl_text) {
    kv_table_number(t, 100 * c->row->split_kl.rounding_share, 0);
}
CELL(kl) {
    kv_table_number(t, c->row->kl.mean, 6);
}
CELL(kl_text) {
    kv_table_number(t, c->row->kl.mean, 4);
}
CELL(kl_low) {
    kv_table_number(t, c->row->kl.interval.low, 6);
}
CELL(kl_high) {
    kv_table_number(t, c->row->kl.interval.high, 6);
}
CELL(agree) {
    kv_table_number(t, c->row->s.agree, 6);
}
CELL(agree_text) {
    kv_table_number(t, c->row->s.agree, 3);
}
CELL(nominal) {
    kv_table_number(t, c->row->s.nominal_bits, 6);
}
CELL(effective) {
    kv_table_number(t, c->row->s.effective_bits, 6);
}
CELL(allocated) {
    kv_table_number(t, c->row->s.allocated_bits, 6);
}
CELL(entropy) {
    kv_table_number(t, c->row->s.entropy_bits, 6);
}
CELL(nominal_text) {
    kv_table_number(t, c->row->s.nominal_bits, 2);
}
CELL(effective_text) {
    kv_table_number(t, c->row->s.effective_bits, 2);
}
CELL(allocated_text) {
    kv_table_number(t, c->row->s.allocated_bits, 2);
}
CELL(bytes) {
    kv_table_number(t, c->row->s.bytes_per_token, 1);
}
CELL(ms) {
    kv_table_number(t, c->row->at[c->context].step_ns / 1e6, 6);
}
CELL(ceiling) {
    kv_table_number(t, c->row->at[c->context].ceiling_ns / 1e6, 6);
}
CELL(extrapolated) {
    kv_table_count(t, c->row->at[c->context].extrapolated);
}
CELL(ms_text) {
    const struct kv_latency *l = &c->row->at[c->context];
    take_text(t, kv_format_text("%.2f%s", l->step_ns / 1e6, l->extrapolated ? "*" : " "));
}
// McNemar's mid-p, or the t test's where redraws make fractions.
static double paired_p(const struct kv_paired *p) {
    return isnan(p->mid_p) ? p->t_p : p->mid_p;
}
CELL(shuffle_diff) {
    kv_table_number(t, c->row->shuffle.n_runs ? c->row->shuffle.acc.difference : NAN, 6);
}
CELL(shuffle_low) {
    kv_table_number(t, c->row->shuffle.n_runs ? c->row->shuffle.acc.interval.low : NAN, 6);
}
CELL(shuffle_high) {
    kv_table_number(t, c->row->shuffle.n_runs ? c->row->shuffle.acc.interval.high : NAN, 6);
}
CELL(shuffle_kl) {
    kv_table_number(t, c->row->shuffle.n_runs ? c->row->shuffle.kl.mean : NAN, 6);
}
CELL(shuffle_runs) {
    kv_table_count(t, (long long)c->row->shuffle.n_runs);
}
CELL(shuffle_text) {
    const struct kv_versus *v = &c->row->shuffle;
    take_text(t, v->n_runs ? signed_range_text(v->acc.difference, v->acc.interval) : NULL);
}
CELL(shuffle_p) {
    kv_table_number(t, c->row->shuffle.n_runs ? paired_p(&c->row->shuffle.acc) : NAN, 6);
}
CELL(shuffle_p_text) {
    kv_table_number(t, c->row->shuffle.n_runs ? paired_p(&c->row->shuffle.acc) : NAN, 3);
}
CELL(static4_diff) {
    kv_table_number(t, c->row->static4.n_runs ? c->row->static4.acc.difference : NAN, 6);
}
CELL(static4_low) {
    kv_table_number(t, c->row->static4.n_runs ? c->row->static4.acc.interval.low : NAN, 6);
}
CELL(static4_high) {
    kv_table_number(t, c->row->static4.n_runs ? c->row->static4.acc.interval.high : NAN, 6);
}
CELL(static4_p) {
    kv_table_number(t, c->row->static4.n_runs ? paired_p(&c->row->static4.acc) : NAN, 6);
}
CELL(static4_p_text) {
    kv_table_number(t, c->row->static4.n_runs ? paired_p(&c->row->static4.acc) : NAN, 3);
}
CELL(static4_text) {
    const struct kv_versus *v = &c->row->static4;
    take_text(t, v->n_runs ? signed_range_text(v->acc.difference, v->acc.interval) : NULL);
}
CELL(mid_p_text) {
    kv_table_number(t, paired_p(&c->row->to16[KV_ACC]), 3);
}
CELL(shares) { // of all keys and values
    struct kv_text s = {0};
    for (size_t b = 0; b < sizeof c->row->s.ledger.share[0] / sizeof(double); b++) {
        double both = 0;
        for (int side = 0; side < 2; side++) both += 0.5 * c->row->s.ledger.share[side][b];
        if (both >= 0.0005) kv_text_addf(&s, "%s%zu:%.3g", s.n ? " " : "", b, 100 * both);
    }
    take_text(t, kv_text_take(&s));
}
CELL(frontier) {
    kv_table_count(t, c->on_frontier);
}
CELL(layers) {
    kv_table_text(t, c->layers);
}
CELL(task) {
    kv_table_text(t, c->row->s.task);
}
CELL(prompt) {
    kv_table_text(t, c->row->s.prompt);
}
CELL(subset) {
    kv_table_text(t, c->row->s.subset);
}
CELL(model) {
    kv_table_text(t, c->row->s.model);
}
CELL(chance) {
    kv_table_number(t, c->row->s.chance, 6);
}
CELL(digest) {
    kv_table_text(t, c->row->s.trace_digest);
}
CELL(version) {
    kv_table_text(t, c->row->s.version);
}
CELL(commit) {
    kv_table_text(t, c->row->s.commit);
}

#define SAME(name, test)                                                                           \
    static bool same_##name(const struct kv_row *a, const struct kv_row *b) {                      \
        return test;                                                                               \
    }
SAME(fidelity, strcmp(a->s.fidelity, b->s.fidelity) == 0)
SAME(mode, strcmp(a->s.mode, b->s.mode) == 0)
SAME(own, strcmp(a->s.self, b->s.self) == 0)
SAME(compute, strcmp(a->s.compute, b->s.compute) == 0)
SAME(variant, strcmp(a->s.variant, b->s.variant) == 0)
SAME(seed, a->s.seed == b->s.seed)
SAME(redraws, a->s.n_redraws == b->s.n_redraws)
SAME(count, a->s.n_items == b->s.n_items)

const struct kv_show_column kv_show_columns[] = {
    {"spec", KV_LEFT, KV_SHOW_MACHINE, spec, NULL},
    {"spec", KV_LEFT, KV_SHOW_TEXT, label, NULL},
    {"fidelity", KV_LEFT, KV_SHOW_MACHINE | KV_SHOW_TEXT, fidelity, same_fidelity},
    {"mode", KV_LEFT, KV_SHOW_MACHINE | KV_SHOW_TEXT, mode, same_mode},
    {"n", KV_RIGHT, KV_SHOW_MACHINE | KV_SHOW_TEXT, count, same_count},
    {"acc", KV_RIGHT, KV_SHOW_MACHINE, acc, NULL},
    {"acc_low", KV_RIGHT, KV_SHOW_MACHINE, acc_low, NULL},
    {"acc_high", KV_RIGHT, KV_SHOW_MACHINE, acc_high, NULL},
    {"acc [95 %]     ", KV_RIGHT, KV_SHOW_TEXT, acc_text, NULL},
    {"acc_norm", KV_RIGHT, KV_SHOW_MACHINE, acc_norm, NULL},
    {"acc_norm_low", KV_RIGHT, KV_SHOW_MACHINE, acc_norm_low, NULL},
    {"acc_norm_high", KV_RIGHT, KV_SHOW_MACHINE, acc_norm_high, NULL},
    {"acc_norm", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_WIDE, acc_norm_text, NULL},
    {"acc_bytes", KV_RIGHT, KV_SHOW_MACHINE, acc_bytes, NULL},
    {"acc_token", KV_RIGHT, KV_SHOW_MACHINE, acc_token, NULL},
    {"diff16", KV_RIGHT, KV_SHOW_MACHINE, diff, NULL},
    {"diff16_low", KV_RIGHT, KV_SHOW_MACHINE, diff_low, NULL},
    {"diff16_high", KV_RIGHT, KV_SHOW_MACHINE, diff_high, NULL},
    {"to 16 bit [95 %]  ", KV_RIGHT, KV_SHOW_TEXT, diff_text, NULL},
    {"mid-p", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_PAIRED, mid_p_text, NULL},
    {"to static 4 bit   ", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_PAIRED, static4_text, NULL},
    {"mid-p", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_PAIRED, static4_p_text, NULL},
    {"to its shuffle    ", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_NULLED, shuffle_text, NULL},
    {"p", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_NULLED | KV_SHOW_PAIRED, shuffle_p_text, NULL},
    {"won", KV_RIGHT, KV_SHOW_MACHINE, won, NULL},
    {"lost", KV_RIGHT, KV_SHOW_MACHINE, lost, NULL},
    {"mid_p", KV_RIGHT, KV_SHOW_MACHINE, mid_p, NULL},
    {"holm_p", KV_RIGHT, KV_SHOW_MACHINE, holm_p, NULL},
    {"p, Holm", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_WIDE, holm_p_text, NULL},
    {"rounding_share", KV_RIGHT, KV_SHOW_MACHINE, rounding, NULL},
    {"kl_rounding_share", KV_RIGHT, KV_SHOW_MACHINE, rounding_kl, NULL},
    {"rounding %", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_REDRAWN, rounding_text, NULL},
    {"of KL %", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_REDRAWN, rounding_kl_text, NULL},
    {"kl_nats", KV_RIGHT, KV_SHOW_MACHINE, kl, NULL},
    {"kl_nats_low", KV_RIGHT, KV_SHOW_MACHINE, kl_low, NULL},
    {"kl_nats_high", KV_RIGHT, KV_SHOW_MACHINE, kl_high, NULL},
    {"kl_nats", KV_RIGHT, KV_SHOW_TEXT, kl_text, NULL},
    {"agree", KV_RIGHT, KV_SHOW_MACHINE, agree, NULL},
    {"agree", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_WIDE, agree_text, NULL},
    {"nominal_bits", KV_RIGHT, KV_SHOW_MACHINE, nominal, NULL},
    {"effective_bits", KV_RIGHT, KV_SHOW_MACHINE, effective, NULL},
    {"allocated_bits", KV_RIGHT, KV_SHOW_MACHINE, allocated, NULL},
    {"entropy_bits", KV_RIGHT, KV_SHOW_MACHINE, entropy, NULL},
    {"nominal", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_WIDE, nominal_text, NULL},
    {"effective", KV_RIGHT, KV_SHOW_TEXT, effective_text, NULL},
    {"allocated", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_WIDE, allocated_text, NULL},
    {"bytes_per_token", KV_RIGHT, KV_SHOW_MACHINE, bytes, NULL},
    {"ms_%g", KV_RIGHT, KV_SHOW_MACHINE | KV_SHOW_PRICED, ms, NULL},
    {"ceiling_ms_%g", KV_RIGHT, KV_SHOW_MACHINE | KV_SHOW_PRICED, ceiling, NULL},
    {"extrapolated_%g", KV_RIGHT, KV_SHOW_MACHINE | KV_SHOW_PRICED, extrapolated, NULL},
    {"ms@%g ", KV_RIGHT, KV_SHOW_TEXT | KV_SHOW_PRICED, ms_text, NULL},
    {"width:% of values", KV_LEFT, KV_SHOW_TEXT | KV_SHOW_PAIRED, shares, NULL},
    {"bits by layer", KV_LEFT, KV_SHOW_TEXT | KV_SHOW_LAYERS, layers, NULL},
    {"shuffle_diff", KV_RIGHT, KV_SHOW_MACHINE, shuffle_diff, NULL},
    {"shuffle_diff_low", KV_RIGHT, KV_SHOW_MACHINE, shuffle_low, NULL},
    {"shuffle_diff_high", KV_RIGHT, KV_SHOW_MACHINE, shuffle_high, NULL},
    {"shuffle_kl_diff", KV_RIGHT, KV_SHOW_MACHINE, shuffle_kl, NULL},
    {"shuffle_p", KV_RIGHT, KV_SHOW_MACHINE, shuffle_p, NULL},
    {"static4_diff", KV_RIGHT, KV_SHOW_MACHINE, static4_diff, NULL},
    {"static4_diff_low", KV_RIGHT, KV_SHOW_MACHINE, static4_low, NULL},
    {"static4_diff_high", KV_RIGHT, KV_SHOW_MACHINE, static4_high, NULL},
    {"static4_p", KV_RIGHT, KV_SHOW_MACHINE, static4_p, NULL},
    {"shares_pct", KV_LEFT, KV_SHOW_MACHINE, shares, NULL},
    {"shuffle_runs", KV_RIGHT, KV_SHOW_MACHINE, shuffle_runs, NULL},
    {"on_frontier", KV_RIGHT, KV_SHOW_MACHINE, frontier, NULL},
    {"tag", KV_LEFT, KV_SHOW_MACHINE, tag, NULL},
    {"oracle", KV_RIGHT, KV_SHOW_MACHINE, oracle, NULL},
    {"self", KV_LEFT, KV_SHOW_MACHINE | KV_SHOW_TEXT, own, same_own},
    {"compute", KV_LEFT, KV_SHOW_MACHINE | KV_SHOW_TEXT, compute, same_compute},
    {"variant", KV_LEFT, KV_SHOW_MACHINE | KV_SHOW_TEXT, variant, same_variant},
    {"seed", KV_RIGHT, KV_SHOW_MACHINE | KV_SHOW_TEXT, seed, same_seed},
    {"redraws", KV_RIGHT, KV_SHOW_MACHINE | KV_SHOW_TEXT, redraws, same_redraws},
    {"chance", KV_RIGHT, KV_SHOW_MACHINE, chance, NULL},
    {"task", KV_LEFT, KV_SHOW_MACHINE, task, NULL},
    {"prompt", KV_LEFT, KV_SHOW_MACHINE, prompt, NULL},
    {"subset", KV_LEFT, KV_SHOW_MACHINE, subset, NULL},
    {"model", KV_LEFT, KV_SHOW_MACHINE, model, NULL},
    {"trace", KV_LEFT, KV_SHOW_MACHINE, digest, NULL},
    {"version", KV_LEFT, KV_SHOW_MACHINE, version, NULL},
    {"commit", KV_LEFT, KV_SHOW_MACHINE, commit, NULL},
    {0}};
_Static_assert(sizeof kv_show_columns / sizeof *kv_show_columns <= KV_MAX_COLUMNS,
               "columns fit the arrays of those who print them");
