// SPDX-License-Identifier: Apache-2.0
// Fills a store with a family of policies and prints its frontier: which of them stray less from
// the 16-bit run than every other that stores no more?
//
//     kvsim record -m MODEL -t samples -o samples.trace
//     cc sweep.c $(pkg-config --cflags --libs kvsim) -o sweep
//     ./sweep MODEL samples.trace results.db
#include <kvsim/kvsim.h>

#include <stdlib.h>

// What the store holds already is not run again: call it twice, or add specs and call it.
static int fill(const char *model, const char *trace, const char *db, struct kv_error *e) {
    const char *specs[] = {"static:bits={2,4,8}@sym", "static:k={4,8},v={2,4}@kivi"};
    struct kv_sweep_options o = kv_sweep_defaults();
    struct kv_sweep *sweep;
    o.model = model, o.trace = trace, o.db = db;
    o.specs = specs, o.n_specs = sizeof specs / sizeof *specs;
    o.jobs = 2;
    int rc = kv_sweep_open(&sweep, &o, e);
    if (rc == 0) rc = kv_sweep_run(sweep, e);
    kv_sweep_close(sweep);
    return rc;
}

static const struct kv_front_value *value_named(const char *name) {
    const struct kv_front_value *v = kv_front_values;
    while (v->name && strcmp(v->name, name) != 0) v++;
    return v;
}

static int print_frontier(const char *db, struct kv_error *e) {
    const struct kv_rows_options how = {.db = db};
    struct kv_store *store;
    struct kv_rows rows;
    struct kv_front front = {0};
    int rc = kv_rows_open(&rows, &store, &how, e);
    const struct kv_row **all = malloc((rows.n + 1) * sizeof *all);
    for (size_t i = 0; i < rows.n; i++) all[i] = &rows.row[i];
    if (rc == 0) // of one recording and setting, as a store that is filled here holds them
        rc = kv_front_find(&front, store, all, rows.n, value_named("kl"), &kv_front_costs[0], 0, 1,
                           1000, e);
    for (size_t i = 0; i < front.n; i++)
        printf("%c %5.2f %s  %.6f nats a token  %s\n", front.on[i] ? '*' : ' ', front.cost[i],
               kv_front_costs[0].unit, front.value[i], front.rows[i]->label);
    kv_front_fini(&front);
    kv_rows_fini(&rows);
    kv_store_abandon(store); // nothing is buffered: it was only read
    free(all);
    return rc;
}

int main(int argc, char **argv) {
    struct kv_error e = {0};
    if (argc != 4) return fprintf(stderr, "usage: sweep MODEL TRACE DB\n"), 2;
    kv_set_verbosity(-1); // no progress
    int rc = fill(argv[1], argv[2], argv[3], &e);
    if (rc == 0) rc = print_frontier(argv[3], &e);
    if (rc) fprintf(stderr, "sweep: %s: %s\n", e.where, e.msg);
    return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
