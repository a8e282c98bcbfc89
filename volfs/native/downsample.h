/* The next coarser level of voxels in memory, as volume/downsample.py says what one coarse voxel is.
 *
 * Decided here: which types, methods and factors are done in C. What is not is left to Python.
 * Memory: the caller's; a row of sums lives as long as a call. Threads: any.
 */
#ifndef VOLFS_DOWNSAMPLE_H
#define VOLFS_DOWNSAMPLE_H

#include "chunks.h"

#include <stdint.h>

enum volfs_method { VOLFS_MEAN, VOLFS_MODE };

/* Fine voxels and coarse ones. Factors are 1 or 2; a coarse axis is as long as the fine one divided by its factor,
 * rounded up. Strides in bytes; along the last axis voxels lie side by side. */
struct volfs_reduction {
    int axes;
    int64_t shape[VOLFS_MAX_AXES]; /* of the fine voxels */
    int factors[VOLFS_MAX_AXES];
    const uint8_t *from;
    int64_t from_strides[VOLFS_MAX_AXES];
    uint8_t *to;
    int64_t to_strides[VOLFS_MAX_AXES];
    char kind; /* of numpy's: 'b', 'i', 'u' or 'f' */
    int item;
};

/* True if it is done; false, with nothing written, if it is not done here. */
int volfs_downsample(const struct volfs_reduction *reduction, enum volfs_method method);

#endif
