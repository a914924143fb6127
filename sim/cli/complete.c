// SPDX-License-Identifier: Apache-2.0
// Completes a command line from the tables that drive help.
#include "sim/cli/complete.h"

#include <stdlib.h>
#include <unistd.h>

#include "analysis/results/front.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/outcome.h"
#include "sim/base/print.h"
#include "sim/cost/cost.h"
#include "sim/model/compute.h"
#include "sim/replay/spec_next.h"
#include "sim/store/store.h"

// The word that is typed, and where in it what is offered begins.
struct word {
    const char *text;
    size_t kept; // bytes that stand before it
};

static void offer(const struct word *w, const char *name) {
    if (strncmp(name, w->text + w->kept, strlen(w->text + w->kept)) == 0)
        kv_print("%.*s%s\n", (int)w->kept, w->text, name);
}

static void offer_all(const struct word *w, const char *const *names) {
    for (size_t i = 0; names[i]; i++) offer(w, names[i]);
}

static bool named(const char *name, const char *at, size_t n) {
    return strlen(name) == n && memcmp(name, at, n) == 0;
}

// ---- specs ----------------------------------------------------------------------------

static void print_next(void *self, const char *next) {
    (void)self;
    kv_print("%s\n", next);
}

static void offer_spec(const char *text, bool format) {
    kv_spec_next(text, format, print_next, NULL);
}

static int take_label(void *self, size_t n, const char *const *names,
                      const struct kv_sql_value *values, struct kv_error *e) {
    (void)n, (void)names, (void)e;
    offer(self, values[0].text);
    return 0;
}

// What the store calls its specs. One that cannot be read offers none: nobody has asked for it yet.
static void offer_stored(const char *text, const char *db) {
    struct kv_store *s;
    struct kv_error e;
    struct word w = {text, 0};
    if (!db || access(db, R_OK) != 0) return;
    if (kv_tolerate(kv_store_open(&s, db, KV_STORE_READ, &e), &e)) return;
    (void)!kv_tolerate(
        kv_store_query(s,
                       "SELECT DISTINCT CASE s.name WHEN '' THEN r.label ELSE s.name END AS name "
                       "FROM run AS r JOIN policy_spec AS s ON s.id = r.spec ORDER BY name",
                       NULL, 0, take_label, &w, &e),
        &e);
    kv_store_abandon(s);
}

// ---- values of options ----------------------------------------------------------------

static void offer_devices(const struct word *w) {
    const char *name;
    for (size_t i = 0; (name = kv_device_name_at(i)); i++) offer(w, name);
}

static void offer_values(const struct word *w) {
    for (size_t i = 0; kv_front_values[i].name; i++) offer(w, kv_front_values[i].name);
}

static void offer_costs(const struct word *w) {
    for (size_t i = 0; kv_front_costs[i].name; i++) offer(w, kv_front_costs[i].name);
}

static void offer_format(const struct word *w) {
    offer_spec(w->text, true);
}

static const char *const colours[] = {"auto", "always", "never", NULL}, *const orders[] = {
                                                                            "bits", "acc",  "kl",
                                                                            "ms",   "spec", NULL};
static const struct {
    const char *option;
    const char *const *names;
    void (*offer)(const struct word *w);
} values[] = {{"fidelity", kv_fidelity_names, NULL},
              {"mode", kv_mode_names, NULL},
              {"self", kv_self_names, NULL},
              {"feedback", kv_feedback_names, NULL},
              {"compute", kv_compute_names, NULL},
              {"precision", kv_precision_names, NULL},
              {"form", kv_form_names, NULL},
              {"color", colours, NULL},
              {"sort", orders, NULL},
              {"device", NULL, offer_devices},
              {"value", NULL, offer_values},
              {"cost", NULL, offer_costs},
              {"format", NULL, offer_format}};

// Of a list the element behind the last comma is completed, but in formats, whose keys have commas.
static void offer_value(const char *option, const char *text, size_t kept) {
    const char *comma = strcmp(option, "format") == 0 ? NULL : strrchr(text + kept, ',');
    struct word w = {text, comma ? (size_t)(comma + 1 - text) : kept};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        if (strcmp(values[i].option, option) != 0) continue;
        if (values[i].names)
            offer_all(&w, values[i].names);
        else
            values[i].offer(&w);
    }
}

// ---- the command line -----------------------------------------------------------------

static const struct kv_option *option_of(const struct kv_command *c, const char *word) {
    const struct kv_option *tables[] = {c->options, kv_common_options};
    size_t n = strcspn(word, "=");
    for (size_t t = 0; t < 2; t++)
        for (const struct kv_option *o = tables[t]; o && o->name; o++)
            if (strncmp(word, "--", 2) == 0 ? named(o->name, word + 2, n - 2)
                                            : o->letter && word[1] == o->letter && !word[2])
                return o;
    return NULL;
}

static void offer_options(const struct kv_command *c, const char *text) {
    struct word w = {text, 0};
    const struct kv_option *tables[] = {c->options, kv_common_options};
    for (size_t t = 0; t < 2; t++)
        for (const struct kv_option *o = tables[t]; o && o->name; o++) {
            char *name = kv_format_text("--%s", o->name);
            offer(&w, name);
            free(name);
        }
}

static void offer_commands(const char *text, kv_commands_fn *at) {
    struct word w = {text, 0};
    const struct kv_command *c;
    for (size_t i = 0; (c = at(i)); i++) offer(&w, c->name);
}

// What stands at this place of a usage: "SPEC|FILE.sweep" is place 1 of "TRACE SPEC|FILE.sweep...".
static char *place_of(const char *usage, size_t place) {
    char *found = NULL, *copy = kv_strdup(usage), *rest = copy, *token;
    while ((token = strsep(&rest, " "))) {
        free(found);
        found = kv_strdup(token);
        if (place-- == 0) break;
    }
    free(copy);
    return found ? found : kv_strdup("");
}

static void offer_argument(const struct kv_command *c, size_t place, const char *text,
                           const char *db, kv_commands_fn *at) {
    char *usage = place_of(c->usage, place), *rest = usage, *one;
    struct word w = {text, 0};
    while ((one = strsep(&rest, "|"))) {
        one += *one == '[';
        one[strcspn(one, ".]")] = '\0';
        if (strcmp(one, "SPEC") == 0) {
            offer_stored(text, db);
            offer_spec(text, false);
        } else if (strcmp(one, "FORMAT") == 0) {
            offer_spec(text, true);
        } else if (strcmp(one, "COMMAND") == 0) {
            offer_commands(text, at);
        } else if (strcmp(one, "NAME") == 0 && strcmp(c->name, "describe") == 0) {
            offer_spec(text, false);
            offer_spec(text, true);
        } else if (*one >= 'a' && *one <= 'z') {
            offer(&w, one);
        }
    }
    free(usage);
}

void kv_complete(char *const *words, size_t n, kv_commands_fn *at) {
    const struct kv_command *c = NULL;
    const char *last = n ? words[n - 1] : "", *db = NULL;
    const struct kv_option *open = NULL; // whose value the next word is
    size_t place = 0;
    if (n < 2) {
        offer_commands(last, at);
        return;
    }
    for (size_t i = 0; (c = at(i)) && strcmp(c->name, words[0]) != 0;) i++;
    if (!c) return;
    for (const struct kv_option *o = c->options; o && o->name; o++)
        if (strcmp(o->name, "db") == 0) db = o->fallback;
    for (size_t i = 1; i + 1 < n; i++) {
        const struct kv_option *o = !open && words[i][0] == '-' ? option_of(c, words[i]) : NULL;
        const char *sign = strchr(words[i], '=');
        if (open && strcmp(open->name, "db") == 0) db = words[i];
        if (o && sign && strcmp(o->name, "db") == 0) db = sign + 1;
        place += !open && words[i][0] != '-';
        open = o && o->arg && !sign ? o : NULL;
    }
    const char *equal = strchr(last, '=');
    const struct kv_option *o = last[0] == '-' ? option_of(c, last) : NULL;
    if (open)
        offer_value(open->name, last, 0);
    else if (o && equal)
        offer_value(o->name, last, (size_t)(equal + 1 - last));
    else if (last[0] == '-')
        offer_options(c, last);
    else
        offer_argument(c, place, last, db, at);
}

// Bash cuts words at ':', '=', '@' and '(', and takes completions of the last piece alone.
void kv_complete_bash(void) {
    puts("# bash completion for kvsim: what may come next is asked of the program itself.\n"
         "_kvsim() {\n"
         "    local line=${COMP_LINE:0:COMP_POINT} raw strip='' c\n"
         "    local -a words\n"
         "    read -r -a words <<<\"$line\"\n"
         "    [[ $line == *[[:space:]] ]] && words+=('')\n"
         "    raw=${words[${#words[@]}-1]}\n"
         "    words=(\"${words[@]//[\\'\\\"\\\\]/}\")\n"
         "    [[ $raw == [\\'\\\"]* ]] || strip=${raw%\"${raw##*[@:=(]}\"}\n"
         "    strip=${strip//\\\\/}\n"
         "    COMPREPLY=()\n"
         "    while IFS= read -r c; do\n"
         "        c=${c#\"$strip\"}\n"
         "        [[ $raw == [\\'\\\"]* ]] || printf -v c %q \"$c\"\n"
         "        case $c in *[:=@\\(]) compopt -o nospace 2>/dev/null ;; esac\n"
         "        COMPREPLY+=(\"$c\")\n"
         "    done < <(\"${words[0]/#\\~/$HOME}\" help --complete -- \"${words[@]:1}\" "
         "2>/dev/null)\n"
         "}\n"
         "complete -o default -F _kvsim kvsim");
}
