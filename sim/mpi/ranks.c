// SPDX-License-Identifier: Apache-2.0
// Ranks by MPI (MPI-3, Open MPI or MPICH): `make mpi` builds libkvsim-mpi.so of it.
//
// A rank that ends without a word takes all with it: that is MPI's way, and fits here, since what
// was stored stays and the same command goes on. Waiting is by probes with pauses, because an MPI
// that waits in a receive turns a core that another rank could compute on.
#include "sim/base/ranks.h"

#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TAG = 17, PAUSE_NS_MIN = 20000, PAUSE_NS_MAX = 1000000 };

static int failed(int code, char *why, size_t room) {
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    if (code == MPI_SUCCESS) return 0;
    if (MPI_Error_string(code, text, &n) != MPI_SUCCESS) n = 0;
    snprintf(why, room, "%.*s", n, text);
    return -1;
}

// "Open MPI v4.1.4, package: ..." up to the first comma or line end.
static void name_library(struct kv_ranks *self) {
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n = 0;
    if (MPI_Get_library_version(text, &n) != MPI_SUCCESS) n = 0;
    text[n < (int)sizeof text ? n : (int)sizeof text - 1] = '\0';
    text[strcspn(text, ",\n")] = '\0';
    for (char *p = text; *p; p++)
        if (*p == '\t') *p = ' ';
    snprintf(self->library, sizeof self->library, "%.100s", text);
}

static int join(struct kv_ranks *self, char *why, size_t room) {
    int have = 0, rank = 0, size = 1, n = 0, running = 0;
    char host[MPI_MAX_PROCESSOR_NAME] = "";
    if (failed(MPI_Initialized(&running), why, room)) return -1;
    if (!running && failed(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &have), why, room))
        return -1;
    if (!running && have < MPI_THREAD_SERIALIZED) {
        snprintf(why, room, "this MPI serves no program of several threads");
        return -1;
    }
    if (failed(MPI_Comm_rank(MPI_COMM_WORLD, &rank), why, room) ||
        failed(MPI_Comm_size(MPI_COMM_WORLD, &size), why, room) ||
        failed(MPI_Get_processor_name(host, &n), why, room))
        return -1;
    self->rank = (unsigned)rank;
    self->size = (unsigned)size;
    snprintf(self->host, sizeof self->host, "%.100s", host);
    name_library(self);
    return 0;
}

static int send(const struct kv_ranks *self, unsigned to, const void *data, size_t n, char *why,
                size_t room) {
    (void)self;
    if (n > INT_MAX) {
        snprintf(why, room, "a message of %zu bytes is longer than MPI carries", n);
        return -1;
    }
    return failed(MPI_Send(data, (int)n, MPI_BYTE, (int)to, TAG, MPI_COMM_WORLD), why, room);
}

static int receive(const struct kv_ranks *self, unsigned *from, void **data, size_t *n, char *why,
                   size_t room) {
    MPI_Status status;
    long pause_ns = PAUSE_NS_MIN;
    int there = 0, bytes = 0;
    (void)self;
    *data = NULL;
    for (;;) {
        if (failed(MPI_Iprobe(MPI_ANY_SOURCE, TAG, MPI_COMM_WORLD, &there, &status), why, room))
            return -1;
        if (there) break;
        nanosleep(&(struct timespec){0, pause_ns}, NULL);
        pause_ns = pause_ns < PAUSE_NS_MAX / 2 ? 2 * pause_ns : PAUSE_NS_MAX;
    }
    if (failed(MPI_Get_count(&status, MPI_BYTE, &bytes), why, room)) return -1;
    *data = malloc((size_t)bytes + 1);
    if (!*data) {
        snprintf(why, room, "no memory for a message of %d bytes", bytes);
        return -1;
    }
    *from = (unsigned)status.MPI_SOURCE;
    *n = (size_t)bytes;
    return failed(MPI_Recv(*data, bytes, MPI_BYTE, status.MPI_SOURCE, TAG, MPI_COMM_WORLD, &status),
                  why, room);
}

static void leave(struct kv_ranks *self) {
    int done = 0;
    (void)self;
    if (MPI_Finalized(&done) == MPI_SUCCESS && !done) MPI_Finalize();
}

struct kv_ranks *kv_ranks_entry(uint32_t abi);
struct kv_ranks *kv_ranks_entry(uint32_t abi) {
    static struct kv_ranks ranks = {
        .abi = KV_RANKS_ABI, .join = join, .send = send, .receive = receive, .leave = leave};
    return abi == KV_RANKS_ABI ? &ranks : NULL;
}
