/* Payloads to be stored, many at once: made of voxels or read from files, one after the other in one piece of memory,
 * each with its sums.
 *
 * Decided here: how voxels become a payload, and which chunks need none (every voxel has the very bits of the fill
 * value). Equal voxels give equal bytes whether C or Python encodes them: the compressors are the functions that
 * numcodecs runs, and SHA-256 is the one that hashlib runs, found in the libraries that these have loaded. A payload in
 * doubt (no memory, a file that cannot be read, one that does not decode) is not explained: the caller takes the long
 * way, which names the error.
 *
 * Memory: a maker owns its workspaces; one that was taken is its taker's until it is given back, and with it the payloads
 * in it. Voxels, paths and results are the caller's.
 * Threads: any number may use one maker, each with a workspace of its own.
 */
#ifndef VOLFS_PAYLOADS_H
#define VOLFS_PAYLOADS_H

#include "chunks.h"

#include <stddef.h>
#include <stdint.h>

/* Find functions in the libraries at these paths; NULL for one that is not there. `zstd` and `blosc` are modules of
 * numcodecs, `sums` is what hashlib runs. True if SHA-256 was found, without which nothing is made here. To be called
 * once, before all others, and before another zstd or blosc is loaded with RTLD_GLOBAL. */
int volfs_payloads_load(const char *zstd, const char *blosc, const char *sums);

/* True if chunks can be compressed so. */
int volfs_payloads_can(enum volfs_compressor compressor);

/* How all chunks of an array are made. */
struct volfs_encoding {
    struct volfs_form form; /* its strides and `boolean` say nothing here */
    uint8_t fill[8];        /* the fill value, in this machine's byte order */
    int level, checksum;    /* of zstd */
    char compressor[12];    /* of blosc: its inner compressor */
    int effort, shuffle, type_size;
    size_t block_size;
};

/* A chunk: its first voxel, and how many there are of it along each axis, in the order of the form. The others, beyond
 * the array's edge, are fill value. */
struct volfs_source {
    const uint8_t *voxels;
    int64_t shape[VOLFS_MAX_AXES];
};

/* A payload: `length` bytes at `offset` of the workspace. All fill: done, with no bytes. */
struct volfs_payload {
    int64_t offset, length;
    uint32_t crc32c;
    uint8_t sha256[32];
    uint8_t outcome; /* VOLFS_DONE or VOLFS_DOUBT */
};

struct volfs_maker;
struct volfs_workspace;

/* `encoding`: NULL for one that only reads files. NULL if such chunks are not made here, or there is no memory. */
struct volfs_maker *volfs_maker_new(const struct volfs_encoding *encoding);

/* All workspaces must have been given back. */
void volfs_maker_free(struct volfs_maker *maker);

/* An empty workspace; NULL if there is no memory. */
struct volfs_workspace *volfs_workspace_take(struct volfs_maker *maker);
void volfs_workspace_give(struct volfs_maker *maker, struct volfs_workspace *workspace);

/* The payloads in a workspace, as long as nothing is added to it. */
const uint8_t *volfs_workspace_bytes(const struct volfs_workspace *workspace, size_t *size);

/* Encode chunks into a workspace. `strides`: of the source's memory, in bytes, in the order of the form. */
void volfs_encode(const struct volfs_maker *maker, struct volfs_workspace *workspace, const int64_t *strides,
    const struct volfs_source *chunks, size_t count, struct volfs_payload *payloads);

/* Read whole files into a workspace, those that are ordinary ones, not empty, and fit into `most` bytes together. Blocks. */
void volfs_read_files(
    struct volfs_workspace *workspace, const char *const *paths, size_t count, int64_t most, struct volfs_payload *payloads);

/* See if each file is a chunk of a form, whose strides say nothing: outcomes are VOLFS_DONE or VOLFS_DOUBT. Blocks. */
void volfs_check_files(const struct volfs_form *form, const char *const *paths, size_t count, uint8_t *outcomes);

/* CRC-32C of each 1 MiB of a payload, and of the rest. */
enum { VOLFS_PIECE = 1 << 20 };
void volfs_piece_sums(const uint8_t *payload, int64_t length, uint32_t *sums);

#endif
