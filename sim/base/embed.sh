# SPDX-License-Identifier: Apache-2.0
# Prints a C file that holds the named files as read-only bytes (see assets.h). Usage: embed.sh FILE...
set -eu
echo '#include <string.h>'
echo '#include "sim/base/assets.h"'
i=0
for f in "$@"; do
    printf '__asm__(".pushsection .rodata\\nkv_asset_%d:\\n.incbin \\"%s\\"\\n.byte 0\\n.popsection");\n' "$i" "$f"
    echo "extern const unsigned char kv_asset_$i[];"
    i=$((i + 1))
done
echo 'static const struct kv_asset assets[] = {'
i=0
for f in "$@"; do
    echo "    {\"$f\", kv_asset_$i, $(wc -c <"$f")},"
    i=$((i + 1))
done
echo '    {0}};'
cat <<'C'
const struct kv_asset *kv_asset_at(size_t i) {
    return i < sizeof assets / sizeof *assets - 1 ? &assets[i] : NULL;
}
const struct kv_asset *kv_asset_find(const char *path) {
    for (size_t i = 0; assets[i].path; i++)
        if (strcmp(assets[i].path, path) == 0) return &assets[i];
    return NULL;
}
C
