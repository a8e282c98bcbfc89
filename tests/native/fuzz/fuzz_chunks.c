/* Payloads of any bytes, of chunks of any form: decoded into the target and nowhere else, or in doubt. */
#include "chunks.h"
#include "input.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    static const int items[] = {1, 2, 4, 8};
    struct volfs_form form = {0};
    form.axes = (int)between(&input, 0, 4);
    form.item = items[between(&input, 0, 3)];
    uint64_t flags = take(&input, 1);
    form.swap = flags & 1;
    form.boolean = form.item == 1 && flags & 2;
    form.summed = (flags & 4) != 0;
    form.compressor = (enum volfs_compressor)(flags >> 3 & 3);
    if (form.compressor > VOLFS_BLOSC)
        form.compressor = VOLFS_BLOSC;
    for (int axis = 0; axis < form.axes; axis++)
        form.shape[axis] = between(&input, 0, 17);
    if (!volfs_form_valid(&form))
        return 0;
    /* Any order of the axes in memory, with a gap now and then. */
    int order[VOLFS_MAX_AXES] = {0, 1, 2, 3};
    for (int axis = form.axes - 1; axis > 0; axis--) {
        int other = (int)between(&input, 0, axis), kept = order[axis];
        order[axis] = order[other];
        order[other] = kept;
    }
    int64_t stride = form.item * (flags & 0x80 ? 2 : 1);
    for (int i = form.axes - 1; i >= 0; i--) {
        form.strides[order[i]] = stride;
        stride *= form.shape[order[i]];
    }
    uint8_t *target = malloc((size_t)stride), *scratch = malloc((size_t)volfs_form_bytes(&form));
    uint8_t *payload = malloc(input.size ? input.size : 1);
    assert(target && scratch && payload);
    memset(target, 0xa5, (size_t)stride);
    memcpy(payload, input.data, input.size);
    enum volfs_outcome outcome = volfs_decode(&form, payload, input.size, target, scratch, NULL);
    assert(outcome == VOLFS_DONE || outcome == VOLFS_DOUBT);
    if (outcome == VOLFS_DONE && form.boolean)
        for (int64_t i = 0; i < stride; i += form.strides[order[form.axes - 1]])
            assert(target[i] <= 1);
    free(payload);
    free(scratch);
    free(target);
    return 0;
}
