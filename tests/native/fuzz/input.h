/* Numbers and bytes out of what a fuzzer made. */
#ifndef INPUT_H
#define INPUT_H

#include <stdint.h>
#include <stddef.h>
#include <string.h>

struct input {
    const uint8_t *data;
    size_t size;
};

static inline uint64_t take(struct input *input, size_t bytes)
{
    uint64_t value = 0;
    if (bytes > input->size)
        bytes = input->size;
    memcpy(&value, input->data, bytes);
    input->data += bytes;
    input->size -= bytes;
    return value;
}

/* A number from `low` to `high`. */
static inline int64_t between(struct input *input, int64_t low, int64_t high)
{
    return low + (int64_t)(take(input, 2) % (uint64_t)(high - low + 1));
}

#endif
