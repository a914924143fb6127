// SPDX-License-Identifier: Apache-2.0
#include "analysis/studies/generation_run.h"

#include <pthread.h>
#include <stdlib.h>

#include "analysis/studies/sweep_specs.h"
#include "sim/base/cpu.h"
#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/version.h"
#include "sim/base/work.h"
#include "sim/generate/generate.h"
#include "sim/generate/sample.h"
#include "sim/store/generated.h"
#include "sim/store/label.h"
#include "traces/angles.h"
#include "traces/gsm8k.h"
#include "traces/items.h"
#include "traces/windows.h"

#ifndef KV_COMMIT
#define KV_COMMIT "unknown"
#endif

struct job {
    const struct kv_generation_options *o;
    struct kv_model *model;
    struct kv_tasks *tasks;
    struct kv_items *items;
    double *angles;
    uint32_t *windows;
    struct kv_spec_list specs;
    struct kv_generate g;
    uint32_t *ends;
    const char *stops[2]; // the user's
    char *stop_lines;     // all that stop, as the store keeps them
    struct kv_store *store;
    long long *id; // [n_specs]
    bool *there;   // [n_items][n_specs]
    struct kv_scratch **scratch;
    size_t at_once; // items of a worker
    struct kv_progress *progress;
    pthread_mutex_t lock;
    size_t made;
};

// ---- opening --------------------------------------------------------------------------

static int open_specs(struct job *j, struct kv_error *e) {
    const struct kv_generation_options *o = j->o;
    j->angles = kv_angles_of_model(j->model);
    j->windows = kv_windows_of_model(j->model);
    const struct kv_format_setting setting = {.shape = j->model->shape,
                                              .order = j->model->order,
                                              .rope = j->angles,
                                              .windows = j->windows};
    int rc = 0;
    for (size_t i = 0; i < o->n_specs && rc == 0; i++)
        rc = kv_spec_list_add(&j->specs, o->specs[i], &setting, o->seed, e);
    if (rc == 0 && j->specs.n == 0) rc = kv_fail(e, KV_EUSAGE, "specs", "there is none");
    for (size_t i = 0; i < j->specs.n && rc == 0; i++) {
        rc = kv_held_answers(&j->specs.at[i], o->mode, o->self == KV_SELF_EXACT, e);
        if (rc == 0) rc = kv_held_fit(j->model, &j->specs.at[i], e);
    }
    return rc;
}

// The user's text, or where the harness stops.
static void choose_stops(struct job *j) {
    struct kv_text lines = {0};
    if (j->o->stop && *j->o->stop) {
        j->stops[0] = j->o->stop;
        j->g.stops = j->stops;
    } else if (j->tasks->kind == KV_TASK_GSM8K)
        j->g.stops = kv_gsm8k_stops;
    for (size_t i = 0; j->g.stops && j->g.stops[i]; i++)
        kv_text_addf(&lines, "%s%s", i ? "\n" : "", j->g.stops[i]);
    j->stop_lines = lines.s ? kv_text_take(&lines) : kv_strdup("");
}

static int open_generation(struct job *j, size_t i, struct kv_error *e) {
    const struct kv_generation_options *o = j->o;
    const struct kv_replay_spec *spec = &j->specs.at[i];
    const struct kv_format_setting *setting = &spec->format->setting;
    const char *text = spec->canonical;
    char *label;
    kv_spec_labels(&text, &setting, 1, &label);
    const struct kv_generation_key key = {
        .spec = spec->canonical,
        .policy = spec->policy_name,
        .format = spec->format_text,
        .tag = spec->policy->tag,
        .label = label,
        .model_name = j->model->name,
        .model_digest = j->model->digest,
        .weights_as = j->model->weights_as,
        .task_name = j->tasks->name,
        .task_prompt = j->tasks->prompt,
        .task_digest = j->tasks->digest,
        .window_tokens = j->tasks->kind == KV_TASK_TEXT ? j->tasks->window_tokens : 0,
        .mode = o->mode,
        .self = o->self,
        .tokens = o->tokens,
        .temperature = o->temperature,
        .ends = o->ends,
        .stop = j->stop_lines,
        .floor = j->tasks->kind == KV_TASK_GSM8K ? kv_gsm8k_floor(j->tasks, NULL) : NAN,
        .seed = o->seed,
        .version = KV_VERSION,
        .commit = KV_COMMIT,
        .cpu = kv_cpu_level_name(kv_cpu_level()),
        .compute = kv_compute_name(j->model),
        .blas = kv_compute_blas(j->model)};
    int rc = kv_store_generation(j->store, &key, &j->id[i], e);
    if (rc == 0 && j->specs.name[i])
        rc = kv_store_name(j->store, spec->canonical, j->specs.name[i], e);
    free(label);
    return rc;
}

// A prompt's tokens name it, whatever choices would follow.
static uint64_t key_of(const struct kv_trace_item *it) {
    return kv_hash(it->ids, it->n_context * sizeof *it->ids, 0);
}

static int open_store(struct job *j, struct kv_error *e) {
    size_t n = j->specs.n;
    int rc = kv_store_open(&j->store, j->o->db, KV_STORE_CREATE, e);
    j->id = kv_alloc(n, sizeof *j->id);
    j->there = kv_alloc(n * j->items->n + 1, sizeof *j->there);
    for (size_t i = 0; i < n && rc == 0; i++) rc = open_generation(j, i, e);
    for (size_t k = 0; k < j->items->n * n && rc == 0; k++)
        rc = kv_store_generated_has(j->store, j->id[k % n], key_of(&j->items->items[k / n]),
                                    &j->there[k], e);
    return rc;
}

static int check_prompts(const struct job *j, struct kv_error *e) {
    for (size_t i = 0; i < j->items->n; i++) {
        const struct kv_trace_item *it = &j->items->items[i];
        if (it->n_context < 2)
            return kv_fail(e, KV_EUSAGE, j->tasks->path,
                           "item %s has a prompt of %u tokens; 2 at least are needed", it->id,
                           it->n_context);
        if ((size_t)it->n_context + j->o->tokens > j->model->shape.max_tokens)
            return kv_fail(e, KV_EUSAGE, j->tasks->path,
                           "the prompt of item %s has %u tokens; with %u more it is longer than "
                           "the model's %u",
                           it->id, it->n_context, j->o->tokens, j->model->shape.max_tokens);
    }
    return 0;
}

static int open_all(struct job *j, struct kv_error *e) {
    const struct kv_generation_options *o = j->o;
    const struct kv_record_options draw = {.n = o->n, .seed = o->seed};
    size_t n_ends = 0;
    int rc = kv_tasks_load(&j->tasks, o->tasks, e);
    if (rc == 0) rc = kv_model_open(&j->model, o->model, KV_WEIGHTS_F32, e);
    if (rc == 0 && !j->model->tokenizer)
        rc = kv_fail(e, KV_EFAIL, j->model->name, "has no tokenizer");
    if (rc == 0) rc = kv_tasks_settle(&j->tasks, j->model, e);
    if (rc == 0) rc = open_specs(j, e);
    if (rc == 0) rc = kv_items_new(&j->items, j->model, j->tasks, &draw, e);
    if (rc == 0) rc = check_prompts(j, e);
    if (rc == 0) rc = kv_model_compute(j->model, o->compute, e);
    if (rc == 0 && o->ends) rc = kv_sample_ends(j->model->tokenizer, &j->ends, &n_ends, e);
    if (rc) return rc;
    j->g = (struct kv_generate){.model = j->model,
                                .specs = j->specs.at,
                                .n_specs = j->specs.n,
                                .mode = o->mode,
                                .self_exact = o->self == KV_SELF_EXACT,
                                .tokens = o->tokens,
                                .temperature = o->temperature,
                                .seed = o->seed,
                                .ends = j->ends,
                                .n_ends = n_ends};
    choose_stops(j);
    return open_store(j, e);
}

static void close_all(struct job *j) {
    kv_store_abandon(j->store);
    kv_items_free(j->items);
    kv_spec_list_fini(&j->specs);
    kv_model_close(j->model);
    kv_tasks_free(j->tasks);
    free(j->angles);
    free(j->windows);
    free(j->ends);
    free(j->stop_lines);
    free(j->id);
    free(j->there);
}

// ---- generating -----------------------------------------------------------------------

// Of GSM8K what the harness's filters find in a text is judged; of a needle or a pair the number
// that it begins with, or that stands anywhere.
static struct kv_answered judge(const struct job *j, const struct kv_trace_item *it,
                                const uint32_t *ids, size_t n, bool broken) {
    struct kv_answered a = {0};
    const char *answer = NULL;
    for (size_t i = 0; i < j->tasks->n_items && !answer; i++)
        if (strcmp(j->tasks->items[i].id, it->id) == 0) answer = j->tasks->items[i].answer;
    if (!answer) return a;
    char *text = kv_sample_text(j->model->tokenizer, ids, n, j->g.stops);
    bool right[KV_N_ANSWER_FILTERS];
    if (j->tasks->kind == KV_TASK_GSM8K) {
        char *strict = kv_gsm8k_strict(text), *flexible = kv_gsm8k_flexible(text);
        right[KV_ANSWER_STRICT] = kv_gsm8k_right(strict, answer);
        right[KV_ANSWER_FLEXIBLE] = kv_gsm8k_right(flexible, answer);
        free(strict);
        free(flexible);
    } else {
        const char *begin = text + strspn(text, " ");
        right[KV_ANSWER_STRICT] = strncmp(begin, answer, strlen(answer)) == 0;
        right[KV_ANSWER_FLEXIBLE] = strstr(text, answer) != NULL;
    }
    // A run that met what is not finite ended before it could answer.
    for (int f = 0; f < KV_N_ANSWER_FILTERS; f++)
        a.right[f] = right[f] && !broken ? KV_MATCH_YES : KV_MATCH_NO;
    free(text);
    return a;
}

static int keep(struct job *j, const struct kv_trace_item *it, size_t spec,
                const struct kv_generated *x, struct kv_error *e) {
    const struct kv_generated_row row = {.key = key_of(it),
                                         .id = (char *)it->id,
                                         .n_prompt = it->n_context,
                                         .n_reference = x->n_reference,
                                         .n_own = x->n_own,
                                         .reference = x->reference,
                                         .own = x->own,
                                         .own_kl = x->own_kl,
                                         .forced_kl = x->forced_kl,
                                         .equal = x->equal,
                                         .parted = x->parted,
                                         .broken = x->broken,
                                         .own_answer = judge(j, it, x->own, x->n_own, x->broken),
                                         .reference_answer =
                                             judge(j, it, x->reference, x->n_reference, false)};
    KV_LOCK(&j->lock);
    j->made++;
    return kv_store_put_generated(j->store, j->id[spec], &row, e);
}

static int name_item(const struct kv_trace_item *it, int rc, struct kv_error *e) {
    if (rc == 0 || rc == KV_EINTR || rc == KV_ENOMEM) return rc;
    struct kv_error why = *e;
    return kv_fail(e, rc, why.where, "%s (item %s)", why.msg, it->id);
}

// Of each token behind an item's prompt, where a policy reads it; NULL: none does. Caller frees.
static float *rarity_behind(const struct job *j, size_t i) {
    uint32_t vocab = j->model->shape.vocab, needs = 0;
    for (size_t s = 0; s < j->specs.n; s++) needs |= j->specs.at[s].needs;
    if (!(needs & KV_NEED(KV_RARITY_NATS))) return NULL;
    float *rarity = kv_alloc(vocab, sizeof *rarity);
    kv_items_rarity(j->items, i, vocab, rarity);
    return rarity;
}

// What is still wanted of an item, and what it needs for that.
static struct kv_generate_item wanted(const struct job *j, size_t i) {
    const struct kv_trace_item *it = &j->items->items[i];
    float *rarity = rarity_behind(j, i);
    size_t *which = kv_alloc(j->specs.n, sizeof *which), n = 0;
    for (size_t s = 0; s < j->specs.n; s++)
        if (!j->there[i * j->specs.n + s]) which[n++] = s;
    return (struct kv_generate_item){.key = key_of(it),
                                     .ids = it->ids,
                                     .n = it->n_context,
                                     .rarity = rarity ? j->items->rarity[i] : NULL,
                                     .rarity_of = rarity,
                                     .which = which,
                                     .n_which = n,
                                     .out = kv_alloc(j->specs.n, sizeof(struct kv_generated))};
}

// Specs [from, from + most) of what is wanted of each of n items.
static int generate_some(struct job *j, unsigned worker, size_t first,
                         const struct kv_generate_item *all, size_t n, size_t from, size_t most,
                         struct kv_error *e) {
    struct kv_generate_item *some = kv_alloc(n, sizeof *some);
    size_t *index = kv_alloc(n, sizeof *index), n_some = 0, failed;
    for (size_t i = 0; i < n; i++) {
        if (from >= all[i].n_which) continue;
        size_t left = all[i].n_which - from;
        some[n_some] = all[i];
        some[n_some].which += from;
        some[n_some].n_which = left < most ? left : most;
        index[n_some++] = first + i;
    }
    int rc = kv_generate_items(&j->g, j->scratch[worker], some, n_some, &failed, e);
    if (failed < n_some) rc = name_item(&j->items->items[index[failed]], rc, e);
    for (size_t i = 0; i < n_some; i++)
        for (size_t s = 0; s < some[i].n_which; s++) {
            if (rc == 0)
                rc = keep(j, &j->items->items[index[i]], some[i].which[s], &some[i].out[s], e);
            kv_generated_fini(&some[i].out[s]);
        }
    free(index);
    free(some);
    return rc;
}

static int generate_group(void *self, unsigned worker, size_t index, struct kv_error *e) {
    struct job *j = self;
    size_t first = index * j->at_once, left = j->items->n - first, total = 0,
           n = left < j->at_once ? left : j->at_once;
    struct kv_generate_item *items = kv_alloc(n, sizeof *items);
    uint32_t longest = 0;
    for (size_t i = 0; i < n; i++) {
        items[i] = wanted(j, first + i);
        total += items[i].n_which;
        if (items[i].n > longest) longest = items[i].n;
    }
    size_t most = n > 1 ? j->specs.n : kv_generate_at_once(&j->g, longest);
    int rc = 0;
    for (size_t from = 0; from < j->specs.n && total > 0 && rc == 0; from += most)
        rc = generate_some(j, worker, first, items, n, from, most, e);
    kv_progress_step(j->progress, total);
    for (size_t i = 0; i < n; i++) {
        free((float *)items[i].rarity_of);
        free((size_t *)items[i].which);
        free(items[i].out);
    }
    free(items);
    return rc;
}

// So many that no worker waits, and none has more than fit.
static size_t items_at_once(const struct job *j, unsigned jobs) {
    uint32_t longest = 0;
    for (size_t i = 0; i < j->items->n; i++)
        if (j->items->items[i].n_context > longest) longest = j->items->items[i].n_context;
    size_t fit = kv_generate_items_at_once(&j->g, longest), share = (j->items->n + jobs - 1) / jobs;
    return fit < share ? fit : share;
}

static int run(struct job *j, struct kv_generation_done *done, struct kv_error *e) {
    unsigned jobs = j->o->jobs ? j->o->jobs : 1;
    size_t total = j->items->n * j->specs.n;
    *done = (struct kv_generation_done){.n_prompts = j->items->n, .n_specs = j->specs.n};
    for (size_t k = 0; k < total; k++) done->held += j->there[k];
    j->scratch = kv_scratch_crew_new(jobs, jobs);
    pthread_mutex_init(&j->lock, NULL);
    if (done->held < total)
        j->progress = kv_progress_start("generating", total - done->held, "sequences");
    j->at_once = items_at_once(j, jobs);
    size_t groups = (j->items->n + j->at_once - 1) / j->at_once;
    int rc = done->held < total ? kv_parallel(groups, jobs, generate_group, j, e) : 0;
    kv_progress_end(j->progress);
    done->generated = j->made;
    if (rc == KV_EINTR)
        kv_fail(e, rc, "generate",
                "interrupted; what was finished is in %s, and the same command goes on", j->o->db);
    pthread_mutex_destroy(&j->lock);
    kv_scratch_crew_free(j->scratch, jobs);
    return rc;
}

// Guarded, so that the store is let go of whatever happens in it.
static int open_and_run(struct job *j, struct kv_generation_done *done, struct kv_error *e) {
    KV_GUARD(e);
    int rc = open_all(j, e);
    return rc ? rc : run(j, done, e);
}

int kv_generation_run(const struct kv_generation_options *o, struct kv_generation_done *done,
                      struct kv_error *e) {
    KV_GUARD(e);
    struct job j = {.o = o};
    *done = (struct kv_generation_done){0};
    if (o->tokens == 0) return kv_fail(e, KV_EUSAGE, "tokens", "at least 1 is expected");
    if (!o->model)
        return kv_fail(e, KV_EUSAGE, "model",
                       "a model is needed: a GGUF file or a Hugging Face folder");
    int rc = open_and_run(&j, done, e);
    close_all(&j);
    return rc;
}
