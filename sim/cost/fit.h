// SPDX-License-Identifier: Apache-2.0
// A robust fit of positive parameters to sums of columns, some of which stretch beyond a knee.
#ifndef KV_COST_FIT_H
#define KV_COST_FIT_H

#include "policies/policy.h"

// y_i = sum_j p_j x_ij (j < n_plain) + s_i sum_j p_j x_ij (the rest), all p_j > 0, with
// s_i = 1 + (knee_factor - 1) over_i, over_i = the share of row i's bytes beyond the knee, or s_i =
// over_i when what lies below costs nothing.
struct kv_fit {
    size_t n_rows, n_parameters, n_plain;
    const double *x;     // [n_rows][n_parameters]
    const double *y;     // [n_rows]
    const double *sigma; // [n_rows] uncertainty of y
    const double *over;  // [n_rows], or NULL: no knee
    bool hidden;         // below the knee is free
    // out, caller's memory
    double *p;          // [n_parameters]; in: where to start, positive
    double *log_error;  // [n_parameters] standard error of log p; INFINITY = not determined
    double knee_factor; // in: start (above 1); out: fitted when over is given
    double cost;        // sum of the Huber losses
    double scale;       // robust sigma of the residuals in units of sigma
};

// Errors: KV_EFAIL when there are fewer rows than parameters or the solver gives up.
KV_MUST_CHECK int kv_fit_run(struct kv_fit *f, struct kv_error *e);

#endif
