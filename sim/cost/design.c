// SPDX-License-Identifier: Apache-2.0
// The columns of the latency model, fitted by fit.c with a knee where the runs show one.
#include "sim/cost/design.h"
#include "sim/base/memory.h"
#include "sim/cost/fit.h"

#include <stdlib.h>
#include <gsl/gsl_cdf.h>

static const double least_uncertainty = 0.005; // of a time: what one machine repeats on a good day

// ---- terms ----------------------------------------------------------------------------

static int widths_in_use(const struct kv_design *d, size_t run) {
    int used[2] = {0, 0};
    for (int side = 0; side < 2; side++)
        for (int w = 1; w < KV_COST_BINS; w++) used[side] += d->share[run][side][w] > 0;
    return used[0] > used[1] ? used[0] : used[1];
}

static double tokens_of(const struct kv_design *d, size_t run) {
    const struct kv_device_run *r = &d->run[run];
    return kv_tokens_read(&r->sliding, r->shape.n_layers, r->context);
}

static double rounds_of(const struct kv_design *d, size_t run) {
    return ceil(tokens_of(d, run) / d->round_tokens);
}

double kv_design_column(const struct kv_design *d, size_t j, size_t i, int part) {
    const struct kv_term *t = &d->term[j];
    switch (t->kind) {
    case KV_TERM_BASE:
        return part == 0;
    case KV_TERM_START:
        return part == 1;
    case KV_TERM_CLASS:
        return d->run[i].mix.by_cell ? 0 : widths_in_use(d, i) - 1;
    case KV_TERM_CELL_CLASS:
        return d->run[i].mix.by_cell ? widths_in_use(d, i) - 1 : 0;
    case KV_TERM_ROUND:
        return rounds_of(d, i);
    case KV_TERM_SWITCH:
        return fmin(rounds_of(d, i), widths_in_use(d, i)) - 1;
    case KV_TERM_MIXED:
        return widths_in_use(d, i) > 1 ? 2 : 0; // a token's key and value
    case KV_TERM_COST:
        break;
    }
    double sum = 0;
    for (int side = 0; side < 2; side++)
        for (int w = 1; w < KV_COST_BINS; w++)
            if (t->holds[side][w]) sum += d->share[i][side][w];
    return sum;
}

// Contexts that are whole numbers of rounds cannot tell a round from its tokens.
static bool rounds_show(const struct kv_design *d) {
    for (size_t i = 0; d->round_tokens > 0 && i < d->n_runs; i++) {
        double tokens = tokens_of(d, i);
        if (rounds_of(d, i) > 1 && rounds_of(d, i) * d->round_tokens > 1.05 * tokens) return true;
    }
    return false;
}

static struct kv_term *add_term(struct kv_design *d, enum kv_term_kind kind, const char *name) {
    struct kv_term *t = &d->term[d->n_terms++];
    *t = (struct kv_term){.kind = kind};
    snprintf(t->name, sizeof t->name, "%s", name);
    return t;
}

// A term whose column is the same in all runs is the base under another name: it is left out.
static void add_if_it_varies(struct kv_design *d, enum kv_term_kind kind, const char *name) {
    add_term(d, kind, name);
    for (size_t i = 1; i < d->n_runs; i++)
        if (kv_design_column(d, d->n_terms - 1, i, 0) != kv_design_column(d, d->n_terms - 1, 0, 0))
            return;
    d->n_terms--;
}

// Widths whose shares agree in all runs cannot be told apart: they become one term.
static void find_costs(struct kv_design *d) {
    for (size_t w = 1; w < KV_COST_BINS; w++)
        for (int side = 0; side < 2; side++) {
            bool used = false, same = side == KV_VALUE;
            for (size_t i = 0; i < d->n_runs; i++) {
                used |= d->share[i][side][w] > 0;
                same &= fabs(d->share[i][0][w] - d->share[i][1][w]) < 1e-6;
            }
            if (!used) continue;
            char name[40];
            snprintf(name, sizeof name, "%s %s",
                     same   ? "key_and_value_ns"
                     : side ? "value_ns"
                            : "key_ns",
                     kv_cost_bin_name(w));
            if (same) d->n_terms--; // the keys' term of this width takes the values in
            struct kv_term *t = add_term(d, KV_TERM_COST, name);
            t->holds[side][w] = true;
            if (same) t->holds[KV_KEY][w] = true;
            d->split_by_convention |= !same && side == KV_VALUE;
        }
}

static bool has_part(const struct kv_device_run *r) {
    return isfinite(r->part_ns[KV_PART_ATTEND]) && r->part_ns[KV_PART_ATTEND] > 0;
}

void kv_design_init(struct kv_design *d, const struct kv_runs *runs) {
    const struct kv_shape *s = &runs->row[0].shape;
    *d = (struct kv_design){.run = runs->row,
                            .n_runs = runs->n,
                            .knee_bytes = INFINITY,
                            .round_tokens = runs->row[0].round_tokens,
                            .values = (double)s->n_layers * s->n_kv_heads * s->head_dim,
                            .timed_apart = true};
    d->share = kv_alloc(d->n_runs, sizeof *d->share);
    for (size_t i = 0; i < d->n_runs; i++) {
        kv_mix_cost_shares(&d->run[i].mix, d->share[i]);
        d->timed_apart &= has_part(&d->run[i]);
        if (d->run[i].round_tokens != d->round_tokens) d->round_tokens = 0;
    }
    if (!(d->round_tokens > 1)) d->round_tokens = 0;
    add_term(d, KV_TERM_BASE, "base_ns");
    if (d->timed_apart) add_term(d, KV_TERM_START, "start_ns");
    add_if_it_varies(d, KV_TERM_CLASS, "class_ns");
    add_if_it_varies(d, KV_TERM_CELL_CLASS, "cell_class_ns");
    if (rounds_show(d)) {
        add_if_it_varies(d, KV_TERM_ROUND, "round_ns");
        add_if_it_varies(d, KV_TERM_SWITCH, "switch_ns");
    } else {
        d->round_tokens = 0;
    }
    d->n_plain = d->n_terms;
    add_if_it_varies(d, KV_TERM_MIXED, "mixed_ns");
    find_costs(d);
}

void kv_design_fini(struct kv_design *d) {
    free(d->share);
}

static double bytes_of(const struct kv_design *d, size_t i) {
    if (isfinite(d->run[i].cache_bytes)) return d->run[i].cache_bytes;
    double bits = kv_mix_allocated_bits(&d->run[i].mix, d->run[i].shape.head_dim);
    return bits / 8 * 2 * d->values * tokens_of(d, i);
}

// ---- one fit --------------------------------------------------------------------------

// The share of a run's cache beyond the knee or what is hidden.
static double beyond(const struct kv_design *d, size_t i) {
    return fmax(0, 1 - (d->hidden_bytes > 0 ? d->hidden_bytes : d->knee_bytes) / bytes_of(d, i));
}

double kv_run_uncertainty_ns(const struct kv_device_run *r, double time_ns) {
    double spread = (r->high_ns - r->low_ns) / 1.349; // quartiles of a normal distribution
    double mean = isfinite(spread) ? spread / sqrt(r->samples > 0 ? r->samples : 1) : 0;
    return fmax(mean, least_uncertainty * time_ns);
}

int kv_design_fit(const struct kv_design *d, const bool *kept, struct kv_design_fit *o,
                  struct kv_error *e) {
    size_t room = 2 * d->n_runs + 1, n = d->n_terms;
    double *x = kv_alloc(room * n, sizeof *x), *y = kv_alloc(room, sizeof *y);
    double *sigma = kv_alloc(room, sizeof *sigma), *over = kv_alloc(room, sizeof *over);
    double shortest = INFINITY, most_tokens = 0;
    o->n_rows = 0;
    for (size_t i = 0; i < d->n_runs; i++) {
        if (!kept[i]) continue;
        const struct kv_device_run *r = &d->run[i];
        shortest = fmin(shortest, r->step_ns);
        most_tokens = fmax(most_tokens, tokens_of(d, i));
        for (int part = 0; part < 1 + d->timed_apart; part++) {
            double *row = x + o->n_rows * n;
            for (size_t j = 0; j < n; j++)
                row[j] = kv_design_column(d, j, i, part) *
                         (j < d->n_plain ? 1 : tokens_of(d, i) * d->values);
            over[o->n_rows] = beyond(d, i);
            y[o->n_rows] = part ? r->part_ns[KV_PART_ATTEND] : r->step_ns;
            // Attention is judged relatively: its own share is what the model is for.
            sigma[o->n_rows] = part ? 0.02 * y[o->n_rows] : kv_run_uncertainty_ns(r, r->step_ns);
            o->n_rows++;
        }
    }
    if (d->split_by_convention) {
        // A constant can move from the keys' costs to the values' without changing any run: this
        // row asks, weakly, that it does not.
        double *row = x + o->n_rows * n;
        for (size_t j = d->n_plain; j < n; j++)
            for (int w = 1; w < KV_COST_BINS; w++)
                row[j] += most_tokens * d->values *
                          (d->term[j].holds[KV_KEY][w] - d->term[j].holds[KV_VALUE][w]);
        sigma[o->n_rows++] = 0.02 * shortest;
    }
    struct kv_fit f = {.n_rows = o->n_rows,
                       .n_parameters = n,
                       .n_plain = d->n_plain,
                       .x = x,
                       .y = y,
                       .sigma = sigma,
                       .over = isfinite(d->knee_bytes) || d->hidden_bytes > 0 ? over : NULL,
                       .hidden = d->hidden_bytes > 0,
                       .p = o->p,
                       .log_error = o->log_error,
                       .knee_factor = 1.5};
    o->p[0] = shortest;
    for (size_t j = 1; j < n; j++)
        o->p[j] = j < d->n_plain ? 0.01 * shortest : 0.1 * shortest / (most_tokens * d->values);
    int rc = kv_fit_run(&f, e);
    if (rc == 0 && d->split_by_convention) {
        // Again with the convention as weak as it is: a third of the costs could move.
        double costs = 0;
        for (size_t j = d->n_plain; j < n; j++) costs += o->p[j];
        sigma[o->n_rows - 1] = fmax(0.3 * costs * most_tokens * d->values / f.scale, 1e-9);
        rc = kv_fit_run(&f, e);
    }
    o->knee_factor = f.knee_factor;
    o->cost = f.cost * f.scale * f.scale;
    o->scale = f.scale;
    free(x);
    free(y);
    free(sigma);
    free(over);
    return rc;
}

double kv_design_predict_ns(const struct kv_design *d, const struct kv_design_fit *o, size_t i) {
    double plain = 0, cache = 0, over = beyond(d, i);
    for (size_t j = 0; j < d->n_terms; j++)
        *(j < d->n_plain ? &plain : &cache) += o->p[j] * kv_design_column(d, j, i, 0);
    double stretch = d->hidden_bytes > 0 ? over : 1 + (o->knee_factor - 1) * over;
    return plain + cache * tokens_of(d, i) * d->values * stretch;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void kv_design_choose_knee(struct kv_design *d, const bool *all, struct kv_design_fit *o,
                           struct kv_progress *progress) {
    const struct kv_design_fit plain = *o;
    double knee = INFINITY, hidden = 0, *size = kv_alloc(d->n_runs, sizeof *size);
    for (size_t i = 0; i < d->n_runs; i++) size[i] = bytes_of(d, i);
    qsort(size, d->n_runs, sizeof *size, ascending);
    for (size_t i = 0; i < KV_KNEE_FITS; i++, kv_progress_step(progress, 1)) {
        struct kv_design_fit tried;
        struct kv_error ignored;
        double at = size[i / 2 * d->n_runs / (KV_KNEE_FITS / 2)],
               extra = i % 2 ? 1 : 2; // parameters
        d->knee_bytes = i % 2 ? INFINITY : at;
        d->hidden_bytes = i % 2 ? at : 0;
        if (kv_design_fit(d, all, &tried, &ignored) || !(tried.cost < o->cost)) continue;
        if (i % 2 == 0 && !(tried.knee_factor > 1.1 && tried.knee_factor < 10)) continue;
        double dof = (double)plain.n_rows - (double)d->n_terms - extra;
        double f = (plain.cost - tried.cost) / extra / (tried.cost / dof);
        if (dof < 1 || gsl_cdf_fdist_Q(f, extra, dof) > 1e-3) continue;
        *o = tried;
        knee = d->knee_bytes;
        hidden = d->hidden_bytes;
    }
    free(size);
    d->knee_bytes = knee;
    d->hidden_bytes = hidden;
}
