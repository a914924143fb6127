// SPDX-License-Identifier: Apache-2.0
// Snapping: from a plan to what a runtime can be told, and to the spec that replays it.
#include "sim/runtimes/runtimes.h"
#include "sim/base/guard.h"
#include "sim/base/spec.h"
#include "sim/replay/spec.h"
#include "sim/runtimes/layer_runs.h"

#include <stdlib.h>

// ---- formats by the names that offers use ---------------------------------------------

// llama.cpp's types are widths of `ggml` too: one spelling of each.
static const char *ggml_set(const char *name) {
    static const struct {
        const char *type, *set;
    } sets[] = {{"q8_0", "ggml"},         {"q5_0", "ggml"},         {"q4_0", "ggml"},
                {"q5_1", "ggml:types=1"}, {"q4_1", "ggml:types=1"}, {"iq4_nl", "ggml:types=nl"}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (strcmp(name, sets[i].type) == 0) return sets[i].set;
    return NULL;
}

// What a format shares a scale by and keeps exact: 0 = the head, or nothing.
struct choice {
    char name[32]; // of the format, or of the one inside a rotation
    bool rotated;
    uint32_t group, window;
};

static void read_choice(struct choice *x, const char *format, uint32_t head_dim) {
    struct kv_spec s;
    struct kv_error ignored;
    *x = (struct choice){0};
    if (!*format || kv_tolerate(kv_spec_parse(&s, format, &ignored), &ignored)) return;
    const char *group = kv_spec_value(&s, "group"), *window = kv_spec_value(&s, "window"),
               *residual = kv_spec_value(&s, "residual");
    if (s.inner) {
        read_choice(x, s.inner, head_dim);
        x->rotated = strcmp(s.name, "hadamard") == 0;
    } else {
        snprintf(x->name, sizeof x->name, "%s", s.name);
        x->group = group ? (uint32_t)strtoul(group, NULL, 10) : 0; // "head" and "layer" are 0
    }
    if (x->group == head_dim) x->group = 0;
    for (int i = 0; i < 2; i++) {
        const char *text = i ? residual : window;
        uint32_t n = text ? (uint32_t)strtoul(text, NULL, 10) : 0;
        if (n > x->window) x->window = n;
    }
    kv_spec_fini(&s);
}

// An offer's format with what is chosen written in. Caller frees.
static char *format_text(const struct kv_offer *offer, uint32_t group, uint32_t window) {
    struct kv_text t = {0};
    for (const char *p = offer->format; *p;) {
        if (strncmp(p, "{group}", 7) == 0) {
            if (group)
                kv_text_addf(&t, "%u", group);
            else
                kv_text_addf(&t, "head");
            p += 7;
        } else if (strncmp(p, "{window}", 8) == 0) {
            kv_text_addf(&t, "%u", window);
            p += 8;
        } else {
            kv_text_add(&t, p++, 1);
        }
    }
    return kv_text_take(&t);
}

// Canonical text of a format in its one spelling; NULL = it cannot be opened. Caller frees.
static char *spelled(const char *format, const struct kv_format_setting *s) {
    struct choice x;
    struct kv_format *f;
    struct kv_error ignored;
    read_choice(&x, format, s->shape.head_dim);
    const char *set = ggml_set(x.name), *at = strstr(format, x.name);
    char *text =
        set && *x.name && at
            ? kv_format_text("%.*s%s%s%s", (int)(at - format), format, set,
                             at[strlen(x.name)] == ':' && strchr(set, ':') ? "," : "",
                             at + strlen(x.name) + (at[strlen(x.name)] == ':' && strchr(set, ':')))
            : kv_strdup(format);
    char whole[24], *canonical = NULL;
    snprintf(whole, sizeof whole, "group=%u", s->shape.head_dim);
    if (!kv_tolerate(kv_format_open(&f, text, s, &ignored), &ignored)) {
        char *head = strstr(f->canonical, whole);
        bool same = head && (head[strlen(whole)] == ',' || head[strlen(whole)] == 0);
        canonical = same ? kv_format_text("%.*sgroup=head%s", (int)(head - f->canonical),
                                          f->canonical, head + strlen(whole))
                         : kv_strdup(f->canonical);
        kv_format_close(f);
    }
    free(text);
    return canonical;
}

// ---- widths ---------------------------------------------------------------------------

static bool offered(const struct kv_offer *o, unsigned bits) {
    return bits <= 16 && o->widths >> bits & 1;
}

// The narrowest width of at least x bits, else the widest.
static unsigned at_least(const struct kv_offer *o, double x) {
    unsigned widest = 0;
    for (unsigned b = 1; b <= 16; b++) {
        if (!offered(o, b)) continue;
        if (b >= x - 1e-9) return b;
        widest = b;
    }
    return widest;
}

// Mean bits of layers [first, end), of one side or (side < 0) of both.
static double mean_of(const struct kv_cache_plan *p, size_t first, size_t end, int side) {
    size_t heads = p->setting.shape.n_kv_heads, n = 0;
    double sum = 0;
    for (size_t c = first * heads * 2; c < end * heads * 2; c++)
        if (side < 0 || (int)(c & 1) == side) sum += p->bits[c], n++;
    return sum / (double)n;
}

static void set_layer(struct kv_served *s, size_t layer, int side, unsigned bits) {
    for (size_t h = 0; h < s->n_heads; h++)
        s->bits[(layer * s->n_heads + h) * 2 + (size_t)side] = (uint8_t)bits;
}

// Runs within the bits of the plan, or of the narrowest width where it has fewer.
static void snap_runs(struct kv_served *s, const struct kv_cache_plan *p, const double most[2]) {
    size_t n = p->setting.shape.n_layers;
    double *own = kv_alloc(n, sizeof *own);
    for (int side = 0; side < 2; side++) {
        for (size_t l = 0; l < n; l++) own[l] = mean_of(p, l, l + 1, side);
        const struct kv_runs_of_layers best =
            kv_runs_best(own, n, s->offer->widths, fmax(most[side], at_least(s->offer, 1)));
        for (size_t l = 0; l < n; l++) set_layer(s, l, side, kv_runs_at(&best, l, n));
    }
    free(own);
}

static unsigned widest(const struct kv_offer *o) {
    unsigned b = 16;
    while (b > 1 && !offered(o, b)) b--;
    return b;
}

// Layers as they are told: all alike, or each by its mean.
static void snap_layers(struct kv_served *s, const struct kv_cache_plan *p, const double mean[2]) {
    const struct kv_offer *o = s->offer;
    size_t n = p->setting.shape.n_layers;
    for (size_t l = 0; l < n; l++)
        for (int side = 0; side < 2; side++) {
            bool edge = l < o->edge || l + o->edge >= n;
            double own = o->grain == KV_GRAIN_MODEL ? mean[side]
                                                    : mean_of(p, l, l + 1, o->apart ? side : -1);
            set_layer(s, l, side, edge ? 16 : at_least(o, own));
        }
}

// The widths that an offer gives to a plan's cells. Says whether it lacks one as wide as a mean.
static bool fill(struct kv_served *s, const struct kv_cache_plan *p) {
    const struct kv_offer *o = s->offer;
    size_t n = p->setting.shape.n_layers, n_cells = kv_cells(&p->setting.shape);
    double mean[2], most = 0;
    for (int side = 0; side < 2; side++)
        most = fmax(most, mean[side] = mean_of(p, 0, n, o->apart ? side : -1));
    if (o->grain == KV_GRAIN_RUNS) {
        snap_runs(s, p, mean);
    } else if (o->grain == KV_GRAIN_HEAD) {
        for (size_t c = 0; c < n_cells; c++) s->bits[c] = (uint8_t)at_least(o, p->bits[c]);
    } else {
        snap_layers(s, p, mean);
    }
    for (size_t c = 0; o->grain != KV_GRAIN_MODEL && c < n_cells; c++)
        most = fmax(most, p->bits[c]);
    return most > widest(o);
}

// ---- offers ---------------------------------------------------------------------------

struct fit {
    bool lacks;          // a width as wide as asked
    int unlike;          // 0 = the same format, 1 = one that it stands in for, 2 = another
    double bits, damage; // sums over cells
};

static uint32_t group_for(const struct kv_offer *o, uint32_t asked, uint32_t head_dim) {
    uint32_t want = asked ? asked : head_dim, best = 0;
    for (size_t i = 0; o->group && o->group[i]; i++) {
        if (head_dim % o->group[i]) continue;
        if (!best || o->group[i] <= want) best = o->group[i]; // the largest that is no coarser
    }
    return best;
}

// False: the offer does not exist for this model.
static bool try_offer(struct kv_served *s, const struct kv_cache_plan *p, const char *format,
                      struct fit *fit) {
    const struct kv_offer *o = s->offer;
    const struct kv_shape *shape = &p->setting.shape;
    struct choice own;
    read_choice(&own, p->format, shape->head_dim);
    if (o->rotates && shape->head_dim % o->rotates) return false;
    uint32_t group = group_for(o, own.group, shape->head_dim);
    if (o->group && !group) return false;
    s->group = group == shape->head_dim ? 0 : group;
    s->window = strstr(o->format, "{window}") ? own.window : 0;
    char *text = format_text(o, s->group, s->window), *canonical = spelled(text, &p->setting),
         *like = kv_format_text(" %s ", own.name);
    free(text);
    *fit = (struct fit){.unlike = 2, .lacks = canonical && fill(s, p)};
    if (canonical && format && strcmp(canonical, format) == 0)
        fit->unlike = 0;
    else if (strstr(o->like, like))
        fit->unlike = 1;
    for (size_t c = 0; canonical && c < kv_cells(shape); c++) {
        fit->bits += s->bits[c];
        fit->damage += fmax(0, pow(4, -(double)s->bits[c]) - pow(4, -fmin(16, p->bits[c])));
    }
    bool exists = canonical != NULL;
    free(canonical);
    free(like);
    return exists;
}

static bool better(const struct fit *a, const struct fit *b) {
    if (a->lacks != b->lacks) return b->lacks;
    if (a->unlike != b->unlike) return a->unlike < b->unlike;
    return a->bits != b->bits ? a->bits < b->bits : a->damage < b->damage;
}

static void count_changes(struct kv_served *s, const struct kv_cache_plan *p) {
    size_t per_layer = kv_cells(&p->setting.shape) / p->setting.shape.n_layers;
    for (size_t l = 0; l < p->setting.shape.n_layers; l++) {
        bool changed = false;
        for (size_t c = l * per_layer; c < (l + 1) * per_layer; c++) {
            changed = changed || fabs(s->bits[c] - p->bits[c]) > 1e-9;
            s->narrowed = s->narrowed || s->bits[c] < fmin(16, p->bits[c]) - 1e-9;
        }
        s->n_changed += changed;
    }
}

// A plan that codes nothing is the 16-bit cache, which every runtime has.
static bool asks_nothing(const struct kv_cache_plan *p) {
    for (size_t c = 0; c < kv_cells(&p->setting.shape); c++)
        if (p->bits[c] < 16) return false;
    return true;
}

static bool codes_nothing(const uint8_t *bits, size_t n) {
    for (size_t c = 0; c < n; c++)
        if (bits[c] < 16) return false;
    return true;
}

int kv_snap(struct kv_served *s, const struct kv_runtime *r, const struct kv_cache_plan *p,
            struct kv_error *e) {
    *s = (struct kv_served){0};
    KV_GUARD(e);
    const struct kv_shape *shape = &p->setting.shape;
    size_t n = kv_cells(shape);
    struct kv_served best = {.runtime = r,
                             .n_layers = shape->n_layers,
                             .n_heads = shape->n_kv_heads,
                             .head_dim = shape->head_dim,
                             .model_layers = shape->n_layers,
                             .bits = kv_alloc(n, 1)};
    struct kv_served one = best;
    struct fit fit, least = {.lacks = true, .unlike = 3};
    char *format = *p->format ? spelled(p->format, &p->setting) : NULL;
    one.bits = kv_alloc(n, 1);
    memset(best.bits, 16, n);
    for (size_t i = 0; i < r->n_offers && !asks_nothing(p); i++) {
        one.offer = &r->offers[i];
        if (!try_offer(&one, p, format, &fit) || !better(&fit, &least)) continue;
        least = fit;
        memcpy(best.bits, one.bits, n);
        best.offer = one.offer, best.group = one.group, best.window = one.window;
    }
    free(one.bits);
    *s = best;
    count_changes(s, p);
    bool nothing = (s->offer || asks_nothing(p)) && codes_nothing(s->bits, n);
    if (s->offer && r->plain) s->offer = r->plain(s);
    if (nothing) s->offer = NULL, s->group = s->window = 0;
    s->changed =
        s->n_changed || (nothing ? !format || strncmp(format, "fp16:", 5) != 0 : least.unlike > 0);
    free(format);
    if (s->offer || nothing) return 0;
    kv_served_fini(s);
    return kv_fail(e, KV_EFAIL, r->name, "codes no heads of %u values", shape->head_dim);
}

void kv_served_fini(struct kv_served *s) {
    free(s->bits);
    *s = (struct kv_served){0};
}

// ---- the spec that replays it ---------------------------------------------------------

static void add_list(struct kv_text *t, const struct kv_served *s, int side, bool by_head) {
    size_t step = by_head ? 1 : s->n_heads, n = (size_t)s->n_layers * s->n_heads;
    for (size_t i = 0; i < n; i += step)
        kv_text_addf(t, "%s%u", i ? "/" : "", s->bits[2 * i + (size_t)side]);
}

static bool heads_differ(const struct kv_served *s) {
    for (size_t i = 0; i < (size_t)s->n_layers * s->n_heads * 2; i++)
        if (s->bits[i] != s->bits[i / (2 * s->n_heads) * 2 * s->n_heads + (i & 1)]) return true;
    return false;
}

int kv_served_spec(const struct kv_served *s, const struct kv_format_setting *setting, char **spec,
                   struct kv_error *e) {
    *spec = NULL;
    KV_GUARD(e);
    struct kv_text t = {0};
    bool by_head = heads_differ(s), uniform = true;
    for (size_t c = 0; c < (size_t)s->n_layers * s->n_heads * 2; c++)
        uniform = uniform && s->bits[c] == s->bits[c & 1];
    if (uniform) {
        kv_text_addf(&t, "static:k=%u,v=%u", s->bits[0], s->bits[1]);
    } else {
        kv_text_addf(&t, "layerwise:%sk=", by_head ? "by=head," : "");
        add_list(&t, s, KV_KEY, by_head);
        kv_text_addf(&t, ",v=");
        add_list(&t, s, KV_VALUE, by_head);
    }
    char *format = s->offer ? format_text(s->offer, s->group, s->window) : kv_strdup("fp16");
    kv_text_addf(&t, "@%s", format);
    free(format);
    *spec = kv_text_take(&t);
    if (!setting) return 0;
    char *plain = *spec;
    int rc = kv_spec_canonical(plain, setting, spec, e);
    free(plain);
    return rc;
}

bool kv_runtime_serves(const struct kv_runtime *r, const char *spec,
                       const struct kv_format_setting *setting) {
    struct kv_cache_plan p;
    struct kv_served s;
    struct kv_error ignored;
    if (kv_tolerate(kv_cache_plan_of_spec(&p, spec, setting, &ignored), &ignored)) return false;
    bool served = !kv_tolerate(kv_snap(&s, r, &p, &ignored), &ignored) && !s.changed;
    kv_served_fini(&s);
    kv_cache_plan_fini(&p);
    return served;
}
