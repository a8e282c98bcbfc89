#include "givers.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum {
    /* More gain nothing: whoever reads the files is one, and new pages come slower than they are filled. */
    THREADS = 2,
    WANTED = 8,
};

struct wish {
    uint64_t inode;
    int device;
};

struct volfs_givers {
    struct volfs_giving giving;
    pthread_mutex_t mutex;
    pthread_cond_t wanted, given;
    struct wish wishes[WANTED]; /* in order */
    int waiting;
    uint64_t now[THREADS]; /* what each thread gives; 0: nothing */
    pthread_t threads[THREADS];
    int started, stopped;
};

struct volfs_givers *volfs_givers_new(struct volfs_giving giving)
{
    struct volfs_givers *givers = calloc(1, sizeof *givers);
    if (!givers)
        return NULL;
    givers->giving = giving;
    pthread_mutex_init(&givers->mutex, NULL);
    pthread_cond_init(&givers->wanted, NULL);
    pthread_cond_init(&givers->given, NULL);
    return givers;
}

/* Take a wish out. With the mutex held. */
static struct wish take(struct volfs_givers *givers, int at)
{
    struct wish wish = givers->wishes[at];
    givers->waiting--;
    for (int i = at; i < givers->waiting; i++)
        givers->wishes[i] = givers->wishes[i + 1];
    return wish;
}

static void *give_files(void *all)
{
    struct volfs_givers *givers = all;
    int self = 0;
    pthread_mutex_lock(&givers->mutex);
    while (!pthread_equal(givers->threads[self], pthread_self()))
        self++;
    for (;;) {
        while (!givers->waiting && !givers->stopped)
            pthread_cond_wait(&givers->wanted, &givers->mutex);
        if (givers->stopped)
            break;
        struct wish wish = take(givers, 0);
        givers->now[self] = wish.inode;
        pthread_mutex_unlock(&givers->mutex);
        givers->giving.give(givers->giving.owner, wish.inode, wish.device);
        pthread_mutex_lock(&givers->mutex);
        givers->now[self] = 0;
        pthread_cond_broadcast(&givers->given);
    }
    pthread_mutex_unlock(&givers->mutex);
    givers->giving.leave();
    return NULL;
}

/* With the mutex held, which the threads take first. */
static void start(struct volfs_givers *givers)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are Python's */
    while (givers->started < THREADS
        && pthread_create(&givers->threads[givers->started], NULL, give_files, givers) == 0)
        givers->started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* True if a file is given now. With the mutex held. */
static int is_given_now(const struct volfs_givers *givers, uint64_t inode)
{
    for (int i = 0; i < THREADS; i++)
        if (givers->now[i] == inode)
            return 1;
    return 0;
}

static int place_of(const struct volfs_givers *givers, uint64_t inode)
{
    int at = 0;
    while (at < givers->waiting && givers->wishes[at].inode != inode)
        at++;
    return at < givers->waiting ? at : -1;
}

void volfs_givers_want(struct volfs_givers *givers, uint64_t inode, int device)
{
    pthread_mutex_lock(&givers->mutex);
    if (inode && !givers->stopped && givers->waiting < WANTED && place_of(givers, inode) < 0 && !is_given_now(givers, inode)) {
        givers->wishes[givers->waiting++] = (struct wish){inode, device};
        if (!givers->started)
            start(givers);
        pthread_cond_signal(&givers->wanted);
    }
    pthread_mutex_unlock(&givers->mutex);
}

void volfs_givers_settle(struct volfs_givers *givers, uint64_t inode)
{
    pthread_mutex_lock(&givers->mutex);
    int at = place_of(givers, inode);
    if (at >= 0)
        take(givers, at);
    while (inode && is_given_now(givers, inode))
        pthread_cond_wait(&givers->given, &givers->mutex);
    pthread_mutex_unlock(&givers->mutex);
}

void volfs_givers_stop(struct volfs_givers *givers)
{
    pthread_mutex_lock(&givers->mutex);
    givers->stopped = 1;
    givers->waiting = 0;
    int started = givers->started;
    givers->started = 0;
    pthread_cond_broadcast(&givers->wanted);
    pthread_mutex_unlock(&givers->mutex);
    for (int i = 0; i < started; i++)
        pthread_join(givers->threads[i], NULL);
}

void volfs_givers_free(struct volfs_givers *givers)
{
    if (!givers)
        return;
    volfs_givers_stop(givers);
    pthread_cond_destroy(&givers->given);
    pthread_cond_destroy(&givers->wanted);
    pthread_mutex_destroy(&givers->mutex);
    free(givers);
}
