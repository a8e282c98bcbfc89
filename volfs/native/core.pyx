# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The face of the C files beside this one, as thin as it can be: Python's objects in, addresses out, the interpreter let
go of while C works. What each C file decides stands in its header; how they fit together in README.md."""

from cpython.buffer cimport PyBUF_STRIDES, PyBUF_WRITABLE, PyBUF_FORMAT, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset


cdef extern from "sums.h" nogil:
    uint32_t volfs_crc32c(uint32_t before, const uint8_t *data, size_t size)
    uint32_t volfs_crc32c_plain(uint32_t before, const uint8_t *data, size_t size)
    uint32_t volfs_crc32(uint32_t before, const uint8_t *data, size_t size)
    uint32_t volfs_adler32(uint32_t before, const uint8_t *data, size_t size)


cdef extern from "chunks.h" nogil:
    enum: VOLFS_MAX_AXES
    enum volfs_compressor: VOLFS_PLAIN, VOLFS_ZSTD, VOLFS_BLOSC
    enum volfs_outcome: VOLFS_WAITING, VOLFS_DONE, VOLFS_DOUBT

    ctypedef struct atomic_size_t:
        pass

    struct volfs_form:
        int axes
        int64_t shape[8]
        int64_t strides[8]
        int item
        int swap
        int boolean
        int summed
        volfs_compressor compressor

    struct volfs_job:
        int fd
        uint32_t crc32c
        int64_t offset
        int64_t length
        uint8_t *target

    struct volfs_list:
        volfs_form form
        volfs_job *jobs
        uint8_t *outcomes
        size_t count
        atomic_size_t next

    int volfs_form_valid(const volfs_form *form)
    size_t volfs_drain(volfs_list *list, const void *stop)


COMPRESSORS = {None: VOLFS_PLAIN, "zstd": VOLFS_ZSTD, "blosc": VOLFS_BLOSC}


def checksums(data):
    """The sums of bytes: CRC-32C as this processor makes it, the same by tables, CRC-32, Adler-32."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        at, size = <const uint8_t *>view.buf, view.len
        return (
            volfs_crc32c(0, <const uint8_t *>view.buf, view.len),
            volfs_crc32c_plain(0, <const uint8_t *>view.buf, view.len),
            volfs_crc32(0, <const uint8_t *>view.buf, view.len),
            volfs_adler32(1, <const uint8_t *>view.buf, view.len),
        )
    finally:
        PyBuffer_Release(&view)


cdef class ChunkList:
    """Stored chunks of one kind, to be decoded side by side into one array. Filled by one thread, then drained by any
    number."""

    cdef volfs_list _list
    cdef Py_buffer _target
    cdef bint _held
    cdef size_t _room

    def __cinit__(self):
        self._held = False
        self._list.jobs = NULL
        self._list.outcomes = NULL

    def __init__(self, target, shape, *, bint swap, bint boolean, bint summed, compressor, size_t room):
        """``target``: writable, of any strides, its axes in the order in which chunks are stored (slowest first);
        ``shape``: of one chunk, in the same order; ``room``: the most chunks. ValueError for what cannot be done."""
        cdef int axis
        PyObject_GetBuffer(target, &self._target, PyBUF_STRIDES | PyBUF_WRITABLE)
        self._held = True
        form = &self._list.form
        memset(form, 0, sizeof(volfs_form))
        if self._target.ndim > VOLFS_MAX_AXES or self._target.ndim != len(shape):
            raise ValueError("too many axes")
        form.axes = self._target.ndim
        form.item = <int>self._target.itemsize
        for axis in range(form.axes):
            form.shape[axis] = shape[axis]
            form.strides[axis] = self._target.strides[axis]
        form.swap, form.boolean, form.summed = swap, boolean, summed
        form.compressor = COMPRESSORS[compressor]
        if not volfs_form_valid(form):
            raise ValueError("such chunks are not decoded here")
        self._room = room
        self._list.jobs = <volfs_job *>calloc(room or 1, sizeof(volfs_job))
        self._list.outcomes = <uint8_t *>calloc(room or 1, 1)
        if not self._list.jobs or not self._list.outcomes:
            raise MemoryError

    def __dealloc__(self):
        free(self._list.jobs)
        free(self._list.outcomes)
        if self._held:
            PyBuffer_Release(&self._target)

    def __len__(self):
        return self._list.count

    def add(self, int fd, int64_t offset, int64_t length, uint32_t crc32c, place):
        """One more chunk: ``length`` bytes at ``offset`` of ``fd``, which stays open until the list is drained, to the
        coordinates ``place`` of its first voxel in the target, in the target's axis order."""
        cdef int axis
        cdef int64_t start, at = 0
        if self._list.count >= self._room:
            raise IndexError("the list is full")
        for axis in range(self._target.ndim):
            start = place[axis]
            if start < 0 or start + self._list.form.shape[axis] > self._target.shape[axis]:
                raise IndexError("a chunk does not fit into the target there")
            at += start * self._target.strides[axis]
        job = &self._list.jobs[self._list.count]
        job.fd, job.offset, job.length, job.crc32c = fd, offset, length, crc32c
        job.target = <uint8_t *>self._target.buf + at
        self._list.count += 1

    def drain(self):
        """Decode what no other thread has taken yet. Returns the number of chunks done."""
        cdef size_t done
        with nogil:
            done = volfs_drain(&self._list, NULL)
        return done

    def doubts(self):
        """The positions in the list of the chunks that were not done, once all are drained."""
        return [i for i in range(self._list.count) if self._list.outcomes[i] != VOLFS_DONE]


cdef extern from "pictures.h" nogil:
    enum volfs_framing: VOLFS_ROWS, VOLFS_PNG

    struct volfs_picture:
        int64_t size
        int64_t planes

    struct volfs_piece:
        const uint8_t *memory
        int64_t plane_stride
        int64_t row_stride
        int64_t row
        int64_t rows
        int64_t column
        int64_t columns

    struct volfs_sums:
        int64_t done

    struct volfs_plane:
        const volfs_piece *pieces
        size_t count
        int64_t plane

    volfs_picture *volfs_picture_new(volfs_framing framing, int64_t rows, int64_t row_bytes, int item, int swap,
        const uint8_t *fill, int64_t planes, const uint8_t *prefix, int64_t prefix_size, const uint8_t *suffix,
        int64_t suffix_size)
    void volfs_picture_free(volfs_picture *picture)
    int volfs_picture_planes(const volfs_picture *picture, int64_t offset, int64_t length, int64_t *first,
        int64_t *last)
    void volfs_sums_begin(const volfs_picture *picture, volfs_sums *sums)
    void volfs_picture_read(const volfs_picture *picture, const volfs_plane *planes, int64_t first, int64_t offset,
        int64_t length, uint8_t *out, volfs_sums *sums)


cdef extern from "front.h" nogil:
    enum: VOLFS_OPERATIONS, VOLFS_BUCKETS

    struct volfs_front:
        pass

    struct volfs_counts:
        uint64_t answered[5]
        uint64_t nanoseconds[5]
        uint64_t buckets[5][26]
        uint64_t bytes_read
        uint64_t bytes_copied

    struct volfs_note:
        uint64_t stack
        int64_t plane

    volfs_front *volfs_front_new(int directory_bits)
    void volfs_front_free(volfs_front *front)
    uint64_t volfs_front_stack(volfs_front *front, int64_t planes, int64_t thick)
    void volfs_front_drop(volfs_front *front, uint64_t stack)
    int volfs_front_serve(volfs_front *front, uint64_t stack, uint64_t first, int64_t stride, int64_t count,
        volfs_picture *picture)
    void volfs_front_keep_listing(volfs_front *front, uint64_t inode)
    void volfs_front_forget_listings(volfs_front *front)
    int volfs_front_lend(volfs_front *front, uint64_t stack, int64_t number, const volfs_piece *pieces, size_t count)
    void volfs_front_recall(volfs_front *front, uint64_t stack, int64_t number)
    int volfs_front_answer(volfs_front *front, const uint8_t *request, size_t size, int device, int64_t since)
    int volfs_front_notes_fd(const volfs_front *front)
    size_t volfs_front_notes(volfs_front *front, volfs_note *notes, size_t room)
    void volfs_front_counts(volfs_front *front, volfs_counts *counts)


cdef extern from "session.h" nogil:
    void volfs_session_begin(volfs_front *front)
    int volfs_session_fronted()
    void volfs_session_end()


OPERATIONS = ("open", "read", "flush", "release", "opendir")


cdef class Picture:
    """How files show planes: see pictures.h. Immutable."""

    cdef volfs_picture *_picture
    cdef dict _arguments

    def __cinit__(self):
        self._picture = NULL

    def __init__(self, *, bint png, int64_t rows, int64_t row_bytes, int item, bint swap, bytes fill, int64_t planes,
            bytes prefix, bytes suffix):
        """``fill``: a voxel in the order of memory. ValueError for numbers that make no file."""
        if len(fill) != item:
            raise ValueError("the fill value is no voxel")
        self._arguments = dict(png=png, rows=rows, row_bytes=row_bytes, item=item, swap=swap, fill=fill, planes=planes,
            prefix=prefix, suffix=suffix)
        self._picture = self.copy()
        if not self._picture:
            raise ValueError("these numbers make no file")

    cdef volfs_picture *copy(self):
        given = self._arguments
        cdef bytes fill = given["fill"], prefix = given["prefix"], suffix = given["suffix"]
        return volfs_picture_new(VOLFS_PNG if given["png"] else VOLFS_ROWS, given["rows"], given["row_bytes"],
            given["item"], given["swap"], <const uint8_t *><const char *>fill, given["planes"],
            <const uint8_t *><const char *>prefix, len(prefix), <const uint8_t *><const char *>suffix, len(suffix))

    def __dealloc__(self):
        volfs_picture_free(self._picture)

    @property
    def size(self):
        return self._picture.size

    def read(self, Slab slab, int64_t plane, reads):
        """The bytes of ranges (offset, length), one after the other, of a file of one plane of a slab: what the front
        answers. For tests."""
        cdef volfs_plane shown
        cdef volfs_sums sums
        cdef bytearray out
        cdef int64_t offset, length
        if not 0 <= plane < slab.planes or self._picture.planes != 1:
            raise IndexError("no such plane")
        shown.pieces, shown.count, shown.plane = slab._pieces, slab._count, plane
        volfs_sums_begin(self._picture, &sums)
        found = []
        for offset, length in reads:
            if offset < 0 or length < 0 or offset + length > self._picture.size:
                raise IndexError("outside the file")
            out = bytearray(length)
            volfs_picture_read(self._picture, &shown, 0, offset, length, <uint8_t *><char *>out, &sums)
            found.append(bytes(out))
        return found


cdef class Slab:
    """Decoded planes: pieces of memory that together cover each of them once. Keeps the memory."""

    cdef volfs_piece *_pieces
    cdef size_t _count
    cdef Py_buffer *_views
    cdef size_t _held
    cdef readonly int64_t planes

    def __cinit__(self):
        self._pieces = NULL
        self._views = NULL
        self._held = 0

    def __init__(self, int64_t planes, int item, pieces):
        """``pieces``: (array, row, rows, column, columns) by row and column, counted in voxels; the array has the axes
        (plane, row, column), the last contiguous, or is None where all is fill value. ValueError for others."""
        cdef int64_t row, rows, column, columns
        cdef size_t i
        pieces = list(pieces)
        self.planes = planes
        self._count = len(pieces)
        self._pieces = <volfs_piece *>calloc(self._count or 1, sizeof(volfs_piece))
        self._views = <Py_buffer *>calloc(self._count or 1, sizeof(Py_buffer))
        if not self._pieces or not self._views:
            raise MemoryError
        for i, (array, row, rows, column, columns) in enumerate(pieces):
            piece = &self._pieces[i]
            piece.row, piece.rows = row, rows
            piece.column, piece.columns = column * item, columns * item
            if array is None:
                piece.memory = NULL
                continue
            view = &self._views[i]
            PyObject_GetBuffer(array, view, PyBUF_STRIDES)
            self._held = i + 1
            if view.ndim != 3 or view.itemsize != item or view.shape[0] < planes or view.shape[1] < rows:
                raise ValueError("this memory has no such planes")
            if view.shape[2] < columns or (columns > 1 and view.strides[2] != item):
                raise ValueError("rows are not in one piece")
            piece.memory = <const uint8_t *>view.buf
            piece.plane_stride, piece.row_stride = view.strides[0], view.strides[1]

    def __dealloc__(self):
        cdef size_t i
        for i in range(self._held):
            if self._views[i].buf != NULL:
                PyBuffer_Release(&self._views[i])
        free(self._views)
        free(self._pieces)


cdef class Front:
    """See front.h. What is lent is kept until it has been taken back."""

    cdef volfs_front *_front
    cdef dict _lent

    def __cinit__(self):
        self._front = NULL

    def __init__(self, int directory_bits):
        self._lent = {}
        self._front = volfs_front_new(directory_bits)
        if not self._front:
            raise MemoryError

    def __dealloc__(self):
        volfs_front_free(self._front)

    def stack(self, int64_t planes, int64_t thick):
        """A new stack of planes, lent ``thick`` at a time. Its number."""
        number = volfs_front_stack(self._front, planes, thick)
        if not number:
            raise MemoryError
        return number

    def drop(self, uint64_t stack):
        """Forget a stack, its files, and what is lent of it."""
        with nogil:
            volfs_front_drop(self._front, stack)
        for key in [key for key in self._lent if key[0] == stack]:
            self._lent.pop(key, None)

    def serve(self, uint64_t stack, uint64_t first, int64_t stride, int64_t count, Picture picture):
        """Have ``count`` files, of inodes ``first``, ``first + stride``, …, show planes of a stack. False if that cannot
        be: another run has these inodes."""
        copy = picture.copy()
        if not copy:
            raise MemoryError
        return bool(volfs_front_serve(self._front, stack, first, stride, count, copy))

    def keep_listing(self, uint64_t directory):
        """Have the kernel keep the listing of a directory, whose names never change."""
        volfs_front_keep_listing(self._front, directory)

    def forget_listings(self):
        """Have the kernel keep no listing that is opened from now on."""
        volfs_front_forget_listings(self._front)

    def lend(self, uint64_t stack, int64_t number, Slab slab):
        """Lend a slab of a stack. False if there is no such stack."""
        cdef int lent
        with nogil:
            lent = volfs_front_lend(self._front, stack, number, slab._pieces, slab._count)
        if lent:
            self._lent[stack, number] = slab
        return bool(lent)

    def recall(self, uint64_t stack, int64_t number):
        """Take a slab back. Its memory is not read any more."""
        with nogil:
            volfs_front_recall(self._front, stack, number)
        self._lent.pop((stack, number), None)

    def answer(self, const uint8_t[::1] request, int device):
        """Answer one request. For tests."""
        return bool(volfs_front_answer(self._front, &request[0] if request.shape[0] else NULL, request.shape[0], device, 0))

    @property
    def notes_fd(self):
        """Readable when there are notes."""
        return volfs_front_notes_fd(self._front)

    def notes(self):
        """Planes that somebody read: (stack, plane)."""
        cdef volfs_note notes[64]
        cdef size_t i, count = volfs_front_notes(self._front, notes, 64)
        return [(notes[i].stack, notes[i].plane) for i in range(count)]

    def counts(self):
        """Bytes read, bytes of voxels copied for that, and by operation: answers, nanoseconds, and the buckets of their
        durations."""
        cdef volfs_counts counts
        cdef int i, j
        volfs_front_counts(self._front, &counts)
        return counts.bytes_read, counts.bytes_copied, {
            OPERATIONS[i]: (
                counts.answered[i], counts.nanoseconds[i], [counts.buckets[i][j] for j in range(VOLFS_BUCKETS)])
            for i in range(VOLFS_OPERATIONS)
        }

    def begin(self):
        """Have the next FUSE session of this process go by this front. See session.h."""
        volfs_session_begin(self._front)

    @staticmethod
    def fronted():
        """True if the session goes by a front."""
        return bool(volfs_session_fronted())

    @staticmethod
    def end():
        """Have the session's requests read by nobody any more."""
        with nogil:
            volfs_session_end()
