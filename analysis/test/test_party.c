// SPDX-License-Identifier: Apache-2.0
// Sweeps that ranks share: processes of this test, which speak through sockets, so that no MPI is
// needed. As under a launcher, a rank that dies takes the others with it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "analysis/studies/sweep.h"
#include "analysis/test/tiny_study.h"
#include "sim/store/test/store_rows.h"

enum { ITEMS = 24, RANKS = 3 };
static struct tiny_study tiny;
static const char *const specs[] = {"random:bits=2/4/8,seed={1,2}@sym", "static:bits=4@sym",
                                    "threshold:feature=entropy,bits=2/3/4/8@sym"};

static int set_up(void **state) {
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    return tiny_study_open(&tiny, KV_KEEP_FINAL | KV_KEEP_KV | KV_KEEP_SENS, ITEMS);
}

static int tear_down(void **state) {
    (void)state;
    tiny_study_close(&tiny);
    return 0;
}

// ---- ranks ----------------------------------------------------------------------------

static struct {
    int wire[RANKS][2]; // rank 0's end and the rank's
    unsigned dies;      // this rank ends without a word ...
    size_t after, n;    // ... at its `after`-th message
} net;

static int lost(char *why, size_t room) {
    snprintf(why, room, "its end is closed");
    return -1;
}

static bool whole(int fd, void *data, size_t n, bool out) {
    for (size_t at = 0; at < n;) {
        ssize_t some =
            out ? write(fd, (char *)data + at, n - at) : read(fd, (char *)data + at, n - at);
        if (some <= 0) return false;
        at += (size_t)some;
    }
    return true;
}

static void live(const struct kv_ranks *self) {
    if (net.after && self->rank == net.dies && ++net.n == net.after) kill(getpid(), SIGKILL);
}

static int send_bytes(const struct kv_ranks *self, unsigned to, const void *data, size_t n,
                      char *why, size_t room) {
    int fd = self->rank ? net.wire[self->rank][1] : net.wire[to][0];
    live(self);
    if (!whole(fd, &n, sizeof n, true) || !whole(fd, (void *)(uintptr_t)data, n, true))
        return lost(why, room);
    return 0;
}

static int receive_bytes(const struct kv_ranks *self, unsigned *from, void **data, size_t *n,
                         char *why, size_t room) {
    struct pollfd all[RANKS];
    nfds_t count = 0;
    *data = NULL;
    live(self);
    for (unsigned k = 1; k < self->size; k++)
        if (self->rank == 0 || self->rank == k)
            all[count++] = (struct pollfd){.fd = net.wire[k][self->rank != 0], .events = POLLIN};
    if (poll(all, count, 20000) <= 0) return lost(why, room);
    for (nfds_t i = 0; i < count; i++) {
        if (!all[i].revents) continue;
        *from = self->rank ? 0 : (unsigned)i + 1;
        if (!whole(all[i].fd, n, sizeof *n, false) || !(*data = malloc(*n + 1)) ||
            !whole(all[i].fd, *data, *n, false))
            return lost(why, room);
        return 0;
    }
    return lost(why, room);
}

// One rank's life; its exit code is the sweep's.
static int sweep(unsigned rank, unsigned size, const struct kv_sweep_options *asked,
                 struct kv_error *e) {
    struct kv_ranks ranks = {.abi = KV_RANKS_ABI,
                             .rank = rank,
                             .size = size,
                             .host = "here",
                             .send = send_bytes,
                             .receive = receive_bytes};
    struct kv_sweep_options o = *asked;
    struct kv_sweep *s = NULL;
    if (size) o.ranks = &ranks;
    int rc = kv_sweep_open(&s, &o, e);
    if (rc == 0) rc = kv_sweep_run(s, e);
    kv_sweep_close(s);
    return rc;
}

// Starts them, and ends all when one has died. Returns the first rank's code, -1 when any was
// killed; *said: rank 0's error.
static int launch(unsigned size, const struct kv_sweep_options *o, const char *bad_model,
                  char *said, size_t room) {
    pid_t pid[RANKS];
    int pipes[2], status, first = -1, dead = 0;
    if (pipe(pipes)) return -2;
    for (unsigned k = 1; k < size; k++)
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, net.wire[k])) return -2;
    for (unsigned k = 0; k < size; k++) {
        if ((pid[k] = fork())) continue;
        struct kv_error e = {0};
        struct kv_sweep_options mine = *o;
        for (unsigned i = 1; i < size; i++) {
            if (k != 0) close(net.wire[i][0]);
            if (k != i) close(net.wire[i][1]);
        }
        if (bad_model && k == 1) mine.model = bad_model;
        int rc = sweep(k, size, &mine, &e);
        if (k == 0 && write(pipes[1], e.msg, strlen(e.msg)) < 0) rc = 99;
        _exit(rc);
    }
    for (unsigned k = 1; k < size; k++) close(net.wire[k][0]), close(net.wire[k][1]);
    close(pipes[1]);
    for (unsigned left = size; left > 0; left--) {
        pid_t ended = wait(&status);
        if (WIFSIGNALED(status) && !dead++)
            for (unsigned k = 0; k < size; k++)
                if (pid[k] != ended) kill(pid[k], SIGKILL);
        if (ended == pid[0] && WIFEXITED(status)) first = WEXITSTATUS(status);
    }
    ssize_t n = read(pipes[0], said, room - 1);
    said[n > 0 ? n : 0] = '\0';
    close(pipes[0]);
    return dead ? -1 : first;
}

// ---- stores ---------------------------------------------------------------------------

static struct kv_sweep_options options(const char *db) {
    struct kv_sweep_options o = kv_sweep_defaults();
    o.trace = tiny.trace;
    o.model = tiny.model;
    o.specs = specs;
    o.n_specs = sizeof specs / sizeof *specs;
    o.fisher = true;
    o.redraws = 2;
    o.jobs = 2;
    o.db = db;
    return o;
}

static char *alone(void) {
    char *db = file_in(tiny.dir, "alone.db"), said[512] = "";
    struct kv_sweep_options o = options(db);
    net.after = 0;
    o.fisher = true;
    struct kv_error e = {0};
    if (access(db, F_OK) && sweep(0, 0, &o, &e)) fail_msg("%s %s", e.msg, said);
    return db;
}

// ---- tests ----------------------------------------------------------------------------

static void ranks_make_the_rows_of_one_process(void **state) {
    (void)state;
    char *one = alone(), said[512];
    for (unsigned size = 1; size <= RANKS; size++) {
        char name[] = "0.db";
        name[0] = (char)('0' + size);
        char *db = file_in(tiny.dir, name);
        struct kv_sweep_options o = options(db);
        if (launch(size, &o, NULL, said, sizeof said)) fail_msg("%s", said);
        assert_same_rows(one, db);
        free(db);
    }
    free(one);
}

static void after_20_deaths_of_any_rank_the_rows_are_those_of_one_process(void **state) {
    (void)state;
    char *one = alone(), *db = file_in(tiny.dir, "killed.db"), said[512];
    struct kv_sweep_options o = options(db);
    unsigned deaths = 0;
    for (size_t after = 3; deaths < 20; after++) {
        net.dies = deaths % RANKS;
        net.after = after;
        int code = launch(RANKS, &o, NULL, said, sizeof said);
        if (code == 0) { // done before it could die: once more from the beginning
            assert_same_rows(one, db);
            unlink(db);
        } else {
            assert_int_equal(code, -1);
            deaths++;
        }
    }
    net.after = 0;
    if (launch(RANKS, &o, NULL, said, sizeof said)) fail_msg("%s", said);
    assert_same_rows(one, db);
    free(db);
    free(one);
}

static void what_goes_wrong_on_one_rank_is_said_by_the_first(void **state) {
    (void)state;
    char *db = file_in(tiny.dir, "wrong.db"), said[512];
    struct kv_sweep_options o = options(db);
    net.after = 0;
    assert_true(launch(RANKS, &o, "/nowhere.gguf", said, sizeof said) > 0);
    if (!strstr(said, "(rank 1 on here)")) fail_msg("%s", said);
    free(db);
}

static void a_shared_sweep_needs_a_store(void **state) {
    (void)state;
    struct kv_sweep_options o = options(NULL);
    struct kv_error e;
    o.shard = (struct kv_shard){1, 2};
    assert_int_equal(kv_sweep_check(&o, &e), KV_EUSAGE);
    assert_string_equal(e.where, "shard");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_make_the_rows_of_one_process),
        cmocka_unit_test(after_20_deaths_of_any_rank_the_rows_are_those_of_one_process),
        cmocka_unit_test(what_goes_wrong_on_one_rank_is_said_by_the_first),
        cmocka_unit_test(a_shared_sweep_needs_a_store),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
