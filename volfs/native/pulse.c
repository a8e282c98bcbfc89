#include "pulse.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct volfs_pulse {
    pthread_mutex_t mutex;
    int fd;
    atomic_int_least64_t numbers[2]; /* the count, the latest time: as they are in the file, whose numbers are little-endian */
    int64_t floor;
    int noted; /* -1: too many */
    uint64_t whom[VOLFS_CHANGES];
};

enum { COUNT, LAST };

struct volfs_pulse *volfs_pulse_new(void)
{
    struct volfs_pulse *pulse = calloc(1, sizeof *pulse);
    if (!pulse)
        return NULL;
    pulse->fd = -1;
    pthread_mutex_init(&pulse->mutex, NULL);
    return pulse;
}

void volfs_pulse_free(struct volfs_pulse *pulse)
{
    if (!pulse)
        return;
    pthread_mutex_destroy(&pulse->mutex);
    free(pulse);
}

static int64_t little(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | bytes[i];
    return (int64_t)value;
}

void volfs_pulse_unload(struct volfs_pulse *pulse)
{
    pthread_mutex_lock(&pulse->mutex);
    pulse->fd = -1;
    pthread_mutex_unlock(&pulse->mutex);
}

void volfs_pulse_load(struct volfs_pulse *pulse, int fd)
{
    uint8_t bytes[16] = {0};
    pthread_mutex_lock(&pulse->mutex);
    pulse->fd = fd;
    if (fd >= 0 && pread(fd, bytes, sizeof bytes, 0) < 0)
        memset(bytes, 0, sizeof bytes);
    int64_t count = little(bytes);
    if (pulse->numbers[COUNT] != count)
        pulse->noted = -1; /* by others */
    pulse->numbers[COUNT] = count;
    pulse->numbers[LAST] = little(bytes + 8);
    pthread_mutex_unlock(&pulse->mutex);
}

int64_t volfs_pulse_count(struct volfs_pulse *pulse)
{
    return atomic_load(&pulse->numbers[COUNT]);
}

int64_t volfs_pulse_last(struct volfs_pulse *pulse)
{
    return atomic_load(&pulse->numbers[LAST]);
}

void volfs_pulse_floor(struct volfs_pulse *pulse, int64_t floor)
{
    pthread_mutex_lock(&pulse->mutex);
    pulse->floor = floor;
    pthread_mutex_unlock(&pulse->mutex);
}

/* Write numbers `first` to `last` to the file, and have them be so. With the mutex. 0, or an errno. */
static int keep(struct volfs_pulse *pulse, int first, int last, const int64_t *numbers)
{
    uint8_t bytes[16];
    if (pulse->fd < 0)
        return EBADF;
    for (int which = first; which <= last; which++)
        for (int i = 0; i < 8; i++)
            bytes[8 * which + i] = (uint8_t)((uint64_t)numbers[which] >> 8 * i);
    ssize_t size = 8 * (last - first + 1), written;
    do
        written = pwrite(pulse->fd, bytes + 8 * first, (size_t)size, 8 * first);
    while (written < 0 && errno == EINTR);
    if (written != size)
        return written < 0 ? errno : ENOSPC;
    for (int which = first; which <= last; which++)
        pulse->numbers[which] = numbers[which];
    return 0;
}

static int64_t later(int64_t time, int64_t than) { return time > than ? time : than < INT64_MAX ? than + 1 : than; }

static int64_t next_time(const struct volfs_pulse *pulse, int64_t after)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    int64_t time = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec;
    return later(later(later(time, pulse->numbers[LAST]), pulse->floor), after);
}

static int64_t next_count(const struct volfs_pulse *pulse)
{
    return (int64_t)(((uint64_t)pulse->numbers[COUNT] + 1) & INT64_MAX);
}

static void note(struct volfs_pulse *pulse, uint64_t whom)
{
    if (pulse->noted == VOLFS_CHANGES)
        pulse->noted = -1;
    else if (pulse->noted >= 0)
        pulse->whom[pulse->noted++] = whom;
}

static int set_time(int file, int64_t time)
{
    struct timespec times[2] = {{time / 1000000000, time % 1000000000}, {time / 1000000000, time % 1000000000}};
    return futimens(file, times) < 0 ? errno : 0;
}

int64_t volfs_pulse_tick(struct volfs_pulse *pulse, int64_t after)
{
    pthread_mutex_lock(&pulse->mutex);
    int64_t numbers[2] = {0, next_time(pulse, after)};
    int error = keep(pulse, LAST, LAST, numbers);
    pthread_mutex_unlock(&pulse->mutex);
    return error ? -error : numbers[LAST];
}

int volfs_pulse_stamp(struct volfs_pulse *pulse, int file, int64_t after)
{
    pthread_mutex_lock(&pulse->mutex);
    int64_t numbers[2] = {0, next_time(pulse, after)};
    int error = keep(pulse, LAST, LAST, numbers);
    if (!error)
        error = set_time(file, numbers[LAST]);
    pthread_mutex_unlock(&pulse->mutex);
    return error;
}

int volfs_pulse_beat(struct volfs_pulse *pulse, uint64_t whom)
{
    pthread_mutex_lock(&pulse->mutex);
    int64_t numbers[2] = {next_count(pulse), 0};
    int error = keep(pulse, COUNT, COUNT, numbers);
    if (!error)
        note(pulse, whom);
    pthread_mutex_unlock(&pulse->mutex);
    return error;
}

int volfs_pulse_written(struct volfs_pulse *pulse, int file, int64_t after, uint64_t whom)
{
    pthread_mutex_lock(&pulse->mutex);
    int64_t numbers[2] = {next_count(pulse), next_time(pulse, after)};
    int error = keep(pulse, LAST, LAST, numbers);
    if (!error)
        error = set_time(file, numbers[LAST]);
    if (!error) /* whoever sees the count sees the time */
        error = keep(pulse, COUNT, COUNT, numbers);
    if (!error)
        note(pulse, whom);
    pthread_mutex_unlock(&pulse->mutex);
    return error;
}

int volfs_pulse_changes(struct volfs_pulse *pulse, uint64_t *whom, int64_t *count)
{
    pthread_mutex_lock(&pulse->mutex);
    int noted = pulse->noted;
    if (noted > 0)
        memcpy(whom, pulse->whom, (size_t)noted * sizeof *whom);
    pulse->noted = 0;
    *count = pulse->numbers[COUNT];
    pthread_mutex_unlock(&pulse->mutex);
    return noted;
}
