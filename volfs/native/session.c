#include "session.h"

#include "replies.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

enum {
    PAGES = 256,   /* FUSE_MAX_MAX_PAGES of libfuse: what a request may carry */
    HEADER = 4096, /* FUSE_BUFFER_HEADER_SIZE */
    SMALL = 1 << 14,
    KEPT = 2,
};

/* As fuse_common.h begins it: what fuse_session_receive_buf fills. */
struct fuse_buf {
    size_t size;
    int flags;
    void *mem;
    int fd;
    off_t pos;
};

struct request {
    struct request *next;
    size_t size; /* 0: the session is over */
    void *memory;
};

/* Who reads the device. A request that is handed from one thread to another costs twice what it costs to answer a small
 * one: so whoever answered most of the last ones reads the next. */
enum { PYTHON, READER };
/* Who reads file after file asks again within some microseconds. To sleep and be woken takes longer than that, most of
 * all where a processor without work is given back to a host. So the reader thread looks for the next request so long
 * before it sleeps. Each time in vain it sleeps at once twice as often as the last time; where a look takes as long as
 * LATE others want the processor, who are not to be kept from it. */
enum { AWAKE = 50000, LATE = 1000000, MOST_SKIPPED = 16, SKIPPED_IN_CROWD = 256 }; /* ns, ns, sleeps, sleeps */

/* Each request answered by the front is one up, each left to Python one down, from 0 to TOP. From HIGH on the reader
 * thread reads, from LOW down Python. */
enum { LOW = 8, HIGH = 24, TOP = 32 };

static struct {
    struct volfs_front *wanted, *front;
    void *session;
    int device, waiting, event, wake, stop;
    pthread_t reader;
    atomic_int turn, score;
    pthread_mutex_t mutex;
    struct request *first, **last;
    size_t room; /* of a buffer */
    void *kept[KEPT]; /* large buffers for the next requests */
    int many;
} state = {
    .mutex = PTHREAD_MUTEX_INITIALIZER, .device = -1, .waiting = -1, .event = -1, .wake = -1, .stop = -1, .turn = PYTHON};

static void *libfuse(const char *name)
{
    static void *library;
    if (!library)
        library = dlopen("libfuse3.so.3", RTLD_NOW | RTLD_NOLOAD);
    if (!library)
        library = dlopen("libfuse3.so.3", RTLD_NOW);
    return library ? dlsym(library, name) : NULL;
}

static void raise_event(int event)
{
    uint64_t one = 1;
    while (write(event, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* ---------------------------------------------------------------- requests */

static void *take_buffer(void)
{
    void *memory = NULL;
    pthread_mutex_lock(&state.mutex);
    if (state.many)
        memory = state.kept[--state.many];
    pthread_mutex_unlock(&state.mutex);
    return memory ? memory : malloc(state.room);
}

/* With the mutex held. */
static void give_back(void *memory)
{
    if (memory && state.many < KEPT && malloc_usable_size(memory) >= state.room)
        state.kept[state.many++] = memory;
    else
        free(memory);
}

static void leave_to_python(void *memory, size_t size)
{
    struct request *request = malloc(sizeof *request);
    if (!request)
        abort(); /* a request must not be lost: its client would wait for ever */
    *request = (struct request){NULL, size, memory};
    pthread_mutex_lock(&state.mutex);
    *state.last = request;
    state.last = &request->next;
    pthread_mutex_unlock(&state.mutex);
    raise_event(state.event);
}

/* The next request: its size; 0 if the session is over, -1 if there is none now. */
static ssize_t next_request(void *buffer)
{
    for (;;) {
        ssize_t size = read(state.device, buffer, state.room);
        if (size > 0)
            return size;
        if (size < 0 && errno == EAGAIN)
            return -1;
        if (size == 0 || (errno != EINTR && errno != ENOENT))
            return 0; /* unmounted */
    }
}

/* Answer a request here, if that is possible. Keeps the score. */
static int answered_here(const void *request, size_t size)
{
    int done = volfs_front_answer(state.front, request, size, state.device, volfs_now());
    int score = atomic_load_explicit(&state.score, memory_order_relaxed);
    score = done ? (score < TOP ? score + 1 : TOP) : (score > 0 ? score - 1 : 0);
    atomic_store_explicit(&state.score, score, memory_order_relaxed);
    return done;
}

/* Have the other one read. */
static void pass_turn(int turn)
{
    struct epoll_event readable = {.events = EPOLLIN};
    atomic_store(&state.turn, turn);
    if (turn == PYTHON) {
        epoll_ctl(state.waiting, EPOLL_CTL_ADD, state.device, &readable);
    } else {
        epoll_ctl(state.waiting, EPOLL_CTL_DEL, state.device, NULL);
        raise_event(state.wake);
    }
}

/* How the reader thread has fared. */
struct wakefulness {
    int skip, vain;
};

/* The next request, if it comes soon: as next_request. */
static ssize_t await_request(void *buffer, struct wakefulness *how)
{
    ssize_t size = next_request(buffer);
    if (size >= 0)
        return size;
    if (how->skip) {
        how->skip--;
        return -1;
    }
    for (int64_t before = volfs_now(), until = before + AWAKE, now;; before = now) {
        sched_yield(); /* the one who is about to ask may need this processor */
        if ((size = next_request(buffer)) >= 0) {
            how->vain = 0;
            return size;
        }
        now = volfs_now();
        if (now - before > LATE) {
            how->skip = SKIPPED_IN_CROWD;
            return -1;
        }
        if (now > until) {
            how->skip = how->vain = how->vain < MOST_SKIPPED / 2 ? 2 * how->vain + 1 : MOST_SKIPPED;
            return -1;
        }
    }
}

static void *read_requests(void *unused)
{
    struct wakefulness how = {0, 0};
    (void)unused;
    uint8_t *buffer = take_buffer();
    struct pollfd polled[3] = {{state.stop, POLLIN, 0}, {state.wake, POLLIN, 0}, {state.device, POLLIN, 0}};
    for (;;) {
        int mine = atomic_load(&state.turn) == READER;
        ssize_t size = !mine ? -1 : buffer ? await_request(buffer, &how) : 0;
        if (size < 0) {
            poll(polled, mine ? 3 : 2, -1);
            uint64_t woken;
            if (polled[0].revents)
                break;
            if (polled[1].revents && read(state.wake, &woken, sizeof woken) < 0)
                continue;
        } else if (size == 0) { /* over, or no memory to go on */
            leave_to_python(NULL, 0);
            break;
        } else if (!answered_here(buffer, (size_t)size)) {
            if (size <= SMALL) {
                void *copy = malloc((size_t)size);
                if (!copy)
                    abort();
                memcpy(copy, buffer, (size_t)size);
                leave_to_python(copy, (size_t)size);
            } else {
                leave_to_python(buffer, (size_t)size);
                buffer = take_buffer();
            }
            if (atomic_load_explicit(&state.score, memory_order_relaxed) <= LOW)
                pass_turn(PYTHON);
        }
    }
    free(buffer);
    return NULL;
}

/* ---------------------------------------------------------------- in the place of libfuse */

static void close_all(void)
{
    int *all[] = {&state.waiting, &state.event, &state.wake, &state.stop};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (*all[i] >= 0)
            close(*all[i]);
        *all[i] = -1;
    }
}

EXPORTED int fuse_session_fd(void *session)
{
    int (*real)(void *) = (int (*)(void *))libfuse("fuse_session_fd");
    int device = real ? real(session) : -1;
    if (state.front && state.session == session)
        return state.waiting;
    if (!state.wanted || device < 0)
        return device;
    state.waiting = epoll_create1(EPOLL_CLOEXEC);
    state.event = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    state.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    state.stop = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    state.last = &state.first;
    state.room = PAGES * (size_t)sysconf(_SC_PAGESIZE) + HEADER;
    state.device = device;
    state.session = session;
    state.front = state.wanted;
    state.wanted = NULL;
    atomic_store(&state.turn, PYTHON);
    atomic_store(&state.score, 0);
    struct epoll_event readable = {.events = EPOLLIN};
    int flags = fcntl(device, F_GETFL);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are Python's */
    int failed = state.waiting < 0 || state.event < 0 || state.wake < 0 || state.stop < 0
        || epoll_ctl(state.waiting, EPOLL_CTL_ADD, state.event, &readable) < 0
        || epoll_ctl(state.waiting, EPOLL_CTL_ADD, device, &readable) < 0 || fcntl(device, F_SETFL, flags | O_NONBLOCK) < 0
        || pthread_create(&state.reader, NULL, read_requests, NULL) != 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        fcntl(device, F_SETFL, flags);
        close_all();
        state.front = NULL;
        return device;
    }
    return state.waiting;
}

/* A request that the reader thread left. True if there was one. */
static int take_request(struct fuse_buf *buffer)
{
    uint64_t one;
    if (read(state.event, &one, sizeof one) < 0)
        return 0;
    pthread_mutex_lock(&state.mutex);
    struct request *request = state.first;
    state.first = request->next;
    if (!state.first)
        state.last = &state.first;
    give_back(buffer->mem);
    pthread_mutex_unlock(&state.mutex);
    buffer->mem = request->memory;
    buffer->size = request->size;
    free(request);
    return 1;
}

EXPORTED int fuse_session_receive_buf(void *session, struct fuse_buf *buffer)
{
    if (!state.front || state.session != session) {
        int (*real)(void *, struct fuse_buf *) = (int (*)(void *, struct fuse_buf *))libfuse("fuse_session_receive_buf");
        return real ? real(session, buffer) : -ENOSYS;
    }
    if (!take_request(buffer)) {
        if (atomic_load(&state.turn) != PYTHON)
            return -EINTR; /* another task was there first */
        if (!buffer->mem || malloc_usable_size(buffer->mem) < state.room) {
            free(buffer->mem);
            buffer->mem = take_buffer();
            if (!buffer->mem)
                return -ENOMEM;
        }
        ssize_t size;
        do { /* who asks in a hurry has asked again by now */
            size = next_request(buffer->mem);
            if (size < 0)
                return -EINTR;
            if (size == 0 || !answered_here(buffer->mem, (size_t)size))
                break;
            if (atomic_load_explicit(&state.score, memory_order_relaxed) >= HIGH) {
                pass_turn(READER);
                return -EINTR;
            }
        } while (1);
        buffer->size = (size_t)size;
    }
    buffer->flags = 0;
    buffer->pos = 0;
    if (buffer->size == 0) {
        void (*leave)(void *) = (void (*)(void *))libfuse("fuse_session_exit");
        if (leave)
            leave(session);
    }
    return (int)buffer->size;
}

void volfs_session_begin(struct volfs_front *front)
{
    state.wanted = front;
    volfs_files_leave(volfs_front_files(front), leave_to_python);
}

int volfs_session_fronted(void) { return state.front != NULL; }

void volfs_session_end(void)
{
    state.wanted = NULL;
    if (!state.front)
        return;
    volfs_front_stop(state.front);
    raise_event(state.stop);
    pthread_join(state.reader, NULL);
    pthread_mutex_lock(&state.mutex);
    for (struct request *request = state.first; request;) {
        struct request *next = request->next;
        free(request->memory);
        free(request);
        request = next;
    }
    state.first = NULL;
    state.last = &state.first;
    while (state.many)
        free(state.kept[--state.many]);
    state.front = NULL;
    pthread_mutex_unlock(&state.mutex);
    close_all();
    state.device = -1;
}
