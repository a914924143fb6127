// SPDX-License-Identifier: Apache-2.0
// What several sections of a page say alike: a part's setting, the number of a policy.
#include "reports/page/part.h"
#include "reports/page/html.h"

size_t kv_page_policy_number(const struct kv_page *p, const char *spec) {
    for (size_t i = 0; i < p->n_policies; i++)
        if (strcmp(p->policies[i].row->s.spec, spec) == 0) return i + 1;
    return 0;
}

void kv_page_setting(struct kv_text *t, const struct kv_page_part *part) {
    const struct kv_summary *s = &part->set.rows[0].s;
    kv_html_text(t, s->fidelity);
    kv_text_addf(t, ", ");
    kv_html_text(t, s->mode);
    if (strcmp(s->self, "coded") != 0) {
        kv_text_addf(t, ", own step ");
        kv_html_text(t, s->self);
    }
    if (strcmp(s->compute, "f32") != 0) {
        kv_text_addf(t, ", ");
        kv_html_text(t, s->compute);
    }
    if (*s->variant) {
        kv_text_addf(t, ", ");
        kv_html_text(t, s->variant);
    }
}
