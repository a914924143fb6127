// SPDX-License-Identifier: Apache-2.0
// The solver behind calibrate: GSL's nonlinear least squares inside a loop of Huber weights.
#include "sim/cost/fit.h"
#include "sim/base/memory.h"

#include <stdlib.h>
#include <gsl/gsl_blas.h>
#include <gsl/gsl_errno.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics.h>

#define HUBER_K 1.345 // 95 % efficient for normal errors (Huber 1964; Holland and Welsch 1977)
#define MAD_TO_SIGMA 1.4826 // of a normal distribution
enum { ROBUST_ROUNDS = 30, SOLVER_STEPS = 200 };
static const double log_floor = -34; // exp(-34): a parameter this small is "none"
static const double log_ceiling = 60;

static double parameter(const gsl_vector *theta, size_t j) {
    return exp(fmin(fmax(gsl_vector_get(theta, j), log_floor), log_ceiling));
}

enum { MAX_PARAMETERS = 64 };

static bool has_factor(const struct kv_fit *f) {
    return f->over && !f->hidden;
}

// What the logarithms stand for, taken once a call.
struct values {
    double p[MAX_PARAMETERS], knee;
};

static struct values values_of(const struct kv_fit *f, const gsl_vector *theta) {
    struct values v = {.knee = has_factor(f) ? parameter(theta, f->n_parameters) : 0};
    for (size_t j = 0; j < f->n_parameters; j++) v.p[j] = parameter(theta, j);
    return v;
}

static double stretch(const struct kv_fit *f, const struct values *v, size_t i) {
    if (f->over && f->hidden) return f->over[i];
    return f->over ? 1 + v->knee * f->over[i] : 1;
}

// Sums of a row's plain and stretching columns.
static void row_sums(const struct kv_fit *f, const struct values *v, size_t i, double *plain,
                     double *stretching) {
    *plain = *stretching = 0;
    for (size_t j = 0; j < f->n_parameters; j++)
        *(j < f->n_plain ? plain : stretching) += v->p[j] * f->x[i * f->n_parameters + j];
}

static int residuals(const gsl_vector *theta, void *self, gsl_vector *out) {
    const struct kv_fit *f = self;
    const struct values v = values_of(f, theta);
    for (size_t i = 0; i < f->n_rows; i++) {
        double plain, stretching;
        row_sums(f, &v, i, &plain, &stretching);
        double y = plain + stretch(f, &v, i) * stretching;
        gsl_vector_set(out, i, (y - f->y[i]) / f->sigma[i]);
    }
    return GSL_SUCCESS;
}

static int jacobian(const gsl_vector *theta, void *self, gsl_matrix *out) {
    const struct kv_fit *f = self;
    const struct values v = values_of(f, theta);
    for (size_t i = 0; i < f->n_rows; i++) {
        double plain, stretching, s = stretch(f, &v, i);
        row_sums(f, &v, i, &plain, &stretching);
        for (size_t j = 0; j < f->n_parameters; j++)
            gsl_matrix_set(out, i, j,
                           (j < f->n_plain ? 1 : s) * v.p[j] * f->x[i * f->n_parameters + j] /
                               f->sigma[i]);
        if (has_factor(f))
            gsl_matrix_set(out, i, f->n_parameters, (s - 1) * stretching / f->sigma[i]);
    }
    return GSL_SUCCESS;
}

// Robust spread of the residuals; at least a little, so that an exact fit has weights of 1.
static double spread(const double *r, size_t n) {
    double *x = kv_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = fabs(r[i]);
    gsl_sort(x, 1, n);
    double mad = gsl_stats_median_from_sorted_data(x, 1, n) * MAD_TO_SIGMA;
    free(x);
    return fmax(mad, 1e-9);
}

static double huber_loss(double u) { // of a residual in units of the spread
    u = fabs(u);
    return u <= HUBER_K ? u * u : 2 * HUBER_K * u - HUBER_K * HUBER_K;
}

struct solver {
    gsl_multifit_nlinear_workspace *w;
    gsl_vector *theta, *weights;
    gsl_matrix *covariance;
    double *r;
};

static int solve(struct kv_fit *f, struct solver *s, struct kv_error *e) {
    size_t n_free = s->theta->size;
    gsl_multifit_nlinear_fdf fdf = {
        .f = residuals, .df = jacobian, .n = f->n_rows, .p = n_free, .params = f};
    gsl_vector_set_all(s->weights, 1);
    for (int round = 0; round < ROBUST_ROUNDS; round++) {
        int info;
        gsl_multifit_nlinear_winit(s->theta, s->weights, &fdf, s->w);
        int rc =
            gsl_multifit_nlinear_driver(SOLVER_STEPS, 1e-10, 1e-10, 0, NULL, NULL, &info, s->w);
        if (rc != GSL_SUCCESS && rc != GSL_EMAXITER && rc != GSL_ENOPROG)
            return kv_fail(e, KV_EFAIL, "calibrate", "the fit failed: %s", gsl_strerror(rc));
        const gsl_vector *at = gsl_multifit_nlinear_position(s->w);
        double moved = 0;
        for (size_t j = 0; j < n_free; j++) {
            double x = fmin(fmax(gsl_vector_get(at, j), log_floor), log_ceiling);
            moved = fmax(moved, fabs(x - gsl_vector_get(s->theta, j)));
            gsl_vector_set(s->theta, j, x);
        }
        gsl_vector_view r = gsl_vector_view_array(s->r, f->n_rows);
        residuals(s->theta, f, &r.vector);
        f->scale = spread(s->r, f->n_rows);
        if (!(f->scale < 1e6))
            return kv_fail(e, KV_EFAIL, "calibrate", "the runs are too noisy for a fit to settle");
        for (size_t i = 0; i < f->n_rows; i++) {
            double u = fabs(s->r[i]) / f->scale;
            gsl_vector_set(s->weights, i, u <= HUBER_K ? 1 : HUBER_K / u);
        }
        if (round > 0 && moved < 1e-8) break;
    }
    gsl_multifit_nlinear_covar(gsl_multifit_nlinear_jac(s->w), 0, s->covariance);
    return 0;
}

int kv_fit_run(struct kv_fit *f, struct kv_error *e) {
    size_t n_free = f->n_parameters + has_factor(f);
    if (n_free > MAX_PARAMETERS)
        return kv_fail(e, KV_EFAIL, "calibrate", "%zu parameters are more than a fit holds (%d)",
                       n_free, MAX_PARAMETERS);
    if (f->n_rows < n_free)
        return kv_fail(e, KV_EFAIL, "calibrate", "%zu measurements cannot fix %zu parameters",
                       f->n_rows, n_free);
    gsl_error_handler_t *before = gsl_set_error_handler_off();
    gsl_multifit_nlinear_parameters how = gsl_multifit_nlinear_default_parameters();
    struct solver s = {
        .w = gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &how, f->n_rows, n_free),
        .theta = gsl_vector_alloc(n_free),
        .weights = gsl_vector_alloc(f->n_rows),
        .covariance = gsl_matrix_alloc(n_free, n_free),
        .r = kv_alloc(f->n_rows, sizeof(double))};
    for (size_t j = 0; j < f->n_parameters; j++) gsl_vector_set(s.theta, j, log(f->p[j]));
    if (has_factor(f)) gsl_vector_set(s.theta, f->n_parameters, log(f->knee_factor - 1));
    int rc = solve(f, &s, e);
    f->cost = 0;
    for (size_t i = 0; i < f->n_rows; i++) f->cost += huber_loss(s.r[i] / f->scale);
    for (size_t j = 0; j < f->n_parameters; j++) {
        double variance = gsl_matrix_get(s.covariance, j, j);
        f->p[j] = parameter(s.theta, j);
        bool fixed = variance > 0 && gsl_vector_get(s.theta, j) > log_floor;
        f->log_error[j] = fixed ? sqrt(variance) * f->scale : INFINITY;
    }
    f->knee_factor = has_factor(f) ? 1 + exp(gsl_vector_get(s.theta, f->n_parameters)) : 1;
    gsl_multifit_nlinear_free(s.w);
    gsl_vector_free(s.theta);
    gsl_vector_free(s.weights);
    gsl_matrix_free(s.covariance);
    free(s.r);
    gsl_set_error_handler(before);
    return rc;
}
