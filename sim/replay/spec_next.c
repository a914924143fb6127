// SPDX-License-Identifier: Apache-2.0
// What a spec that is being typed may become: names, then keys, from the tables of policies and
// formats.
#include "sim/replay/spec_next.h"

#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/replay/spec.h"

// What is typed, the bytes before what is offered, and who takes it.
struct typed {
    const char *text;
    size_t kept;
    void (*take)(void *self, const char *next);
    void *self;
};

static void offer(const struct typed *w, const char *name, const char *behind) {
    if (strncmp(name, w->text + w->kept, strlen(w->text + w->kept)) != 0) return;
    char *next = kv_format_text("%.*s%s%s", (int)w->kept, w->text, name, behind);
    w->take(w->self, next);
    free(next);
}

static void offer_keys(const struct typed *w, const struct kv_param *p) {
    for (; p && p->name; p++) offer(w, p->name, "=");
}

static void offer_formats(const struct typed *w) {
    const struct kv_format_type *f;
    for (size_t i = 0; (f = kv_format_type_at(i)); i++) offer(w, f->name, f->wraps ? "(" : "");
}

static void offer_policies(const struct typed *w) {
    const struct kv_policy *p;
    for (size_t i = 0; (p = kv_policy_at(i)); i++)
        offer(w, p->name, strcmp(p->name, "shuffle") == 0 ? "(" : p->params ? ":" : "@");
}

static bool named(const char *name, const char *at, size_t n) {
    return strlen(name) == n && memcmp(name, at, n) == 0;
}

// The keys of the policy or format of n letters that the word's last part names.
static void offer_keys_of(const struct typed *w, const char *at, size_t n, bool format) {
    const struct kv_format_type *f;
    const struct kv_policy *p;
    for (size_t i = 0; !format && (p = kv_policy_at(i)); i++)
        if (named(p->name, at, n)) offer_keys(w, p->params);
    for (size_t i = 0; format && (f = kv_format_type_at(i)); i++) {
        if (!named(f->name, at, n)) continue;
        offer_keys(w, f->params);
        offer_keys(w, kv_format_common_params);
    }
}

void kv_spec_next(const char *text, bool format, void (*take)(void *self, const char *next),
                  void *self) {
    size_t begin = 0;
    for (size_t i = 0; text[i]; i++)
        if (strchr("@(", text[i])) {
            format = format || text[i] == '@';
            begin = i + 1;
        }
    const char *part = text + begin, *colon = strchr(part, ':'), *comma = strrchr(part, ',');
    struct typed w = {text, begin, take, self};
    if (!colon) {
        if (format)
            offer_formats(&w);
        else
            offer_policies(&w);
        return;
    }
    w.kept = (size_t)((comma && comma > colon ? comma : colon) + 1 - text);
    if (!strchr(text + w.kept, '=')) offer_keys_of(&w, part, (size_t)(colon - part), format);
}
