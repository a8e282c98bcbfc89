/* Open files of working copies, and directories of theirs, whose descriptors Python has lent: WRITE, FLUSH, FSYNC,
 * GETATTR, RELEASE and a further OPEN of the files, FSYNCDIR of the directories, and LOOKUP in them.
 *
 * Decided here: when such a request can be answered wholly and rightly without Python, and the answer. A write is made at
 * once by whoever reads the requests; a sync by a thread of this file, since it takes as long as the disk does. Not here:
 * names, access, copies from below, which Python has decided when it lends a file or a directory; closing a file that is
 * released, which Python does later; what the kernel must forget: where
 * anybody looks at what is made of the branch's keys (`volfs_watch`), a FLUSH is Python's. Every error is Python's: a
 * write that fails, or is cut short, goes there as it came, to be made again and to fail again; of a sync the error goes
 * along, since the disk tells it only once.
 *
 * Memory: files, pulses and watches are Python's, which keeps them until volfs_files_recall has returned; folders count
 * who has them.
 * Threads: everything may be called from any thread.
 */
#ifndef VOLFS_FILES_H
#define VOLFS_FILES_H

#include "meter.h"
#include "pulse.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct volfs_files;
struct volfs_folder;

/* A branch: who looks at what is made of its keys, and what its files and directories say of themselves. */
struct volfs_watch {
    atomic_int onlookers; /* open files of which a change of a key may concern any */
    atomic_int_least64_t until; /* ns, CLOCK_MONOTONIC: so long the kernel keeps sizes that may be wrong after a change */
    atomic_int plain;     /* owner and mode are those below and the disk's */
    atomic_int walk;      /* another number each time that keys may show something else than before */
    uint32_t uid, gid;
};

/* An open file. Python sets the first part before it is lent, and may look at the second, and change it, at any time. */
struct volfs_file {
    int fd;
    uint64_t number; /* as changes name it: even, and never 0; the odd one after it says that it has several names */
    struct volfs_pulse *pulse;
    struct volfs_watch *watch;

    atomic_int changed; /* written since the last flush */
    atomic_int flushed; /* flushed since the last write */
    atomic_int synced;  /* that was a sync */
    atomic_int shown;   /* flushed without Python: the kernel's pages are right, and Python has not noted it */
    atomic_int error;   /* an errno: of a sync that failed, for Python to tell */
    atomic_int opens;   /* how often it was opened without Python since, under the same handle, and not released */

    /* With the mutex of the files it is among. */
    uint64_t handle, inode;
    unsigned users;
    int walk;                    /* of the watch, when it was lent */
    int released;                /* the kernel has let go of it, and Python has not heard of that yet */
    struct volfs_folder *folder; /* in which its name is; NULL: its name's sync is Python's */
    uint64_t named;              /* which of the folder's syncs was the last one begun when it had its name */
    struct volfs_file *next, *next_of_inode;
};

/* A directory in another, or whose own name is durable if `parent` is NULL. The descriptor is the folder's. NULL if there
 * is no memory. One user. `settled`: syncing it makes durable all that its sync must; else syncs are Python's until
 * volfs_folder_settle. */
struct volfs_folder *volfs_folder_new(int fd, struct volfs_folder *parent, int settled);
void volfs_folder_settle(struct volfs_folder *folder);
int volfs_folder_settled(const struct volfs_folder *folder);

/* Have requests that concern it be Python's from now on, those under way as well. */
void volfs_folder_end(struct volfs_folder *folder);

/* The errno of a sync that failed, once. */
int volfs_folder_error(struct volfs_folder *folder);
void volfs_folder_release(struct volfs_folder *folder);

/* `meter` is the caller's, and `event`, which is raised when many files wait to be closed; -1 for none. NULL if there is no
 * memory. */
struct volfs_files *volfs_files_new(struct volfs_meter *meter, int event);

/* Answer no sync any more that is under way: the device is about to be closed. */
void volfs_files_stop(struct volfs_files *files);

/* Nothing must be lent. Memory that threads still use stays. */
void volfs_files_free(struct volfs_files *files);

/* Have requests that turn out to be Python's given to `leave`: memory from malloc, which it owns then. Without, they
 * are kept for volfs_files_left. */
void volfs_files_leave(struct volfs_files *files, void (*leave)(void *request, size_t size));
size_t volfs_files_left(struct volfs_files *files, void **request);

/* Lend a file that Python opened as `handle`. */
void volfs_files_lend(struct volfs_files *files, struct volfs_file *file, uint64_t handle, uint64_t inode);

/* Have the syncs of a lent file include its name, which is in a folder; NULL: have them be Python's. */
void volfs_files_place(struct volfs_files *files, struct volfs_file *file, struct volfs_folder *folder);

/* Take a file back, and wait for whoever writes to it. Of syncs under way Python gets no word but the answer. */
void volfs_files_recall(struct volfs_files *files, struct volfs_file *file);

/* The handles of files that were released here since the last time, up to `room` of them: Python is to close them. */
size_t volfs_files_released(struct volfs_files *files, uint64_t *handles, size_t room);

/* How many there are. */
int volfs_files_unclosed(struct volfs_files *files);

/* Have syncs of a directory answered until the folder ends. With a `watch`, look-ups as well, until it walks on: whatever
 * the directory shows lies in the folder, and names of files and directories are all that is to be known of them. */
void volfs_files_lend_folder(
    struct volfs_files *files, uint64_t inode, struct volfs_folder *folder, struct volfs_watch *watch, int walk);

/* Python changed names in a directory, at a time (ns) that its own may not tell; 0: not any more. */
void volfs_files_touch(struct volfs_files *files, uint64_t inode, int64_t time);

/* Forget folders that have ended. */
void volfs_files_tidy(struct volfs_files *files);

/* Syncs that are under way or wait: what is asked for, of which handle or directory, since when. Their number, up to
 * `room`. */
struct volfs_waiting {
    enum volfs_operation operation;
    uint64_t of;
    int64_t since;
};
size_t volfs_files_waiting(struct volfs_files *files, struct volfs_waiting *waiting, size_t room);

/* As volfs_front_answer. */
int volfs_files_answer(struct volfs_files *files, const uint8_t *request, size_t size, int device, int64_t since);

#endif
