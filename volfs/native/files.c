#include "files.h"

#include "replies.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LISTS = 256,
    /* Directories of which syncs are answered: each has its place, which a later one may take. */
    FOLDERS = 1024,
    /* Syncs under way at the same time. Of more Python has threads for each dataset, so that no disk that hangs holds up
     * those of others. */
    MOST_SYNCS = 8,
    /* The kernel writes no more at once. */
    LARGEST = 1 << 20,
    REQUEST = 128,
    /* Files that were released and not closed yet; a later one is Python's. */
    UNCLOSED = 256,
    /* So many are closed without being asked for anything else. */
    MANY = 64,
    LONGEST_NAME = 255,
};

/* What directories and files say of themselves, as volfs.tree.contract.attrs has it: how long (s) the kernel keeps it,
 * the sizes of blocks, and which generation their inodes are. */
enum { SOON = 1, FILE_BLOCK = 4096, FOLDER_BLOCK = 128 << 10, GENERATION = 1 };

/* A write that took longer (ns), and in which the thread slept, was held up by the disk: for a while Python makes them, in
 * threads. */
#define SLOW ((int64_t)20000000)
#define SLOW_SPELL ((int64_t)1000000000)

struct volfs_folder {
    atomic_uint users;
    atomic_int ended, error, settled;
    int fd;
    struct volfs_folder *parent; /* in which its own name is; NULL: that is durable */
    /* With the mutex of the files: syncs begun, and the last that was done; whether one is under way; which of the parent's
     * was the last one begun when it had its name; whether that is durable, and those of all above it. */
    atomic_uint_least64_t begun;
    uint64_t done, named;
    int syncing, rooted;
};

struct place {
    uint64_t inode;
    struct volfs_folder *folder;
    int64_t touched;
    /* Of a directory in which names are looked up; else NULL. */
    struct volfs_watch *watch;
    int walk;
    dev_t disk; /* where the folder lies */
    ino_t number;
};

struct sync {
    struct sync *next;
    enum volfs_operation operation;
    uint64_t unique, of;
    int64_t since;
    int device, fd; /* fd: of the file; -1 for a directory */
    struct volfs_folder *folder;
    uint64_t named;
    size_t size;
    uint8_t request[REQUEST];
};

struct left {
    struct left *next;
    void *request;
    size_t size;
};

struct volfs_files {
    pthread_mutex_t mutex;
    pthread_cond_t idle;   /* somebody has finished with a file or a folder */
    pthread_cond_t wanted; /* there is a sync to be made */
    struct volfs_meter *meter;
    struct volfs_file *lists[LISTS], *inodes[LISTS];
    struct place folders[FOLDERS];
    uint64_t looked[FOLDERS]; /* inodes of directories in which names are looked up, by where they lie on the disk */
    uint64_t released[UNCLOSED];
    atomic_int unclosed;
    int event;
    struct sync *first, **last, *under_way;
    unsigned waiting, busy, threads;
    pthread_t thread[MOST_SYNCS];
    int stopped, ended;
    int64_t slow_until;
    void (*leave)(void *, size_t);
    struct left *left;
};

/* ---------------------------------------------------------------- folders */

static struct volfs_folder *hold(struct volfs_folder *folder)
{
    if (folder)
        atomic_fetch_add(&folder->users, 1);
    return folder;
}

struct volfs_folder *volfs_folder_new(int fd, struct volfs_folder *parent, int settled)
{
    struct volfs_folder *folder = calloc(1, sizeof *folder);
    if (!folder)
        return NULL;
    folder->fd = fd;
    folder->parent = hold(parent);
    folder->rooted = !parent;
    folder->named = parent ? atomic_load(&parent->begun) : 0;
    atomic_init(&folder->users, 1);
    atomic_init(&folder->settled, settled);
    return folder;
}

void volfs_folder_settle(struct volfs_folder *folder) { atomic_store(&folder->settled, 1); }

int volfs_folder_settled(const struct volfs_folder *folder) { return atomic_load(&folder->settled); }

void volfs_folder_end(struct volfs_folder *folder) { atomic_store(&folder->ended, 1); }

int volfs_folder_error(struct volfs_folder *folder) { return atomic_exchange(&folder->error, 0); }

void volfs_folder_release(struct volfs_folder *folder)
{
    while (folder && atomic_fetch_sub(&folder->users, 1) == 1) {
        struct volfs_folder *parent = folder->parent;
        close(folder->fd);
        free(folder);
        folder = parent;
    }
}

static int usable(struct volfs_folder *folder) { return folder && !atomic_load(&folder->ended); }

static int syncable(struct volfs_folder *folder) { return usable(folder) && atomic_load(&folder->settled); }

/* The place of a number: a thousand of them are spread over FOLDERS. */
static size_t spread(uint64_t number) { return (size_t)(number * 0x9e3779b97f4a7c15u >> 54); }

static struct place *place_of(struct volfs_files *files, uint64_t inode) { return &files->folders[spread(inode)]; }

/* ---------------------------------------------------------------- the table */

struct volfs_files *volfs_files_new(struct volfs_meter *meter, int event)
{
    struct volfs_files *files = calloc(1, sizeof *files);
    if (!files)
        return NULL;
    files->meter = meter;
    files->event = event;
    files->last = &files->first;
    pthread_mutex_init(&files->mutex, NULL);
    pthread_cond_init(&files->idle, NULL);
    pthread_cond_init(&files->wanted, NULL);
    return files;
}

static struct volfs_file **list_of(struct volfs_files *files, uint64_t handle) { return &files->lists[handle % LISTS]; }

/* With the mutex. */
static struct volfs_file *find(struct volfs_files *files, uint64_t handle)
{
    struct volfs_file *file = *list_of(files, handle);
    while (file && file->handle != handle)
        file = file->next;
    return file;
}

void volfs_files_lend(struct volfs_files *files, struct volfs_file *file, uint64_t handle, uint64_t inode)
{
    pthread_mutex_lock(&files->mutex);
    struct volfs_file **list = list_of(files, handle);
    struct volfs_file **of_inode = &files->inodes[inode % LISTS];
    file->handle = handle;
    file->inode = inode;
    file->released = 0;
    file->walk = atomic_load(&file->watch->walk);
    file->next = *list;
    *list = file;
    file->next_of_inode = *of_inode;
    *of_inode = file;
    pthread_mutex_unlock(&files->mutex);
}

void volfs_files_place(struct volfs_files *files, struct volfs_file *file, struct volfs_folder *folder)
{
    pthread_mutex_lock(&files->mutex);
    struct volfs_folder *before = file->folder;
    file->folder = hold(folder);
    file->named = folder ? folder->begun : 0;
    pthread_mutex_unlock(&files->mutex);
    volfs_folder_release(before);
}

void volfs_files_recall(struct volfs_files *files, struct volfs_file *file)
{
    pthread_mutex_lock(&files->mutex);
    for (struct volfs_file **at = list_of(files, file->handle); *at; at = &(*at)->next)
        if (*at == file) {
            *at = file->next;
            break;
        }
    for (struct volfs_file **at = &files->inodes[file->inode % LISTS]; *at; at = &(*at)->next_of_inode)
        if (*at == file) {
            *at = file->next_of_inode;
            break;
        }
    while (file->users)
        pthread_cond_wait(&files->idle, &files->mutex);
    struct volfs_folder *folder = file->folder;
    file->folder = NULL;
    pthread_mutex_unlock(&files->mutex);
    volfs_folder_release(folder);
}

size_t volfs_files_released(struct volfs_files *files, uint64_t *handles, size_t room)
{
    pthread_mutex_lock(&files->mutex);
    size_t there = (size_t)files->unclosed, count = there < room ? there : room;
    memcpy(handles, files->released, count * sizeof *handles);
    memmove(files->released, files->released + count, (there - count) * sizeof *handles);
    atomic_store(&files->unclosed, (int)(there - count));
    pthread_mutex_unlock(&files->mutex);
    return count;
}

int volfs_files_unclosed(struct volfs_files *files) { return atomic_load(&files->unclosed); }

void volfs_files_lend_folder(
    struct volfs_files *files, uint64_t inode, struct volfs_folder *folder, struct volfs_watch *watch, int walk)
{
    struct stat found;
    if (watch && fstat(folder->fd, &found) < 0)
        watch = NULL;
    pthread_mutex_lock(&files->mutex);
    struct place *place = place_of(files, inode);
    struct volfs_folder *before = place->folder;
    int64_t touched = place->inode == inode ? place->touched : 0;
    *place = (struct place){.inode = inode, .folder = hold(folder), .touched = touched, .watch = watch, .walk = walk};
    if (watch) {
        place->disk = found.st_dev;
        place->number = found.st_ino;
        files->looked[spread(found.st_ino)] = inode;
    }
    pthread_mutex_unlock(&files->mutex);
    volfs_folder_release(before);
}

void volfs_files_touch(struct volfs_files *files, uint64_t inode, int64_t time)
{
    pthread_mutex_lock(&files->mutex);
    struct place *place = place_of(files, inode);
    if (place->inode == inode)
        place->touched = time;
    pthread_mutex_unlock(&files->mutex);
}

void volfs_files_leave(struct volfs_files *files, void (*leave)(void *request, size_t size))
{
    pthread_mutex_lock(&files->mutex);
    files->leave = leave;
    pthread_mutex_unlock(&files->mutex);
}

size_t volfs_files_left(struct volfs_files *files, void **request)
{
    pthread_mutex_lock(&files->mutex);
    struct left *left = files->left;
    if (left)
        files->left = left->next;
    pthread_mutex_unlock(&files->mutex);
    size_t size = left ? left->size : 0;
    *request = left ? left->request : NULL;
    free(left);
    return size;
}

static void free_sync(struct sync *sync)
{
    if (sync->fd >= 0)
        close(sync->fd);
    volfs_folder_release(sync->folder);
    free(sync);
}

void volfs_files_stop(struct volfs_files *files)
{
    pthread_mutex_lock(&files->mutex);
    files->stopped = 1;
    struct sync *sync = files->first;
    files->first = NULL;
    files->last = &files->first;
    files->waiting = 0;
    pthread_mutex_unlock(&files->mutex);
    while (sync) {
        struct sync *next = sync->next;
        free_sync(sync);
        sync = next;
    }
}

void volfs_files_free(struct volfs_files *files)
{
    if (!files)
        return;
    volfs_files_stop(files);
    pthread_mutex_lock(&files->mutex);
    files->ended = 1;
    pthread_cond_broadcast(&files->wanted);
    unsigned busy = files->busy, threads = files->threads;
    pthread_mutex_unlock(&files->mutex);
    if (busy) { /* a disk that hangs must not keep a daemon that has nothing left to do */
        for (unsigned i = 0; i < threads; i++)
            pthread_detach(files->thread[i]);
        return;
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(files->thread[i], NULL);
    for (size_t i = 0; i < FOLDERS; i++)
        volfs_folder_release(files->folders[i].folder);
    void *request;
    while (volfs_files_left(files, &request))
        free(request);
    pthread_cond_destroy(&files->wanted);
    pthread_cond_destroy(&files->idle);
    pthread_mutex_destroy(&files->mutex);
    free(files);
}

void volfs_files_tidy(struct volfs_files *files)
{
    pthread_mutex_lock(&files->mutex);
    for (struct place *place = files->folders; place < files->folders + FOLDERS; place++)
        if (place->folder && !usable(place->folder)) {
            volfs_folder_release(place->folder);
            *place = (struct place){0};
        }
    pthread_mutex_unlock(&files->mutex);
}

size_t volfs_files_waiting(struct volfs_files *files, struct volfs_waiting *waiting, size_t room)
{
    size_t count = 0;
    pthread_mutex_lock(&files->mutex);
    for (int queued = 0; queued < 2; queued++)
        for (struct sync *sync = queued ? files->first : files->under_way; sync && count < room; sync = sync->next)
            waiting[count++] = (struct volfs_waiting){sync->operation, sync->of, sync->since};
    pthread_mutex_unlock(&files->mutex);
    return count;
}

/* ---------------------------------------------------------------- syncs */

/* Have Python answer a sync after all. With the mutex. */
static void leave(struct volfs_files *files, const struct sync *sync)
{
    void *request = malloc(sync->size);
    struct left *left = malloc(sizeof *left);
    if (!request || !left)
        abort(); /* a request must not be lost: its client would wait for ever */
    memcpy(request, sync->request, sync->size);
    if (files->leave) {
        files->leave(request, sync->size);
        free(left);
    } else {
        *left = (struct left){files->left, request, sync->size};
        files->left = left;
    }
}

/* Make a directory's names durable, those that were there when its sync `named` had begun and was the last: by a sync
 * that began later, whoever asked for it. With the mutex, which is let go of meanwhile. 0, or an errno. */
static int sync_folder(struct volfs_files *files, struct volfs_folder *folder, uint64_t named)
{
    while (folder->done <= named) {
        if (folder->syncing) {
            pthread_cond_wait(&files->idle, &files->mutex);
            continue;
        }
        uint64_t number = atomic_fetch_add(&folder->begun, 1) + 1;
        folder->syncing = 1;
        pthread_mutex_unlock(&files->mutex);
        int error = fsync(folder->fd) < 0 ? errno : 0;
        pthread_mutex_lock(&files->mutex);
        folder->syncing = 0;
        pthread_cond_broadcast(&files->idle);
        if (error) {
            atomic_store(&folder->error, error);
            atomic_store(&folder->ended, 1); /* those who share it find out from Python */
            return error;
        }
        folder->done = number;
        if (!usable(folder))
            break;
    }
    return 0;
}

/* Have a directory's own name be durable, and those of all above it. Likewise. */
static int root(struct volfs_files *files, struct volfs_folder *folder)
{
    if (folder->rooted)
        return 0;
    int error = sync_folder(files, folder->parent, folder->named);
    if (!error)
        error = root(files, folder->parent);
    if (!error && !usable(folder->parent))
        error = ESTALE;
    if (!error)
        folder->rooted = 1;
    return error;
}

/* Make one sync, and answer it. With the mutex, which is let go of meanwhile. */
static void make(struct volfs_files *files, struct sync *sync)
{
    int error = 0;
    if (sync->fd >= 0) {
        pthread_mutex_unlock(&files->mutex);
        error = fsync(sync->fd) < 0 ? errno : 0;
        pthread_mutex_lock(&files->mutex);
        struct volfs_file *file = error ? find(files, sync->of) : NULL;
        if (file)
            atomic_store(&file->error, error);
    }
    if (!error)
        error = sync_folder(files, sync->folder, sync->named);
    if (!error)
        error = root(files, sync->folder);
    if (files->stopped)
        return;
    /* A folder that has ended may have been left by its names meanwhile: Python knows where they are. */
    if (error || !usable(sync->folder)) {
        leave(files, sync);
        return;
    }
    struct volfs_file *file = sync->fd >= 0 ? find(files, sync->of) : NULL;
    if (file && atomic_load(&file->flushed))
        atomic_store(&file->synced, 1);
    volfs_meter_count(files->meter, sync->operation, sync->since, 0, 0);
    if (!volfs_reply(sync->device, sync->unique, NULL, 0))
        leave(files, sync);
}

static void *make_syncs(void *given)
{
    struct volfs_files *files = given;
    pthread_mutex_lock(&files->mutex);
    for (;;) {
        while (!files->first && !files->ended)
            pthread_cond_wait(&files->wanted, &files->mutex);
        if (files->ended)
            break;
        struct sync *sync = files->first;
        files->first = sync->next;
        if (!files->first)
            files->last = &files->first;
        files->waiting--;
        files->busy++;
        sync->next = files->under_way;
        files->under_way = sync;
        make(files, sync);
        for (struct sync **at = &files->under_way; *at; at = &(*at)->next)
            if (*at == sync) {
                *at = sync->next;
                break;
            }
        free_sync(sync);
        files->busy--;
    }
    pthread_mutex_unlock(&files->mutex);
    return NULL;
}

/* Have a sync made by a thread. With the mutex. False if all of them have something to do. */
static int queue_sync(struct volfs_files *files, struct sync *sync)
{
    if (files->stopped || files->waiting + files->busy >= MOST_SYNCS)
        return 0;
    if (files->waiting + files->busy >= files->threads) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are Python's */
        int failed = pthread_create(&files->thread[files->threads], NULL, make_syncs, files);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (failed)
            return 0;
        files->threads++;
    }
    sync->next = NULL;
    *files->last = sync;
    files->last = &sync->next;
    files->waiting++;
    pthread_cond_signal(&files->wanted);
    return 1;
}

/* Take a sync up. With the mutex. `fd`: of the file, which is duplicated; -1 for a directory. */
static int take_sync(struct volfs_files *files, enum volfs_operation operation, uint64_t of, int fd,
    struct volfs_folder *folder, uint64_t named, const uint8_t *request, size_t size, int device, int64_t since)
{
    const struct fuse_in_header *header = (const void *)request;
    if (size > REQUEST)
        return 0;
    struct sync *sync = malloc(sizeof *sync);
    if (!sync)
        return 0;
    *sync = (struct sync){.operation = operation, .of = of, .since = since, .device = device, .fd = -1, .named = named,
        .size = size};
    memcpy(&sync->unique, &header->unique, sizeof sync->unique);
    memcpy(sync->request, request, size);
    sync->folder = hold(folder);
    if (fd >= 0 && (sync->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0) {
        free_sync(sync);
        return 0;
    }
    if (!queue_sync(files, sync)) {
        free_sync(sync);
        return 0;
    }
    return 1;
}

/* ---------------------------------------------------------------- answers */

/* True if nobody looks at what is made of a branch's keys, so that they show what the disk has. */
static int quiet(struct volfs_watch *watch, int64_t now)
{
    return !atomic_load(&watch->onlookers) && now >= atomic_load(&watch->until);
}

/* True if nothing in the kernel is wrong after a change of this file's own bytes. */
static int unseen(const struct volfs_file *file, int64_t now)
{
    struct stat found;
    return quiet(file->watch, now) && !fstat(file->fd, &found) && found.st_nlink == 1;
}

/* Decide what a flush decides. False, with nothing decided, if that is Python's. */
static int flush(struct volfs_file *file, int64_t now)
{
    int changed = atomic_exchange(&file->changed, 0);
    if (changed) {
        if (!unseen(file, now)) {
            atomic_store(&file->changed, 1);
            return 0;
        }
        atomic_store(&file->shown, 1);
    }
    atomic_store(&file->flushed, 1);
    return 1;
}

/* How often this thread has slept. */
static long slept(void)
{
    struct rusage used;
    return getrusage(RUSAGE_THREAD, &used) ? 0 : used.ru_nvcsw;
}

static int answer_write(struct volfs_files *files, const struct fuse_in_header *header, const struct fuse_write_in *asked,
    const uint8_t *data, size_t size, int device, int64_t since)
{
    if (asked->size != size || size > LARGEST || asked->offset > INT64_MAX / 2)
        return 0;
    pthread_mutex_lock(&files->mutex);
    struct volfs_file *file = since < files->slow_until ? NULL : find(files, asked->fh);
    if (file)
        file->users++;
    pthread_mutex_unlock(&files->mutex);
    if (!file)
        return 0;
    long asleep = slept();
    struct stat before;
    int done = fstat(file->fd, &before) == 0;
    for (size_t written = 0; done && written < size;) {
        ssize_t more = pwrite(file->fd, data + written, size - written, (off_t)(asked->offset + written));
        if (more > 0)
            written += (size_t)more;
        else if (more == 0 || errno != EINTR)
            done = 0;
    }
    int64_t after = (int64_t)before.st_mtim.tv_sec * 1000000000 + before.st_mtim.tv_nsec;
    done = done && !volfs_pulse_written(file->pulse, file->fd, after, file->number + (before.st_nlink > 1));
    if (done) {
        atomic_store(&file->changed, 1);
        atomic_store(&file->flushed, 0);
        atomic_store(&file->synced, 0);
        struct fuse_write_out out = {.size = (uint32_t)size};
        done = volfs_reply(device, header->unique, &out, sizeof out);
    }
    if (done)
        volfs_meter_count(files->meter, VOLFS_WRITE, since, size, 0);
    int64_t now = volfs_now();
    int slow = now - since > SLOW && slept() > asleep;
    pthread_mutex_lock(&files->mutex);
    if (slow)
        files->slow_until = now + SLOW_SPELL;
    if (!--file->users)
        pthread_cond_broadcast(&files->idle);
    pthread_mutex_unlock(&files->mutex);
    return done;
}

static int answer_flush(
    struct volfs_files *files, const struct fuse_in_header *header, uint64_t handle, int device, int64_t since)
{
    pthread_mutex_lock(&files->mutex);
    struct volfs_file *file = find(files, handle);
    int done = file && flush(file, since);
    pthread_mutex_unlock(&files->mutex);
    if (!done || !volfs_reply(device, header->unique, NULL, 0))
        return 0;
    volfs_meter_count(files->meter, VOLFS_FLUSH, since, 0, 0);
    return 1;
}

/* What the kernel is told of a file or directory: as volfs.fuse.adapter has it, of which all times are the last change's.
 * A file with bytes has blocks: who takes 0 of them for a hole archives zeros. */
static struct fuse_attr attributes(const struct stat *found, const struct volfs_watch *watch, uint64_t inode, int64_t mtime)
{
    const int folder = S_ISDIR(found->st_mode);
    struct fuse_attr attr = {.ino = inode, .mode = found->st_mode & (S_IFMT | 07777), .nlink = 1, .uid = watch->uid,
        .gid = watch->gid, .size = folder ? 0 : (uint64_t)found->st_size, .blksize = folder ? FOLDER_BLOCK : FILE_BLOCK};
    attr.blocks = folder ? 0 : found->st_size && !found->st_blocks ? 1 : (uint64_t)found->st_blocks;
    attr.atime = attr.ctime = attr.mtime = (uint64_t)(mtime / 1000000000);
    attr.atimensec = attr.ctimensec = attr.mtimensec = (uint32_t)(mtime % 1000000000);
    return attr;
}

static int64_t time_of(const struct stat *found)
{
    return (int64_t)found->st_mtim.tv_sec * 1000000000 + found->st_mtim.tv_nsec;
}

/* A file that is open and not released. With the mutex. */
static struct volfs_file *find_inode(struct volfs_files *files, uint64_t inode)
{
    struct volfs_file *file = files->inodes[inode % LISTS];
    while (file && (file->inode != inode || file->released))
        file = file->next_of_inode;
    return file;
}

/* A file that is written is its name's: it has one, and no other has taken that over. The kernel keeps nothing of it, so
 * that no size is to be remembered that might become wrong. */
static int answer_getattr(struct volfs_files *files, const struct fuse_in_header *header, int device, int64_t since)
{
    struct stat found;
    struct fuse_attr_out out = {0};
    pthread_mutex_lock(&files->mutex);
    struct volfs_file *file = find_inode(files, header->nodeid);
    int known = file && atomic_load(&file->watch->plain) && quiet(file->watch, since) && !fstat(file->fd, &found)
        && S_ISREG(found.st_mode) && found.st_nlink == 1 && found.st_mtim.tv_sec >= 0;
    if (known)
        out.attr = attributes(&found, file->watch, header->nodeid, time_of(&found));
    pthread_mutex_unlock(&files->mutex);
    if (!known || !volfs_reply(device, header->unique, &out, sizeof out))
        return 0;
    volfs_meter_count(files->meter, VOLFS_GETATTR, since, 0, 0);
    return 1;
}

/* A file that is open for writing is opened for writing once more: both are one to Python, as those are that a program
 * duplicates, and the kernel's pages of it are right, since they were written through it. */
static int answer_open(struct volfs_files *files, const struct fuse_in_header *header, const struct fuse_open_in *asked,
    int device, int64_t since)
{
    const uint32_t mode = asked->flags & O_ACCMODE;
    if ((mode != O_WRONLY && mode != O_RDWR) || asked->flags & (O_TRUNC | O_CREAT | O_DIRECT | O_DIRECTORY))
        return 0;
    struct stat found;
    struct fuse_open_out out = {.open_flags = FOPEN_KEEP_CACHE};
    pthread_mutex_lock(&files->mutex);
    struct volfs_file *file = find_inode(files, header->nodeid);
    int known = file && quiet(file->watch, since) && atomic_load(&file->watch->walk) == file->walk
        && !fstat(file->fd, &found) && found.st_nlink == 1;
    if (known) {
        out.fh = file->handle;
        atomic_fetch_add(&file->opens, 1);
    }
    pthread_mutex_unlock(&files->mutex);
    if (!known)
        return 0;
    if (!volfs_reply(device, header->unique, &out, sizeof out)) {
        atomic_fetch_sub(&file->opens, 1); /* Python, whose request it is now, has not been told to let go of it */
        return 0;
    }
    volfs_meter_count(files->meter, VOLFS_OPEN, since, 0, 0);
    return 1;
}

/* Of a file with one name, a close that decides nothing: after the last one Python closes it when it has time. */
static int answer_release(
    struct volfs_files *files, const struct fuse_in_header *header, uint64_t handle, int device, int64_t since)
{
    struct stat found;
    int raise = 0;
    pthread_mutex_lock(&files->mutex);
    struct volfs_file *file = find(files, handle);
    int done = file && !file->released && files->unclosed < UNCLOSED && !fstat(file->fd, &found) && found.st_nlink == 1
        && flush(file, since);
    if (done && atomic_load(&file->opens)) {
        atomic_fetch_sub(&file->opens, 1);
    } else if (done) {
        file->released = 1;
        int before = atomic_fetch_add(&files->unclosed, 1);
        files->released[before] = handle;
        raise = before + 1 == MANY && files->event >= 0;
    }
    pthread_mutex_unlock(&files->mutex);
    if (!done)
        return 0;
    if (raise) {
        uint64_t one = 1;
        ssize_t written = write(files->event, &one, sizeof one);
        (void)written; /* full: it is raised already */
    }
    if (!volfs_reply(device, header->unique, NULL, 0))
        return 0;
    volfs_meter_count(files->meter, VOLFS_RELEASE, since, 0, 0);
    return 1;
}

/* True if names are looked up in a directory now. With the mutex. */
static int looking(const struct place *place, int64_t now)
{
    struct volfs_watch *watch = place->watch;
    return watch && usable(place->folder) && atomic_load(&watch->walk) == place->walk && atomic_load(&watch->plain)
        && quiet(watch, now);
}

/* True for names that mean the same to everybody: letters, digits and the like. `size` is with the zero at the end. */
static int plain_name(const char *name, size_t size)
{
    if (size < 2 || size > LONGEST_NAME + 1 || name[size - 1] || name[0] == '.')
        return 0;
    for (size_t i = 0; i + 1 < size; i++) {
        const char c = name[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
            return 0;
    }
    return 1;
}

/* A name that is not there, or that of a directory in which names are looked up as well. */
static int answer_lookup(struct volfs_files *files, const struct fuse_in_header *header, const char *name, size_t size,
    int device, int64_t since)
{
    if (!plain_name(name, size))
        return 0;
    pthread_mutex_lock(&files->mutex);
    struct place *place = place_of(files, header->nodeid);
    struct volfs_folder *folder = place->inode == header->nodeid && looking(place, since) ? hold(place->folder) : NULL;
    pthread_mutex_unlock(&files->mutex);
    if (!folder)
        return 0;
    struct stat found;
    struct fuse_entry_out out = {.entry_valid = SOON};
    const int there = !fstatat(folder->fd, name, &found, AT_SYMLINK_NOFOLLOW);
    int known = there || errno == ENOENT;
    pthread_mutex_lock(&files->mutex);
    /* What was there may have moved while it was looked at. */
    known = known && place->folder == folder && looking(place, since);
    if (known && there) {
        const uint64_t inode = files->looked[spread(found.st_ino)];
        const struct place *child = place_of(files, inode);
        known = S_ISDIR(found.st_mode) && inode && child->inode == inode && child->watch == place->watch
            && looking(child, since) && child->number == found.st_ino && child->disk == found.st_dev
            && found.st_mtim.tv_sec >= 0;
        if (known) {
            int64_t mtime = time_of(&found) > child->touched ? time_of(&found) : child->touched;
            out.nodeid = inode;
            out.generation = GENERATION;
            out.attr_valid = SOON;
            out.attr = attributes(&found, child->watch, inode, mtime);
        }
    }
    pthread_mutex_unlock(&files->mutex);
    volfs_folder_release(folder);
    if (!known || !volfs_reply(device, header->unique, &out, sizeof out))
        return 0;
    volfs_meter_count(files->meter, VOLFS_LOOKUP, since, 0, 0);
    return 1;
}

static int answer_fsync(
    struct volfs_files *files, uint64_t handle, const uint8_t *request, size_t size, int device, int64_t since)
{
    pthread_mutex_lock(&files->mutex);
    struct volfs_file *file = find(files, handle);
    int done = file && syncable(file->folder) && flush(file, since)
        && take_sync(files, VOLFS_FSYNC, handle, file->fd, file->folder, file->named, request, size, device, since);
    pthread_mutex_unlock(&files->mutex);
    return done;
}

static int answer_fsyncdir(
    struct volfs_files *files, uint64_t inode, const uint8_t *request, size_t size, int device, int64_t since)
{
    pthread_mutex_lock(&files->mutex);
    struct place *place = place_of(files, inode);
    struct volfs_folder *folder = place->inode == inode ? place->folder : NULL;
    int done = syncable(folder)
        && take_sync(files, VOLFS_FSYNCDIR, inode, -1, folder, folder->begun, request, size, device, since);
    pthread_mutex_unlock(&files->mutex);
    return done;
}

int volfs_files_answer(struct volfs_files *files, const uint8_t *request, size_t size, int device, int64_t since)
{
    struct fuse_in_header header;
    if (size < sizeof header)
        return 0;
    memcpy(&header, request, sizeof header);
    const uint8_t *body = request + sizeof header;
    const size_t rest = size - sizeof header;
    switch (header.opcode) {
    case FUSE_LOOKUP:
        return answer_lookup(files, &header, (const char *)body, rest, device, since);
    case FUSE_GETATTR:
        return rest < sizeof(struct fuse_getattr_in) ? 0 : answer_getattr(files, &header, device, since);
    case FUSE_OPEN: {
        struct fuse_open_in asked;
        if (rest < sizeof asked)
            return 0;
        memcpy(&asked, body, sizeof asked);
        return answer_open(files, &header, &asked, device, since);
    }
    case FUSE_RELEASE: {
        struct fuse_release_in asked;
        if (rest < sizeof asked)
            return 0;
        memcpy(&asked, body, sizeof asked);
        return answer_release(files, &header, asked.fh, device, since);
    }
    case FUSE_WRITE: {
        struct fuse_write_in asked;
        if (rest < sizeof asked)
            return 0;
        memcpy(&asked, body, sizeof asked);
        return answer_write(files, &header, &asked, body + sizeof asked, rest - sizeof asked, device, since);
    }
    case FUSE_FLUSH: {
        struct fuse_flush_in asked;
        if (rest < sizeof asked)
            return 0;
        memcpy(&asked, body, sizeof asked);
        return answer_flush(files, &header, asked.fh, device, since);
    }
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR: {
        struct fuse_fsync_in asked;
        if (rest < sizeof asked)
            return 0;
        memcpy(&asked, body, sizeof asked);
        return header.opcode == FUSE_FSYNC ? answer_fsync(files, asked.fh, request, size, device, since)
                                           : answer_fsyncdir(files, header.nodeid, request, size, device, since);
    }
    default:
        return 0;
    }
}
