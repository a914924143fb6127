// SPDX-License-Identifier: Apache-2.0
// Agreement of predictions with exact runs, monotone calibration, accuracy against divergence.
#include "analysis/stats/agreement.h"

#include <gsl/gsl_blas.h>
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <gsl/gsl_statistics_double.h>
#include <stdlib.h>

#include "sim/base/memory.h"

// ---- agreement ------------------------------------------------------------------------

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double kv_quantile(const double *x, size_t n, double p) {
    double *sorted = kv_alloc(n + 1, sizeof *sorted), at = NAN;
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(x[i])) sorted[m++] = x[i];
    qsort(sorted, m, sizeof *sorted, ascending);
    if (m > 0) at = gsl_stats_quantile_from_sorted_data(sorted, 1, m, p);
    free(sorted);
    return at;
}

// Ranks from 1, ties at their mean.
static void rank(const double *x, size_t n, double *ranks) {
    for (size_t i = 0; i < n; i++) {
        size_t below = 0, equal = 0;
        for (size_t j = 0; j < n; j++) {
            below += x[j] < x[i];
            equal += x[j] == x[i];
        }
        ranks[i] = (double)below + ((double)equal + 1) / 2;
    }
}

struct kv_agreement kv_agreement(const double *predicted, const double *exact, size_t n) {
    struct kv_agreement a = {0, NAN, NAN, NAN, NAN, NAN};
    double *block = kv_alloc(5 * n + 1, sizeof *block), *x = block, *y = x + n, *ratio = y + n,
           *rank_x = ratio + n, *rank_y = rank_x + n;
    for (size_t i = 0; i < n; i++) {
        if (!(predicted[i] > 0) || !(exact[i] > 0)) continue;
        x[a.n] = log(predicted[i]);
        y[a.n] = log(exact[i]);
        ratio[a.n++] = predicted[i] / exact[i];
    }
    if (a.n >= 3) {
        rank(x, a.n, rank_x);
        rank(y, a.n, rank_y);
        a.log_correlation = gsl_stats_correlation(x, 1, y, 1, a.n);
        a.spearman = gsl_stats_correlation(rank_x, 1, rank_y, 1, a.n);
        a.ratio_5 = kv_quantile(ratio, a.n, 0.05);
        a.ratio_median = kv_quantile(ratio, a.n, 0.5);
        a.ratio_95 = kv_quantile(ratio, a.n, 0.95);
    }
    free(block);
    return a;
}

// ---- monotone calibration -------------------------------------------------------------

void kv_isotonic(const double *y, const double *weight, size_t n, double *fitted) {
    double *mean = kv_alloc(n + 1, sizeof *mean), *mass = kv_alloc(n + 1, sizeof *mass);
    size_t *upto = kv_alloc(n + 1, sizeof *upto), blocks = 0;
    for (size_t i = 0; i < n; i++) {
        mean[blocks] = y[i];
        mass[blocks] = weight ? weight[i] : 1;
        upto[blocks++] = i + 1;
        while (blocks > 1 && mean[blocks - 2] > mean[blocks - 1]) {
            size_t b = blocks - 2;
            double sum = mass[b] + mass[b + 1];
            mean[b] += (mean[b + 1] - mean[b]) * (sum > 0 ? mass[b + 1] / sum : 0.5);
            mass[b] = sum;
            upto[b] = upto[b + 1];
            blocks--;
        }
    }
    for (size_t b = 0, i = 0; b < blocks; b++)
        while (i < upto[b]) fitted[i++] = mean[b];
    free(mean);
    free(mass);
    free(upto);
}

struct point {
    double x, y;
};

static int by_x(const void *a, const void *b) {
    const struct point *p = a, *q = b;
    return p->x != q->x ? (p->x > q->x) - (p->x < q->x) : (p->y > q->y) - (p->y < q->y);
}

struct kv_monotone {
    size_t n;
    double *x, *y; // ascending; y fitted
};

// Value at x0 of a line through the nearest points, weighted by tricube of distance and by trust.
static double local_line(const struct point *p, const double *trust, size_t n, size_t near,
                         double x0) {
    size_t low = 0;
    while (low + near < n && p[low + near].x - x0 < x0 - p[low].x) low++;
    double reach = fmax(x0 - p[low].x, p[low + near - 1].x - x0) * 1.0001 + 1e-12;
    double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0;
    for (size_t i = low; i < low + near; i++) {
        double u = fabs(p[i].x - x0) / reach, k = trust[i] * pow(1 - u * u * u, 3),
               dx = p[i].x - x0;
        w += k;
        wx += k * dx;
        wy += k * p[i].y;
        wxx += k * dx * dx;
        wxy += k * dx * p[i].y;
    }
    double spread = w * wxx - wx * wx;
    return spread > 1e-9 * w * w * reach * reach ? (wxx * wy - wx * wxy) / spread : wy / w;
}

struct kv_monotone *kv_monotone_new(const double *x, const double *y, size_t n) {
    struct point *p = kv_alloc(n + 1, sizeof *p); // y holds y - x
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (isfinite(x[i]) && isfinite(y[i])) p[m++] = (struct point){x[i], y[i] - x[i]};
    if (m < 4) {
        free(p);
        return NULL;
    }
    qsort(p, m, sizeof *p, by_x);
    struct kv_monotone *f = kv_alloc(1, sizeof *f);
    *f = (struct kv_monotone){m, kv_alloc(m, sizeof(double)), kv_alloc(m, sizeof(double))};
    double *trust = kv_alloc(m, sizeof *trust), *off = kv_alloc(m, sizeof *off);
    size_t near = (size_t)ceil(0.6 * (double)m);
    if (near < 4) near = 4;
    for (size_t i = 0; i < m; i++) trust[i] = 1;
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < m; i++) {
            f->x[i] = p[i].x;
            f->y[i] = local_line(p, trust, m, near, p[i].x);
            off[i] = fabs(p[i].y - f->y[i]);
        }
        double scale = 6 * kv_quantile(off, m, 0.5); // Cleveland's bisquare
        for (size_t i = 0; i < m; i++) {
            double u = scale > 0 ? off[i] / scale : 0;
            trust[i] = u < 1 ? fmax(1e-3, pow(1 - u * u, 2)) : 1e-3;
        }
    }
    for (size_t i = 0; i < m; i++) off[i] = f->y[i] + f->x[i];
    kv_isotonic(off, NULL, m, f->y);
    free(trust);
    free(off);
    free(p);
    return f;
}

void kv_monotone_free(struct kv_monotone *m) {
    if (!m) return;
    free(m->x);
    free(m->y);
    free(m);
}

double kv_monotone_at(const struct kv_monotone *m, double x) {
    size_t last = m->n - 1, i = 0;
    if (isnan(x)) return NAN;
    if (x <= m->x[0]) return m->y[0] + x - m->x[0];
    if (x >= m->x[last]) return m->y[last] + x - m->x[last];
    while (x >= m->x[i + 1]) i++;
    return m->y[i] + (m->y[i + 1] - m->y[i]) * (x - m->x[i]) / (m->x[i + 1] - m->x[i]);
}

void kv_monotone_left_out(const double *x, const double *y, const int *group, size_t n,
                          double *predicted) {
    double *kept = kv_alloc(n + 1, sizeof *kept);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) kept[j] = group[j] == group[i] ? NAN : y[j];
        struct kv_monotone *m = kv_monotone_new(x, kept, n);
        predicted[i] = m ? kv_monotone_at(m, x[i]) : NAN;
        kv_monotone_free(m);
    }
    free(kept);
}

// ---- decline with divergence ----------------------------------------------------------

double kv_decline_at(const struct kv_decline *d, double x) {
    return d->floor + (d->top - d->floor) / (1 + pow(x / d->half, d->slope));
}

struct decline_data {
    const double *x, *y;
    size_t n;
    double top, floor; // floor NAN: the third parameter
};

static struct kv_decline decline_of(const struct decline_data *d, const gsl_vector *p) {
    return (struct kv_decline){.top = d->top,
                               .floor = isnan(d->floor) ? gsl_vector_get(p, 2) : d->floor,
                               .half = exp(gsl_vector_get(p, 0)),
                               .slope = exp(gsl_vector_get(p, 1))};
}

static int decline_residuals(const gsl_vector *p, void *self, gsl_vector *f) {
    const struct decline_data *d = self;
    struct kv_decline at = decline_of(d, p);
    for (size_t i = 0; i < d->n; i++) gsl_vector_set(f, i, kv_decline_at(&at, d->x[i]) - d->y[i]);
    return GSL_SUCCESS;
}

// Where to start: half at the point whose y is nearest the middle.
static double start_half(const struct decline_data *d, double floor) {
    size_t best = 0;
    for (size_t i = 1; i < d->n; i++)
        if (fabs(d->y[i] - (d->top + floor) / 2) < fabs(d->y[best] - (d->top + floor) / 2))
            best = i;
    return d->x[best];
}

static int solve_decline(struct kv_decline *out, struct decline_data *d, struct kv_error *e) {
    size_t n_fitted = isnan(d->floor) ? 3 : 2;
    const gsl_multifit_nlinear_parameters how = gsl_multifit_nlinear_default_parameters();
    gsl_multifit_nlinear_workspace *w =
        gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &how, d->n, n_fitted);
    gsl_multifit_nlinear_fdf problem = {
        .f = decline_residuals, .n = d->n, .p = n_fitted, .params = d};
    double low = kv_quantile(d->y, d->n, 0), floor = isnan(d->floor) ? low / 2 : d->floor;
    double start[3] = {log(start_half(d, floor)), 0, floor};
    gsl_vector_view from = gsl_vector_view_array(start, n_fitted);
    gsl_matrix *covariance = gsl_matrix_alloc(n_fitted, n_fitted);
    int why, status = w ? gsl_multifit_nlinear_init(&from.vector, &problem, w) : GSL_ENOMEM;
    if (status == GSL_SUCCESS)
        status = gsl_multifit_nlinear_driver(200, 1e-8, 1e-8, 1e-8, NULL, NULL, &why, w);
    if (status == GSL_SUCCESS || status == GSL_EMAXITER || status == GSL_ENOPROG) {
        *out = decline_of(d, gsl_multifit_nlinear_position(w));
        out->n = d->n;
        out->n_fitted = n_fitted;
        double norm = gsl_blas_dnrm2(gsl_multifit_nlinear_residual(w));
        out->sd = norm / sqrt((double)(d->n - n_fitted));
        gsl_multifit_nlinear_covar(gsl_multifit_nlinear_jac(w), 0, covariance);
        for (size_t i = 0; i < n_fitted; i++)
            for (size_t j = 0; j < n_fitted; j++)
                out->covariance[i][j] = gsl_matrix_get(covariance, i, j) * out->sd * out->sd;
        status = isfinite(out->half) && isfinite(out->slope) ? GSL_SUCCESS : GSL_EFAILED;
    }
    gsl_matrix_free(covariance);
    gsl_multifit_nlinear_free(w);
    return status == GSL_SUCCESS ? 0
                                 : kv_fail(e, KV_EFAIL, "fit", "accuracy against divergence: %s",
                                           gsl_strerror(status));
}

int kv_decline_fit(struct kv_decline *out, const double *x, const double *y, size_t n, double top,
                   double floor, struct kv_error *e) {
    double *block = kv_alloc(2 * n + 1, sizeof *block);
    struct decline_data d = {.x = block, .y = block + n, .top = top, .floor = floor};
    for (size_t i = 0; i < n; i++)
        if (x[i] > 0 && isfinite(y[i])) {
            block[d.n] = x[i];
            block[n + d.n++] = y[i];
        }
    int rc = d.n < 5 ? kv_fail(e, KV_EFAIL, "fit", "%zu policies are too few for a curve", d.n) : 0;
    gsl_error_handler_t *handler = gsl_set_error_handler_off();
    if (rc == 0) rc = solve_decline(out, &d, e);
    gsl_set_error_handler(handler);
    free(block);
    return rc;
}

struct kv_interval kv_decline_interval(const struct kv_decline *d, double x, double confidence) {
    double at = kv_decline_at(d, x), slope[3], variance = d->sd * d->sd;
    struct kv_decline moved = *d; // derivatives by small steps of log half, log slope, floor
    moved.half *= exp(1e-5);
    slope[0] = (kv_decline_at(&moved, x) - at) / 1e-5;
    moved = *d;
    moved.slope *= exp(1e-5);
    slope[1] = (kv_decline_at(&moved, x) - at) / 1e-5;
    moved = *d;
    moved.floor += 1e-5;
    slope[2] = (kv_decline_at(&moved, x) - at) / 1e-5;
    for (size_t i = 0; i < d->n_fitted; i++)
        for (size_t j = 0; j < d->n_fitted; j++)
            variance += slope[i] * d->covariance[i][j] * slope[j];
    double t = gsl_cdf_tdist_Pinv(0.5 + confidence / 2, (double)(d->n - d->n_fitted));
    return (struct kv_interval){at - t * sqrt(variance), at + t * sqrt(variance)};
}

void kv_decline_left_out(const double *x, const double *y, const int *group, size_t n, double top,
                         double floor, double *predicted) {
    double *kept = kv_alloc(n + 1, sizeof *kept);
    for (size_t i = 0; i < n; i++) {
        struct kv_decline d;
        for (size_t j = 0; j < n; j++) kept[j] = group[j] == group[i] ? NAN : y[j];
        predicted[i] =
            kv_decline_fit(&d, x, kept, n, top, floor, NULL) ? NAN : kv_decline_at(&d, x[i]);
    }
    free(kept);
}
