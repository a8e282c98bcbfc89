/* Files that show decoded planes: which byte of such a file is which.
 *
 * Decided here: how the bytes of any range of a file are put together from a header, rows of voxels and checksums.
 * A file is a prefix, then planes one after the other, then a suffix. The rows of a plane follow each other as they are
 * (VOLFS_ROWS), or as a zlib stream of stored blocks, each row after a zero byte, with the sums that PNG wants
 * (VOLFS_PNG, whose prefix ends with "IDAT" and the two bytes of zlib's header, and whose files have one plane).
 * What formats there are, and their headers, is decided in Python (volfs/views).
 *
 * Memory: a picture owns its prefix and suffix. Voxels belong to whoever lent them. Nothing here allocates but
 * volfs_picture_new. Threads: pictures are never changed, sums belong to one thread at a time.
 */
#ifndef VOLFS_PICTURES_H
#define VOLFS_PICTURES_H

#include <stddef.h>
#include <stdint.h>

enum volfs_framing { VOLFS_ROWS, VOLFS_PNG };

struct volfs_picture {
    enum volfs_framing framing;
    int64_t rows, row_bytes; /* of one plane */
    int item;                /* bytes of a voxel: 1, 2, 4 or 8 */
    int swap;                /* true if the file has them in the other byte order */
    uint8_t fill[8];         /* the voxel where nothing is stored, in the order of memory */
    int64_t planes;
    int64_t body;      /* bytes of all planes with what frames them, checksums left out */
    int64_t size;      /* of the file */
    int64_t prefix_size, suffix_size;
    uint8_t *prefix, *suffix;
};

/* Rows of several planes that lie in one piece of memory. `memory` is where the first row of the first plane begins,
 * NULL if all of it is fill. */
struct volfs_piece {
    const uint8_t *memory;
    int64_t plane_stride, row_stride;
    int64_t row, rows, column, columns; /* which part of a plane; columns in bytes */
};

/* How far the checksums of one file have come: so many bytes of its body. */
struct volfs_sums {
    int64_t done;
    uint32_t crc32, adler32;
};

/* A picture with copies of its prefix and suffix; NULL if there is no memory or the numbers make no file. */
struct volfs_picture *volfs_picture_new(enum volfs_framing framing, int64_t rows, int64_t row_bytes, int item, int swap,
    const uint8_t *fill, int64_t planes, const uint8_t *prefix, int64_t prefix_size, const uint8_t *suffix,
    int64_t suffix_size);
void volfs_picture_free(struct volfs_picture *picture);

/* The planes that a range of a file shows: *first to *last. True if it shows any. */
int volfs_picture_planes(const struct volfs_picture *picture, int64_t offset, int64_t length, int64_t *first, int64_t *last);

/* The bytes of voxels in a range. */
int64_t volfs_picture_voxels(const struct volfs_picture *picture, int64_t offset, int64_t length);

/* Bytes of voxels that must be summed, besides those of the range, before the range can be read. */
int64_t volfs_picture_backlog(const struct volfs_picture *picture, int64_t offset, int64_t length, const struct volfs_sums *sums);

void volfs_sums_begin(const struct volfs_picture *picture, struct volfs_sums *sums);

/* Pieces of one plane: `plane` counts from the first plane that the pieces have. */
struct volfs_plane {
    const struct volfs_piece *pieces; /* by row, then column; together they cover the plane once */
    size_t count;
    int64_t plane;
};

/* Bytes of a file: `length` of them from `offset` on, which exist. planes[i] is plane `first` + i of the file, as
 * volfs_picture_planes says; `sums` goes on where it has come to. */
void volfs_picture_read(const struct volfs_picture *picture, const struct volfs_plane *planes, int64_t first, int64_t offset,
    int64_t length, uint8_t *out, struct volfs_sums *sums);

#endif
