/* Requests of any bytes, about files that come and go: what was answered is in the file, and nothing else is. */
#include "files.h"
#include "input.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FILES = 3, ROOM = 256 };

static struct volfs_file files[FILES];
static struct volfs_folder *folders[FILES];
static struct volfs_watch watch;
static uint8_t shadow[FILES][ROOM];

static int empty(const char *name)
{
    int fd = memfd_create(name, 0);
    assert(fd >= 0);
    return fd;
}

/* A write in the order of the protocol; true if it was answered. */
static int write_some(struct volfs_files *table, struct input *input, int which, int device)
{
    uint8_t request[sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in) + ROOM];
    uint64_t offset = take(input, 1), size = take(input, 1);
    if (offset + size > ROOM)
        size = ROOM - offset;
    struct fuse_write_in asked = {.fh = (uint64_t)which + 1, .offset = offset, .size = (uint32_t)size};
    size_t length = sizeof(struct fuse_in_header) + sizeof asked + size;
    struct fuse_in_header header = {.len = (uint32_t)length, .opcode = FUSE_WRITE, .unique = 2, .nodeid = 9};
    memcpy(request, &header, sizeof header);
    memcpy(request + sizeof header, &asked, sizeof asked);
    uint8_t *data = request + sizeof header + sizeof asked;
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)take(input, 1);
    uint8_t *exactly = malloc(length);
    assert(exactly);
    memcpy(exactly, request, length);
    int done = volfs_files_answer(table, exactly, length, device, 1);
    free(exactly);
    if (done)
        memcpy(shadow[which] + offset, data, size);
    return done;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int device = -1, numbers = -1;
    if (device < 0) {
        device = open("/dev/null", O_WRONLY);
        numbers = empty("pulse");
    }
    struct input input = {data, size};
    struct volfs_meter meter = {0};
    volfs_meter_begin(&meter);
    struct volfs_files *table = volfs_files_new(&meter, -1);
    struct volfs_pulse *pulse = volfs_pulse_new();
    assert(table && pulse);
    volfs_pulse_load(pulse, numbers);
    int lent[FILES] = {0};
    atomic_store(&watch.onlookers, 0);
    for (int i = 0; i < FILES; i++) {
        files[i] = (struct volfs_file){.fd = empty("file"), .number = 2 * (uint64_t)i + 2, .pulse = pulse, .watch = &watch};
        folders[i] = volfs_folder_new(empty("folder"), i ? folders[i - 1] : NULL, 1);
        assert(folders[i]);
        memset(shadow[i], 0, ROOM);
    }
    int64_t count = volfs_pulse_count(pulse), last = 0;
    while (input.size) {
        int which = (int)between(&input, 0, FILES - 1);
        switch (between(&input, 0, 10)) {
        case 0:
            if (!lent[which])
                volfs_files_lend(table, &files[which], (uint64_t)which + 1, 9);
            lent[which] = 1;
            break;
        case 1:
            if (lent[which])
                volfs_files_recall(table, &files[which]);
            lent[which] = 0;
            break;
        case 2:
            if (lent[which])
                volfs_files_place(table, &files[which], take(&input, 1) & 1 ? folders[which] : NULL);
            break;
        case 3:
            volfs_files_lend_folder(table, (uint64_t)which + 1, folders[which], take(&input, 1) & 1 ? &watch : NULL,
                (int)(take(&input, 1) & 1));
            volfs_files_touch(table, (uint64_t)between(&input, 0, FILES), (int64_t)take(&input, 4));
            break;
        case 4:
            volfs_folder_end(folders[which]);
            volfs_folder_release(folders[which]);
            folders[which] = volfs_folder_new(empty("folder"), which ? folders[which - 1] : NULL, 1);
            assert(folders[which]);
            volfs_files_tidy(table);
            break;
        case 5:
            atomic_store(&watch.onlookers, (int)(take(&input, 1) & 1));
            atomic_store(&watch.plain, (int)(take(&input, 1) & 1));
            atomic_store(&watch.walk, (int)(take(&input, 1) & 1));
            break;
        case 6: {
            struct volfs_waiting waiting[2];
            uint64_t whom[VOLFS_CHANGES];
            int64_t now;
            volfs_files_waiting(table, waiting, 2);
            volfs_pulse_changes(pulse, whom, &now);
            uint64_t closed[2];
            size_t count = volfs_files_released(table, closed, 2);
            for (size_t i = 0; i < count; i++)
                assert(closed[i] && closed[i] <= FILES);
            assert(volfs_files_unclosed(table) >= 0);
            break;
        }
        case 7: {
            int done = write_some(table, &input, which, device);
            assert(!done || lent[which]);
            assert(volfs_pulse_count(pulse) == count + done);
            count += done;
            assert(volfs_pulse_last(pulse) >= last + done);
            last = volfs_pulse_last(pulse);
            break;
        }
        default: {
            /* Well formed as a whole, with any numbers in it; or any bytes. */
            uint8_t request[sizeof(struct fuse_in_header) + 44] = {0};
            size_t length = (size_t)between(&input, 0, sizeof request);
            for (size_t i = 0; i < length; i++)
                request[i] = (uint8_t)take(&input, 1);
            static const uint32_t opcodes[] = {
                FUSE_FLUSH, FUSE_FSYNC, FUSE_FSYNCDIR, FUSE_OPEN, FUSE_RELEASE, FUSE_GETATTR, FUSE_LOOKUP};
            struct fuse_in_header header = {.len = sizeof request, .opcode = opcodes[between(&input, 0, 6)], .unique = 2,
                .nodeid = (uint64_t)which + 1};
            struct fuse_fsync_in asked = {.fh = (uint64_t)which + 1};
            if (length & 1) {
                memcpy(request, &header, sizeof header);
                memcpy(request + sizeof header, &asked, sizeof asked);
                length = sizeof request;
            } else if (length >= sizeof header) {
                memcpy(&header, request, sizeof header);
                if (header.opcode == FUSE_WRITE)
                    break; /* of those the bytes are known */
            }
            uint8_t *exactly = malloc(length + 1);
            assert(exactly);
            memcpy(exactly, request, length);
            volfs_files_answer(table, exactly, length, device, 1);
            free(exactly);
        }
        }
    }
    volfs_files_stop(table);
    for (int i = 0; i < FILES; i++) {
        uint8_t found[ROOM] = {0};
        if (lent[i])
            volfs_files_recall(table, &files[i]);
        assert(pread(files[i].fd, found, ROOM, 0) >= 0);
        assert(memcmp(found, shadow[i], ROOM) == 0);
        close(files[i].fd);
        volfs_folder_end(folders[i]);
        volfs_folder_release(folders[i]);
    }
    struct volfs_waiting waiting[1];
    while (volfs_files_waiting(table, waiting, 1))
        usleep(50); /* whoever syncs still uses the table */
    volfs_files_free(table);
    volfs_pulse_free(pulse);
    volfs_meter_end(&meter);
    return 0;
}
