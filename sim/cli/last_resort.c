// SPDX-License-Identifier: Apache-2.0
// A plug-in runs in this process, and nothing keeps it from calling exit() or writing where it may
// not. Outcomes that were stored are safe; what is left to do is to say who it was.
#include "sim/cli/last_resort.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/replay/plugin.h"

static const struct {
    int number;
    const char *name;
} faults[] = {{SIGSEGV, "a bad memory access (SIGSEGV)"},
              {SIGBUS, "a bad memory access (SIGBUS)"},
              {SIGFPE, "a bad division (SIGFPE)"},
              {SIGILL, "an illegal instruction (SIGILL)"},
              {SIGABRT, "abort()"}};
enum { N_FAULTS = sizeof faults / sizeof *faults };
static struct sigaction before[N_FAULTS];

// Async-signal-safe. Of several threads that come here at once the first speaks.
_Noreturn static void blame(const char *plugin, const char *what) {
    static atomic_flag said = ATOMIC_FLAG_INIT;
    const char *parts[] = {"kvsim: ", plugin, ": the plug-in ended the program by ", what,
                           "; what was stored before is safe\n"};
    if (atomic_flag_test_and_set(&said))
        for (;;) pause();
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        (void)!write(STDERR_FILENO, parts[i], strlen(parts[i]));
    _exit(1);
}

static void on_exit_call(void) {
    const char *plugin = kv_plugin_running();
    if (plugin) blame(plugin, "exit()");
}

static void on_fault(int number) {
    const char *plugin = kv_plugin_running();
    for (size_t i = 0; i < N_FAULTS; i++) {
        if (faults[i].number != number) continue;
        if (plugin) blame(plugin, faults[i].name);
        sigaction(number, &before[i], NULL); // whoever was there before meets the fault again
    }
}

void kv_last_resort(void) {
    struct sigaction a = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
    sigemptyset(&a.sa_mask);
    for (size_t i = 0; i < N_FAULTS; i++) sigaction(faults[i].number, &a, &before[i]);
    atexit(on_exit_call);
    (void)at_quick_exit(on_exit_call);
}
