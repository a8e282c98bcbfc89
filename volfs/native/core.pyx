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
