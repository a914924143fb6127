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
    const char *variant = kv_variant_name(s->form, s->feedback);
    kv_text_addf(t, "%s, %s", kv_fidelity_names[s->fidelity], kv_mode_names[s->mode]);
    if (s->self != KV_SELF_CODED) kv_text_addf(t, ", own step %s", kv_self_names[s->self]);
    if (strcmp(s->compute, KV_COMPUTE_CPU) != 0) {
        kv_text_addf(t, ", ");
        kv_html_text(t, s->compute);
    }
    if (*variant) kv_text_addf(t, ", %s", variant);
}
