/* Files of any numbers: a file read in pieces, in any order, is the file read at once. */
#include "input.h"
#include "pictures.h"

#include <assert.h>
#include <stdlib.h>

enum { MOST = 1 << 18 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    static const int items[] = {1, 2, 4, 8};
    const uint8_t header[64] = "a header IDAT..", fill[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint64_t flags = take(&input, 1);
    enum volfs_framing framing = flags & 1 ? VOLFS_PNG : VOLFS_ROWS;
    int item = items[flags >> 1 & 3];
    int64_t rows = between(&input, 0, 40), columns = between(&input, 0, flags & 0x80 ? 20000 : 200);
    int64_t planes = framing == VOLFS_PNG ? 1 : between(&input, 1, 4), row_bytes = columns * item;
    struct volfs_picture *picture = volfs_picture_new(framing, rows, row_bytes, item, flags >> 3 & 1, fill, planes, header,
        between(&input, 0, 30), header, between(&input, 0, 30));
    if (!picture)
        return 0;
    if (picture->size > MOST) {
        volfs_picture_free(picture);
        return 0;
    }
    /* Two rows of pieces, two in each, of which the last may be fill. */
    int64_t down = rows > 1 ? between(&input, 1, rows - 1) : rows, across = columns > 1 ? between(&input, 1, columns - 1) : columns;
    uint8_t *memory = malloc((size_t)(planes * rows * row_bytes));
    assert(memory);
    for (int64_t i = 0; i < planes * rows * row_bytes; i++)
        memory[i] = (uint8_t)(i * 7 + (i >> 8));
    struct volfs_piece pieces[4];
    size_t count = 0;
    for (int64_t row = 0; row < rows; row = row ? rows : down)
        for (int64_t column = 0; column < columns; column = column ? columns : across)
            pieces[count++] = (struct volfs_piece){memory + row * row_bytes + column * item, rows * row_bytes, row_bytes, row,
                row ? rows - row : down, column * item, (column ? columns - column : across) * item};
    if (flags & 0x10)
        pieces[count - 1].memory = NULL;
    struct volfs_plane shown[4];
    for (int64_t i = 0; i < planes; i++)
        shown[i] = (struct volfs_plane){pieces, count, i};
    uint8_t *whole = malloc((size_t)picture->size);
    assert(whole);
    struct volfs_sums sums;
    volfs_sums_begin(picture, &sums);
    volfs_picture_read(picture, shown, 0, 0, picture->size, whole, &sums);
    volfs_sums_begin(picture, &sums);
    for (int read = 0; read < 16 && input.size; read++) {
        int64_t offset = (int64_t)(take(&input, 3) % (uint64_t)(picture->size + 1)), first = 0, last = -1;
        int64_t length = (int64_t)(take(&input, 3) % (uint64_t)(picture->size - offset + 1));
        uint8_t *piece = malloc((size_t)length + 1);
        assert(piece);
        if (!volfs_picture_planes(picture, offset, length, &first, &last))
            first = 0;
        assert(first >= 0 && last < planes && volfs_picture_backlog(picture, offset, length, &sums) >= 0);
        volfs_picture_read(picture, shown + first, first, offset, length, piece, &sums);
        assert(memcmp(piece, whole + offset, (size_t)length) == 0);
        free(piece);
    }
    free(whole);
    free(memory);
    volfs_picture_free(picture);
    return 0;
}
