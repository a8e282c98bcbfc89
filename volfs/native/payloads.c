#include "payloads.h"

#include "bytes.h"
#include "sums.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

/* c-blosc says so (BLOSC_MAX_OVERHEAD, BLOSC_MAX_BUFFERSIZE), and it is part of its format. */
enum { BLOSC_OVERHEAD = 16 };
#define BLOSC_LARGEST (INT32_MAX - BLOSC_OVERHEAD)

static struct {
    ZSTD_CCtx *(*create)(void);
    size_t (*set)(ZSTD_CCtx *, ZSTD_cParameter, int);
    size_t (*compress)(ZSTD_CCtx *, void *, size_t, const void *, size_t);
    size_t (*bound)(size_t);
    size_t (*release)(ZSTD_CCtx *);
    unsigned (*failed)(size_t);
    int (*blosc)(int, int, size_t, size_t, const void *, void *, size_t, const char *, size_t, int);
    unsigned char *(*sha256)(const unsigned char *, size_t, unsigned char *);
} borrowed;

struct volfs_workspace {
    struct volfs_workspace *next;
    ZSTD_CCtx *zstd;
    uint8_t *scratch; /* the voxels of a chunk */
    uint8_t *bytes;
    size_t size, room;
};

struct volfs_maker {
    struct volfs_encoding encoding;
    int encodes;
    int64_t chunk; /* bytes of the voxels of a chunk */
    size_t most;   /* bytes that its payload may take */
    pthread_mutex_t mutex;
    struct volfs_workspace *idle;
};

/* ---------------------------------------------------------------- functions of other libraries */

/* Find a function, by a pointer to an object, of which C makes none to a function. None if all libraries of this process
 * see another one under its name: the library may then call functions of two releases in turns. */
static void find(void *library, const char *name, void *function)
{
    void *found = library ? dlsym(library, name) : NULL, *everywhere = dlopen(NULL, RTLD_NOW);
    void *seen = everywhere ? dlsym(everywhere, name) : NULL;
    if (seen && seen != found)
        found = NULL;
    memcpy(function, &found, sizeof found);
    if (everywhere)
        dlclose(everywhere);
}

/* With RTLD_NOW, whatever the library calls is found now, and not when others have come. */
static void *opened(const char *path) { return path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL; }

int volfs_payloads_load(const char *zstd, const char *blosc, const char *sums)
{
    void *library = opened(zstd);
    find(library, "ZSTD_createCCtx", &borrowed.create);
    find(library, "ZSTD_CCtx_setParameter", &borrowed.set);
    find(library, "ZSTD_compress2", &borrowed.compress);
    find(library, "ZSTD_compressBound", &borrowed.bound);
    find(library, "ZSTD_freeCCtx", &borrowed.release);
    find(library, "ZSTD_isError", &borrowed.failed);
    find(opened(blosc), "blosc_compress_ctx", &borrowed.blosc);
    find(opened(sums), "SHA256", &borrowed.sha256);
    return borrowed.sha256 != NULL;
}

int volfs_payloads_can(enum volfs_compressor compressor)
{
    switch (compressor) {
    case VOLFS_ZSTD:
        return borrowed.sha256 && borrowed.create && borrowed.set && borrowed.compress && borrowed.bound
            && borrowed.release && borrowed.failed;
    case VOLFS_BLOSC: return borrowed.sha256 && borrowed.blosc;
    default: return borrowed.sha256 != NULL;
    }
}

/* ---------------------------------------------------------------- workspaces */

struct volfs_maker *volfs_maker_new(const struct volfs_encoding *encoding)
{
    if (encoding && (!volfs_form_valid(&encoding->form) || !volfs_payloads_can(encoding->form.compressor)))
        return NULL;
    struct volfs_maker *maker = calloc(1, sizeof *maker);
    if (!maker)
        return NULL;
    pthread_mutex_init(&maker->mutex, NULL);
    if (encoding) {
        maker->encoding = *encoding;
        maker->encodes = 1;
        maker->chunk = volfs_form_bytes(&encoding->form);
        maker->most = (size_t)maker->chunk + BLOSC_OVERHEAD;
        if (encoding->form.compressor == VOLFS_ZSTD)
            maker->most = borrowed.bound((size_t)maker->chunk);
        maker->most += 4;
    }
    return maker;
}

static void workspace_free(struct volfs_workspace *workspace)
{
    if (workspace->zstd)
        borrowed.release(workspace->zstd);
    free(workspace->scratch);
    free(workspace->bytes);
    free(workspace);
}

void volfs_maker_free(struct volfs_maker *maker)
{
    if (!maker)
        return;
    while (maker->idle) {
        struct volfs_workspace *workspace = maker->idle;
        maker->idle = workspace->next;
        workspace_free(workspace);
    }
    pthread_mutex_destroy(&maker->mutex);
    free(maker);
}

static struct volfs_workspace *workspace_new(const struct volfs_maker *maker)
{
    struct volfs_workspace *workspace = calloc(1, sizeof *workspace);
    if (!workspace || !maker->encodes)
        return workspace;
    const struct volfs_encoding *encoding = &maker->encoding;
    workspace->scratch = malloc((size_t)maker->chunk);
    int fit = workspace->scratch != NULL;
    if (encoding->form.compressor == VOLFS_ZSTD) {
        workspace->zstd = borrowed.create();
        fit = fit && workspace->zstd
            && !borrowed.failed(borrowed.set(workspace->zstd, ZSTD_c_compressionLevel, encoding->level))
            && !borrowed.failed(borrowed.set(workspace->zstd, ZSTD_c_checksumFlag, encoding->checksum));
    }
    if (fit)
        return workspace;
    workspace_free(workspace);
    return NULL;
}

struct volfs_workspace *volfs_workspace_take(struct volfs_maker *maker)
{
    pthread_mutex_lock(&maker->mutex);
    struct volfs_workspace *workspace = maker->idle;
    if (workspace)
        maker->idle = workspace->next;
    pthread_mutex_unlock(&maker->mutex);
    if (!workspace)
        return workspace_new(maker);
    workspace->size = 0;
    return workspace;
}

void volfs_workspace_give(struct volfs_maker *maker, struct volfs_workspace *workspace)
{
    pthread_mutex_lock(&maker->mutex);
    workspace->next = maker->idle;
    maker->idle = workspace;
    pthread_mutex_unlock(&maker->mutex);
}

const uint8_t *volfs_workspace_bytes(const struct volfs_workspace *workspace, size_t *size)
{
    *size = workspace->size;
    return workspace->bytes;
}

/* Room for so many bytes more. */
static uint8_t *room_for(struct volfs_workspace *workspace, size_t more)
{
    if (workspace->room - workspace->size < more) {
        size_t room = workspace->size + more + workspace->size / 2;
        uint8_t *bytes = realloc(workspace->bytes, room);
        if (!bytes)
            return NULL;
        workspace->bytes = bytes;
        workspace->room = room;
    }
    return workspace->bytes + workspace->size;
}

/* Count bytes that stand behind a workspace's last ones as a payload of it. */
static void add(struct volfs_workspace *workspace, size_t length, struct volfs_payload *payload)
{
    const uint8_t *bytes = workspace->bytes + workspace->size;
    payload->offset = (int64_t)workspace->size;
    payload->length = (int64_t)length;
    payload->crc32c = volfs_crc32c(0, bytes, length);
    payload->outcome = borrowed.sha256(bytes, length, payload->sha256) ? VOLFS_DONE : VOLFS_DOUBT;
    workspace->size += length;
}

void volfs_piece_sums(const uint8_t *payload, int64_t length, uint32_t *sums)
{
    for (; length > 0; payload += VOLFS_PIECE, length -= VOLFS_PIECE)
        *sums++ = volfs_crc32c(0, payload, (size_t)(length < VOLFS_PIECE ? length : VOLFS_PIECE));
}

/* ---------------------------------------------------------------- voxels to a chunk in memory */

#define TAKE_ROW(TYPE)                                                                                                 \
    for (int64_t i = 0; i < count; i++)                                                                                \
        memcpy(to + i * (int64_t)sizeof(TYPE), from + i * stride, sizeof(TYPE))

static void take_row(uint8_t *to, const uint8_t *from, int64_t stride, int64_t count, int item)
{
    if (stride == item) {
        memcpy(to, from, (size_t)(count * item));
        return;
    }
    switch (item) {
    case 1: TAKE_ROW(uint8_t); return;
    case 2: TAKE_ROW(uint16_t); return;
    case 4: TAKE_ROW(uint32_t); return;
    default: TAKE_ROW(uint64_t);
    }
}

static void fill_with(uint8_t *to, const uint8_t *fill, int item, int64_t bytes)
{
    if (item == 1) {
        memset(to, fill[0], (size_t)bytes);
        return;
    }
    for (int64_t at = 0; at < bytes; at += item)
        memcpy(to + at, fill, (size_t)item);
}

/* The voxels of a chunk as they are stored, in this machine's byte order. */
static void gather(const struct volfs_encoding *encoding, const int64_t *strides, const struct volfs_source *chunk,
    uint8_t *to, int64_t bytes)
{
    const struct volfs_form *form = &encoding->form;
    const int last = form->axes - 1;
    int64_t stored[VOLFS_MAX_AXES], at[VOLFS_MAX_AXES] = {0}, size = form->item;
    int whole = 1;
    for (int axis = last; axis >= 0; axis--) {
        stored[axis] = size;
        size *= form->shape[axis];
        whole &= chunk->shape[axis] == form->shape[axis];
    }
    if (!whole)
        fill_with(to, encoding->fill, form->item, bytes);
    const uint8_t *from = chunk->voxels;
    for (;;) {
        take_row(to, from, strides[last], chunk->shape[last], form->item);
        int axis = last - 1;
        for (; axis >= 0; axis--) {
            from += strides[axis];
            to += stored[axis];
            if (++at[axis] < chunk->shape[axis])
                break;
            from -= at[axis] * strides[axis];
            to -= at[axis] * stored[axis];
            at[axis] = 0;
        }
        if (axis < 0)
            return;
    }
}

/* True if every voxel has the bits of the fill value: the first has, and each is as the one before it. */
static int all_fill(const struct volfs_encoding *encoding, const uint8_t *voxels, int64_t bytes)
{
    const int item = encoding->form.item;
    return memcmp(voxels, encoding->fill, (size_t)item) == 0 && memcmp(voxels, voxels + item, (size_t)(bytes - item)) == 0;
}

/* ---------------------------------------------------------------- a chunk to a payload */

/* Returns the bytes of a chunk compressed, at most maker->most of them; 0 if that fails. */
static size_t compress(const struct volfs_maker *maker, const struct volfs_workspace *workspace, const uint8_t *voxels,
    uint8_t *to)
{
    const struct volfs_encoding *how = &maker->encoding;
    const size_t size = (size_t)maker->chunk;
    switch (how->form.compressor) {
    case VOLFS_ZSTD: {
        size_t got = borrowed.compress(workspace->zstd, to, maker->most - 4, voxels, size);
        return borrowed.failed(got) ? 0 : got;
    }
    case VOLFS_BLOSC: {
        if (size > BLOSC_LARGEST)
            return 0;
        int got = borrowed.blosc(how->effort, how->shuffle, (size_t)how->type_size, size, voxels, to, size + BLOSC_OVERHEAD,
            how->compressor, how->block_size, 1);
        return got > 0 ? (size_t)got : 0;
    }
    default: memcpy(to, voxels, size); return size;
    }
}

void volfs_encode(const struct volfs_maker *maker, struct volfs_workspace *workspace, const int64_t *strides,
    const struct volfs_source *chunks, size_t count, struct volfs_payload *payloads)
{
    const struct volfs_encoding *encoding = &maker->encoding;
    const struct volfs_form *form = &encoding->form;
    for (size_t i = 0; i < count; i++) {
        struct volfs_payload *payload = &payloads[i];
        memset(payload, 0, sizeof *payload);
        payload->outcome = VOLFS_DOUBT;
        gather(encoding, strides, &chunks[i], workspace->scratch, maker->chunk);
        if (all_fill(encoding, workspace->scratch, maker->chunk)) {
            payload->outcome = VOLFS_DONE;
            continue;
        }
        if (form->swap && form->item > 1)
            volfs_swap(workspace->scratch, workspace->scratch, maker->chunk, form->item);
        uint8_t *to = room_for(workspace, maker->most);
        size_t length = to ? compress(maker, workspace, workspace->scratch, to) : 0;
        if (!length)
            continue;
        if (form->summed) {
            uint32_t sum = volfs_crc32c(0, to, length);
            for (int byte = 0; byte < 4; byte++)
                to[length++] = (uint8_t)(sum >> 8 * byte);
        }
        add(workspace, length, payload);
    }
}

/* ---------------------------------------------------------------- files */

static int read_all(int fd, uint8_t *to, size_t length)
{
    while (length > 0) {
        ssize_t got = read(fd, to, length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        to += got;
        length -= (size_t)got;
    }
    return 1;
}

/* Open an ordinary file that is not empty. Never waits for another process. Returns -1 if it is none. */
static int open_file(const char *path, int64_t *length)
{
    struct stat found;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fstat(fd, &found) == 0 && S_ISREG(found.st_mode) && found.st_size > 0) {
        *length = found.st_size;
        return fd;
    }
    close(fd);
    return -1;
}

void volfs_read_files(
    struct volfs_workspace *workspace, const char *const *paths, size_t count, int64_t most, struct volfs_payload *payloads)
{
    for (size_t i = 0; i < count; i++) {
        int64_t length = 0;
        memset(&payloads[i], 0, sizeof payloads[i]);
        payloads[i].outcome = VOLFS_DOUBT;
        int fd = open_file(paths[i], &length);
        if (fd < 0)
            continue;
        uint8_t *to = length <= most - (int64_t)workspace->size ? room_for(workspace, (size_t)length) : NULL;
        if (to && read_all(fd, to, (size_t)length))
            add(workspace, (size_t)length, &payloads[i]);
        close(fd);
    }
}

void volfs_check_files(const struct volfs_form *form, const char *const *paths, size_t count, uint8_t *outcomes)
{
    /* Nobody wants the voxels: they may lie as they are stored. */
    struct volfs_form straight = *form;
    straight.swap = 0;
    int64_t size = form->item;
    for (int axis = form->axes - 1; axis >= 0; axis--) {
        straight.strides[axis] = size;
        size *= form->shape[axis];
    }
    uint8_t *voxels = malloc((size_t)size), *payload = NULL;
    ZSTD_DCtx *zstd = form->compressor == VOLFS_ZSTD ? ZSTD_createDCtx() : NULL;
    int64_t room = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t length = 0;
        outcomes[i] = VOLFS_DOUBT;
        int fd = open_file(paths[i], &length);
        if (fd < 0)
            continue;
        if (length > room && length <= volfs_form_bound(form)) {
            free(payload);
            room = length + length / 4;
            payload = malloc((size_t)room);
            if (!payload)
                room = 0;
        }
        if (voxels && payload && length <= room && read_all(fd, payload, (size_t)length))
            outcomes[i] = (uint8_t)volfs_decode(&straight, payload, (size_t)length, voxels, NULL, zstd);
        close(fd);
    }
    ZSTD_freeDCtx(zstd);
    free(payload);
    free(voxels);
}
