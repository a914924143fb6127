// SPDX-License-Identifier: Apache-2.0
// Choosing widths of a row's cells.
#include "policies/cells_choice.h"

#include <stdlib.h>

int kv_cells_choice_add(struct kv_cells_choice *c, const struct kv_run *run, double bits,
                        struct kv_error *e) {
    int index = kv_width_index(run, bits);
    if (index < 0) return kv_width_refused(run, bits, e);
    if (c->n_widths && c->width[c->n_widths - 1] >= index)
        return kv_fail(e, KV_EUSAGE, "policy cells", "widths rise from one to the next");
    c->head_dim = run->shape.head_dim;
    c->offered = run->n_widths;
    for (int side = 0; side < 2; side++)
        c->cell_bits[side][c->n_widths] = (double)run->cell_bits[side][index] * run->shape.head_dim;
    c->width[c->n_widths++] = (uint8_t)index;
    return 0;
}

size_t kv_cells_choice_middle(const struct kv_cells_choice *c, const struct kv_run *run) {
    size_t best = 0;
    for (size_t w = 1; w < c->n_widths; w++)
        if (fabs(run->width_bits[c->width[w]] - 4.0) < fabs(run->width_bits[c->width[best]] - 4.0))
            best = w;
    return best;
}

double kv_cells_choice_bits(const struct kv_cells_choice *c, size_t w) {
    return (c->cell_bits[0][w] + c->cell_bits[1][w]) / 2 / (double)c->head_dim;
}

int kv_cells_choice_scale(struct kv_cells_choice *c, const struct kv_run *run, struct kv_error *e) {
    const char *group = run->format_text ? strstr(run->format_text, "group=") : NULL;
    size_t middle = kv_cells_choice_middle(c, run);
    double steps[KV_MAX_WIDTHS];
    c->symmetric = strcmp(run->format, "sym") == 0;
    c->group = group ? (size_t)atoi(group + strlen("group=")) : 0;
    if (c->group == 0) c->group = run->shape.head_dim; // group=head
    bool known = c->symmetric || strcmp(run->format, "asym") == 0;
    if (c->error == KV_CELLS_RANGE && (!known || run->shape.head_dim % c->group))
        return kv_fail(e, KV_EUSAGE, "policy cells",
                       "error=range knows the steps of formats asym and sym, not of %s",
                       run->format);
    for (size_t w = 0; w < c->n_widths; w++)
        steps[w] = exp2(run->width_bits[c->width[w]]) - (c->symmetric ? 2 : 1);
    c->tried = c->width[middle];
    for (size_t w = 0; w < c->n_widths; w++)
        c->ratio[w] = pow((c->error == KV_CELLS_RANGE ? 1 : steps[middle]) / steps[w], 2);
    return 0;
}

// A group's step is range / (2^w - 1), for sym twice its largest magnitude over 2^w - 2. Errors are
// even within a step: a twelfth of its square.
void kv_cells_choice_ranges(const struct kv_cells_choice *c, const float *k, const float *v,
                            const float *channel, struct kv_cells_row *r) {
    size_t d = c->head_dim;
    for (size_t cell = 0; cell < r->n; cell++) {
        const float *x = (cell & 1 ? v : k) + cell / 2 * d, *m = channel + cell * d;
        r->step2[cell] = 0;
        for (size_t from = 0; from < d; from += c->group) {
            float low = x[from], high = x[from], weight = 0;
            for (size_t i = from; i < from + c->group; i++) {
                low = fminf(low, x[i]);
                high = fmaxf(high, x[i]);
                weight += m[i];
            }
            double range = c->symmetric ? 2 * (double)fmaxf(high, -low) : (double)(high - low);
            r->step2[cell] += range * range * (double)weight / 12;
        }
    }
}

static double damage(const struct kv_cells_choice *c, const struct kv_cells_row *r, size_t cell,
                     size_t w) {
    if (c->error == KV_CELLS_RANGE) return (double)r->half_s[cell] * r->step2[cell] * c->ratio[w];
    const float *error = r->error + cell * c->offered;
    double e2 = c->error == KV_CELLS_TRIAL ? (double)error[c->width[w]]
                                           : (double)error[c->tried] * c->ratio[w];
    return (double)r->half_s[cell] * e2;
}

// Cells [from, from + n) in steps of `stride` get one width.
static void pick(const struct kv_cells_choice *c, struct kv_cells_row *r, size_t from, size_t n,
                 size_t stride, double lambda) {
    size_t best = 0;
    double least = INFINITY;
    for (size_t w = 0; w < c->n_widths; w++) {
        double cost = 0;
        for (size_t i = 0; i < n; i++) {
            size_t cell = from + i * stride;
            cost += damage(c, r, cell, w) + lambda * c->cell_bits[cell & 1][w];
        }
        if (cost < least) {
            least = cost;
            best = w;
        }
    }
    for (size_t i = 0; i < n; i++) r->pick[from + i * stride] = (uint8_t)best;
}

double kv_cells_choose(const struct kv_cells_choice *c, struct kv_cells_row *r, double lambda) {
    double bits = 0;
    if (c->grain == KV_CHOICE_LAYER) pick(c, r, 0, r->n, 1, lambda);
    for (size_t side = 0; c->grain == KV_CHOICE_KV && side < 2; side++)
        pick(c, r, side, r->n / 2, 2, lambda);
    for (size_t cell = 0; c->grain == KV_CHOICE_CELL && cell < r->n; cell++)
        pick(c, r, cell, 1, 1, lambda);
    for (size_t cell = 0; cell < r->n; cell++) bits += c->cell_bits[cell & 1][r->pick[cell]];
    return bits / ((double)r->n * (double)c->head_dim);
}

double kv_cells_choose_at_most(const struct kv_cells_choice *c, struct kv_cells_row *r,
                               double lambda, double most) {
    double bits = kv_cells_choose(c, r, lambda), low = lambda, high = lambda;
    if (bits <= most) return bits;
    while (bits > most && high < 1e30) bits = kv_cells_choose(c, r, high *= 16);
    for (int i = 0; i < 30; i++) {
        double middle = sqrt(low * high);
        if (kv_cells_choose(c, r, middle) <= most)
            high = middle;
        else
            low = middle;
    }
    return kv_cells_choose(c, r, high);
}
