/* Byte orders, and places in tables. Any thread, no state; memory is the caller's. */
#ifndef VOLFS_BYTES_H
#define VOLFS_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t volfs_little_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

#define VOLFS_SWAP_ALL(TYPE, SWAP)                                                                                     \
    for (int64_t i = 0; i < bytes; i += (int64_t)sizeof(TYPE)) {                                                       \
        TYPE v;                                                                                                        \
        memcpy(&v, from + i, sizeof v);                                                                                \
        v = SWAP(v);                                                                                                   \
        memcpy(to + i, &v, sizeof v);                                                                                  \
    }

/* Copy `bytes` bytes of items of 2, 4 or 8 bytes, each in the other byte order. */
static inline void volfs_swap(uint8_t *to, const uint8_t *from, int64_t bytes, int item)
{
    switch (item) {
    case 2: VOLFS_SWAP_ALL(uint16_t, __builtin_bswap16) return;
    case 4: VOLFS_SWAP_ALL(uint32_t, __builtin_bswap32) return;
    default: VOLFS_SWAP_ALL(uint64_t, __builtin_bswap64)
    }
}

#undef VOLFS_SWAP_ALL

/* The place of a number among `places` of them, a power of two: numbers that follow each other lie apart. */
static inline size_t volfs_spread(uint64_t number, uint64_t places)
{
    return (size_t)(number * 0x9e3779b97f4a7c15u >> (64 - __builtin_ctzll(places)));
}

#endif
