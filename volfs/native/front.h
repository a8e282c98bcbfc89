/* The front: answers the kernel's OPEN, READ, FLUSH and RELEASE of files that never change, from decoded planes that
 * Python lent it, and gives it the file that will be opened next; OPEN, FLUSH and RELEASE of other files that never
 * change; IOCTL, which no file has; OPENDIR and RELEASEDIR, and of directories that never change so that the kernel may
 * keep the listing; and what files.h has: writes and syncs of files whose descriptors Python lent.
 *
 * Decided here: which requests can be answered wholly and rightly from memory, and their answers. It never waits, reads
 * no disk and decodes nothing (what is written goes to the disk's page cache: see files.h); every other request, and
 * everything that is an error, is left to Python as it came. So nothing can hang here, and whoever asks for what is not
 * lent waits in Python, where waiting is seen and bounded.
 *
 * Words: a *stack* is the planes of one directory of slices, one after the other, of which *slabs* are lent: so many
 * planes as chunks are thick. A *run* is a run of inodes whose files show planes of one stack in one way.
 *
 * An open file has no state: its handle is its inode with the highest bit set, which no handle of Python's has. So
 * Python can answer reads of files that were opened here, and nothing is lost when slabs come and go.
 *
 * Memory: the front owns runs, stacks, its copies of lists of pieces, and pictures given to it. Voxels belong to
 * Python, which must keep them from volfs_front_lend until volfs_front_recall has returned.
 * Threads: everything may be called from any thread.
 */
#ifndef VOLFS_FRONT_H
#define VOLFS_FRONT_H

#include "files.h"
#include "meter.h"
#include "pictures.h"

#include <stddef.h>
#include <stdint.h>

struct volfs_front;

/* A plane that somebody read. Python learns of some of them, to see who goes where. */
struct volfs_note {
    uint64_t stack;
    int64_t plane;
};

/* `directory_bits`: inodes that agree above so many bits are of one directory. NULL if there is no memory. */
struct volfs_front *volfs_front_new(int directory_bits);
void volfs_front_free(struct volfs_front *front);

/* A stack of `planes` planes, lent `thick` at a time. Returns its number, which is never given again; 0 if there is no
 * memory. */
uint64_t volfs_front_stack(struct volfs_front *front, int64_t planes, int64_t thick);

/* Forget a stack with its runs and slabs, and wait for those who read it. No effect if there is none. */
void volfs_front_drop(struct volfs_front *front, uint64_t stack);

/* Have files first, first + stride, … (`count` of them) show planes of a stack: file i those from i * picture->planes.
 * The front owns `picture` from now on. False, with the picture freed, if that cannot be. */
int volfs_front_serve(
    struct volfs_front *front, uint64_t stack, uint64_t first, int64_t stride, int64_t count, struct volfs_picture *picture);

/* Have a directory whose names never change opened so that the kernel keeps its listing. Its handle is its inode, as
 * Python's is. Many are remembered, not all. */
void volfs_front_keep_listing(struct volfs_front *front, uint64_t inode);

/* Have the files of a directory, which never change, opened without state; what is read of them is Python's, unless they
 * are of a run. Their inodes are the directory's but for the low bits. Many are remembered, not all. */
void volfs_front_keep_files(struct volfs_front *front, uint64_t directory);

/* Remember no directory any more. */
void volfs_front_forget_directories(struct volfs_front *front);

/* Lend a slab: planes from number * thick. In the place of what was lent before. False if there is no such stack. */
int volfs_front_lend(
    struct volfs_front *front, uint64_t stack, int64_t number, const struct volfs_piece *pieces, size_t count);

/* Take a slab back, and wait for those who read it. */
void volfs_front_recall(struct volfs_front *front, uint64_t stack, int64_t number);

/* Answer a request of the kernel's, as read from `device`, there. True if it is answered; false if it is Python's.
 * `since` is when it came, by volfs_now. Whoever calls this has to see every request before any later one is answered:
 * which files are open is known by that. */
int volfs_front_answer(struct volfs_front *front, const uint8_t *request, size_t size, int device, int64_t since);

/* The descriptor that can be read when there are notes, and up to `room` of them. */
int volfs_front_notes_fd(const struct volfs_front *front);
size_t volfs_front_notes(struct volfs_front *front, struct volfs_note *notes, size_t room);

void volfs_front_counts(struct volfs_front *front, struct volfs_counts *counts);

/* End its threads: from now on it answers, but gives nothing ahead and syncs nothing. */
void volfs_front_stop(struct volfs_front *front);

/* Its files that are written. */
struct volfs_files *volfs_front_files(struct volfs_front *front);

#endif
