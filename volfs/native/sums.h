/* Checksums of bytes in memory. Decided here: which implementation a processor gets. No state, any thread. */
#ifndef VOLFS_SUMS_H
#define VOLFS_SUMS_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli) of `size` bytes that follow those which gave `before` (0 for none). */
uint32_t volfs_crc32c(uint32_t before, const uint8_t *data, size_t size);

/* The same by tables, on any processor: what the one above is compared with. */
uint32_t volfs_crc32c_plain(uint32_t before, const uint8_t *data, size_t size);

/* CRC-32 (ISO 3309, of PNG) of bytes that follow those which gave `before` (0 for none). */
uint32_t volfs_crc32(uint32_t before, const uint8_t *data, size_t size);

/* Adler-32 (RFC 1950) of bytes that follow those which gave `before` (1 for none). */
uint32_t volfs_adler32(uint32_t before, const uint8_t *data, size_t size);

#endif
