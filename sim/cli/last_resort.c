// SPDX-License-Identifier: Apache-2.0
// A plug-in runs in this process, and nothing keeps it from calling exit() or writing where it may
// not. Outcomes that were stored are safe; what is left to do is to say who it was.
#include "sim/cli/last_resort.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
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

static pid_t home; // the process that kv_last_resort was called in

_Noreturn void kv_end_at_once(int code) {
    for (;;) syscall(SYS_exit_group, code);
}

// Async-signal-safe. Of several threads that come here at once the first speaks.
_Noreturn static void blame(const char *plugin, const char *what) {
    static atomic_flag said = ATOMIC_FLAG_INIT;
    const char *parts[] = {"kvsim: ", plugin, ": the plug-in ended the program by ", what,
                           "; what was stored before is safe\n"};
    if (atomic_flag_test_and_set(&said))
        for (;;) pause();
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        (void)!write(STDERR_FILENO, parts[i], strlen(parts[i]));
    kv_end_at_once(1);
}

// The plug-in that this thread is in; NULL also in a child that a plug-in forked, which may end.
static const char *culprit(void) {
    return getpid() == home ? kv_plugin_running() : NULL;
}

// The program's symbols come before the C library's where a plug-in is loaded, so that it meets
// these; what enters the kernel by itself meets nobody. A handler of atexit() would not do: of two
// workers that call exit() at once the first takes it, and the second ends the program meanwhile.
void exit(int code) {
    const char *plugin = culprit();
    if (plugin) blame(plugin, "exit()");
    void *own = dlsym(RTLD_NEXT, "exit");
    void (*library_exit)(int);
    memcpy(&library_exit, &own, sizeof own);
    library_exit(code);
    kv_end_at_once(code);
}

void quick_exit(int code) {
    const char *plugin = culprit();
    if (plugin) blame(plugin, "quick_exit()");
    kv_end_at_once(code);
}

void _exit(int code) {
    const char *plugin = culprit();
    if (plugin) blame(plugin, "_exit()");
    kv_end_at_once(code);
}

void _Exit(int code) {
    _exit(code);
}

static void on_fault(int number) {
    const char *plugin = culprit();
    for (size_t i = 0; i < N_FAULTS; i++) {
        if (faults[i].number != number) continue;
        if (plugin) blame(plugin, faults[i].name);
        sigaction(number, &before[i], NULL); // whoever was there before meets the fault again
    }
}

void kv_last_resort(void) {
    // On a stack of its own (kv_plugin_enter): a recursion without an end leaves no room.
    struct sigaction a = {.sa_handler = on_fault, .sa_flags = SA_NODEFER | SA_ONSTACK};
    home = getpid();
    sigemptyset(&a.sa_mask);
    for (size_t i = 0; i < N_FAULTS; i++) sigaction(faults[i].number, &a, &before[i]);
}
