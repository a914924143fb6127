// SPDX-License-Identifier: Apache-2.0
// Generated sequences: kept and read. Lists are JSON, so that SQL's own functions can read them.
#include "sim/store/generated.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "sim/base/guard.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static int take_number(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                       struct kv_error *e) {
    (void)n, (void)names, (void)e;
    *(long long *)self = v[0].n;
    return 0;
}

const char *const kv_answer_filter_names[] = {"strict", "flexible", NULL};

// ---- writing --------------------------------------------------------------------------

int kv_store_generation(struct kv_store *s, const struct kv_generation_key *k, long long *id,
                        struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_sql_value spec[] = {kv_sql_text(k->spec), kv_sql_text(k->policy),
                                        kv_sql_text(k->format), kv_sql_text(k->tag)};
    const struct kv_sql_value row[] = {kv_sql_text(k->spec),
                                       kv_sql_text(k->label),
                                       kv_sql_text(k->model_name),
                                       kv_sql_text(k->model_digest),
                                       kv_sql_text(k->weights_as),
                                       kv_sql_text(k->task_name),
                                       kv_sql_text(k->task_prompt),
                                       kv_sql_text(k->task_digest),
                                       kv_sql_int(k->window_tokens),
                                       kv_sql_text(kv_mode_names[k->mode]),
                                       kv_sql_text(kv_self_names[k->self]),
                                       kv_sql_int(k->tokens),
                                       kv_sql_real(k->temperature),
                                       kv_sql_int(k->ends),
                                       kv_sql_text(k->stop),
                                       kv_sql_real(k->floor),
                                       kv_sql_int((long long)k->seed),
                                       kv_sql_text(k->version),
                                       kv_sql_text(k->commit),
                                       kv_sql_text(k->cpu),
                                       kv_sql_text(k->compute),
                                       kv_sql_text(k->blas)};
    int rc = kv_store_query(s,
                            "INSERT OR IGNORE INTO policy_spec (spec, policy, format, tag, oracle) "
                            "VALUES (?, ?, ?, ?, 0)",
                            spec, COUNT(spec), NULL, NULL, e);
    if (rc == 0)
        rc = kv_store_query(
            s,
            "INSERT OR IGNORE INTO generation (spec, label, model_name, model_digest, weights_as, "
            "task_name, task_prompt, task_digest, window_tokens, mode, self, tokens, temperature, "
            "ends, stop, floor, seed, version, git_commit, cpu, compute, blas) VALUES ((SELECT id "
            "FROM policy_spec WHERE spec = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
            "?, "
            "?, ?, ?)",
            row, COUNT(row), NULL, NULL, e);
    *id = 0;
    if (rc == 0)
        rc = kv_store_query(
            s,
            "SELECT g.id FROM generation AS g JOIN policy_spec AS p ON p.id = g.spec WHERE p.spec "
            "= ?1 AND model_digest = ?4 AND weights_as = ?5 AND task_prompt = ?7 AND task_digest = "
            "?8 AND window_tokens = ?9 AND mode = ?10 AND self = ?11 AND tokens = ?12 AND "
            "temperature = ?13 AND ends = ?14 AND stop = ?15 AND seed = ?17 AND version = ?18 AND "
            "git_commit = ?19 AND cpu = ?20 AND compute = ?21",
            row, COUNT(row), take_number, id, e);
    return rc;
}

int kv_store_generated_has(struct kv_store *s, long long generation, uint64_t key, bool *there,
                           struct kv_error *e) {
    KV_GUARD(e);
    char hex[17];
    long long n = 0;
    kv_hex64(key, hex);
    const struct kv_sql_value at[] = {kv_sql_int(generation), kv_sql_text(hex)};
    int rc =
        kv_store_query(s, "SELECT COUNT(*) FROM generated_item WHERE generation = ? AND key = ?",
                       at, COUNT(at), take_number, &n, e);
    *there = n > 0;
    return rc;
}

int kv_store_generated_count(struct kv_store *s, size_t *n, struct kv_error *e) {
    KV_GUARD(e);
    long long all = 0;
    int rc =
        kv_store_query(s, "SELECT COUNT(*) FROM generated_item", NULL, 0, take_number, &all, e);
    *n = (size_t)all;
    return rc;
}

static char *tokens_json(const uint32_t *x, uint32_t n) {
    struct kv_text t = {0};
    for (uint32_t i = 0; i < n; i++) kv_text_addf(&t, "%s%u", i ? "," : "[", x[i]);
    kv_text_addf(&t, n ? "]" : "[]");
    return kv_text_take(&t);
}

static char *numbers_json(const double *x, uint32_t n) {
    struct kv_text t = {0};
    for (uint32_t i = 0; i < n; i++) {
        kv_text_addf(&t, "%s", i ? "," : "[");
        if (isfinite(x[i]))
            kv_text_addf(&t, "%.9g", x[i]);
        else
            kv_text_addf(&t, "null");
    }
    kv_text_addf(&t, n ? "]" : "[]");
    return kv_text_take(&t);
}

static struct kv_sql_value answer(const struct kv_answered *a, int filter) {
    return a->right[filter] == KV_MATCH_UNKNOWN ? (struct kv_sql_value){.kind = KV_SQL_NULL}
                                                : kv_sql_int(a->right[filter] == KV_MATCH_YES);
}

int kv_store_put_generated(struct kv_store *s, long long generation,
                           const struct kv_generated_row *r, struct kv_error *e) {
    KV_GUARD(e);
    char hex[17], *reference = tokens_json(r->reference, r->n_reference),
                  *own = tokens_json(r->own, r->n_own), *own_kl = numbers_json(r->own_kl, r->n_own),
                  *forced = numbers_json(r->forced_kl, r->n_reference);
    kv_hex64(r->key, hex);
    const struct kv_sql_value row[] = {kv_sql_int(generation),
                                       kv_sql_text(hex),
                                       kv_sql_text(r->id),
                                       kv_sql_int(r->n_prompt),
                                       kv_sql_text(reference),
                                       kv_sql_text(own),
                                       kv_sql_int(r->equal),
                                       kv_sql_int(r->parted),
                                       kv_sql_int(r->broken),
                                       kv_sql_text(own_kl),
                                       kv_sql_text(forced),
                                       answer(&r->own_answer, KV_ANSWER_STRICT),
                                       answer(&r->own_answer, KV_ANSWER_FLEXIBLE),
                                       answer(&r->reference_answer, KV_ANSWER_STRICT),
                                       answer(&r->reference_answer, KV_ANSWER_FLEXIBLE)};
    int rc = kv_store_query(s,
                            "INSERT OR REPLACE INTO generated_item VALUES (?, ?, ?, ?, ?, ?, ?, ?, "
                            "?, ?, ?, ?, ?, ?, ?)",
                            row, COUNT(row), NULL, NULL, e);
    free(reference);
    free(own);
    free(own_kl);
    free(forced);
    return rc;
}

// ---- reading --------------------------------------------------------------------------

struct reading {
    struct kv_generation *list;
    size_t n;
    const char *path;
};

static char *text_of(const struct kv_sql_value *v) {
    return kv_strdup(v->text ? v->text : "");
}

static double number_of(const struct kv_sql_value *v) {
    return v->kind == KV_SQL_INT ? (double)v->n : v->kind == KV_SQL_REAL ? v->x : NAN;
}

static int take_generation(void *self, size_t n, const char *const *names,
                           const struct kv_sql_value *v, struct kv_error *e) {
    struct reading *r = self;
    (void)n, (void)names, (void)e;
    r->list = kv_grow(r->list, r->n + 1, sizeof *r->list);
    struct kv_generation *g = &r->list[r->n++];
    *g = (struct kv_generation){.id = v[0].n,
                                .spec = text_of(&v[1]),
                                .label = text_of(&v[2]),
                                .model = text_of(&v[3]),
                                .model_digest = text_of(&v[4]),
                                .task = text_of(&v[5]),
                                .task_prompt = text_of(&v[6]),
                                .task_digest = text_of(&v[7]),
                                .window_tokens = (uint32_t)v[8].n,
                                .mode = text_of(&v[9]),
                                .self = text_of(&v[10]),
                                .tokens = (uint32_t)v[11].n,
                                .temperature = number_of(&v[12]),
                                .stop = text_of(&v[13]),
                                .seed = (uint64_t)v[14].n,
                                .version = text_of(&v[15]),
                                .commit = text_of(&v[16]),
                                .floor = number_of(&v[17]),
                                .compute = text_of(&v[18]),
                                .ends = v[19].n != 0};
    return 0;
}

static bool read_tokens(const char *text, uint32_t **x, uint32_t *n) {
    json_t *list = json_loads(text ? text : "", 0, NULL), *item;
    bool sound = json_is_array(list);
    size_t i;
    *n = (uint32_t)json_array_size(list);
    *x = kv_alloc(*n + 1, sizeof **x);
    json_array_foreach(list, i, item) {
        sound = sound && json_is_integer(item) && json_integer_value(item) >= 0;
        (*x)[i] = (uint32_t)json_integer_value(item);
    }
    json_decref(list);
    return sound;
}

static bool read_numbers(const char *text, double **x, uint32_t n) {
    json_t *list = json_loads(text ? text : "", 0, NULL), *item;
    bool sound = json_is_array(list) && json_array_size(list) == n;
    size_t i;
    *x = kv_alloc(n + 1, sizeof **x);
    json_array_foreach(list, i, item) {
        if (i >= n) break;
        (*x)[i] = json_is_null(item) ? NAN : json_number_value(item);
        sound = sound && (json_is_null(item) || (json_is_number(item) && (*x)[i] >= 0));
    }
    json_decref(list);
    return sound;
}

static struct kv_answered answered(const struct kv_sql_value *v) {
    struct kv_answered a;
    for (int f = 0; f < KV_N_ANSWER_FILTERS; f++)
        a.right[f] = v[f].kind != KV_SQL_INT ? KV_MATCH_UNKNOWN
                     : v[f].n                ? KV_MATCH_YES
                                             : KV_MATCH_NO;
    return a;
}

static int take_item(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                     struct kv_error *e) {
    struct reading *r = self;
    struct kv_generation *g = &r->list[r->n - 1];
    (void)n, (void)names;
    g->item = kv_grow(g->item, g->n + 1, sizeof *g->item);
    struct kv_generated_row *x = &g->item[g->n++];
    *x = (struct kv_generated_row){.key = strtoull(v[0].text ? v[0].text : "", NULL, 16),
                                   .id = text_of(&v[1]),
                                   .n_prompt = (uint32_t)v[2].n,
                                   .equal = (uint32_t)v[5].n,
                                   .parted = v[6].n != 0,
                                   .broken = v[7].n != 0,
                                   .own_answer = answered(&v[10]),
                                   .reference_answer = answered(&v[12])};
    bool sound = read_tokens(v[3].text, &x->reference, &x->n_reference);
    sound = read_tokens(v[4].text, &x->own, &x->n_own) && sound;
    sound = read_numbers(v[8].text, &x->own_kl, x->n_own) && sound;
    sound = read_numbers(v[9].text, &x->forced_kl, x->n_reference) && sound;
    uint32_t shorter = x->n_own < x->n_reference ? x->n_own : x->n_reference;
    if (sound && v[5].n >= 0 && x->equal <= shorter) return 0;
    return kv_fail(e, KV_EFAIL, r->path, "what %s generated from prompt %s is damaged", g->label,
                   x->id);
}

// The newest of those that differ in the build alone: it holds the last row that was added.
static const char newest[] =
    "SELECT g.id, p.spec, CASE WHEN p.name <> '' THEN p.name ELSE g.label END, g.model_name, "
    "g.model_digest, g.task_name, "
    "g.task_prompt, g.task_digest, g.window_tokens, g.mode, g.self, g.tokens, g.temperature, "
    "g.stop, g.seed, g.version, g.git_commit, g.floor, g.compute, g.ends FROM generation AS g JOIN "
    "policy_spec AS p ON p.id = g.spec WHERE EXISTS (SELECT 1 FROM generated_item AS i WHERE "
    "i.generation = g.id) AND NOT "
    "EXISTS (SELECT 1 FROM generation AS o WHERE o.id > g.id AND o.spec = g.spec AND "
    "o.model_digest = g.model_digest AND o.weights_as = g.weights_as AND o.task_prompt = "
    "g.task_prompt AND o.task_digest = g.task_digest AND o.window_tokens = g.window_tokens AND "
    "o.mode = g.mode AND o.self = g.self AND o.tokens = g.tokens AND o.temperature = "
    "g.temperature AND o.ends = g.ends AND o.stop = g.stop AND o.seed = g.seed AND o.compute = "
    "g.compute AND EXISTS (SELECT 1 FROM generated_item AS i WHERE i.generation = o.id)) ORDER BY "
    "g.model_name, g.task_name, "
    "g.task_digest, g.window_tokens, g.mode, g.self, g.tokens, g.temperature, g.seed, g.stop, "
    "g.compute, p.spec";

int kv_store_generations(struct kv_store *s, struct kv_generation **list, size_t *n,
                         struct kv_error *e) {
    struct reading all = {.path = kv_store_path(s)};
    *list = NULL;
    *n = 0;
    KV_GUARD(e);
    int rc = kv_store_query(s, newest, NULL, 0, take_generation, &all, e);
    for (size_t i = 0; i < all.n && rc == 0; i++) {
        struct reading one = {all.list, i + 1, all.path};
        const struct kv_sql_value id = kv_sql_int(all.list[i].id);
        rc = kv_store_query(s,
                            "SELECT key, id, n_prompt, reference, own, equal, parted, broken, "
                            "own_kl, forced_kl, own_strict, own_flexible, reference_strict, "
                            "reference_flexible FROM generated_item WHERE generation = ? ORDER BY "
                            "key",
                            &id, 1, take_item, &one, e);
    }
    if (rc) {
        kv_generations_free(all.list, all.n);
        return rc;
    }
    *list = all.list;
    *n = all.n;
    return 0;
}

static void row_fini(struct kv_generated_row *r) {
    void *owned[] = {r->id, r->reference, r->own, r->own_kl, r->forced_kl};
    for (size_t i = 0; i < COUNT(owned); i++) free(owned[i]);
}

void kv_generations_free(struct kv_generation *list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct kv_generation *g = &list[i];
        void *owned[] = {g->spec,        g->label,       g->model,       g->task,    g->mode,
                         g->self,        g->compute,     g->stop,        g->version, g->commit,
                         g->task_prompt, g->task_digest, g->model_digest};
        for (size_t k = 0; k < g->n; k++) row_fini(&g->item[k]);
        for (size_t k = 0; k < COUNT(owned); k++) free(owned[k]);
        free(g->item);
    }
    free(list);
}
