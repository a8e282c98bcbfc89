/* Answers to the kernel, and the clock that they are timed by. Any thread. */
#ifndef VOLFS_REPLIES_H
#define VOLFS_REPLIES_H

#include <errno.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The time (ns) of CLOCK_MONOTONIC. */
static inline int64_t volfs_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Send what the kernel is to keep of a file, from a page's beginning to another's or to the file's end. True if it does. */
static inline int volfs_store(int device, uint64_t inode, int64_t offset, const void *data, size_t size)
{
    struct fuse_notify_store_out store = {.nodeid = inode, .offset = (uint64_t)offset, .size = (uint32_t)size};
    struct fuse_out_header header = {
        .len = (uint32_t)(sizeof header + sizeof store + size), .error = FUSE_NOTIFY_STORE, .unique = 0};
    struct iovec parts[3] = {{&header, sizeof header}, {&store, sizeof store}, {(void *)data, size}};
    ssize_t sent;
    do
        sent = writev(device, parts, 3);
    while (sent < 0 && errno == EINTR);
    return sent >= 0;
}

/* Send an answer of one errno. True if the kernel took it or has no more use for it. */
static inline int volfs_refuse(int device, uint64_t unique, int error)
{
    struct fuse_out_header header = {.len = sizeof header, .error = -error, .unique = unique};
    ssize_t sent;
    do
        sent = write(device, &header, sizeof header);
    while (sent < 0 && errno == EINTR);
    return sent >= 0 || errno == ENOENT || errno == ENODEV || errno == EBADF;
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
