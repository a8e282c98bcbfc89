/* Answers to the kernel, and the clock that they are timed by. Any thread. */
#ifndef VOLFS_REPLIES_H
#define VOLFS_REPLIES_H

#include <errno.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>

/* The time (ns) of CLOCK_MONOTONIC. */
static inline int64_t volfs_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Send an answer. True if the kernel took it or has no more use for it: the request was interrupted, or the mount is
 * going. */
static inline int volfs_reply(int device, uint64_t unique, const void *data, size_t size)
{
    struct fuse_out_header header = {.len = (uint32_t)(sizeof header + size), .error = 0, .unique = unique};
    struct iovec parts[2] = {{&header, sizeof header}, {(void *)data, size}};
    ssize_t sent;
    do
        sent = writev(device, parts, size ? 2 : 1);
    while (sent < 0 && errno == EINTR);
    return sent >= 0 || errno == ENOENT || errno == ENODEV || errno == EBADF;
}

#endif
