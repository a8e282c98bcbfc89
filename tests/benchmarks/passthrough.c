/* A passthrough: what libfuse costs in C, for machines without libfuse's own example.
 *
 *     passthrough SOURCE MOUNTPOINT
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int root;

/* Paths arrive with a leading slash; below `root` they are relative. */
static const char *below(const char *path) { return path[1] ? path + 1 : "."; }

static void *start(struct fuse_conn_info *connection, struct fuse_config *config)
{
	(void)connection;
	config->kernel_cache = 1;
	config->entry_timeout = config->attr_timeout = 3600;
	config->hard_remove = 1;
	return NULL;
}

static int attributes(const char *path, struct stat *out, struct fuse_file_info *info)
{
	(void)info;
	return fstatat(root, below(path), out, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int list(const char *path, void *out, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *info,
		enum fuse_readdir_flags flags)
{
	int fd = openat(root, below(path), O_RDONLY | O_DIRECTORY);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	(void)offset, (void)info, (void)flags;
	if (!directory)
		return -errno;
	while ((entry = readdir(directory)))
		if (fill(out, entry->d_name, NULL, 0, 0))
			break;
	closedir(directory);
	return 0;
}

static int opened(const char *path, struct fuse_file_info *info)
{
	int fd = openat(root, below(path), info->flags & ~(O_CREAT | O_EXCL));

	if (fd < 0)
		return -errno;
	info->fh = fd;
	return 0;
}

static int get(const char *path, char *out, size_t size, off_t offset, struct fuse_file_info *info)
{
	ssize_t got = pread(info->fh, out, size, offset);

	(void)path;
	return got < 0 ? -errno : (int)got;
}

static int closed(const char *path, struct fuse_file_info *info)
{
	(void)path;
	close(info->fh);
	return 0;
}

static int made(const char *path, mode_t mode, struct fuse_file_info *info)
{
	int fd = openat(root, below(path), (info->flags & ~O_ACCMODE) | O_CREAT | O_RDWR, mode);

	if (fd < 0)
		return -errno;
	info->fh = fd;
	return 0;
}

static int put(const char *path, const char *data, size_t size, off_t offset, struct fuse_file_info *info)
{
	ssize_t wrote = pwrite(info->fh, data, size, offset);

	(void)path;
	return wrote < 0 ? -errno : (int)wrote;
}

static int cut(const char *path, off_t size, struct fuse_file_info *info)
{
	int fd = info ? (int)info->fh : openat(root, below(path), O_WRONLY), failed;

	if (fd < 0)
		return -errno;
	failed = ftruncate(fd, size) ? errno : 0;
	if (!info)
		close(fd);
	return -failed;
}

static int synced(const char *path, int only_data, struct fuse_file_info *info)
{
	(void)path;
	return (only_data ? fdatasync(info->fh) : fsync(info->fh)) ? -errno : 0;
}

static int directory_synced(const char *path, int only_data, struct fuse_file_info *info)
{
	int fd = openat(root, below(path), O_RDONLY | O_DIRECTORY), failed;

	(void)only_data, (void)info;
	if (fd < 0)
		return -errno;
	failed = fsync(fd) ? errno : 0;
	close(fd);
	return -failed;
}

static int directory_made(const char *path, mode_t mode) { return mkdirat(root, below(path), mode) ? -errno : 0; }

static int directory_gone(const char *path) { return unlinkat(root, below(path), AT_REMOVEDIR) ? -errno : 0; }

static int gone(const char *path) { return unlinkat(root, below(path), 0) ? -errno : 0; }

static int linked(const char *path, const char *other)
{
	return linkat(root, below(path), root, below(other), 0) ? -errno : 0;
}

static int renamed(const char *path, const char *other, unsigned int flags)
{
	return renameat2(root, below(path), root, below(other), flags) ? -errno : 0;
}

static int mode_set(const char *path, mode_t mode, struct fuse_file_info *info)
{
	(void)info;
	return fchmodat(root, below(path), mode, 0) ? -errno : 0;
}

static int times_set(const char *path, const struct timespec times[2], struct fuse_file_info *info)
{
	(void)info;
	return utimensat(root, below(path), times, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static const struct fuse_operations operations = {
	.init = start, .getattr = attributes, .readdir = list, .open = opened, .read = get, .release = closed,
	.create = made, .write = put, .truncate = cut, .fsync = synced, .fsyncdir = directory_synced,
	.mkdir = directory_made, .rmdir = directory_gone, .unlink = gone, .link = linked, .rename = renamed,
	.chmod = mode_set, .utimens = times_set,
};

int main(int argc, char **argv)
{
	char *arguments[] = {argv[0], "-f", argc == 3 ? argv[2] : NULL, NULL};

	if (argc != 3 || (root = open(argv[1], O_RDONLY | O_DIRECTORY)) < 0) {
		fprintf(stderr, "usage: passthrough SOURCE MOUNTPOINT\n");
		return 2;
	}
	return fuse_main(3, arguments, &operations, NULL);
}
