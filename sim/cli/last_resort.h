// SPDX-License-Identifier: Apache-2.0
// What is done when a plug-in ends or breaks the process: it is named, and the exit code is 1.
#ifndef KV_CLI_LAST_RESORT_H
#define KV_CLI_LAST_RESORT_H

// Installs a guard against exit() and _exit(), and handlers for SIGSEGV, SIGBUS, SIGFPE, SIGILL and
// SIGABRT. They act in a thread that a call into a plug-in runs in; elsewhere all is as it was
// without them.
void kv_last_resort(void);
// Ends the process wherever it is, in a plug-in too, whose doing it is not. Async-signal-safe.
_Noreturn void kv_end_at_once(int code);

#endif
