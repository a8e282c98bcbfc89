# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The face of the C files beside this one, as thin as it can be: Python's objects in, addresses out, the interpreter let
go of while C works. What each C file decides stands in its header; how they fit together in README.md."""

from cpython.buffer cimport PyBUF_STRIDES, PyBUF_WRITABLE, PyBUF_FORMAT, PyBUF_SIMPLE
from cpython.buffer cimport PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from os import strerror


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


cdef extern from "payloads.h" nogil:
    struct volfs_encoding:
        volfs_form form
        uint8_t fill[8]
        int level
        int checksum
        char compressor[12]
        int effort
        int shuffle
        int type_size
        size_t block_size

    struct volfs_source:
        const uint8_t *voxels
        int64_t shape[8]

    struct volfs_payload:
        int64_t offset
        int64_t length
        uint32_t crc32c
        uint8_t sha256[32]
        uint8_t outcome

    struct volfs_maker:
        pass

    struct volfs_workspace:
        pass

    enum: VOLFS_PIECE
    int volfs_payloads_load(const char *zstd, const char *blosc, const char *sums)
    volfs_maker *volfs_maker_new(const volfs_encoding *encoding)
    void volfs_maker_free(volfs_maker *maker)
    volfs_workspace *volfs_workspace_take(volfs_maker *maker)
    void volfs_workspace_give(volfs_maker *maker, volfs_workspace *workspace)
    const uint8_t *volfs_workspace_bytes(const volfs_workspace *workspace, size_t *size)
    void volfs_encode(const volfs_maker *maker, volfs_workspace *workspace, const int64_t *strides,
        const volfs_source *chunks, size_t count, volfs_payload *payloads)
    void volfs_read_files(volfs_workspace *workspace, const char *const *paths, size_t count, int64_t most,
        volfs_payload *payloads)
    void volfs_check_files(const volfs_form *form, const char *const *paths, size_t count, uint8_t *outcomes)
    void volfs_piece_sums(const uint8_t *payload, int64_t length, uint32_t *sums)


#: Bytes of a row of what is said of payloads: offset, length (i8), crc32c (u4), sha256 (32 bytes), outcome (u1).
PAYLOAD_BYTES = sizeof(volfs_payload)
#: The outcome of a payload that was made.
DONE = VOLFS_DONE


def load_encoders(zstd, blosc, sums):
    """Find what compresses and sums in the libraries at these paths, None for one that is not there. False if nothing
    can be made."""
    cdef const char *paths[3]
    cdef int i
    given = [zstd, blosc, sums]
    for i in range(3):
        paths[i] = NULL if given[i] is None else <const char *>given[i]
    return bool(volfs_payloads_load(paths[0], paths[1], paths[2]))


def piece_sums(data):
    """CRC-32C of each MiB of bytes, and of the rest, as little-endian u4 on a machine that is."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        sums = bytearray(4 * ((view.len + VOLFS_PIECE - 1) // VOLFS_PIECE))
        volfs_piece_sums(<const uint8_t *>view.buf, view.len, <uint32_t *><char *>sums)
        return bytes(sums)
    finally:
        PyBuffer_Release(&view)


cdef int form_of(volfs_form *form, shape, int item, bint swap, bint boolean, bint summed, compressor) except -1:
    cdef int axis
    memset(form, 0, sizeof(volfs_form))
    if len(shape) > VOLFS_MAX_AXES:
        raise ValueError("too many axes")
    form.axes, form.item = <int>len(shape), item
    for axis in range(form.axes):
        form.shape[axis] = shape[axis]
    form.swap, form.boolean, form.summed = swap, boolean, summed
    form.compressor = COMPRESSORS[compressor]
    if not volfs_form_valid(form):
        raise ValueError("such chunks are not handled here")
    return 0


cdef class PathList:
    """Paths of files as C takes them. Keeps the bytes."""

    cdef const char **_paths
    cdef size_t _count
    cdef list _held

    def __cinit__(self, paths):
        cdef size_t i
        self._held = list(paths)
        self._count = len(self._held)
        self._paths = <const char **>calloc(self._count or 1, sizeof(char *))
        if not self._paths:
            raise MemoryError
        for i in range(self._count):
            self._paths[i] = <const char *>self._held[i]

    def __dealloc__(self):
        free(self._paths)


cdef class Maker:
    """Payloads of the chunks of one array, or of files: see payloads.h. Any thread."""

    cdef volfs_maker *_maker
    cdef volfs_form _form

    def __cinit__(self):
        self._maker = NULL

    def __init__(self, shape=None, *, int item=1, bint swap=False, bint summed=False, compressor=None, fill=b"",
                 int level=0, bint checksum=False, bytes inner=b"", int effort=0, int shuffle=0, int type_size=1,
                 size_t block_size=0):
        """``shape`` of a chunk, in the order in which voxels are stored (slowest first); None for one that only reads
        files. ``fill``: the bytes of the fill value in this machine's order. ``level`` and ``checksum`` are zstd's, the
        rest Blosc's. ValueError for what is not made here."""
        cdef volfs_encoding how
        memset(&how, 0, sizeof(how))
        if shape is None:
            self._maker = volfs_maker_new(NULL)
        else:
            form_of(&how.form, shape, item, swap, False, summed, compressor)
            if len(fill) != item or len(inner) >= sizeof(how.compressor):
                raise ValueError("such chunks are not made here")
            memcpy(how.fill, <const char *>fill, item)
            memcpy(how.compressor, <const char *>inner, len(inner))
            how.level, how.checksum, how.effort, how.shuffle = level, checksum, effort, shuffle
            how.type_size, how.block_size = type_size, block_size
            self._form = how.form
            self._maker = volfs_maker_new(&how)
        if not self._maker:
            raise ValueError("such chunks are not made here")

    def __dealloc__(self):
        volfs_maker_free(self._maker)

    def encode(self, source, const int64_t[:, ::1] starts, const int64_t[:, ::1] shapes, rows):
        """Encode chunks of an array, whose axes are in the order in which voxels are stored: each from the coordinates
        of its first voxel on, as much of it as there is. What is said of them goes to ``rows``. Returns their bytes."""
        cdef Py_buffer view
        cdef volfs_source *chunks = NULL
        cdef int64_t strides[8]
        cdef int64_t at
        cdef size_t i, count = starts.shape[0]
        cdef int axis
        cdef Batch batch = Batch(self)
        PyObject_GetBuffer(source, &view, PyBUF_STRIDES)
        try:
            if view.ndim != self._form.axes or view.itemsize != self._form.item:
                raise ValueError("no chunks of these are in this memory")
            if starts.shape[1] != view.ndim or shapes.shape[0] != starts.shape[0] or shapes.shape[1] != view.ndim:
                raise ValueError("coordinates are those of voxels of the source")
            for axis in range(view.ndim):
                strides[axis] = view.strides[axis]
            chunks = <volfs_source *>calloc(count or 1, sizeof(volfs_source))
            if not chunks:
                raise MemoryError
            for i in range(count):
                at = 0
                for axis in range(view.ndim):
                    if not (0 <= starts[i, axis] < view.shape[axis]
                            and 0 < shapes[i, axis] <= view.shape[axis] - starts[i, axis]
                            and shapes[i, axis] <= self._form.shape[axis]):
                        raise IndexError("there is no such chunk in the source")
                    chunks[i].shape[axis] = shapes[i, axis]
                    at += starts[i, axis] * strides[axis]
                chunks[i].voxels = <const uint8_t *>view.buf + at
            batch.run_encode(strides, chunks, count, rows)
        finally:
            free(chunks)
            PyBuffer_Release(&view)
        return batch

    def read(self, paths, int64_t most, rows):
        """Read whole files, of ``most`` bytes together. What is said of them goes to ``rows``. Returns their bytes."""
        cdef Batch batch = Batch(self)
        batch.run_read(PathList(paths), most, rows)
        return batch


cdef class Batch:
    """The payloads in a workspace, one after the other. Read-only memory."""

    cdef Maker _owner
    cdef volfs_workspace *_workspace

    def __cinit__(self, Maker owner):
        self._owner = owner
        self._workspace = volfs_workspace_take(owner._maker)
        if not self._workspace:
            raise MemoryError

    def __dealloc__(self):
        if self._workspace:
            volfs_workspace_give(self._owner._maker, self._workspace)

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef size_t size
        cdef const uint8_t *bytes_ = volfs_workspace_bytes(self._workspace, &size)
        PyBuffer_FillInfo(view, self, <void *>(bytes_ if bytes_ else <const uint8_t *>b""), size, 1, flags)

    cdef int run_encode(self, const int64_t *strides, const volfs_source *chunks, size_t count, rows) except -1:
        cdef Py_buffer view
        payloads_of(rows, count, &view)
        try:
            with nogil:
                volfs_encode(self._owner._maker, self._workspace, strides, chunks, count, <volfs_payload *>view.buf)
        finally:
            PyBuffer_Release(&view)
        return 0

    cdef int run_read(self, PathList paths, int64_t most, rows) except -1:
        cdef Py_buffer view
        payloads_of(rows, paths._count, &view)
        try:
            with nogil:
                volfs_read_files(self._workspace, paths._paths, paths._count, most, <volfs_payload *>view.buf)
        finally:
            PyBuffer_Release(&view)
        return 0


cdef int payloads_of(rows, size_t count, Py_buffer *view) except -1:
    PyObject_GetBuffer(rows, view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    if <size_t>view.len != count * sizeof(volfs_payload):
        PyBuffer_Release(view)
        raise ValueError("a row for each payload")
    return 0


def check_files(paths, shape, *, int item, bint boolean, bint summed, compressor):
    """See if each file is a chunk of this shape. Returns the positions of those that are in doubt."""
    cdef volfs_form form
    cdef PathList listed = PathList(paths)
    cdef bytearray outcomes = bytearray(listed._count)
    cdef uint8_t *at = <uint8_t *><char *>outcomes
    form_of(&form, shape, item, False, boolean, summed, compressor)
    with nogil:
        volfs_check_files(&form, listed._paths, listed._count, at)
    return [i for i in range(len(outcomes)) if outcomes[i] != VOLFS_DONE]


cdef extern from "downsample.h" nogil:
    enum volfs_method: VOLFS_MEAN, VOLFS_MODE

    struct volfs_reduction:
        int axes
        int64_t shape[8]
        int factors[8]
        const uint8_t *from_ "from"
        int64_t from_strides[8]
        uint8_t *to
        int64_t to_strides[8]
        char kind
        int item

    int volfs_downsample(const volfs_reduction *reduction, volfs_method method)


def downsample(source, target, factors, kind, bint mode):
    """Make each voxel of ``target`` of those of ``source``: their mode or their mean. Both are of numpy's ``kind``, in
    this machine's byte order. False if that is not done here."""
    cdef Py_buffer fine, coarse
    cdef volfs_reduction how
    cdef int axis, done = 0
    PyObject_GetBuffer(source, &fine, PyBUF_STRIDES)
    try:
        PyObject_GetBuffer(target, &coarse, PyBUF_STRIDES | PyBUF_WRITABLE)
        try:
            if fine.ndim > VOLFS_MAX_AXES:
                return False
            if fine.ndim != len(factors) or coarse.ndim != fine.ndim or coarse.itemsize != fine.itemsize:
                raise ValueError("the axes or types differ")
            memset(&how, 0, sizeof(how))
            how.axes, how.item, how.kind = fine.ndim, <int>fine.itemsize, <char>ord(kind)
            how.from_, how.to = <const uint8_t *>fine.buf, <uint8_t *>coarse.buf
            for axis in range(fine.ndim):
                how.shape[axis], how.factors[axis] = fine.shape[axis], min(factors[axis], 3)
                how.from_strides[axis], how.to_strides[axis] = fine.strides[axis], coarse.strides[axis]
                if coarse.shape[axis] != (fine.shape[axis] + <int64_t>factors[axis] - 1) // <int64_t>factors[axis]:
                    raise ValueError("coarse and fine voxels do not go together")
            with nogil:
                done = volfs_downsample(&how, VOLFS_MODE if mode else VOLFS_MEAN)
        finally:
            PyBuffer_Release(&coarse)
    finally:
        PyBuffer_Release(&fine)
    return bool(done)


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


cdef extern from "replies.h" nogil:
    int64_t volfs_now()


cdef extern from "meter.h" nogil:
    enum: VOLFS_OPERATIONS, VOLFS_BUCKETS

    struct volfs_counts:
        uint64_t answered[12]
        uint64_t nanoseconds[12]
        uint64_t buckets[12][26]
        uint64_t bytes_read
        uint64_t bytes_copied
        uint64_t bytes_written
        uint64_t files_ahead
        uint64_t bytes_ahead


cdef extern from "pulse.h" nogil:
    enum: VOLFS_CHANGES

    struct volfs_pulse:
        pass

    volfs_pulse *volfs_pulse_new()
    void volfs_pulse_free(volfs_pulse *pulse)
    void volfs_pulse_load(volfs_pulse *pulse, int fd)
    void volfs_pulse_unload(volfs_pulse *pulse)
    int64_t volfs_pulse_count(volfs_pulse *pulse)
    int64_t volfs_pulse_last(volfs_pulse *pulse)
    void volfs_pulse_floor(volfs_pulse *pulse, int64_t floor)
    int64_t volfs_pulse_tick(volfs_pulse *pulse, int64_t after)
    int volfs_pulse_stamp(volfs_pulse *pulse, int file, int64_t after)
    int volfs_pulse_beat(volfs_pulse *pulse, uint64_t whom)
    int volfs_pulse_changes(volfs_pulse *pulse, uint64_t *whom, int64_t *count)


cdef extern from "<stdatomic.h>" nogil:
    ctypedef struct atomic_int:
        pass
    ctypedef struct atomic_int_least64_t:
        pass
    int atomic_load(atomic_int *value)
    void atomic_store(atomic_int *value, int other)
    int atomic_exchange(atomic_int *value, int other)
    int atomic_fetch_add(atomic_int *value, int other)
    int atomic_fetch_sub(atomic_int *value, int other)
    int64_t load_time "atomic_load"(atomic_int_least64_t *value)
    void store_time "atomic_store"(atomic_int_least64_t *value, int64_t other)


cdef extern from "files.h" nogil:
    struct volfs_files:
        pass

    struct volfs_folder:
        pass

    struct volfs_watch:
        atomic_int onlookers
        atomic_int_least64_t until
        atomic_int plain
        atomic_int walk
        uint32_t uid
        uint32_t gid

    struct volfs_file:
        int fd
        uint64_t number
        volfs_pulse *pulse
        volfs_watch *watch
        atomic_int changed
        atomic_int flushed
        atomic_int synced
        atomic_int shown
        atomic_int error
        atomic_int opens

    struct volfs_waiting:
        int operation
        uint64_t of
        int64_t since

    volfs_folder *volfs_folder_new(int fd, volfs_folder *parent, int settled)
    void volfs_folder_settle(volfs_folder *folder)
    int volfs_folder_settled(const volfs_folder *folder)
    void volfs_folder_end(volfs_folder *folder)
    int volfs_folder_error(volfs_folder *folder)
    void volfs_folder_release(volfs_folder *folder)
    void volfs_files_lend(volfs_files *files, volfs_file *file, uint64_t handle, uint64_t inode)
    void volfs_files_place(volfs_files *files, volfs_file *file, volfs_folder *folder)
    void volfs_files_recall(volfs_files *files, volfs_file *file)
    size_t volfs_files_released(volfs_files *files, uint64_t *handles, size_t room)
    int volfs_files_unclosed(volfs_files *files)
    void volfs_files_lend_folder(volfs_files *files, uint64_t inode, volfs_folder *folder, volfs_watch *watch, int walk)
    void volfs_files_touch(volfs_files *files, uint64_t inode, int64_t time)
    void volfs_files_tidy(volfs_files *files)
    size_t volfs_files_left(volfs_files *files, void **request)
    size_t volfs_files_waiting(volfs_files *files, volfs_waiting *waiting, size_t room)


cdef extern from "front.h" nogil:
    struct volfs_front:
        pass

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
    void volfs_front_keep_files(volfs_front *front, uint64_t directory)
    void volfs_front_forget_directories(volfs_front *front)
    int volfs_front_lend(volfs_front *front, uint64_t stack, int64_t number, const volfs_piece *pieces, size_t count)
    void volfs_front_recall(volfs_front *front, uint64_t stack, int64_t number)
    int volfs_front_answer(volfs_front *front, const uint8_t *request, size_t size, int device, int64_t since)
    int volfs_front_notes_fd(const volfs_front *front)
    size_t volfs_front_notes(volfs_front *front, volfs_note *notes, size_t room)
    void volfs_front_counts(volfs_front *front, volfs_counts *counts)
    void volfs_front_stop(volfs_front *front)
    volfs_files *volfs_front_files(volfs_front *front)


cdef extern from "session.h" nogil:
    void volfs_session_begin(volfs_front *front)
    int volfs_session_fronted()
    void volfs_session_end()


OPERATIONS = ("open", "read", "flush", "release", "opendir", "releasedir", "ioctl", "write", "fsync", "fsyncdir", "lookup",
    "getattr")


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


cdef class Pulse:
    """See pulse.h: the numbers of a working copy, loaded from its file."""

    cdef volfs_pulse *_pulse

    def __cinit__(self):
        self._pulse = volfs_pulse_new()
        if not self._pulse:
            raise MemoryError

    def __dealloc__(self):
        volfs_pulse_free(self._pulse)

    def load(self, int fd):
        """Have the numbers be those of a file, which stays open until :meth:`unload`; both are 0 if there is none (-1)."""
        volfs_pulse_load(self._pulse, fd)

    def unload(self):
        """Use its file no more: until another is loaded the numbers stay as they are."""
        volfs_pulse_unload(self._pulse)

    @property
    def count(self):
        return volfs_pulse_count(self._pulse)

    @property
    def last(self):
        return volfs_pulse_last(self._pulse)

    def floor(self, int64_t floor):
        """Have no time from now on be up to ``floor`` (ns)."""
        volfs_pulse_floor(self._pulse, floor)

    def tick(self, int64_t after):
        """A time (ns) later than all before, and than ``after``. OSError."""
        cdef int64_t time
        with nogil:
            time = volfs_pulse_tick(self._pulse, after)
        if time < 0:
            raise OSError(-time, strerror(-time))
        return time

    def stamp(self, int file, int64_t after):
        """Give an open file such a time. OSError."""
        cdef int error
        with nogil:
            error = volfs_pulse_stamp(self._pulse, file, after)
        if error:
            raise OSError(error, strerror(error))

    def beat(self):
        """Count a change whose key Python notes. OSError."""
        cdef int error
        with nogil:
            error = volfs_pulse_beat(self._pulse, 0)
        if error:
            raise OSError(error, strerror(error))

    def changes(self):
        """By whom the changes since the last time are, None if they were too many, and the count after them."""
        cdef uint64_t whom[VOLFS_CHANGES]
        cdef int64_t count
        cdef int noted = volfs_pulse_changes(self._pulse, whom, &count)
        return (None if noted < 0 else [whom[i] for i in range(noted)]), count


cdef class Watch:
    """Who looks at what is made of a branch's keys, and whose these are: see files.h."""

    cdef volfs_watch _watch

    def __init__(self, uint32_t uid=0, uint32_t gid=0):
        self._watch.uid, self._watch.gid = uid, gid

    @property
    def plain(self):
        """Owner and mode are those that files and directories have by themselves."""
        return bool(atomic_load(&self._watch.plain))

    @plain.setter
    def plain(self, bint value):
        atomic_store(&self._watch.plain, value)

    @property
    def walk(self):
        return atomic_load(&self._watch.walk)

    def walk_on(self):
        """Keys may show something else from now on: directories must be lent anew for names to be looked up in them."""
        atomic_fetch_add(&self._watch.walk, 1)

    def add(self, int onlookers):
        """So many more open files of which a change of a key may concern any."""
        atomic_fetch_add(&self._watch.onlookers, onlookers)

    def until(self, int64_t time):
        """Have flushes be Python's until a time (ns, CLOCK_MONOTONIC)."""
        store_time(&self._watch.until, time)

    def extend(self, int64_t time):
        """Likewise, if it is not until later already."""
        if load_time(&self._watch.until) < time:
            store_time(&self._watch.until, time)


cdef class Folder:
    """A directory in another, or whose own name is durable: see files.h. The descriptor is this object's from now on."""

    cdef volfs_folder *_folder

    def __cinit__(self, int fd, Folder parent=None, bint settled=True):
        self._folder = volfs_folder_new(fd, NULL if parent is None else parent._folder, settled)
        if not self._folder:
            raise MemoryError

    def __dealloc__(self):
        volfs_folder_release(self._folder)

    @property
    def settled(self):
        """Its syncs need no Python."""
        return bool(volfs_folder_settled(self._folder))

    def settle(self):
        """Have its syncs need no Python from now on."""
        volfs_folder_settle(self._folder)

    def end(self):
        """Have requests that concern it be Python's from now on."""
        volfs_folder_end(self._folder)

    def error(self):
        """The errno of a sync of it that failed, once; 0 if none did."""
        return volfs_folder_error(self._folder)


cdef class File:
    """An open file that is written: its descriptor, and what became of it. See files.h."""

    cdef volfs_file _file
    cdef readonly Pulse pulse
    cdef readonly Watch watch

    def __init__(self, int fd, uint64_t number, Pulse pulse, Watch watch):
        self.pulse, self.watch = pulse, watch
        self._file.fd, self._file.number = fd, number
        self._file.pulse, self._file.watch = pulse._pulse, &watch._watch

    @property
    def changed(self):
        """Written since the last flush."""
        return bool(atomic_load(&self._file.changed))

    @changed.setter
    def changed(self, bint value):
        atomic_store(&self._file.changed, value)

    @property
    def flushed(self):
        """Flushed since the last write."""
        return bool(atomic_load(&self._file.flushed))

    @flushed.setter
    def flushed(self, bint value):
        atomic_store(&self._file.flushed, value)

    @property
    def synced(self):
        """Flushed since the last write, by a sync."""
        return bool(atomic_load(&self._file.synced))

    @synced.setter
    def synced(self, bint value):
        atomic_store(&self._file.synced, value)

    def take_shown(self):
        """True, once, if it was flushed without Python."""
        return bool(atomic_exchange(&self._file.shown, 0))

    def take_error(self):
        """The errno of a sync that failed, once; 0 if none did."""
        return atomic_exchange(&self._file.error, 0)

    def take_open(self):
        """True if it was opened without Python once more than it was released: then it is released."""
        if atomic_fetch_sub(&self._file.opens, 1) > 0:
            return True
        atomic_fetch_add(&self._file.opens, 1)
        return False


cdef class Front:
    """See front.h. What is lent is kept until it has been taken back."""

    cdef volfs_front *_front
    cdef dict _lent
    cdef dict _files
    cdef set _watches

    def __cinit__(self):
        self._front = NULL

    def __init__(self, int directory_bits):
        self._lent = {}
        self._files = {}
        self._watches = set()
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

    def keep_files(self, uint64_t directory):
        """Have the files of a directory, which never change, opened without Python. What is read of them is Python's."""
        volfs_front_keep_files(self._front, directory)

    def forget_directories(self):
        """Know of no directory any more that its listing or its files are kept."""
        volfs_front_forget_directories(self._front)

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

    def lend_file(self, uint64_t handle, uint64_t inode, File file):
        """Have an open file's writes, flushes and syncs answered; the latter once it is placed."""
        self._files[handle] = file
        volfs_files_lend(volfs_front_files(self._front), &file._file, handle, inode)

    def place_file(self, File file, Folder folder):
        """Have syncs of a lent file include its name, which is in a folder; None: have them be Python's."""
        volfs_files_place(volfs_front_files(self._front), &file._file, NULL if folder is None else folder._folder)

    def recall_file(self, uint64_t handle):
        """Take a file back. Its descriptor is not used any more. No effect if it is not lent."""
        cdef File file = self._files.get(handle)
        if file is None:
            return
        with nogil:
            volfs_files_recall(volfs_front_files(self._front), &file._file)
        self._files.pop(handle, None)

    def lend_folder(self, uint64_t inode, Folder folder, Watch watch=None, int walk=0):
        """Have syncs of a directory answered until the folder ends; with a watch look-ups of names as well, as long as
        ``walk`` is what it says."""
        if watch is not None:
            self._watches.add(watch)  # directories keep no count of who uses it
        volfs_files_lend_folder(volfs_front_files(self._front), inode, folder._folder,
            NULL if watch is None else &watch._watch, walk)

    def touch(self, uint64_t inode, int64_t time):
        """Names in a directory were changed at a time (ns) that its own may not tell; 0: not any more."""
        volfs_files_touch(volfs_front_files(self._front), inode, time)

    @property
    def unclosed(self):
        """The number of files that were released without Python and must be closed."""
        return volfs_files_unclosed(volfs_front_files(self._front))

    def released(self):
        """Their handles, each once."""
        cdef uint64_t handles[256]
        cdef size_t i, count = volfs_files_released(volfs_front_files(self._front), handles, 256)
        return [handles[i] for i in range(count)]

    def tidy(self):
        """Close the descriptors of folders that have ended."""
        volfs_files_tidy(volfs_front_files(self._front))

    def waiting(self):
        """Syncs that are not answered yet: operation, handle or inode, and since when (ns, CLOCK_MONOTONIC)."""
        cdef volfs_waiting waiting[64]
        cdef size_t i, count = volfs_files_waiting(volfs_front_files(self._front), waiting, 64)
        return [(OPERATIONS[waiting[i].operation], waiting[i].of, waiting[i].since) for i in range(count)]

    def left(self):
        """A request that turned out to be Python's, where no session takes it; None if there is none. For tests."""
        cdef void *request
        cdef size_t size = volfs_files_left(volfs_front_files(self._front), &request)
        if not size:
            return None
        try:
            return PyBytes_FromStringAndSize(<char *>request, size)
        finally:
            free(request)

    def answer(self, const uint8_t[::1] request, int device):
        """Answer one request. For tests."""
        cdef const uint8_t *first = &request[0] if request.shape[0] else NULL
        cdef size_t size = request.shape[0]
        cdef int answered
        with nogil:
            answered = volfs_front_answer(self._front, first, size, device, volfs_now())
        return bool(answered)

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
        """Bytes read, bytes of voxels copied for that, bytes written, and by operation: answers, nanoseconds, and the
        buckets of their durations."""
        cdef volfs_counts counts
        cdef int i, j
        volfs_front_counts(self._front, &counts)
        return counts.bytes_read, counts.bytes_copied, counts.bytes_written, {
            OPERATIONS[i]: (
                counts.answered[i], counts.nanoseconds[i], [counts.buckets[i][j] for j in range(VOLFS_BUCKETS)])
            for i in range(VOLFS_OPERATIONS)
        }

    def ahead(self):
        """Files that the kernel was given before anybody opened them, and their bytes."""
        cdef volfs_counts counts
        volfs_front_counts(self._front, &counts)
        return counts.files_ahead, counts.bytes_ahead

    def stop(self):
        """End its threads, as the end of a session does. For tests."""
        with nogil:
            volfs_front_stop(self._front)

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
