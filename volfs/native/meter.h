/* What was answered without Python, in numbers: those that volfs.tree.contract.meter has of its own requests.
 *
 * Memory: the owner's. Threads: any.
 */
#ifndef VOLFS_METER_H
#define VOLFS_METER_H

#include <pthread.h>
#include <stdint.h>

enum volfs_operation {
    VOLFS_OPEN,
    VOLFS_READ,
    VOLFS_FLUSH,
    VOLFS_RELEASE,
    VOLFS_OPENDIR,
    VOLFS_RELEASEDIR,
    VOLFS_IOCTL,
    VOLFS_WRITE,
    VOLFS_FSYNC,
    VOLFS_FSYNCDIR,
    VOLFS_LOOKUP,
    VOLFS_GETATTR,
    VOLFS_OPERATIONS
};

/* Bucket i > 0 counts answers that took up to 2^(first + i) ns: as volfs.tree.contract.meter has them. */
enum { VOLFS_FIRST_BUCKET = 12, VOLFS_BUCKETS = 26 };

struct volfs_counts {
    uint64_t answered[VOLFS_OPERATIONS];
    uint64_t nanoseconds[VOLFS_OPERATIONS];
    uint64_t buckets[VOLFS_OPERATIONS][VOLFS_BUCKETS];
    uint64_t bytes_read;
    uint64_t bytes_copied; /* of them, voxels: the rest are headers and checksums */
    uint64_t bytes_written;
    uint64_t files_ahead, bytes_ahead; /* given to the kernel before anybody opened them */
};

struct volfs_meter {
    pthread_mutex_t mutex;
    struct volfs_counts counts;
};

void volfs_meter_begin(struct volfs_meter *meter);
void volfs_meter_end(struct volfs_meter *meter);

/* An answer to a request that came at `since` (ns, CLOCK_MONOTONIC), with the bytes read, copied for that, or written. */
void volfs_meter_count(
    struct volfs_meter *meter, enum volfs_operation operation, int64_t since, uint64_t bytes, uint64_t copied);

/* A file of so many bytes, of them so many of voxels, that was given to the kernel before anybody opened it. */
void volfs_meter_ahead(struct volfs_meter *meter, uint64_t bytes, uint64_t copied);

void volfs_meter_counts(struct volfs_meter *meter, struct volfs_counts *counts);

#endif
