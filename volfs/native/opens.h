/* Which files are open, as the kernel's requests tell.
 *
 * Decided here: nothing. Every OPEN and RELEASE is counted, whoever answers it. An OPEN that fails is not told of, and
 * counts for ever; of more files than there is room for, all count as open from then on. So what is not open here is not
 * open, and nobody reads it.
 *
 * Memory: the owner's. Threads: one at a time.
 */
#ifndef VOLFS_OPENS_H
#define VOLFS_OPENS_H

#include <stddef.h>
#include <stdint.h>

enum { VOLFS_OPENS = 8192 }; /* a power of two; half of them are used */

struct volfs_opens {
    struct {
        uint64_t inode; /* 0: free */
        uint64_t count;
    } files[VOLFS_OPENS];
    size_t used;
    int lost; /* true once there was no room */
};

/* Count an OPEN. */
void volfs_opens_add(struct volfs_opens *opens, uint64_t inode);

/* Count a RELEASE. No effect if no OPEN of it was counted. */
void volfs_opens_remove(struct volfs_opens *opens, uint64_t inode);

/* True if a file may be open. */
int volfs_opens_has(const struct volfs_opens *opens, uint64_t inode);

#endif
