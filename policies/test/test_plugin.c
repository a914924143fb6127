// SPDX-License-Identifier: Apache-2.0
// Policies from shared objects: the template as its own comment says, and plug-ins that misbehave.
#include "policies/test/fake_item.h"
#include "sim/base/files.h"
#include "sim/replay/ask.h"
#include "sim/replay/plugin.h"

#include <sys/stat.h>
#include <unistd.h>

struct folder {
    char path[64];
};

static int set_up(void **state) {
    struct folder *f = kv_alloc(1, sizeof *f);
    snprintf(f->path, sizeof f->path, "/tmp/kvsim-plugin-XXXXXX");
    *state = f;
    return mkdtemp(f->path) ? 0 : -1;
}

static int tear_down(void **state) {
    struct folder *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", f->path);
    int rc = system(command);
    free(f);
    return rc;
}

// Compiles a source by the line that template.c documents. so: the object's path.
static void compile_against(const char *headers, const struct folder *f, const char *name,
                            const char *source, char *so, size_t room) {
    char command[512];
    snprintf(so, room, "%s/%s.so", f->path, name);
    snprintf(command, sizeof command, "cc -std=c17 -O2 -fPIC -shared -I%s -o %s %s", headers, so,
             source);
    if (system(command)) fail_msg("%s", command);
}
static void compile(const struct folder *f, const char *name, const char *source, char *so,
                    size_t room) {
    compile_against(".", f, name, source, so, room);
}

// A policy in few words: `decide` is the body of its decision, `fields` overrides struct fields.
static void compile_text(const struct folder *f, const char *name, const char *decide,
                         const char *fields, char *so, size_t room) {
    char path[128];
    struct kv_error e;
    char *text = kv_format_text(
        "#include \"policies/policy.h\"\n"
        "static int open(void **s, const struct kv_run *r, const struct kv_args *a, struct "
        "kv_error "
        "*e) { (void)s; (void)r; (void)a; (void)e; return 0; }\n"
        "static int decide(void *s, const struct kv_item *item, size_t first, size_t n, uint8_t "
        "*cells, struct kv_error *e) { (void)s; (void)item; (void)first; (void)e; size_t k = n * "
        "kv_cells(&item->run->shape); (void)k; %s }\n"
        "static uint32_t three(void *s) { (void)s; return 3; }\n"
        "static uint32_t (*const rounds)(void *) = three;\n"
        "static int age(void *s, const struct kv_layer_ages *a, void *state, uint8_t *cells, "
        "struct "
        "kv_error *e) { (void)s; (void)a; (void)state; (void)cells; (void)e; return 0; }\n"
        "static int (*const ages)(void *, const struct kv_layer_ages *, void *, uint8_t *, struct "
        "kv_error *) = age;\n"
        "static struct kv_policy p = {.abi = KV_POLICY_ABI, .struct_bytes = sizeof p, .name = "
        "\"odd\", .tag = \"baseline\", .open = open, .decide = decide};\n"
        "const struct kv_policy *kv_policy_entry(uint32_t abi) { (void)abi; %s; return &p; }\n",
        decide, fields);
    snprintf(path, sizeof path, "%s/%s.c", f->path, name);
    assert_int_equal(kv_write_file(path, text, strlen(text), &e), 0);
    compile(f, name, path, so, room);
    free(text);
}

static void the_template_builds_by_its_own_line_and_cuts_by_position(void **state) {
    char so[128], text[256];
    compile(*state, "mine", "policies/template.c", so, sizeof so);
    snprintf(text, sizeof text, "%s:cut=3,narrow=2", so);
    struct kv_replay_spec spec = fake_spec(text);
    struct fake *f = fake_new(&spec.run, 5, 2, 2, 1);
    fake_ask(&spec, f);
    for (size_t t = 0; t < f->item.n_tokens; t++)
        for (size_t c = 0; c < kv_cells(&spec.run.shape); c++)
            assert_int_equal(fake_bits(&spec, f, t, c), t < 3 ? 16 : 2);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// Both hooks of the other template: errors of a width fall by the vector's energy over 4^bits here,
// so that 5 bits are the first below a thousandth.
static void the_template_by_layers_bounds_errors_and_lowers_old_tokens(void **state) {
    char so[128], text[256];
    compile(*state, "layers", "policies/template_layers.c", so, sizeof so);
    snprintf(text, sizeof text, "%s:error=0.001,keep=100,old=3@asym:group=32", so);
    struct kv_replay_spec spec = fake_spec(text);
    enum { ROWS = 128, CELLS = 4, DIM = 32 };
    static float x[ROWS * 2 * DIM], error[ROWS * CELLS * KV_MAX_WIDTHS];
    uint8_t cells[ROWS * CELLS];
    struct fake *f = fake_new(&spec.run, ROWS, 2, 2, 1);
    struct kv_error e = {0};
    for (size_t i = 0; i < ROWS * 2 * DIM; i++) x[i] = (float)(1 + i / DIM % 7);
    for (size_t i = 0; i < ROWS * CELLS; i++)
        for (size_t w = 0; w < spec.run.n_widths; w++) {
            float size = x[i / 2 * DIM];
            error[i * spec.run.n_widths + w] =
                DIM * size * size * (float)pow(4, -spec.run.width_bits[w]);
        }
    struct kv_layer_rows rows = {.struct_bytes = sizeof rows,
                                 .item = &f->item,
                                 .layer = 2,
                                 .n = ROWS,
                                 .k = x,
                                 .v = x,
                                 .error = error};
    assert_int_equal(spec.policy->decide_layer(spec.self, &rows, NULL, cells, &e), 0);
    for (size_t i = 0; i < ROWS * CELLS; i++) assert_int_equal(spec.run.width_bits[cells[i]], 5);
    cells[3] = 0;
    struct kv_layer_ages ages = {
        .struct_bytes = sizeof ages, .item = &f->item, .layer = 2, .n = ROWS};
    assert_int_equal(spec.policy->revise(spec.self, &ages, NULL, cells, &e), 0);
    for (size_t i = 0; i < ROWS * CELLS; i++)
        assert_int_equal(spec.run.width_bits[cells[i]], i == 3                   ? 2
                                                        : i / CELLS < ROWS - 100 ? 3
                                                                                 : 5);
    fake_free(f);
    kv_replay_spec_close(&spec);
}

// abi-1 holds the header as it was before deciding by layers was appended (commit e74282f).
static void a_binary_of_an_older_header_answers_the_same(void **state) {
    char now[128], old[128], text[256];
    compile(*state, "now", "policies/template.c", now, sizeof now);
    compile_against("policies/test/abi-1", *state, "old", "policies/template.c", old, sizeof old);
    snprintf(text, sizeof text, "%s:cut=3,narrow=2", now);
    struct kv_replay_spec one = fake_spec(text);
    snprintf(text, sizeof text, "%s:cut=3,narrow=2", old);
    struct kv_replay_spec other = fake_spec(text);
    assert_true(other.plugin->policy.struct_bytes < one.plugin->policy.struct_bytes);
    struct fake *f = fake_new(&one.run, 5, 2, 2, 1), *g = fake_new(&other.run, 5, 2, 2, 1);
    fake_ask(&one, f);
    fake_ask(&other, g);
    assert_memory_equal(f->cells, g->cells, f->item.n_tokens * kv_cells(&one.run.shape));
    fake_free(f);
    fake_free(g);
    kv_replay_spec_close(&one);
    kv_replay_spec_close(&other);
}

static void a_plug_in_takes_parameters_is_shuffled_and_is_known_by_its_contents(void **state) {
    char so[128], text[256], *once, *twice;
    struct kv_error e = {0};
    compile(*state, "mine", "policies/template.c", so, sizeof so);
    snprintf(text, sizeof text, "shuffle(%s:cut=9):within=layer", so);
    if (kv_spec_canonical(text, &fake_setting, &once, &e)) fail_msg("%s", e.msg);
    assert_non_null(strstr(once, "cut=9,digest="));
    assert_int_equal(kv_spec_canonical(once, &fake_setting, &twice, &e), 0);
    assert_string_equal(once, twice);
    free(twice);
    snprintf(text, sizeof text, "%s:cut=x", so);
    assert_int_equal(kv_spec_canonical(text, &fake_setting, &twice, &e), KV_EUSAGE);
    snprintf(text, sizeof text, "%s:digest=0123456789abcdef", so);
    assert_int_equal(kv_spec_canonical(text, &fake_setting, &twice, &e), KV_EFAIL);
    free(once);
}

static void objects_that_are_no_policy_are_refused_before_the_first_token(void **state) {
    static const struct {
        const char *fields, *says;
    } wrong[] = {{"p.abi = 99", "ABI 99"},
                 {"p.struct_bytes = 24", "24 bytes"},
                 {"p.name = \"\"", "has no name"},
                 {"p.decide = 0", "no plan or decide"},
                 {"p.needs = 1u << 30", "needs what this kvsim cannot give"},
                 {"p.needs = KV_NEED(KV_ATTN_SO_FAR)", "known when the prompt has been read"},
                 {"p.rounds_as_opened = rounds", "does not read the damage"},
                 {"p.revise = ages", "does not decide them by layers"},
                 {"return 0", "cannot serve policy ABI"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char so[128], name[16];
        struct kv_error e = {0};
        struct kv_replay_spec spec;
        snprintf(name, sizeof name, "odd%zu", i);
        compile_text(*state, name, "return 0;", wrong[i].fields, so, sizeof so);
        assert_int_equal(kv_replay_spec_open(&spec, so, &fake_setting, 1, &e), KV_EFAIL);
        if (!strstr(e.msg, wrong[i].says)) fail_msg("%s: %s", wrong[i].fields, e.msg);
    }
    struct kv_error e = {0};
    struct kv_replay_spec spec;
    assert_int_equal(kv_replay_spec_open(&spec, "./no-such.so", &fake_setting, 1, &e), KV_EFAIL);
    assert_int_equal(kv_replay_spec_open(&spec, "policies/policy.h", &fake_setting, 1, &e),
                     KV_EFAIL);
    assert_non_null(strstr(e.msg, "cannot be loaded"));
}

static void what_an_older_policy_does_not_have_is_not_asked_for(void **state) {
    char so[128];
    compile_text(*state, "asks", "memset(cells, 0, k); return 0;",
                 "p.needs = KV_NEED_DAMAGE; p.rounds_as_opened = rounds", so, sizeof so);
    struct kv_replay_spec spec = fake_spec(so);
    assert_int_equal(spec.rounds, 3);
    kv_replay_spec_close(&spec);
    compile_text(*state, "older", "memset(cells, 0, k); return 0;",
                 "p.needs = KV_NEED_DAMAGE; p.rounds_as_opened = rounds; "
                 "p.struct_bytes = offsetof(struct kv_policy, rounds_as_opened)",
                 so, sizeof so);
    spec = fake_spec(so);
    assert_int_equal(spec.rounds, 1);
    kv_replay_spec_close(&spec);
    compile_text(*state, "before", "memset(cells, 0, k); return 0;",
                 "p.revise = ages; p.struct_bytes = offsetof(struct kv_policy, revise)", so,
                 sizeof so);
    spec = fake_spec(so);
    assert_null(spec.policy->revise);
    kv_replay_spec_close(&spec);
}

static void answers_that_cannot_be_are_refused_and_the_token_is_named(void **state) {
    static const struct {
        const char *decide, *says;
    } wrong[] = {
        {"memset(cells, 0, k); cells[5 * 12 + 3] = 77; return 0;", "does not offer, at item it, "
                                                                   "token 5"},
        {"memset(cells, 0, k); cells[2 * 12 + 4] = KV_EVICT; return 0;", "without the other, at "
                                                                         "item it, token 2"},
        {"memset(cells, 0, k / 2); return 0;", "leaves a cell undecided, at item it, token 4"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char so[128], name[16];
        struct kv_error e = {0};
        snprintf(name, sizeof name, "bad%zu", i);
        compile_text(*state, name, wrong[i].decide, "", so, sizeof so);
        struct kv_replay_spec spec = fake_spec(so);
        struct fake *f = fake_new(&spec.run, 8, 0, 0, 1);
        memset(f->cells, 0xFD, f->item.n_tokens * kv_cells(&spec.run.shape));
        assert_int_equal(kv_ask(spec.policy, spec.self, &f->item, f->cells, &e), 0);
        assert_int_equal(kv_check_answers(&spec, "it", f->item.n_tokens, f->cells, &e), KV_EFAIL);
        if (!strstr(e.msg, wrong[i].says)) fail_msg("%s", e.msg);
        fake_free(f);
        kv_replay_spec_close(&spec);
    }
}

static void a_plug_in_that_reads_ahead_is_caught_by_the_audit(void **state) {
    char so[128];
    int caught = 0;
    compile_text(*state, "peeks",
                 "for (size_t t = 0; t < n; t++) memset(cells + t * k / n, "
                 "item->tokens[item->n_tokens - 1].id % 3, k / n); return 0;",
                 "", so, sizeof so);
    struct kv_replay_spec spec = fake_spec(so);
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct fake *f = fake_new(&spec.run, 30, 0, 0, seed);
        struct kv_error e = {0};
        fake_ask(&spec, f);
        caught += kv_audit(&spec, &f->item, f->cells, &e) != 0;
        fake_free(f);
    }
    assert_int_equal(caught, 10);
    kv_replay_spec_close(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_template_builds_by_its_own_line_and_cuts_by_position),
        cmocka_unit_test(the_template_by_layers_bounds_errors_and_lowers_old_tokens),
        cmocka_unit_test(a_binary_of_an_older_header_answers_the_same),
        cmocka_unit_test(a_plug_in_takes_parameters_is_shuffled_and_is_known_by_its_contents),
        cmocka_unit_test(objects_that_are_no_policy_are_refused_before_the_first_token),
        cmocka_unit_test(what_an_older_policy_does_not_have_is_not_asked_for),
        cmocka_unit_test(answers_that_cannot_be_are_refused_and_the_token_is_named),
        cmocka_unit_test(a_plug_in_that_reads_ahead_is_caught_by_the_audit),
    };
    return cmocka_run_group_tests_name("plug-ins", tests, set_up, tear_down);
}
