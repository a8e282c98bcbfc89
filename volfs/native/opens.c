#include "opens.h"

#include "bytes.h"

enum { MASK = VOLFS_OPENS - 1 };

/* The place of an inode, or the free one where it belongs. There always is one. */
static size_t place_of(const struct volfs_opens *opens, uint64_t inode)
{
    size_t place = volfs_spread(inode, VOLFS_OPENS);
    while (opens->files[place].inode && opens->files[place].inode != inode)
        place = (place + 1) & MASK;
    return place;
}

void volfs_opens_add(struct volfs_opens *opens, uint64_t inode)
{
    if (!inode)
        return;
    size_t place = place_of(opens, inode);
    if (!opens->files[place].inode) {
        if (opens->used >= VOLFS_OPENS / 2) {
            opens->lost = 1;
            return;
        }
        opens->used++;
        opens->files[place].inode = inode;
        opens->files[place].count = 0;
    }
    opens->files[place].count++;
}

void volfs_opens_remove(struct volfs_opens *opens, uint64_t inode)
{
    size_t place = place_of(opens, inode);
    if (!inode || !opens->files[place].inode || --opens->files[place].count)
        return;
    opens->used--;
    /* Those behind that belong before the gap move into it, so that every search still ends at what it looks for. */
    for (size_t next = (place + 1) & MASK; opens->files[next].inode; next = (next + 1) & MASK) {
        size_t home = volfs_spread(opens->files[next].inode, VOLFS_OPENS);
        if (((next - home) & MASK) >= ((next - place) & MASK)) {
            opens->files[place] = opens->files[next];
            place = next;
        }
    }
    opens->files[place].inode = 0;
}

int volfs_opens_has(const struct volfs_opens *opens, uint64_t inode)
{
    return opens->lost || opens->files[place_of(opens, inode)].inode != 0;
}
