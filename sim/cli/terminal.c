// SPDX-License-Identifier: Apache-2.0
// What a terminal can show: its width, colour, and texts that cannot steer it.
#include "sim/cli/terminal.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

int kv_wants_colour(const char *when, bool *colour, struct kv_error *e) {
    const char *none = getenv("NO_COLOR"), *term = getenv("TERM");
    *colour = isatty(STDOUT_FILENO) && !(none && *none) && !(term && strcmp(term, "dumb") == 0);
    if (!when || strcmp(when, "auto") == 0) return 0;
    *colour = strcmp(when, "always") == 0;
    if (*colour || strcmp(when, "never") == 0) return 0;
    return kv_fail(e, KV_EUSAGE, "--color", "'%s' is not one of auto, always, never", when);
}

size_t kv_terminal_width(void) {
    const char *columns = getenv("COLUMNS");
    struct winsize w;
    char *end;
    if (columns && *columns) {
        unsigned long n = strtoul(columns, &end, 10);
        if (*end == 0 && n > 0 && n < 100000) return n;
    }
    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0) return w.ws_col;
    return 0;
}

void kv_print_wrapped(const char *words, size_t margin, size_t width) {
    size_t column = margin;
    if (width < margin + 20) width = SIZE_MAX;
    while (*words) {
        size_t n = strcspn(words, " ");
        bool first = column == margin;
        if (!first && column + 1 + n > width) {
            printf("\n%*s", (int)margin, "");
            column = margin;
            first = true;
        }
        printf("%s%.*s", first ? "" : " ", (int)n, words);
        column += n + !first;
        words += n;
        words += strspn(words, " ");
    }
    putchar('\n');
}
