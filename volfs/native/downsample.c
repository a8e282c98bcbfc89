#include "downsample.h"

#include <stdlib.h>
#include <string.h>

/* Rows of fine voxels that one coarse row covers, at most. */
enum { MOST_ROWS = 1 << (VOLFS_MAX_AXES - 1), MOST_VOXELS = 2 * MOST_ROWS };

/* One coarse row of `count` fine ones, of `length` voxels each; `factor` of them make one. `sums` has room for two rows
 * of the widest type. */
typedef void reduce_row(const uint8_t *const *rows, int count, int64_t length, int factor, uint8_t *to, void *sums);

/* Loops over rows are worth more to the compiler than -O2 thinks. */
#define VECTORS __attribute__((optimize("O3")))

/* ---------------------------------------------------------------- means of integers: exact, half to even */

#define MEAN_OF_INTEGERS(NAME, TYPE, WIDE)                                                                             \
    VECTORS static void NAME##_add(const uint8_t *row, int64_t length, int factor, int first, WIDE *restrict sums)     \
    {                                                                                                                  \
        const TYPE *restrict voxels = (const TYPE *)(const void *)row;                                                 \
        const int64_t pairs = length / 2;                                                                              \
        if (factor == 2 && first)                                                                                      \
            for (int64_t i = 0; i < pairs; i++)                                                                        \
                sums[i] = (WIDE)((WIDE)voxels[2 * i] + (WIDE)voxels[2 * i + 1]);                                       \
        else if (factor == 2)                                                                                          \
            for (int64_t i = 0; i < pairs; i++)                                                                        \
                sums[i] = (WIDE)(sums[i] + (WIDE)((WIDE)voxels[2 * i] + (WIDE)voxels[2 * i + 1]));                     \
        else if (first)                                                                                                \
            for (int64_t i = 0; i < length; i++)                                                                       \
                sums[i] = (WIDE)voxels[i];                                                                             \
        else                                                                                                           \
            for (int64_t i = 0; i < length; i++)                                                                       \
                sums[i] = (WIDE)(sums[i] + (WIDE)voxels[i]);                                                           \
    }                                                                                                                  \
    VECTORS static void NAME##_round(const WIDE *restrict sums, int64_t count, int shift, uint8_t *row)                \
    {                                                                                                                  \
        TYPE *restrict to = (TYPE *)(void *)row;                                                                       \
        const WIDE half = (WIDE)(((WIDE)1 << shift) / 2 - 1);                                                          \
        for (int64_t i = 0; i < count; i++)                                                                            \
            to[i] = (TYPE)((WIDE)(sums[i] + half + (WIDE)((WIDE)(sums[i] >> shift) & 1)) >> shift);                    \
    }                                                                                                                  \
    static void NAME(const uint8_t *const *rows, int count, int64_t length, int factor, uint8_t *to, void *room)       \
    {                                                                                                                  \
        WIDE *sums = room;                                                                                             \
        const int64_t whole = length / factor;                                                                         \
        const int shift = __builtin_ctz((unsigned)(count * factor));                                                   \
        for (int row = 0; row < count; row++)                                                                          \
            NAME##_add(rows[row], length, factor, row == 0, sums);                                                     \
        if (shift)                                                                                                     \
            NAME##_round(sums, whole, shift, to);                                                                      \
        else                                                                                                           \
            memcpy(to, rows[0], (size_t)whole * sizeof(TYPE));                                                         \
        if (whole * factor == length)                                                                                  \
            return;                                                                                                    \
        WIDE sum = 0;                                                                                                  \
        for (int row = 0; row < count; row++) {                                                                        \
            TYPE voxel;                                                                                                \
            memcpy(&voxel, rows[row] + (length - 1) * (int64_t)sizeof voxel, sizeof voxel);                            \
            sum = (WIDE)(sum + (WIDE)voxel);                                                                           \
        }                                                                                                              \
        if (count > 1) {                                                                                               \
            NAME##_round(&sum, 1, shift - 1, to + whole * (int64_t)sizeof(TYPE));                                      \
        } else {                                                                                                       \
            TYPE voxel = (TYPE)sum;                                                                                    \
            memcpy(to + whole * (int64_t)sizeof voxel, &voxel, sizeof voxel);                                          \
        }                                                                                                              \
    }

MEAN_OF_INTEGERS(mean_u8, uint8_t, uint16_t)
MEAN_OF_INTEGERS(mean_i8, int8_t, int16_t)
MEAN_OF_INTEGERS(mean_u16, uint16_t, uint32_t)
MEAN_OF_INTEGERS(mean_i16, int16_t, int32_t)
MEAN_OF_INTEGERS(mean_u32, uint32_t, uint64_t)
MEAN_OF_INTEGERS(mean_i32, int32_t, int64_t)

/* ---------------------------------------------------------------- means of floating point */

/* Sums are taken in double precision, the first axis first: pairs of rows that are neighbours in the list, then pairs of
 * those. Another order would round otherwise. */
#define MEAN_OF_FLOATS(NAME, TYPE)                                                                                     \
    VECTORS static void NAME##_sum(const uint8_t *const *rows, int count, int64_t length, double *restrict sums)       \
    {                                                                                                                  \
        const TYPE *restrict first = (const TYPE *)(const void *)rows[0];                                              \
        if (count == 1) {                                                                                              \
            for (int64_t i = 0; i < length; i++)                                                                       \
                sums[i] = first[i];                                                                                    \
        } else if (count == 2) {                                                                                       \
            const TYPE *restrict second = (const TYPE *)(const void *)rows[1];                                         \
            for (int64_t i = 0; i < length; i++)                                                                       \
                sums[i] = (double)first[i] + (double)second[i];                                                        \
        } else {                                                                                                       \
            double *restrict others = sums + length;                                                                   \
            NAME##_sum(rows, count / 2, length, sums);                                                                 \
            NAME##_sum(rows + count / 2, count / 2, length, others);                                                   \
            for (int64_t i = 0; i < length; i++)                                                                       \
                sums[i] += others[i];                                                                                  \
        }                                                                                                              \
    }                                                                                                                  \
    VECTORS static void NAME(const uint8_t *const *rows, int count, int64_t length, int factor, uint8_t *row, void *room) \
    {                                                                                                                  \
        double *sums = room;                                                                                           \
        TYPE *restrict to = (TYPE *)(void *)row;                                                                       \
        const int64_t whole = length / factor;                                                                         \
        const double of = count * factor;                                                                              \
        NAME##_sum(rows, count, length, sums);                                                                         \
        if (factor == 2)                                                                                               \
            for (int64_t i = 0; i < whole; i++)                                                                        \
                to[i] = (TYPE)((sums[2 * i] + sums[2 * i + 1]) / of);                                                  \
        else                                                                                                           \
            for (int64_t i = 0; i < whole; i++)                                                                        \
                to[i] = (TYPE)(sums[i] / of);                                                                          \
        if (whole * factor < length)                                                                                   \
            to[whole] = (TYPE)(sums[length - 1] / count);                                                              \
    }

MEAN_OF_FLOATS(mean_f32, float)
MEAN_OF_FLOATS(mean_f64, double)

/* ---------------------------------------------------------------- modes: the most frequent, of several the smallest */

#define MODE(NAME, TYPE)                                                                                               \
    static TYPE NAME##_of(TYPE *voxels, int count)                                                                     \
    {                                                                                                                  \
        for (int i = 1; i < count; i++) {                                                                              \
            TYPE voxel = voxels[i];                                                                                    \
            int at = i;                                                                                                \
            for (; at > 0 && voxels[at - 1] > voxel; at--)                                                             \
                voxels[at] = voxels[at - 1];                                                                           \
            voxels[at] = voxel;                                                                                        \
        }                                                                                                              \
        TYPE best = voxels[0];                                                                                         \
        int longest = 1, run = 1;                                                                                      \
        for (int i = 1; i < count; i++) {                                                                              \
            run = voxels[i] == voxels[i - 1] ? run + 1 : 1;                                                            \
            if (run > longest) {                                                                                       \
                longest = run;                                                                                         \
                best = voxels[i];                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        return best;                                                                                                   \
    }                                                                                                                  \
    static void NAME(const uint8_t *const *rows, int count, int64_t length, int factor, uint8_t *row, void *room)      \
    {                                                                                                                  \
        TYPE voxels[MOST_VOXELS], *to = (TYPE *)(void *)row;                                                           \
        (void)room;                                                                                                    \
        for (int64_t at = 0, coarse = 0; at < length; at += factor, coarse++) {                                        \
            const int many = length - at < factor ? 1 : factor;                                                        \
            int found = 0, mixed = 0;                                                                                  \
            for (int i = 0; i < count; i++) {                                                                          \
                const TYPE *from = (const TYPE *)(const void *)rows[i] + at;                                           \
                for (int j = 0; j < many; j++) {                                                                       \
                    mixed |= found && from[j] != voxels[0];                                                            \
                    voxels[found++] = from[j];                                                                         \
                }                                                                                                      \
            }                                                                                                          \
            to[coarse] = mixed ? NAME##_of(voxels, found) : voxels[0];                                                 \
        }                                                                                                              \
    }

MODE(mode_u8, uint8_t)
MODE(mode_i8, int8_t)
MODE(mode_u16, uint16_t)
MODE(mode_i16, int16_t)
MODE(mode_u32, uint32_t)
MODE(mode_i32, int32_t)
MODE(mode_u64, uint64_t)
MODE(mode_i64, int64_t)

/* ---------------------------------------------------------------- all rows */

static reduce_row *reducer(char kind, int item, enum volfs_method method)
{
    static const struct {
        char kind;
        int item;
        reduce_row *mean, *mode;
    } known[] = {
        {'b', 1, mode_u8, mode_u8},
        {'u', 1, mean_u8, mode_u8},
        {'i', 1, mean_i8, mode_i8},
        {'u', 2, mean_u16, mode_u16},
        {'i', 2, mean_i16, mode_i16},
        {'u', 4, mean_u32, mode_u32},
        {'i', 4, mean_i32, mode_i32},
        {'u', 8, NULL, mode_u64},
        {'i', 8, NULL, mode_i64},
        {'f', 4, mean_f32, NULL},
        {'f', 8, mean_f64, NULL},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].kind == kind && known[i].item == item)
            return method == VOLFS_MEAN ? known[i].mean : known[i].mode;
    return NULL;
}

/* True if everything is where its type may be read from. */
static int aligned(const struct volfs_reduction *how)
{
    uintptr_t bits = (uintptr_t)how->from | (uintptr_t)how->to;
    for (int axis = 0; axis < how->axes; axis++)
        bits |= (uintptr_t)how->from_strides[axis] | (uintptr_t)how->to_strides[axis];
    return bits % (uintptr_t)how->item == 0;
}

int volfs_downsample(const struct volfs_reduction *how, enum volfs_method method)
{
    const int last = how->axes - 1;
    reduce_row *reduce = reducer(how->kind, how->item, method);
    if (!reduce || last < 0 || last >= VOLFS_MAX_AXES || !aligned(how))
        return 0;
    if ((how->shape[last] > 1 && how->from_strides[last] != how->item)
        || (how->shape[last] > how->factors[last] && how->to_strides[last] != how->item))
        return 0;
    for (int axis = 0; axis <= last; axis++)
        if ((how->factors[axis] != 1 && how->factors[axis] != 2) || how->shape[axis] < 1)
            return 0;
    void *sums = malloc((size_t)how->shape[last] * sizeof(double) * (VOLFS_MAX_AXES + 1));
    if (!sums)
        return 0;
    int64_t at[VOLFS_MAX_AXES] = {0}; /* of the coarse row */
    const uint8_t *from = how->from;
    uint8_t *to = how->to;
    for (;;) {
        const uint8_t *rows[MOST_ROWS];
        int count = 1;
        rows[0] = from;
        for (int axis = 0; axis < last; axis++)
            if (how->factors[axis] == 2 && 2 * at[axis] + 1 < how->shape[axis]) {
                for (int i = 0; i < count; i++)
                    rows[count + i] = rows[i] + how->from_strides[axis];
                count *= 2;
            }
        reduce(rows, count, how->shape[last], how->factors[last], to, sums);
        int axis = last - 1;
        for (; axis >= 0; axis--) {
            from += how->from_strides[axis] * how->factors[axis];
            to += how->to_strides[axis];
            if (++at[axis] * how->factors[axis] < how->shape[axis])
                break;
            from -= at[axis] * how->from_strides[axis] * how->factors[axis];
            to -= at[axis] * how->to_strides[axis];
            at[axis] = 0;
        }
        if (axis < 0)
            break;
    }
    free(sums);
    return 1;
}
