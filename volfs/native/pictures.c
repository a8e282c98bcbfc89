#include "pictures.h"

#include "bytes.h"
#include "sums.h"

#include <stdlib.h>
#include <string.h>

/* RFC 1951, 3.2.4: a stored block holds so many bytes, after a header of its own. */
enum { BLOCK = 65535, HEADER = 5 };
/* Bytes put together at a time: for sums of what nobody asked for, and to swap. */
enum { STEP = 1 << 16 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t plane_bytes(const struct volfs_picture *picture)
{
    return picture->rows * (picture->row_bytes + (picture->framing == VOLFS_PNG));
}

struct volfs_picture *volfs_picture_new(enum volfs_framing framing, int64_t rows, int64_t row_bytes, int item, int swap,
    const uint8_t *fill, int64_t planes, const uint8_t *prefix, int64_t prefix_size, const uint8_t *suffix,
    int64_t suffix_size)
{
    const int64_t limit = INT64_MAX / 8;
    if (rows < 1 || row_bytes < 1 || planes < 1 || prefix_size < 0 || suffix_size < 0)
        return NULL;
    if ((item != 1 && item != 2 && item != 4 && item != 8) || row_bytes % item)
        return NULL;
    if (row_bytes >= limit / rows || rows * (row_bytes + 1) > limit / planes)
        return NULL;
    if (framing == VOLFS_PNG && (planes != 1 || prefix_size < 6))
        return NULL;
    struct volfs_picture *picture = calloc(1, sizeof *picture);
    if (!picture)
        return NULL;
    picture->prefix = malloc((size_t)prefix_size + 1);
    picture->suffix = malloc((size_t)suffix_size + 1);
    if (!picture->prefix || !picture->suffix) {
        volfs_picture_free(picture);
        return NULL;
    }
    memcpy(picture->prefix, prefix, (size_t)prefix_size);
    memcpy(picture->suffix, suffix, (size_t)suffix_size);
    memcpy(picture->fill, fill, (size_t)item);
    picture->framing = framing;
    picture->rows = rows;
    picture->row_bytes = row_bytes;
    picture->item = item;
    picture->swap = swap && item > 1;
    picture->planes = planes;
    picture->prefix_size = prefix_size;
    picture->suffix_size = suffix_size;
    picture->body = plane_bytes(picture) * planes;
    if (framing == VOLFS_PNG)
        picture->body += HEADER * ((picture->body + BLOCK - 1) / BLOCK);
    picture->size = prefix_size + picture->body + (framing == VOLFS_PNG ? 8 : 0) + suffix_size;
    return picture;
}

void volfs_picture_free(struct volfs_picture *picture)
{
    if (!picture)
        return;
    free(picture->prefix);
    free(picture->suffix);
    free(picture);
}

/* ---------------------------------------------------------------- positions */

/* How many bytes of rows come before a position of the body. */
static int64_t rows_before(const struct volfs_picture *picture, int64_t body)
{
    if (picture->framing == VOLFS_ROWS)
        return body;
    int64_t block = body / (BLOCK + HEADER), within = body % (BLOCK + HEADER);
    return least(plane_bytes(picture), block * BLOCK + most(0, within - HEADER));
}

/* The part of a range that lies in the body, in positions of the body. */
static void within_body(const struct volfs_picture *picture, int64_t offset, int64_t length, int64_t *low, int64_t *high)
{
    *low = least(picture->body, most(0, offset - picture->prefix_size));
    *high = least(picture->body, most(*low, offset + length - picture->prefix_size));
}

/* True if a range has bytes of the sums that follow a PNG's body. */
static int wants_sums(const struct volfs_picture *picture, int64_t offset, int64_t length)
{
    int64_t end = picture->prefix_size + picture->body;
    return picture->framing == VOLFS_PNG && offset < end + 8 && offset + length > end;
}

int volfs_picture_planes(const struct volfs_picture *picture, int64_t offset, int64_t length, int64_t *first, int64_t *last)
{
    int64_t low, high;
    within_body(picture, offset, length, &low, &high);
    if (wants_sums(picture, offset, length)) {
        *first = *last = 0;
        return 1;
    }
    if (high <= low)
        return 0;
    if (picture->framing == VOLFS_PNG) {
        *first = *last = 0;
    } else {
        *first = low / plane_bytes(picture);
        *last = (high - 1) / plane_bytes(picture);
    }
    return 1;
}

int64_t volfs_picture_voxels(const struct volfs_picture *picture, int64_t offset, int64_t length)
{
    int64_t low, high;
    within_body(picture, offset, length, &low, &high);
    low = rows_before(picture, low);
    high = rows_before(picture, high);
    if (picture->framing == VOLFS_ROWS)
        return high - low;
    const int64_t period = picture->row_bytes + 1; /* a zero byte begins each row */
    return high - low - ((high + period - 1) / period - (low + period - 1) / period);
}

int64_t volfs_picture_backlog(const struct volfs_picture *picture, int64_t offset, int64_t length, const struct volfs_sums *sums)
{
    int64_t low, high;
    if (!wants_sums(picture, offset, length))
        return 0;
    within_body(picture, offset, length, &low, &high);
    return sums->done >= low ? 0 : low - sums->done;
}

/* ---------------------------------------------------------------- rows */

/* Where bytes of a body are put: those from `low` to `high` of it, at `out`. */
struct window {
    const struct volfs_picture *picture;
    int64_t low, high;
    uint8_t *out;
};

/* Put bytes that come after `at` bytes of rows. NULL stands for zeros. */
static void put(const struct window *window, int64_t at, const uint8_t *from, int64_t count)
{
    while (count > 0) {
        int64_t here = count, body = at;
        if (window->picture->framing == VOLFS_PNG) {
            int64_t block = at / BLOCK;
            here = least(count, (block + 1) * BLOCK - at);
            body = at + HEADER * (block + 1);
        }
        int64_t low = most(body, window->low), high = least(body + here, window->high);
        if (low < high) {
            if (from)
                memcpy(window->out + (low - window->low), from + (low - body), (size_t)(high - low));
            else
                memset(window->out + (low - window->low), 0, (size_t)(high - low));
        }
        at += here;
        count -= here;
        if (from)
            from += here;
    }
}

/* Put a run of voxels, swapped or filled if need be. `from` NULL: the fill value. */
static void put_voxels(const struct window *window, int64_t at, const uint8_t *from, int64_t bytes)
{
    const struct volfs_picture *picture = window->picture;
    if (from && !picture->swap) {
        put(window, at, from, bytes);
        return;
    }
    uint8_t buffer[4096];
    if (!from) {
        uint8_t fill[8];
        if (picture->swap)
            volfs_swap(fill, picture->fill, picture->item, picture->item);
        else
            memcpy(fill, picture->fill, (size_t)picture->item);
        for (int64_t i = 0; i < (int64_t)sizeof buffer; i += picture->item)
            memcpy(buffer + i, fill, (size_t)picture->item);
    }
    for (int64_t done = 0; done < bytes; done += (int64_t)sizeof buffer) {
        int64_t here = least(bytes - done, (int64_t)sizeof buffer);
        if (from)
            volfs_swap(buffer, from + done, here, picture->item);
        put(window, at + done, buffer, here);
    }
}

/* Put the rows of one plane that a window shows. `before`: bytes of rows of earlier planes. */
static void put_rows(const struct window *window, const struct volfs_plane *plane, int64_t before)
{
    const struct volfs_picture *picture = window->picture;
    const int64_t zero = picture->framing == VOLFS_PNG, period = picture->row_bytes + zero;
    int64_t low = rows_before(picture, window->low) - before, high = rows_before(picture, window->high) - before;
    low = most(0, low);
    high = least(picture->rows * period, high);
    if (high <= low)
        return;
    const int64_t first = low / period, last = (high - 1) / period;
    for (size_t i = 0; i < plane->count; i++) {
        const struct volfs_piece *piece = &plane->pieces[i];
        int64_t row = most(first, piece->row), stop = least(last + 1, piece->row + piece->rows);
        const uint8_t *from = piece->memory;
        if (from)
            from += plane->plane * piece->plane_stride + (row - piece->row) * piece->row_stride;
        for (; row < stop; row++) {
            int64_t at = before + row * period;
            if (zero && piece->column == 0)
                put(window, at, NULL, 1);
            put_voxels(window, at + zero + piece->column, from, piece->columns);
            if (from)
                from += piece->row_stride;
        }
    }
}

/* Put the headers of stored blocks. */
static void put_headers(const struct window *window)
{
    const int64_t total = plane_bytes(window->picture), period = BLOCK + HEADER;
    for (int64_t block = window->low / period; block * period < window->high; block++) {
        int64_t rest = total - block * BLOCK, size = least(rest, BLOCK), at = block * period;
        if (size <= 0)
            return;
        const uint8_t header[HEADER] = {rest <= BLOCK, (uint8_t)size, (uint8_t)(size >> 8), (uint8_t)~size,
            (uint8_t)(~size >> 8)};
        for (int i = 0; i < HEADER; i++)
            if (at + i >= window->low && at + i < window->high)
                window->out[at + i - window->low] = header[i];
    }
}

static void put_body(const struct window *window, const struct volfs_plane *planes, int64_t first)
{
    const struct volfs_picture *picture = window->picture;
    if (picture->framing == VOLFS_PNG) {
        put_rows(window, &planes[0], 0);
        put_headers(window);
        return;
    }
    const int64_t size = plane_bytes(picture);
    for (int64_t plane = window->low / size; plane * size < window->high; plane++)
        put_rows(window, &planes[plane - first], plane * size);
}

/* ---------------------------------------------------------------- sums */

void volfs_sums_begin(const struct volfs_picture *picture, struct volfs_sums *sums)
{
    sums->done = 0;
    sums->adler32 = 1;
    sums->crc32 = 0;
    if (picture->framing == VOLFS_PNG)
        sums->crc32 = volfs_crc32(0, picture->prefix + picture->prefix_size - 6, 6);
}

/* Sum bytes of a body, as they were put, if they go on where the sums have come to. */
static void sum_up(struct volfs_sums *sums, const struct window *window)
{
    if (sums->done < window->low || sums->done >= window->high)
        return;
    const uint8_t *from = window->out + (sums->done - window->low);
    sums->crc32 = volfs_crc32(sums->crc32, from, (size_t)(window->high - sums->done));
    const int64_t period = BLOCK + HEADER;
    for (int64_t at = sums->done; at < window->high;) {
        int64_t within = at % period;
        if (within < HEADER) {
            at += HEADER - within;
            continue;
        }
        int64_t here = least(period - within, window->high - at);
        sums->adler32 = volfs_adler32(sums->adler32, window->out + (at - window->low), (size_t)here);
        at += here;
    }
    sums->done = window->high;
}

static void big_u32(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 24);
    to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8);
    to[3] = (uint8_t)value;
}

/* ---------------------------------------------------------------- the file */

/* Copy what a part of the file, which begins at `at`, has of a range. */
static void copy_part(const uint8_t *part, int64_t at, int64_t size, int64_t offset, int64_t length, uint8_t *out)
{
    int64_t low = most(at, offset), high = least(at + size, offset + length);
    if (low < high)
        memcpy(out + (low - offset), part + (low - at), (size_t)(high - low));
}

void volfs_picture_read(const struct volfs_picture *picture, const struct volfs_plane *planes, int64_t first, int64_t offset,
    int64_t length, uint8_t *out, struct volfs_sums *sums)
{
    int64_t low, high;
    within_body(picture, offset, length, &low, &high);
    copy_part(picture->prefix, 0, picture->prefix_size, offset, length, out);
    if (low < high) {
        struct window window = {picture, low, high, out + (picture->prefix_size + low - offset)};
        put_body(&window, planes, first);
        if (picture->framing == VOLFS_PNG)
            sum_up(sums, &window);
    }
    if (wants_sums(picture, offset, length)) {
        uint8_t step[STEP], tail[8];
        while (sums->done < picture->body) {
            struct window window = {picture, sums->done, least(picture->body, sums->done + STEP), step};
            put_body(&window, planes, first);
            sum_up(sums, &window);
        }
        big_u32(tail, sums->adler32);
        big_u32(tail + 4, volfs_crc32(sums->crc32, tail, 4));
        copy_part(tail, picture->prefix_size + picture->body, 8, offset, length, out);
    }
    copy_part(picture->suffix, picture->size - picture->suffix_size, picture->suffix_size, offset, length, out);
}
