// SPDX-License-Identifier: Apache-2.0
// Writes devices and their runs.
#include "sim/store/store_device.h"
#include "sim/cost/runs.h"

#include <stdlib.h>

static struct kv_sql_value count_value(double x) {
    return isfinite(x) ? kv_sql_int(llround(x)) : kv_sql_real(NAN);
}

static int put(struct kv_store *s, const char *sql, const struct kv_sql_value *values, size_t n,
               struct kv_error *e) {
    return kv_store_query(s, sql, values, n, NULL, NULL, e);
}

static int put_run(struct kv_store *s, const struct kv_device *d, size_t i, double predicted_ns,
                   struct kv_error *e) {
    const struct kv_device_run *r = &d->runs[i];
    char mix[160];
    kv_mix_text(&r->mix, mix, sizeof mix);
    const struct kv_sql_value run[] = {kv_sql_text(d->name),    count_value((double)i),
                                       count_value(r->context), kv_sql_text(mix),
                                       count_value(r->step_ns), count_value(predicted_ns),
                                       count_value(1)};
    return put(s, "INSERT INTO device_run VALUES (?, ?, ?, ?, ?, ?, ?)", run, 7, e);
}

int kv_store_put_device(struct kv_store *s, const struct kv_device *d, const double *predicted_ns,
                        struct kv_error *e) {
    char *text = kv_device_text(d);
    const struct kv_sql_value device[] = {kv_sql_text(d->name), kv_sql_text(d->summary),
                                          kv_sql_text(d->provenance), kv_sql_text(text)};
    int rc = put(s, "BEGIN", NULL, 0, e);
    if (rc == 0) rc = put(s, "DELETE FROM device_run WHERE device = ?", device, 1, e);
    if (rc == 0) rc = put(s, "INSERT OR REPLACE INTO device VALUES (?, ?, ?, ?)", device, 4, e);
    for (size_t i = 0; rc == 0 && i < d->n_runs; i++) rc = put_run(s, d, i, predicted_ns[i], e);
    free(text);
    return rc ? rc : put(s, "COMMIT", NULL, 0, e);
}
