// SPDX-License-Identifier: Apache-2.0
// Prints the data of reports/draw/reliability.gp: the frontier's bootstrap frequency against the
// truth.
//
//     build/analysis/test/make_reliability > work/reliability.tsv
#include "analysis/test/reliability.h"

enum { WORLDS = 1000 };

int main(void) {
    static const size_t sizes[] = {100, 500, 2000};
    puts("items\tpoints\tfrequency\ttruly_on\tlow\thigh");
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct reliability_bin bins[RELIABILITY_BINS] = {{0}};
        for (uint64_t w = 0; w < WORLDS; w++) reliability_world(w, sizes[s], bins);
        for (size_t b = 0; b < RELIABILITY_BINS; b++) {
            if (bins[b].n == 0) continue;
            double n = (double)bins[b].n, share = (double)bins[b].truly_on / n;
            struct kv_interval i = kv_wilson(share, n, 0.95);
            printf("%zu\t%zu\t%.4f\t%.4f\t%.4f\t%.4f\n", sizes[s], bins[b].n, bins[b].frequency / n,
                   share, i.low, i.high);
        }
    }
    return 0;
}
