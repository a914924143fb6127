// SPDX-License-Identifier: Apache-2.0
// Joining exact rows with predictions: which specs, on which items, added up in a fixed order.
#include "analysis/studies/fidelity.h"
#include "sim/store/label.h"
#include "analysis/stats/stats.h"
#include "sim/store/store.h"
#include "sim/base/memory.h"
#include "sim/base/spec.h"
#include "sim/base/talk.h"
#include "sim/replay/answers.h"
#include "sim/replay/ledger.h"

#include <stdlib.h>

const char *const kv_predictor_names[] = {
    "iso",    "element",        "vector",           "total",        "channel",
    "mended", "reconstruction", "attention_output", "attention_kl", NULL};

// ---- families -------------------------------------------------------------------------

char *kv_policy_family(const struct kv_replay_spec *s) {
    const char *rotated = s->format && s->format->type->wraps ? "rotated " : "", *by = NULL;
    struct kv_spec_parts parts;
    char *family;
    kv_spec_take_apart(&parts, s->canonical);
    for (size_t i = 0; i < parts.n_policies && !by; i++)
        by = kv_spec_value(&parts.policies[i], "by");
    if (strcmp(s->policy_name, "static") != 0)
        family =
            kv_format_text("%s%s%s%s", rotated, s->policy_name, by ? " by " : "", by ? by : "");
    else if (s->format && s->format->n_widths == 1)
        family = kv_format_text("%sruntime type", rotated);
    else
        family = kv_format_text("%s%s", rotated,
                                kv_uniform_width(&parts.policies[0]) ? "uniform" : "K/V mix");
    kv_spec_parts_fini(&parts);
    return family;
}

static int family_index(struct kv_fidelity_study *s, char *name) {
    for (size_t i = 0; i < s->n_families; i++)
        if (strcmp(s->families[i], name) == 0) {
            free(name);
            return (int)i;
        }
    s->families = kv_grow(s->families, s->n_families + 1, sizeof *s->families);
    s->families[s->n_families] = name;
    return (int)s->n_families++;
}

// ---- what the store holds -------------------------------------------------------------

struct filling {
    struct kv_fidelity_study *study;
    const struct kv_fidelity_options *o;
    size_t n_items, first, count; // of the trace; asked for
    bool *wanted;                 // [n][n_items]
    bool *any;                    // [n_items] some exact row has it
    // By spec and item: forms and evictions for each number of draws, cross terms by layer, rivals.
    double (*form)[KV_DRAW_FORMS][KV_DRAW_LEVELS];
    float *square, *total, *element; // [n][n_items][n_layers]
    double (*rival)[KV_N_PREDICTORS];
    double *scored; // [n_items]
    double *bits;   // [n][n_items]
    bool channels;  // the trace holds sums by channel
};

static int add(struct filling *f, const char *text, uint64_t seed, struct kv_fidelity_policy **out,
               struct kv_error *e) {
    struct kv_fidelity_study *s = f->study;
    const struct kv_trace_info *in = kv_trace_info(s->trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_fidelity_policy x = {.bits = NAN,
                                   .kl = NAN,
                                   .kl_error = NAN,
                                   .acc = NAN,
                                   .acc_ref = NAN,
                                   .agree = NAN,
                                   .cross = NAN,
                                   .worst_layer = NAN};
    *out = NULL;
    int rc = kv_replay_spec_open(&x.spec, text, &setting, seed, e);
    if (rc) return rc;
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->at[i].spec.canonical, x.spec.canonical) == 0) {
            kv_replay_spec_close(&x.spec);
            return 0;
        }
    s->at = kv_grow(s->at, s->n + 1, sizeof *s->at);
    f->wanted = kv_grow(f->wanted, (s->n + 1) * f->n_items, sizeof *f->wanted);
    memset(f->wanted + s->n * f->n_items, 0, f->n_items);
    x.family = family_index(s, kv_policy_family(&x.spec));
    s->at[s->n] = x;
    *out = &s->at[s->n++];
    return 0;
}

static void count_results(struct filling *f, struct kv_fidelity_policy *x,
                          const struct kv_item_result *rows, size_t n) {
    double *kl = kv_alloc(n + 1, sizeof *kl), *weight = kv_alloc(n + 1, sizeof *weight), acc = 0,
           ref = 0, agree = 0, judged = 0, chance = 0;
    bool *wanted = f->wanted + (size_t)(x - f->study->at) * f->n_items;
    for (size_t i = 0; i < n; i++) {
        if (rows[i].item < f->first || rows[i].item >= f->first + f->count) continue;
        if (!isfinite(rows[i].kl_nats)) {
            x->n_left_out++;
            continue;
        }
        wanted[rows[i].item] = f->any[rows[i].item] = true;
        kl[x->n_items] = rows[i].kl_nats;
        weight[x->n_items++] = rows[i].n_scored;
        if (isnan(rows[i].right[KV_ACC])) continue;
        judged++;
        acc += rows[i].right[KV_ACC];
        ref += rows[i].right_ref[KV_ACC];
        agree += rows[i].agree;
        chance += rows[i].chance;
    }
    struct kv_mean m = kv_ratio_interval(kl, weight, x->n_items, 0.95);
    x->exact = x->n_items > 0;
    x->kl = m.mean;
    x->kl_error = m.standard_error;
    if (judged > 0) {
        x->acc = acc / judged;
        x->acc_ref = ref / judged;
        x->agree = agree / judged;
        f->study->chance = chance / judged;
    }
    free(kl);
    free(weight);
}

// Whether a row was run as the sensitivities were recorded.
static bool is_meant(const struct kv_summary *row, const struct kv_trace_info *in) {
    return strcmp(row->trace_digest, in->digest) == 0 && row->mode == kv_adjoint_mode(in) &&
           row->self == kv_adjoint_self(in) && strcmp(row->compute, KV_COMPUTE_CPU) == 0 &&
           row->form == KV_FORM_NONE && row->feedback == KV_FEEDBACK_OPEN &&
           strcmp(row->policy, "none") != 0;
}

// Exact rows that the recorded adjoint answers for.
static int read_store(struct filling *f, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(f->study->trace);
    struct kv_store *s;
    struct kv_summary *rows = NULL;
    struct kv_store_filter exact = {.fidelities = 1u << KV_EXACT};
    size_t n = 0;
    int rc = kv_store_open(&s, f->o->db, KV_STORE_READ, e);
    if (rc) return rc;
    rc = kv_store_summaries(s, &exact, &rows, &n, e);
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct kv_item_result *items;
        struct kv_fidelity_policy *x;
        size_t n_items;
        if (!is_meant(&rows[i], in)) continue;
        struct kv_error why = {0};
        rc = add(f, rows[i].spec, rows[i].seed, &x, &why);
        if (rc == 0 && x &&
            kv_fisher_answers(in, &x->spec, kv_adjoint_mode(in),
                              kv_adjoint_self(in) == KV_SELF_EXACT, &why)) {
            kv_say("left out %s: %s", rows[i].spec, why.msg);
            kv_replay_spec_close(&x->spec);
            f->study->n--;
            continue;
        }
        if (rc) *e = why;
        if (rc || !x) continue;
        x->bits = rows[i].allocated_bits;
        rc = kv_store_items(s, rows[i].run_group, &items, &n_items, e);
        if (rc) continue;
        count_results(f, x, items, n_items);
        kv_item_results_free(items, n_items);
    }
    kv_summaries_free(rows, n);
    int closed = kv_store_close(s, rc ? NULL : e);
    return rc ? rc : closed;
}

static int by_divergence(const void *a, const void *b) {
    const struct kv_fidelity_policy *x = a, *y = b;
    if (isnan(x->kl) || isnan(y->kl))
        return (isnan(x->kl) > isnan(y->kl)) - (isnan(x->kl) < isnan(y->kl));
    return x->kl != y->kl ? (x->kl > y->kl) - (x->kl < y->kl)
                          : strcmp(x->spec.canonical, y->spec.canonical);
}

// Drops specs without an item, orders the rest and lets `wanted` follow.
static void order(struct filling *f) {
    struct kv_fidelity_study *s = f->study;
    size_t n = 0;
    bool **masks = kv_alloc(s->n + 1, sizeof *masks);
    char **names = kv_alloc(s->n + 1, sizeof *names);
    for (size_t i = 0; i < s->n; i++) {
        bool *mask = f->wanted + i * f->n_items;
        if (!s->at[i].exact) memcpy(mask, f->any, f->n_items);
        masks[i] = kv_alloc(f->n_items, 1);
        memcpy(masks[i], mask, f->n_items);
        names[i] = s->at[i].spec.canonical;
    }
    size_t before = s->n;
    qsort(s->at, s->n, sizeof *s->at, by_divergence);
    for (size_t i = 0; i < s->n; i++)
        for (size_t k = 0; k < before; k++)
            if (s->at[i].spec.canonical == names[k])
                memcpy(f->wanted + i * f->n_items, masks[k], f->n_items);
    for (size_t i = 0; i < before; i++) {
        n += s->at[i].exact;
        free(masks[i]);
    }
    free(masks);
    free(names);
    s->n_exact = n;
}

// ---- predictions ----------------------------------------------------------------------

static bool wanted(void *self, size_t item, size_t spec) {
    const struct filling *f = self;
    return f->wanted[spec * f->n_items + item];
}

static int take_draws(void *self, size_t item, size_t spec, const struct kv_draws *x,
                      struct kv_error *e) {
    struct filling *f = self;
    size_t at = spec * f->n_items + item;
    (void)e;
    f->scored[item] = x->scored;
    for (size_t k = 0, m = 1; k < KV_DRAW_LEVELS && m <= x->n_draws; k++, m *= 2)
        for (size_t r = 0; r < m; r++)
            for (size_t form = 0; form < KV_DRAW_FORMS; form++)
                f->form[at][form][k] += (x->draw[r].form[form] + x->draw[r].evicted) / (double)m;
    for (size_t l = 0; l < x->n_layers; l++)
        for (size_t r = 0; r < x->n_draws; r++) {
            double total = x->layer_total[r * x->n_layers + l];
            f->square[at * x->n_layers + l] += (float)x->layer_square[r * x->n_layers + l];
            f->total[at * x->n_layers + l] += (float)(total * total);
            f->element[at * x->n_layers + l] +=
                (float)(0.5 * x->layer_element[r * x->n_layers + l] / (double)x->n_draws);
        }
    for (size_t form = 0; form < KV_DRAW_FORMS; form++)
        for (size_t r = 0; r < x->n_draws; r++)
            f->rival[at][form] += (x->draw[r].form[form] + x->draw[r].evicted) / (double)x->n_draws;
    return 0;
}

static int take_iso(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                    struct kv_error *e) {
    struct filling *f = self;
    size_t at = spec * f->n_items + item;
    (void)e;
    f->scored[item] = o->n_scored;
    f->rival[at][KV_BY_ISO] = o->kl_nats * o->n_scored;
    f->bits[at] = o->ledger.allocated_bits;
    return 0;
}

static int take_channel(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                        struct kv_error *e) {
    struct filling *f = self;
    (void)e;
    f->rival[spec * f->n_items + item][KV_BY_CHANNEL] = o->kl_nats * o->n_scored;
    return 0;
}

static int take_attention(void *self, size_t item, size_t spec, const struct kv_attention_error *x,
                          struct kv_error *e) {
    struct filling *f = self;
    size_t at = spec * f->n_items + item;
    (void)e;
    f->rival[at][KV_BY_RECONSTRUCTION] = x->mean.key + x->mean.value;
    f->rival[at][KV_BY_OUTPUT] = x->mean.output;
    f->rival[at][KV_BY_ATTENTION] = x->mean.kl_nats;
    f->rival[at][KV_BY_MENDED] = 0;
    for (size_t l = 0; f->element && l < x->n_layers; l++)
        f->rival[at][KV_BY_MENDED] +=
            (double)f->element[at * x->n_layers + l] * x->layer[l].stretch;
    return 0;
}

static void add_up(struct filling *f, size_t spec, bool whole, bool rivals) {
    struct kv_fidelity_policy *x = &f->study->at[spec];
    size_t n_layers = kv_trace_info(f->study->trace)->shape.n_layers, n = 0;
    double scored = 0, bits = 0, *s = kv_alloc(2 * n_layers + 2, sizeof *s), *s2 = s + n_layers + 1;
    double form[KV_DRAW_FORMS][KV_DRAW_LEVELS] = {{0}}, by[KV_N_PREDICTORS] = {0};
    for (size_t i = 0; i < f->n_items; i++) {
        size_t at = spec * f->n_items + i;
        if (!f->wanted[at]) continue;
        n++;
        scored += f->scored[i];
        bits += f->bits[at];
        for (size_t p = 0; p < KV_N_PREDICTORS; p++) by[p] += f->rival[at][p];
        for (size_t p = 0; p < KV_DRAW_FORMS; p++)
            for (size_t k = 0; k < KV_DRAW_LEVELS; k++) form[p][k] += f->form[at][p][k];
        for (size_t l = 0; l < n_layers && whole; l++) {
            s[l] += (double)f->square[at * n_layers + l];
            s2[l] += (double)f->total[at * n_layers + l];
        }
    }
    for (size_t p = 0; p < KV_N_PREDICTORS; p++) {
        bool known = p == KV_BY_CHANNEL ? f->channels
                     : p == KV_BY_ISO   ? true
                                      : (p > KV_BY_MENDED || whole) && (p < KV_BY_MENDED || rivals);
        x->by[p] =
            known && n && isfinite(by[p]) ? by[p] / (p <= KV_BY_MENDED ? scored : (double)n) : NAN;
    }
    for (size_t p = 0; p < KV_DRAW_FORMS; p++)
        for (size_t k = 0; k < KV_DRAW_LEVELS; k++)
            x->draws[p][k] =
                whole && (size_t)1 << k <= f->study->n_draws ? form[p][k] / scored : NAN;
    if (isnan(x->bits)) x->bits = bits / (double)n;
    if (!x->exact) x->n_items = n;
    if (whole) {
        x->cross = x->by[KV_BY_TOTAL] / x->by[KV_BY_VECTOR];
        for (size_t l = 0; l < n_layers; l++)
            if (s[l] > 0 &&
                (isnan(x->worst_layer) || fabs(log(s2[l] / s[l])) > fabs(log(x->worst_layer))))
                x->worst_layer = s2[l] / s[l];
    }
    double kl = x->by[whole ? KV_BY_ELEMENT : f->channels ? KV_BY_CHANNEL : KV_BY_ISO];
    if (kl > 0.5) x->outside = "above 0.5 nats";
    if (x->cross > 2 || x->cross < 0.5) x->outside = "cross terms";
    double stretch = x->by[KV_BY_MENDED] / x->by[KV_BY_ELEMENT];
    if (stretch > 1.5 || stretch < 1 / 1.5) x->outside = "attention not linear";
    free(s);
}

// Allocated bits of policies that were not run.
static int count_bits(struct filling *f, const struct kv_replay *job, struct kv_error *e) {
    int rc = 0;
    for (size_t j = f->study->n_exact; j < f->study->n && rc == 0; j++)
        for (size_t i = f->first; i < f->first + f->count && rc == 0; i++) {
            const struct kv_trace_item *it = kv_trace_item(f->study->trace, i);
            struct kv_ledger ledger;
            if (!wanted(f, i, j)) continue;
            uint8_t *cells = kv_alloc(it->n_tokens * kv_cells(&job->specs[j].run.shape), 1);
            rc = kv_decide(job, j, i, cells, e);
            if (rc == 0) kv_ledger_count(&job->specs[j], it, cells, &ledger);
            if (rc == 0) f->bits[j * f->n_items + i] = ledger.allocated_bits;
            free(cells);
        }
    return rc;
}

static int predict(struct filling *f, struct kv_error *e) {
    struct kv_fidelity_study *s = f->study;
    const struct kv_trace_info *in = kv_trace_info(s->trace);
    bool whole = (in->keep & KV_KEEP_GRAD) && (in->keep & KV_KEEP_KV),
         rivals = !f->o->no_attention && kv_attention_answers(in, NULL) == 0;
    uint32_t sums = KV_KEEP_KV | KV_KEEP_SENS;
    f->channels = (in->keep & sums) == sums && kv_trace_channels(s->trace);
    size_t pairs = s->n * f->n_items, layers = whole ? in->shape.n_layers : 0;
    f->form = kv_alloc(pairs, sizeof *f->form);
    f->rival = kv_alloc(pairs, sizeof *f->rival);
    f->square = kv_alloc(pairs * layers + 1, sizeof *f->square);
    f->total = kv_alloc(pairs * layers + 1, sizeof *f->total);
    f->element = layers ? kv_alloc(pairs * layers, sizeof *f->element) : NULL;
    f->scored = kv_alloc(f->n_items, sizeof *f->scored);
    f->bits = kv_alloc(pairs, sizeof *f->bits);
    struct kv_replay_spec *specs = kv_alloc(s->n, sizeof *specs);
    for (size_t i = 0; i < s->n; i++) specs[i] = s->at[i].spec;
    struct kv_replay job = {.trace = s->trace,
                            .specs = specs,
                            .n_specs = s->n,
                            .mode = kv_adjoint_mode(in),
                            .self_exact = kv_adjoint_self(in) == KV_SELF_EXACT,
                            .seed = f->o->seed,
                            .first_item = f->first,
                            .n_items = f->count,
                            .wanted = wanted,
                            .take = take_iso,
                            .self = f};
    int rc = kv_replay_open_tables(&job, KV_TABLE_ISO, f->o->jobs, e);
    if (rc == 0 && !whole) rc = kv_replay_fisher(&job, KV_TABLE_ISO, f->o->jobs, e);
    if (rc == 0 && whole) rc = kv_replay_draws(&job, f->o->jobs, take_draws, f, e);
    if (rc == 0 && f->channels) {
        job.take = take_channel;
        rc = kv_replay_fisher(&job, KV_TABLE_CHANNEL, f->o->jobs, e);
    }
    if (rc == 0) rc = count_bits(f, &job, e);
    if (rc == 0 && rivals) rc = kv_replay_attention(&job, f->o->jobs, take_attention, f, e);
    kv_replay_close_tables(&job);
    for (size_t i = 0; i < s->n && rc == 0; i++) add_up(f, i, whole, rivals);
    free(specs);
    return rc;
}

// ---- opening --------------------------------------------------------------------------

static int add_given(struct filling *f, struct kv_error *e) {
    int rc = 0;
    for (size_t i = 0; i < f->o->n_specs && rc == 0; i++) {
        struct kv_fidelity_policy *x;
        char **list;
        size_t n;
        rc = kv_spec_expand(f->o->specs[i], &list, &n, e);
        if (rc) break;
        for (size_t k = 0; k < n && rc == 0; k++) rc = add(f, list[k], f->o->seed, &x, e);
        kv_list_free(list, n);
    }
    return rc;
}

static void label(struct kv_fidelity_study *s) {
    const struct kv_trace_info *in = kv_trace_info(s->trace);
    const struct kv_format_setting setting = kv_trace_setting(in);
    const char **specs = kv_alloc(s->n + 1, sizeof *specs);
    const struct kv_format_setting **settings = kv_alloc(s->n + 1, sizeof *settings);
    char **labels = kv_alloc(s->n + 1, sizeof *labels);
    for (size_t i = 0; i < s->n; i++) {
        specs[i] = s->at[i].spec.canonical;
        settings[i] = &setting;
    }
    kv_spec_labels(specs, settings, s->n, labels);
    for (size_t i = 0; i < s->n; i++) s->at[i].label = labels[i];
    free(specs);
    free(settings);
    free(labels);
}

int kv_fidelity_open(struct kv_fidelity_study *s, const struct kv_trace *trace,
                     const struct kv_fidelity_options *o, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(trace);
    struct filling f = {.study = s, .o = o, .n_items = in->n_items};
    *s = (struct kv_fidelity_study){.trace = trace, .n_draws = in->adjoint.draws, .chance = NAN};
    f.first = o->items.n ? o->items.first : 0;
    f.count = o->items.n ? o->items.n : in->n_items;
    int rc = kv_item_range_check(&o->items, in->n_items, "items", e);
    if (rc) return rc;
    if (!(in->keep & (KV_KEEP_SENS | KV_KEEP_GRAD)))
        return kv_fail(e, KV_EFAIL, in->path, "keeps no sensitivities; record with --keep kv,sens");
    f.any = kv_alloc(f.n_items, 1);
    rc = read_store(&f, e);
    if (rc == 0 && s->n == 0)
        rc = kv_fail(e, KV_EFAIL, o->db,
                     "holds no exact rows of %s in mode %s; `kvsim sweep` makes them", in->path,
                     in->adjoint.mode);
    if (rc == 0) rc = add_given(&f, e);
    if (rc == 0) {
        order(&f);
        label(s);
        rc = predict(&f, e);
    }
    void *blocks[] = {f.wanted,  f.any,   f.form,   f.square, f.total,
                      f.element, f.rival, f.scored, f.bits};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
    if (rc) kv_fidelity_close(s);
    return rc;
}

void kv_fidelity_close(struct kv_fidelity_study *s) {
    for (size_t i = 0; i < s->n; i++) {
        kv_replay_spec_close(&s->at[i].spec);
        free(s->at[i].label);
    }
    for (size_t i = 0; i < s->n_families; i++) free(s->families[i]);
    free(s->families);
    free(s->at);
    *s = (struct kv_fidelity_study){0};
}
