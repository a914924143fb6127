// SPDX-License-Identifier: Apache-2.0
// Main effects and two-way interactions by least squares with sum-to-zero coding.
#include "analysis/stats/factorial.h"

#include <gsl/gsl_blas.h>
#include <gsl/gsl_eigen.h>
#include <stdlib.h>

#include "sim/base/memory.h"

// Least squares on some columns: coefficients are `solver` times y.
struct model {
    size_t n_columns, rank;
    gsl_matrix *columns; // [n_configs][n_columns]
    gsl_matrix *solver;  // [n_columns][n_configs]; least norm where columns are dependent
};

struct kv_factorial {
    size_t n, n_factors; // configurations
    size_t n_levels[KV_MAX_FACTORS], first_column[KV_MAX_FACTORS];
    size_t *level; // [n][n_factors]
    bool has[KV_MAX_FACTORS];
    struct model main;
    struct model without[KV_MAX_FACTORS];              // one factor less, for its share
    struct model pair[KV_MAX_FACTORS][KV_MAX_FACTORS]; // main and an interaction, a < b
    bool has_pair[KV_MAX_FACTORS][KV_MAX_FACTORS];
};

// ---- columns --------------------------------------------------------------------------

// Sum-to-zero code of a level in column k of n_levels - 1.
static double code(size_t level, size_t n_levels, size_t k) {
    return level == k ? 1 : level == n_levels - 1 ? -1 : 0;
}

static size_t level_of(const struct kv_factorial *f, size_t config, size_t factor) {
    return f->level[config * f->n_factors + factor];
}

static size_t width_of(const struct kv_factorial *f, size_t factor) {
    return f->n_levels[factor] - 1;
}

static void add_main(const struct kv_factorial *f, struct model *m, size_t factor) {
    for (size_t k = 0; k < width_of(f, factor); k++, m->n_columns++)
        for (size_t c = 0; c < f->n; c++)
            gsl_matrix_set(m->columns, c, m->n_columns,
                           code(level_of(f, c, factor), f->n_levels[factor], k));
}

static void add_pair(const struct kv_factorial *f, struct model *m, size_t a, size_t b) {
    for (size_t i = 0; i < width_of(f, a); i++)
        for (size_t k = 0; k < width_of(f, b); k++, m->n_columns++)
            for (size_t c = 0; c < f->n; c++)
                gsl_matrix_set(m->columns, c, m->n_columns,
                               code(level_of(f, c, a), f->n_levels[a], i) *
                                   code(level_of(f, c, b), f->n_levels[b], k));
}

// The pseudo-inverse and the rank, from the eigenvalues of X'X: columns hold -1, 0 and 1, so that
// squaring the condition does no harm.
static void solve(const struct kv_factorial *f, struct model *m) {
    size_t p = m->n_columns;
    gsl_matrix *square = gsl_matrix_alloc(p, p), *vectors = gsl_matrix_alloc(p, p);
    gsl_matrix *inverse = gsl_matrix_calloc(p, p);
    gsl_vector *values = gsl_vector_alloc(p);
    gsl_eigen_symmv_workspace *w = gsl_eigen_symmv_alloc(p);
    gsl_matrix_const_view x = gsl_matrix_const_submatrix(m->columns, 0, 0, f->n, p);
    gsl_blas_dgemm(CblasTrans, CblasNoTrans, 1, &x.matrix, &x.matrix, 0, square);
    gsl_eigen_symmv(square, values, vectors, w);
    m->rank = 0;
    for (size_t k = 0; k < p; k++) {
        double value = gsl_vector_get(values, k);
        if (value < 1e-9 * gsl_vector_max(values)) continue;
        gsl_vector_const_view v = gsl_matrix_const_column(vectors, k);
        gsl_blas_dger(1 / value, &v.vector, &v.vector, inverse);
        m->rank++;
    }
    m->solver = gsl_matrix_alloc(p, f->n);
    gsl_blas_dgemm(CblasNoTrans, CblasTrans, 1, inverse, &x.matrix, 0, m->solver);
    gsl_eigen_symmv_free(w);
    gsl_vector_free(values);
    gsl_matrix_free(inverse);
    gsl_matrix_free(vectors);
    gsl_matrix_free(square);
}

// The mean and the main effects of the factors in, but for `left_out` (n_factors = none), with room
// for `more` columns.
static void begin(const struct kv_factorial *f, struct model *m, size_t left_out, size_t more) {
    size_t room = 1 + more;
    for (size_t k = 0; k < f->n_factors; k++) room += width_of(f, k);
    *m = (struct model){.n_columns = 1, .columns = gsl_matrix_alloc(f->n, room)};
    for (size_t c = 0; c < f->n; c++) gsl_matrix_set(m->columns, c, 0, 1);
    for (size_t k = 0; k < f->n_factors; k++)
        if (f->has[k] && k != left_out) add_main(f, m, k);
}

static void free_model(struct model *m) {
    if (m->columns) gsl_matrix_free(m->columns);
    if (m->solver) gsl_matrix_free(m->solver);
    *m = (struct model){0};
}

struct kv_factorial *kv_factorial_new(size_t n_configs, size_t n_factors, const size_t *n_levels,
                                      const size_t *level) {
    struct kv_factorial *f = kv_alloc(1, sizeof *f);
    size_t rank = 1, column = 1;
    f->n = n_configs;
    f->n_factors = n_factors;
    memcpy(f->n_levels, n_levels, n_factors * sizeof *n_levels);
    f->level = kv_alloc(n_configs * n_factors + 1, sizeof *f->level);
    memcpy(f->level, level, n_configs * n_factors * sizeof *level);
    for (size_t k = 0; k < n_factors; k++) {
        struct model m;
        f->has[k] = true;
        begin(f, &m, n_factors, 0);
        solve(f, &m);
        f->has[k] = m.rank == rank + width_of(f, k);
        if (f->has[k]) {
            rank = m.rank;
            f->first_column[k] = column;
            column += width_of(f, k);
        }
        free_model(&m);
    }
    begin(f, &f->main, n_factors, 0);
    solve(f, &f->main);
    for (size_t a = 0; a < n_factors; a++) {
        if (!f->has[a]) continue;
        begin(f, &f->without[a], a, 0);
        solve(f, &f->without[a]);
        for (size_t b = a + 1; b < n_factors; b++) {
            size_t more = width_of(f, a) * width_of(f, b);
            if (!f->has[b]) continue;
            begin(f, &f->pair[a][b], n_factors, more);
            add_pair(f, &f->pair[a][b], a, b);
            solve(f, &f->pair[a][b]);
            f->has_pair[a][b] = f->pair[a][b].rank == rank + more;
        }
    }
    return f;
}

void kv_factorial_free(struct kv_factorial *f) {
    if (!f) return;
    free_model(&f->main);
    for (size_t a = 0; a < f->n_factors; a++) {
        free_model(&f->without[a]);
        for (size_t b = 0; b < f->n_factors; b++) free_model(&f->pair[a][b]);
    }
    free(f->level);
    free(f);
}

bool kv_factorial_has(const struct kv_factorial *f, size_t factor) {
    return f->has[factor];
}

bool kv_factorial_has_pair(const struct kv_factorial *f, size_t a, size_t b) {
    return f->has_pair[a][b];
}

// ---- effects --------------------------------------------------------------------------

static double coefficient(const struct kv_factorial *f, const struct model *m, size_t column,
                          const double *y) {
    double sum = 0;
    for (size_t c = 0; c < f->n; c++) sum += gsl_matrix_get(m->solver, column, c) * y[c];
    return sum;
}

void kv_factorial_main(const struct kv_factorial *f, size_t factor, const double *y,
                       double *effect) {
    size_t last = width_of(f, factor);
    effect[last] = 0;
    for (size_t k = 0; k < last; k++) {
        effect[k] = coefficient(f, &f->main, f->first_column[factor] + k, y);
        effect[last] -= effect[k];
    }
}

void kv_factorial_pair(const struct kv_factorial *f, size_t a, size_t b, const double *y,
                       double *effect) {
    const struct model *m = &f->pair[a][b];
    size_t rows = width_of(f, a), columns = width_of(f, b), n_b = f->n_levels[b];
    size_t first = m->n_columns - rows * columns;
    for (size_t i = 0; i <= rows; i++)
        for (size_t k = 0; k <= columns; k++) effect[i * n_b + k] = 0;
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < columns; k++) {
            double x = coefficient(f, m, first + i * columns + k, y);
            effect[i * n_b + k] = x; // rows and columns of effects sum to zero
            effect[i * n_b + columns] -= x;
            effect[rows * n_b + k] -= x;
            effect[rows * n_b + columns] += x;
        }
}

// ---- shares ---------------------------------------------------------------------------

static double residual(const struct kv_factorial *f, const struct model *m, const double *y) {
    double *b = kv_alloc(m->n_columns, sizeof *b), sum = 0;
    for (size_t k = 0; k < m->n_columns; k++) b[k] = coefficient(f, m, k, y);
    for (size_t c = 0; c < f->n; c++) {
        double r = y[c];
        for (size_t k = 0; k < m->n_columns; k++) r -= gsl_matrix_get(m->columns, c, k) * b[k];
        sum += r * r;
    }
    free(b);
    return sum;
}

static double total(const struct kv_factorial *f, const double *y) {
    double mean = 0, sum = 0;
    for (size_t c = 0; c < f->n; c++) mean += y[c] / (double)f->n;
    for (size_t c = 0; c < f->n; c++) sum += (y[c] - mean) * (y[c] - mean);
    return sum;
}

static double share(double explained, double of) {
    return of > 0 ? fmax(0, explained) / of : 0;
}

double kv_factorial_share(const struct kv_factorial *f, size_t factor, const double *y) {
    return share(residual(f, &f->without[factor], y) - residual(f, &f->main, y), total(f, y));
}

double kv_factorial_pair_share(const struct kv_factorial *f, size_t a, size_t b, const double *y) {
    return share(residual(f, &f->main, y) - residual(f, &f->pair[a][b], y), total(f, y));
}

double kv_factorial_main_share(const struct kv_factorial *f, const double *y) {
    return share(total(f, y) - residual(f, &f->main, y), total(f, y));
}
