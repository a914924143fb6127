// SPDX-License-Identifier: Apache-2.0
// Measuring plans by exact replay for the search by swaps.
#include "analysis/studies/greedy.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/replay/damage.h"

#include <stdlib.h>

#include "analysis/search/swap.h"

struct measuring {
    struct kv_greedy *g;
    double *value; // [n_plans][n_items]
    double scored; // positions of all items
    struct kv_progress *progress;
};

static int take(void *self, size_t item, size_t spec, const struct kv_outcome *o,
                struct kv_error *e) {
    const struct measuring *m = self;
    (void)e;
    m->value[spec * m->g->items.n + item - m->g->items.first] =
        o->kl_nats * o->n_scored / m->scored;
    return 0;
}

static int measure(void *self, const uint8_t *choice, size_t n_plans, double *value,
                   struct kv_error *e) {
    struct measuring *m = self;
    const struct kv_planner *p = m->g->planner;
    const struct kv_trace_info *in = kv_trace_info(p->trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    struct kv_replay_spec *specs = kv_alloc(n_plans, sizeof *specs);
    int rc = 0;
    m->value = value;
    for (size_t i = 0; i < n_plans && rc == 0; i++) {
        char *text = kv_plan_text(m->g->plan, choice + i * m->g->plan->n_groups);
        rc = kv_replay_spec_open(&specs[i], text, &setting, p->seed, e);
        free(text);
    }
    if (rc == 0)
        rc = kv_planner_replay(p, m->g->model, specs, n_plans, &m->g->items, true, take, m, e);
    if (rc == 0) kv_progress_step(m->progress, n_plans);
    for (size_t i = 0; i < n_plans; i++) kv_replay_spec_close(&specs[i]);
    free(specs);
    return rc;
}

int kv_greedy_run(struct kv_greedy *g, struct kv_error *e) {
    const struct kv_plan *p = g->plan;
    struct measuring m = {.g = g};
    for (size_t i = g->items.first; i < g->items.first + g->items.n; i++)
        m.scored +=
            kv_fisher_scored(kv_trace_info(g->planner->trace), kv_trace_item(g->planner->trace, i));
    g->choice = kv_alloc(p->n_groups, 1);
    memcpy(g->choice, p->choice, p->n_groups);
    struct kv_swap s = {.n_groups = p->n_groups,
                        .n_options = p->n_options,
                        .cost = p->cost,
                        .loss = p->loss,
                        .budget = p->budget,
                        .n_items = g->items.n,
                        .measure = measure,
                        .self = &m,
                        .evaluations = g->evaluations};
    m.progress = kv_progress_start("verifying", g->evaluations, "plans");
    int rc = kv_swap_run(&s, g->choice, e);
    kv_progress_end(m.progress);
    g->evaluated = s.evaluated;
    g->kept = s.kept;
    g->kl_first = s.first_value;
    g->kl_nats = s.value;
    g->interrupted = s.interrupted;
    return rc;
}
