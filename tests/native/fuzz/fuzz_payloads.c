/* Voxels of any bytes in chunks of any form: what is made of them decodes to them, and nothing else is read. */
#include "input.h"
#include "payloads.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int loaded = -1;
    static const int items[] = {1, 2, 4, 8};
    static const char *const inner[] = {"lz4", "blosclz", "zstd"};
    if (loaded < 0)
        loaded = volfs_payloads_load("libzstd.so.1", "libblosc.so.1", "libcrypto.so.3");
    assert(loaded);
    struct input input = {data, size};
    struct volfs_encoding how = {0};
    how.form.axes = (int)between(&input, 0, 4);
    how.form.item = items[between(&input, 0, 3)];
    uint64_t flags = take(&input, 1);
    how.form.swap = flags & 1;
    how.form.summed = (flags & 2) != 0;
    how.form.compressor = (enum volfs_compressor)between(&input, 0, 2);
    how.level = (int)between(&input, 0, 6) - 2;
    how.checksum = (flags & 4) != 0;
    how.effort = (int)between(&input, 0, 9);
    how.shuffle = (int)between(&input, 0, 2);
    how.type_size = (int)between(&input, 1, 9);
    how.block_size = (size_t)between(&input, 0, 600);
    strcpy(how.compressor, inner[between(&input, 0, 2)]);
    for (int byte = 0; byte < how.form.item; byte++)
        how.fill[byte] = flags & 8 ? 0x41 : 0;
    /* The source: as large as a chunk or larger, its axes in any order. */
    int64_t room[VOLFS_MAX_AXES], strides[VOLFS_MAX_AXES] = {0};
    int order[VOLFS_MAX_AXES] = {0, 1, 2, 3};
    for (int axis = 0; axis < how.form.axes; axis++) {
        how.form.shape[axis] = between(&input, 0, 13);
        room[axis] = between(&input, 1, 15);
    }
    struct volfs_maker *maker = volfs_maker_new(&how);
    if (!maker)
        return 0;
    for (int axis = how.form.axes - 1; axis > 0; axis--) {
        int other = (int)between(&input, 0, axis), kept = order[axis];
        order[axis] = order[other];
        order[other] = kept;
    }
    int64_t bytes = how.form.item * (flags & 0x80 ? 2 : 1);
    for (int i = how.form.axes - 1; i >= 0; i--) {
        strides[order[i]] = bytes;
        bytes *= room[order[i]];
    }
    uint8_t *voxels = malloc((size_t)bytes);
    assert(voxels);
    for (int64_t i = 0; i < bytes; i++)
        voxels[i] = flags & 0x10 ? 0x41 : (uint8_t)take(&input, 1);
    struct volfs_source chunks[3];
    struct volfs_payload payloads[3];
    size_t count = (size_t)between(&input, 1, 3);
    for (size_t i = 0; i < count; i++) {
        chunks[i].voxels = voxels;
        for (int axis = 0; axis < how.form.axes; axis++) {
            int64_t start = between(&input, 0, room[axis] - 1), left = room[axis] - start;
            chunks[i].voxels += start * strides[axis];
            chunks[i].shape[axis] = left < how.form.shape[axis] ? left : how.form.shape[axis];
        }
    }
    struct volfs_workspace *workspace = volfs_workspace_take(maker);
    assert(workspace);
    volfs_encode(maker, workspace, strides, chunks, count, payloads);
    size_t total;
    const uint8_t *made = volfs_workspace_bytes(workspace, &total);
    struct volfs_form form = how.form;
    int64_t chunk = form.item;
    for (int axis = form.axes - 1; axis >= 0; axis--) {
        form.strides[axis] = chunk;
        chunk *= form.shape[axis];
    }
    uint8_t *decoded = malloc((size_t)chunk), *scratch = malloc((size_t)chunk);
    assert(decoded && scratch);
    for (size_t i = 0; i < count; i++) {
        if (payloads[i].outcome != VOLFS_DONE || !payloads[i].length)
            continue;
        assert((size_t)(payloads[i].offset + payloads[i].length) <= total);
        assert(volfs_decode(&form, made + payloads[i].offset, (size_t)payloads[i].length, decoded, scratch, NULL) == VOLFS_DONE);
        int64_t from = 0, to = 0; /* the last voxel of those that are there */
        for (int axis = 0; axis < form.axes; axis++) {
            from += (chunks[i].shape[axis] - 1) * strides[axis];
            to += (chunks[i].shape[axis] - 1) * form.strides[axis];
        }
        assert(memcmp(decoded, chunks[i].voxels, (size_t)form.item) == 0);
        assert(memcmp(decoded + to, chunks[i].voxels + from, (size_t)form.item) == 0);
    }
    free(decoded);
    free(scratch);
    volfs_workspace_give(maker, workspace);
    volfs_maker_free(maker);
    free(voxels);
    return 0;
}
