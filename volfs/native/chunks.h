/* Lists of stored chunks, decoded into place.
 *
 * Decided here: how a payload becomes voxels where they are wanted, and when that is in doubt. A chunk in doubt (it
 * cannot be read, a checksum does not match, it is no single whole frame of exactly the right size) is not done and
 * not explained: the caller takes the long way, which names the error.
 *
 * Memory: jobs, statuses and targets belong to the caller, and live until volfs_drain returns in every thread. A
 * target must have room for a whole chunk under the strides of its form; after doubt its bytes are undefined.
 * Threads: any number may drain one list at once.
 */
#ifndef VOLFS_CHUNKS_H
#define VOLFS_CHUNKS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { VOLFS_MAX_AXES = 8 };

enum volfs_compressor { VOLFS_PLAIN, VOLFS_ZSTD, VOLFS_BLOSC };

/* How all chunks of a list are stored, and how each lies in its target. */
struct volfs_form {
    int axes;
    int64_t shape[VOLFS_MAX_AXES];   /* in the order in which voxels are stored, slowest first */
    int64_t strides[VOLFS_MAX_AXES]; /* of the target, in bytes, in the same order */
    int item;                        /* bytes of a voxel: 1, 2, 4 or 8 */
    int swap;                        /* true if they are stored in the other byte order */
    int boolean;                     /* true if no byte may be more than 1 */
    int summed;                      /* true if a crc32c, little-endian, follows the compressed bytes */
    enum volfs_compressor compressor;
};

/* One chunk: `length` bytes at `offset` of an open file, whose crc32c is known. */
struct volfs_job {
    int fd;
    uint32_t crc32c;
    int64_t offset, length;
    uint8_t *target;
};

enum volfs_outcome { VOLFS_WAITING, VOLFS_DONE, VOLFS_DOUBT };

struct volfs_list {
    struct volfs_form form;
    struct volfs_job *jobs;
    uint8_t *outcomes; /* one for each job */
    size_t count;
    atomic_size_t next;
};

/* True if chunks of a form can be decoded at all: axes, items and sizes within bounds. */
int volfs_form_valid(const struct volfs_form *form);

/* Bytes of the voxels of one chunk. */
int64_t volfs_form_bytes(const struct volfs_form *form);

/* The most bytes that a payload of one chunk may take. */
int64_t volfs_form_bound(const struct volfs_form *form);

/* Decode the list's next chunks until there are none left, or `stop` is not zero (it may be NULL). Blocks: reads
 * files. Returns how many chunks were done. */
size_t volfs_drain(struct volfs_list *list, const atomic_int *stop);

struct ZSTD_DCtx_s;

/* Decode one payload that is in memory: what volfs_drain does with each. `scratch` has room for the voxels of a chunk;
 * `zstd` is used by one thread at a time, and NULL where a context is to be made. Returns VOLFS_DONE or VOLFS_DOUBT. */
enum volfs_outcome volfs_decode(const struct volfs_form *form, const uint8_t *payload, size_t length, uint8_t *target,
    uint8_t *scratch, struct ZSTD_DCtx_s *zstd);

#endif
