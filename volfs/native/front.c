#include "front.h"

#include "bytes.h"
#include "givers.h"
#include "opens.h"
#include "replies.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#ifndef FOPEN_CACHE_DIR
#define FOPEN_CACHE_DIR (1 << 3)
#endif
#ifndef FOPEN_NOFLUSH
#define FOPEN_NOFLUSH (1 << 5)
#endif

#define STATELESS ((uint64_t)1 << 63)

enum {
    /* Directories are found by a table of so many lists. */
    LISTS = 1024,
    /* Directories with listings to be kept: each has its place, which a later one may take. */
    LISTINGS = 4096,
    /* Notes that Python has not taken yet; more are dropped: they are hints. */
    NOTES = 256,
    /* Files whose checksums are remembered half way: the tail of a slice is asked for by itself. */
    SUMMED = 64,
    /* The kernel asks for no more at once (FUSE_MAX_MAX_PAGES is 256 pages by default). */
    LARGEST = 1 << 20,
    /* Planes that one read may show; a read of more tiny ones is Python's. */
    MOST_PLANES = 512,
    /* Of planes in order, the first two of a slab are noted, then each so manieth, and the one that is followed by so many
     * more: what is decoded by then can be lent before it is asked for. */
    NOTED_EVERY = 16,
    LAST_PLANES = 3,
};

/* Files of up to so many bytes are given to the kernel before they are opened. In larger ones the kernel reads ahead. */
#define MOST_AHEAD ((int64_t)2 << 20)

/* Those of up to so many bytes are given by whoever reads the requests, one at a time: to wake another thread for one takes
 * as long. Of larger ones so many are given at the same time: where a guest is given memory by its host only when it is
 * touched, most of that is waiting. */
#define MOST_AT_ONCE ((int64_t)256 << 10)
enum { TOGETHER = 3 };

/* The kernel takes only files whose names it knows, as it does after a listing. Each time it does not, twice as many are
 * not tried as the time before, up to 2^MOST_VAIN. */
enum { MOST_VAIN = 6 };

/* Bytes that are summed here for a read of the end of a file. More would hold up others. */
#define MOST_BACKLOG ((int64_t)4 << 20)

struct slab {
    unsigned users; /* those who read it now */
    int64_t seen;   /* planes noted or counted since it was lent */
    int64_t last;   /* the plane read last */
    size_t count;
    struct volfs_piece pieces[];
};

struct stack {
    uint64_t number;
    int64_t planes, thick;
    int64_t slabs;
    struct slab **lent;
    struct stack *next;
};

struct run {
    uint64_t first;
    int64_t stride, count;
    struct stack *stack;
    struct volfs_picture *picture;
    struct run *next;
    int64_t last;   /* the file opened last */
    int skip, vain; /* so many files are not given ahead, since the kernel knows no names of such; times in a row */
    uint8_t *given; /* a bit for each file: the kernel was given all of it, and has not asked for it since */
};

struct summed {
    uint64_t inode;
    const struct volfs_picture *picture;
    struct volfs_sums sums;
};

struct volfs_front {
    pthread_mutex_t mutex;
    pthread_cond_t idle; /* somebody has finished with a slab or a picture */
    int directory_bits;
    uint64_t last_number;
    struct stack *stacks;
    struct run *runs[LISTS];
    unsigned users; /* those who read any picture now */
    struct summed summed[SUMMED];
    uint64_t listings[LISTINGS];
    uint64_t plain[LISTINGS]; /* directories without their low bits: see volfs_front_keep_files */
    struct volfs_note notes[NOTES];
    size_t first_note, last_note;
    int event;
    struct volfs_opens opens;
    struct volfs_givers *givers;
    struct volfs_meter meter;
    struct volfs_files *files;
};

static void give_file(void *front, uint64_t inode, int device);
static void leave_room(void);

/* ---------------------------------------------------------------- tables */

struct volfs_front *volfs_front_new(int directory_bits)
{
    struct volfs_front *front = calloc(1, sizeof *front);
    if (!front)
        return NULL;
    front->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    front->files = volfs_files_new(&front->meter, front->event);
    front->givers = volfs_givers_new((struct volfs_giving){front, give_file, leave_room});
    if (front->event < 0 || !front->files || !front->givers) {
        if (front->event >= 0)
            close(front->event);
        volfs_files_free(front->files);
        volfs_givers_free(front->givers);
        free(front);
        return NULL;
    }
    volfs_meter_begin(&front->meter);
    front->directory_bits = directory_bits;
    pthread_mutex_init(&front->mutex, NULL);
    pthread_cond_init(&front->idle, NULL);
    return front;
}

static struct run **list_of(struct volfs_front *front, uint64_t inode)
{
    uint64_t directory = inode >> front->directory_bits;
    return &front->runs[volfs_spread(directory, LISTS)];
}

static struct stack *stack_of(struct volfs_front *front, uint64_t number)
{
    struct stack *stack = front->stacks;
    while (stack && stack->number != number)
        stack = stack->next;
    return stack;
}

/* The run that an inode is of, and which of its files it is. With the mutex held. */
static struct run *run_of(struct volfs_front *front, uint64_t inode, int64_t *file)
{
    for (struct run *run = *list_of(front, inode); run; run = run->next) {
        uint64_t distance = inode - run->first;
        if (inode >= run->first && distance % (uint64_t)run->stride == 0
            && distance / (uint64_t)run->stride < (uint64_t)run->count) {
            *file = (int64_t)(distance / (uint64_t)run->stride);
            return run;
        }
    }
    return NULL;
}

uint64_t volfs_front_stack(struct volfs_front *front, int64_t planes, int64_t thick)
{
    if (planes < 1 || thick < 1)
        return 0;
    struct stack *stack = calloc(1, sizeof *stack);
    if (!stack)
        return 0;
    stack->planes = planes;
    stack->thick = thick;
    stack->slabs = (planes - 1) / thick + 1;
    stack->lent = calloc((size_t)stack->slabs, sizeof *stack->lent);
    if (!stack->lent) {
        free(stack);
        return 0;
    }
    pthread_mutex_lock(&front->mutex);
    stack->number = ++front->last_number;
    stack->next = front->stacks;
    front->stacks = stack;
    uint64_t number = stack->number;
    pthread_mutex_unlock(&front->mutex);
    return number;
}

/* Put a slab into a stack, NULL for none, and wait until nobody reads the one that was there. With the mutex held, which
 * is let go of meanwhile: the stack may be gone afterwards. */
static void replace(struct volfs_front *front, struct stack *stack, int64_t number, struct slab *slab)
{
    struct slab *before = stack->lent[number];
    stack->lent[number] = slab;
    while (before && before->users)
        pthread_cond_wait(&front->idle, &front->mutex);
    free(before);
}

void volfs_front_drop(struct volfs_front *front, uint64_t number)
{
    pthread_mutex_lock(&front->mutex);
    struct stack *stack = stack_of(front, number);
    if (stack) {
        struct run *gone = NULL;
        for (size_t i = 0; i < LISTS; i++)
            for (struct run **at = &front->runs[i]; *at;)
                if ((*at)->stack == stack) {
                    struct run *run = *at;
                    *at = run->next;
                    run->next = gone;
                    gone = run;
                } else {
                    at = &(*at)->next;
                }
        for (struct stack **at = &front->stacks; *at; at = &(*at)->next)
            if (*at == stack) {
                *at = stack->next;
                break;
            }
        /* From here on nobody finds the stack; those who found it before are waited for. */
        while (front->users)
            pthread_cond_wait(&front->idle, &front->mutex);
        for (int64_t i = 0; i < stack->slabs; i++)
            replace(front, stack, i, NULL);
        while (gone) {
            struct run *run = gone;
            gone = run->next;
            for (size_t i = 0; i < SUMMED; i++)
                if (front->summed[i].picture == run->picture)
                    front->summed[i].picture = NULL;
            volfs_picture_free(run->picture);
            free(run->given);
            free(run);
        }
        free(stack->lent);
        free(stack);
    }
    pthread_mutex_unlock(&front->mutex);
}

void volfs_front_free(struct volfs_front *front)
{
    if (!front)
        return;
    volfs_givers_free(front->givers);
    while (front->stacks)
        volfs_front_drop(front, front->stacks->number);
    volfs_files_free(front->files);
    volfs_meter_end(&front->meter);
    close(front->event);
    pthread_cond_destroy(&front->idle);
    pthread_mutex_destroy(&front->mutex);
    free(front);
}

int volfs_front_serve(
    struct volfs_front *front, uint64_t number, uint64_t first, int64_t stride, int64_t count, struct volfs_picture *picture)
{
    int served = 0;
    struct run *run = calloc(1, sizeof *run);
    uint8_t *given = count > 0 ? calloc((size_t)(count / 8 + 1), 1) : NULL;
    pthread_mutex_lock(&front->mutex);
    struct stack *stack = stack_of(front, number);
    int64_t there;
    if (run && given && stack && !(first & STATELESS) && stride > 0 && count > 0 && count <= stack->planes / picture->planes
        && (uint64_t)(count - 1) <= (UINT64_MAX >> 1) / (uint64_t)stride
        && first >> front->directory_bits == (first + (uint64_t)(count - 1) * (uint64_t)stride) >> front->directory_bits
        && !run_of(front, first, &there)) {
        *run = (struct run){first, stride, count, stack, picture, *list_of(front, first), -2, 0, 0, given};
        *list_of(front, first) = run;
        served = 1;
    }
    pthread_mutex_unlock(&front->mutex);
    if (!served) {
        free(run);
        free(given);
        volfs_picture_free(picture);
    }
    return served;
}

static uint64_t *listing_of(struct volfs_front *front, uint64_t inode)
{
    return &front->listings[volfs_spread(inode, LISTINGS)];
}

void volfs_front_keep_listing(struct volfs_front *front, uint64_t inode)
{
    pthread_mutex_lock(&front->mutex);
    *listing_of(front, inode) = inode;
    pthread_mutex_unlock(&front->mutex);
}

/* Where the directory of an inode stands if its files are plain. */
static uint64_t *plain_of(struct volfs_front *front, uint64_t inode)
{
    return &front->plain[volfs_spread(inode >> front->directory_bits, LISTINGS)];
}

void volfs_front_keep_files(struct volfs_front *front, uint64_t directory)
{
    pthread_mutex_lock(&front->mutex);
    *plain_of(front, directory) = directory >> front->directory_bits;
    pthread_mutex_unlock(&front->mutex);
}

void volfs_front_forget_directories(struct volfs_front *front)
{
    pthread_mutex_lock(&front->mutex);
    memset(front->listings, 0, sizeof front->listings);
    memset(front->plain, 0, sizeof front->plain);
    pthread_mutex_unlock(&front->mutex);
}

int volfs_front_lend(
    struct volfs_front *front, uint64_t number, int64_t slab_number, const struct volfs_piece *pieces, size_t count)
{
    struct slab *slab = calloc(1, sizeof *slab + count * sizeof *pieces);
    if (!slab)
        return 0;
    memcpy(slab->pieces, pieces, count * sizeof *pieces);
    slab->count = count;
    slab->last = -1;
    int lent = 0;
    pthread_mutex_lock(&front->mutex);
    struct stack *stack = stack_of(front, number);
    if (stack && slab_number >= 0 && slab_number < stack->slabs) {
        replace(front, stack, slab_number, slab);
        lent = 1;
    }
    pthread_mutex_unlock(&front->mutex);
    if (!lent)
        free(slab);
    return lent;
}

void volfs_front_recall(struct volfs_front *front, uint64_t number, int64_t slab_number)
{
    pthread_mutex_lock(&front->mutex);
    struct stack *stack = stack_of(front, number);
    if (stack && slab_number >= 0 && slab_number < stack->slabs)
        replace(front, stack, slab_number, NULL);
    pthread_mutex_unlock(&front->mutex);
}

/* ---------------------------------------------------------------- notes and counts */

/* With the mutex held. True if the event must be raised. */
static int note(struct volfs_front *front, struct stack *stack, struct slab *slab, int64_t plane)
{
    if (slab->last == plane)
        return 0;
    const int64_t within = plane % stack->thick, left = plane < slab->last ? within : stack->thick - 1 - within;
    slab->last = plane;
    int64_t seen = slab->seen++;
    if (seen > 1 && seen % NOTED_EVERY && left != LAST_PLANES)
        return 0;
    size_t next = (front->last_note + 1) % NOTES;
    if (next == front->first_note)
        return 0;
    front->notes[front->last_note] = (struct volfs_note){stack->number, plane};
    front->last_note = next;
    return 1;
}

int volfs_front_notes_fd(const struct volfs_front *front) { return front->event; }

size_t volfs_front_notes(struct volfs_front *front, struct volfs_note *notes, size_t room)
{
    uint64_t raised;
    if (read(front->event, &raised, sizeof raised) < 0 && errno != EAGAIN)
        return 0;
    size_t count = 0;
    pthread_mutex_lock(&front->mutex);
    while (count < room && front->first_note != front->last_note) {
        notes[count++] = front->notes[front->first_note];
        front->first_note = (front->first_note + 1) % NOTES;
    }
    int more = front->first_note != front->last_note;
    pthread_mutex_unlock(&front->mutex);
    if (more) {
        uint64_t one = 1;
        if (write(front->event, &one, sizeof one) < 0)
            return count;
    }
    return count;
}

void volfs_front_counts(struct volfs_front *front, struct volfs_counts *counts)
{
    volfs_meter_counts(&front->meter, counts);
}

struct volfs_files *volfs_front_files(struct volfs_front *front) { return front->files; }

void volfs_front_stop(struct volfs_front *front)
{
    volfs_files_stop(front->files);
    volfs_givers_stop(front->givers);
}

/* ---------------------------------------------------------------- bytes of files */

/* What is needed for a range of a file, held until let_go. */
struct reading {
    uint64_t inode;
    const struct volfs_picture *picture;
    int64_t offset, length;
    struct slab *slabs[MOST_PLANES];
    struct volfs_plane planes[MOST_PLANES];
    size_t used;
    int64_t first;
    struct volfs_sums sums;
};

static struct summed *summed_of(struct volfs_front *front, uint64_t inode)
{
    return &front->summed[volfs_spread(inode, SUMMED)];
}

/* Hold what is needed for up to `size` bytes of a file. True if all of it is lent. With the mutex held. */
static int hold(struct volfs_front *front, struct run *run, int64_t file, int64_t offset, int64_t size, struct reading *reading)
{
    const struct volfs_picture *picture = run->picture;
    const uint64_t inode = run->first + (uint64_t)file * (uint64_t)run->stride;
    const struct summed *summed = summed_of(front, inode);
    int64_t last;
    reading->inode = inode;
    reading->picture = picture;
    reading->offset = offset;
    reading->length = offset >= picture->size ? 0 : picture->size - offset;
    if (reading->length > size)
        reading->length = size;
    reading->used = 0;
    reading->first = 0;
    if (summed->picture == picture && summed->inode == inode)
        reading->sums = summed->sums;
    else
        volfs_sums_begin(picture, &reading->sums);
    if (reading->length > 0 && volfs_picture_planes(picture, offset, reading->length, &reading->first, &last)) {
        struct stack *stack = run->stack;
        int found = last - reading->first < MOST_PLANES
            && volfs_picture_backlog(picture, offset, reading->length, &reading->sums) <= MOST_BACKLOG;
        for (int64_t i = reading->first; found && i <= last; i++) {
            int64_t plane = file * picture->planes + i, number = plane / stack->thick;
            struct slab *slab = stack->lent[number];
            if (!slab) {
                found = 0;
                break;
            }
            slab->users++;
            reading->slabs[reading->used] = slab;
            reading->planes[reading->used++] = (struct volfs_plane){slab->pieces, slab->count, plane - number * stack->thick};
        }
        if (!found) {
            while (reading->used)
                reading->slabs[--reading->used]->users--;
            return 0;
        }
    }
    front->users++;
    return 1;
}

/* Where this thread puts bytes together. */
static _Thread_local uint8_t *room;

static void leave_room(void)
{
    free(room);
    room = NULL;
}

/* The bytes of what is held. NULL if there is no memory. They are the thread's until the next call. */
static const uint8_t *put_together(struct reading *reading)
{
    if (!room)
        room = malloc(LARGEST);
    if (room)
        volfs_picture_read(reading->picture, reading->planes, reading->first, reading->offset, reading->length, room,
            &reading->sums);
    return room;
}

/* With the mutex held. `done`: the bytes were put together, and the kernel has them. */
static void let_go(struct volfs_front *front, const struct reading *reading, int done)
{
    for (size_t i = 0; i < reading->used; i++)
        reading->slabs[i]->users--;
    front->users--;
    if (done)
        *summed_of(front, reading->inode) = (struct summed){reading->inode, reading->picture, reading->sums};
    pthread_cond_broadcast(&front->idle);
}

/* Planes of a stack are read by somebody. With the mutex held. True if the event must be raised. */
static int note_all(struct volfs_front *front, struct stack *stack, int64_t first, int64_t count)
{
    int raise = 0;
    for (int64_t plane = first; plane < first + count; plane++) {
        struct slab *slab = stack->lent[plane / stack->thick];
        raise |= slab && note(front, stack, slab, plane);
    }
    return raise;
}

static void raise_event(struct volfs_front *front)
{
    uint64_t one = 1;
    ssize_t written = write(front->event, &one, sizeof one);
    (void)written; /* full: it is raised already */
}

/* ---------------------------------------------------------------- files ahead */

static int is_given(const struct run *run, int64_t file) { return run->given[file / 8] >> file % 8 & 1; }

/* The kernel was given a file from `offset` on. With the mutex held. */
static void give(struct run *run, int64_t file, int64_t offset, int64_t length)
{
    if (offset == 0 && is_given(run, file)) /* its pages are gone, and so may be those of others */
        memset(run->given, 0, (size_t)(run->count / 8 + 1));
    if (offset + length == run->picture->size)
        run->given[file / 8] |= (uint8_t)(1 << file % 8);
}

/* A file is opened: which ones will be opened next, up to `most` of them, if that can be foreseen and the kernel has not
 * got them. Who has not read the whole of the file before looks for something else. Returns their number. With the mutex
 * held. */
static int foresee(struct volfs_front *front, struct run *run, int64_t file, uint64_t *next, int most, int *raise)
{
    const int64_t before = run->last, step = file - before, planes = run->picture->planes;
    int count = 0;
    run->last = file;
    if ((step != 1 && step != -1) || !is_given(run, before))
        return 0;
    for (int i = 1; i <= most; i++) {
        const int64_t other = file + i * step;
        if (other < 0 || other >= run->count)
            break;
        if (is_given(run, other))
            continue;
        if (run->skip) {
            run->skip--;
            break;
        }
        *raise |= note_all(front, run->stack, other * planes, planes);
        next[count++] = run->first + (uint64_t)other * (uint64_t)run->stride;
    }
    return count;
}

/* Give a file to the kernel before it is opened: who reads it then need not ask for it. The kernel waits for those who
 * read the file meanwhile, who would wait for whoever calls this. So it is done only with files that are not open, and none
 * is opened before it is done. */
static void give_file(void *owner, uint64_t inode, int device)
{
    struct volfs_front *front = owner;
    int64_t size = 1, copied = 0;
    for (int64_t offset = 0; offset < size; offset += LARGEST) {
        struct reading reading;
        int64_t file;
        pthread_mutex_lock(&front->mutex);
        struct run *run = run_of(front, inode, &file);
        int held = run && !volfs_opens_has(&front->opens, inode) && hold(front, run, file, offset, LARGEST, &reading);
        pthread_mutex_unlock(&front->mutex);
        if (!held)
            return;
        size = reading.picture->size;
        copied += volfs_picture_voxels(reading.picture, offset, reading.length);
        const uint8_t *bytes = put_together(&reading);
        pthread_mutex_lock(&front->mutex);
        let_go(front, &reading, bytes != NULL);
        pthread_mutex_unlock(&front->mutex);
        const int stored = bytes && volfs_store(device, inode, offset, bytes, (size_t)reading.length);
        pthread_mutex_lock(&front->mutex);
        run = run_of(front, inode, &file);
        if (run && run->picture->size == size && stored)
            give(run, file, offset, reading.length);
        if (run) {
            run->vain = stored ? 0 : run->vain < MOST_VAIN ? run->vain + 1 : MOST_VAIN;
            run->skip = (1 << run->vain) - 1;
        }
        pthread_mutex_unlock(&front->mutex);
        if (!stored)
            return;
    }
    volfs_meter_ahead(&front->meter, (uint64_t)size, (uint64_t)copied);
}

/* ---------------------------------------------------------------- answers */

static int answer_open(struct volfs_front *front, const struct fuse_in_header *header, const struct fuse_open_in *asked,
    int device, int64_t since)
{
    int64_t file;
    uint64_t next[TOGETHER];
    int ahead = 0, many = 0, raise = 0;
    if ((asked->flags & O_ACCMODE) != O_RDONLY || asked->flags & (O_TRUNC | O_CREAT | O_DIRECT))
        return 0;
    pthread_mutex_lock(&front->mutex);
    const uint64_t directory = header->nodeid >> front->directory_bits;
    const int inside = directory && directory << front->directory_bits != header->nodeid;
    struct run *run = run_of(front, header->nodeid, &file);
    int known = run || (inside && *plain_of(front, header->nodeid) == directory);
    if (run && run->picture->size <= MOST_AHEAD) {
        many = run->picture->size > MOST_AT_ONCE;
        ahead = foresee(front, run, file, next, many ? TOGETHER : 1, &raise);
    }
    pthread_mutex_unlock(&front->mutex);
    if (!known)
        return 0;
    struct fuse_open_out out = {
        .fh = header->nodeid | STATELESS, .open_flags = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH};
    if (!volfs_reply(device, header->unique, &out, sizeof out))
        return 0;
    volfs_meter_count(&front->meter, VOLFS_OPEN, since, 0, 0);
    for (int i = 0; i < ahead; i++)
        if (many)
            volfs_givers_want(front->givers, next[i], device);
        else
            give_file(front, next[i], device);
    if (raise)
        raise_event(front);
    return 1;
}

/* FLUSH and RELEASE: both begin with the handle, and have nothing to be done. */
static int answer_close(struct volfs_front *front, const struct fuse_in_header *header, const uint8_t *body, size_t rest,
    enum volfs_operation operation, int device, int64_t since)
{
    uint64_t fh;
    if (rest < (operation == VOLFS_FLUSH ? sizeof(struct fuse_flush_in) : sizeof(struct fuse_release_in)))
        return 0;
    memcpy(&fh, body, sizeof fh);
    if (fh != (header->nodeid | STATELESS) || !volfs_reply(device, header->unique, NULL, 0))
        return 0;
    volfs_meter_count(&front->meter, operation, since, 0, 0);
    return 1;
}

/* An open directory has no state: its handle is its inode. */
static int answer_opendir(struct volfs_front *front, const struct fuse_in_header *header, int device, int64_t since)
{
    if (!header->nodeid)
        return 0;
    pthread_mutex_lock(&front->mutex);
    int kept = *listing_of(front, header->nodeid) == header->nodeid;
    pthread_mutex_unlock(&front->mutex);
    struct fuse_open_out out = {.fh = header->nodeid, .open_flags = kept ? FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR : 0};
    if (!volfs_reply(device, header->unique, &out, sizeof out))
        return 0;
    volfs_meter_count(&front->meter, VOLFS_OPENDIR, since, 0, 0);
    return 1;
}

static int answer_releasedir(struct volfs_front *front, const struct fuse_in_header *header, int device, int64_t since)
{
    if (!volfs_reply(device, header->unique, NULL, 0))
        return 0;
    volfs_meter_count(&front->meter, VOLFS_RELEASEDIR, since, 0, 0);
    return 1;
}

/* No file answers any: as libfuse says, of which the kernel makes ENOTTY. Python's open() asks whether every file is a
 * terminal. */
static int answer_ioctl(struct volfs_front *front, const struct fuse_in_header *header, int device, int64_t since)
{
    if (!volfs_refuse(device, header->unique, ENOSYS))
        return 0;
    volfs_meter_count(&front->meter, VOLFS_IOCTL, since, 0, 0);
    return 1;
}

static int answer_read(struct volfs_front *front, const struct fuse_in_header *header, const struct fuse_read_in *asked,
    int device, int64_t since)
{
    if (asked->fh != (header->nodeid | STATELESS) || asked->size > LARGEST || asked->offset > INT64_MAX / 2)
        return 0;
    struct reading reading;
    int64_t file;
    pthread_mutex_lock(&front->mutex);
    struct run *run = run_of(front, header->nodeid, &file);
    int held = run && hold(front, run, file, (int64_t)asked->offset, asked->size, &reading);
    int raise = 0;
    if (held) {
        give(run, file, reading.offset, reading.length);
        raise = note_all(front, run->stack, file * run->picture->planes + reading.first, (int64_t)reading.used);
    }
    pthread_mutex_unlock(&front->mutex);
    if (!held)
        return 0;
    const uint8_t *bytes = put_together(&reading);
    int sent = bytes && volfs_reply(device, header->unique, bytes, (size_t)reading.length);
    pthread_mutex_lock(&front->mutex);
    let_go(front, &reading, sent);
    if (sent)
        volfs_meter_count(&front->meter, VOLFS_READ, since, (uint64_t)reading.length,
            (uint64_t)volfs_picture_voxels(reading.picture, reading.offset, reading.length));
    pthread_mutex_unlock(&front->mutex);
    if (raise)
        raise_event(front);
    return sent;
}

/* Files that are open, whoever answers. */
static void count_opens(struct volfs_front *front, const struct fuse_in_header *header)
{
    if (header->opcode != FUSE_OPEN && header->opcode != FUSE_RELEASE)
        return;
    pthread_mutex_lock(&front->mutex);
    if (header->opcode == FUSE_OPEN)
        volfs_opens_add(&front->opens, header->nodeid);
    else
        volfs_opens_remove(&front->opens, header->nodeid);
    pthread_mutex_unlock(&front->mutex);
    if (header->opcode == FUSE_OPEN)
        volfs_givers_settle(front->givers, header->nodeid);
}

int volfs_front_answer(struct volfs_front *front, const uint8_t *request, size_t size, int device, int64_t since)
{
    struct fuse_in_header header;
    if (size < sizeof header)
        return 0;
    memcpy(&header, request, sizeof header);
    count_opens(front, &header);
    const uint8_t *body = request + sizeof header;
    const size_t rest = size - sizeof header;
    switch (header.opcode) {
    case FUSE_OPEN: {
        struct fuse_open_in asked;
        if (rest < sizeof asked)
            return 0;
        memcpy(&asked, body, sizeof asked);
        return answer_open(front, &header, &asked, device, since)
            || volfs_files_answer(front->files, request, size, device, since);
    }
    case FUSE_IOCTL:
        return answer_ioctl(front, &header, device, since);
    case FUSE_OPENDIR:
        return answer_opendir(front, &header, device, since);
    case FUSE_READ: {
        struct fuse_read_in asked;
        if (rest < sizeof asked)
            return 0;
        memcpy(&asked, body, sizeof asked);
        return answer_read(front, &header, &asked, device, since);
    }
    case FUSE_RELEASEDIR:
        return answer_releasedir(front, &header, device, since);
    case FUSE_FLUSH:
        return answer_close(front, &header, body, rest, VOLFS_FLUSH, device, since)
            || volfs_files_answer(front->files, request, size, device, since);
    case FUSE_LOOKUP:
    case FUSE_GETATTR:
    case FUSE_WRITE:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
        return volfs_files_answer(front->files, request, size, device, since);
    case FUSE_RELEASE:
        return answer_close(front, &header, body, rest, VOLFS_RELEASE, device, since)
            || volfs_files_answer(front->files, request, size, device, since);
    default:
        return 0;
    }
}
