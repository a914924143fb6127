// SPDX-License-Identifier: Apache-2.0
// Buffers of a worker, and the threads that share its pass.
#include "sim/model/scratch.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/base/work.h"

struct kv_scratch *kv_scratch_new(void) {
    return kv_alloc(1, sizeof(struct kv_scratch));
}

void kv_scratch_free(struct kv_scratch *s) {
    if (!s) return;
    for (size_t i = 0; i < KV_N_BUFFERS; i++) free(s->buffer[i].p);
    for (unsigned i = 0; i < s->n_more; i++) kv_scratch_free(s->more[i]);
    free(s->more);
    free(s);
}

float *kv_scratch_floats(struct kv_scratch *s, enum kv_buffer which, size_t n) {
    if (s->buffer[which].n < n) {
        free(s->buffer[which].p);
        s->buffer[which].p = NULL;
        s->buffer[which].n = 0;
        s->buffer[which].p = kv_alloc(n, sizeof(float));
        s->buffer[which].n = n;
    }
    return s->buffer[which].p;
}

void kv_scratch_row_by_row(struct kv_scratch *s, bool on) {
    s->row_by_row = on;
}

// ---- threads that share a pass ---------------------------------------------------------

void kv_scratch_share(struct kv_scratch *s, unsigned n_threads) {
    for (unsigned i = 0; i < s->n_more; i++) kv_scratch_free(s->more[i]);
    free(s->more);
    s->n_more = n_threads > 1 ? n_threads - 1 : 0;
    s->more = kv_alloc(s->n_more, sizeof(struct kv_scratch *));
    for (unsigned i = 0; i < s->n_more; i++) s->more[i] = kv_scratch_new();
}

struct shared {
    struct kv_scratch *s;
    void (*part)(void *, struct kv_scratch *, size_t);
    void *self;
};

static int share_part(void *self, unsigned worker, size_t i, struct kv_error *e) {
    const struct shared *w = self;
    (void)e;
    w->part(w->self, worker ? w->s->more[worker - 1] : w->s, i);
    return 0;
}

int kv_scratch_parallel(struct kv_scratch *s, size_t n,
                        void (*part)(void *, struct kv_scratch *, size_t), void *self,
                        struct kv_error *e) {
    struct shared w = {s, part, self};
    if (n > 1) return kv_parallel(n, 1 + s->n_more, share_part, &w, e);
    if (n) part(self, s, 0);
    return 0;
}

struct kv_scratch **kv_scratch_crew_new(unsigned n_workers, size_t n_passes) {
    struct kv_scratch **crew = kv_alloc(n_workers, sizeof *crew);
    for (unsigned w = 0; w < n_workers; w++) {
        crew[w] = kv_scratch_new();
        // Of 8 workers with 3 passes the first two have three threads each, the third has two.
        if (w < n_passes) kv_scratch_share(crew[w], (unsigned)((n_workers - w - 1) / n_passes + 1));
    }
    return crew;
}

void kv_scratch_crew_free(struct kv_scratch **crew, unsigned n_workers) {
    for (unsigned w = 0; crew && w < n_workers; w++) kv_scratch_free(crew[w]);
    free(crew);
}
