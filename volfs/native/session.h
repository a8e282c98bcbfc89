/* A front on libfuse's session: whoever reads the kernel's requests, a thread of its own or pyfuse3's, has the front
 * answer what it can, and the rest goes to pyfuse3, which uses libfuse in this process.
 *
 * Decided here: how requests come to Python after that. This library stands before libfuse in symbol lookup (it is
 * loaded with RTLD_GLOBAL before pyfuse3), and has two of libfuse's functions: fuse_session_fd gives a descriptor that
 * can be read when there is a request for Python, and fuse_session_receive_buf gives that request. pyfuse3 and libfuse
 * stay as they are installed. Without volfs_session_begin both are libfuse's own.
 *
 * Memory: a request's buffer comes from malloc and goes over to the caller of fuse_session_receive_buf with it.
 * Threads: the reader thread is without Python. Everything else is called by the thread that runs the session.
 */
#ifndef VOLFS_SESSION_H
#define VOLFS_SESSION_H

#include "front.h"

#include <stdint.h>

/* Have the next session of this process, asked for its descriptor, get a front. One session at a time. */
void volfs_session_begin(struct volfs_front *front);

/* True if that has happened: requests go by the front. */
int volfs_session_fronted(void);

/* Stop reading. The session must not have been destroyed yet. Requests that were read and not taken are lost, as those
 * are that the kernel still has. No effect without a front. */
void volfs_session_end(void);

#endif
