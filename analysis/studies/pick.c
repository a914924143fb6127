// SPDX-License-Identifier: Apache-2.0
// Which stored policy keeps a bound, and the words for it.
#include "analysis/studies/pick.h"

#include <stdlib.h>

#include "analysis/results/depths.h"
#include "analysis/results/notes.h"
#include "analysis/studies/pick_words.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/cost/mix.h"
#include "sim/runtimes/runtimes.h"

struct kv_pick_options kv_pick_defaults(void) {
    return (struct kv_pick_options){.struct_bytes = sizeof(struct kv_pick_options),
                                    .context = 2048,
                                    .kl_most = NAN,
                                    .acc_least = NAN,
                                    .bytes_most = NAN,
                                    .confidence = KV_CONFIDENCE};
}

int kv_pick_check(const struct kv_pick_options *o, struct kv_error *e) {
    if (!(o->context >= 1 && o->context <= 1e9))
        return kv_fail(e, KV_EUSAGE, "context", "a number of tokens from 1 to 1e9 is expected");
    if (isnan(o->kl_most) && isnan(o->acc_least) && isnan(o->bytes_most))
        return kv_fail(e, KV_EUSAGE, "max", "no bound is given; name one, as with kl=0.05");
    if (!isnan(o->kl_most) && !(o->kl_most > 0 && isfinite(o->kl_most)))
        return kv_fail(e, KV_EUSAGE, "max", "kl must be a number of nats above 0");
    if (!isnan(o->acc_least) && !(o->acc_least >= 0 && o->acc_least <= 1))
        return kv_fail(e, KV_EUSAGE, "min-acc", "an accuracy from 0 to 1 is expected");
    if (!isnan(o->bytes_most) && !(o->bytes_most > 0 && isfinite(o->bytes_most)))
        return kv_fail(e, KV_EUSAGE, "max-bytes", "a number of bytes above 0 is expected");
    if (!(o->confidence > 0 && o->confidence < 1))
        return kv_fail(e, KV_EUSAGE, "confidence", "a share between 0 and 1 is expected");
    return 0;
}

int kv_pick_read_max(struct kv_pick_options *o, const char *text, struct kv_error *e) {
    char *end;
    if (!text) return 0;
    if (strncmp(text, "kl=", 3) != 0)
        return kv_fail(e, KV_EUSAGE, "max", "'%s' is no bound; kl=X is one, as in kl=0.05", text);
    o->kl_most = strtod(text + 3, &end);
    bool read = end > text + 3 && !*end && o->kl_most > 0 && isfinite(o->kl_most);
    return read ? 0
                : kv_fail(e, KV_EUSAGE, "max", "'%s': a number of nats above 0 is expected", text);
}

int kv_pick_read_bytes(struct kv_pick_options *o, const char *text, struct kv_error *e) {
    static const char *const unit = "kMGT";
    char *end;
    if (!text) return 0;
    o->bytes_most = strtod(text, &end);
    const char *at = *end ? strchr(unit, *end) : NULL;
    for (const char *u = unit; at && u <= at; u++) o->bytes_most *= 1000;
    bool read =
        end > text && (!*end || (at && !end[1])) && o->bytes_most > 0 && isfinite(o->bytes_most);
    return read ? 0
                : kv_fail(e, KV_EUSAGE, "max-bytes",
                          "'%s': a size such as 40000000, 40M or 1.5G is expected", text);
}

// ---- one policy -----------------------------------------------------------------------

static void miss(struct kv_pick_row *r, const char *bound, double factor) {
    if (factor <= r->worst) return;
    r->worst = factor;
    r->misses = bound;
}

// How far a row misses each bound, as the factor between the interval's wrong end and the bound.
static void judge(struct kv_pick_row *r, const struct kv_pick_options *o) {
    r->worst = 0;
    r->misses = NULL;
    if (!isnan(o->kl_most)) {
        double high = r->row->n_left_out ? NAN : r->kl.interval.high;
        if (!(high <= o->kl_most)) miss(r, "kl", isnan(high) ? INFINITY : high / o->kl_most);
    }
    if (!isnan(o->acc_least) && !(r->acc.low >= o->acc_least))
        miss(r, "acc", r->acc.low > 0 ? o->acc_least / r->acc.low : INFINITY);
    if (!isnan(o->bytes_most) && !(r->bytes <= o->bytes_most))
        miss(r, "bytes", isnan(r->bytes) ? INFINITY : r->bytes / o->bytes_most);
    r->keeps = r->misses == NULL;
}

static struct kv_pick_row measure(const struct kv_row *row, const struct kv_pick_options *o,
                                  double confidence) {
    struct kv_pick_row r = {.row = row,
                            .bytes = row->s.bytes_per_token * o->context,
                            .ms = row->at[0].step_ns > 0 ? row->at[0].step_ns / 1e6 : NAN};
    r.kl = kv_ratio_interval(row->item_kl, row->item_scored, row->s.n_trace_items, confidence);
    struct kv_token_summary at;
    if (kv_row_at_depth(row, o->context, confidence, &at)) {
        r.positions = at.n;
        r.kl = (struct kv_mean){.n = row->n_windows,
                                .mean = at.at[KV_TOKEN_KL_MEAN].value,
                                .interval = at.at[KV_TOKEN_KL_MEAN].interval};
    }
    r.acc = kv_wilson(row->s.acc[KV_ACC], (double)row->s.n_judged, confidence);
    judge(&r, o);
    return r;
}

// ---- one group ------------------------------------------------------------------------

struct ranked {
    struct kv_pick_row row;
    double first, second;
};

static int by_rank(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->row.keeps != y->row.keeps) return x->row.keeps ? -1 : 1;
    if (x->first != y->first && !isnan(x->first + y->first)) return x->first < y->first ? -1 : 1;
    if (x->second != y->second && !isnan(x->second + y->second))
        return x->second < y->second ? -1 : 1;
    return strcmp(x->row.row->s.spec, y->row.row->s.spec);
}

static void sort_rows(struct kv_pick *p, bool smallest) {
    struct ranked *r = kv_alloc(p->n + 1, sizeof *r);
    for (size_t i = 0; i < p->n; i++) {
        const struct kv_pick_row *x = &p->row[i];
        r[i] = (struct ranked){*x, x->keeps ? (smallest ? x->bytes : x->ms) : x->worst,
                               smallest ? x->ms : x->bytes};
    }
    qsort(r, p->n, sizeof *r, by_rank);
    for (size_t i = 0; i < p->n; i++) p->row[i] = r[i].row;
    free(r);
}

// A 16-bit cache of the model that the rows are of.
static void price16(struct kv_pick *p, const struct kv_rows *rows, double context,
                    const struct kv_shape *shape) {
    double values = 2.0 * shape->n_layers * shape->n_kv_heads * shape->head_dim;
    struct kv_ledger exact = {.allocated_bits = 16, .bytes_per_token = 2 * values};
    const struct kv_mix mix = {.n = 1, .part = {{.bits = {16, 16}, .share = 1}}};
    kv_mix_shares(&mix, &exact);
    p->bytes16 = exact.bytes_per_token * context;
    p->ms16 = rows->device ? kv_device_step(rows->device, &exact, context, 0).step_ns / 1e6 : NAN;
}

// What the question needs of a store beside its rows.
struct asked {
    const struct kv_pick_options *o;
    const struct kv_runtime *runtime;
    struct kv_store_setting *settings;
    size_t n_settings;
};

static const struct kv_format_setting *setting_of(const struct asked *a, long long trace) {
    static const struct kv_format_setting none;
    for (size_t i = 0; i < a->n_settings; i++)
        if (a->settings[i].trace == trace) return &a->settings[i].setting;
    return &none;
}

static bool competes(const struct kv_row *row, const struct asked *a) {
    const struct kv_pick_options *o = a->o;
    size_t n = o->trace ? strlen(o->trace) : 0;
    return !row->s.oracle && (!o->modes || o->modes >> row->s.mode & 1) &&
           strncmp(row->s.trace_digest, o->trace ? o->trace : "", n) == 0 &&
           (!a->runtime || kv_runtime_serves(a->runtime, row->s.spec, setting_of(a, row->s.trace)));
}

static void fill_group(struct kv_pick *p, const struct kv_rows *rows, const size_t *group, size_t g,
                       const struct asked *a) {
    const struct kv_pick_options *o = a->o;
    const struct kv_row **own = kv_alloc(rows->n + 1, sizeof *own);
    for (size_t i = 0; i < rows->n; i++)
        if (group[i] == g && competes(&rows->row[i], a)) own[p->n++] = &rows->row[i];
    double beyond = (1 - o->confidence) / (o->together && p->n ? (double)p->n : 1);
    p->row = kv_alloc(p->n + 1, sizeof *p->row);
    for (size_t i = 0; i < p->n; i++) {
        p->row[i] = measure(own[i], o, 1 - beyond);
        p->n_keeping += p->row[i].keeps;
    }
    free(own);
    sort_rows(p, o->smallest);
}

// One answer a recording and setting.
static void answer(struct kv_picks *p, const struct asked *a) {
    const struct kv_rows *rows = &p->rows;
    size_t *group = kv_alloc(rows->n + 1, sizeof *group),
           n_groups = kv_rows_groups(rows->row, rows->n, group);
    p->at = kv_alloc(n_groups + 1, sizeof *p->at);
    for (size_t g = 0; g < n_groups; g++) {
        struct kv_pick *own = &p->at[p->n];
        fill_group(own, rows, group, g, a);
        if (!own->n) {
            free(own->row);
            *own = (struct kv_pick){0};
            continue;
        }
        const struct kv_shape *shape = &setting_of(a, own->row[0].row->s.trace)->shape;
        price16(own, rows, a->o->context, shape);
        kv_pick_put_words(own, rows, a->o, shape);
        p->n_answered += own->n_keeping > 0;
        p->n++;
    }
    free(group);
}

static int run(struct kv_picks *p, const struct kv_pick_options *o, struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_rows_options how = {.db = o->db,
                                        .device = o->device,
                                        .fidelities = 1u << KV_EXACT,
                                        .n_contexts = 1,
                                        .context = {o->context}};
    struct kv_store *s;
    struct asked a = {.o = o};
    int code = o->runtime ? kv_runtime_find(&a.runtime, o->runtime, e) : 0;
    if (!code) code = kv_rows_open(&p->rows, &s, &how, e);
    if (code) return code;
    code = kv_store_settings(s, &a.settings, &a.n_settings, e);
    if (!code) answer(p, &a);
    free(a.settings);
    kv_store_abandon(s);
    if (!code && !p->n)
        code = kv_fail(e, KV_EFAIL, o->db, "the store holds no exact replay %s%s",
                       o->runtime ? "that is served as it is by " : "of that recording and mode",
                       o->runtime ? o->runtime : "");
    return code;
}

int kv_pick_run(struct kv_picks *p, const struct kv_pick_options *o, struct kv_error *e) {
    *p = (struct kv_picks){0};
    int code = kv_pick_check(o, e);
    if (!code) code = run(p, o, e);
    if (code) kv_pick_fini(p);
    return code;
}

void kv_pick_fini(struct kv_picks *p) {
    for (size_t i = 0; i < p->n; i++) {
        free(p->at[i].row);
        free(p->at[i].title);
        free(p->at[i].sentence);
    }
    free(p->at);
    kv_rows_fini(&p->rows);
    *p = (struct kv_picks){0};
}
