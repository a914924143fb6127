// SPDX-License-Identifier: Apache-2.0
// What a benchmark found, for the table that `make bench` makes of all: a rate, and the limit that
// it is a share of, measured in the same run.
#ifndef KV_TEST_FIGURE_H
#define KV_TEST_FIGURE_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

// Adds a line to the file that $KVSIM_BENCH names; without it nothing happens. rate and of: in
// `unit`, more is better. limit: what `of` is the rate of. name: as printf has it, no '"' in it.
__attribute__((format(printf, 5, 6))) static inline void
bench_figure(double rate, const char *unit, const char *limit, double of, const char *name, ...) {
    const char *path = getenv("KVSIM_BENCH");
    FILE *f = path && *path && isfinite(rate) && isfinite(of) && of > 0 ? fopen(path, "a") : NULL;
    if (!f) return;
    va_list ap;
    va_start(ap, name);
    fprintf(f, "{\"figure\": \"");
    vfprintf(f, name, ap);
    fprintf(f,
            "\", \"rate\": %.6g, \"unit\": \"%s\", \"limit\": \"%s\", \"limit_rate\": %.6g, "
            "\"ratio\": %.4g}\n",
            rate, unit, limit, of, rate / of);
    va_end(ap);
    fclose(f);
}

#endif
