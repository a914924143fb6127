// SPDX-License-Identifier: Apache-2.0
// The columns of show's table: when each is printed and what it says of a row.
#include "sim/cli/columns.h"
#include "sim/base/memory.h"

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

// An estimate and its interval, in three cells; none where nothing is known.
static void add_range(struct kv_table *t, bool known, double x, struct kv_interval i) {
    const double cells[] = {x, i.low, i.high};
    for (size_t k = 0; k < 3; k++) kv_table_number(t, known ? cells[k] : NAN, 6);
}

// McNemar's mid-p, or the t test's where redraws make fractions.
static double paired_p(const struct kv_paired *p) {
    return isnan(p->mid_p) ? p->t_p : p->mid_p;
}

static double versus_p(const struct kv_versus *v) {
    return v->n_runs ? paired_p(&v->acc) : NAN;
}

static char *versus_text(const struct kv_versus *v) {
    return v->n_runs ? signed_range_text(v->acc.difference, v->acc.interval) : NULL;
}

// "4:50 8:50": percent of all keys and values at each width.
static char *shares_text(const struct kv_ledger *l) {
    struct kv_text s = {0};
    for (size_t b = 0; b < sizeof l->share[0] / sizeof(double); b++) {
        double both = 0;
        for (int side = 0; side < 2; side++) both += 0.5 * l->share[side][b];
        if (both >= 0.0005) kv_text_addf(&s, "%s%zu:%.3g", s.n ? " " : "", b, 100 * both);
    }
    return kv_text_take(&s);
}

// "200", "199 of 200", "200, 598 of 600 redraws": what is judged of what is stored.
static char *count_of(const struct kv_row *r) {
    struct kv_text s = {0};
    if (r->n_left_out) kv_text_addf(&s, "%zu of ", r->s.n_items - r->n_left_out);
    kv_text_addf(&s, "%zu", r->s.n_items);
    if (r->n_redraws_out)
        kv_text_addf(&s, ", %zu of %zu redraws", r->n_redraws_in_all - r->n_redraws_out,
                     r->n_redraws_in_all);
    return kv_text_take(&s);
}

static void label(struct kv_table *t, const void *at) {
    const struct kv_shown *c = at;
    if (c->on_frontier) kv_table_mark(t);
    kv_table_take(t, kv_row_name(c->of));
}

#define CELL(name, add) KV_CELL(name, struct kv_shown, add)
#define TEXT(name, value) CELL(name, kv_table_text(t, value))
#define COUNT(name, value) CELL(name, kv_table_count(t, (long long)(value)))
#define NUMBER(name, value, decimals) CELL(name, kv_table_number(t, value, decimals))
#define PRICES(name, add)                                                                          \
    static void name(struct kv_table *t, const void *its_row) {                                    \
        const struct kv_shown *c = its_row;                                                        \
        for (size_t k = 0; k < c->all->n_contexts; k++) {                                          \
            const struct kv_latency *l = &c->of->at[k];                                            \
            add;                                                                                   \
        }                                                                                          \
    }
TEXT(spec, row->of->s.spec)
TEXT(tag, row->of->s.tag)
COUNT(oracle, row->of->s.oracle)
TEXT(fidelity, kv_fidelity_names[row->of->s.fidelity])
TEXT(mode, kv_mode_names[row->of->s.mode])
CELL(mode_text, kv_table_take(t, kv_row_mode(row->of)))
TEXT(published, row->of->published)
TEXT(own, kv_self_names[row->of->s.self])
TEXT(compute, row->of->s.compute)
TEXT(variant, kv_variant_name(row->of->s.form, row->of->s.feedback))
COUNT(seed, row->of->s.seed)
COUNT(redraws, row->of->s.n_redraws)
COUNT(count, row->of->s.n_items)
CELL(count_text, kv_table_take(t, count_of(row->of)))
COUNT(redraws_out, row->of->n_redraws_out)
COUNT(left_out, row->of->n_left_out)
TEXT(left_out_ids, row->of->n_left_out ? row->of->left_out_ids : NULL)
NUMBER(measured, row->of->s.context_tokens, 1)
CELL(acc, add_range(t, true, row->of->s.acc[KV_ACC], row->of->interval[KV_ACC]))
CELL(acc_text, kv_table_take(t, range_text(row->of->s.acc[KV_ACC], row->of->interval[KV_ACC])))
CELL(acc_norm, add_range(t, true, row->of->s.acc[KV_ACC_NORM], row->of->interval[KV_ACC_NORM]))
NUMBER(acc_norm_text, row->of->s.acc[KV_ACC_NORM], 3)
NUMBER(acc_bytes, row->of->s.acc[KV_ACC_BYTES], 6)
NUMBER(acc_token, row->of->s.acc[KV_ACC_TOKEN], 6)
CELL(diff, add_range(t, true, row->of->to16[KV_ACC].difference, row->of->to16[KV_ACC].interval))
CELL(diff_text, kv_table_take(t, signed_range_text(row->of->to16[KV_ACC].difference,
                                                   row->of->to16[KV_ACC].interval)))
NUMBER(won, row->of->to16[KV_ACC].n ? row->of->to16[KV_ACC].won : NAN, -1)
NUMBER(lost, row->of->to16[KV_ACC].n ? row->of->to16[KV_ACC].lost : NAN, -1)
NUMBER(mid_p, row->of->to16[KV_ACC].mid_p, 6)
NUMBER(holm_p, row->of->holm_p, 6)
NUMBER(holm_p_text, row->of->holm_p, 3)
NUMBER(rounding, row->of->split.rounding_share, 4)
NUMBER(rounding_kl, row->of->split_kl.rounding_share, 4)
NUMBER(rounding_text, 100 * row->of->split.rounding_share, 0)
NUMBER(rounding_kl_text, 100 * row->of->split_kl.rounding_share, 0)
CELL(kl, add_range(t, true, row->of->kl.mean, row->of->kl.interval))
NUMBER(kl_text, row->of->kl.mean, 4)
#define TOKENS(name, m)                                                                            \
    CELL(name, add_range(t, row->of->tokens.n, row->of->tokens.at[m].value,                        \
                         row->of->tokens.at[m].interval))                                          \
    NUMBER(name##_text, row->of->tokens.n ? row->of->tokens.at[m].value : NAN, 4)
TOKENS(median, KV_TOKEN_KL_MEDIAN)
TOKENS(kl99, KV_TOKEN_KL_99)
TOKENS(kl999, KV_TOKEN_KL_999)
TOKENS(same_top, KV_TOKEN_SAME_TOP)
TOKENS(rms_dp, KV_TOKEN_RMS_DP)
static double depth_kl(const struct kv_token_summary *s) {
    return s->n ? s->at[KV_TOKEN_KL_MEAN].value : NAN;
}
PRICES(depths, (void)l; kv_table_number(t, depth_kl(&c->of->depth[k]), 6))
PRICES(depths_text, (void)l; kv_table_number(t, depth_kl(&c->of->depth[k]), 4))
NUMBER(agree, row->of->s.agree, 6)
NUMBER(agree_text, row->of->s.agree, 3)
NUMBER(nominal, row->of->s.nominal_bits, 6)
NUMBER(effective, row->of->s.effective_bits, 6)
NUMBER(allocated, row->of->s.allocated_bits, 6)
NUMBER(entropy, row->of->s.entropy_bits, 6)
NUMBER(nominal_text, row->of->s.nominal_bits, 2)
NUMBER(effective_text, row->of->s.effective_bits, 2)
NUMBER(allocated_text, row->of->s.allocated_bits, 2)
NUMBER(bytes, row->of->s.bytes_per_token, 1)
PRICES(ms, kv_table_number(t, l->step_ns / 1e6, 6))
PRICES(ceiling, kv_table_number(t, l->ceiling_ns / 1e6, 6))
PRICES(extrapolated, kv_table_count(t, l->extrapolated))
PRICES(ms_text,
       kv_table_take(t, kv_format_text("%.2f%s", l->step_ns / 1e6, l->extrapolated ? "*" : " ")))
CELL(shuffle_diff, add_range(t, row->of->shuffle.n_runs, row->of->shuffle.acc.difference,
                             row->of->shuffle.acc.interval))
NUMBER(shuffle_kl, row->of->shuffle.n_runs ? row->of->shuffle.kl.mean : NAN, 6)
COUNT(shuffle_runs, row->of->shuffle.n_runs)
CELL(shuffle_text, kv_table_take(t, versus_text(&row->of->shuffle)))
NUMBER(shuffle_p, versus_p(&row->of->shuffle), 6)
NUMBER(shuffle_p_text, versus_p(&row->of->shuffle), 3)
CELL(static4_diff, add_range(t, row->of->static4.n_runs, row->of->static4.acc.difference,
                             row->of->static4.acc.interval))
NUMBER(static4_p, versus_p(&row->of->static4), 6)
NUMBER(static4_p_text, versus_p(&row->of->static4), 3)
CELL(static4_text, kv_table_take(t, versus_text(&row->of->static4)))
NUMBER(mid_p_text, paired_p(&row->of->to16[KV_ACC]), 3)
COUNT(frontier, row->on_frontier)
TEXT(layers, row->layers)
TEXT(task, row->of->s.task)
TEXT(prompt, row->of->s.prompt)
TEXT(subset, row->of->s.subset)
TEXT(model, row->of->s.model)
NUMBER(chance, row->of->s.chance, 6)
TEXT(digest, row->of->s.trace_digest)
TEXT(version, row->of->s.version)
TEXT(commit, row->of->s.commit)
COUNT(newest, row->of->newest)
TEXT(level, row->of->s.cpu)
TEXT(short_name, row->of->label)
NUMBER(ms_error, row->all->device ? 100 * row->all->device->error_median : NAN, 2)
CELL(shares, kv_table_take(t, shares_text(&row->of->s.ledger)))

#define SAME(name, test)                                                                           \
    static bool same_##name(const struct kv_row *a, const struct kv_row *b) {                      \
        return test;                                                                               \
    }
SAME(fidelity, a->s.fidelity == b->s.fidelity)
SAME(mode, a->s.mode == b->s.mode && !a->mode_mismatch == !b->mode_mismatch)
SAME(own, a->s.self == b->s.self)
SAME(compute, strcmp(a->s.compute, b->s.compute) == 0)
SAME(variant, a->s.form == b->s.form && a->s.feedback == b->s.feedback)
SAME(level, strcmp(a->s.cpu, b->s.cpu) == 0)
SAME(seed, a->s.seed == b->s.seed)
SAME(redraws, a->s.n_redraws == b->s.n_redraws)
SAME(count, a->s.n_items == b->s.n_items && a->n_left_out + b->n_left_out == 0 &&
                a->n_redraws_out + b->n_redraws_out == 0)

#define TOKEN_COLUMNS(name, cell, wide)                                                            \
    {{name, KV_RIGHT, cell}, KV_SHOW_MACHINE | KV_SHOW_TOKENS, NULL},                              \
        {{name "_low", KV_RIGHT, NULL}, KV_SHOW_MACHINE | KV_SHOW_TOKENS, NULL},                   \
        {{name "_high", KV_RIGHT, NULL}, KV_SHOW_MACHINE | KV_SHOW_TOKENS, NULL}, {                \
        {name, KV_RIGHT, cell##_text}, KV_SHOW_TEXT | KV_SHOW_TOKENS | (wide), NULL                \
    }

const struct kv_show_column kv_show_columns[] = {
    {{"spec", KV_LEFT, spec}, KV_SHOW_MACHINE, NULL},
    {{"spec", KV_LEFT, label}, KV_SHOW_TEXT, NULL},
    {{"fidelity", KV_LEFT, fidelity}, KV_SHOW_MACHINE | KV_SHOW_TEXT, same_fidelity},
    {{"mode", KV_LEFT, mode}, KV_SHOW_MACHINE, NULL},
    {{"mode", KV_LEFT, mode_text}, KV_SHOW_TEXT, same_mode},
    {{"n", KV_RIGHT, count}, KV_SHOW_MACHINE, NULL},
    {{"n", KV_RIGHT, count_text}, KV_SHOW_TEXT, same_count},
    {{"acc", KV_RIGHT, acc}, KV_SHOW_MACHINE, NULL},
    {{"acc_low", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"acc_high", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"acc [95 %]     ", KV_RIGHT, acc_text}, KV_SHOW_TEXT, NULL},
    {{"acc_norm", KV_RIGHT, acc_norm}, KV_SHOW_MACHINE, NULL},
    {{"acc_norm_low", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"acc_norm_high", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"acc_norm", KV_RIGHT, acc_norm_text}, KV_SHOW_TEXT | KV_SHOW_WIDE, NULL},
    {{"acc_bytes", KV_RIGHT, acc_bytes}, KV_SHOW_MACHINE, NULL},
    {{"acc_token", KV_RIGHT, acc_token}, KV_SHOW_MACHINE, NULL},
    {{"diff16", KV_RIGHT, diff}, KV_SHOW_MACHINE, NULL},
    {{"diff16_low", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"diff16_high", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"to 16 bit [95 %]  ", KV_RIGHT, diff_text}, KV_SHOW_TEXT, NULL},
    {{"mid-p", KV_RIGHT, mid_p_text}, KV_SHOW_TEXT | KV_SHOW_PAIRED, NULL},
    {{"to static 4 bit   ", KV_RIGHT, static4_text}, KV_SHOW_TEXT | KV_SHOW_PAIRED, NULL},
    {{"mid-p", KV_RIGHT, static4_p_text}, KV_SHOW_TEXT | KV_SHOW_PAIRED, NULL},
    {{"to its shuffle    ", KV_RIGHT, shuffle_text}, KV_SHOW_TEXT | KV_SHOW_NULLED, NULL},
    {{"p", KV_RIGHT, shuffle_p_text}, KV_SHOW_TEXT | KV_SHOW_NULLED | KV_SHOW_PAIRED, NULL},
    {{"won", KV_RIGHT, won}, KV_SHOW_MACHINE, NULL},
    {{"lost", KV_RIGHT, lost}, KV_SHOW_MACHINE, NULL},
    {{"mid_p", KV_RIGHT, mid_p}, KV_SHOW_MACHINE, NULL},
    {{"holm_p", KV_RIGHT, holm_p}, KV_SHOW_MACHINE, NULL},
    {{"p, Holm", KV_RIGHT, holm_p_text}, KV_SHOW_TEXT | KV_SHOW_WIDE, NULL},
    {{"rounding_share", KV_RIGHT, rounding}, KV_SHOW_MACHINE, NULL},
    {{"kl_rounding_share", KV_RIGHT, rounding_kl}, KV_SHOW_MACHINE, NULL},
    {{"rounding %", KV_RIGHT, rounding_text}, KV_SHOW_TEXT | KV_SHOW_REDRAWN, NULL},
    {{"of KL %", KV_RIGHT, rounding_kl_text}, KV_SHOW_TEXT | KV_SHOW_REDRAWN, NULL},
    {{"kl_nats", KV_RIGHT, kl}, KV_SHOW_MACHINE, NULL},
    {{"kl_nats_low", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"kl_nats_high", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"kl_nats", KV_RIGHT, kl_text}, KV_SHOW_TEXT, NULL},
    TOKEN_COLUMNS("kl_median", median, KV_SHOW_WIDE),
    TOKEN_COLUMNS("kl_99", kl99, 0),
    TOKEN_COLUMNS("kl_999", kl999, KV_SHOW_WIDE),
    TOKEN_COLUMNS("same_top", same_top, 0),
    TOKEN_COLUMNS("rms_dp", rms_dp, 0),
    {{"kl_at_%g", KV_RIGHT, depths}, KV_SHOW_MACHINE | KV_SHOW_TOKENS, NULL},
    {{"kl@%g", KV_RIGHT, depths_text}, KV_SHOW_TEXT | KV_SHOW_TOKENS, NULL},
    {{"agree", KV_RIGHT, agree}, KV_SHOW_MACHINE, NULL},
    {{"agree", KV_RIGHT, agree_text}, KV_SHOW_TEXT | KV_SHOW_WIDE, NULL},
    {{"nominal_bits", KV_RIGHT, nominal}, KV_SHOW_MACHINE, NULL},
    {{"effective_bits", KV_RIGHT, effective}, KV_SHOW_MACHINE, NULL},
    {{"allocated_bits", KV_RIGHT, allocated}, KV_SHOW_MACHINE, NULL},
    {{"entropy_bits", KV_RIGHT, entropy}, KV_SHOW_MACHINE, NULL},
    {{"nominal", KV_RIGHT, nominal_text}, KV_SHOW_TEXT | KV_SHOW_WIDE, NULL},
    {{"effective", KV_RIGHT, effective_text}, KV_SHOW_TEXT, NULL},
    {{"allocated", KV_RIGHT, allocated_text}, KV_SHOW_TEXT | KV_SHOW_WIDE, NULL},
    {{"bytes_per_token", KV_RIGHT, bytes}, KV_SHOW_MACHINE, NULL},
    {{"ms_%g", KV_RIGHT, ms}, KV_SHOW_MACHINE | KV_SHOW_PRICED, NULL},
    {{"ceiling_ms_%g", KV_RIGHT, ceiling}, KV_SHOW_MACHINE | KV_SHOW_PRICED, NULL},
    {{"extrapolated_%g", KV_RIGHT, extrapolated}, KV_SHOW_MACHINE | KV_SHOW_PRICED, NULL},
    {{"ms@%g ", KV_RIGHT, ms_text}, KV_SHOW_TEXT | KV_SHOW_PRICED, NULL},
    {{"width:% of values", KV_LEFT, shares}, KV_SHOW_TEXT | KV_SHOW_PAIRED, NULL},
    {{"bits by layer", KV_LEFT, layers}, KV_SHOW_TEXT | KV_SHOW_LAYERS, NULL},
    {{"shuffle_diff", KV_RIGHT, shuffle_diff}, KV_SHOW_MACHINE, NULL},
    {{"shuffle_diff_low", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"shuffle_diff_high", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"shuffle_kl_diff", KV_RIGHT, shuffle_kl}, KV_SHOW_MACHINE, NULL},
    {{"shuffle_p", KV_RIGHT, shuffle_p}, KV_SHOW_MACHINE, NULL},
    {{"static4_diff", KV_RIGHT, static4_diff}, KV_SHOW_MACHINE, NULL},
    {{"static4_diff_low", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"static4_diff_high", KV_RIGHT, NULL}, KV_SHOW_MACHINE, NULL},
    {{"static4_p", KV_RIGHT, static4_p}, KV_SHOW_MACHINE, NULL},
    {{"shares_pct", KV_LEFT, shares}, KV_SHOW_MACHINE, NULL},
    {{"shuffle_runs", KV_RIGHT, shuffle_runs}, KV_SHOW_MACHINE, NULL},
    {{"on_frontier", KV_RIGHT, frontier}, KV_SHOW_MACHINE, NULL},
    {{"tag", KV_LEFT, tag}, KV_SHOW_MACHINE, NULL},
    {{"oracle", KV_RIGHT, oracle}, KV_SHOW_MACHINE, NULL},
    {{"self", KV_LEFT, own}, KV_SHOW_MACHINE | KV_SHOW_TEXT, same_own},
    {{"compute", KV_LEFT, compute}, KV_SHOW_MACHINE | KV_SHOW_TEXT, same_compute},
    {{"variant", KV_LEFT, variant}, KV_SHOW_MACHINE | KV_SHOW_TEXT, same_variant},
    {{"seed", KV_RIGHT, seed}, KV_SHOW_MACHINE | KV_SHOW_TEXT, same_seed},
    {{"redraws", KV_RIGHT, redraws}, KV_SHOW_MACHINE | KV_SHOW_TEXT, same_redraws},
    {{"chance", KV_RIGHT, chance}, KV_SHOW_MACHINE, NULL},
    {{"task", KV_LEFT, task}, KV_SHOW_MACHINE, NULL},
    {{"prompt", KV_LEFT, prompt}, KV_SHOW_MACHINE, NULL},
    {{"subset", KV_LEFT, subset}, KV_SHOW_MACHINE, NULL},
    {{"model", KV_LEFT, model}, KV_SHOW_MACHINE, NULL},
    {{"trace", KV_LEFT, digest}, KV_SHOW_MACHINE, NULL},
    {{"version", KV_LEFT, version}, KV_SHOW_MACHINE, NULL},
    {{"commit", KV_LEFT, commit}, KV_SHOW_MACHINE, NULL},
    {{"left_out", KV_RIGHT, left_out}, KV_SHOW_MACHINE, NULL},
    {{"left_out_ids", KV_LEFT, left_out_ids}, KV_SHOW_MACHINE, NULL},
    {{"measured_tokens", KV_RIGHT, measured}, KV_SHOW_MACHINE, NULL},
    {{"published_mode", KV_LEFT, published}, KV_SHOW_MACHINE, NULL},
    {{"newest", KV_RIGHT, newest}, KV_SHOW_MACHINE, NULL},
    {{"cpu", KV_LEFT, level}, KV_SHOW_MACHINE | KV_SHOW_TEXT, same_level},
    {{"left_out_redraws", KV_RIGHT, redraws_out}, KV_SHOW_MACHINE, NULL},
    {{"label", KV_LEFT, short_name}, KV_SHOW_MACHINE, NULL},
    {{"ms_error_pct", KV_RIGHT, ms_error}, KV_SHOW_MACHINE, NULL},
    {{0}, 0, NULL}};
_Static_assert(sizeof kv_show_columns / sizeof *kv_show_columns <= KV_MAX_COLUMNS,
               "columns fit the arrays of those who print them");
