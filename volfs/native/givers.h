/* Threads that give files to the kernel before they are opened.
 *
 * Decided here: which thread gives which file, and in which order: that in which they were wanted. Not here: which files,
 * and their bytes (front.h).
 *
 * The kernel makes whoever gives it pages wait for those who read them. So nobody may be told that a file is open before
 * volfs_givers_settle has returned: then no giver can come to wait for a reader.
 *
 * Memory: the owner's until volfs_givers_free, which waits for the threads. Threads: any.
 */
#ifndef VOLFS_GIVERS_H
#define VOLFS_GIVERS_H

#include <stdint.h>

struct volfs_givers;

/* Gives a file to the kernel, on a thread of the givers, which ends with `leave`. */
struct volfs_giving {
    void *owner;
    void (*give)(void *owner, uint64_t inode, int device);
    void (*leave)(void);
};

/* NULL if there is no memory. Threads begin when they are first wanted. */
struct volfs_givers *volfs_givers_new(struct volfs_giving giving);
void volfs_givers_free(struct volfs_givers *givers);

/* Have a file given soon. No effect if it is about to be, or too many are. */
void volfs_givers_want(struct volfs_givers *givers, uint64_t inode, int device);

/* Have a file not be given unless it is wanted again, and wait until nobody gives it. */
void volfs_givers_settle(struct volfs_givers *givers, uint64_t inode);

/* End the threads; nothing is given from now on. */
void volfs_givers_stop(struct volfs_givers *givers);

#endif
