#include "meter.h"

#include "replies.h"

void volfs_meter_begin(struct volfs_meter *meter) { pthread_mutex_init(&meter->mutex, NULL); }

void volfs_meter_end(struct volfs_meter *meter) { pthread_mutex_destroy(&meter->mutex); }

void volfs_meter_count(
    struct volfs_meter *meter, enum volfs_operation operation, int64_t since, uint64_t bytes, uint64_t copied)
{
    int64_t took = volfs_now() - since;
    int power = took > 1 ? 64 - __builtin_clzll((unsigned long long)took - 1) : 0, bucket = power - VOLFS_FIRST_BUCKET;
    bucket = bucket < 0 ? 0 : bucket >= VOLFS_BUCKETS ? VOLFS_BUCKETS - 1 : bucket;
    pthread_mutex_lock(&meter->mutex);
    struct volfs_counts *counts = &meter->counts;
    counts->answered[operation]++;
    counts->nanoseconds[operation] += (uint64_t)took;
    counts->buckets[operation][bucket]++;
    if (operation == VOLFS_WRITE)
        counts->bytes_written += bytes;
    else
        counts->bytes_read += bytes;
    counts->bytes_copied += copied;
    pthread_mutex_unlock(&meter->mutex);
}

void volfs_meter_ahead(struct volfs_meter *meter, uint64_t bytes, uint64_t copied)
{
    pthread_mutex_lock(&meter->mutex);
    meter->counts.files_ahead++;
    meter->counts.bytes_ahead += bytes;
    meter->counts.bytes_copied += copied;
    pthread_mutex_unlock(&meter->mutex);
}

void volfs_meter_counts(struct volfs_meter *meter, struct volfs_counts *counts)
{
    pthread_mutex_lock(&meter->mutex);
    *counts = meter->counts;
    pthread_mutex_unlock(&meter->mutex);
}
