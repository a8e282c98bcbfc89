/* Requests of any bytes, to a front whose stacks and slabs come and go. */
#include "front.h"
#include "input.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>

enum { DIRECTORY = 7 << 5 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int device = -1;
    static uint8_t voxels[4 * 6 * 8];
    if (device < 0)
        device = open("/dev/null", O_WRONLY);
    struct input input = {data, size};
    struct volfs_front *front = volfs_front_new(5);
    assert(front);
    const uint8_t zero[8] = {0};
    while (input.size) {
        uint64_t number = (uint64_t)between(&input, 0, 3);
        switch (between(&input, 0, 7)) {
        case 0:
            volfs_front_stack(front, between(&input, 0, 12), between(&input, 0, 4));
            break;
        case 1:
            volfs_front_drop(front, number);
            break;
        case 2: {
            int64_t planes = between(&input, 1, 3);
            struct volfs_picture *picture = volfs_picture_new(planes == 1 && take(&input, 1) & 1 ? VOLFS_PNG : VOLFS_ROWS, 6, 8,
                1, 0, zero, planes, (const uint8_t *)"headIDATxx", 10, zero, 3);
            assert(picture);
            volfs_front_serve(front, number, DIRECTORY + (uint64_t)between(&input, 0, 4), between(&input, 0, 3),
                between(&input, 0, 12), picture);
            break;
        }
        case 3: {
            struct volfs_piece piece = {take(&input, 1) & 1 ? voxels : NULL, 48, 8, 0, 6, 0, 8};
            volfs_front_lend(front, number, between(&input, 0, 12) - 1, &piece, 1);
            break;
        }
        case 4:
            volfs_front_recall(front, number, between(&input, 0, 12) - 1);
            break;
        case 5: {
            struct volfs_note notes[8];
            struct volfs_counts counts;
            volfs_front_notes(front, notes, 8);
            volfs_front_counts(front, &counts);
            volfs_front_keep_listing(front, take(&input, 8));
            volfs_front_keep_files(front, take(&input, 8));
            break;
        }
        default: {
            /* Well formed as a whole, with any numbers in it; or any bytes. */
            uint8_t request[sizeof(struct fuse_in_header) + 40] = {0};
            size_t length = (size_t)between(&input, 0, sizeof request);
            for (size_t i = 0; i < length; i++)
                request[i] = (uint8_t)take(&input, 1);
            if (length & 1) {
                static const uint32_t opcodes[] = {
                    FUSE_OPEN, FUSE_READ, FUSE_FLUSH, FUSE_OPENDIR, FUSE_RELEASE, FUSE_IOCTL};
                struct fuse_in_header header = {.len = sizeof request, .opcode = opcodes[between(&input, 0, 5)], .unique = 2,
                    .nodeid = DIRECTORY + (uint64_t)between(&input, 0, 40)};
                struct fuse_read_in asked = {.fh = header.nodeid | (uint64_t)1 << 63, .offset = take(&input, take(&input, 1) % 9),
                    .size = (uint32_t)take(&input, 4)};
                memcpy(request, &header, sizeof header);
                if (header.opcode == FUSE_READ)
                    memcpy(request + sizeof header, &asked, sizeof asked);
                length = sizeof request;
            }
            uint8_t *exactly = malloc(length + 1);
            assert(exactly);
            memcpy(exactly, request, length);
            volfs_front_answer(front, exactly, length, device, 0);
            free(exactly);
        }
        }
    }
    volfs_front_free(front);
    return 0;
}
