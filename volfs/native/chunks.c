#include "chunks.h"

#include "bytes.h"
#include "sums.h"

#include <blosc.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

/* No chunk that is decoded here has more voxels than these bytes; larger ones go the long way. */
#define MOST_BYTES ((int64_t)1 << 30)

int64_t volfs_form_bytes(const struct volfs_form *form)
{
    int64_t bytes = form->item;
    for (int axis = 0; axis < form->axes; axis++)
        bytes *= form->shape[axis];
    return bytes;
}

/* Writers may cut blocks small. */
int64_t volfs_form_bound(const struct volfs_form *form) { return 2 * volfs_form_bytes(form) + 65536 + 8; }

int volfs_form_valid(const struct volfs_form *form)
{
    if (form->axes < 1 || form->axes > VOLFS_MAX_AXES)
        return 0;
    if (form->item != 1 && form->item != 2 && form->item != 4 && form->item != 8)
        return 0;
    int64_t bytes = form->item;
    for (int axis = 0; axis < form->axes; axis++) {
        if (form->shape[axis] < 1 || form->shape[axis] > MOST_BYTES / bytes)
            return 0;
        bytes *= form->shape[axis];
    }
    return 1;
}

/* ---------------------------------------------------------------- compressed bytes to voxels */

/* RFC 8878: one whole frame with its content size, no dictionary, nothing before or after it. */
static int zstd_decode(const uint8_t *data, size_t length, uint8_t *out, size_t size, ZSTD_DCtx *zstd)
{
    static const uint8_t magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    if (length < 5 || memcmp(data, magic, 4) != 0)
        return 0;
    if (ZSTD_getFrameContentSize(data, length) != size || ZSTD_getDictID_fromFrame(data, length) != 0)
        return 0;
    if (ZSTD_findFrameCompressedSize(data, length) != length)
        return 0;
    return (zstd ? ZSTD_decompressDCtx(zstd, out, size, data, length) : ZSTD_decompress(out, size, data, length)) == size;
}

/* The Blosc 1 container (c-blosc, README_CHUNK_FORMAT.rst): its header must agree with itself and with the sizes
 * before the library sees it, which trusts it more than it should. */
static int blosc_decode(const uint8_t *data, size_t length, uint8_t *out, size_t size)
{
    if (length < 16)
        return 0;
    uint32_t bytes = volfs_little_u32(data + 4), block = volfs_little_u32(data + 8), stored = volfs_little_u32(data + 12);
    if ((data[0] != 1 && data[0] != 2) || data[3] == 0 || (data[2] & 0x08) || stored != length || bytes != size)
        return 0;
    if (data[2] & 0x02) { /* not compressed */
        if (length != size + 16)
            return 0;
    } else {
        if (block == 0 || block > bytes)
            return 0;
        size_t blocks = (bytes + (size_t)block - 1) / block, first = 16 + 4 * blocks;
        if (first > length)
            return 0;
        for (size_t i = 0; i < blocks; i++) {
            uint32_t start = volfs_little_u32(data + 16 + 4 * i);
            if (start < first || start > length - 4)
                return 0;
        }
    }
    return blosc_decompress_ctx(data, out, size, 1) == (int)size;
}

/* ---------------------------------------------------------------- voxels to their place */

/* Eight rows of eight bytes become eight columns. */
static void transpose8(const uint8_t *from, int64_t from_row, uint8_t *to, int64_t to_row)
{
    uint64_t rows[8];
    for (int i = 0; i < 8; i++)
        memcpy(&rows[i], from + i * from_row, 8);
    for (int column = 0; column < 8; column++) {
        uint8_t out[8];
        for (int row = 0; row < 8; row++)
            memcpy(&out[row], (const uint8_t *)&rows[row] + column, 1);
        memcpy(to + column * to_row, out, 8);
    }
}

#define SCATTER(TYPE, SWAP)                                                                                            \
    for (int64_t a = 0; a < n; a++)                                                                                    \
        for (int64_t b = 0; b < m; b++) {                                                                              \
            TYPE v;                                                                                                    \
            memcpy(&v, from + a * from_a + b * (int64_t)sizeof v, sizeof v);                                           \
            if (swap)                                                                                                  \
                v = SWAP(v);                                                                                           \
            memcpy(to + a * to_a + b * to_b, &v, sizeof v);                                                            \
        }

/* A matrix of n × m voxels, rows stored side by side, to anywhere. */
static void scatter_tile(const uint8_t *from, int64_t from_a, uint8_t *to, int64_t to_a, int64_t to_b, int64_t n, int64_t m,
    int item, int swap)
{
    if (item == 1 && to_a == 1) {
        int64_t a = 0;
        for (; a + 8 <= n; a += 8) {
            int64_t b = 0;
            for (; b + 8 <= m; b += 8)
                transpose8(from + a * from_a + b, from_a, to + a + b * to_b, to_b);
            for (; b < m; b++)
                for (int64_t i = a; i < a + 8; i++)
                    to[i + b * to_b] = from[i * from_a + b];
        }
        for (; a < n; a++)
            for (int64_t b = 0; b < m; b++)
                to[a + b * to_b] = from[a * from_a + b];
        return;
    }
    switch (item) {
    case 1:
        for (int64_t a = 0; a < n; a++)
            for (int64_t b = 0; b < m; b++)
                to[a * to_a + b * to_b] = from[a * from_a + b];
        return;
    case 2: SCATTER(uint16_t, __builtin_bswap16) return;
    case 4: SCATTER(uint32_t, __builtin_bswap32) return;
    default: SCATTER(uint64_t, __builtin_bswap64) return;
    }
}

/* Rows of voxels, as they are stored, to their places. */
static void place(const struct volfs_form *form, const uint8_t *from, uint8_t *to)
{
    const int last = form->axes - 1, item = form->item, swap = form->swap && item > 1;
    const int64_t run = form->shape[last];
    int64_t at[VOLFS_MAX_AXES] = {0};
    if (form->strides[last] == item) {
        for (;;) {
            if (swap)
                volfs_swap(to, from, run * item, item);
            else
                memcpy(to, from, (size_t)(run * item));
            from += run * item;
            int axis = last - 1;
            for (; axis >= 0; axis--) {
                to += form->strides[axis];
                if (++at[axis] < form->shape[axis])
                    break;
                to -= at[axis] * form->strides[axis];
                at[axis] = 0;
            }
            if (axis < 0)
                return;
        }
    }
    /* Voxels that are neighbours as they are stored come apart. With them goes the axis along which those that come
     * to lie side by side are stored: tiles of both stay in the processor's caches. */
    int side = last ? last - 1 : 0;
    for (int axis = 0; axis < last; axis++)
        if (form->strides[axis] == item)
            side = axis;
    int64_t stored[VOLFS_MAX_AXES], size = item;
    for (int axis = last; axis >= 0; axis--) {
        stored[axis] = size;
        size *= form->shape[axis];
    }
    const int64_t sides = last ? form->shape[side] : 1;
    for (;;) {
        for (int64_t b = 0; b < run; b += 32) {
            int64_t m = run - b < 32 ? run - b : 32;
            scatter_tile(from + b * item, stored[side], to + b * form->strides[last], last ? form->strides[side] : 0,
                form->strides[last], sides, m, item, swap);
        }
        int axis = last - 1;
        for (; axis >= 0; axis--) {
            if (axis == side)
                continue;
            to += form->strides[axis];
            from += stored[axis];
            if (++at[axis] < form->shape[axis])
                break;
            to -= at[axis] * form->strides[axis];
            from -= at[axis] * stored[axis];
            at[axis] = 0;
        }
        if (axis < 0)
            return;
    }
}

/* True if a chunk's voxels lie in the target as they are stored. */
static int straight(const struct volfs_form *form)
{
    int64_t stride = form->item;
    for (int axis = form->axes - 1; axis >= 0; axis--) {
        if (form->shape[axis] > 1 && form->strides[axis] != stride)
            return 0;
        stride *= form->shape[axis];
    }
    return !form->swap || form->item == 1;
}

static int all_boolean(const uint8_t *data, size_t size)
{
    uint8_t seen = 0;
    for (size_t i = 0; i < size; i++)
        seen |= data[i];
    return seen <= 1;
}

enum volfs_outcome volfs_decode(const struct volfs_form *form, const uint8_t *payload, size_t length, uint8_t *target,
    uint8_t *scratch, ZSTD_DCtx *zstd)
{
    const size_t size = (size_t)volfs_form_bytes(form);
    if (form->summed) {
        if (length < 4 || volfs_crc32c(0, payload, length - 4) != volfs_little_u32(payload + length - 4))
            return VOLFS_DOUBT;
        length -= 4;
    }
    const int direct = straight(form);
    const uint8_t *voxels = direct ? target : scratch;
    switch (form->compressor) {
    case VOLFS_PLAIN:
        if (length != size)
            return VOLFS_DOUBT;
        if (direct)
            memcpy(target, payload, size);
        else
            voxels = payload;
        break;
    case VOLFS_ZSTD:
        if (!zstd_decode(payload, length, direct ? target : scratch, size, zstd))
            return VOLFS_DOUBT;
        break;
    case VOLFS_BLOSC:
        if (!blosc_decode(payload, length, direct ? target : scratch, size))
            return VOLFS_DOUBT;
        break;
    }
    if (form->boolean && !all_boolean(voxels, size))
        return VOLFS_DOUBT;
    if (!direct)
        place(form, voxels, target);
    return VOLFS_DONE;
}

/* ---------------------------------------------------------------- lists */

static int read_all(int fd, uint8_t *to, int64_t length, int64_t offset)
{
    while (length > 0) {
        ssize_t got = pread(fd, to, (size_t)length, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        to += got;
        offset += got;
        length -= got;
    }
    return 1;
}

size_t volfs_drain(struct volfs_list *list, const atomic_int *stop)
{
    if (atomic_load_explicit(&list->next, memory_order_relaxed) >= list->count)
        return 0; /* others were faster: nothing to make room for */
    const int64_t size = volfs_form_bytes(&list->form);
    uint8_t *scratch = straight(&list->form) ? NULL : malloc((size_t)size), *payload = NULL;
    /* One for the list, and not one for the thread: what waits for work keeps no memory. */
    ZSTD_DCtx *zstd = list->form.compressor == VOLFS_ZSTD ? ZSTD_createDCtx() : NULL;
    int64_t room = 0;
    size_t done = 0, index;
    while ((!stop || !atomic_load_explicit(stop, memory_order_relaxed))
        && (index = atomic_fetch_add_explicit(&list->next, 1, memory_order_relaxed)) < list->count) {
        const struct volfs_job *job = &list->jobs[index];
        list->outcomes[index] = VOLFS_DOUBT;
        if (job->length < 0 || job->length > volfs_form_bound(&list->form) || (!scratch && !straight(&list->form)))
            continue;
        if (job->length > room) {
            free(payload);
            room = job->length + job->length / 4;
            payload = malloc((size_t)room);
            if (!payload)
                room = 0;
        }
        if (!payload || !read_all(job->fd, payload, job->length, job->offset))
            continue;
        if (volfs_crc32c(0, payload, (size_t)job->length) != job->crc32c)
            continue;
        list->outcomes[index] = volfs_decode(&list->form, payload, (size_t)job->length, job->target, scratch, zstd);
        done += list->outcomes[index] == VOLFS_DONE;
    }
    ZSTD_freeDCtx(zstd);
    free(payload);
    free(scratch);
    return done;
}
