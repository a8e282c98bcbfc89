#include "session.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

enum {
    PAGES = 256,   /* FUSE_MAX_MAX_PAGES of libfuse: what a request may carry */
    HEADER = 4096, /* FUSE_BUFFER_HEADER_SIZE */
    SMALL = 1 << 14,
    KEPT = 8,
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

static struct {
    struct volfs_front *wanted, *front;
    void *session;
    int device, event, stop;
    pthread_t reader;
    pthread_mutex_t mutex;
    struct request *first, **last;
    size_t room; /* of a buffer */
    void *kept[KEPT]; /* large buffers for the next requests */
    int many;
} state = {.mutex = PTHREAD_MUTEX_INITIALIZER, .device = -1, .event = -1, .stop = -1};

static void *libfuse(const char *name)
{
    static void *library;
    if (!library)
        library = dlopen("libfuse3.so.3", RTLD_NOW | RTLD_NOLOAD);
    if (!library)
        library = dlopen("libfuse3.so.3", RTLD_NOW);
    return library ? dlsym(library, name) : NULL;
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* ---------------------------------------------------------------- requests for Python */

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
    uint64_t one = 1;
    while (write(state.event, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void *read_requests(void *unused)
{
    (void)unused;
    uint8_t *buffer = take_buffer();
    struct pollfd polled[2] = {{state.device, POLLIN, 0}, {state.stop, POLLIN, 0}};
    for (;;) {
        ssize_t size = buffer ? read(state.device, buffer, state.room) : 0;
        if (size < 0 && (errno == EINTR || errno == ENOENT))
            continue;
        if (size < 0 && errno == EAGAIN) {
            poll(polled, 2, -1);
            if (polled[1].revents)
                break;
            continue;
        }
        if (size <= 0) { /* unmounted, or no memory to go on */
            leave_to_python(NULL, 0);
            break;
        }
        if (volfs_front_answer(state.front, buffer, (size_t)size, state.device, now()))
            continue;
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
    }
    free(buffer);
    return NULL;
}

/* ---------------------------------------------------------------- in the place of libfuse */

EXPORTED int fuse_session_fd(void *session)
{
    int (*real)(void *) = (int (*)(void *))libfuse("fuse_session_fd");
    int device = real ? real(session) : -1;
    if (state.front && state.session == session)
        return state.event;
    if (!state.wanted || device < 0)
        return device;
    state.event = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    state.stop = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    state.last = &state.first;
    state.room = PAGES * (size_t)sysconf(_SC_PAGESIZE) + HEADER;
    state.device = device;
    state.session = session;
    state.front = state.wanted;
    state.wanted = NULL;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are Python's */
    int flags = fcntl(device, F_GETFL);
    int failed = state.event < 0 || state.stop < 0 || fcntl(device, F_SETFL, flags | O_NONBLOCK) < 0
        || pthread_create(&state.reader, NULL, read_requests, NULL) != 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        fcntl(device, F_SETFL, flags);
        close(state.event);
        close(state.stop);
        state.front = NULL;
        return device;
    }
    return state.event;
}

EXPORTED int fuse_session_receive_buf(void *session, struct fuse_buf *buffer)
{
    if (!state.front || state.session != session) {
        int (*real)(void *, struct fuse_buf *) = (int (*)(void *, struct fuse_buf *))libfuse("fuse_session_receive_buf");
        return real ? real(session, buffer) : -ENOSYS;
    }
    uint64_t one;
    if (read(state.event, &one, sizeof one) < 0)
        return -EINTR; /* another task was there first */
    pthread_mutex_lock(&state.mutex);
    struct request *request = state.first;
    if (request) {
        state.first = request->next;
        if (!state.first)
            state.last = &state.first;
        give_back(buffer->mem);
        buffer->mem = request->memory;
    }
    pthread_mutex_unlock(&state.mutex);
    if (!request)
        return -EINTR;
    size_t size = request->size;
    free(request);
    if (size == 0) {
        void (*leave)(void *) = (void (*)(void *))libfuse("fuse_session_exit");
        if (leave)
            leave(session);
        return 0;
    }
    buffer->size = size;
    buffer->flags = 0;
    buffer->pos = 0;
    return (int)size;
}

void volfs_session_begin(struct volfs_front *front) { state.wanted = front; }

int volfs_session_fronted(void) { return state.front != NULL; }

void volfs_session_end(void)
{
    state.wanted = NULL;
    if (!state.front)
        return;
    uint64_t one = 1;
    while (write(state.stop, &one, sizeof one) < 0 && errno == EINTR)
        ;
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
    close(state.stop);
    close(state.event);
    state.event = state.stop = state.device = -1;
}
