/* The pulse of a working copy: the count of its changes and the latest time given, as volfs.versions.working.clock keeps
 * them in a file of sixteen bytes, for changes that Python makes and for those that are made without it.
 *
 * Decided here: that both numbers only grow, and that a file's time is set in the order in which times are given. Not
 * here: which key a change is of. Of a change without Python the number of the open file is noted, for Python to look
 * up; of one by Python 0, and Python has noted the key.
 *
 * Memory: the file's descriptor is the caller's, and open for as long as it is loaded.
 * Threads: any; one mutex, held for two or three system calls.
 */
#ifndef VOLFS_PULSE_H
#define VOLFS_PULSE_H

#include <stddef.h>
#include <stdint.h>

struct volfs_pulse;

/* Changes that are noted until Python takes them. */
enum { VOLFS_CHANGES = 8192 };

/* NULL if there is no memory. Nothing is loaded. */
struct volfs_pulse *volfs_pulse_new(void);
void volfs_pulse_free(struct volfs_pulse *pulse);

/* Have the numbers be those of a file; both are 0 if there is none (-1). */
void volfs_pulse_load(struct volfs_pulse *pulse, int fd);

/* Use its file no more: until another is loaded the numbers stay as they are. */
void volfs_pulse_unload(struct volfs_pulse *pulse);

int64_t volfs_pulse_count(struct volfs_pulse *pulse);
int64_t volfs_pulse_last(struct volfs_pulse *pulse);

/* No time from now on is up to `floor`. */
void volfs_pulse_floor(struct volfs_pulse *pulse, int64_t floor);

/* A time (ns) later than all before, than the floor, and than `after`. Negative: an errno. */
int64_t volfs_pulse_tick(struct volfs_pulse *pulse, int64_t after);

/* Such a time for an open file, whose time it becomes before any other is given. 0, or an errno. */
int volfs_pulse_stamp(struct volfs_pulse *pulse, int file, int64_t after);

/* Count a change of `whom`. 0, or an errno. */
int volfs_pulse_beat(struct volfs_pulse *pulse, uint64_t whom);

/* Both for a file that was just written. 0, or an errno: then Python must do it again. */
int volfs_pulse_written(struct volfs_pulse *pulse, int file, int64_t after, uint64_t whom);

/* Take the changes noted since the last time, up to VOLFS_CHANGES of them: their number, and the count after the last of
 * them. -1 instead of the number: there were more, and none of them is known. */
int volfs_pulse_changes(struct volfs_pulse *pulse, uint64_t *whom, int64_t *count);

#endif
